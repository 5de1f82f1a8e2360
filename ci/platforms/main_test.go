package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// inModule writes a module of one package and gives its folder.
func inModule(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	files["go.mod"] = "module example.org/m\n\ngo 1.26\n"
	for name, content := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644))
	}
	return dir
}

func TestWhatDoesNotCompileIsFoundOnThePlatformThatCompilesIt(t *testing.T) {
	t.Parallel()
	dir := inModule(t, map[string]string{
		"m.go":              "package m\n\nfunc M() int { return platform }\n",
		"m_linux.go":        "package m\n\nconst platform = 1\n",
		"m_windows.go":      "package m\n\nconst platform = 2\n",
		"m_windows_test.go": "package m\n\nimport \"testing\"\n\nfunc TestM(t *testing.T) { t.Log(M(1)) }\n",
	})
	count, wrong, err := check("linux/amd64", dir)
	require.NoError(t, err)
	assert.Empty(t, wrong)
	assert.Equal(t, 1, count)

	_, wrong, err = check("darwin/arm64", dir)
	require.NoError(t, err)
	require.Len(t, wrong, 1)
	assert.Regexp(t, `m\.go:3:23: undefined: platform`, wrong[0])

	_, wrong, err = check("windows/arm64", dir)
	require.NoError(t, err)
	require.NotEmpty(t, wrong)
	assert.Regexp(t, `m_windows_test\.go:5:36: too many arguments in call to M`, wrong[0])
}

func TestWhatGoVetSaysIsFound(t *testing.T) {
	t.Parallel()
	dir := inModule(t, map[string]string{
		"m.go":        "package m\n\nimport \"fmt\"\n\nfunc say(format string, args ...any) { fmt.Printf(format, args...) }\n",
		"m_darwin.go": "package m\n\nfunc M() { say(\"%d\", \"one\") }\n",
	})
	_, wrong, err := check("linux/arm64", dir)
	require.NoError(t, err)
	assert.Empty(t, wrong)

	_, wrong, err = check("darwin/amd64", dir)
	require.NoError(t, err)
	require.Len(t, wrong, 1)
	assert.Regexp(t, `m_darwin\.go:3:17: printf: .*%d has arg "one" of wrong type string`, wrong[0])
}

func TestAPlatformThatThereIsNotIsRefused(t *testing.T) {
	t.Parallel()
	var stdout, stderr bytes.Buffer
	assert.Equal(t, 2, run([]string{"linux/amd64", "plan9/amd64"}, &stdout, &stderr))
	assert.Empty(t, stdout.String())
	assert.Contains(t, stderr.String(), "no platform plan9/amd64: there are linux/amd64 linux/arm64")
}
