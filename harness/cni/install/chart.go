package install

import (
	"bytes"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/strvals"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/netproof/netproof/harness/render"
)

// chartNamespace is where a chart is installed: where the vendors' documentation puts network plugins.
const chartNamespace = "kube-system"

// The annotation by which Helm tells what belongs to the release from what is run at some moment, and those moments
// that never come here.
const hookAnnotation = "helm.sh/hook"

var otherHooks = []string{"test", "test-success", "test-failure", "pre-delete", "post-delete", "pre-upgrade", "post-upgrade", "pre-rollback", "post-rollback"}

// render makes a chart's objects. values are the plugin's, settings what the user asked for on top.
func (o Options) render(c *chart.Chart, release string, values map[string]any, settings []string) ([]*unstructured.Unstructured, []string, error) {
	changes := valueChanges("", values)
	for _, s := range settings {
		given := map[string]any{}
		if err := strvals.ParseInto(s, given); err != nil {
			return nil, nil, fmt.Errorf("set %q: %w", s, err)
		}
		// Charts mostly list all their values, and what a template does not know it passes over.
		for _, unknown := range unknownValues(c, given) {
			o.Progress(fmt.Sprintf("the chart %s lists no value %s: it may have no effect", c.Name(), unknown))
		}
		if err := strvals.ParseInto(s, values); err != nil {
			return nil, nil, fmt.Errorf("set %q: %w", s, err)
		}
		changes = append(changes, "value "+s)
	}
	templates, err := o.renderTemplates(c, release, values)
	if err != nil {
		return nil, nil, fmt.Errorf("render chart %s %s: %w", c.Name(), c.Metadata.Version, err)
	}
	objects, err := chartObjects(c, templates)
	if err != nil {
		return nil, nil, fmt.Errorf("render chart %s %s: %w", c.Name(), c.Metadata.Version, err)
	}
	return objects, changes, nil
}

// renderTemplates does what helm template does, without the cluster that it may ask.
func (o Options) renderTemplates(c *chart.Chart, release string, values map[string]any) (map[string]string, error) {
	kubernetes, err := chartutil.ParseKubeVersion(o.Kubernetes)
	if err != nil {
		return nil, fmt.Errorf("read Kubernetes version %q: %w", o.Kubernetes, err)
	}
	if want := c.Metadata.KubeVersion; want != "" && !chartutil.IsCompatibleRange(want, kubernetes.Version) {
		return nil, fmt.Errorf("it is for Kubernetes %s, not %s", want, kubernetes.Version)
	}
	capabilities := chartutil.DefaultCapabilities.Copy()
	capabilities.KubeVersion = *kubernetes
	return render.Templates(c, values, render.Release{Name: release, Namespace: chartNamespace}, capabilities, true)
}

// chartObjects reads what the templates gave: the chart's custom resource definitions, then its objects without those
// that Helm would only make at other moments.
func chartObjects(c *chart.Chart, templates map[string]string) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	for _, crd := range c.CRDObjects() {
		found, err := decode(crd.Filename, crd.File.Data)
		if err != nil {
			return nil, err
		}
		objects = append(objects, found...)
	}
	for _, file := range slices.Sorted(maps.Keys(templates)) {
		if path.Base(file) == "NOTES.txt" || strings.HasPrefix(path.Base(file), "_") {
			continue
		}
		found, err := decode(file, []byte(templates[file]))
		if err != nil {
			return nil, err
		}
		for _, object := range found {
			wanted, err := belongs(object)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			if wanted {
				objects = append(objects, object)
			}
		}
	}
	return objects, nil
}

// belongs tells whether an object is part of an installation. A job that must run before or after it is refused: what
// it does would be missing, and nobody would see it.
func belongs(object *unstructured.Unstructured) (bool, error) {
	hooks, ok := object.GetAnnotations()[hookAnnotation]
	if !ok {
		return true, nil
	}
	for hook := range strings.SplitSeq(hooks, ",") {
		if !slices.Contains(otherHooks, strings.TrimSpace(hook)) {
			return false, fmt.Errorf("%s is a Helm hook (%s), and hooks are not run here: render the chart with helm template and give the result with --cni-manifest",
				nameOf(object), hooks)
		}
	}
	return false, nil
}

// valueChanges lists values as --set would give them.
func valueChanges(prefix string, values map[string]any) []string {
	var changes []string
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if table, ok := values[key].(map[string]any); ok {
			changes = append(changes, valueChanges(prefix+key+".", table)...)
			continue
		}
		changes = append(changes, fmt.Sprintf("value %s%s=%v", prefix, key, values[key]))
	}
	return changes
}

// unknownValues lists those values that the chart's own values do not have. A table that is empty in the chart may be
// given anything.
func unknownValues(c *chart.Chart, values map[string]any) []string {
	known := maps.Clone(c.Values)
	if known == nil {
		known = map[string]any{}
	}
	known["global"] = map[string]any{}
	for _, d := range c.Metadata.Dependencies {
		known[d.Name], known[d.Alias] = map[string]any{}, map[string]any{}
	}
	return unknownIn("", known, values)
}

func unknownIn(prefix string, known, values map[string]any) []string {
	var unknown []string
	for _, key := range slices.Sorted(maps.Keys(values)) {
		have, ok := known[key]
		if !ok {
			unknown = append(unknown, prefix+key)
			continue
		}
		table, isTable := have.(map[string]any)
		given, ok := values[key].(map[string]any)
		if isTable && ok && len(table) > 0 {
			unknown = append(unknown, unknownIn(prefix+key+".", table, given)...)
		}
	}
	return unknown
}

// loadPacked reads a packed chart; what names it in errors.
func loadPacked(what string, content []byte) (*chart.Chart, error) {
	c, err := loader.LoadArchive(bytes.NewReader(content))
	if err != nil {
		return nil, fmt.Errorf("read chart %s: %w", what, err)
	}
	return c, nil
}
