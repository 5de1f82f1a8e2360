package semantics

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/netproof/netproof/harness/model"
)

// Tally counts connections by their verdict.
type Tally struct {
	Allowed, Denied, Undefined int64
	// NeedsAddresses are those that depend on an address that is not known yet; they are not among the others.
	NeedsAddresses int64
}

// Total is the number of connections.
func (t Tally) Total() int64 { return t.Allowed + t.Denied + t.Undefined + t.NeedsAddresses }

func (t *Tally) add(o Tally) {
	t.Allowed += o.Allowed
	t.Denied += o.Denied
	t.Undefined += o.Undefined
	t.NeedsAddresses += o.NeedsAddresses
}

func (t *Tally) count(d Decision, n int64) {
	switch {
	case d.NeedsAddresses:
		t.NeedsAddresses += n
	case d.Verdict == model.Allow:
		t.Allowed += n
	case d.Verdict == model.Deny:
		t.Denied += n
	default:
		t.Undefined += n
	}
}

// Summary is what the policies say of all connections from each pod to each other pod's own address, on each port that
// the other pod declares.
type Summary struct {
	// Classes are pods that no policy, port or address block tells apart, in the order of their first pods.
	Classes []ClassSummary
	// Connections are those of all classes.
	Connections Tally
}

// ClassSummary is what the policies say of the connections to pods of one class.
type ClassSummary struct {
	// Of is the first pod of the class, Pods the number of all.
	Of   model.Endpoint
	Pods int
	// IsolatedIngress and IsolatedEgress tell whether any policy isolates these pods.
	IsolatedIngress, IsolatedEgress bool
	// Ports are those that the pods declare.
	Ports []PortSummary
}

// PortSummary is who reaches one port of each pod of a class. Its connections are those to all pods of the class.
type PortSummary struct {
	Port        model.Port
	Connections Tally
}

// podClass is a class while its connections are counted.
type podClass struct {
	pods []int
	// absent is true for pods that have addresses, but none of the family.
	absent bool
	// onNode are the pods by the index of their node; only asked for where a pod shares the network of its node.
	onNode map[int][]int
}

// mostClasses bounds the work, which grows with its square: policies may tell all pods apart.
const mostClasses = 10_000

// Summarize counts the verdicts of all connections between pods. It decides one connection for all that have the same
// verdict, so that a cluster of a hundred thousand pods takes seconds.
func (e *Evaluator) Summarize(family model.IPFamily) (Summary, error) {
	classes := e.classes(family)
	if len(classes) > mostClasses {
		return Summary{}, fmt.Errorf("%d classes of pods are too many to summarize: the most are %d", len(classes), mostClasses)
	}
	var out Summary
	for i := range classes {
		class, err := e.summarizeClass(classes, i, family)
		if err != nil {
			return Summary{}, err
		}
		for _, p := range class.Ports {
			out.Connections.add(p.Connections)
		}
		out.Classes = append(out.Classes, class)
	}
	return out, nil
}

func (e *Evaluator) summarizeClass(classes []podClass, to int, family model.IPFamily) (ClassSummary, error) {
	first := classes[to].pods[0]
	out := ClassSummary{
		Of: e.pods[first].Endpoint(), Pods: len(classes[to].pods),
		IsolatedIngress: len(e.isolating[ingress][first]) > 0, IsolatedEgress: len(e.isolating[egress][first]) > 0,
	}
	for _, p := range e.pods[first].Ports {
		row := PortSummary{Port: p}
		for from := range classes {
			if classes[from].absent || classes[to].absent {
				continue // there is no such connection
			}
			for _, pair := range e.pairs(&classes[from], &classes[to]) {
				d, err := e.Decide(model.Connection{
					From: e.pods[pair.from].Endpoint(), To: e.pods[pair.to].Endpoint(), Port: p.Number, Protocol: p.Protocol, IPFamily: family,
				})
				if err != nil {
					return out, err
				}
				row.Connections.count(d, pair.n)
			}
		}
		out.Ports = append(out.Ports, row)
	}
	return out, nil
}

// pair is a connection from one pod to another that stands for n like it.
type pair struct {
	from, to int
	n        int64
}

