package report_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/report"
)

func text(s string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, s)
		return err
	}
}

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

func TestAFileIsReplacedWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "report.json")
	require.NoError(t, report.WriteFile(path, text("old")))
	require.NoError(t, os.Chmod(path, 0o600))
	require.NoError(t, report.WriteFile(path, func(w io.Writer) error {
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		assert.Equal(t, "old", string(content), "a reader sees the old content until the new one is whole")
		return text("new")(w)
	}))
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "new", string(content))
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm(), "the mode stays")
	assert.Equal(t, []string{"report.json"}, namesIn(t, filepath.Dir(path)))
}

func TestAFailedWriteLeavesTheOldFileAndNothingElse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "report.json")
	require.NoError(t, report.WriteFile(path, text("old")))
	broken := errors.New("broken")
	err := report.WriteFile(path, func(w io.Writer) error { return errors.Join(text("ne")(w), broken) })
	require.ErrorIs(t, err, broken)
	assert.ErrorContains(t, err, path)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "old", string(content))
	assert.Equal(t, []string{"report.json"}, namesIn(t, filepath.Dir(path)))
}

func TestALinkStaysALink(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	require.NoError(t, os.WriteFile(target, []byte("old"), 0o644))
	require.NoError(t, os.Symlink("target", link))
	require.NoError(t, report.WriteFile(link, text("new")))
	content, err := os.ReadFile(target)
	require.NoError(t, err)
	assert.Equal(t, "new", string(content))
}

func TestWhatIsNoFileIsWrittenToOrRefused(t *testing.T) {
	require.NoError(t, report.WriteFile("/dev/null", text("x")))
	dir := t.TempDir()
	require.ErrorContains(t, report.WriteFile(dir, text("x")), "it is a folder")
	require.ErrorIs(t, report.WriteFile(filepath.Join(dir, "no", "such"), text("x")), os.ErrNotExist)
}
