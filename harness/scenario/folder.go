package scenario

import (
	"cmp"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/plain"
	"github.com/netproof/netproof/harness/policy"
	"github.com/netproof/netproof/harness/words"
)

// The steps of a scenario that is made of plain manifests.
const (
	// OpenStep comes first: every workload reaches every other.
	OpenStep = "before any policy"
	// PoliciesStep applies all policies at once.
	PoliciesStep = "policies"
)

// plainFolder makes one scenario out of plain manifests: the policies are applied, and each workload is stood in for by
// probe pods with its namespace, name, labels and ports.
type plainFolder struct {
	*loader
	s *Scenario
	// workloads, namespaces and services as they are found, with the objects they come from.
	stand      []*standIn
	namespaces map[string]*Namespace
	policies   []*object
	services   []*object
	// seen are the objects that count, to find those that are written twice.
	seen map[policy.Ref]*object
	// owners are the workloads of the folder, and autoscaled those of them that are scaled, with their most replicas.
	owners     map[workloadKey]bool
	autoscaled map[workloadKey]int
	// owned counts the pods and ReplicaSets of a dump whose owner is in the folder. finished are its ended pods and
	// Jobs, asleep the workloads that are scaled to 0.
	owned            int
	finished, asleep []*object
	// ignored are services that nothing is asked about, by the reason.
	ignored map[string][]*object
	// values are those that policies and services select by, by label.
	values map[string][]string
	// roots are the paths that were given.
	roots []string
	// left is true when labels of a namespace were left out.
	left bool
	// passedOver counts objects that say nothing about connections, by kind.
	passedOver map[string]int
}

// plain makes one scenario of a set of manifests, or returns nil when there is no policy.
func (l *loader) plain(set *plainSet) *Scenario {
	before := l.count()
	root := set.roots[0]
	f := &plainFolder{
		loader: l, s: &Scenario{APIVersion: model.APIVersion, Kind: Kind, File: root.shown, Plain: true},
		namespaces: map[string]*Namespace{}, seen: map[policy.Ref]*object{}, owners: map[workloadKey]bool{}, autoscaled: map[workloadKey]int{},
		passedOver: map[string]int{},
	}
	f.s.At = root.start()
	var shown []string
	for _, r := range set.roots {
		if !slices.Contains(shown, r.shown) {
			shown = append(shown, r.shown)
		}
	}
	f.s.File, f.roots = strings.Join(shown, " "), shown
	home := set.home
	if home == nil {
		home = &root
	}
	if home.root.Links() || l.fsys != nil {
		l.keepExpected(f.s, home.join("expected.txt"))
	}
	assertions := set.assertions
	broken := false
	for _, m := range set.manifests {
		for _, o := range l.objectsOf(m) {
			f.sort(o)
		}
		broken = broken || m.broken
		f.s.Files = append(f.s.Files, m.input())
	}
	if assertions != nil {
		f.s.Files = append(f.s.Files, assertions.input())
	}
	if l.outside != nil {
		f.s.Files = append(f.s.Files, l.outside.input)
	}
	f.s.Metadata = Metadata{Name: l.folderName(root.shown), At: f.s.At}
	asserted := f.assertions(assertions)
	f.s.narrowed = len(asserted.Probes.List) > 0
	l.outside.addTo(asserted)
	// Without a workload there is nobody whom a policy that is left out could matter to.
	none := len(f.policies) == 0 && (len(f.s.LeftOut) == 0 || len(f.stand) == 0)
	if none && assertions == nil {
		return nil
	}
	if none && !assertions.broken && l.count() == before {
		l.add(assertions.start(), "add the policies that it speaks of to the folder", "netproof.yaml asserts something about a folder without policies")
	}
	f.selectsByPodSecurity()
	f.workloads()
	f.topology()
	f.advise()
	f.boundaries(asserted)
	f.setGroups(asserted.Rules)
	f.steps(asserted, f.strangers(asserted))
	f.classes(asserted)
	f.notes(root)
	for _, note := range set.notes {
		f.s.Notes = append(f.s.Notes, plain.Text(note))
	}
	f.s.broken = broken || l.count() > before
	if none {
		return nil
	}
	return f.s
}

