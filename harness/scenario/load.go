package scenario

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	metavalidation "k8s.io/apimachinery/pkg/util/validation"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/readfile"
)

// Options say how files are loaded.
type Options struct {
	// FS is where paths are looked up; nil for the machine's file system.
	FS fs.FS
	// Limits bound what all scenarios make together. Those that are zero are [DefaultLimits].
	Limits Limits
	// Lent is true for a run that makes no namespaces of its own: no stranger of a folder has one then.
	Lent bool
	// Pairs says which pairs of the workloads of a folder of manifests are asked about.
	Pairs Pairs
	// Documents are manifests that stand in no file: standard input, or what was rendered. They belong to the set of
	// the paths.
	Documents []Document
	// Assert is a file of assertions that hold for the folders of manifests beside those that the folders state
	// themselves, and that no file of the folders can override. Empty for none.
	Assert string
}

// Document is a text of manifests that stands in no file.
type Document struct {
	// Name is how messages call it, such as `-` for standard input.
	Name string
	// Of is what it was rendered from, after which the scenario is named; Name if it is empty.
	Of string
	// Data is YAML or JSON.
	Data []byte
	// Dir is the folder in which netproof.yaml and expected.txt of the manifests are; empty for none.
	Dir string
	// Namespace is that of objects which name none, `default` if it is empty.
	Namespace string
	// Notes are what was said when the text was rendered. They become notes of the scenario.
	Notes []string
}

// Load reads scenarios from paths, in the order of the paths and, below a folder, in lexical order.
//
// A path is a file of scenarios, a file of plain manifests, or a folder. A folder, with the folders below it, holds any
// number of scenarios in files named scenario.yaml or NAME.scenario.yaml; or none, and then its manifests are plain.
// The plain manifests of all paths make up one scenario, as they would make up one cluster. It is named after the first
// path, or as netproof.yaml says, which may lie at the top of one of the paths. Nothing outside of the paths is read:
// see package readfile.
//
// The error is a [Problems] with everything that is wrong in all files, or matches [ErrNothing], or is the cause of the
// end of ctx. Warnings are kept with each scenario.
func Load(ctx context.Context, paths []string, opts Options) ([]*Scenario, error) {
	l := &loader{
		files:     files{ctx: ctx, fsys: opts.FS, budget: readfile.NewBudget(maxBytes)},
		manifests: map[string]*manifest{}, lent: opts.Lent, pairs: opts.Pairs,
	}
	defer l.close()
	l.outside = l.outsideAssertions(opts.Assert)
	out, empty := l.paths(paths, opts.Documents)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	l.checkNames(out)
	if l.within(opts.Limits, out) {
		for _, s := range out {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			l.verify(s)
		}
	}
	l.unusedAssertions(out)
	if len(l.problems) > 0 {
		return nil, l.problems.sorted()
	}
	if len(out) == 0 && len(empty) == 0 {
		return nil, fmt.Errorf("no path was given: %w", ErrNothing)
	}
	if len(empty) > 0 {
		return nil, l.nothing(empty)
	}
	return out, nil
}

// plainSet is the plain manifests of all paths.
type plainSet struct {
	// roots are the folders and files that were given. The first one names the scenario.
	roots     []source
	manifests []*manifest
	// assertions is netproof.yaml, and home the folder that it lies in, which keeps expected.txt too.
	assertions *manifest
	home       *source
	notes      []string
}

// add adds a manifest once: a path may lie within another.
func (p *plainSet) add(m *manifest) {
	if m != nil && !slices.Contains(p.manifests, m) {
		p.manifests = append(p.manifests, m)
	}
}

// assert takes the file of assertions.
func (p *plainSet) assert(l *loader, m *manifest) {
	switch {
	case m == nil || m == p.assertions:
	case p.assertions != nil:
		fix := "keep one of them"
		if len(p.roots) > 1 {
			fix = "run the paths one by one, or keep one of the files: plain manifests of several paths are one set"
		}
		l.add(m.start(), fix, "the manifests have two netproof files: also %s", p.assertions.shown)
	default:
		p.assertions = m
		home := m.dir()
		p.home = &home
	}
}

