package scenario

import (
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	metavalidation "k8s.io/apimachinery/pkg/util/validation"

	"github.com/netproof/netproof/harness/model"
)

// Options say how files are loaded.
type Options struct {
	// FS is where paths are looked up; nil for the machine's file system.
	FS fs.FS
}

// Load reads scenarios from paths, in the order of the paths and, below a folder, in lexical order.
//
// A path is a file of scenarios, a file of plain manifests, or a folder. A folder, with the folders below it, holds any
// number of scenarios in files named scenario.yaml or NAME.scenario.yaml; or none, and then all of its manifests make up one
// scenario, as do the plain manifests that are named directly.
//
// The error is a [Problems] with everything that is wrong in all files, or matches [ErrNothing]. Warnings are kept with each
// scenario.
func Load(paths []string, opts Options) ([]*Scenario, error) {
	l := &loader{files: files{opts.FS}, manifests: map[string]*manifest{}}
	var out []*Scenario
	var loose []*manifest
	var empty []string
	seen := map[string]bool{}
	for _, p := range paths {
		name := l.join(p, "")
		if p == "" {
			l.add(Position{"-", 1, 1}, "name a file or a folder", "a path is empty")
			continue
		}
		if seen[name] {
			continue
		}
		seen[name] = true
		info, err := l.stat(name)
		if err != nil {
			l.problems = append(l.problems, l.missing(Position{name, 1, 1}, name, err))
			continue
		}
		before := l.count()
		if info.IsDir() {
			found, ok := l.folder(name)
			if !ok && l.count() == before {
				empty = append(empty, name)
			}
			out = append(out, found...)
			continue
		}
		m := l.manifest(Position{name, 1, 1}, name)
		if m == nil {
			continue
		}
		if isScenarioName(name) || m.has(Kind) {
			out = append(out, l.scenarios(m)...)
		} else {
			loose = append(loose, m)
		}
	}
	if len(loose) > 0 {
		folder := l.dir(loose[0].name)
		before := l.count()
		if s := l.plain(folder, loose, nil); s != nil {
			out = append(out, s)
		} else if l.count() == before {
			empty = append(empty, loose[0].name)
		}
	}
	l.checkNames(out)
	for _, s := range out {
		l.verify(s)
	}
	if len(l.problems) > 0 {
		return nil, l.problems.sorted()
	}
	if len(out) == 0 {
		if len(empty) == 0 {
			return nil, fmt.Errorf("no path was given: %w", ErrNothing)
		}
		return nil, l.nothing(empty)
	}
	if len(empty) > 0 {
		return nil, l.nothing(empty)
	}
	return out, nil
}

// nothing says that nothing of these paths can be proven.
func (l *loader) nothing(paths []string) error {
	what := "no policy in it"
	if len(l.leftOut) > 0 {
		what = fmt.Sprintf("no policy in it that netproof applies (%s is left out)", Names(l.leftOut))
	}
	return fmt.Errorf("%s: no scenario and %s, add a NetworkPolicy or a scenario.yaml: %w", strings.Join(paths, ", "), what, ErrNothing)
}

// loader reads each file once.
type loader struct {
	files
	collector
	manifests map[string]*manifest
	// leftOut are the policies of kinds that are not applied.
	leftOut []Unjudged
}

// manifest is a file that was read.
type manifest struct {
	name string
	docs []document
	// objects of the documents that were read as such, nil before.
	objects []*object
	read    bool
	// loaded is true when its scenarios were loaded.
	loaded bool
	// broken is true when reading it reported problems.
	broken bool
}

// has tells whether a document is of one of netproof's own kinds.
func (m *manifest) has(kind string) bool {
	return slices.ContainsFunc(m.docs, func(d document) bool { return d.isOwn(kind) })
}

func (d document) isOwn(kind string) bool {
	return d.root.get("kind").str() == kind && strings.HasPrefix(d.root.get("apiVersion").str(), ownGroup+"/")
}

// manifest reads a file; nil if it could not be read. from is what asks for it.
func (l *loader) manifest(from Position, name string) *manifest {
	if m, ok := l.manifests[name]; ok {
		if m == nil {
			return nil
		}
		return m
	}
	before := l.count()
	data, ok := l.files.read(&l.collector, from, name)
	if !ok {
		l.manifests[name] = nil
		return nil
	}
	m := &manifest{name: name, docs: parse(name, data, &l.collector)}
	m.broken = l.count() > before
	if len(m.docs) == 0 && !m.broken {
		l.add(Position{name, 1, 1}, "write a policy or a scenario into it, or remove the file", "the file is empty")
		m.broken = true
	}
	l.manifests[name] = m
	return m
}

