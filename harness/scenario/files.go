package scenario

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/netproof/netproof/harness/readfile"
)

const (
	// maxFiles bounds the files of a folder: more than this is a folder given by mistake.
	maxFiles = 5000
	// maxBytes bounds all files of one call together: a folder may come from a stranger.
	maxBytes = 32 << 20
	// maxObjects bounds the objects of all manifests of one call.
	maxObjects = 20_000
	// maxExpectedSize bounds an expected.txt.
	maxExpectedSize = 16 << 20
)

// files opens what is named by paths: on the machine, or in an embedded file system.
type files struct {
	// ctx ends reading.
	ctx    context.Context
	fsys   fs.FS
	budget *readfile.Budget
	roots  []*readfile.Root
}

// source is a file or folder, and the path by which messages name it.
type source struct {
	root *readfile.Root
	// name is where it is beneath the root, with slashes.
	name string
	// shown is the path as the caller of [Load] would write it.
	shown string
}

// open finds what a path names.
func (f *files) open(name string) (source, error) {
	if f.fsys != nil {
		// Nothing is outside the root of an embedded file system.
		beneath := strings.TrimPrefix(path.Clean("/"+name), "/")
		if beneath == "" {
			beneath = "."
		}
		return source{readfile.FS(f.fsys, f.budget), beneath, path.Clean(name)}, nil
	}
	root, beneath, err := readfile.Open(name, f.budget)
	if err != nil {
		return source{shown: filepath.Clean(name)}, err
	}
	f.roots = append(f.roots, root)
	return source{root, beneath, filepath.Clean(name)}, nil
}

// close lets go of all that was opened.
func (f *files) close() {
	for _, r := range f.roots {
		_ = r.Close() // it was only read
	}
}

func (s source) stat() (fs.FileInfo, error) { return s.root.Stat(s.name) }

func (s source) readDir() ([]fs.DirEntry, error) { return s.root.ReadDir(s.name) }

// join is what a relative path leads to from a folder.
func (s source) join(name string) source {
	shown := path.Join(s.shown, name)
	if s.root.Links() {
		shown = filepath.Join(s.shown, filepath.FromSlash(name))
	}
	return source{s.root, path.Join(s.name, filepath.ToSlash(name)), shown}
}

// dir is the folder that holds a file.
func (s source) dir() source {
	shown := path.Dir(s.shown)
	if s.root.Links() {
		shown = filepath.Dir(s.shown)
	}
	return source{s.root, path.Dir(s.name), shown}
}

// start is the beginning of the file.
func (s source) start() Position { return Position{s.shown, 1, 1} }

// read returns the content of a file, or reports why not. from is what asks for it.
func (f *files) read(c *collector, from Position, s source) ([]byte, bool) {
	data, err := s.root.ReadFile(f.ctx, s.name, maxFileSize)
	if err != nil {
		c.problems = append(c.problems, unreadable(from, s, err))
		return nil, false
	}
	return data, true
}

// unreadable says why a file or a folder cannot be read, and what to do.
func unreadable(from Position, s source, err error) Problem {
	var tooLarge *readfile.SizeError
	switch {
	case errors.Is(err, readfile.ErrOutside):
		return problemAt(from, "give the folder that holds it all as the path, or put the file into the folder that is given",
			"%s is not read: it leads out of the folder that was given", s.shown)
	case errors.Is(err, readfile.ErrFolder):
		return problemAt(from, "name the files one by one", "%s is a folder", s.shown)
	case errors.Is(err, readfile.ErrNotRegular):
		return problemAt(from, "save it as a file first", "%s is not a regular file", s.shown)
	case errors.As(err, &tooLarge) && tooLarge.Together:
		return problemAt(s.start(), "name the folder of the policies", "all files together have more than %s, which is the most that is read", size(int(tooLarge.Most)))
	case errors.As(err, &tooLarge):
		return problemAt(s.start(), "split it into several files, or take out what is not a policy",
			"the file has more than %s, which is the most that is read", size(int(tooLarge.Most)))
	case errors.Is(err, fs.ErrNotExist):
		return missing(from, s)
	}
	return problemAt(from, "check its permissions, and where its links lead", "%s cannot be read: %v", s.shown, reason(err))
}

func missing(from Position, s source) Problem {
	fix := "check the path"
	list := func() ([]fs.DirEntry, error) { return os.ReadDir(filepath.Dir(s.shown)) }
	if s.root != nil {
		list = s.dir().readDir
	}
	if entries, err := list(); err == nil {
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		if near := suggest(path.Base(filepath.ToSlash(s.shown)), names); near != "" {
			fix = fmt.Sprintf("did you mean `%s`?", near)
		}
	}
	return problemAt(from, fix, "there is no file %s", s.shown)
}

