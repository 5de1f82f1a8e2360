package scenario

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/netproof/netproof/harness/model"
)

// Pairs says which pairs of workloads a folder of manifests is asked about.
type Pairs int

const (
	// SomePairs are every pair of a small folder, and one pair for each pair of classes of a large one.
	SomePairs Pairs = iota
	// EveryPair is every pair of workloads.
	EveryPair
	// PairsOfClasses is one pair for each pair of classes.
	PairsOfClasses
)

// smallFolder is how many connections of one IP family a folder may have that is asked about every pair: its table can
// still be read.
const smallFolder = 1000

// unit is a workload with its pods, or a stranger.
type unit struct {
	name model.Endpoint
	pods []int
	// kept is false for a unit that another one stands for.
	kept bool
	// class is the index of its class.
	class int
}

// classes leaves out the workloads that another one of their class stands for. Two workloads are of one class when the
// same pod selectors, namespace selectors and patterns of intents match them, they serve the same ports, and services
// of the same kind lead to them. The verdict between two pods depends on nothing else, but for their addresses and
// their nodes, which nobody knows before they run. A pod on the network of its node is in a class of its own: who
// shares the node with it matters more than what matches it.
func (f *plainFolder) classes(asserted *AssertionsSpec) {
	t := &f.s.Spec.Topology
	if f.pairs == EveryPair || f.pairs == SomePairs && connectionsOf(t.Pods) <= smallFolder || !f.comparable() {
		return
	}
	m := f.marker(asserted)
	if !m.patterns() || !m.policies(f.policies) || !m.serviceShapes() {
		return // more than a machine can compare in a moment; the bounds of a run say what is too much
	}
	units := m.units()
	groups := m.group(units)
	m.services(units)
	m.leaveOut(f.s, units, groups)
}

// connectionsOf counts the connections between all pods.
func connectionsOf(pods []Pod) (n int) {
	for i := range pods {
		n += len(pods[i].Ports) * (len(pods) - 1)
	}
	return n
}

// comparable tells whether it can be said what tells workloads apart: nobody knows what objects of other kinds select,
// and a placeholder names one pod.
func (f *plainFolder) comparable() bool {
	if len(f.s.LeftOut) > 0 {
		return false
	}
	return !slices.ContainsFunc(f.policies, func(o *object) bool { return o.policy == nil || len(o.placeholders) > 0 })
}

// marker writes down for each pod what matches it. Pods with equal marks are alike.
type marker struct {
	*members
	t      *Topology
	rules  []Rule
	probes []Probe
	// model is what patterns look at, and at the index of each pod.
	model model.Topology
	at    map[*Pod]int
	// marks are those of each pod, numbered by next.
	marks []strings.Builder
	next  int
	work  int
	// shapes are the marks of services, and behind the pods that they lead to.
	shapes []string
	behind [][]int
}

func (f *plainFolder) marker(asserted *AssertionsSpec) *marker {
	t := &f.s.Spec.Topology
	m := &marker{
		members: f.members(), t: t, rules: asserted.Rules, probes: f.s.Spec.Probes,
		at: make(map[*Pod]int, len(t.Pods)), marks: make([]strings.Builder, len(t.Pods)),
	}
	for i := range t.Pods {
		m.at[&t.Pods[i]] = i
		m.model.Pods = append(m.model.Pods, t.Pods[i].model())
	}
	for i := range t.Services {
		m.model.Services = append(m.model.Services, t.Services[i].model())
	}
	return m
}

// mostComparisons bounds the work, and the memory: a folder may come from a stranger. What is more is asked pair by
// pair, within the bounds of a run.
const mostComparisons = 20_000_000

// afford tells whether that much more may be compared.
func (m *marker) afford(n int) bool {
	m.work += n
	return m.work <= mostComparisons
}

// number gives the next mark.
func (m *marker) number() string {
	m.next++
	return " " + strconv.Itoa(m.next)
}

