//go:build unix

package owned

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const nobody = 65534

// reachable is a folder that every user can reach.
func reachable(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "owned-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	require.NoError(t, os.Chmod(dir, 0o755))
	return dir
}

func needsRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be another user")
	}
}

func TestWhatIsOursIsResolved(t *testing.T) {
	dir := reachable(t)
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "real", "cache"), 0o755))
	require.NoError(t, os.Symlink("../real/./cache", filepath.Join(dir, "real", "relative")))
	require.NoError(t, os.Symlink(filepath.Join(dir, "real"), filepath.Join(dir, "absolute")))
	require.NoError(t, os.Symlink("loop", filepath.Join(dir, "loop")))
	for _, path := range []string{"real/cache", "absolute/cache", "absolute/relative", "real/../absolute/relative/."} {
		got, err := Resolve(filepath.Join(dir, path))
		require.NoError(t, err, path)
		assert.Equal(t, filepath.Join(dir, "real", "cache"), got)
	}
	_, err := Resolve(filepath.Join(dir, "absolute", "no", "such"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = Resolve(filepath.Join(dir, "loop"))
	require.ErrorIs(t, err, syscall.ELOOP)
}

func TestWhatOthersCouldChangeIsRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(t *testing.T, dir string) error
		path  string
		want  string
	}{
		"a file that all may write to": {
			func(_ *testing.T, dir string) error { return os.Chmod(filepath.Join(dir, "a/b/etcd"), 0o777) }, "a/b/etcd", "a/b/etcd: everybody may write to it",
		},
		"a folder on the way": {
			func(_ *testing.T, dir string) error { return os.Chmod(filepath.Join(dir, "a"), 0o757) }, "a/b/etcd", "a: everybody may write to it",
		},
		"a folder behind a link": {
			func(_ *testing.T, dir string) error { return os.Chmod(filepath.Join(dir, "a"), 0o757) }, "link/b/etcd", "a: everybody may write to it",
		},
		"a file of another user": {
			func(t *testing.T, dir string) error {
				needsRoot(t)
				return os.Chown(filepath.Join(dir, "a/b/etcd"), nobody, -1)
			}, "a/b/etcd", "a/b/etcd: it belongs to user ",
		},
		"a folder of another user": {
			func(t *testing.T, dir string) error {
				needsRoot(t)
				return os.Chown(filepath.Join(dir, "a"), nobody, -1)
			}, "a/b/etcd", "a: it belongs to user ",
		},
		"a link of another user": {
			func(t *testing.T, dir string) error {
				needsRoot(t)
				return os.Lchown(filepath.Join(dir, "link"), nobody, -1)
			}, "link/b/etcd", "link: it belongs to user ",
		},
		"a sticky file": {
			func(_ *testing.T, dir string) error {
				return os.Chmod(filepath.Join(dir, "a/b/etcd"), 0o757|os.ModeSticky)
			}, "a/b/etcd", "everybody may write to it",
		},
		"a group of several": {
			func(t *testing.T, dir string) error {
				needsRoot(t)
				a := filepath.Join(dir, "a")
				if err := os.Chown(a, -1, 1); err != nil {
					return err
				}
				return os.Chmod(a, 0o775)
			}, "a/b/etcd", "a: the group 1 may write to it",
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := reachable(t)
			require.NoError(t, os.MkdirAll(filepath.Join(dir, "a", "b"), 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "a", "b", "etcd"), nil, 0o755))
			require.NoError(t, os.Symlink("a", filepath.Join(dir, "link")))
			_, err := Resolve(filepath.Join(dir, tc.path))
			require.NoError(t, err)
			require.NoError(t, tc.spoil(t, dir))
			_, err = Resolve(filepath.Join(dir, tc.path))
			var theirs *Error
			require.ErrorAs(t, err, &theirs)
			assert.ErrorContains(t, err, tc.want)
		})
	}
}

func TestAStickyFolderMayBeOpenToAll(t *testing.T) {
	dir := filepath.Join(reachable(t), "open")
	require.NoError(t, os.Mkdir(dir, 0o755))
	require.NoError(t, os.Chmod(dir, 0o777|os.ModeSticky))
	real, err := MakeFolder(filepath.Join(dir, "a", "b"))
	require.NoError(t, err)
	assert.Equal(t, filepath.Join(dir, "a", "b"), real)
}

func TestNothingIsMadeWhereOthersCouldExchangeIt(t *testing.T) {
	dir := reachable(t)
	require.NoError(t, os.Chmod(dir, 0o777))
	_, err := MakeFolder(filepath.Join(dir, "a", "b"))
	require.ErrorContains(t, err, "everybody may write to it")
	assert.NoDirExists(t, filepath.Join(dir, "a"))

	require.NoError(t, os.Chmod(dir, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o644))
	_, err = MakeFolder(filepath.Join(dir, "file"))
	require.ErrorIs(t, err, syscall.ENOTDIR)
}

// askEnv makes the test binary resolve a path as another user, and print what came of it.
const askEnv = "OWNED_TEST_ASK"

func TestMain(m *testing.M) {
	if path := os.Getenv(askEnv); path != "" {
		fmt.Println(Resolve(path))
		os.Exit(0) //nolint:forbidigo // this is main, of a process that a test started
	}
	os.Exit(m.Run()) //nolint:forbidigo // this is main
}

func TestAnOrdinaryUserTrustsRootAndThemselves(t *testing.T) {
	needsRoot(t)
	dir := reachable(t)
	ask := func(path string) string {
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
		cmd.Env, cmd.Dir = append(os.Environ(), askEnv+"="+path), "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		out, err := cmd.Output()
		require.NoError(t, err)
		return string(out)
	}
	write := func(name string, uid int) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, nil, 0o755))
		require.NoError(t, os.Chown(path, uid, -1))
		return path
	}
	for name, uid := range map[string]int{"of-root": 0, "own": nobody} {
		path := write(name, uid)
		assert.Equal(t, path+" <nil>\n", ask(path))
	}
	third := write("of-a-third", 12345)
	assert.Contains(t, ask(third), third+": it belongs to user 12345, and netproof runs as user ")
}

func TestAGroupIsTheUsersOwnIfNobodyElseIsInIt(t *testing.T) {
	const groups = "root:x:0:\nann:x:1000:\nbob:x:1001:bob\ncarl:x:1002:carl,ann\nstaff:x:50:ann\n"
	for _, tc := range []struct {
		gid  uint32
		name string
		want bool
	}{
		{0, "root", true}, {1000, "ann", true}, {1001, "bob", true}, {1002, "carl", false}, {50, "ann", false}, {1000, "bob", false}, {7, "ann", false},
	} {
		assert.Equal(t, tc.want, isAlone(groups, tc.gid, tc.name), tc)
	}
}

func TestTheOverflowUserIsRootOnlyWhereNobodyIsMappedToIt(t *testing.T) {
	for uidMap, want := range map[string]bool{
		"         0          0 4294967295\n":                  true,
		"         0       1000          1\n":                  false,
		"         0       1000          1\n 1 100000 65536\n": true,
		"      1000       1000          1\n":                  false,
		"nonsense":                                            true,
		"":                                                    false,
	} {
		assert.Equal(t, want, isMapped(uidMap, overflow), uidMap)
	}
}
