package engine

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
)

// A bundle is a tar stream, compressed with zstd: first bundleManifestFile, then the files that it lists, in its order,
// as ENGINE/FILE. Nothing in it depends on who made it, and when.
const (
	bundleManifestFile = "netproof-engines.json"
	bundleAPIVersion   = "netproof.dev/v1alpha1"
	bundleKind         = "EngineBundle"
	// bundleFormat has to change when an older netproof could not read what a newer one writes.
	bundleFormat = 1
)

// Bounds of what is read from a bundle. The engines of today have 480 MB, and their bundle 130 MB.
const (
	maxBundleManifest = 1 << 20
	maxBundledFile    = 1 << 30
	// MaxBundle bounds a bundle, compressed or not, in bytes.
	MaxBundle = 4 << 30
)

// bundleManifest is the content of bundleManifestFile.
type bundleManifest struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Format     int    `json:"format"`
	// Platform is that of the programs, such as linux/amd64.
	Platform string          `json:"platform"`
	Engines  []bundledEngine `json:"engines"`
}

// bundledEngine has the fields of manifest that say what an engine is.
type bundledEngine struct {
	Name      string        `json:"name"`
	Version   string        `json:"version"`
	Source    string        `json:"source"`
	Toolchain string        `json:"toolchain"`
	Files     []bundledFile `json:"files"`
}

type bundledFile struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

func platform() string { return runtime.GOOS + "/" + runtime.GOARCH }

// Bundle describes a bundle that was written or read.
type Bundle struct {
	// SHA256 is the digest of the whole file, in hexadecimal.
	SHA256 string
	// Size is that of the file, and Unpacked that of the engines in it, in bytes.
	Size, Unpacked int64
	// Engines says which there are, and of an import, where they are. Those whose Took is 0 were there before.
	Engines []State
}

// BundleError says why a file is not imported as a bundle of engines. Nothing was changed then.
type BundleError struct {
	Reason, Fix string
	// Err is the cause, and nil where Reason says it all.
	Err error
}

func (e *BundleError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s: %v: %s", e.Reason, e.Err, e.Fix)
	}
	return e.Reason + ": " + e.Fix
}

func (e *BundleError) Unwrap() error { return e.Err }

// Fixes of a BundleError.
const (
	fixMake     = "make it again with netproof engines export"
	fixPins     = "make it with this version of netproof (netproof version), by netproof engines export"
	fixBaseline = "build the engines again with that setting at its default, and export them"
)

// Key names what the engines of all local clusters are made of, and the platform, for caches of bundles: another
// netproof with the same pins has the same key. The Go release does not enter: a bundle of another one can be imported.
func Key() (string, error) {
	h := sha256.New()
	for _, s := range specs() {
		source, err := sourceDigest(s)
		if err != nil {
			return "", err
		}
		fmt.Fprintln(h, s.name, source)
	}
	return fmt.Sprintf("netproof-engines-%d-%s-%s-%s", bundleFormat, runtime.GOOS, runtime.GOARCH, hex.EncodeToString(h.Sum(nil)[:8])), nil
}

// Export writes the engines of all local clusters to w as a bundle, for [Import] on another machine of the same
// platform. Those that are not in the cache are built first. Errors are those of [Ensure]; a [*BundleError] says that
// the engines run only on some processors of the platform. Of opts it takes CacheDir and Progress.
func Export(ctx context.Context, w io.Writer, opts Options) (Bundle, error) {
	return export(ctx, w, specs(), opts)
}

func export(ctx context.Context, w io.Writer, wanted []spec, opts Options) (b Bundle, err error) {
	set, err := ensureBuilt(ctx, wanted, opts)
	if err != nil {
		return Bundle{}, err
	}
	defer func() { err = errors.Join(err, set.Close()) }()
	m := bundleManifest{APIVersion: bundleAPIVersion, Kind: bundleKind, Format: bundleFormat, Platform: platform()}
	if b.Engines, err = set.States(); err != nil {
		return Bundle{}, err
	}
	for _, s := range wanted {
		e, err := bundled(s, set.dirs[s.name])
		if err != nil {
			return Bundle{}, err
		}
		m.Engines = append(m.Engines, e)
	}
	sum := &counted{w: w, sum: sha256.New()}
	if b.Unpacked, err = writeBundle(ctx, sum, m, wanted, set.dirs); err != nil {
		return Bundle{}, fmt.Errorf("export engines: %w", err)
	}
	b.SHA256, b.Size = sum.hex(), sum.n
	return b, nil
}