// objectsOf reads the objects of a file, once.
func (l *loader) objectsOf(m *manifest) []*object {
	if m.read {
		return m.objects
	}
	m.read = true
	before := l.count()
	for _, doc := range m.docs {
		m.objects = append(m.objects, readObjects(&l.collector, doc)...)
	}
	m.broken = m.broken || l.count() > before
	return m.objects
}

// folder loads the scenarios below a folder, or makes one of its manifests. ok is false when there are none, also not
// among those that were loaded already.
func (l *loader) folder(root string) (out []*Scenario, ok bool) {
	before := l.count()
	names := l.walk(&l.collector, root)
	if l.count() > before {
		return nil, false
	}
	for _, name := range names {
		if isScenarioName(name) {
			if m := l.manifest(Position{name, 1, 1}, name); m != nil {
				out = append(out, l.scenarios(m)...)
			}
		}
	}
	if slices.ContainsFunc(names, isScenarioName) {
		return out, true
	}
	var manifests []*manifest
	var assertions *manifest
	for _, name := range names {
		switch {
		case isToolFile(name):
		case isAssertionsName(name) && l.dir(name) != root:
			l.add(Position{name, 1, 1}, fmt.Sprintf("move it to %s, or give its own folder as a path", root),
				"only the netproof file of the folder that was given counts")
		default:
			m := l.manifest(Position{name, 1, 1}, name)
			if m == nil {
				continue
			}
			if isAssertionsName(name) {
				if assertions != nil {
					l.add(Position{name, 1, 1}, "keep one of them", "the folder has two netproof files: also %s", assertions.name)
				}
				assertions = m
				continue
			}
			manifests = append(manifests, m)
		}
	}
	if s := l.plain(root, manifests, assertions); s != nil {
		return []*Scenario{s}, true
	}
	return nil, false
}

// scenarios reads the scenarios of a file.
func (l *loader) scenarios(m *manifest) (out []*Scenario) {
	if m.loaded {
		return nil // one path lies within another
	}
	m.loaded = true
	for _, doc := range m.docs {
		if s := l.scenario(m, doc); s != nil {
			out = append(out, s)
		}
	}
	return out
}

func (l *loader) scenario(m *manifest, doc document) *Scenario {
	s := &Scenario{File: m.name}
	before := l.count()
	if !l.decodeOwn(doc, Kind, s) {
		return nil
	}
	l.checkMetadata(&s.Metadata, doc.root)
	s.expectedFile = l.expectedFile(m, s.Metadata.Name)
	l.checkSpec(s, doc.root.get("spec"))
	for i := range s.Spec.Steps {
		l.readApplied(m, &s.Spec.Steps[i])
	}
	s.broken = l.count() > before
	return s
}

// decodeOwn decodes a document of one of netproof's own kinds. It returns false if there is no use in going on.
func (l *loader) decodeOwn(doc document, kind string, into any) bool {
	root := doc.root
	own := &collector{}
	d := &decoder{c: own}
	d.decode(root, into, "")
	if len(doc.bullets) > 0 || len(d.lost) > 0 {
		l.problems = append(l.problems, d.lost...)
		if len(doc.bullets) > 0 {
			l.problems = append(l.problems, bulletProblem(doc.bullets))
		}
		return false
	}
	l.problems = append(l.problems, own.problems...)
	if root.kind != mappingValue {
		return false
	}
	before := l.count()
	where := func(key string) Position {
		if v := root.get(key); v != nil {
			return v.at
		}
		return root.at
	}
	if v := root.get("apiVersion"); v == nil || v.kind == scalarValue && v.text != model.APIVersion {
		l.add(where("apiVersion"), "write `apiVersion: "+model.APIVersion+"`", "%s", missingOr(v, "apiVersion", "is not known to this version of netproof"))
	}
	if v := root.get("kind"); v == nil || v.kind == scalarValue && v.text != kind {
		l.add(where("kind"), "write `kind: "+kind+"`", "%s", missingOr(v, "kind", "does not belong into this file"))
	}
	if v := root.get("spec"); v == nil || v.kind == nullValue {
		l.add(where("spec"), "add `spec:`", "the %s has no spec", kind)
	}
	return l.count() == before
}