// sort puts an object where it belongs.
func (f *plainFolder) sort(o *object) {
	switch o.role {
	case policyRole:
		if !f.again(o) {
			f.policies = append(f.policies, o)
		}
	case workloadRole:
		if !f.again(o) {
			f.stand = append(f.stand, &standIn{object: o})
			f.owners[workloadKey{o.gvk.GroupKind(), o.namespace, o.name}] = true
		}
	case serviceRole:
		if !f.again(o) {
			f.services = append(f.services, o)
		}
	case namespaceRole:
		f.namespaceObject(o)
	case scenarioRole:
		f.add(o.at, "name the file scenario.yaml or NAME.scenario.yaml, or give it as a path of its own", "a scenario stands in a file that is not named as one")
	case assertionsRole:
		f.add(o.at, "name the file netproof.yaml and put it into the folder that is given", "assertions stand in a file that is not named netproof.yaml")
	default:
		if u, ok := unjudgedOf(o); ok {
			f.leave(u)
			return
		}
		if o.gvk.Group == "autoscaling" && o.gvk.Kind == "HorizontalPodAutoscaler" {
			f.autoscaler(o)
		}
		f.passedOver[o.gvk.Kind]++
	}
}

// again tells whether an object counts already. kubectl apply takes one that is written twice; where the two differ, it
// depends on the order of the files which of them is in force.
func (f *plainFolder) again(o *object) bool {
	for i := 2; o.generated && f.seen[o.key()] != nil; i++ {
		o.name = fmt.Sprintf("%s-%d", strings.TrimSuffix(o.name, fmt.Sprintf("-%d", i-1)), i)
	}
	other, twice := f.seen[o.key()]
	switch {
	case !twice:
		f.seen[o.key()] = o
	case !reflect.DeepEqual(o.unstructured(), other.unstructured()):
		at := o.at
		if v := o.tree.get("metadata").get("name"); v != nil {
			at = v.at
		}
		f.add(at, "keep one of them", "duplicate %s: it differs from %s", o, other.at.Short())
	}
	return twice
}

// leave leaves out a policy of a kind that is not applied.
func (f *plainFolder) leave(u Unjudged) {
	f.s.LeftOut = append(f.s.LeftOut, u)
	f.leftOut = append(f.leftOut, u)
	f.s.Warnings = append(f.s.Warnings, problemAt(u.Source, "", "%s is left out: netproof does not apply policies of %s, so nothing is proven about it",
		u.ref(), u.Group))
}

// notes says what of the folder a run makes no pod of, or another one than it may seem.
func (f *plainFolder) notes(root source) {
	add := func(format string, args ...any) {
		f.s.Notes = append(f.s.Notes, plain.Text(root.shown+": "+fmt.Sprintf(format, args...)))
	}
	if len(f.passedOver) > 0 {
		total := 0
		for _, n := range f.passedOver {
			total += n
		}
		add("%s neither a policy nor a workload: %s", words.Count(total, "object is", "objects are"), kindsOf(f.passedOver))
	}
	for _, why := range keys(f.ignored) {
		add("%s, left out: %s", words.Count(len(f.ignored[why]), "service", "services")+" "+why, objectNames(f.ignored[why]))
	}
	if f.owned > 0 {
		add("%s to workloads of the folder, which are stood in for", words.Count(f.owned, "pod or ReplicaSet belongs", "pods and ReplicaSets belong"))
	}
	if len(f.finished) > 0 {
		add("%s finished, so nothing can be asked about them: %s", words.Count(len(f.finished), "pod or Job has", "pods and Jobs have"), objectNames(f.finished))
	}
	if len(f.asleep) > 0 {
		add("%s scaled to 0, and proven as if it had one pod: %s", words.Count(len(f.asleep), "workload is", "workloads are"), objectNames(f.asleep))
	}
}

// mostNamed is how many kinds or objects a note names.
const mostNamed = 8

// objectNames names objects, the first ones of many.
func objectNames(objects []*object) string {
	var names []string
	for _, o := range objects[:min(len(objects), mostNamed)] {
		names = append(names, o.String())
	}
	if more := len(objects) - mostNamed; more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}

