//go:build !other

package writefile_test

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/netproof/netproof/harness/writefile"
)

func TestADescriptorGoesOnWhereItStands(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	require.NoError(t, err)
	defer f.Close()
	_, err = f.WriteString("one ")
	require.NoError(t, err)
	// As a shell hands it over.
	given, err := unix.Dup(int(f.Fd()))
	require.NoError(t, err)
	t.Cleanup(func() { _ = unix.Close(given) })
	path := "/dev/fd/" + strconv.Itoa(given)
	require.NoError(t, writefile.Check(path))
	assert.True(t, writefile.IsStream(path))
	require.NoError(t, writefile.Replace(path, text("two")))
	require.NoError(t, writefile.Replace("/proc/self"+path[len("/dev"):], text(" three")))
	assert.Equal(t, "one two three", content(t, f.Name()))

	reading, err := unix.Open(f.Name(), unix.O_RDONLY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = unix.Close(reading) })
	require.ErrorContains(t, writefile.Check("/dev/fd/"+strconv.Itoa(reading)), "only open for reading")
	require.ErrorIs(t, writefile.Check("/dev/fd/"+strconv.Itoa(int(f.Fd()))), writefile.ErrRefused, "it is our own")
	require.ErrorIs(t, writefile.Check("/dev/fd/60000"), writefile.ErrRefused)
	for path, want := range map[string]int{"/dev/stdout": 1, "/dev/stderr": 2, "/dev/fd/63": 63} {
		fd, ok := writefile.Descriptor(path)
		assert.True(t, ok)
		assert.Equal(t, want, fd)
	}
	for _, path := range []string{"/dev/fd/", "/dev/fd/x", "/dev/fd/-1", "/dev/stdin", "dev/stdout", "/proc/1/fd/1", "/dev/../dev/stdout"} {
		_, ok := writefile.Descriptor(path)
		assert.False(t, ok, path)
	}
}
