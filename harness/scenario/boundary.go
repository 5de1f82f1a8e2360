package scenario

import (
	"fmt"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/netproof/netproof/harness/plain"
	"github.com/netproof/netproof/harness/words"
)

// The ports that a folder's workloads are asked about, as `probes` says them in a word.
const (
	// boundaryPorts are the declared ports, and those at the edges of what policies say about numbers.
	boundaryPorts = "boundary"
	// declaredPorts are the declared ports only.
	declaredPorts = "declared"
)

// FolderProbes are the connections that a folder of manifests is asked about: a list, or a word that says the ports on
// which every pod asks every other.
type FolderProbes struct {
	// Word is boundary or declared; empty where there is a list, or nothing.
	Word string
	// List are the connections.
	List []Probe
}

func (p *FolderProbes) decodeFrom(d *decoder, v *value) {
	if v.kind != scalarValue {
		d.value(v, valueOf(&p.List), "probes")
		return
	}
	s, ok := d.text(v, "probes")
	if !ok {
		return
	}
	if known := []string{boundaryPorts, declaredPorts}; !slices.Contains(known, s) {
		d.c.add(v.at, didYouMean(s, known)+" or write a list of connections", "%q does not say which connections are probed", shorten(s))
		return
	}
	p.Word = s
}

// portRange is what a policy says about the numbers of ports.
type portRange struct {
	protocol    string
	first, last int
}

// rangeOf is the range of a port of a rule; a single number is a range of one, and a name is none.
func rangeOf(p networkingv1.NetworkPolicyPort) (r portRange, ok bool) {
	if p.Port == nil || p.Port.Type != intstr.Int {
		return r, false
	}
	r = portRange{protocol: protocolOf(p), first: int(p.Port.IntVal), last: int(p.Port.IntVal)}
	if p.EndPort != nil {
		r.last = int(*p.EndPort)
	}
	return r, true
}

// edges are the ports between which the verdict can change.
func (r portRange) edges() (out []Port) {
	for _, number := range []int{r.first - 1, r.first, r.last, r.last + 1} {
		if number >= 1 && number <= 65535 {
			out = withPort(out, Port{Port: number, Protocol: r.protocol, edge: true})
		}
	}
	return out
}

// maxEdges bounds the ports that are added to a pod.
const maxEdges = 32

// boundaries lets pods serve the ports at which the verdict of a policy can change: the first and the last of a range,
// and those just before and after it. So a small table stands for all 65,535. A rule of ingress speaks of ports of the
// pods that its policy selects, one of egress of those that it leads to: NetworkPolicyPort.port. It is done where a
// policy has a range, or where `probes: boundary` asks for it; then single numbers are ranges of one.
func (f *plainFolder) boundaries(asserted *AssertionsSpec) {
	word := asserted.Probes.Word
	if word == declaredPorts || word == "" && f.s.narrowed {
		return
	}
	all := f.members()
	everybody := make([]*Pod, len(all.pods))
	for i := range all.pods {
		everybody[i] = &all.pods[i]
	}
	left := 0
	for _, o := range f.policies {
		if o.policy == nil {
			continue
		}
		for _, r := range rulesIn(o.policy) {
			var edges []Port
			for _, p := range r.ports {
				if found, ok := rangeOf(p); ok && (p.EndPort != nil || word == boundaryPorts) {
					edges = withPort(edges, found.edges()...)
				}
			}
			if len(edges) == 0 {
				continue
			}
			pods := everybody
			switch {
			case r.in:
				pods = all.selected(o)
			case len(r.peers) > 0:
				pods = all.peers(o, r)
			}
			for _, pod := range pods {
				left += pod.serve(edges)
			}
		}
	}
	if left > 0 {
		f.s.Notes = append(f.s.Notes, plain.Text(fmt.Sprintf("%s: %s of policies' ranges not asked about: %d are added to a pod at most", f.s.File,
			words.Count(left, "port at an edge is", "ports at edges are"), maxEdges)))
	}
}

// serve lets the pod serve ports at edges, and counts those for which there was no room. A pod that declares no port
// only sends, and the ports of a node are not a policy's to judge.
func (p *Pod) serve(edges []Port) (left int) {
	if len(p.Ports) == 0 || p.HostNetwork {
		return 0
	}
	added := 0
	for _, have := range p.Ports {
		if have.edge {
			added++
		}
	}
	for _, edge := range edges {
		edge.At = p.At
		ports := withPort(p.Ports, edge)
		switch {
		case len(ports) == len(p.Ports): // it is there
		case added == maxEdges:
			left++
		default:
			added++
			p.Ports = ports
		}
	}
	return left
}
