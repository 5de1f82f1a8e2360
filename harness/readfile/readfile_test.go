package readfile_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/readfile"
)

// tree makes a working folder: given/ with files and links, and beside it what must not be read.
func tree(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	t.Chdir(dir)
	for name, text := range map[string]string{"given/a.yaml": "a", "given/sub/b.yaml": "b", "secret": "s", "other/c.yaml": "c"} {
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
		require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
	}
	for name, target := range map[string]string{
		"given/inside.yaml":   "sub/b.yaml",
		"given/up.yaml":       "../secret",
		"given/absolute.yaml": filepath.Join(dir, "given/a.yaml"),
		"given/folder":        "../other",
		"given/twice.yaml":    "up.yaml",
		"given/zero.yaml":     "/dev/zero",
		"given/messages.yaml": "/proc/kmsg",
		"given/nothing.yaml":  "gone.yaml",
		"link":                "given",
		"out":                 filepath.Dir(dir),
		"etc":                 "/etc",
	} {
		require.NoError(t, os.Symlink(target, name))
	}
	require.NoError(t, exec.Command("mkfifo", "-m", "600", "given/pipe.yaml").Run())
}

func open(t *testing.T, name string, budget *readfile.Budget) (*readfile.Root, string) {
	t.Helper()
	root, beneath, err := readfile.Open(name, budget)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, root.Close()) })
	return root, beneath
}

func TestOnlyRegularFilesBeneathTheFolderAreRead(t *testing.T) {
	tree(t)
	root, beneath := open(t, "given", nil)
	assert.Equal(t, ".", beneath)
	for name, want := range map[string]error{
		"a.yaml": nil, "sub/b.yaml": nil, "inside.yaml": nil, "sub/../a.yaml": nil,
		"../secret": readfile.ErrOutside, "sub/../../secret": readfile.ErrOutside, "/etc/passwd": readfile.ErrOutside,
		"up.yaml": readfile.ErrOutside, "twice.yaml": readfile.ErrOutside, "absolute.yaml": readfile.ErrOutside,
		"folder/c.yaml": readfile.ErrOutside, "zero.yaml": readfile.ErrOutside, "messages.yaml": readfile.ErrOutside,
		"sub": readfile.ErrFolder, "pipe.yaml": readfile.ErrNotRegular,
		"nothing.yaml": fs.ErrNotExist, "gone.yaml": fs.ErrNotExist,
	} {
		data, err := root.ReadFile(t.Context(), name, 10)
		if want == nil {
			assert.NoError(t, err, name)
			assert.NotEmpty(t, data, name)
			continue
		}
		assert.ErrorIs(t, err, want, name)
		assert.Empty(t, data, name)
	}
	_, err := root.ReadDir("folder")
	assert.ErrorIs(t, err, readfile.ErrOutside)
	_, err = root.Stat("folder")
	assert.ErrorIs(t, err, readfile.ErrOutside)
}

func TestAGivenPathMayBeALinkThatStaysBelowTheWorkingFolder(t *testing.T) {
	tree(t)
	root, _ := open(t, "link", nil)
	data, err := root.ReadFile(t.Context(), "a.yaml", 10)
	require.NoError(t, err)
	assert.Equal(t, "a", string(data))

	root, beneath := open(t, "given/inside.yaml", nil)
	assert.Equal(t, "inside.yaml", beneath)
	_, err = root.ReadFile(t.Context(), beneath, 10)
	require.NoError(t, err)

	here, err := os.Getwd()
	require.NoError(t, err)
	for _, name := range []string{"out", "etc", "etc/hosts", "given/folder/../../out", filepath.Join(here, "etc"), filepath.Join(here, "given/up.yaml")} {
		_, _, err := readfile.Open(name, nil)
		assert.ErrorIs(t, err, readfile.ErrOutside, name)
	}
	// A link that stays in its folder is one of the operator's own.
	_, err = readfile.File(t.Context(), filepath.Join(here, "link"), 10)
	assert.ErrorIs(t, err, readfile.ErrFolder)
	_, err = readfile.File(t.Context(), "given/up.yaml", 10)
	assert.ErrorIs(t, err, readfile.ErrOutside, "a file that is a link leads out of its folder")
	_, err = readfile.File(t.Context(), "given/zero.yaml", 10)
	assert.ErrorIs(t, err, readfile.ErrOutside)
	_, err = readfile.File(t.Context(), "/dev/zero", 10)
	assert.ErrorIs(t, err, readfile.ErrNotRegular)
}

