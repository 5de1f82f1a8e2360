package engine

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// exported gives a bundle of the engine of the tests.
func exported(t *testing.T) ([]byte, Bundle) {
	t.Helper()
	cacheDir, _ := built(t)
	var out bytes.Buffer
	b, err := export(t.Context(), &out, []spec{helloSpec()}, Options{CacheDir: cacheDir})
	require.NoError(t, err)
	return out.Bytes(), b
}

func TestABundleGivesAnotherMachineTheSameEngine(t *testing.T) {
	bundle, told := exported(t)
	sum := sha256.Sum256(bundle)
	assert.Equal(t, hex.EncodeToString(sum[:]), told.SHA256)
	assert.EqualValues(t, len(bundle), told.Size)
	again, _ := exported(t)
	assert.True(t, bytes.Equal(bundle, again), "the same engine, built elsewhere and later, gives the same bundle")

	cacheDir := filepath.Join(t.TempDir(), "engines")
	got, err := importBundle(t.Context(), bytes.NewReader(bundle), []spec{helloSpec()}, ImportOptions{CacheDir: cacheDir, SHA256: told.SHA256})
	require.NoError(t, err)
	assert.Equal(t, told.SHA256, got.SHA256)
	assert.Equal(t, told.Unpacked, got.Unpacked)
	require.Len(t, got.Engines, 1)
	assert.Positive(t, got.Engines[0].Took)

	for name, machine := range map[string]func(*testing.T){
		"without Go":        hideGo,
		"with another Go":   func(t *testing.T) { t.Setenv("GOTOOLCHAIN", "path") },
		"with that very Go": func(*testing.T) {},
	} {
		t.Run(name, func(t *testing.T) {
			machine(t)
			seen := newEvents()
			set, err := ensure(t.Context(), []spec{helloSpec()}, Options{CacheDir: cacheDir, Progress: seen.add})
			require.NoError(t, err)
			assert.Equal(t, []Stage{Ready}, seen.stages(), "nothing is built")
			for _, program := range []string{"greeter", "greeter-ipam", "other"} {
				out, err := exec.CommandContext(t.Context(), set.Path(program)).CombinedOutput()
				require.NoError(t, err, "%s", out)
			}
			require.NoError(t, set.Close())
			found, err := list(t.Context(), []spec{helloSpec()}, cacheDir)
			require.NoError(t, err)
			require.Len(t, found, 1)
			assert.True(t, found[0].Current)
			assert.True(t, found[0].Imported)
			pruned, err := prune(t.Context(), []spec{helloSpec()}, PruneOptions{CacheDir: cacheDir})
			require.NoError(t, err)
			assert.Empty(t, pruned, "what a run uses stays")
		})
	}
}

func TestAnImportedEngineThatWasExchangedIsBuilt(t *testing.T) {
	bundle, _ := exported(t)
	cacheDir := filepath.Join(t.TempDir(), "engines")
	got, err := importBundle(t.Context(), bytes.NewReader(bundle), []spec{helloSpec()}, ImportOptions{CacheDir: cacheDir})
	require.NoError(t, err)
	exchange(t, filepath.Join(got.Engines[0].Path, "greeter"))
	t.Setenv("GOTOOLCHAIN", "path")
	seen := newEvents()
	set, err := ensure(t.Context(), []spec{helloSpec()}, Options{CacheDir: cacheDir, Progress: seen.add})
	require.NoError(t, err)
	assert.Contains(t, seen.stages(), Damaged)
	assert.NotEqual(t, got.Engines[0].Path, set.Dirs()["hello"])
	require.NoError(t, set.Close())

	again, err := importBundle(t.Context(), bytes.NewReader(bundle), []spec{helloSpec()}, ImportOptions{CacheDir: cacheDir})
	require.NoError(t, err)
	assert.Positive(t, again.Engines[0].Took, "an import puts a whole one in its place")
	require.NoError(t, verify(helloSpec(), again.Engines[0].Path))
}

