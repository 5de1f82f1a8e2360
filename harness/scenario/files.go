package scenario

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// maxFiles bounds the files of a folder: more than this is a folder given by mistake.
const maxFiles = 5000

// files is where files are read from: the machine, or an embedded file system.
type files struct {
	fsys fs.FS
}

func (f files) stat(name string) (fs.FileInfo, error) {
	if f.fsys == nil {
		return os.Stat(name)
	}
	return fs.Stat(f.fsys, fsPath(name))
}

func (f files) readDir(name string) ([]fs.DirEntry, error) {
	if f.fsys == nil {
		return os.ReadDir(name)
	}
	return fs.ReadDir(f.fsys, fsPath(name))
}

func (f files) open(name string) (fs.File, error) {
	if f.fsys == nil {
		return os.Open(name)
	}
	return f.fsys.Open(fsPath(name))
}

func (f files) join(dir, name string) string {
	if f.fsys == nil {
		return filepath.Join(dir, filepath.FromSlash(name))
	}
	return path.Join(dir, name)
}

func (f files) dir(name string) string {
	if f.fsys == nil {
		return filepath.Dir(name)
	}
	return path.Dir(name)
}

// fsPath is a path in the form that embedded file systems take. Nothing is outside their root.
func fsPath(name string) string {
	if p := strings.TrimPrefix(path.Clean("/"+name), "/"); p != "" {
		return p
	}
	return "."
}

// read returns the content of a file, or reports why not. from is what asks for it.
func (f files) read(c *collector, from Position, name string) ([]byte, bool) {
	info, err := f.stat(name)
	if err != nil {
		c.problems = append(c.problems, f.missing(from, name, err))
		return nil, false
	}
	switch {
	case info.IsDir():
		c.add(from, "name the files one by one", "%s is a folder", name)
		return nil, false
	case !info.Mode().IsRegular():
		c.add(from, "save it as a file first", "%s is no regular file", name)
		return nil, false
	case info.Size() > maxFileSize:
		c.add(Position{name, 1, 1}, "split it into several files, or take out what is no policy",
			"the file has %s, and %s is the most that is read", size(int(info.Size())), size(maxFileSize))
		return nil, false
	}
	file, err := f.open(name)
	if err != nil {
		c.problems = append(c.problems, f.missing(from, name, err))
		return nil, false
	}
	defer func() { _ = file.Close() }() // it was only read
	// The file may grow between the two calls; one byte more than the bound is enough for parse to refuse it.
	data, err := io.ReadAll(io.LimitReader(file, maxFileSize+1))
	if err != nil {
		c.add(from, "check the file", "read %s: %v", name, reason(err))
		return nil, false
	}
	return data, true
}

func (f files) missing(from Position, name string, err error) Problem {
	if !errors.Is(err, fs.ErrNotExist) {
		return problemAt(from, "check its permissions, and where its links lead", "%s cannot be read: %v", name, reason(err))
	}
	mend := "check the path"
	if entries, dirErr := f.readDir(f.dir(name)); dirErr == nil {
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		if near := suggest(path.Base(filepath.ToSlash(name)), names); near != "" {
			mend = fmt.Sprintf("did you mean `%s`?", near)
		}
	}
	return problemAt(from, mend, "there is no file %s", name)
}

// reason is an error without the operation and the path that callers name themselves.
func reason(err error) error {
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		return pathError.Err
	}
	return err
}

// walk lists the YAML and JSON files below a folder, in lexical order, following links. A link that leads back to a folder
// above it is reported. Hidden files and folders are left out.
func (f files) walk(c *collector, root string) (names []string) {
	w := walker{files: f, c: c}
	info, err := f.stat(root)
	if err != nil {
		c.problems = append(c.problems, f.missing(Position{root, 1, 1}, root, err))
		return nil
	}
	w.folder(root, info, nil)
	if len(w.names) > maxFiles {
		c.add(Position{root, 1, 1}, "name the folder of the policies", "the folder holds more than %d manifests", maxFiles)
		return nil
	}
	return w.names
}

type walker struct {
	files
	c       *collector
	names   []string
	visited []place
}

// place is a folder that was seen, and the path by which it was reached.
type place struct {
	name string
	info fs.FileInfo
}

func (w *walker) folder(name string, info fs.FileInfo, above []place) {
	if len(w.names) > maxFiles {
		return
	}
	// Only folders of the machine have an identity, and only they can be reached by two paths.
	if w.fsys == nil {
		for _, p := range above {
			if os.SameFile(p.info, info) {
				w.c.add(Position{name, 1, 1}, "remove the link", "directory loop: %s leads back to %s", name, p.name)
				return
			}
		}
		if slices.ContainsFunc(w.visited, func(p place) bool { return os.SameFile(p.info, info) }) {
			return
		}
	}
	here := place{name, info}
	w.visited = append(w.visited, here)
	above = append(slices.Clone(above), here)
	entries, err := w.readDir(name)
	if err != nil {
		w.c.add(Position{name, 1, 1}, "check its permissions", "the folder cannot be read: %v", reason(err))
		return
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		full := w.join(name, e.Name())
		info, err := w.stat(full)
		switch {
		case err != nil:
			// A link to itself, or to nothing, is only worth a word when it would have been read.
			if isManifestName(e.Name()) || strings.Contains(err.Error(), "too many") {
				w.c.add(Position{full, 1, 1}, "remove the link, or let it lead to a file", "the link cannot be followed: %v", reason(err))
			}
		case info.IsDir():
			w.folder(full, info, above)
		case isManifestName(e.Name()):
			w.names = append(w.names, full)
		}
	}
}

func isManifestName(name string) bool {
	switch strings.ToLower(path.Ext(name)) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}

// isScenarioName tells whether a file in a folder is taken for a scenario: scenario.yaml or NAME.scenario.yaml.
func isScenarioName(name string) bool {
	base := path.Base(filepath.ToSlash(name))
	stem := strings.TrimSuffix(base, path.Ext(base))
	return isManifestName(base) && (stem == "scenario" || strings.HasSuffix(stem, ".scenario"))
}

// isAssertionsName tells whether a file is netproof.yaml.
func isAssertionsName(name string) bool {
	base := path.Base(filepath.ToSlash(name))
	return isManifestName(base) && strings.TrimSuffix(base, path.Ext(base)) == "netproof"
}

// isToolFile tells whether a file configures another tool that works on manifests.
func isToolFile(name string) bool {
	base := path.Base(filepath.ToSlash(name))
	switch strings.TrimSuffix(strings.TrimSuffix(base, ".yaml"), ".yml") {
	case "kustomization", "Kustomization", "Chart", "values", "skaffold":
		return true
	}
	return false
}