func TestWorkingFolderItselfAndItsParentCanBeGiven(t *testing.T) {
	tree(t)
	t.Chdir("given")
	for name, file := range map[string]string{".": "a.yaml", "..": "secret", "../given": "a.yaml", "/": "etc/hosts"} {
		root, beneath := open(t, name, nil)
		assert.Equal(t, ".", beneath, name)
		_, err := root.ReadFile(t.Context(), file, 1<<20)
		assert.NoError(t, err, name)
	}
}

func TestSizesAreBounded(t *testing.T) {
	tree(t)
	require.NoError(t, os.WriteFile("given/big.yaml", make([]byte, 11), 0o600))
	root, _ := open(t, "given", readfile.NewBudget(25))
	var tooLarge *readfile.SizeError
	_, err := root.ReadFile(t.Context(), "big.yaml", 10)
	require.ErrorAs(t, err, &tooLarge)
	assert.Equal(t, readfile.SizeError{Most: 10}, *tooLarge)
	for range 2 {
		_, err = root.ReadFile(t.Context(), "big.yaml", 11)
		require.NoError(t, err)
	}
	_, err = root.ReadFile(t.Context(), "big.yaml", 11)
	require.ErrorAs(t, err, &tooLarge)
	assert.Equal(t, readfile.SizeError{Most: 25, Together: true}, *tooLarge)
}

func TestReadingEndsWithItsContext(t *testing.T) {
	tree(t)
	root, _ := open(t, "given", nil)
	ctx, cancel := context.WithCancelCause(t.Context())
	over := errors.New("over")
	cancel(over)
	_, err := root.ReadFile(ctx, "a.yaml", 10)
	assert.ErrorIs(t, err, over)
}

func TestEmbeddedFilesHaveTheSameBounds(t *testing.T) {
	root := readfile.FS(fstest.MapFS{"a/b": {Data: []byte("b")}}, nil)
	data, err := root.ReadFile(t.Context(), "a/./b", 1)
	require.NoError(t, err)
	assert.Equal(t, "b", string(data))
	_, err = root.ReadFile(t.Context(), "a/../../b", 1)
	assert.ErrorIs(t, err, readfile.ErrOutside)
	_, err = root.ReadFile(t.Context(), "a", 1)
	assert.ErrorIs(t, err, readfile.ErrFolder)
	assert.False(t, root.Links())
}

func TestAStreamIsOfARegularFileWithinBounds(t *testing.T) {
	tree(t)
	f, err := readfile.Stream("given/inside.yaml", 1)
	require.NoError(t, err)
	text, err := io.ReadAll(f)
	require.NoError(t, err)
	assert.Equal(t, "b", string(text), "the folder need not stay open")
	require.NoError(t, f.Close())

	for name, want := range map[string]error{
		"given": readfile.ErrFolder, "given/pipe.yaml": readfile.ErrNotRegular, "/dev/zero": readfile.ErrNotRegular,
		"given/up.yaml": readfile.ErrOutside, "given/zero.yaml": readfile.ErrOutside, "etc/hosts": readfile.ErrOutside,
		"given/gone.yaml": fs.ErrNotExist, "given/nothing.yaml": fs.ErrNotExist,
	} {
		f, err := readfile.Stream(name, 1)
		require.ErrorIs(t, err, want, name)
		assert.Nil(t, f, name)
	}
	require.NoError(t, os.WriteFile("given/big.yaml", make([]byte, 11), 0o600))
	_, err = readfile.Stream("given/big.yaml", 10)
	var tooLarge *readfile.SizeError
	require.ErrorAs(t, err, &tooLarge)
	assert.Equal(t, readfile.SizeError{Most: 10}, *tooLarge)
}
