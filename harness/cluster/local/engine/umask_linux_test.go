package engine

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestABundleDoesNotDependOnTheUmask(t *testing.T) {
	umask := func(mask int) {
		before := syscall.Umask(mask)
		t.Cleanup(func() { syscall.Umask(before) })
	}
	umask(0o022)
	open, toldOpen := exported(t)
	umask(0o077)
	closed, toldClosed := exported(t)
	assert.Equal(t, toldOpen.SHA256, toldClosed.SHA256)
	modes := func(bundle []byte) map[string]int64 {
		all := map[string]int64{}
		for _, e := range partsOf(t, bundle).entries {
			all[e.header.Name] = e.header.Mode
		}
		return all
	}
	want := map[string]int64{"hello/greeter": 0o755, "hello/notice": 0o644, "hello/other": 0o755}
	assert.Equal(t, want, modes(open))
	assert.Equal(t, want, modes(closed))

	// What is built with that umask is ours alone, which shows that the modes on disk were others.
	_, dir := built(t)
	info, err := os.Stat(filepath.Join(dir, "greeter"))
	require.NoError(t, err)
	assert.EqualValues(t, 0o700, info.Mode().Perm())
}