func TestAnEngineThatIsThereStays(t *testing.T) {
	bundle, _ := exported(t)
	cacheDir, dir := built(t)
	set, err := ensure(t.Context(), []spec{helloSpec()}, Options{CacheDir: cacheDir})
	require.NoError(t, err)
	before, err := os.Stat(filepath.Join(dir, "greeter"))
	require.NoError(t, err)
	got, err := importBundle(t.Context(), bytes.NewReader(bundle), []spec{helloSpec()}, ImportOptions{CacheDir: cacheDir})
	require.NoError(t, err, "although a run uses it")
	assert.Zero(t, got.Engines[0].Took)
	after, err := os.Stat(filepath.Join(dir, "greeter"))
	require.NoError(t, err)
	assert.True(t, os.SameFile(before, after))

	exchange(t, filepath.Join(dir, "greeter"))
	_, err = importBundle(t.Context(), bytes.NewReader(bundle), []spec{helloSpec()}, ImportOptions{CacheDir: cacheDir})
	require.ErrorContains(t, err, "end the runs and clusters that use it")
	require.NoError(t, set.Close())
}

// Another Go built it, so that a run would build it again.
func TestAnEngineThatIsThereIsUsedOnceItIsImported(t *testing.T) {
	bundle, _ := exported(t)
	cacheDir, dir := built(t)
	got, err := importBundle(t.Context(), bytes.NewReader(bundle), []spec{helloSpec()}, ImportOptions{CacheDir: cacheDir})
	require.NoError(t, err)
	assert.Zero(t, got.Engines[0].Took)
	t.Setenv("GOTOOLCHAIN", "path")
	seen := newEvents()
	set, err := ensure(t.Context(), []spec{helloSpec()}, Options{CacheDir: cacheDir, Progress: seen.add})
	require.NoError(t, err)
	assert.Equal(t, []Stage{Ready}, seen.stages(), "nothing is built")
	assert.Equal(t, dir, set.Dirs()["hello"])
	require.NoError(t, set.Close())
}

func TestWhatIsThereAndIsNotTheSameIsReplaced(t *testing.T) {
	bundle, _ := exported(t)
	for name, damage := range map[string]func(t *testing.T, dir string){
		"a program is gone":        func(t *testing.T, dir string) { require.NoError(t, os.Remove(filepath.Join(dir, "other"))) },
		"a program was cut short":  func(t *testing.T, dir string) { require.NoError(t, os.Truncate(filepath.Join(dir, "other"), 7)) },
		"a program was exchanged":  func(t *testing.T, dir string) { exchange(t, filepath.Join(dir, "greeter")) },
		"the manifest is gone":     func(t *testing.T, dir string) { require.NoError(t, os.Remove(filepath.Join(dir, manifestFile))) },
		"an alias leads elsewhere": func(t *testing.T, dir string) { relink(t, filepath.Join(dir, "greeter-ipam"), "other") },
		"it is empty": func(t *testing.T, dir string) {
			require.NoError(t, errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o755)))
		},
		"it was noted as exchanged": func(t *testing.T, dir string) { exchange(t, filepath.Join(dir, "greeter")); withoutDigests(t, dir) },
	} {
		t.Run(name, func(t *testing.T) {
			cacheDir, dir := built(t)
			damage(t, dir)
			got, err := importBundle(t.Context(), bytes.NewReader(bundle), []spec{helloSpec()}, ImportOptions{CacheDir: cacheDir})
			require.NoError(t, err)
			require.Equal(t, dir, got.Engines[0].Path)
			assert.Positive(t, got.Engines[0].Took, "it does not count as there already")
			require.True(t, isComplete(helloSpec(), dir))
			require.NoError(t, verify(helloSpec(), dir))
			again, err := importBundle(t.Context(), bytes.NewReader(bundle), []spec{helloSpec()}, ImportOptions{CacheDir: cacheDir})
			require.NoError(t, err)
			assert.Zero(t, again.Engines[0].Took)
		})
	}
}

// relink makes a link lead elsewhere.
func relink(t *testing.T, path, target string) {
	t.Helper()
	require.NoError(t, errors.Join(os.Remove(path), os.Symlink(target, path)))
}

