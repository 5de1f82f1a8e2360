package scenario

import (
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/netproof/netproof/harness/words"
)

// Folders hold files of other tools beside manifests, or in their place. Those that change what reaches the cluster are
// refused with the command that shows it; the others are passed over, or named for what they are.

// stem is the name of a file without its ending.
func stem(name string) string {
	base := path.Base(filepath.ToSlash(name))
	return strings.TrimSuffix(base, path.Ext(base))
}

// isToolFile tells whether a file configures another tool that works on manifests.
func isToolFile(name string) bool {
	switch stem(name) {
	case "values", "skaffold", "Chart":
		return true
	}
	return isKustomization(name)
}

// isKustomization tells whether a file is what kustomize builds a folder by:
// https://kubectl.docs.kubernetes.io/references/kustomize/glossary/#kustomization
func isKustomization(name string) bool {
	base := path.Base(filepath.ToSlash(name))
	return base == "kustomization.yaml" || base == "kustomization.yml" || base == "Kustomization"
}

// harmlessFields are the fields of a kustomization that leave policies and workloads as they are.
var harmlessFields = map[string]bool{
	"apiVersion": true, "kind": true, "metadata": true, "resources": true, "images": true, "commonAnnotations": true,
	"configMapGenerator": true, "secretGenerator": true, "generatorOptions": true, "buildMetadata": true, "sortOptions": true,
	"crds": true, "openapi": true, "configurations": true,
}

// kustomization refuses one that makes something else of the manifests than what they say. What it does not change is
// read from the files themselves.
func (l *loader) kustomization(s source, found []source, k kustomized, set *plainSet) {
	m := l.manifest(s.start(), s)
	if m == nil {
		return
	}
	var fields []string
	listed := map[string]bool{}
	for _, doc := range m.docs {
		if version := doc.root.get("apiVersion").str(); version != "" && !strings.HasPrefix(version, "kustomize.config.k8s.io/") {
			set.add(m) // somebody else's object, in a file of this name
			return
		}
		for _, e := range doc.root.entries {
			if !harmlessFields[e.key.text] && !isEmpty(e.value) {
				fields = append(fields, e.key.text)
			}
		}
		resources := doc.root.get("resources")
		if resources == nil {
			continue
		}
		for _, r := range resources.items {
			beneath := s.dir().join(r.str())
			if !filepath.IsLocal(filepath.FromSlash(beneath.name)) || !exists(beneath) {
				fields = append(fields, "a resource from elsewhere")
				break
			}
			listed[beneath.name] = true
			if other, twice := k.bases[beneath.name]; twice {
				l.add(r.at, "give one of them as -k DIR", "%s builds on %s, and so does %s: each of them is another cluster", s.shown, beneath.shown, other)
			}
			k.bases[beneath.name] = s.shown
		}
	}
	dir := s.dir().shown
	fix := fmt.Sprintf("give it as -k %s, or render it: kubectl kustomize %s | netproof run -", dir, dir)
	if len(fields) > 0 {
		slices.Sort(fields)
		l.add(s.start(), fix, "the kustomization has %s, so what reaches the cluster is not what the files here say", shorten(words.And(slices.Compact(fields))))
		return
	}
	for _, other := range found {
		if k.nearest(other) != s.dir().name || listed[other.name] || isKustomization(other.name) || isAssertionsName(other.name) {
			continue
		}
		if m := l.glance(other); m != nil && slices.ContainsFunc(m.docs, func(d document) bool { return matters(d.root) }) {
			l.add(other.start(), fix+"; or list the file under resources", "%s does not list this file, so what it holds does not reach the cluster", s.shown)
		}
	}
}

// kustomized are the kustomizations of a folder.
type kustomized struct {
	// dirs are the folders that hold one.
	dirs map[string]bool
	// bases has for each file or folder that a kustomization builds on which one does.
	bases map[string]string
}

func kustomizedOf(found []source) kustomized {
	k := kustomized{map[string]bool{}, map[string]string{}}
	for _, s := range found {
		if isKustomization(s.name) {
			k.dirs[s.dir().name] = true
		}
	}
	return k
}

// nearest is the folder of the kustomization that a file belongs to: its own, or the nearest above it.
func (k kustomized) nearest(s source) string {
	for dir := s.dir().name; ; dir = path.Dir(dir) {
		if k.dirs[dir] || dir == "." {
			return dir
		}
	}
}

func exists(s source) bool {
	_, err := s.stat()
	return err == nil
}

func isEmpty(v *value) bool {
	return v == nil || v.kind == nullValue || v.kind != scalarValue && len(v.items) == 0 && len(v.entries) == 0
}

// withoutCharts reports Helm charts, each once, and leaves out what lies in them: templates are no manifests.
func (l *loader) withoutCharts(found []source) []source {
	var charts []source
	for _, s := range found {
		dir := s.dir()
		within := slices.ContainsFunc(charts, func(c source) bool { return isBeneath(c, dir) })
		if stem(s.name) == "Chart" && !within && exists(dir.join("templates")) {
			charts = append(charts, dir)
			l.add(s.start(), fmt.Sprintf("give it as --chart %s, or render it: helm template NAME %s | netproof run -", dir.shown, dir.shown),
				"this is a Helm chart, and its templates are no manifests before they are rendered")
		}
	}
	return slices.DeleteFunc(found, func(s source) bool {
		return slices.ContainsFunc(charts, func(c source) bool { return isBeneath(c, s) })
	})
}

// isBeneath tells whether a place is a folder or lies in it.
func isBeneath(folder, s source) bool {
	return folder.name == "." || s.name == folder.name || strings.HasPrefix(s.name, folder.name+"/")
}

// isForeign reports a file that holds no Kubernetes objects at all, once, and says what it is where that shows.
func (m *manifest) isForeign(c *collector) bool {
	if len(m.docs) == 0 || m.broken {
		return false
	}
	for _, doc := range m.docs {
		if doc.root.kind != mappingValue || len(doc.bullets) > 0 || doc.root.get("apiVersion") != nil || doc.root.get("kind") != nil || doc.root.get("items") != nil {
			return false
		}
		if doc.root.get("spec") != nil || doc.root.get("metadata") != nil {
			return false // an object that lacks its head
		}
	}
	c.add(m.docs[0].root.at, "move it out of the folder, or give the files of manifests as paths", "the file holds no Kubernetes object%s", looksLike(m))
	m.broken = true
	return true
}

// looksLike tells what a file without Kubernetes objects seems to be.
func looksLike(m *manifest) string {
	root := m.docs[0].root
	has := func(keys ...string) bool {
		return !slices.ContainsFunc(keys, func(key string) bool { return root.get(key) == nil })
	}
	switch {
	case strings.HasPrefix(stem(m.name), "values"):
		return ": it seems to be a values file of a Helm chart"
	case has("services") && root.get("services").kind == mappingValue:
		return ": it seems to be a file of Docker Compose"
	case has("panels") || has("dashboard"):
		return ": it seems to be a dashboard"
	case has("openapi") || has("swagger"):
		return ": it seems to be the description of an API"
	case has("on", "jobs") || has("stages"):
		return ": it seems to be a pipeline"
	}
	return ""
}
