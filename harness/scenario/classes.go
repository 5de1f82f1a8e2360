package scenario

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/plain"
	"github.com/netproof/netproof/harness/words"
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
// of the same kind lead to them. The verdict between two pods depends on nothing else, but for their addresses, which
// nobody knows before they run.
func (f *plainFolder) classes(asserted *AssertionsSpec) {
	t := &f.s.Spec.Topology
	if f.pairs == EveryPair || f.pairs == SomePairs && connectionsOf(t.Pods) <= smallFolder || !f.comparable() {
		return
	}
	m := &marker{t: t, rules: asserted.Rules, probes: f.s.Spec.Probes, pods: make([]strings.Builder, len(t.Pods))}
	m.topology()
	if !m.patterns() || !m.policies(f.policies) || !m.serviceShapes() {
		return // more than a machine can compare in a moment; the bounds of a run say what is too much
	}
	units := m.units()
	groups := m.group(units)
	m.services(units)
	m.leaveOut(f.s, units, groups)
	if n := len(f.s.Classes); n > 0 {
		f.s.Notes = append(f.s.Notes, plain.Text(fmt.Sprintf("%s: %s stand for %s that nothing tells apart from them; --every-pair asks about each",
			f.s.File, words.Count(n, "workload", "workloads"), words.Count(left(f.s.Classes), "other", "others"))))
	}
}

func left(classes []model.Class) (n int) {
	for _, c := range classes {
		n += len(c.Like)
	}
	return n
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
	t      *Topology
	rules  []Rule
	probes []Probe
	pods   []strings.Builder
	model  model.Topology
	// namespaceOf is the index of the namespace of each pod, and inNamespace are the pods of each.
	namespaceOf []int
	inNamespace [][]int
	// next numbers the marks.
	next int
	work int
	// shapes are the marks of services, and behind the pods that they lead to.
	shapes []string
	behind [][]int
}

// mostComparisons bounds the work: a folder may come from a stranger.
const mostComparisons = 100_000_000

// afford tells whether that much more may be compared.
func (m *marker) afford(n int) bool {
	m.work += n
	return m.work <= mostComparisons
}

// topology makes what patterns look at.
func (m *marker) topology() {
	index := map[string]int{}
	for i := range m.t.Namespaces {
		ns := &m.t.Namespaces[i]
		index[ns.Name] = i
		m.model.Namespaces = append(m.model.Namespaces, ns.model())
	}
	m.inNamespace = make([][]int, len(m.t.Namespaces))
	for i := range m.t.Pods {
		pod := m.t.Pods[i].model()
		m.model.Pods = append(m.model.Pods, pod)
		at, ok := index[pod.Namespace]
		if !ok {
			at = -1 // it was reported
		} else {
			m.inNamespace[at] = append(m.inNamespace[at], i)
		}
		m.namespaceOf = append(m.namespaceOf, at)
	}
	for i := range m.t.Services {
		m.model.Services = append(m.model.Services, m.t.Services[i].model())
	}
}

// mark marks those of the pods that a selector picks. Nil stands for all pods.
func (m *marker) mark(pods []int, selected func(i int) bool) {
	m.next++
	text := " " + strconv.Itoa(m.next)
	for _, i := range pods {
		if selected(i) {
			m.pods[i].WriteString(text)
		}
	}
}

// patterns marks what intents and probes speak of.
func (m *marker) patterns() bool {
	all := make([]int, len(m.t.Pods))
	for i := range all {
		all[i] = i
	}
	seen := map[string]bool{}
	spoken := func(p pattern) bool {
		if p.kind == everyPattern || p.kind == noPattern || p.kind != subjectPattern && seen[p.text] {
			return true
		}
		seen[p.text] = true
		if !m.afford(len(all)) {
			return false
		}
		m.mark(all, func(i int) bool { return p.matchesPod(&m.model.Pods[i]) })
		return true
	}
	for i := range m.rules {
		r := &m.rules[i]
		for _, p := range append([]pattern{r.from, r.to}, r.except...) {
			if !spoken(p) {
				return false
			}
		}
		for _, group := range r.groups {
			for _, p := range group {
				p.text = "group " + p.namespace
				if !spoken(p) {
					return false
				}
			}
		}
	}
	for i := range m.probes {
		if p := &m.probes[i]; !spoken(p.from) || !spoken(p.to) {
			return false
		}
	}
	return true
}

// policies marks what policies select.
func (m *marker) policies(policies []*object) bool {
	seen := map[string]bool{}
	for _, o := range policies {
		if !m.selected(seen, o.namespace, nil, &o.policy.Spec.PodSelector) {
			return false
		}
		for _, r := range rulesIn(o.policy) {
			for i := range r.peers {
				if p := &r.peers[i]; p.IPBlock == nil && !m.selected(seen, o.namespace, p.NamespaceSelector, p.PodSelector) {
					return false
				}
			}
		}
	}
	return true
}

// selected marks the pods that a pair of selectors picks: those of one namespace where there is no namespace selector.
func (m *marker) selected(seen map[string]bool, namespace string, namespaces, pods *metav1.LabelSelector) bool {
	podSelector, nsSelector := labels.Everything(), labels.Everything()
	var err error
	if pods != nil {
		if podSelector, err = metav1.LabelSelectorAsSelector(pods); err != nil {
			return true // it was reported
		}
	}
	key := namespace + "\n" + podSelector.String()
	if namespaces != nil {
		if nsSelector, err = metav1.LabelSelectorAsSelector(namespaces); err != nil {
			return true
		}
		key = "\n" + nsSelector.String() + "\n" + podSelector.String()
	}
	if seen[key] {
		return true
	}
	seen[key] = true
	var candidates []int
	for i := range m.model.Namespaces {
		ns := &m.model.Namespaces[i]
		if namespaces == nil && ns.Name == namespace || namespaces != nil && nsSelector.Matches(labels.Set(ns.Labels)) {
			candidates = append(candidates, m.inNamespace[i]...)
		}
	}
	if !m.afford(len(candidates) + len(m.model.Namespaces)) {
		return false
	}
	m.mark(candidates, func(i int) bool { return podSelector.Matches(labels.Set(m.model.Pods[i].Labels)) })
	return true
}

// units are the workloads, in the order of the pods, each with its marks complete.
func (m *marker) units() []unit {
	var out []unit
	at := map[model.Endpoint]int{}
	for i := range m.t.Pods {
		in, pod := &m.t.Pods[i], &m.model.Pods[i]
		b := &m.pods[i]
		fmt.Fprintf(b, "|%t %t %t", in.HostNetwork, in.stranger, in.twin)
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
		behind := m.podsBehind(s)
		if !m.afford(len(behind) * (1 + len(m.rules) + len(m.probes))) {
			return false
		}
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
		fmt.Fprintf(&m.pods[i], "|%q", shapes)
	}
	return true
}

func (m *marker) podsBehind(s *model.Service) (out []int) {
	at := slices.IndexFunc(m.model.Namespaces, func(ns model.Namespace) bool { return ns.Name == s.Namespace })
	if at < 0 || !m.afford(len(m.inNamespace[at])) {
		return nil
	}
	for _, i := range m.inNamespace[at] {
		if s.Selects(&m.model.Pods[i]) {
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
			marks.WriteString(m.pods[pod].String())
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