// A prune that comes while a bundle is read leaves what the import has found to be there, also of other pins.
func TestAnImportHoldsWhatIsThere(t *testing.T) {
	bundle, _ := exported(t)
	cacheDir, dir := built(t)
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		_, err := importBundle(t.Context(), r, []spec{helloSpec()}, ImportOptions{CacheDir: cacheDir})
		done <- err
	}()
	_, err := w.Write(bundle[:len(bundle)-1])
	require.NoError(t, err, "all but its end was read")
	require.Eventually(t, func() bool {
		free, err := tryLock(lockPath(dir), lockExclusive)
		return err == nil && free == nil || free.release() != nil
	}, time.Minute, time.Millisecond, "the import holds the engine")
	newer := helloSpec(func(s *spec) { s.version = "v2.0.0" })
	pruned, err := prune(t.Context(), []spec{newer}, PruneOptions{CacheDir: cacheDir})
	require.NoError(t, err)
	require.Len(t, pruned, 1)
	assert.True(t, pruned[0].InUse)
	_, err = w.Write(bundle[len(bundle)-1:])
	require.NoError(t, err)
	require.NoError(t, w.Close())
	require.NoError(t, <-done)
	require.NoError(t, verify(helloSpec(), dir))
}

// bundleParts are what a bundle is made of, to be changed by a test.
type bundleParts struct {
	manifest bundleManifest
	entries  []entry
	// json replaces the manifest's text, and cut is how many bytes of the tar stream are lost.
	json    string
	cut     int
	behind  string
	garbage string
}

type entry struct {
	header  tar.Header
	content []byte
}

// partsOf takes a bundle apart.
func partsOf(t *testing.T, bundle []byte) bundleParts {
	t.Helper()
	z, err := zstd.NewReader(bytes.NewReader(bundle))
	require.NoError(t, err)
	defer z.Close()
	var p bundleParts
	for files := tar.NewReader(z); ; {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			return p
		}
		require.NoError(t, err)
		content, err := io.ReadAll(files)
		require.NoError(t, err)
		if h.Name == bundleManifestFile {
			require.NoError(t, json.Unmarshal(content, &p.manifest))
			continue
		}
		p.entries = append(p.entries, entry{*h, content})
	}
}

// pack puts it together again.
func (p bundleParts) pack(t *testing.T) []byte {
	t.Helper()
	var stream, out bytes.Buffer
	w := tar.NewWriter(&stream)
	text := []byte(p.json)
	if p.json == "" {
		var err error
		text, err = json.Marshal(p.manifest)
		require.NoError(t, err)
	}
	manifest := entry{*bundleHeader(bundleManifestFile, 0, 0o644), text}
	for _, e := range append([]entry{manifest}, p.entries...) {
		h := e.header
		h.Size = int64(len(e.content))
		if h.Typeflag != tar.TypeReg {
			h.Size, h.Format = 0, tar.FormatUnknown
		}
		require.NoError(t, w.WriteHeader(&h))
		if h.Size > 0 {
			_, err := w.Write(e.content)
			require.NoError(t, err)
		}
	}
	require.NoError(t, w.Close())
	z, err := zstd.NewWriter(&out)
	require.NoError(t, err)
	_, err = z.Write(append(stream.Bytes()[:stream.Len()-p.cut], p.behind...))
	require.NoError(t, err)
	require.NoError(t, z.Close())
	return append(out.Bytes(), p.garbage...)
}

