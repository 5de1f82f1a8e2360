package scenario

import (
	"slices"

	"github.com/netproof/netproof/harness/model"
)

// outsideAssertions are rules from a file that does not lie in the folders that are proven: whoever changes a folder
// cannot change them. They stand behind the folder's own rules, so that they decide, and bring the probes along that
// they need.
type outsideAssertions struct {
	file source
	spec AssertionsSpec
	// input names what was read.
	input model.File
	uses  []*outsideRule
}

// outsideRule remembers whether a rule decided a cell in any folder.
type outsideRule struct {
	at      Position
	decided int
	// problems are why it did not, in each folder.
	problems Problems
}

// outsideAssertions reads the file, nil if there is none or it cannot be read.
func (l *loader) outsideAssertions(name string) *outsideAssertions {
	if name == "" {
		return nil
	}
	s, err := l.open(name)
	if err != nil {
		l.problems = append(l.problems, unreadable(s.start(), s, err))
		return nil
	}
	m := l.manifest(s.start(), s)
	if m == nil || m.broken {
		return nil
	}
	a, root, ok := l.readAssertions(m)
	if !ok {
		return nil
	}
	spec := root.get("spec")
	if spec.get("probes") != nil {
		l.add(spec.keyAt("probes"), "remove them: what the rules speak of is probed", "assertions from outside a folder cannot say what is probed")
	}
	for _, key := range []string{"strangers", "steps"} {
		if v := spec.get(key); v != nil {
			l.add(spec.keyAt(key), "remove it: it belongs in netproof.yaml of the folder", "assertions from outside have no `%s`", key)
		}
	}
	if len(a.Spec.Rules) == 0 {
		l.add(spec.at, "add `rules: [{from: \"dev/*\", to: \"prod/*\", verdict: deny}]`", "the file asserts nothing")
	}
	out := &outsideAssertions{file: s, spec: a.Spec, input: m.input()}
	for i := range out.spec.Rules {
		use := &outsideRule{at: out.spec.Rules[i].At}
		out.spec.Rules[i].outside = use
		out.uses = append(out.uses, use)
	}
	return out
}

// readAssertions reads the one document of a file of assertions.
func (l *loader) readAssertions(m *manifest) (a Assertions, root *value, ok bool) {
	if l.refuseEmpty(m, m.start()); len(m.docs) == 0 {
		return a, nil, false
	}
	if len(m.docs) > 1 {
		l.add(m.docs[1].root.at, "put it all into one document", "%s has more than one document", m.shown)
	}
	doc := m.docs[0]
	if !l.decodeOwn(doc, AssertionsKind, &a) {
		return a, nil, false
	}
	l.checkHosts(a.Spec.Hosts, doc.root.get("spec").get("hosts"))
	if intents := doc.root.get("spec").get("intents"); intents != nil && intents.kind == listValue {
		a.Spec.Rules = append(l.rulesOf(a.Spec.Intents, intents), a.Spec.Rules...)
	}
	return a, doc.root, true
}

// addTo adds the rules, and the hosts that they speak of, to those of a folder. A host that both declare is the one
// from outside.
func (o *outsideAssertions) addTo(folder *AssertionsSpec) {
	if o == nil {
		return
	}
	folder.Rules = append(slices.Clone(folder.Rules), o.spec.Rules...)
	folder.Hosts = slices.DeleteFunc(slices.Clone(folder.Hosts), func(h Host) bool {
		return slices.ContainsFunc(o.spec.Hosts, func(ours Host) bool { return ours.Name == h.Name })
	})
	folder.Hosts = append(folder.Hosts, o.spec.Hosts...)
}

// unusedAssertions reports rules from outside that decided nothing in any folder. Where one is missing, somebody may
// have renamed what it speaks of.
func (l *loader) unusedAssertions(scenarios []*Scenario) {
	if l.outside == nil || l.count() > 0 {
		return
	}
	if !slices.ContainsFunc(scenarios, func(s *Scenario) bool { return s.Plain }) {
		l.add(l.outside.file.start(), "give a folder of manifests without scenario files", "assertions from outside hold for folders of manifests, and there is none")
		return
	}
	for _, use := range l.outside.uses {
		switch {
		case use.decided > 0:
		case len(use.problems) > 0:
			l.problems = append(l.problems, use.problems[0])
		default:
			l.add(use.at, "remove it, or put it after the rules that override it", "the rule decides nothing: later rules match all of its cells")
		}
	}
}
