package engine

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
)

// ImportOptions say where a bundle goes.
type ImportOptions struct {
	// CacheDir is the folder of built engines. Empty means [DefaultCacheDir].
	CacheDir string
	// SHA256, when set, is the digest that the bundle must have, in hexadecimal.
	SHA256 string
}

// Import reads a bundle that [Export] wrote and puts its engines into the cache, where they are used like built ones,
// whatever Go the machine has or lacks. Nothing is put in place before all of the bundle was read and found to be what
// its manifest says. Engines that are there already and have the same content stay; what else has their place is
// replaced. A [*BundleError] says that the bundle is not one, or not for this machine and these pins.
//
// The digests in a bundle find damage. They do not say who made it: its programs are run, so it has to come from
// somebody who is trusted, or to have the SHA256 that such a one has told.
func Import(ctx context.Context, r io.Reader, opts ImportOptions) (Bundle, error) {
	return importBundle(ctx, r, specs(), opts)
}

func importBundle(ctx context.Context, r io.Reader, wanted []spec, opts ImportOptions) (b Bundle, err error) {
	c, err := openCache(opts.CacheDir)
	if err != nil {
		return Bundle{}, err
	}
	in, err := openBundle(ctx, r)
	if err != nil {
		return Bundle{}, err
	}
	defer in.close()
	m, err := in.manifest()
	if err != nil {
		return Bundle{}, in.because(err)
	}
	if err := m.check(wanted); err != nil {
		return Bundle{}, err
	}
	var arrivals []*arrival
	defer func() {
		for _, a := range arrivals {
			err = errors.Join(err, a.close())
		}
	}()
	for i, s := range wanted {
		a, err := c.expect(ctx, s, m.Engines[i])
		if err != nil {
			return Bundle{}, err
		}
		arrivals = append(arrivals, a)
	}
	for _, a := range arrivals {
		n, err := a.receive(in.files)
		if err != nil {
			return Bundle{}, in.because(err)
		}
		b.Unpacked += n
	}
	if err := in.end(); err != nil {
		return Bundle{}, in.because(err)
	}
	b.SHA256, b.Size = in.raw.hex(), in.raw.n
	if opts.SHA256 != "" && !strings.EqualFold(opts.SHA256, b.SHA256) {
		return Bundle{}, &BundleError{Reason: fmt.Sprintf("its SHA-256 is %s, not %.64s", b.SHA256, opts.SHA256), Fix: "get the bundle again from whoever told the digest"}
	}
	for _, a := range arrivals {
		state, err := a.place()
		if err != nil {
			return Bundle{}, err
		}
		b.Engines = append(b.Engines, state)
	}
	return b, nil
}

// bundleReader reads a bundle, with bounds, and until ctx ends.
type bundleReader struct {
	ctx   context.Context
	pipe  *io.PipeReader
	raw   *counted
	zstd  *zstd.Decoder
	all   *io.LimitedReader
	files *tar.Reader
	stop  func() bool
}

func openBundle(ctx context.Context, r io.Reader) (*bundleReader, error) {
	// The reader may be a terminal or a pipe, whose Read nothing interrupts.
	pipe, w := io.Pipe()
	in := &bundleReader{ctx: ctx, pipe: pipe, raw: &counted{w: w, sum: sha256.New()}}
	in.stop = context.AfterFunc(ctx, func() { _ = pipe.CloseWithError(context.Cause(ctx)) })
	go func() {
		n, err := copyAll(in.raw, io.LimitReader(r, MaxBundle))
		if err == nil && n == MaxBundle {
			err = fmt.Errorf("it has more than %d bytes", int64(MaxBundle))
		}
		_ = w.CloseWithError(err)
	}()
	var err error
	if in.zstd, err = zstd.NewReader(pipe, zstd.WithDecoderMaxMemory(MaxBundle), zstd.WithDecoderMaxWindow(32<<20)); err != nil {
		in.close()
		return nil, fmt.Errorf("read bundle: %w", err)
	}
	in.all = &io.LimitedReader{R: in.zstd, N: MaxBundle}
	in.files = tar.NewReader(in.all)
	return in, nil
}

func (in *bundleReader) close() {
	in.stop()
	_ = in.pipe.Close() // ends the copy
	if in.zstd != nil {
		in.zstd.Close()
	}
}

// because turns an error of reading into one that says so, unless it came from elsewhere.
func (in *bundleReader) because(err error) error {
	if in.ctx.Err() != nil {
		return context.Cause(in.ctx)
	}
	var refused *BundleError
	var path *fs.PathError
	if errors.As(err, &refused) || errors.As(err, &path) {
		return err
	}
	if in.all.N <= 0 {
		err = fmt.Errorf("it has more than %d bytes", int64(MaxBundle))
	}
	return &BundleError{Reason: "it is not a bundle of engines, or not a whole one", Err: err, Fix: fixMake}
}