// kindsOf says how many objects there are of each kind, those of most objects first.
func kindsOf(counts map[string]int) string {
	kinds := keys(counts)
	slices.SortStableFunc(kinds, func(a, b string) int { return cmp.Compare(counts[b], counts[a]) })
	others := 0
	var parts []string
	for i, kind := range kinds {
		if i < mostNamed {
			parts = append(parts, fmt.Sprintf("%d of kind %s", counts[kind], kind))
		} else {
			others += counts[kind]
		}
	}
	if others > 0 {
		parts = append(parts, fmt.Sprintf("%d of others", others))
	}
	return strings.Join(parts, ", ")
}

func (f *plainFolder) namespaceObject(o *object) {
	at := o.at
	if name := o.tree.get("metadata").get("name"); name != nil {
		at = name.at
	}
	if clusterNamespaces[o.name] {
		// Each dump has them. They count only where a workload or a policy is in one of them.
		f.passedOver[o.gvk.Kind]++
		return
	}
	if !checkNamespaceName(&f.collector, at, o.name) {
		return
	}
	if other, twice := f.seen[o.key()]; twice {
		if !maps.Equal(o.meta.Labels, other.meta.Labels) {
			f.add(at, "keep one of them, or give both the same labels", "duplicate %s: its labels differ from those at %s", o, other.at.Short())
		}
		return
	}
	f.seen[o.key()] = o
	if where := o.tree.get("metadata").get("labels"); where != nil {
		checkLabels(&f.collector, where, withValues(o.meta.Labels))
	}
	f.namespaces[o.name] = &Namespace{Name: o.name, Labels: f.withoutPodSecurity(o), At: o.at}
}

// withoutPodSecurity are the labels of a namespace without those that say what pods it admits. They are common in
// manifests, mean nothing to a network policy, and must not reach a cluster that others use. A policy that selects by
// them is refused.
func (f *plainFolder) withoutPodSecurity(o *object) map[string]string {
	out := maps.Clone(o.meta.Labels)
	maps.DeleteFunc(out, func(key, _ string) bool { return strings.HasPrefix(key, podSecurityLabels) })
	f.left = f.left || len(out) < len(o.meta.Labels)
	return out
}

// selectsByPodSecurity reports policies that speak of labels that were left out.
func (f *plainFolder) selectsByPodSecurity() {
	for _, o := range f.policies {
		if at := findText(o.tree.get("spec"), podSecurityLabels); f.left && at != nil {
			f.add(at.at, "select the namespaces by another label", "%s selects by a label `%s...`, and those are not set for a proof", o, podSecurityLabels)
		}
	}
}

// findText finds a key or a value that holds a text, nil if there is none.
func findText(v *value, text string) *value {
	if v == nil {
		return nil
	}
	if strings.Contains(v.text, text) {
		return v
	}
	for _, item := range v.items {
		if found := findText(item, text); found != nil {
			return found
		}
	}
	for _, e := range v.entries {
		if found := findText(e.key, text); found != nil {
			return found
		}
		if found := findText(e.value, text); found != nil {
			return found
		}
	}
	return nil
}

// folderName makes the name of a scenario out of the name of a folder.
func (l *loader) folderName(root string) string {
	name := root
	if l.fsys == nil {
		if abs, err := filepath.Abs(root); err == nil {
			name = abs
		}
	}
	name = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '.':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '-'
	}, filepath.Base(name))
	return cmp.Or(strings.Trim(name, "-."), "manifests")
}

// assertions reads netproof.yaml.
func (f *plainFolder) assertions(m *manifest) *AssertionsSpec {
	if m == nil {
		return &AssertionsSpec{}
	}
	a, root, ok := f.readAssertions(m)
	if !ok {
		return &AssertionsSpec{}
	}
	if meta := root.get("metadata"); meta != nil && meta.kind == mappingValue {
		if meta.get("name") == nil {
			a.Metadata.Name = f.s.Metadata.Name
		}
		f.checkMetadata(&a.Metadata, root)
		f.s.Metadata = a.Metadata
	}
	a.Spec.strangersAt, a.Spec.stepsAt = root.get("spec").get("strangers"), root.get("spec").get("steps")
	f.checkStrangers(&a.Spec)
	return &a.Spec
}

