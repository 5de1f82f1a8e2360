package scenario

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/plain"
	"github.com/netproof/netproof/harness/words"
)

// The strangers that a folder of manifests is asked about.
const (
	strangerPods      = "pods"
	strangerNamespace = "namespace"
	strangerNode      = "node"
	strangerOutside   = "outside"
)

var allStrangers = []string{strangerPods, strangerNamespace, strangerNode, strangerOutside}

// strangerName is what pods and the namespace of strangers are called.
const strangerName = "stranger"

// strangers are those whom the folder does not mention, which shows that it is closed to them: a pod without labels in
// each of its namespaces, one in a namespace of its own, a node, and an address outside the cluster, which sends and is
// sent to. Where netproof.yaml names the connections, these are all.
func (f *plainFolder) strangers(asserted *AssertionsSpec) []Probe {
	out := &outside{hosts: slices.Clone(asserted.Hosts)}
	out.metadata(asserted)
	out.spokenOf(asserted)
	if wanted := f.wanted(asserted); len(f.stand) > 0 {
		f.ask(out, wanted)
	}
	if n := len(out.hosts); n > maxHosts {
		f.add(out.hosts[maxHosts].At, "name those that matter", "there are %d hosts, and %d are the most", n, maxHosts)
	}
	asserted.Hosts = out.hosts
	return out.probes
}

// wanted are the strangers that netproof.yaml names, or all.
func (f *plainFolder) wanted(asserted *AssertionsSpec) []string {
	switch {
	case asserted.strangersAt != nil:
		return asserted.Strangers
	case f.s.narrowed:
		return nil
	case f.lent:
		f.s.Notes = append(f.s.Notes, plain.Text(f.s.File+": no pod in a namespace of its own is asked about: this run was lent its namespaces"))
		return slices.DeleteFunc(slices.Clone(allStrangers), func(name string) bool { return name == strangerNamespace })
	}
	return allStrangers
}

// ask adds the strangers, and what they try.
func (f *plainFolder) ask(out *outside, wanted []string) {
	f.strangerPods(&f.s.Spec.Topology, wanted)
	if slices.Contains(wanted, strangerNode) {
		node := pattern{text: string(model.NodeEndpoint(0)), kind: nodePattern}
		out.probes = append(out.probes, madeProbe(node, theirPods, f.s.At))
	}
	if slices.Contains(wanted, strangerOutside) {
		all := f.blocks()
		out.stranger(all, f.openPorts(), f.s.At)
		out.blocks(all)
		if out.left > 0 {
			f.s.Notes = append(f.s.Notes, plain.Text(fmt.Sprintf("%s: %s not asked about: %d hosts are made at most; netproof.yaml can declare those that matter",
				f.s.File, words.Count(out.left, "place in or around address blocks is", "places in or around address blocks are"), maxMadeHosts)))
		}
	}
}

// strangerPods adds the pods.
func (f *plainFolder) strangerPods(t *Topology, wanted []string) {
	taken := map[string]bool{}
	for i := range t.Pods {
		taken[t.Pods[i].Name] = true
	}
	add := func(namespace string) {
		name := strangerName
		for i := 2; taken[namespace+"/"+name]; i++ {
			name = fmt.Sprintf("%s-%d", strangerName, i)
		}
		t.Pods = append(t.Pods, Pod{Name: namespace + "/" + name, At: f.s.At, stranger: true})
	}
	namespaces := slices.Clone(t.Namespaces)
	if slices.Contains(wanted, strangerPods) {
		for _, ns := range namespaces {
			add(ns.Name)
		}
	}
	if slices.Contains(wanted, strangerNamespace) {
		name := strangerName
		for i := 2; slices.ContainsFunc(namespaces, func(ns Namespace) bool { return ns.Name == name }); i++ {
			name = fmt.Sprintf("%s-%d", strangerName, i)
		}
		t.Namespaces = append(t.Namespaces, Namespace{Name: name, At: f.s.At, stranger: true})
		add(name)
	}
}

// openPorts are the ports on which policies let pods send to everybody.
func (f *plainFolder) openPorts() (out []Port) {
	const most = 6
	for _, o := range f.policies {
		if o.policy == nil {
			continue
		}
		for _, r := range o.policy.Spec.Egress {
			everybody := len(r.To) == 0 || slices.ContainsFunc(r.To, func(p networkingv1.NetworkPolicyPeer) bool {
				return p.IPBlock != nil && strings.HasSuffix(p.IPBlock.CIDR, "/0")
			})
			if everybody && len(out) < most {
				out = withPort(out, portsOfRule(r.Ports)...)
			}
		}
	}
	return out
}

// stranger adds the host that no policy means: at addresses for documentation (RFC 5737, RFC 3849) that are in as few
// address blocks as possible.
func (out *outside) stranger(all []block, ports []Port, at Position) {
	pick := func(candidates ...string) netip.Addr {
		var best netip.Addr
		fewest := -1
		for _, text := range candidates {
			a := netip.MustParseAddr(text)
			n := 0
			for _, b := range all {
				if b.cidr.Contains(a) && b.cidr.Bits() > 0 {
					n++
				}
			}
			if out.at(a) == nil && (fewest < 0 || n < fewest) {
				best, fewest = a, n
			}
		}
		return best
	}
	h := Host{Name: strangerName, At: at, Ports: withPort([]Port{httpsPort}, ports...), stranger: true}
	for i := 2; slices.ContainsFunc(out.hosts, func(have Host) bool { return have.Name == h.Name }); i++ {
		h.Name = fmt.Sprintf("%s-%d", strangerName, i)
	}
	for _, a := range []netip.Addr{
		pick("198.51.100.77", "192.0.2.77", "203.0.113.250"), pick("2001:db8:77::77", "2001:db8:1977::77", "3fff:77::77"),
	} {
		if a.IsValid() {
			h.addresses = append(h.addresses, a)
		}
	}
	out.hosts = append(out.hosts, h)
	host := pattern{text: string(model.HostEndpoint(h.Name)), kind: hostPattern, name: h.Name}
	out.probes = append(out.probes, madeProbe(host, theirPods, at), madeProbe(theirPods, host, at))
}

// matchesSubject tells whether a pod is one of the folder's own that a policy selects, or that any could.
func (p pattern) matchesSubject(pod *model.Pod) bool {
	if pod.HostNetwork || pod.Stranger {
		return false
	}
	return p.namespace == "" || p.namespace == pod.Namespace && p.selector.Matches(labels.Set(pod.Labels))
}
