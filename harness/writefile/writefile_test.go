//go:build linux

package writefile_test

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/netproof/netproof/harness/writefile"
)

func text(s string) func(io.Writer) error { return writefile.Bytes([]byte(s)) }

func namesIn(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func content(t *testing.T, path string) string {
	t.Helper()
	c, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(c)
}

// doors are all ways to begin a file.
var doors = map[string]func(path string) error{
	"replace":         func(path string) error { return writefile.Replace(path, text("new")) },
	"replace private": func(path string) error { return writefile.ReplacePrivate(path, text("new")) },
	"create": func(path string) error {
		f, err := writefile.Create(path)
		if err != nil {
			return err
		}
		_, err = f.WriteString("new")
		return errors.Join(err, f.Close())
	},
	"check":      writefile.Check,
	"check file": writefile.CheckFile,
}

func TestAFileIsReplacedWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "report.json")
	require.NoError(t, writefile.Replace(path, text("old")))
	require.NoError(t, os.Chmod(path, 0o664))
	require.NoError(t, writefile.Replace(path, func(w io.Writer) error {
		assert.Equal(t, "old", content(t, path), "a reader sees the old content until the new one is whole")
		return text("new")(w)
	}))
	assert.Equal(t, "new", content(t, path))
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o664), info.Mode().Perm(), "the mode stays, whatever the umask is")
	assert.Equal(t, []string{"report.json"}, namesIn(t, filepath.Dir(path)))
}

func TestANewFileObeysTheUmask(t *testing.T) {
	old := unix.Umask(0o077)
	t.Cleanup(func() { unix.Umask(old) })
	path := filepath.Join(t.TempDir(), "report.json")
	require.NoError(t, writefile.Replace(path, text("x")))
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}

func TestAPrivateFileIsPrivateAlsoInPlaceOfAnOpenOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, os.WriteFile(path, nil, 0o644))
	require.NoError(t, writefile.ReplacePrivate(path, text("key")))
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}

func TestAFailedWriteLeavesTheOldFileAndNothingElse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "report.json")
	require.NoError(t, writefile.Replace(path, text("old")))
	broken := errors.New("broken")
	err := writefile.Replace(path, func(w io.Writer) error { return errors.Join(text("ne")(w), broken) })
	require.ErrorIs(t, err, broken)
	assert.ErrorContains(t, err, path)
	assert.Equal(t, "old", content(t, path))
	assert.Equal(t, []string{"report.json"}, namesIn(t, filepath.Dir(path)))
}

func TestNoLinkIsFollowedOrReplaced(t *testing.T) {
	for name, do := range doors {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			victim := filepath.Join(dir, "out", "victim")
			require.NoError(t, os.Mkdir(filepath.Dir(victim), 0o755))
			require.NoError(t, os.WriteFile(victim, []byte("precious"), 0o644))
			for link, target := range map[string]string{
				"to-file":     victim,
				"to-nothing":  filepath.Join(dir, "out", "new"),
				"to-device":   "/dev/null",
				"to-stdout":   "/dev/stdout",
				"to-own-fd":   "/proc/self/fd/1",
				"to-itself":   "to-itself",
				"to-relative": "out/victim",
				"folder":      filepath.Dir(victim),
			} {
				require.NoError(t, os.Symlink(target, filepath.Join(dir, link)))
			}
			t.Chdir(dir)
			for _, path := range []string{
				"to-file", "./to-nothing", "to-device", "to-stdout", "to-own-fd", "to-itself", "out/../to-relative", filepath.Join(dir, "to-file"),
				"folder/new", "folder/victim", "folder/../out/victim", dir + "/folder/new", "out/../folder/victim",
			} {
				err := do(path)
				require.ErrorIs(t, err, writefile.ErrRefused, path)
				require.ErrorContains(t, err, "is a link to", path)
			}
			assert.Equal(t, "precious", content(t, victim))
			assert.Equal(t, []string{"victim"}, namesIn(t, filepath.Dir(victim)), "no target of a link came to be")
			assert.Len(t, namesIn(t, dir), 9, "the links are there, and nothing new")
		})
	}
}

func TestALinkThatComesWhileTheFileIsWrittenIsNotTouched(t *testing.T) {
	dir := t.TempDir()
	victim, path := filepath.Join(dir, "victim"), filepath.Join(dir, "report.json")
	require.NoError(t, os.WriteFile(victim, []byte("precious"), 0o644))
	err := writefile.Replace(path, func(w io.Writer) error { return errors.Join(text("new")(w), os.Symlink(victim, path)) })
	require.ErrorIs(t, err, writefile.ErrRefused)
	assert.Equal(t, "precious", content(t, victim))
	assert.Equal(t, []string{"report.json", "victim"}, namesIn(t, dir))
}