// patterns marks what intents and probes speak of. It returns false for more than can be compared.
func (m *marker) patterns() bool {
	var all []pattern
	for i := range m.rules {
		r := &m.rules[i]
		all = append(append(all, r.from, r.to), r.except...)
		all = append(all, slices.Concat(r.groups...)...)
	}
	for i := range m.probes {
		all = append(all, m.probes[i].from, m.probes[i].to)
	}
	for _, p := range all {
		if p.kind == everyPattern || p.kind == noPattern {
			continue
		}
		if !m.afford(len(m.marks)) {
			return false
		}
		mark := m.number()
		for i := range m.marks {
			if p.matchesPod(&m.model.Pods[i]) {
				m.marks[i].WriteString(mark)
			}
		}
	}
	return true
}

// policies marks whom policies select, and whom they speak of. It returns false for more than can be compared.
func (m *marker) policies(policies []*object) bool {
	seen := map[string]bool{}
	mark := func(o *object, p *networkingv1.NetworkPolicyPeer) bool {
		if !m.afford(len(m.marks)) { // also for what was seen: whoever evaluates the policies looks at each
			return false
		}
		scope := "namespace " + o.namespace
		if p.NamespaceSelector != nil {
			scope = m.selector(p.NamespaceSelector).String()
		}
		who := ""
		if p.PodSelector != nil {
			who = m.selector(p.PodSelector).String()
		}
		key := fmt.Sprintf("%q %q", scope, who)
		if seen[key] {
			return true
		}
		seen[key] = true
		number := m.number()
		for _, pod := range m.peer(o, p) {
			m.marks[m.at[pod]].WriteString(number)
		}
		return true
	}
	for _, o := range policies {
		if !mark(o, subject(o)) {
			return false
		}
		for _, r := range rulesIn(o.policy) {
			for i := range r.peers {
				if p := &r.peers[i]; p.IPBlock == nil && !mark(o, p) {
					return false
				}
			}
		}
	}
	return true
}

// units are the workloads, in the order of the pods, each with its marks complete.
func (m *marker) units() []unit {
	var out []unit
	at := map[model.Endpoint]int{}
	for i := range m.t.Pods {
		in, pod := &m.t.Pods[i], &m.model.Pods[i]
		b := &m.marks[i]
		fmt.Fprintf(b, "|%t %t", in.stranger, in.twin)
		if in.HostNetwork {
			b.WriteString(m.number())
		}
		if in.Node != nil {
			fmt.Fprintf(b, " on %d", *in.Node)
		}
		for _, p := range pod.Ports {
			fmt.Fprintf(b, " %s %q", p, p.Name)
		}
		name := model.PodEndpoint(pod.Namespace, cmp.Or(pod.Workload, pod.Name))
		u, ok := at[name]
		if !ok {
			u = len(out)
			at[name] = u
			out = append(out, unit{name: name, kept: true})
		}
		out[u].pods = append(out[u].pods, i)
	}
	return out
}

// serviceShapes says what of a service counts, and marks the pods that it leads to.
func (m *marker) serviceShapes() bool {
	of := make([][]string, len(m.t.Pods))
	for i := range m.model.Services {
		s := &m.model.Services[i]
		shape := s.Type
		for _, p := range s.Ports {
			shape += fmt.Sprintf(" %s %q %q", p.Port, p.Port.Name, p.Target)
		}
		if !m.afford(len(m.podsOf[s.Namespace]) * (1 + len(m.rules) + len(m.probes))) {
			return false
		}
		behind := m.podsBehind(s)
		spoken := func(p pattern) {
			if p.kind != everyPattern && p.matchesServiceOf(s, m.model.Pods, behind) {
				shape += " " + p.text
			}
		}
		for j := range m.rules {
			spoken(m.rules[j].to)
		}
		for j := range m.probes {
			spoken(m.probes[j].to)
		}
		m.shapes, m.behind = append(m.shapes, shape), append(m.behind, behind)
		for _, pod := range behind {
			of[pod] = append(of[pod], shape)
		}
	}
	for i, shapes := range of {
		slices.Sort(shapes)
		fmt.Fprintf(&m.marks[i], "|%q", shapes)
	}
	return true
}

