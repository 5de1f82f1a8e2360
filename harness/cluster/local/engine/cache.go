package engine

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/netproof/netproof/harness/owned"
)

// manifestFile says what an engine folder holds. It is written last, before the folder gets its name.
const manifestFile = "engine.json"

// buildingPrefix begins the name of a folder in which an engine is being built.
const buildingPrefix = ".building-"

// manifest is the content of engine.json.
type manifest struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	// Source is the digest of what is compiled, without the toolchain.
	Source string `json:"source"`
	// Toolchain names the Go release, flags of the platform included, that the key was made of.
	Toolchain string           `json:"toolchain"`
	Built     time.Time        `json:"built"`
	Seconds   int              `json:"seconds"`
	Files     map[string]int64 `json:"files"`
	// Imported says that the engine came in a bundle: see [Import].
	Imported bool `json:"imported,omitempty"`
	// Digests are the SHA-256 of the files, aliases apart. Versions of netproof that did not verify engines left them
	// out: see verify.
	Digests map[string]string `json:"sha256,omitempty"`
}

// cache is the folder of built engines.
type cache struct{ dir string }

// cacheFolder gives the folder of built engines: dir, or the default. On a system that cannot run them there is none.
func cacheFolder(dir string) (string, error) {
	if errSystem != nil {
		return "", errSystem
	}
	if dir != "" {
		return dir, nil
	}
	return DefaultCacheDir()
}

func openCache(dir string) (cache, error) {
	dir, err := cacheFolder(dir)
	if err != nil {
		return cache{}, err
	}
	real, err := owned.MakeFolder(dir)
	if err := untrustedCache(dir, err); err != nil {
		return cache{}, fmt.Errorf("make cache folder (set %s to use another): %w", CacheEnv, err)
	}
	return cache{real}, nil
}

// engineDir is where an engine built by tc belongs.
func (c cache) engineDir(s spec, tc toolchain) (string, error) {
	source, err := sourceDigest(s)
	if err != nil {
		return "", err
	}
	return c.dirOf(s, source, tc.identity()), nil
}

// dirOf is where an engine belongs that a toolchain of that identity built.
func (c cache) dirOf(s spec, source, toolchain string) string {
	return filepath.Join(c.dir, s.name+"-"+key(source, toolchain))
}

func lockPath(dir string) string { return dir + ".lock" }

func buildingDir(dir string) string {
	return filepath.Join(filepath.Dir(dir), buildingPrefix+filepath.Base(dir))
}