func TestWhatIsNotABundleForThisMachineIsRefusedWhole(t *testing.T) {
	bundle, _ := exported(t)
	engineOf := func(p *bundleParts) *bundledEngine { return &p.manifest.Engines[0] }
	for name, tc := range map[string]struct {
		change func(*bundleParts)
		want   string
	}{
		"another platform":    {func(p *bundleParts) { p.manifest.Platform = "plan9/mips" }, `it is for "plan9/mips", and this machine is linux/`},
		"another format":      {func(p *bundleParts) { p.manifest.Format = 2 }, "in format 2, and this netproof reads"},
		"another kind":        {func(p *bundleParts) { p.manifest.Kind = "Report" }, `it is "Report" of`},
		"an older pin":        {func(p *bundleParts) { engineOf(p).Version = "v0.9.0" }, `it has hello "v0.9.0", and this netproof pins v1.0.0`},
		"another recipe":      {func(p *bundleParts) { engineOf(p).Source = "1234" }, "has other modules or build flags"},
		"a newer processor":   {func(p *bundleParts) { engineOf(p).Toolchain += " GOAMD64=v4" }, `built with "GOAMD64=v4"`},
		"lines in a line":     {func(p *bundleParts) { engineOf(p).Toolchain = "linux\n::error::" }, "not a line of text"},
		"an engine too many":  {func(p *bundleParts) { p.manifest.Engines = append(p.manifest.Engines, bundledEngine{Name: "evil"}) }, `an engine "evil"`},
		"an engine too few":   {func(p *bundleParts) { p.manifest.Engines = nil }, "it lacks engine hello v1.0.0"},
		"a file too many":     {func(p *bundleParts) { engineOf(p).Files = append(engineOf(p).Files, bundledFile{Name: "../x"}) }, "it has other files for hello"},
		"the same file twice": {func(p *bundleParts) { engineOf(p).Files[1] = engineOf(p).Files[0] }, "it has other files for hello"},
		"an endless file":     {func(p *bundleParts) { engineOf(p).Files[0].Size = 1 << 50 }, "has a file of 1125899906842624 bytes"},
		"a negative size":     {func(p *bundleParts) { engineOf(p).Files[0].Size = -1 }, "has a file of -1 bytes"},
		"a wrong size":        {func(p *bundleParts) { engineOf(p).Files[0].Size++ }, "and its manifest says"},
		"a wrong hash":        {func(p *bundleParts) { engineOf(p).Files[0].SHA256 = "00" }, `and its manifest says "00"`},
		"other content":       {func(p *bundleParts) { p.entries[0].content[5] ^= 1 }, "the SHA-256 of its hello/greeter is"},
		"an unknown key": {func(p *bundleParts) {
			p.json = `{"apiVersion":"netproof.dev/v1alpha1","kind":"EngineBundle","format":1,"x":1}`
		}, "unknown field"},
		"no JSON":          {func(p *bundleParts) { p.json = "{" }, "unexpected end of JSON input"},
		"a huge manifest":  {func(p *bundleParts) { p.json = string(make([]byte, maxBundleManifest+1)) }, "has more than 1048576 bytes"},
		"a path out of it": {func(p *bundleParts) { p.entries[0].header.Name = "../../etc/passwd" }, `it has "../../etc/passwd" in the place of "hello/greeter"`},
		"a huge name": {func(p *bundleParts) {
			p.entries[0].header.Name, p.entries[0].header.Format = strings.Repeat("x", 1<<16), tar.FormatPAX
		}, `it has "` + strings.Repeat("x", 80) + `" in the place of`},
		"an absolute path": {func(p *bundleParts) { p.entries[0].header.Name = "/etc/passwd" }, `it has "/etc/passwd"`},
		"another order":    {func(p *bundleParts) { p.entries[0], p.entries[1] = p.entries[1], p.entries[0] }, `in the place of "hello/greeter"`},
		"an entry twice":   {func(p *bundleParts) { p.entries = append(p.entries, p.entries[0]) }, "which its manifest does not list"},
		"an entry too few": {func(p *bundleParts) { p.entries = p.entries[:2] }, "unexpected EOF"},
		"a link": {func(p *bundleParts) {
			p.entries[0].header.Typeflag, p.entries[0].header.Linkname = tar.TypeSymlink, "/bin/sh"
		}, "is not a plain file"},
		"a hard link": {func(p *bundleParts) {
			p.entries[0].header.Typeflag, p.entries[0].header.Linkname = tar.TypeLink, "/bin/sh"
		}, "is not a plain file"},
		"a device": {func(p *bundleParts) { p.entries[0].header.Typeflag = tar.TypeChar }, "is not a plain file"},
		"a pipe":   {func(p *bundleParts) { p.entries[0].header.Typeflag = tar.TypeFifo }, "is not a plain file"},
		"a folder": {func(p *bundleParts) { p.entries[0].header.Typeflag = tar.TypeDir }, "is not a plain file"},
		"attributes": {func(p *bundleParts) {
			p.entries[0].header.Format = tar.FormatPAX
			p.entries[0].header.PAXRecords = map[string]string{"SCHILY.xattr.user.x": "y"}
		}, "is not a plain file"},
		"a stream that ends":  {func(p *bundleParts) { p.cut = 3000 }, "unexpected EOF"},
		"something behind it": {func(p *bundleParts) { p.behind = "more" }, "something stands behind its end"},
		"garbage behind it":   {func(p *bundleParts) { p.garbage = "more than a few bytes of it" }, "not a whole one"},
		"no file at all":      {func(p *bundleParts) { p.entries, p.manifest = nil, bundleManifest{} }, "in format 0"},
	} {
		t.Run(name, func(t *testing.T) {
			parts := partsOf(t, bundle)
			tc.change(&parts)
			refused(t, parts.pack(t), ImportOptions{}, tc.want)
		})
	}
	t.Run("half of a file", func(t *testing.T) { refused(t, bundle[:len(bundle)/2], ImportOptions{}, "unexpected EOF") })
	t.Run("an empty file", func(t *testing.T) { refused(t, nil, ImportOptions{}, "it is not a bundle of engines") })
	t.Run("text", func(t *testing.T) {
		refused(t, []byte("hello, this is no bundle"), ImportOptions{}, "it is not a bundle of engines")
	})
	t.Run("another digest", func(t *testing.T) { refused(t, bundle, ImportOptions{SHA256: "aa"}, "not aa") })
	t.Run("a bundle within bounds", func(t *testing.T) {
		_, err := importBundle(t.Context(), bytes.NewReader(partsOf(t, bundle).pack(t)), []spec{helloSpec()}, ImportOptions{CacheDir: t.TempDir()})
		require.NoError(t, err, "what was not changed is not refused")
	})
}