// bundled describes an engine for a bundle, by its manifest.
func bundled(s spec, dir string) (bundledEngine, error) {
	m, err := readManifest(dir)
	if err != nil {
		return bundledEngine{}, fmt.Errorf("export engine %s: %w", s.name, err)
	}
	if err := checkBaseline(s.name, m.Toolchain); err != nil {
		return bundledEngine{}, err
	}
	e := bundledEngine{Name: s.name, Version: s.version, Source: m.Source, Toolchain: m.Toolchain}
	for _, file := range bundledNames(s) {
		e.Files = append(e.Files, bundledFile{Name: file, Size: m.Files[file], SHA256: m.Digests[file]})
	}
	return e, nil
}

// bundledNames lists the files of an engine without aliases, which are links, and are made again where it is imported.
func bundledNames(s spec) []string {
	return slices.DeleteFunc(s.fileNames(), func(file string) bool { return s.aliases[file] != "" })
}

// baselines are the settings of the Go command that choose a processor, with the values of programs that run on every
// one of the architecture.
var baselines = map[string]string{"GOAMD64": "v1", "GOARM64": "v8.0", "GOPPC64": "power8", "GORISCV64": "rva20u64"}

// checkBaseline refuses engines that were built for some processors of their architecture: where others import them
// they would end with no better reason than an illegal instruction.
func checkBaseline(name, toolchain string) error {
	for word := range strings.FieldsSeq(toolchain) {
		setting, value, _ := strings.Cut(word, "=")
		if least := baselines[setting]; least != "" && value != least {
			return &BundleError{Reason: fmt.Sprintf("engine %s was built with %.40q, and runs only on some processors", name, word), Fix: fixBaseline}
		}
	}
	return nil
}

// counted passes on what is written, and keeps its digest and length.
type counted struct {
	w   io.Writer
	sum hash.Hash
	n   int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.sum.Write(p[:n])
	c.n += int64(n)
	return n, err
}

func (c *counted) hex() string { return hex.EncodeToString(c.sum.Sum(nil)) }

// writeBundle writes the files of the wanted engines, which are those of the manifest in its order.
func writeBundle(ctx context.Context, w io.Writer, m bundleManifest, wanted []spec, dirs map[string]string) (unpacked int64, err error) {
	z, err := zstd.NewWriter(w)
	if err != nil {
		return 0, err
	}
	t := tar.NewWriter(z)
	content, err := encode(m)
	if err != nil {
		return 0, err
	}
	if err := t.WriteHeader(bundleHeader(bundleManifestFile, int64(len(content)), 0o644)); err != nil {
		return 0, err
	}
	if _, err := t.Write(content); err != nil {
		return 0, err
	}
	for i, s := range wanted {
		for _, file := range m.Engines[i].Files {
			if err := bundleFile(ctx, t, s, dirs[s.name], file); err != nil {
				return 0, err
			}
			unpacked += file.Size
		}
	}
	return unpacked, errors.Join(t.Close(), z.Close())
}

// bundleHeader leaves out of a file what depends on who made it, and when.
func bundleHeader(name string, size, mode int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: mode, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}
}

func bundleFile(ctx context.Context, t *tar.Writer, s spec, dir string, file bundledFile) error {
	from := filepath.Join(dir, file.Name)
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	// That of the file on disk depends on the umask of who built it.
	if err := t.WriteHeader(bundleHeader(s.name+"/"+file.Name, file.Size, int64(s.mode(file.Name)))); err != nil {
		return err
	}
	sum := sha256.New()
	stop := context.AfterFunc(ctx, func() { _ = f.Close() }) // ends the copy
	_, err = copyAll(io.MultiWriter(t, sum), f)
	if !stop() {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != file.SHA256 {
		return &TamperedError{from, fmt.Sprintf("its SHA-256 is %s, that of the build %s", got, file.SHA256)}
	}
	return nil
}