// sourceDigest covers all that decides what is compiled, the toolchain apart. Every part is preceded by its length,
// so that no two different engines run together to the same input.
func sourceDigest(s spec) (string, error) {
	h := sha256.New()
	part := func(text string) { fmt.Fprintf(h, "%d:%s\n", len(text), text) }
	part("netproof engine 1")
	part(s.name)
	part(s.version)
	for _, p := range s.programs {
		part(p.file)
		part(p.pkg)
	}
	aliases := make([]string, 0, len(s.aliases))
	for alias, target := range s.aliases {
		aliases = append(aliases, alias+"="+target)
	}
	slices.Sort(aliases)
	for _, alias := range aliases {
		part(alias)
	}
	for _, d := range s.data {
		part(d.file)
		part(d.module)
		part(d.path)
	}
	for _, flag := range buildFlags(s) {
		part(flag)
	}
	err := fs.WalkDir(s.files, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := fs.ReadFile(s.files, name)
		if err != nil {
			return err
		}
		part(name)
		part(string(content))
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("read module files of engine %s: %w", s.name, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// key names an engine folder: 64 bits are plenty for a handful of engines per user.
func key(source, toolchain string) string {
	sum := sha256.Sum256([]byte(source + "\n" + toolchain))
	return hex.EncodeToString(sum[:8])
}

// take takes the shared lock on an engine that is whole, so that nobody removes or replaces it. There is none to take
// where it is not complete, or where somebody is building, removing or replacing it. An engine whose content is not
// what was built is a [*TamperedError]. In a cache that is read-only nobody builds or prunes, so there the lock is nil.
func take(s spec, dir string, verify func(spec, string) error) (held *lock, whole bool, err error) {
	if !isComplete(s, dir) {
		return nil, false, nil // to ask for the lock would make its file
	}
	held, err = tryLock(lockPath(dir), lockShared)
	if err != nil && !isReadOnly(err) {
		return nil, false, err
	}
	// It may have been replaced since.
	if held == nil && err == nil || !isComplete(s, dir) {
		return nil, false, held.release()
	}
	if err := verify(s, dir); err != nil {
		return nil, false, errors.Join(err, held.release())
	}
	return held, true, nil
}

// putInPlace gives the folder of a whole engine its name. The caller holds the exclusive lock. What has the name
// already lost a file, or has another one: a whole engine is not replaced.
func putInPlace(s spec, from, dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("replace damaged engine %s: %w", s.name, err)
	}
	if err := os.Rename(from, dir); err != nil {
		return fmt.Errorf("put engine %s in place: %w", s.name, err)
	}
	return nil
}

// isComplete says whether dir holds every file of the engine at its full size.
func isComplete(s spec, dir string) bool {
	m, err := readManifest(dir)
	if err != nil {
		return false
	}
	for _, file := range s.fileNames() {
		size, listed := m.Files[file]
		info, err := os.Stat(filepath.Join(dir, file))
		if !listed || err != nil || info.Size() != size {
			return false
		}
	}
	return true
}

func readManifest(dir string) (manifest, error) {
	var m manifest
	content, err := os.ReadFile(filepath.Join(dir, manifestFile))
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(content, &m); err != nil {
		return m, fmt.Errorf("read %s: %w", filepath.Join(dir, manifestFile), err)
	}
	return m, nil
}

// current gives the folder of the engine that a run uses as things are, and "" where it would have to build one: the
// engine of the machine's toolchain, else one that was imported. Who imports an engine wants it to be run, and not
// compiled again because a runner has another release of Go. A tc of nil is a machine without Go, which runs what is
// there.
func (c cache) current(s spec, tc *toolchain) (string, error) {
	if tc == nil {
		return c.findBySource(s, false)
	}
	dir, err := c.engineDir(s, *tc)
	if err != nil || isComplete(s, dir) {
		return dir, err
	}
	return c.findBySource(s, true)
}

// findBySource looks for a complete engine of the same source, built by whatever toolchain, and gives the newest, or ""
// if there is none. It can be asked for an imported one.
func (c cache) findBySource(s spec, imported bool) (string, error) {
	source, err := sourceDigest(s)
	if err != nil {
		return "", err
	}
	dirs, err := filepath.Glob(filepath.Join(c.dir, s.name+"-*"))
	if err != nil {
		return "", fmt.Errorf("list cache folder: %w", err)
	}
	best, built := "", time.Time{}
	for _, dir := range dirs {
		m, err := readManifest(dir)
		if err != nil || m.Source != source || imported && !m.Imported || !isComplete(s, dir) {
			continue // a lock file, another source, or not whole
		}
		if best == "" || m.Built.After(built) {
			best, built = dir, m.Built
		}
	}
	return best, nil
}

// State is what the cache holds of one engine.
type State struct {
	Engine  string
	Version string
	// Built says that the engine is complete and will be used as it is.
	Built bool
	// Path is the folder, and Size the bytes in it, of a built engine.
	Path string
	Size int64
	// BuiltAt is when it was built, or imported, and Took how long that was.
	BuiltAt time.Time
	Took    time.Duration
	// Imported says that it came in a bundle, and Toolchain what compiled it: the platform, the Go release, and flags.
	Imported  bool
	Toolchain string
}

// Status tells, for each engine that a cluster with the network plugin needs, whether it is built. An empty cacheDir
// means [DefaultCacheDir]. It builds and changes nothing.
func Status(ctx context.Context, cni, cacheDir string) ([]State, error) {
	wanted, err := specsFor(cni)
	if err != nil {
		return nil, err
	}
	return status(ctx, wanted, cacheDir)
}

func status(ctx context.Context, wanted []spec, cacheDir string) ([]State, error) {
	c, tc, err := look(ctx, cacheDir)
	if err != nil {
		return nil, err
	}
	var states []State
	for _, s := range wanted {
		dir, err := c.current(s, tc)
		if err != nil {
			return nil, err
		}
		state := State{Engine: s.name, Version: s.version}
		if dir != "" {
			if state, err = stateOf(dir); err != nil {
				return nil, fmt.Errorf("status of engine %s: %w", s.name, err)
			}
		}
		states = append(states, state)
	}
	return states, nil
}

// look opens the cache without making it, and finds the toolchain, which is nil where there is none.
func look(ctx context.Context, cacheDir string) (cache, *toolchain, error) {
	cacheDir, err := cacheFolder(cacheDir)
	if err != nil {
		return cache{}, nil, err
	}
	if real, err := owned.Resolve(cacheDir); err == nil {
		cacheDir = real
	} else if !errors.Is(err, fs.ErrNotExist) {
		return cache{}, nil, untrustedCache(cacheDir, err)
	}
	tc, err := findToolchain(ctx)
	if errors.Is(err, ErrNoGo) {
		return cache{cacheDir}, nil, nil
	}
	if err != nil {
		return cache{}, nil, err
	}
	return cache{cacheDir}, &tc, nil
}

// stateOf describes a complete engine by its manifest.
func stateOf(dir string) (State, error) {
	m, err := readManifest(dir)
	if err != nil {
		return State{}, err
	}
	return State{
		Engine: m.Name, Version: m.Version, Built: true, Path: dir, Size: treeSize(dir), BuiltAt: m.Built,
		Took: time.Duration(m.Seconds) * time.Second, Imported: m.Imported, Toolchain: m.Toolchain,
	}, nil
}

// Cached is a folder of the cache: an engine, or the remains of an interrupted build.
type Cached struct {
	State

	// Current says that a run uses this engine. Others are of other pins or toolchains, and [Prune] removes them.
	Current bool
	// Remains says that the folder is what an interrupted build left, or a damaged engine. Engine is then the name that
	// the folder has, and Version empty.
	Remains bool
	// Building says that a build or an import works on it now. Path is empty where that has not made a folder yet.
	// [Prune] does not look.
	Building bool
	// Damage says what an engine of these pins lacks, or what in it is not what was built; empty for a whole one. The
	// next run that needs it replaces it. [Prune] does not look.
	Damage string
}

// List tells what the cache holds, ordered by name and time, and reads all engines of these pins to see whether they
// are whole. An empty cacheDir means [DefaultCacheDir]. It changes nothing.
func List(ctx context.Context, cacheDir string) ([]Cached, error) {
	return list(ctx, specs(), cacheDir)
}

func list(ctx context.Context, pinned []spec, cacheDir string) ([]Cached, error) {
	c, tc, err := look(ctx, cacheDir)
	if err != nil {
		return nil, err
	}
	found, err := c.list(pinned, tc)
	if err != nil {
		return nil, err
	}
	sources, places := map[string]spec{}, map[string]spec{}
	for _, s := range pinned {
		source, err := sourceDigest(s)
		if err != nil {
			return nil, err
		}
		sources[source] = s
		if tc != nil {
			places[c.dirOf(s, source, tc.identity())] = s
		}
	}
	for i := range found {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err := found[i].inspect(sources); err != nil {
			return nil, err
		}
		delete(places, found[i].engineDir())
	}
	// A build that waits for its turn has the lock, and no folder.
	for dir, s := range places {
		held, busy, err := glance(dir)
		if err := errors.Join(err, held.release()); err != nil {
			return nil, err
		}
		if busy {
			found = append(found, Cached{State: State{Engine: s.name, Version: s.version}, Building: true})
		}
	}
	sortCached(found)
	return found, nil
}

// engineDir is the folder of the engine itself.
func (f *Cached) engineDir() string {
	return filepath.Join(filepath.Dir(f.Path), strings.TrimPrefix(filepath.Base(f.Path), buildingPrefix))
}

// inspect sets Building and Damage. sources are the pinned engines.
func (f *Cached) inspect(sources map[string]spec) error {
	dir := f.engineDir()
	held, busy, err := glance(dir)
	if busy || err != nil {
		f.Building = busy
		return err
	}
	f.Damage = func() string {
		if dir != f.Path {
			return "" // what is left of a build
		}
		m, err := readManifest(dir)
		if err != nil {
			return err.Error()
		}
		s, pinned := sources[m.Source]
		switch {
		case !pinned:
			return "" // nobody knows what it has to have
		case !isComplete(s, dir):
			return dir + " lacks a file, or has one of another size"
		case m.Digests == nil:
			return "" // the next run notes them: see verify
		}
		if err := verify(s, dir); err != nil {
			return err.Error()
		}
		return ""
	}()
	return held.release()
}

// glance takes the shared lock on an engine for those who only look, and do not even make the file of the lock. It
// tells whether somebody builds, replaces or removes the engine.
func glance(dir string) (held *lock, busy bool, err error) {
	if _, err := os.Stat(lockPath(dir)); errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	held, err = tryLock(lockPath(dir), lockShared)
	if isReadOnly(err) {
		return nil, false, nil
	}
	return held, held == nil && err == nil, err
}

// list lists the folders of the cache.
func (c cache) list(pinned []spec, tc *toolchain) ([]Cached, error) {
	keep := map[string]bool{}
	for _, s := range pinned {
		dir, err := c.current(s, tc)
		if err != nil {
			return nil, err
		}
		keep[dir] = true
	}
	entries, err := os.ReadDir(c.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list cache folder: %w", err)
	}
	var found []Cached
	for _, entry := range entries {
		name := strings.TrimPrefix(entry.Name(), buildingPrefix)
		if !entry.IsDir() || !isEngineName(name) {
			continue
		}
		dir := filepath.Join(c.dir, entry.Name())
		state, err := stateOf(dir)
		if err != nil || name != entry.Name() {
			engine, _, _ := cutLast(name, "-")
			found = append(found, Cached{State: State{Engine: engine, Path: dir, Size: treeSize(dir)}, Remains: true})
			continue
		}
		found = append(found, Cached{State: state, Current: keep[dir]})
	}
	sortCached(found)
	return found, nil
}

func sortCached(found []Cached) {
	slices.SortStableFunc(found, func(a, b Cached) int {
		return cmp.Or(strings.Compare(a.Engine, b.Engine), a.BuiltAt.Compare(b.BuiltAt))
	})
}

// Pruned is a folder that Prune took out of the cache.
type Pruned struct {
	Cached

	// InUse says that it stays, because a run or a cluster uses it, or a build works on it.
	InUse bool
}

// PruneOptions say what to prune. An empty CacheDir means [DefaultCacheDir]; with DryRun nothing is removed.
type PruneOptions struct {
	CacheDir string
	DryRun   bool
}

// Prune removes from the cache what this netproof, with the Go toolchain of this machine, would not use: engines of
// other pins and toolchains, and the remains of interrupted builds. What another process builds or holds stays, and is
// named in the result. After an error the result is what was removed until then.
func Prune(ctx context.Context, opts PruneOptions) ([]Pruned, error) {
	return prune(ctx, specs(), opts)
}

func prune(ctx context.Context, pinned []spec, opts PruneOptions) ([]Pruned, error) {
	c, tc, err := look(ctx, opts.CacheDir)
	if err != nil {
		return nil, err
	}
	found, err := c.list(pinned, tc)
	if err != nil {
		return nil, err
	}
	var pruned []Pruned
	for _, f := range found {
		if f.Current {
			continue
		}
		if ctx.Err() != nil {
			return pruned, context.Cause(ctx)
		}
		inUse, err := remove(f.Path, opts.DryRun)
		if err != nil {
			return pruned, fmt.Errorf("prune engine: %w", err)
		}
		pruned = append(pruned, Pruned{f, inUse})
	}
	return pruned, nil
}

// remove takes a folder of the cache away, unless somebody holds its engine. The lock file goes too, unless it is that
// of an engine that stays.
func remove(folder string, dryRun bool) (inUse bool, err error) {
	dir := filepath.Join(filepath.Dir(folder), strings.TrimPrefix(filepath.Base(folder), buildingPrefix))
	if _, err := os.Stat(lockPath(dir)); dryRun && errors.Is(err, fs.ErrNotExist) {
		return false, nil // to ask for the lock would make its file
	}
	l, err := tryLock(lockPath(dir), lockExclusive)
	if l == nil || err != nil {
		return true, err
	}
	if !dryRun {
		if err = os.RemoveAll(folder); err == nil {
			err = removeIdleLock(dir)
		}
	}
	return false, errors.Join(err, l.release())
}

// isEngineName tells the folders of engines from anything else that may lie in the cache folder.
func isEngineName(name string) bool {
	prefix, digest, ok := cutLast(name, "-")
	if !ok || prefix == "" || len(digest) != 16 {
		return false
	}
	_, err := hex.DecodeString(digest)
	return err == nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// treeSize adds up the regular files under dir. It serves a message, so what cannot be read counts nothing.
func treeSize(dir string) int64 {
	var size int64
	walk := func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return nil
		}
		if info, err := entry.Info(); err == nil {
			size += info.Size()
		}
		return nil
	}
	_ = filepath.WalkDir(dir, walk) // walk gives no error
	return size
}
