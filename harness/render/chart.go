package render

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"

	"github.com/netproof/netproof/harness/readfile"
)

// Release is what a chart is installed as.
type Release struct {
	Name, Namespace string
}

// Rendered is what one template gave.
type Rendered struct {
	// File is the template, such as shop/templates/policy.yaml.
	File string
	Text []byte
}

// maxFiles bounds the files of a chart.
const maxFiles = 5000

// Chart renders a chart in a folder as `helm template` does, hooks included, with the values of files over those of the
// chart, later ones over earlier ones. Charts that it depends on must lie in it. No cluster is asked, so lookup finds
// nothing. A schema of values is not looked at, since it may name addresses. notes are what Helm had to say.
func Chart(ctx context.Context, dir string, values []string, release Release) (out []Rendered, notes []string, err error) {
	budget := readfile.NewBudget(maxTogether)
	root, name, err := readfile.Open(dir, budget)
	if err != nil {
		return nil, nil, fmt.Errorf("open %s: %w", dir, err)
	}
	defer func() { _ = root.Close() }() // it was only read
	if name != "." {
		return nil, nil, fmt.Errorf("%s is no folder: give the folder that holds Chart.yaml", dir)
	}
	if _, err := root.Stat("Chart.yaml"); err != nil {
		return nil, nil, fmt.Errorf("%s holds no Chart.yaml", dir)
	}
	files, err := filesOf(ctx, root, ".", nil)
	if err != nil {
		return nil, nil, fmt.Errorf("read chart %s: %w", dir, err)
	}
	given, err := valuesOf(ctx, values, budget)
	if err != nil {
		return nil, nil, err
	}
	templates, notes, err := within(ctx, func() (map[string]string, error) {
		given, err := merged(given)
		if err != nil {
			return nil, err
		}
		c, err := loader.LoadFiles(files)
		if err != nil {
			return nil, err
		}
		if release.Name == "" {
			release.Name = c.Name()
		}
		return Templates(c, given, release, chartutil.DefaultCapabilities.Copy(), false)
	})
	if err != nil {
		return nil, nil, fmt.Errorf("render chart %s: %w", dir, err)
	}
	total := 0
	for _, file := range slices.Sorted(maps.Keys(templates)) {
		if path.Base(file) == "NOTES.txt" || strings.HasPrefix(path.Base(file), "_") {
			continue
		}
		total += len(templates[file])
		// The engine names a template by the chart, which need not be the name of its folder.
		_, below, _ := strings.Cut(file, "/")
		out = append(out, Rendered{File: filepath.Join(dir, filepath.FromSlash(below)), Text: []byte(templates[file])})
	}
	return out, notes, bounded(total, dir)
}

// Templates renders a loaded chart. values are changed. A schema of the values is only looked at where the chart is
// trusted: it may make the library read files, and fetch.
func Templates(c *chart.Chart, values map[string]any, release Release, capabilities *chartutil.Capabilities, trusted bool) (map[string]string, error) {
	if err := dependenciesPacked(c); err != nil {
		return nil, err
	}
	if err := chartutil.ProcessDependencies(c, values); err != nil {
		return nil, err
	}
	all, err := chartutil.ToRenderValuesWithSchemaValidation(c, values,
		chartutil.ReleaseOptions{Name: release.Name, Namespace: release.Namespace, Revision: 1, IsInstall: true}, capabilities, !trusted)
	if err != nil {
		return nil, err
	}
	return engine.Engine{}.Render(c, all)
}

// dependenciesPacked returns an error when the chart needs charts that are not inside it: nothing is downloaded for a
// chart.
func dependenciesPacked(c *chart.Chart) error {
	for _, d := range c.Metadata.Dependencies {
		if !slices.ContainsFunc(c.Dependencies(), func(have *chart.Chart) bool { return have.Name() == d.Name }) {
			return fmt.Errorf("it needs the chart %s, which is not inside it: run helm dependency update on it first", d.Name)
		}
	}
	return nil
}

// filesOf reads all files of a chart.
func filesOf(ctx context.Context, root *readfile.Root, dir string, files []*loader.BufferedFile) ([]*loader.BufferedFile, error) {
	entries, err := root.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		if e.Name() == ".git" || len(files) > maxFiles {
			continue
		}
		info, err := root.Stat(name)
		if err != nil {
			return nil, err
		}
		if info.IsDir() {
			if e.Type()&fs.ModeSymlink != 0 {
				continue // it could lead to a folder above it
			}
			if files, err = filesOf(ctx, root, name, files); err != nil {
				return nil, err
			}
			continue
		}
		data, err := root.ReadFile(ctx, name, maxFile)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		files = append(files, &loader.BufferedFile{Name: name, Data: data})
	}
	if len(files) > maxFiles {
		return nil, fmt.Errorf("the chart has more than %d files", maxFiles)
	}
	return files, nil
}

// valuesOf reads files of values.
func valuesOf(ctx context.Context, files []string, budget *readfile.Budget) (texts [][]byte, err error) {
	for _, file := range files {
		root, name, err := readfile.Open(file, budget)
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", file, err)
		}
		data, err := root.ReadFile(ctx, name, maxFile)
		_ = root.Close() // it was only read
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		if _, err := chartutil.ReadValues(data); err != nil {
			return nil, fmt.Errorf("read %s: it is not YAML, or no mapping of values", file)
		}
		texts = append(texts, data)
	}
	return texts, nil
}

// merged puts later values over earlier ones.
func merged(texts [][]byte) (map[string]any, error) {
	out := map[string]any{}
	for _, text := range texts {
		given, err := chartutil.ReadValues(text)
		if err != nil {
			return nil, err
		}
		out = chartutil.CoalesceTables(given, out)
	}
	return out, nil
}
