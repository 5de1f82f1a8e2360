package engine

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// unpack puts a cache together as whoever makes an image does.
func unpack(t *testing.T, files []Packed) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range files {
		path := filepath.Join(dir, f.Path)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		switch {
		case f.Link != "":
			require.NoError(t, os.Symlink(f.Link, path))
		case f.Source == "":
			require.NoError(t, os.WriteFile(path, f.Content, 0o444))
		default:
			content, err := os.ReadFile(f.Source)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(path, content, 0o555))
		}
	}
	return filepath.Join(dir, "engines")
}

func TestAPackedCacheIsUsedWhereThereIsNoGo(t *testing.T) {
	cacheDir, _ := built(t)
	set, files, err := pack(t.Context(), []spec{helloSpec()}, Options{CacheDir: cacheDir})
	require.NoError(t, err)
	elsewhere := unpack(t, files)
	require.NoError(t, set.Close())

	hideGo(t)
	seen := newEvents()
	set, err = ensure(t.Context(), []spec{helloSpec()}, Options{CacheDir: elsewhere, Progress: seen.add})
	require.NoError(t, err)
	assert.Equal(t, []Stage{Ready}, seen.stages(), "nothing is built")
	for _, program := range []string{"greeter", "greeter-ipam", "other"} {
		out, err := exec.CommandContext(t.Context(), set.Path(program)).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	require.NoError(t, set.Close())
}

func TestAPackedCacheDoesNotDependOnWhoBuiltIt(t *testing.T) {
	var packed [][]Packed
	for range 2 {
		cacheDir, _ := built(t)
		set, files, err := pack(t.Context(), []spec{helloSpec()}, Options{CacheDir: cacheDir})
		require.NoError(t, err)
		require.NoError(t, set.Close())
		for i := range files {
			files[i].Source = ""
		}
		packed = append(packed, files)
	}
	assert.Equal(t, packed[0], packed[1])
}