func (f *plainFolder) checkStrangers(spec *AssertionsSpec) {
	for i, name := range spec.Strangers {
		if !slices.Contains(allStrangers, name) {
			f.add(spec.strangersAt.items[i].at, didYouMean(name, allStrangers), "%q is not a kind of stranger", shorten(name))
		}
	}
}

// topology puts together what exists before the first step.
func (f *plainFolder) topology() {
	t := &f.s.Spec.Topology
	t.At = f.s.At
	var objects []*object
	known := keys(f.namespaces)
	for _, s := range f.stand {
		objects = append(objects, s.object)
		known = append(known, s.object.namespace)
	}
	for _, o := range slices.Concat(objects, f.policies) {
		if o.namespace == "" {
			continue
		}
		if _, ok := f.namespaces[o.namespace]; !ok {
			at := o.at
			if written := o.tree.get("metadata").get("namespace"); written != nil {
				at = written.at
			}
			if checkNamespaceName(&f.collector, at, o.namespace) {
				f.namespaces[o.namespace] = &Namespace{Name: o.namespace, At: at, unknown: true}
				if near := suggest(o.namespace, known); o.role == policyRole && near != "" {
					f.s.Warnings = append(f.s.Warnings, problemAt(at, fmt.Sprintf("did you mean `%s`?", near),
						"nothing else of the folder is in namespace `%s` of %s", o.namespace, o))
				}
			}
		}
	}
	for _, name := range keys(f.namespaces) {
		t.Namespaces = append(t.Namespaces, *f.namespaces[name])
	}
	f.unknownNamespaces()
	for _, o := range f.services {
		f.service(o)
	}
	f.portless()
	taken := map[string]bool{}
	for _, s := range f.stand {
		taken[s.pod.Name] = true
	}
	for _, s := range f.stand {
		t.Pods = append(t.Pods, f.pods(s, taken)...)
	}
	slices.SortStableFunc(t.Pods, func(a, b Pod) int { return cmp.Compare(a.Name, b.Name) })
}

// portless says where a policy lets connections in to a workload that declares no port. Nothing is invented for it, so
// nobody can be asked about it.
func (f *plainFolder) portless() {
	for _, s := range f.stand {
		if len(s.pod.Ports) > 0 {
			continue
		}
		for _, o := range f.policies {
			if o.policy == nil || o.namespace != s.object.namespace {
				continue
			}
			selector, err := metav1.LabelSelectorAsSelector(&o.policy.Spec.PodSelector)
			if err != nil || !f.selectedBy(s, selector) || !slices.ContainsFunc(o.policy.Spec.Ingress, func(r networkingv1.NetworkPolicyIngressRule) bool {
				return len(r.Ports) > 0
			}) {
				continue
			}
			f.s.Warnings = append(f.s.Warnings, problemAt(s.object.at, "add `ports` to its container, or a service in front of it",
				"%s declares no port, so nobody is asked to reach it, though %s (%s) admits ports", s.object, o, o.at.Short()))
			break
		}
	}
}

// unknownNamespaces says where verdicts rest on labels of a namespace that nothing in the folder tells. Its only known
// label is its name, which Kubernetes sets.
func (f *plainFolder) unknownNamespaces() {
	asked := map[string]Position{}
	for _, o := range f.policies {
		namespaceLabels(o.tree.get("spec"), asked)
	}
	delete(asked, nameLabel)
	if len(asked) == 0 {
		return
	}
	labels := keys(asked)
	slices.SortStableFunc(labels, func(a, b string) int {
		x, y := asked[a], asked[b]
		return cmp.Or(cmp.Compare(x.File, y.File), cmp.Compare(x.Line, y.Line))
	})
	for _, name := range keys(f.namespaces) {
		if ns := f.namespaces[name]; ns.unknown {
			f.s.Warnings = append(f.s.Warnings, problemAt(ns.At, fmt.Sprintf("add the Namespace object: kubectl get namespace %s -o yaml", name),
				"no Namespace object tells the labels of namespace %s, and a policy selects by `%s` (%s): it is proven as if it had none",
				name, labels[0], asked[labels[0]].Short()))
		}
	}
}