func TestAFolderThatIsExchangedMeanwhileIsNotFollowed(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"reports", "elsewhere"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, d), 0o755))
	}
	require.NoError(t, writefile.Replace(filepath.Join(dir, "reports", "r"), func(w io.Writer) error {
		return errors.Join(text("new")(w),
			os.Rename(filepath.Join(dir, "reports"), filepath.Join(dir, "moved")),
			os.Symlink("elsewhere", filepath.Join(dir, "reports")))
	}))
	assert.Empty(t, namesIn(t, filepath.Join(dir, "elsewhere")))
	assert.Equal(t, []string{"r"}, namesIn(t, filepath.Join(dir, "moved")))
}

func TestLinksOfTheSystemAreFollowed(t *testing.T) {
	info, err := os.Lstat("/var/run")
	if err != nil || info.Mode().Type() != os.ModeSymlink {
		t.Skip("this system has no link /var/run")
	}
	needsRoot(t)
	dir, err := os.MkdirTemp("/run", "writefile-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	path := filepath.Join("/var/run", filepath.Base(dir), "r")
	require.NoError(t, writefile.Replace(path, text("new")))
	assert.Equal(t, "new", content(t, filepath.Join(dir, "r")))
	require.NoError(t, writefile.Replace("/var/run/../run/"+filepath.Base(dir)+"/up", text("up")), "above the folder is what lies above the link's target")
	require.NoError(t, writefile.Replace("/var/run/"+filepath.Base(dir)+"/../../run/"+filepath.Base(dir)+"/up-twice", text("up")))
	assert.Equal(t, []string{"r", "up", "up-twice"}, namesIn(t, dir))
	require.ErrorIs(t, writefile.Check("/var/lib/../run/"+filepath.Base(dir)+"/r"), writefile.ErrRefused, "a path that goes up is not simple enough to tell")
}

func TestTheWorkingFolderMayLieBehindALink(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "real"), 0o755))
	require.NoError(t, os.Symlink("real", filepath.Join(dir, "link")))
	t.Chdir(filepath.Join(dir, "link"))
	require.NoError(t, writefile.Replace("r", text("new")))
	require.NoError(t, writefile.Replace("../r", text("new")))
	assert.Equal(t, []string{"link", "r", "real"}, namesIn(t, dir))
}

func TestWhatIsNoFileIsRefused(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "socket")
	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	defer l.Close()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o644))
	for name, do := range doors {
		for path, want := range map[string]string{
			dir:                        "it is a folder",
			dir + "/":                  "it is a folder",
			"..":                       "it is a folder",
			socket:                     "it is a socket",
			dir + "/file/r":            "file is not a folder",
			filepath.Join(dir, "no/r"): "there is no folder " + dir + "/no",
			"no/r":                     "there is no folder no",
		} {
			err := do(path)
			require.ErrorIs(t, err, writefile.ErrRefused, name)
			assert.ErrorContains(t, err, want, name)
		}
		require.ErrorIs(t, do(filepath.Join(dir, "no", "r")), os.ErrNotExist)
	}
	assert.Len(t, namesIn(t, dir), 2)
}

func TestAFolderThatCannotBeWrittenToIsFoundBefore(t *testing.T) {
	require.ErrorIs(t, writefile.Check("/proc/self/r"), writefile.ErrRefused, "self is a link")
	if os.Geteuid() != 0 {
		dir := t.TempDir()
		require.NoError(t, os.Chmod(dir, 0o555))
		require.ErrorIs(t, writefile.Check(dir+"/r"), writefile.ErrRefused)
		return
	}
	dir := openFolder(t, 0o755)
	said, ok := replaceAsNobody(t, filepath.Join(dir, "r"))
	assert.False(t, ok)
	assert.Contains(t, said, "permission denied")
	assert.Empty(t, namesIn(t, dir))
}

func TestAStreamIsWrittenToAsItIs(t *testing.T) {
	require.NoError(t, writefile.Check("/dev/null"))
	require.NoError(t, writefile.Replace("/dev/null", text("x")))
	require.ErrorIs(t, writefile.Replace("/dev/full", text("x")), unix.ENOSPC)
	assert.True(t, writefile.IsStream("/dev/null"))

	pipe := filepath.Join(t.TempDir(), "pipe")
	require.NoError(t, unix.Mkfifo(pipe, 0o600))
	require.NoError(t, writefile.Check(pipe))
	assert.True(t, writefile.IsStream(pipe))
	got := make(chan string)
	go func() {
		c, err := os.ReadFile(pipe)
		got <- string(c)
		assert.NoError(t, err)
	}()
	require.NoError(t, writefile.Replace(pipe, text("through")), "a reader that comes a little later is waited for")
	assert.Equal(t, "through", <-got)

	for _, path := range []string{pipe, "/dev/null"} {
		require.ErrorIs(t, writefile.CheckFile(path), writefile.ErrRefused, "a journal is a file")
		_, err := writefile.Create(path)
		require.ErrorIs(t, err, writefile.ErrRefused)
		_, err = writefile.Open(path)
		require.ErrorIs(t, err, writefile.ErrRefused)
	}
}

func TestAJournalIsANewFileAndSeenAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run.journal")
	require.NoError(t, os.WriteFile(path, []byte("an older journal\n"), 0o644))
	old, err := os.Open(path)
	require.NoError(t, err)
	defer old.Close()
	j, err := writefile.Create(path)
	require.NoError(t, err)
	for _, line := range []string{"a", "b"} {
		_, err := j.WriteString(line)
		require.NoError(t, err)
	}
	assert.Equal(t, "ab", content(t, path))
	kept, err := io.ReadAll(old)
	require.NoError(t, err)
	assert.Equal(t, "an older journal\n", string(kept), "nothing is written into what was there")

	again, err := writefile.Open(path)
	require.NoError(t, err)
	assert.Equal(t, j.ID(), again.ID())
	require.NoError(t, again.Close())
	require.NoError(t, j.Remove())
	require.NoError(t, j.Close(), "closing once more does no harm")
	assert.Empty(t, namesIn(t, filepath.Dir(path)))
}

func TestOnlyTheFileItselfIsRemoved(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "run.journal")
	j, err := writefile.Create(path)
	require.NoError(t, err)
	other, err := writefile.Create(path)
	require.NoError(t, err)
	assert.NotEqual(t, j.ID(), other.ID())
	require.NoError(t, j.Remove())
	assert.Equal(t, []string{"run.journal"}, namesIn(t, dir), "it is another run's by now")
	require.NoError(t, other.Remove())

	gone, err := writefile.Create(path)
	require.NoError(t, err)
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.Symlink("elsewhere", path))
	require.NoError(t, gone.Remove())
	assert.Equal(t, []string{"run.journal"}, namesIn(t, dir))
}

func TestAFileOfSomebodyElseIsRefused(t *testing.T) {
	needsRoot(t)
	theirs := func(dir string) string {
		path := filepath.Join(dir, "report.json")
		require.NoError(t, os.WriteFile(path, []byte("theirs"), 0o666))
		require.NoError(t, os.Chown(path, nobody, nobody))
		return path
	}
	for _, mode := range []os.FileMode{0o755, 0o777, 0o777 | os.ModeSticky} {
		path := theirs(openFolder(t, mode))
		for name, do := range doors {
			err := do(path)
			require.ErrorIs(t, err, writefile.ErrRefused, name)
			require.ErrorContains(t, err, "belongs to user 65534, and netproof runs as user 0", name)
		}
		assert.Equal(t, "theirs", content(t, path))
	}

	// A container that runs as root on a checkout of an ordinary user.
	dir := openFolder(t, 0o755)
	require.NoError(t, os.Chown(dir, nobody, nobody))
	require.NoError(t, writefile.Replace(theirs(dir), text("new")))
	// The same folder, open to all: now it may be anybody's.
	require.NoError(t, os.Chmod(dir, 0o777))
	require.ErrorIs(t, writefile.Replace(theirs(dir), text("new")), writefile.ErrRefused)
}

func TestAnOrdinaryUserWritesWhatIsTheirs(t *testing.T) {
	needsRoot(t)
	dir := openFolder(t, 0o777|os.ModeSticky)
	path := filepath.Join(dir, "report.json")
	for range 2 {
		said, ok := replaceAsNobody(t, path)
		require.True(t, ok, said)
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "of-root"), nil, 0o666))
	said, ok := replaceAsNobody(t, filepath.Join(dir, "of-root"))
	assert.False(t, ok)
	assert.Contains(t, said, "belongs to user 0, and netproof runs as user 65534")

	// A folder that a group works in: what its owner left there may be replaced.
	group := openFolder(t, 0o770)
	require.NoError(t, os.Chown(group, 0, nobody))
	require.NoError(t, os.WriteFile(filepath.Join(group, "report.json"), nil, 0o644))
	said, ok = replaceAsNobody(t, filepath.Join(group, "report.json"))
	assert.True(t, ok, said)
	assert.Equal(t, []string{"report.json"}, namesIn(t, group))
}
