package engine

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Packed is a file of a cache of engines that is put together elsewhere. Exactly one of Source, Content and Link is
// set.
type Packed struct {
	// Path is relative to the folder that [CacheEnv] would name.
	Path string
	// Source is a file with this content on this machine, Content the content itself, Link the target of a link.
	Source, Link string
	Content      []byte
}

// Pack lists what a cache with the engines of all local clusters has to hold, such as that of an image. They are used
// there as imported ones are. The same engines give the same list, whoever built them, but for Source. Engines that are
// missing are built first; they stay in place until the set is closed. Errors are those of [Export]. Of opts it takes
// CacheDir and Progress.
func Pack(ctx context.Context, opts Options) (*Engines, []Packed, error) {
	return pack(ctx, specs(), opts)
}

func pack(ctx context.Context, wanted []spec, opts Options) (*Engines, []Packed, error) {
	set, err := ensureBuilt(ctx, wanted, opts)
	if err != nil {
		return nil, nil, err
	}
	var files []Packed
	for _, s := range wanted {
		more, err := packOne(s, set.dirs[s.name])
		if err != nil {
			return nil, nil, errors.Join(err, set.Close())
		}
		files = append(files, more...)
	}
	return set, files, nil
}

func packOne(s spec, dir string) ([]Packed, error) {
	e, err := bundled(s, dir)
	if err != nil {
		return nil, err
	}
	to := filepath.Join("engines", filepath.Base(dir))
	var files []Packed
	for _, f := range e.Files {
		files = append(files, Packed{Path: filepath.Join(to, f.Name), Source: filepath.Join(dir, f.Name)})
	}
	for alias, target := range s.aliases {
		files = append(files, Packed{Path: filepath.Join(to, alias), Link: target})
	}
	// When it was built, and how long that took, would make every image another one.
	content, err := encode(e.manifest(s, time.Unix(0, 0).UTC()))
	if err != nil {
		return nil, fmt.Errorf("describe engine %s: %w", s.name, err)
	}
	files = append(files, Packed{Path: filepath.Join(to, manifestFile), Content: content})
	slices.SortFunc(files, func(a, b Packed) int { return strings.Compare(a.Path, b.Path) })
	return files, nil
}

// manifest describes an engine that comes from elsewhere.
func (e bundledEngine) manifest(s spec, at time.Time) manifest {
	m := manifest{
		Name: s.name, Version: s.version, Source: e.Source, Toolchain: e.Toolchain, Imported: true,
		Built: at, Files: map[string]int64{}, Digests: map[string]string{},
	}
	for _, f := range e.Files {
		m.Files[f.Name], m.Digests[f.Name] = f.Size, f.SHA256
	}
	for alias, target := range s.aliases {
		m.Files[alias] = m.Files[target]
	}
	return m
}