// paths loads what each path names. empty are the paths in which there is nothing to prove.
func (l *loader) paths(paths []string, documents []Document) (out []*Scenario, empty []string) {
	var set plainSet
	seen := map[string]bool{}
	for _, p := range l.expanded(paths) {
		if p == "" {
			l.add(Position{"-", 1, 1}, "name a file or a folder", "a path is empty")
			continue
		}
		s, err := l.open(p)
		var info fs.FileInfo
		if err == nil {
			info, err = s.stat()
		}
		if err != nil {
			l.problems = append(l.problems, unreadable(s.start(), s, err))
			continue
		}
		if seen[s.shown] {
			continue
		}
		seen[s.shown] = true
		if info.IsDir() {
			out = append(out, l.folder(s, &set)...)
			continue
		}
		m := l.manifest(s.start(), s)
		switch {
		case m == nil:
		case isScenarioName(s.name) || m.has(Kind):
			out = append(out, l.scenarios(m)...)
		case isAssertionsName(s.name):
			set.roots = append(set.roots, s.dir())
			set.assert(l, m)
		default:
			set.roots = append(set.roots, s.dir())
			set.add(m)
		}
	}
	for _, d := range documents {
		l.document(d, &set)
	}
	if len(set.roots) > 0 {
		before := l.count()
		if s := l.plain(&set); s != nil {
			out = append(out, s)
		} else if l.count() == before {
			for _, root := range set.roots {
				empty = append(empty, root.shown)
			}
		}
	}
	return out, slices.Compact(empty)
}

// expanded resolves wildcards that no shell has resolved. A name that exists is taken as it is.
func (l *loader) expanded(paths []string) (out []string) {
	for _, p := range paths {
		if l.fsys != nil || !strings.ContainsAny(p, "*?[") {
			out = append(out, p)
			continue
		}
		if _, err := os.Lstat(p); err == nil {
			out = append(out, p)
			continue
		}
		found, err := filepath.Glob(p)
		if err != nil || len(found) == 0 {
			l.add(Position{p, 1, 1}, "check the path", "nothing matches the path")
			continue
		}
		out = append(out, found...)
	}
	return out
}

// document adds manifests that stand in no file to the set, with the netproof.yaml of its folder.
func (l *loader) document(d Document, set *plainSet) {
	s := source{root: readfile.FS(noFiles{}, nil), name: ".", shown: d.Name}
	if d.Dir != "" {
		dir, err := l.open(d.Dir)
		if err != nil {
			l.problems = append(l.problems, unreadable(dir.start(), dir, err))
			return
		}
		dir.shown = d.Name
		s = dir
		for _, name := range []string{"netproof.yaml", "netproof.yml"} {
			file := dir.join(name)
			file.shown = filepath.Join(d.Dir, name)
			if _, err := file.stat(); err == nil {
				set.assert(l, l.manifest(file.start(), file))
			}
		}
	}
	before := l.count()
	m := &manifest{source: s, docs: parse(d.Name, d.Data, &l.collector), namespace: d.Namespace, digest: digestOf(d.Data)}
	m.broken = l.count() > before
	s.shown = cmp.Or(d.Of, d.Name)
	set.roots = append(set.roots, s)
	set.add(m)
	for _, note := range d.Notes {
		set.notes = append(set.notes, d.Name+": "+note)
	}
}

// noFiles is a file system without files.
type noFiles struct{}

// Open implements [fs.FS].
func (noFiles) Open(name string) (fs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
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
	// objects counts those of all manifests.
	objects int
	// outside are the assertions that no folder can override, nil if there are none.
	outside *outsideAssertions
	// leftOut are the policies of kinds that are not applied.
	leftOut []Unjudged
	// lent is true for a run that makes no namespaces of its own.
	lent bool
	// pairs says which pairs of a folder's workloads are asked about.
	pairs Pairs
}

// manifest is a file that was read.
type manifest struct {
	source
	docs []document
	// namespace is that of objects which name none; empty for `default`.
	namespace string
	// objects of the documents that were read as such, nil before.
	objects []*object
	read    bool
	// loaded is true when its scenarios were loaded.
	loaded bool
	// broken is true when reading it reported problems.
	broken bool
	// digest is that of what was read.
	digest string
}

// input names the manifest as one that a scenario was made of.
func (m *manifest) input() model.File { return model.File{Path: m.shown, SHA256: m.digest} }

// digestOf is the digest of what was read.
func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// has tells whether a document is of one of netproof's own kinds.
func (m *manifest) has(kind string) bool {
	return slices.ContainsFunc(m.docs, func(d document) bool { return d.isOwn(kind) })
}

func (d document) isOwn(kind string) bool {
	return d.root.get("kind").str() == kind && strings.HasPrefix(d.root.get("apiVersion").str(), ownGroup+"/")
}