// reason is an error without the operation and the path that callers name themselves.
func reason(err error) error {
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		return pathError.Err
	}
	return err
}

// walk lists the YAML and JSON files below a folder, in lexical order, following links that stay below it. A link that
// leads back to a folder above it is reported. Hidden files and folders are listed too: kubectl apply -f reads them. A
// hidden file that is listed under a plain name as well is listed once: Kubernetes mounts a ConfigMap as links into a
// hidden folder.
func (f *files) walk(c *collector, root source) []source {
	w := walker{c: c}
	info, err := root.stat()
	if err != nil {
		c.problems = append(c.problems, unreadable(root.start(), root, err))
		return nil
	}
	w.folder(f.ctx, root, info, nil)
	if len(w.found) > maxFiles {
		c.add(root.start(), "name the folder of the policies", "the folder holds more than %d manifests", maxFiles)
		return nil
	}
	return w.withoutRepeats(root)
}

type walker struct {
	c     *collector
	found []source
	// infos are those of what was found.
	infos   []fs.FileInfo
	visited []place
}

// withoutRepeats leaves out hidden names of files that have a plain one.
func (w *walker) withoutRepeats(root source) []source {
	if !root.root.Links() {
		return w.found
	}
	var plain []fs.FileInfo
	for i, s := range w.found {
		if !isHidden(root, s) {
			plain = append(plain, w.infos[i])
		}
	}
	var out []source
	for i, s := range w.found {
		if !isHidden(root, s) || !slices.ContainsFunc(plain, func(info fs.FileInfo) bool { return os.SameFile(info, w.infos[i]) }) {
			out = append(out, s)
		}
	}
	return out
}

// place is a folder that was seen, and the path by which it was reached.
type place struct {
	shown string
	info  fs.FileInfo
}

func (w *walker) folder(ctx context.Context, s source, info fs.FileInfo, above []place) {
	if len(w.found) > maxFiles || ctx.Err() != nil {
		return
	}
	// Only folders of the machine have an identity, and only they can be reached by two paths.
	if s.root.Links() {
		for _, p := range above {
			if os.SameFile(p.info, info) {
				w.c.add(s.start(), "remove the link", "directory loop: %s leads back to %s", s.shown, p.shown)
				return
			}
		}
		if slices.ContainsFunc(w.visited, func(p place) bool { return os.SameFile(p.info, info) }) {
			return
		}
	}
	here := place{s.shown, info}
	w.visited = append(w.visited, here)
	above = append(slices.Clone(above), here)
	entries, err := s.readDir()
	if err != nil {
		w.c.problems = append(w.c.problems, unreadable(s.start(), s, err))
		return
	}
	for _, e := range entries {
		full := s.join(e.Name())
		info, err := full.stat()
		switch {
		case err != nil:
			w.broken(full, e.Name(), err)
		case info.IsDir():
			w.folder(ctx, full, info, above)
		case isManifestName(e.Name()) || isKustomization(e.Name()):
			w.found, w.infos = append(w.found, full), append(w.infos, info)
		}
	}
}

// broken reports a link that leads nowhere, to itself, or out of the folder, if what it leads to would have been read.
// A name without an ending may be that of a folder.
func (w *walker) broken(s source, name string, err error) {
	switch {
	case errors.Is(err, readfile.ErrOutside) && (isManifestName(name) || path.Ext(name) == ""):
		w.c.add(s.start(), "put what it leads to into the folder, or write the link relative to its own folder",
			"the link is not followed: it is absolute, or leads out of the folder that was given")
	case isManifestName(name) && !strings.HasPrefix(name, ".") || strings.Contains(err.Error(), "too many"):
		w.c.add(s.start(), "remove the link, or let it lead to a file", "the link cannot be followed: %v", reason(err))
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

// isHidden tells whether a file, or a folder above it and below root, begins with a dot.
func isHidden(root, s source) bool {
	below := s.name
	if root.name != "." {
		below = strings.TrimPrefix(s.name, root.name+"/")
	}
	return slices.ContainsFunc(strings.Split(below, "/"), func(part string) bool { return strings.HasPrefix(part, ".") })
}

// isLink tells whether the last part of a path is a link.
func isLink(s source) bool {
	info, err := s.root.Lstat(s.name)
	return err == nil && info.Mode()&fs.ModeSymlink != 0
}