func missingOr(v *value, key, what string) string {
	if v == nil {
		return "the document has no " + key
	}
	return fmt.Sprintf("the %s `%s` %s", key, shorten(v.text), what)
}

func (l *loader) checkMetadata(m *Metadata, root *value) {
	meta := root.get("metadata")
	at := root.at
	if meta != nil {
		at = meta.at
	}
	if name := meta.get("name"); name != nil {
		at = name.at
	}
	if m.Name == "" && meta.get("name") != nil && meta.get("name").text != "" {
		m.At = at // reported: it is no text
	} else if m.Name == "" {
		l.add(at, "add `metadata: {name: ...}`", "the scenario has no name")
	} else if messages := metavalidation.IsDNS1123Subdomain(m.Name); len(messages) > 0 {
		l.add(at, "write lower case letters, digits, `-` and `.`", "%q is no name of a scenario: %s", shorten(m.Name), brief(messages))
	}
	m.At = at
	if labels := meta.get("labels"); labels != nil {
		// The prefix is reserved in the cluster, not here.
		for _, e := range labels.entries {
			if messages := metavalidation.IsQualifiedName(e.key.text); len(messages) > 0 {
				l.add(e.key.at, "write a name such as feature", "%q is no name of a label: %s", shorten(e.key.text), brief(messages))
			}
			if text, ok := m.Labels[e.key.text]; ok {
				checkLabelValue(&l.collector, e.value.at, e.key.text, text)
			}
		}
	}
}

// expectedFile is where the computed table of a scenario is kept: expected.txt beside scenario.yaml, NAME.expected.txt beside
// NAME.scenario.yaml or where a file holds several scenarios.
func (l *loader) expectedFile(m *manifest, name string) string {
	base := path.Base(filepath.ToSlash(m.name))
	stem := strings.TrimSuffix(base, path.Ext(base))
	switch {
	case len(m.docs) > 1:
		return l.join(l.dir(m.name), name+".expected.txt")
	case stem == "scenario":
		return l.join(l.dir(m.name), "expected.txt")
	}
	return l.join(l.dir(m.name), strings.TrimSuffix(stem, ".scenario")+".expected.txt")
}

// readApplied reads the objects that a step applies.
func (l *loader) readApplied(m *manifest, step *Step) {
	for i := range step.Apply {
		a := &step.Apply[i]
		if a.inline != nil {
			a.objects = readValue(&l.collector, a.inline, nil)
			continue
		}
		if a.File == "" {
			continue
		}
		if filepath.IsAbs(a.File) {
			l.add(a.At, "write the path from the scenario's file", "%s is an absolute path, which is another one on another machine", a.File)
			continue
		}
		name := l.join(l.dir(m.name), a.File)
		if applied := l.manifest(a.At, name); applied != nil {
			a.objects = l.objectsOf(applied)
		} else if _, err := l.stat(name); err != nil && !l.reportedAt(a.At) {
			l.problems = append(l.problems, l.missing(a.At, name, err))
		}
	}
}

// reportedOn tells whether a problem was found on the same line, at or after a place.
func (l *loader) reportedOn(at Position) bool {
	return slices.ContainsFunc(l.problems, func(p Problem) bool { return p.File == at.File && p.Line == at.Line && p.Column >= at.Column })
}

func (l *loader) reportedAt(at Position) bool {
	return slices.ContainsFunc(l.problems, func(p Problem) bool { return p.Position() == at })
}

// checkNames reports scenarios of one name: their results could not be told apart.
func (l *loader) checkNames(scenarios []*Scenario) {
	first := map[string]*Scenario{}
	for _, s := range scenarios {
		if s.Metadata.Name == "" {
			continue
		}
		if other, ok := first[s.Metadata.Name]; ok {
			mend := "give one of them another name"
			if s.Plain {
				mend = "name it in netproof.yaml: `metadata: {name: ...}`"
			}
			l.add(s.Metadata.At, mend, "the scenario name `%s` is taken: see %s", s.Metadata.Name, other.Metadata.At.Short())
			continue
		}
		first[s.Metadata.Name] = s
	}
}

// verify plans a scenario once, so that all that is wrong with it is known before anything runs.
func (l *loader) verify(s *Scenario) {
	p := newPlanner(s, []model.IPFamily{model.IPv4}, 0)
	// What is missing because of a mistake that was reported is no news.
	p.shallow = s.broken
	p.plan()
	l.problems = append(l.problems, p.problems...)
	s.Warnings = append(s.Warnings, p.warnings...).sorted()
}
