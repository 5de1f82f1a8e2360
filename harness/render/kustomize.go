package render

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/netproof/netproof/harness/readfile"
)

const (
	// maxFile bounds a file of a kustomization or a chart, maxTogether all of them.
	maxFile     = 8 << 20
	maxTogether = 32 << 20
	// maxRendered bounds what comes out.
	maxRendered = 32 << 20
)

// Kustomize builds a folder as `kubectl kustomize` does, and returns the objects as YAML, and what kustomize had to
// say. A base may lie outside of the folder: where the folder lies below the working folder, everything below that is
// read, else only what lies below the folder. Nothing is fetched, no plugin runs, and files stay in the folder of their
// kustomization.
func Kustomize(ctx context.Context, dir string) (objects []byte, notes []string, err error) {
	clean := filepath.Clean(dir)
	base, beneath := ".", filepath.ToSlash(clean)
	if !filepath.IsLocal(clean) {
		base, beneath = clean, "."
	}
	root, name, err := readfile.Open(base, readfile.NewBudget(maxTogether))
	if err != nil {
		return nil, nil, fmt.Errorf("open %s: %w", dir, err)
	}
	defer func() { _ = root.Close() }() // it was only read
	tree := &folder{ctx: ctx, root: root}
	start := path.Join("/", name, beneath)
	if !tree.IsDir(start) {
		return nil, nil, fmt.Errorf("%s is no folder: give the folder that holds kustomization.yaml", dir)
	}
	if err := tree.check(start, dir, map[string]bool{}); err != nil {
		return nil, nil, err
	}
	return within(ctx, func() ([]byte, error) {
		built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(tree, start)
		if err != nil {
			return nil, fmt.Errorf("build %s: %w", dir, err)
		}
		out, err := built.AsYaml()
		if err != nil {
			return nil, fmt.Errorf("build %s: %w", dir, err)
		}
		return out, bounded(len(out), dir)
	})
}

func bounded(n int, what string) error {
	if n > maxRendered {
		return fmt.Errorf("%s: what is rendered has more than %d MiB", what, maxRendered>>20)
	}
	return nil
}

// The fields of a kustomization that name files or folders, and those that would run something or are refused because
// their plugins may fetch.
var (
	folderFields  = []string{"resources", "bases", "components"}
	refusedFields = []string{"generators", "transformers", "validators", "helmCharts", "helmChartInflationGenerator"}
)

// check walks the kustomizations that a build reaches, before anything is built, and refuses what would be fetched.
func (f *folder) check(dir, shown string, seen map[string]bool) error {
	if seen[dir] {
		return nil // kustomize itself reports a loop
	}
	seen[dir] = true
	var content map[string]any
	found := false
	for _, name := range []string{"kustomization.yaml", "kustomization.yml", "Kustomization"} {
		if !f.Exists(path.Join(dir, name)) {
			continue
		}
		found = true
		data, err := f.ReadFile(path.Join(dir, name))
		if err != nil {
			return fmt.Errorf("read %s: %w", path.Join(shown, name), err)
		}
		if err := yaml.Unmarshal(data, &content); err != nil {
			return fmt.Errorf("read %s: it is not YAML", path.Join(shown, name))
		}
	}
	if !found {
		return fmt.Errorf("%s holds no kustomization.yaml", shown)
	}
	for _, field := range refusedFields {
		if content[field] != nil {
			return fmt.Errorf("%s: the kustomization has %s, which are not run here: render it with kustomize build %s | netproof run -", shown, field, shown)
		}
	}
	if where, remote := remoteIn(content); remote {
		return fmt.Errorf("%s: the kustomization names %q, and nothing is fetched here: render it with kustomize build %s | netproof run -", shown, where, shown)
	}
	for _, field := range folderFields {
		entries, _ := content[field].([]any)
		for _, entry := range entries {
			name, _ := entry.(string)
			target := path.Join(dir, name)
			switch {
			case f.IsDir(target):
				if err := f.check(target, path.Join(shown, name), seen); err != nil {
					return err
				}
			case !f.Exists(target):
				return fmt.Errorf("%s: the kustomization names %s, which is not there, or not below the folder that is read", shown, name)
			}
		}
	}
	return nil
}