// manifest reads the first file.
func (in *bundleReader) manifest() (bundleManifest, error) {
	var m bundleManifest
	h, err := in.files.Next()
	if err != nil {
		return m, err
	}
	if err := checkHeader(h, bundleManifestFile, h.Size); err != nil {
		return m, err
	}
	if h.Size > maxBundleManifest {
		return m, fmt.Errorf("%s has more than %d bytes", bundleManifestFile, maxBundleManifest)
	}
	content, err := io.ReadAll(in.files)
	if err != nil {
		return m, err
	}
	var form struct {
		APIVersion, Kind string
		Format           int
	}
	if err := json.Unmarshal(content, &form); err != nil {
		return m, err
	}
	if form.APIVersion != bundleAPIVersion || form.Kind != bundleKind || form.Format != bundleFormat {
		return m, &BundleError{
			Reason: fmt.Sprintf("it is %.40q of %.40q in format %d, and this netproof reads %q of %q in format %d",
				form.Kind, form.APIVersion, form.Format, bundleKind, bundleAPIVersion, bundleFormat),
			Fix: fixPins,
		}
	}
	d := json.NewDecoder(bytes.NewReader(content))
	d.DisallowUnknownFields()
	return m, d.Decode(&m)
}

// end makes sure that nothing stands behind the last file.
func (in *bundleReader) end() error {
	h, err := in.files.Next()
	if err == nil {
		return fmt.Errorf("it has %.80q, which its manifest does not list", h.Name)
	}
	if !errors.Is(err, io.EOF) {
		return err
	}
	n, err := io.Copy(io.Discard, io.LimitReader(in.all, 1))
	if err == nil && n > 0 {
		err = errors.New("something stands behind its end")
	}
	return err
}

// check tells whether the bundle has the wanted engines, for this platform.
func (m bundleManifest) check(wanted []spec) error {
	if m.Platform != platform() {
		return &BundleError{Reason: fmt.Sprintf("it is for %.40q, and this machine is %s", m.Platform, platform()), Fix: "export one on such a machine"}
	}
	var unpacked int64
	for i, s := range wanted {
		if i >= len(m.Engines) || m.Engines[i].Name != s.name {
			return &BundleError{Reason: fmt.Sprintf("it lacks engine %s %s in its place", s.name, s.version), Fix: fixPins}
		}
		e := m.Engines[i]
		source, err := sourceDigest(s)
		if err != nil {
			return err
		}
		if e.Version != s.version {
			return &BundleError{Reason: fmt.Sprintf("it has %s %.40q, and this netproof pins %s", s.name, e.Version, s.version), Fix: fixPins}
		}
		if e.Source != source {
			return &BundleError{
				Reason: fmt.Sprintf("its %s %s has other modules or build flags than this netproof pins", s.name, s.version), Fix: fixPins,
			}
		}
		if len(e.Toolchain) > 1000 || strings.ContainsFunc(e.Toolchain, func(r rune) bool { return r < ' ' || r > '~' }) {
			return &BundleError{Reason: "what it says of the Go toolchain is not a line of text", Fix: fixMake}
		}
		if err := checkBaseline(s.name, e.Toolchain); err != nil {
			return err
		}
		var names []string
		for _, f := range e.Files {
			names = append(names, f.Name)
			if f.Size < 0 || f.Size > maxBundledFile {
				return &BundleError{Reason: fmt.Sprintf("%s has a file of %d bytes, and at most %d are read", s.name, f.Size, maxBundledFile), Fix: fixMake}
			}
			unpacked += f.Size
		}
		if !slices.Equal(names, bundledNames(s)) {
			return &BundleError{Reason: fmt.Sprintf("it has other files for %s than %q", s.name, bundledNames(s)), Fix: fixMake}
		}
	}
	if len(m.Engines) > len(wanted) {
		return &BundleError{Reason: fmt.Sprintf("it has an engine %.40q, which this netproof does not pin", m.Engines[len(wanted)].Name), Fix: fixPins}
	}
	if unpacked > MaxBundle {
		return &BundleError{Reason: fmt.Sprintf("its files have %d bytes together, and at most %d are read", unpacked, int64(MaxBundle)), Fix: fixMake}
	}
	return nil
}

// checkHeader makes sure that an entry is a plain file of that name and size: no folder, link or device, and no sparse
// file.
func checkHeader(h *tar.Header, name string, size int64) error {
	switch {
	case h.Name != name:
		return fmt.Errorf("it has %.80q in the place of %q", h.Name, name)
	case h.Typeflag != tar.TypeReg || len(h.PAXRecords) > 0:
		return fmt.Errorf("its %s is not a plain file", name)
	case h.Size != size:
		return fmt.Errorf("its %s has %d bytes, and its manifest says %d", name, h.Size, size)
	}
	return nil
}

