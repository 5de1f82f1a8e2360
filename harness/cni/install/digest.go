package install

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
)

// DigestError says that something is not what its digest promised. Nothing of it was used.
type DigestError struct {
	// What was compared: a URL, for a chart in an archive with its folder.
	What string
	// Want and Got are digests, as sha256:HEX.
	Want, Got string
	// Fix says what the user can do.
	Fix string
}

func (e *DigestError) Error() string {
	return fmt.Sprintf("%s is not what it should be: its digest is %s, and %s was expected; %s", e.What, e.Got, e.Want, e.Fix)
}

// sha256Of is the digest of a file.
func sha256Of(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// validDigest tells whether text is a digest as this package writes them.
func validDigest(text string) bool {
	digits, ok := strings.CutPrefix(text, "sha256:")
	raw, err := hex.DecodeString(digits)
	return ok && err == nil && len(raw) == sha256.Size
}

// ChartDigest is the digest of a folder that holds a chart: the sha256 over its regular files in the order of their
// paths, each as its path, its length in bytes and its content. How the folder was packed does not matter.
func ChartDigest(chart fs.FS) (string, error) {
	files, err := readFiles(chart)
	if err != nil {
		return "", err
	}
	return filesDigest(files), nil
}

// filesDigest puts a length before everything of unknown length, so that no two different charts are the same input.
func filesDigest(files map[string][]byte) string {
	h := sha256.New()
	for _, path := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(h, "%d %s %d\n", len(path), path, len(files[path]))
		h.Write(files[path])
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

// readFiles reads the regular files of a folder, by their paths with slashes.
func readFiles(folder fs.FS) (map[string][]byte, error) {
	files := map[string][]byte{}
	err := fs.WalkDir(folder, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		files[path], err = fs.ReadFile(folder, path)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read chart: %w", err)
	}
	return files, nil
}