// Whoever made a bundle does not choose what its reader sees.
func TestWhatABundleSaysIsQuotedAndCut(t *testing.T) {
	bundle, _ := exported(t)
	engineOf := func(p *bundleParts) *bundledEngine { return &p.manifest.Engines[0] }
	for place, put := range map[string]func(p *bundleParts, text string){
		"kind":       func(p *bundleParts, text string) { p.manifest.Kind = text },
		"apiVersion": func(p *bundleParts, text string) { p.manifest.APIVersion = text },
		"platform":   func(p *bundleParts, text string) { p.manifest.Platform = text },
		"a name":     func(p *bundleParts, text string) { engineOf(p).Name = text },
		"one more": func(p *bundleParts, text string) {
			p.manifest.Engines = append(p.manifest.Engines, bundledEngine{Name: text})
		},
		"a version":   func(p *bundleParts, text string) { engineOf(p).Version = text },
		"a source":    func(p *bundleParts, text string) { engineOf(p).Source = text },
		"a toolchain": func(p *bundleParts, text string) { engineOf(p).Toolchain = text },
		"a setting":   func(p *bundleParts, text string) { engineOf(p).Toolchain += " GOAMD64=" + text },
		"a file":      func(p *bundleParts, text string) { engineOf(p).Files[0].Name = text },
		"a digest":    func(p *bundleParts, text string) { engineOf(p).Files[0].SHA256 = text },
		"an entry": func(p *bundleParts, text string) {
			p.entries[0].header.Name, p.entries[0].header.Format = text, tar.FormatPAX
		},
		"a last one": func(p *bundleParts, text string) {
			p.entries = append(p.entries, entry{tar.Header{Typeflag: tar.TypeReg, Name: text, Format: tar.FormatPAX}, nil})
		},
	} {
		for _, text := range []string{"x\x1b[31mred", "x\n::error::x", "../\u202ex", strings.Repeat("long", 1<<12)} {
			t.Run(place, func(t *testing.T) {
				parts := partsOf(t, bundle)
				put(&parts, text)
				_, err := importBundle(t.Context(), bytes.NewReader(parts.pack(t)), []spec{helloSpec()}, ImportOptions{CacheDir: t.TempDir()})
				var reason *BundleError
				require.ErrorAs(t, err, &reason)
				assert.Less(t, len(err.Error()), 1000)
				assert.NotContains(t, err.Error(), text)
				assert.False(t, strings.ContainsFunc(err.Error(), func(r rune) bool { return !unicode.IsPrint(r) }), "%q", err.Error())
			})
		}
	}
}