// remoteIn finds a text that kustomize could take for an address. Texts of patches are none: they hold a line break, or
// stand under keys that take no path.
func remoteIn(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		if isRemote(v) {
			return v, true
		}
	case []any:
		for _, item := range v {
			if where, remote := remoteIn(item); remote {
				return where, true
			}
		}
	case map[string]any:
		for key, item := range v {
			switch key {
			case "patch", "commonAnnotations", "annotations", "literals", "images", "metadata", "labels", "commonLabels":
				continue // no paths stand below these
			}
			if where, remote := remoteIn(item); remote {
				return where, true
			}
		}
	}
	return "", false
}

// isRemote tells whether kustomize may take a text for the address of a file or of a git repository:
// https://github.com/kubernetes-sigs/kustomize/blob/master/examples/remoteBuild.md
func isRemote(text string) bool {
	lower := strings.ToLower(strings.TrimSpace(text))
	if strings.Contains(lower, "\n") {
		return false
	}
	_, value, _ := strings.Cut(lower, "=") // key=path of a generator
	return slices.ContainsFunc([]string{lower, value}, func(s string) bool {
		return strings.Contains(s, "://") || strings.Contains(s, "::") || strings.Contains(s, "@") || strings.Contains(s, "_git/") ||
			strings.HasPrefix(s, "github.com") || strings.HasPrefix(s, "gh:") || strings.HasPrefix(s, "git:") || strings.Contains(s, "?ref=")
	})
}

// folder lets kustomize read files beneath a root. Its paths begin with a slash, which stands for the root.
type folder struct {
	ctx  context.Context
	root *readfile.Root
}

var errReadOnly = errors.New("nothing is written while a kustomization is built")

func (f *folder) name(p string) string {
	return strings.TrimPrefix(path.Clean("/"+filepath.ToSlash(p)), "/")
}

func (f *folder) stat(p string) (fs.FileInfo, error) {
	name := f.name(p)
	if name == "" {
		name = "."
	}
	return f.root.Stat(name)
}

// Exists implements [filesys.FileSystem].
func (f *folder) Exists(p string) bool {
	_, err := f.stat(p)
	return err == nil
}

// IsDir implements [filesys.FileSystem].
func (f *folder) IsDir(p string) bool {
	info, err := f.stat(p)
	return err == nil && info.IsDir()
}

// ReadFile implements [filesys.FileSystem].
func (f *folder) ReadFile(p string) ([]byte, error) {
	return f.root.ReadFile(f.ctx, f.name(p), maxFile)
}

// ReadDir implements [filesys.FileSystem].
func (f *folder) ReadDir(p string) ([]string, error) {
	name := f.name(p)
	if name == "" {
		name = "."
	}
	entries, err := f.root.ReadDir(name)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

// CleanedAbs implements [filesys.FileSystem].
func (f *folder) CleanedAbs(p string) (filesys.ConfirmedDir, string, error) {
	clean := path.Clean("/" + filepath.ToSlash(p))
	info, err := f.stat(clean)
	switch {
	case err != nil:
		return "", "", err
	case info.IsDir():
		return filesys.ConfirmedDir(clean), "", nil
	}
	return filesys.ConfirmedDir(path.Dir(clean)), path.Base(clean), nil
}

// Glob implements [filesys.FileSystem], for patterns in the last part of a path.
func (f *folder) Glob(pattern string) ([]string, error) {
	names, err := f.ReadDir(path.Dir(pattern))
	if err != nil {
		return nil, nil //nolint:nilerr // as filepath.Glob: a folder that cannot be read has no matches
	}
	var out []string
	for _, name := range names {
		ok, err := path.Match(path.Base(pattern), name)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, path.Join(path.Dir(pattern), name))
		}
	}
	return out, nil
}

// Open implements [filesys.FileSystem].
func (f *folder) Open(string) (filesys.File, error) { return nil, errReadOnly }

// Walk implements [filesys.FileSystem].
func (f *folder) Walk(string, filepath.WalkFunc) error { return errReadOnly }

// Create implements [filesys.FileSystem].
func (f *folder) Create(string) (filesys.File, error) { return nil, errReadOnly }

// Mkdir implements [filesys.FileSystem].
func (f *folder) Mkdir(string) error { return errReadOnly }

// MkdirAll implements [filesys.FileSystem].
func (f *folder) MkdirAll(string) error { return errReadOnly }

// RemoveAll implements [filesys.FileSystem].
func (f *folder) RemoveAll(string) error { return errReadOnly }

// WriteFile implements [filesys.FileSystem].
func (f *folder) WriteFile(string, []byte) error { return errReadOnly }