// arrival is an engine of a bundle on its way into the cache.
type arrival struct {
	spec  spec
	from  bundledEngine
	dir   string
	begun time.Time
	// stays says that the engine is there already.
	stays bool
	// held is the lock on the engine, shared if it stays. It is nil for one that stays in a read-only cache.
	held *lock
}

// expect gets ready for an engine: one that is there, and is whole and the same, stays. It waits for a build of the
// same engine to end.
func (c cache) expect(ctx context.Context, s spec, e bundledEngine) (*arrival, error) {
	a := &arrival{spec: s, from: e, dir: c.dirOf(s, e.Source, e.Toolchain), begun: time.Now()}
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for {
		var damage *TamperedError
		held, whole, err := take(s, a.dir, e.verify)
		if whole {
			a.stays, a.held = true, held
			return a, nil
		}
		if err != nil && !errors.As(err, &damage) {
			return nil, err
		}
		held, err = tryLock(lockPath(a.dir), lockExclusive)
		if err != nil {
			return nil, fmt.Errorf("import engine %s (set %s to use another folder): %w", s.name, CacheEnv, err)
		}
		if held != nil {
			a.held = held
			return a, a.prepare()
		}
		if damage != nil {
			if err := refuseInUse(a.dir, damage); err != nil {
				return nil, err
			}
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// verify makes sure that an engine that is there is what was built, and has the same content as that of the bundle.
func (e bundledEngine) verify(s spec, dir string) error {
	if err := verify(s, dir); err != nil {
		return err
	}
	m, err := readManifest(dir)
	if err != nil {
		return err
	}
	for _, f := range e.Files {
		if m.Digests[f.Name] != f.SHA256 {
			return &TamperedError{filepath.Join(dir, f.Name), fmt.Sprintf("its SHA-256 is %s, that in the bundle %.64q", m.Digests[f.Name], f.SHA256)}
		}
	}
	return nil
}

func (a *arrival) tmp() string { return buildingDir(a.dir) }

func (a *arrival) prepare() error {
	err := os.RemoveAll(a.tmp())
	if err == nil {
		err = os.Mkdir(a.tmp(), 0o755)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("make folder of engine %s: %w", a.spec.name, err), a.held.release())
	}
	return nil
}

// receive reads the files of the engine. Their names are those of the pins, never of the bundle.
func (a *arrival) receive(files *tar.Reader) (int64, error) {
	var total int64
	for _, f := range a.from.Files {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return 0, err
		}
		name := a.from.Name + "/" + f.Name
		if err := checkHeader(h, name, f.Size); err != nil {
			return 0, err
		}
		got, err := a.write(files, f.Name)
		if err != nil {
			return 0, err
		}
		if got != f.SHA256 {
			return 0, fmt.Errorf("the SHA-256 of its %s is %s, and its manifest says %.64q", name, got, f.SHA256)
		}
		total += f.Size
	}
	return total, nil
}

// write puts a file into the folder of the arriving engine, or only reads it where the engine is there, and gives its
// digest.
func (a *arrival) write(content io.Reader, name string) (string, error) {
	sum := sha256.New()
	out := io.Writer(sum)
	var f *os.File
	if !a.stays {
		var err error
		if f, err = os.OpenFile(filepath.Join(a.tmp(), name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, a.spec.mode(name)); err != nil {
			return "", err
		}
		out = io.MultiWriter(sum, f)
	}
	_, err := copyAll(out, content)
	if f != nil {
		err = errors.Join(err, f.Close())
	}
	return hex.EncodeToString(sum.Sum(nil)), err
}

// place completes the folder of the engine and gives it its name.
func (a *arrival) place() (State, error) {
	if a.stays {
		return a.keep()
	}
	s := a.spec
	for alias, target := range s.aliases {
		if err := os.Symlink(target, filepath.Join(a.tmp(), alias)); err != nil {
			return State{}, fmt.Errorf("import engine %s: %w", s.name, err)
		}
	}
	if err := writeManifest(a.tmp(), a.from.manifest(s, time.Now().UTC().Truncate(time.Second))); err != nil {
		return State{}, err
	}
	if err := putInPlace(s, a.tmp(), a.dir); err != nil {
		return State{}, err
	}
	state, err := stateOf(a.dir)
	state.Took = time.Since(a.begun)
	return state, err
}

// keep leaves the engine that is there. One that was built here by another Go than that of today is used from now on,
// as any that was imported.
func (a *arrival) keep() (State, error) {
	m, err := readManifest(a.dir)
	if err == nil && !m.Imported {
		m.Imported = true
		err = writeManifest(a.dir, m)
	}
	if err != nil {
		return State{}, fmt.Errorf("import engine %s: %w", a.spec.name, err)
	}
	state, err := stateOf(a.dir)
	state.Took = 0
	return state, err
}

// close lets go of the engine, and takes away what did not come to be in place.
func (a *arrival) close() error {
	if a.stays {
		return a.held.release()
	}
	return errors.Join(os.RemoveAll(a.tmp()), removeIdleLock(a.dir), a.held.release())
}