// manifest reads a file; nil if it could not be read. from is what asks for it.
func (l *loader) manifest(from Position, s source) *manifest {
	if m, ok := l.manifests[s.shown]; ok {
		return m
	}
	before := l.count()
	data, ok := l.files.read(&l.collector, from, s)
	if !ok {
		l.manifests[s.shown] = nil
		return nil
	}
	m := &manifest{source: s, docs: parse(s.shown, data, &l.collector), digest: digestOf(data)}
	m.broken = l.count() > before
	l.manifests[s.shown] = m
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
		if l.objects > maxObjects || l.ctx.Err() != nil {
			break
		}
		for _, o := range readObjects(&l.collector, doc) {
			o.defaultTo(m.namespace)
			m.objects = append(m.objects, o)
		}
	}
	if l.objects <= maxObjects {
		if l.objects += len(m.objects); l.objects > maxObjects {
			l.add(m.start(), "name the folder of the policies", "up to this file there are more than %d objects, which is the most that is read", maxObjects)
		}
	}
	m.broken = m.broken || l.count() > before
	return m.objects
}

// folder loads the scenarios below a folder, or adds its manifests to the set of plain ones.
func (l *loader) folder(root source, set *plainSet) (out []*Scenario) {
	before := l.count()
	found := l.walk(&l.collector, root)
	if l.count() > before {
		return nil
	}
	hasScenarios := false
	for _, s := range found {
		if isScenarioName(s.name) && !isHidden(root, s) {
			hasScenarios = true
			if m := l.manifest(s.start(), s); m != nil {
				out = append(out, l.scenarios(m)...)
			}
		}
	}
	if hasScenarios {
		if l.count() == before {
			l.unproven(root, found)
		}
		return out
	}
	set.roots = append(set.roots, root)
	found = l.withoutCharts(found)
	kustomizations := kustomizedOf(found)
	for _, s := range found {
		switch {
		case isKustomization(s.name) && !isHidden(root, s):
			l.kustomization(s, found, kustomizations, set)
		case isToolFile(s.name) || isHidden(root, s):
			set.add(l.glance(s))
		case isAssertionsName(s.name) && s.dir().name != root.name:
			l.add(s.start(), fmt.Sprintf("move it to %s, or give its own folder as a path", root.shown),
				"only the netproof file of the folder that was given counts")
		case isAssertionsName(s.name):
			set.assert(l, l.manifest(s.start(), s))
		default:
			if m := l.manifest(s.start(), s); m != nil && !m.isForeign(&l.collector) {
				set.add(m)
			}
		}
	}
	return nil
}

// glance reads a file that need not hold manifests: a hidden one, or one of another tool. It returns nil where nothing
// in the file matters to network policies. A file that is not YAML and speaks of policies is reported: kubectl apply -f
// applies what stands before the mistake.
func (l *loader) glance(s source) *manifest {
	if m, ok := l.manifests[s.shown]; ok {
		return m
	}
	l.manifests[s.shown] = nil
	data, ok := l.files.read(&l.collector, s.start(), s)
	if !ok {
		return nil
	}
	own := &collector{}
	docs := slices.DeleteFunc(parse(s.shown, data, own), func(d document) bool { return !matters(d.root) })
	if own.count() > 0 && (len(docs) > 0 || bytes.Contains(data, []byte("NetworkPolicy"))) {
		l.add(s.start(), "fix the file, or move it out of the folder", "the file seems to hold policies, and is not YAML")
		return nil
	}
	if len(docs) == 0 {
		return nil
	}
	m := &manifest{source: s, docs: docs, digest: digestOf(data)}
	l.manifests[s.shown] = m
	return m
}

// unproven reports the policies and the assertions in a folder with scenarios that no scenario makes use of: nothing
// would be proven about them, and the run could be green.
func (l *loader) unproven(root source, found []source) {
	const fix = "apply it in a step of a scenario, or give its folder as a path of its own, without scenario files in it"
	for _, s := range found {
		m, known := l.manifests[s.shown]
		switch {
		case isScenarioName(s.name) && !isHidden(root, s) || known && (m == nil || m.read):
			continue // it is a scenario, or a scenario applies it, or it was reported
		case isAssertionsName(s.name) && !isHidden(root, s):
			l.add(s.start(), "write the expectations into the scenarios, or give the folder as a path without scenario files in it",
				"the assertions would not be looked at: the folder %s holds scenarios", root.shown)
			continue
		}
		if m = l.glance(s); m == nil {
			continue
		}
		for _, doc := range m.docs {
			if v := firstPolicy(doc.root); v != nil {
				l.add(v.at, fix, "no scenario applies this %s: nothing would be proven about it", shorten(v.get("kind").str()))
				break // one for each file
			}
		}
	}
}

// refuseEmpty reports a file that holds nothing where something is expected. Among plain manifests there may be files
// that hold nothing but comments.
func (l *loader) refuseEmpty(m *manifest, at Position) {
	if len(m.docs) == 0 && !m.broken {
		m.broken = true
		l.add(at, "write a policy or a scenario into it, or remove the file", "the file %s is empty", m.shown)
	}
}