// namespaceLabels collects the labels that the namespace selectors below a value ask about, and where they do first.
func namespaceLabels(v *value, into map[string]Position) {
	if v == nil {
		return
	}
	note := func(key *value) {
		if _, known := into[key.text]; !known {
			into[key.text] = key.at
		}
	}
	for _, e := range v.entries {
		if e.key.text == "namespaceSelector" {
			if matched := e.value.get("matchLabels"); matched != nil {
				for _, label := range matched.entries {
					note(label.key)
				}
			}
			if expressions := e.value.get("matchExpressions"); expressions != nil {
				for _, item := range expressions.items {
					if key := item.get("key"); key != nil && key.kind == scalarValue {
						note(key)
					}
				}
			}
		}
		namespaceLabels(e.value, into)
	}
	for _, item := range v.items {
		namespaceLabels(item, into)
	}
}

// steps are the open cluster, and all policies at once.
func (f *plainFolder) steps(asserted *AssertionsSpec, strangers []Probe) {
	spec := &f.s.Spec
	spec.At, spec.Description, spec.Source, spec.Topology.Hosts = f.s.At, asserted.Description, asserted.Source, asserted.Hosts
	if spec.Description == "" {
		spec.Description = fmt.Sprintf("The policies of %s, applied to stand-ins of its workloads.", f.s.File)
	}
	spec.Probes = f.probes(asserted, strangers)
	at := f.s.At
	policies := Step{Name: PoliciesStep, At: at, nameAt: at, policies: true, Expect: &Expect{Default: computed, Rules: asserted.Rules, At: at, defaultAt: at}}
	spec.Steps = []Step{{Name: OpenStep, At: at, nameAt: at, Expect: &Expect{Default: computed, At: at, defaultAt: at}}}
	if len(asserted.Steps) > 0 {
		spec.Steps = append(spec.Steps, f.rollOut(asserted)...)
		return
	}
	for _, o := range f.policies {
		policies.Apply = append(policies.Apply, Apply{At: o.at, objects: []*object{o}})
	}
	spec.Steps = append(spec.Steps, policies)
}

// probes are those that netproof.yaml names, or every pod to every other and what strangers try, and what rules speak
// of beyond that: services, nodes and hosts, and whatever rules from outside the folder speak of.
func (f *plainFolder) probes(asserted *AssertionsSpec, strangers []Probe) []Probe {
	out := asserted.Probes.List
	if len(out) == 0 {
		out = []Probe{{
			From: "*", To: "*", At: f.s.At, fromAt: f.s.At, toAt: f.s.At, viaAt: f.s.At,
			from: pattern{text: "*", kind: everyPattern}, to: pattern{text: "*", kind: everyPattern},
		}}
	}
	out = append(out, strangers...)
	before := len(out)
	if len(f.s.Spec.Topology.Services) > 0 && !f.s.narrowed {
		every := pattern{text: "*", kind: everyPattern}
		p := madeProbe(every, every, f.s.At)
		p.Via, p.stranger, p.others = string(model.ViaService), false, true
		out = append(out, p)
	}
	if len(strangers) > 0 || len(out) > before {
		before = -1
	}
	isSpecial := func(p pattern) bool {
		return p.kind == nodePattern || p.kind == hostPattern || p.kind == addressPattern
	}
	for _, r := range asserted.Rules {
		via := model.Via(r.Via)
		itself := r.from.exact() && r.From == r.To
		beyond := via == model.ViaService || via == model.ViaNodePort || isSpecial(r.from) || isSpecial(r.to) || itself
		if r.outside != nil && f.s.narrowed || beyond && !f.s.narrowed {
			out = append(out, Probe{
				From: r.From, To: r.To, Ports: r.Ports, Via: r.Via, At: r.At, from: r.from, to: r.to, fromAt: r.fromAt, toAt: r.toAt, viaAt: r.viaAt, made: true,
			})
		}
	}
	if len(out) == before && !f.s.narrowed {
		return nil
	}
	return out
}
