package scenario

import (
	"fmt"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/netproof/netproof/harness/model"
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

// maxBoundaries bounds the ports that are added to a pod.
const maxBoundaries = 32

// boundaries lets pods serve the ports at which the verdict of a policy can change: the first and the last of a range,
// and those just before and after it. So a small table stands for all 65,535. A rule of ingress speaks of ports of the
// pods that its policy selects, one of egress of those that it leads to: NetworkPolicyPort.port. It is done where a
// policy has a range, or where `probes: boundary` asks for it; then single numbers are ranges of one.
func (f *plainFolder) boundaries(asserted *AssertionsSpec) {
	word := asserted.Probes.Word
	if word == declaredPorts || word == "" && f.s.narrowed {
		return
	}
	a := f.adviser()
	left := 0
	for _, o := range f.policies {
		if o.policy == nil {
			continue
		}
		a.o = o
		for _, r := range rulesIn(o.policy) {
			ranges := rangesOf(r.ports, word == boundaryPorts)
			if len(ranges) == 0 {
				continue
			}
			pods := a.selected()
			if !r.in {
				pods = a.reached(r)
			}
			for _, pod := range pods {
				left += pod.atEdges(ranges)
			}
		}
	}
	if left > 0 {
		f.s.Notes = append(f.s.Notes, plain.Text(fmt.Sprintf("%s: %s of policies' ranges not asked about: %d are added to a pod at most", f.s.File,
			words.Count(left, "port at an edge is", "ports at edges are"), maxBoundaries)))
	}
}

// rangesOf are the ranges of a rule, with single numbers if they are wanted.
func rangesOf(ports []networkingv1.NetworkPolicyPort, single bool) (out []portRange) {
	for _, p := range ports {
		if p.Port == nil || p.Port.Type != intstr.Int || p.EndPort == nil && !single {
			continue
		}
		r := portRange{protocol: string(model.TCP), first: int(p.Port.IntVal), last: int(p.Port.IntVal)}
		if p.Protocol != nil {
			r.protocol = string(*p.Protocol)
		}
		if p.EndPort != nil {
			r.last = int(*p.EndPort)
		}
		out = append(out, r)
	}
	return out
}

// reached are the pods that a rule of egress leads to.
func (a *adviser) reached(r rule) (out []*Pod) {
	if len(r.peers) == 0 {
		for i := range a.pods {
			out = append(out, &a.pods[i])
		}
	}
	for i := range r.peers {
		out = append(out, a.peer(&r.peers[i])...)
	}
	return out
}

// atEdges lets the pod serve the ports at the edges of ranges, and counts those for which there was no room. A pod that
// declares no port only sends, and the ports of a node are not a policy's to judge.
func (p *Pod) atEdges(ranges []portRange) (left int) {
	if len(p.Ports) == 0 || p.HostNetwork {
		return 0
	}
	for _, r := range ranges {
		for _, number := range []int{r.first - 1, r.first, r.last, r.last + 1} {
			serves := slices.ContainsFunc(p.Ports, func(have Port) bool { return have.Port == number && have.Protocol == r.protocol })
			switch {
			case serves || number < 1 || number > 65535:
			case p.edges == maxBoundaries:
				left++
			default:
				p.edges++
				p.Ports = append(p.Ports, Port{Port: number, Protocol: r.protocol, At: p.At, edge: true})
			}
		}
	}
	return left
}
