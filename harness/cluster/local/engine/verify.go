package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/netproof/netproof/harness/owned"
	"github.com/netproof/netproof/harness/writefile"
)

// UntrustedError says that somebody else could change the programs that netproof would run, so that it does not run
// them.
type UntrustedError struct {
	// What is "engine cache" or "engine folder", and Dir its path.
	What, Dir string
	// Fix tells what to do about it.
	Fix string
	// Err is an [*owned.Error].
	Err error
}

func (e *UntrustedError) Error() string {
	return fmt.Sprintf("%s %s is not ours alone: %v: %s", e.What, e.Dir, e.Err, e.Fix)
}

func (e *UntrustedError) Unwrap() error { return e.Err }

// untrusted makes an error that is about an owner an [UntrustedError], and leaves others as they are.
func untrusted(what, dir, fix string, err error) error {
	var theirs *owned.Error
	if !errors.As(err, &theirs) {
		return err
	}
	return &UntrustedError{What: what, Dir: dir, Fix: fix, Err: theirs}
}

func untrustedCache(dir string, err error) error {
	return untrusted("engine cache", dir, "programs in it are run, so no other user may own it or write to it: fix that, or set "+CacheEnv+
		" to a folder that only you can write to", err)
}

func untrustedDir(dir string, err error) error {
	return untrusted("engine folder", dir, "programs in it are run, so no other user may own it or write to it: fix that, or copy it to a "+
		"folder that only you can write to", err)
}

// TamperedError says that a file of a built engine is not what was built.
type TamperedError struct {
	Path, Reason string
}

func (e *TamperedError) Error() string {
	return fmt.Sprintf("%s is not what was built: %s", e.Path, e.Reason)
}

// verify makes sure that the files of a complete engine are ours alone and have the content that was built, by the
// digests in its manifest. The error is an [*UntrustedError] or a [*TamperedError] if not.
//
// Versions of netproof up to the one that this was added to wrote no digests. Such an engine is taken as it is, and its
// digests are noted from then on, if nothing in it was changed after its manifest was written. That trusts no more than
// a check against digests would: these lie in the same folder, and whoever could have changed a program could have
// changed them as well. What keeps others out, then and now, is that the folder is ours; the digests find damage, and
// changes by those who reach one file only. So a first run of a newer netproof need not build for ten minutes.
func verify(s spec, dir string) error {
	m, err := readManifest(dir)
	if err != nil {
		return err
	}
	for _, file := range s.fileNames() {
		if err := verifyPlace(s, dir, file); err != nil {
			return err
		}
	}
	if m.Digests == nil {
		return adopt(s, dir, m)
	}
	got, err := digests(s, dir)
	if err != nil {
		return err
	}
	for _, file := range s.fileNames() {
		if want, ok := got[file]; ok && m.Digests[file] != want {
			return &TamperedError{filepath.Join(dir, file), fmt.Sprintf("its SHA-256 is %s, that of the build %s", want, m.Digests[file])}
		}
	}
	return nil
}

// verifyPlace makes sure that a file is where it was built and ours alone.
func verifyPlace(s spec, dir, file string) error {
	path := filepath.Join(dir, file)
	real, err := owned.Resolve(path)
	if err != nil {
		return untrustedCache(filepath.Dir(dir), err)
	}
	want := path
	if target, alias := s.aliases[file]; alias {
		want = filepath.Join(dir, target)
	}
	if real != want {
		return &TamperedError{path, fmt.Sprintf("it leads to %q", real)}
	}
	info, err := os.Lstat(real)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return &TamperedError{path, "it is not a regular file"}
	}
	return nil
}

// copyTime is how much later than its manifest a file may have been written, as in a cache that was copied file by
// file.
const copyTime = 5 * time.Minute

// adopt notes the digests of an engine that has none.
func adopt(s spec, dir string, m manifest) error {
	noted, err := os.Stat(filepath.Join(dir, manifestFile))
	if err != nil {
		return err
	}
	for _, file := range s.fileNames() {
		info, err := os.Stat(filepath.Join(dir, file))
		if err != nil {
			return err
		}
		if info.ModTime().After(noted.ModTime().Add(copyTime)) {
			return &TamperedError{filepath.Join(dir, file), "it was written after the build, at " + info.ModTime().Format(time.RFC3339)}
		}
	}
	if m.Digests, err = digests(s, dir); err != nil {
		return err
	}
	err = writeManifest(dir, m)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return nil // nobody can change it here, and so neither can we
	}
	return err
}

func writeManifest(dir string, m manifest) error {
	content, err := encode(m)
	if err != nil {
		return fmt.Errorf("describe engine %s: %w", m.Name, err)
	}
	if err := writefile.Replace(filepath.Join(dir, manifestFile), writefile.Bytes(content)); err != nil {
		return fmt.Errorf("describe engine %s: %w", m.Name, err)
	}
	return nil
}

// encode gives the text of a manifest.
func encode(manifest any) ([]byte, error) {
	content, err := json.MarshalIndent(manifest, "", "  ")
	return append(content, '\n'), err
}

// hashing bounds how many files are read at a time: it is the processor that takes the time.
var hashing = make(chan struct{}, runtime.GOMAXPROCS(0))

// digests gives the SHA-256 of the files of an engine in hexadecimal. An alias has none: it is a link to a file that
// has.
func digests(s spec, dir string) (map[string]string, error) {
	var (
		mu   sync.Mutex
		sums = map[string]string{}
		errs []error
		wg   sync.WaitGroup
	)
	for _, file := range s.fileNames() {
		if _, alias := s.aliases[file]; alias {
			continue
		}
		wg.Go(func() {
			hashing <- struct{}{}
			defer func() { <-hashing }()
			sum, err := digest(filepath.Join(dir, file))
			mu.Lock()
			defer mu.Unlock()
			sums[file] = sum
			errs = append(errs, err)
		})
	}
	wg.Wait()
	return sums, errors.Join(errs...)
}

func digest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("verify engine: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := copyAll(h, f); err != nil {
		return "", fmt.Errorf("verify engine: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// copyAll copies in large pieces. With io.Copy a file would choose them, and small ones make this slower.
func copyAll(w io.Writer, r io.Reader) (int64, error) {
	return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, make([]byte, 1<<20))
}