func (m *marker) podsBehind(s *model.Service) (out []int) {
	for _, pod := range m.podsOf[s.Namespace] {
		if i := m.at[pod]; s.Selects(&m.model.Pods[i]) {
			out = append(out, i)
		}
	}
	return out
}

// group puts units of the same marks together, and keeps the first of each class. It gives the units of each class.
func (m *marker) group(units []unit) [][]int {
	class := map[string]int{}
	var groups [][]int
	for i := range units {
		var marks strings.Builder
		for _, pod := range units[i].pods {
			marks.WriteString(m.marks[pod].String())
			marks.WriteByte('\n')
		}
		c, ok := class[marks.String()]
		if !ok {
			c = len(groups)
			class[marks.String()] = c
			groups = append(groups, nil)
		}
		units[i].class, units[i].kept = c, !ok
		groups[c] = append(groups[c], i)
	}
	return groups
}

// services keeps one service of each kind that leads to the same classes. Where none of them leads to kept workloads
// of all those classes, workloads behind the first are kept beside those that are.
func (m *marker) services(units []unit) {
	unitOf := make([]int, len(m.t.Pods))
	for i := range units {
		for _, pod := range units[i].pods {
			unitOf[pod] = i
		}
	}
	kinds := map[string][]int{}
	var order []string
	behind := make([][]int, len(m.model.Services)) // a unit of each class, a kept one if there is one
	whole := make([]bool, len(m.model.Services))
	for i := range m.model.Services {
		of := map[int]int{}
		for _, pod := range m.behind[i] {
			u := unitOf[pod]
			if have, ok := of[units[u].class]; !ok || !units[have].kept {
				of[units[u].class] = u
			}
		}
		whole[i] = true
		for _, c := range slices.Sorted(maps.Keys(of)) {
			behind[i] = append(behind[i], of[c])
			whole[i] = whole[i] && units[of[c]].kept
		}
		kind := fmt.Sprint(m.shapes[i], slices.Sorted(maps.Keys(of)))
		if _, ok := kinds[kind]; !ok {
			order = append(order, kind)
		}
		kinds[kind] = append(kinds[kind], i)
	}
	for _, kind := range order {
		list := kinds[kind]
		at := max(slices.IndexFunc(list, func(i int) bool { return whole[i] }), 0)
		for _, u := range behind[list[at]] {
			units[u].kept = true
		}
		for i, s := range list {
			m.t.Services[s].like = i != at
		}
	}
}

// leaveOut marks the pods that are left out, and the second workload of each class, which only the first one asks.
func (m *marker) leaveOut(s *Scenario, units []unit, groups [][]int) {
	for _, group := range groups {
		first := &units[group[0]]
		class := model.Class{Of: first.name}
		var leftOut []model.Endpoint
		for _, u := range group[1:] {
			if units[u].kept { // a service needs it, and it is asked about like any other
				class.Like = append(class.Like, units[u].name)
				continue
			}
			leftOut = append(leftOut, units[u].name)
			for _, pod := range units[u].pods {
				m.t.Pods[pod].like = true
			}
		}
		if len(leftOut) == 0 {
			continue
		}
		if alone := len(first.pods) == 1 && len(class.Like) == 0; alone && len(m.t.Pods[first.pods[0]].Ports) > 0 {
			second := &m.t.Pods[slices.IndexFunc(m.t.Pods, func(p Pod) bool { return p.endpoint() == leftOut[0] })]
			second.like, second.second = false, first.name
		}
		class.Like = append(class.Like, leftOut...)
		s.Classes = append(s.Classes, class)
	}
}