// pairs gives one pair for all between two classes. Where a pod shares the network of its node, "traffic to and from
// the node where a Pod is running is always allowed", and pairs on one node differ from those on two.
func (e *Evaluator) pairs(from, to *podClass) (out []pair) {
	all := int64(len(from.pods)) * int64(len(to.pods))
	same := from == to
	if same {
		all -= int64(len(from.pods))
	}
	if all == 0 {
		return nil
	}
	if !e.pods[from.pods[0]].HostNetwork && !e.pods[to.pods[0]].HostNetwork {
		if same {
			return []pair{{from.pods[0], from.pods[1], all}}
		}
		return []pair{{from.pods[0], to.pods[0], all}}
	}
	var near, far pair
	for node, here := range from.onNode {
		there := to.onNode[node]
		n := int64(len(here)) * int64(len(there))
		if same {
			n -= int64(len(here))
		}
		switch {
		case n == 0:
		case same:
			near.from, near.to = here[0], here[1]
		default:
			near.from, near.to = here[0], there[0]
		}
		near.n += n
		if far.n == 0 {
			for other, pods := range to.onNode {
				if other != node {
					far = pair{here[0], pods[0], 1}
					break
				}
			}
		}
	}
	if near.n > 0 {
		out = append(out, near)
	}
	if far.n = all - near.n; far.n > 0 {
		out = append(out, far)
	}
	return out
}

// classes puts pods together that nothing tells apart: the same selectors of policies match them, they declare the same
// ports, and their addresses, or those of their nodes where they share them, lie in the same blocks.
func (e *Evaluator) classes(family model.IPFamily) []podClass {
	of := make([]int, len(e.pods)) // the class of each pod
	count := min(len(e.pods), 1)
	// split gives the pods of one mark classes of their own.
	split := func(marked func(yield func(int) bool)) {
		parts := map[int]int{}
		for pod := range marked {
			part, ok := parts[of[pod]]
			if !ok {
				part = count
				count++
				parts[of[pod]] = part
			}
			of[pod] = part
		}
	}
	seen := map[*uint64]bool{} // policies with the same selectors share their sets
	var blocks []netip.Prefix
	mark := func(s podSet) {
		if len(s) > 0 && !seen[&s[0]] {
			seen[&s[0]] = true
			split(s.all())
		}
	}
	for _, p := range e.policies {
		mark(p.selects)
		for _, rules := range p.rules {
			for i := range rules {
				for j := range rules[i].peers {
					peer := &rules[i].peers[j]
					if !peer.isBlock() {
						mark(peer.matches)
						continue
					}
					blocks = append(append(blocks, peer.block), peer.except...)
				}
			}
		}
	}
	slices.SortFunc(blocks, netip.Prefix.Compare)
	blocks = slices.Compact(blocks)
	shapes := map[string][]int{}
	for i := range e.pods {
		shape := e.shape(i, family, blocks)
		shapes[shape] = append(shapes[shape], i)
	}
	for _, pods := range shapes {
		split(slices.Values(pods))
	}
	var out []podClass
	number := map[int]int{} // classes in the order of their first pods
	for i, c := range of {
		n, ok := number[c]
		if !ok {
			n = len(out)
			number[c] = n
			_, err := e.locate(e.pods[i].Endpoint(), family)
			out = append(out, podClass{onNode: map[int][]int{}, absent: err != nil})
		}
		out[n].pods = append(out[n].pods, i)
		out[n].onNode[e.pods[i].Node] = append(out[n].onNode[e.pods[i].Node], i)
	}
	return out
}

// shape is what of a pod counts beside its labels and its namespace.
func (e *Evaluator) shape(index int, family model.IPFamily, blocks []netip.Prefix) string {
	pod := &e.pods[index]
	b := fmt.Appendf(nil, "%t", pod.HostNetwork)
	for _, p := range pod.Ports {
		b = fmt.Appendf(b, " %d/%s %q", p.Number, p.Protocol, p.Name)
	}
	within := func(a netip.Addr) {
		b = append(b, '|')
		for i, block := range blocks {
			if block.Contains(a) {
				b = strconv.AppendInt(append(b, ' '), int64(i), 10)
			}
		}
	}
	at, err := e.locate(pod.Endpoint(), family)
	switch {
	case err != nil:
		b = append(b, "|absent"...)
	case !at.addr.IsValid():
		b = append(b, "|unknown"...)
	default:
		within(at.addr)
	}
	if pod.HostNetwork {
		addrs, known := e.nodeAddresses(pod.Node, family)
		b = fmt.Appendf(b, "|node %t", known)
		for _, a := range addrs {
			within(a)
		}
	}
	return string(b)
}
