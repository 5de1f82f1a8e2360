package engine

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"slices"
)

// Module is an upstream program, or several of one Go module, that some other part of netproof pins: a tool of its own
// beside the engines of local clusters. It is built by the same rules into the same cache, and shares their compiled
// packages.
type Module struct {
	// Name is the name of the engine, and the beginning of its folder's name in the cache. It must differ from those of
	// the engines of this package.
	Name string
	// Version is the upstream version. Users see it, and it enters the key; what is compiled is decided by Files.
	Version string
	// Files holds the module's go.mod and go.sum, and whatever else it needs, each under its name plus ".txt".
	Files fs.FS
	// Programs maps the name under which an executable is kept to the import path of its main package.
	Programs map[string]string
	// Tags are build tags.
	Tags []string
	// Data are files that are copied out of a module of the build list as they are, and folders that become tar files.
	Data []ModuleData
	// LDFlags go to the linker, as "-X PACKAGE.NAME=VALUE".
	LDFlags []string
}

// ModuleData is a file, or a folder, to copy out of a module.
type ModuleData struct {
	// File is the name under which it is kept.
	File string
	// Module is the path of the module, and Path that of the file or folder in it, with slashes. Of a folder File is a
	// tar file with what lies in it: names are relative to the folder, and modes say nothing, because modules keep
	// none.
	Module, Path string
}

// EnsureModules gives the programs of the modules, building those that are not in the cache yet, as [Ensure] does for
// the engines of a local cluster. Of opts it takes CacheDir and Progress.
func EnsureModules(ctx context.Context, wanted []Module, opts Options) (*Engines, error) {
	chosen := make([]spec, 0, len(wanted))
	for _, m := range wanted {
		s, err := m.spec()
		if err != nil {
			return nil, err
		}
		chosen = append(chosen, s)
	}
	return ensure(ctx, chosen, opts)
}

func (m Module) spec() (spec, error) {
	if m.Name == "" || m.Version == "" || m.Files == nil || len(m.Programs) == 0 {
		return spec{}, fmt.Errorf("module %q: name, version, files and programs must be given", m.Name)
	}
	if slices.ContainsFunc(specs(), func(s spec) bool { return s.name == m.Name }) {
		return spec{}, fmt.Errorf("module %q: an engine has that name", m.Name)
	}
	s := spec{name: m.Name, version: m.Version, files: m.Files, tags: m.Tags, ldflags: m.LDFlags}
	for file, pkg := range m.Programs {
		s.programs = append(s.programs, program{file: file, pkg: pkg})
	}
	// A map has no order, and the key must not depend on one.
	slices.SortFunc(s.programs, func(a, b program) int { return cmp.Compare(a.file, b.file) })
	for _, d := range m.Data {
		s.data = append(s.data, dataFile{d.File, d.Module, d.Path})
	}
	return s, nil
}
