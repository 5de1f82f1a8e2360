package engine

import (
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

	"golang.org/x/sys/unix"

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
	// Digests are the SHA-256 of the files, aliases apart. Versions of netproof that did not verify engines left them out: see verify.
	Digests map[string]string `json:"sha256,omitempty"`
}

// cache is the folder of built engines.
type cache struct{ dir string }

func openCache(dir string) (cache, error) {
	if dir == "" {
		var err error
		if dir, err = DefaultCacheDir(); err != nil {
			return cache{}, err
		}
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
	return filepath.Join(c.dir, s.name+"-"+key(source, tc)), nil
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
func key(source string, tc toolchain) string {
	sum := sha256.Sum256([]byte(source + "\n" + tc.identity()))
	return hex.EncodeToString(sum[:8])
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

// findBySource looks for a complete engine of the same source, built by whatever toolchain, and gives the newest, or ""
// if there is none.
func (c cache) findBySource(s spec) (string, error) {
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
		if err != nil || m.Source != source || !isComplete(s, dir) {
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
	// BuiltAt is when it was built, and Took how long that was.
	BuiltAt time.Time
	Took    time.Duration
}

// Status tells, for each engine that a cluster with the network plugin needs, whether it is built. An empty cacheDir means
// [DefaultCacheDir]. It builds and changes nothing.
func Status(ctx context.Context, cni, cacheDir string) ([]State, error) {
	wanted, err := specsFor(cni)
	if err != nil {
		return nil, err
	}
	return status(ctx, wanted, cacheDir)
}

func status(ctx context.Context, wanted []spec, cacheDir string) ([]State, error) {
	if cacheDir == "" {
		var err error
		if cacheDir, err = DefaultCacheDir(); err != nil {
			return nil, err
		}
	}
	if real, err := owned.Resolve(cacheDir); err == nil {
		cacheDir = real
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, untrustedCache(cacheDir, err)
	}
	c := cache{cacheDir}
	tc, noGo := findToolchain(ctx)
	if noGo != nil && !errors.Is(noGo, ErrNoGo) {
		return nil, noGo
	}
	var states []State
	for _, s := range wanted {
		var dir string
		var err error
		if noGo != nil {
			dir, err = c.findBySource(s)
		} else {
			dir, err = c.engineDir(s, tc)
		}
		if err != nil {
			return nil, err
		}
		state := State{Engine: s.name, Version: s.version}
		if dir != "" && isComplete(s, dir) {
			m, err := readManifest(dir)
			if err != nil {
				return nil, fmt.Errorf("status of engine %s: %w", s.name, err)
			}
			state.Built, state.Path, state.BuiltAt = true, dir, m.Built
			state.Took = time.Duration(m.Seconds) * time.Second
			for file, size := range m.Files {
				if _, alias := s.aliases[file]; !alias {
					state.Size += size
				}
			}
		}
		states = append(states, state)
	}
	return states, nil
}

// Removed is an engine, or the remains of an interrupted build, that Prune took out of the cache.
type Removed struct {
	Path string
	Size int64
}

// Prune removes from the cache what this netproof, with the Go toolchain of this machine, would not use: engines of other
// pins and toolchains, and the remains of interrupted builds. What another process builds or holds stays. An empty
// cacheDir means [DefaultCacheDir].
func Prune(ctx context.Context, cacheDir string) ([]Removed, error) {
	return prune(ctx, specs(), cacheDir)
}

func prune(ctx context.Context, current []spec, cacheDir string) ([]Removed, error) {
	c, err := openCache(cacheDir)
	if err != nil {
		return nil, err
	}
	tc, noGo := findToolchain(ctx)
	if noGo != nil && !errors.Is(noGo, ErrNoGo) {
		return nil, noGo
	}
	keep := map[string]bool{}
	for _, s := range current {
		var dir string
		if noGo != nil {
			dir, err = c.findBySource(s)
		} else {
			dir, err = c.engineDir(s, tc)
		}
		if err != nil {
			return nil, err
		}
		keep[dir] = true
	}
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return nil, fmt.Errorf("list cache folder: %w", err)
	}
	var removed []Removed
	for _, entry := range entries {
		if ctx.Err() != nil {
			return removed, context.Cause(ctx)
		}
		name := strings.TrimPrefix(entry.Name(), buildingPrefix)
		building := name != entry.Name()
		dir := filepath.Join(c.dir, name)
		if !entry.IsDir() || !isEngineName(name) || !building && keep[dir] {
			continue
		}
		gone, err := c.remove(dir, filepath.Join(c.dir, entry.Name()), keep[dir])
		if err != nil {
			return removed, err
		}
		removed = append(removed, gone...)
	}
	return removed, nil
}

// remove takes away target, which belongs to the engine folder dir, unless somebody holds that. The lock file goes too, unless
// the engine is one to keep.
func (c cache) remove(dir, target string, keepLock bool) ([]Removed, error) {
	l, err := tryLock(lockPath(dir), unix.LOCK_EX)
	if err != nil {
		return nil, fmt.Errorf("prune engine: %w", err)
	}
	if l == nil {
		return nil, nil
	}
	size := treeSize(target)
	err = os.RemoveAll(target)
	if err == nil && !keepLock {
		err = os.Remove(lockPath(dir)) // while it is held: see stillNamed
	}
	if err = errors.Join(err, l.release()); err != nil {
		return nil, fmt.Errorf("prune engine: %w", err)
	}
	return []Removed{{target, size}}, nil
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