// refused imports a bundle into an empty cache, which must stay empty.
func refused(t *testing.T, bundle []byte, opts ImportOptions, want string) {
	t.Helper()
	opts.CacheDir = t.TempDir()
	_, err := importBundle(t.Context(), bytes.NewReader(bundle), []spec{helloSpec()}, opts)
	var reason *BundleError
	require.ErrorAs(t, err, &reason)
	assert.NotEmpty(t, reason.Fix)
	require.ErrorContains(t, err, want)
	entries, err := os.ReadDir(opts.CacheDir)
	require.NoError(t, err)
	assert.Empty(t, entries, "something is left")
}

func TestAnImportEndsWithItsContext(t *testing.T) {
	bundle, _ := exported(t)
	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, _ = w.Write(bundle[:len(bundle)/2])
		cancel() // and nobody closes the pipe
	}()
	cacheDir := t.TempDir()
	_, err := importBundle(ctx, r, []spec{helloSpec()}, ImportOptions{CacheDir: cacheDir})
	require.ErrorIs(t, err, context.Canceled)
	entries, err := os.ReadDir(cacheDir)
	require.NoError(t, err)
	assert.Empty(t, entries)
	require.NoError(t, r.Close())
}

func TestEnginesForSomeProcessorsAreNotExported(t *testing.T) {
	require.NoError(t, checkBaseline("hello", "linux/amd64 GOVERSION=go1.26.8 GOAMD64=v1 GOFIPS140=off"))
	require.ErrorContains(t, checkBaseline("hello", "linux/amd64 GOAMD64=v3"), "runs only on some processors")
}

func TestTheKeyOfBundlesNamesThePlatform(t *testing.T) {
	key, err := Key()
	require.NoError(t, err)
	assert.Regexp(t, `^netproof-engines-1-linux-\w+-[0-9a-f]{16}$`, key)
}

func TestListShowsWhatIsNotUsedAndPruneTriesFirst(t *testing.T) {
	cacheDir, dir := built(t)
	remains := filepath.Join(cacheDir, buildingPrefix+"hello-0123456789abcdef")
	require.NoError(t, os.Mkdir(remains, 0o755))
	newer := helloSpec(func(s *spec) { s.version = "v2.0.0" })
	found, err := list(t.Context(), []spec{newer}, cacheDir)
	require.NoError(t, err)
	require.Len(t, found, 2)
	for _, f := range found {
		assert.False(t, f.Current)
		assert.Equal(t, f.Path == remains, f.Remains)
		assert.Equal(t, "hello", f.Engine)
	}
	pruned, err := prune(t.Context(), []spec{newer}, PruneOptions{CacheDir: cacheDir, DryRun: true})
	require.NoError(t, err)
	assert.Len(t, pruned, 2)
	assert.DirExists(t, dir)
	assert.DirExists(t, remains)
	assert.NoFileExists(t, lockPath(filepath.Join(cacheDir, "hello-0123456789abcdef")))

	set, err := ensure(t.Context(), []spec{helloSpec()}, Options{CacheDir: cacheDir})
	require.NoError(t, err)
	pruned, err = prune(t.Context(), []spec{newer}, PruneOptions{CacheDir: cacheDir})
	require.NoError(t, err)
	for _, p := range pruned {
		assert.Equal(t, p.Path == dir, p.InUse, "%s", p.Path)
	}
	assert.DirExists(t, dir)
	assert.NoDirExists(t, remains)
	require.NoError(t, set.Close())
}

func TestAnEmptyCacheHasNothingToList(t *testing.T) {
	found, err := List(t.Context(), filepath.Join(t.TempDir(), "none"))
	require.NoError(t, err)
	assert.Empty(t, found)
}