// scenarios reads the scenarios of a file.
func (l *loader) scenarios(m *manifest) (out []*Scenario) {
	if m.loaded {
		return nil // one path lies within another
	}
	m.loaded = true
	l.refuseEmpty(m, m.start())
	for _, doc := range m.docs {
		if s := l.scenario(m, doc); s != nil {
			out = append(out, s)
		}
	}
	return out
}

func (l *loader) scenario(m *manifest, doc document) *Scenario {
	s := &Scenario{File: m.shown}
	before := l.count()
	if !l.decodeOwn(doc, Kind, s) {
		return nil
	}
	l.checkMetadata(&s.Metadata, doc.root)
	l.keepExpected(s, expectedFile(m, s.Metadata.Name))
	l.checkSpec(s, doc.root.get("spec"))
	s.Files = []model.File{m.input()}
	for i := range s.Spec.Steps {
		for _, applied := range l.readApplied(m, &s.Spec.Steps[i]) {
			if !slices.Contains(s.Files, applied.input()) {
				s.Files = append(s.Files, applied.input())
			}
		}
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
	if root.get("apiVersion") == nil && root.get("kind") == nil {
		// It may be another file than its name says: see parse.
		own.problems.redact()
		Problems(d.lost).redact()
	}
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
		l.add(where("kind"), "write `kind: "+kind+"`", "%s", missingOr(v, "kind", "does not belong in this file"))
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
		m.At = at // reported: it is not text
	} else if m.Name == "" {
		l.add(at, "add `metadata: {name: ...}`", "the scenario has no name")
	} else if messages := metavalidation.IsDNS1123Subdomain(m.Name); len(messages) > 0 {
		l.add(at, "write lower case letters, digits, `-` and `.`", "%q is not a valid name for a scenario: %s", shorten(m.Name), brief(messages))
	}
	m.At = at
	if labels := meta.get("labels"); labels != nil {
		// The prefix is reserved in the cluster, not here.
		for _, e := range labels.entries {
			if messages := metavalidation.IsQualifiedName(e.key.text); len(messages) > 0 {
				l.add(e.key.at, "write a name such as feature", "%q is not a valid name for a label: %s", shorten(e.key.text), brief(messages))
			}
			if text, ok := m.Labels[e.key.text]; ok {
				checkLabelValue(&l.collector, e.value.at, e.key.text, text)
			}
		}
	}
}

// expectedFile is where the computed table of a scenario is kept: expected.txt beside scenario.yaml, NAME.expected.txt
// beside NAME.scenario.yaml or where a file holds several scenarios.
func expectedFile(m *manifest, name string) source {
	base := path.Base(m.name)
	stem := strings.TrimSuffix(base, path.Ext(base))
	switch {
	case len(m.docs) > 1:
		return m.dir().join(name + ".expected.txt")
	case stem == "scenario":
		return m.dir().join("expected.txt")
	}
	return m.dir().join(strings.TrimSuffix(stem, ".scenario") + ".expected.txt")
}

// keepExpected reads the computed table of a scenario, if it was kept.
func (l *loader) keepExpected(s *Scenario, from source) {
	s.expectedFile = from.shown
	content, err := from.root.ReadFile(l.ctx, from.name, maxExpectedSize)
	switch {
	case err == nil:
		s.expected, s.hasExpected = content, true
	case errors.Is(err, fs.ErrNotExist) && !isLink(from):
	case errors.Is(err, fs.ErrNotExist):
		l.add(from.start(), "remove the link", "the link leads to nothing")
	default:
		problem := unreadable(from.start(), from, err)
		problem.Fix = "remove it: a run writes the table anew"
		l.problems = append(l.problems, problem)
	}
}

// readApplied reads the objects that a step applies.
func (l *loader) readApplied(m *manifest, step *Step) (read []*manifest) {
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
		from := m.dir().join(a.File)
		if info, err := from.stat(); err == nil && !info.IsDir() && !isManifestName(from.name) {
			l.add(a.At, "name the file with the ending .yaml, .yml or .json", "%s is not the name of a manifest", a.File)
			continue
		}
		if applied := l.manifest(a.At, from); applied != nil {
			l.refuseEmpty(applied, a.At)
			a.objects = l.objectsOf(applied)
			read = append(read, applied)
		} else if _, err := from.stat(); err != nil && !l.reportedAt(a.At) {
			l.problems = append(l.problems, unreadable(a.At, from, err))
		}
	}
	return read
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
			fix := "give one of them another name"
			if s.Plain {
				fix = "name it in netproof.yaml: `metadata: {name: ...}`"
			}
			l.add(s.Metadata.At, fix, "the scenario name `%s` is taken: see %s", s.Metadata.Name, other.Metadata.At.Short())
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
