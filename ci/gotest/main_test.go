package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// inModule runs this program in a module of one package with the given test file.
func inModule(t *testing.T, source string, args ...string) (string, int) {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "other"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "other", "other.go"), []byte("package other\n"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module example.org/m\n\ngo 1.26\n"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "m_test.go"), []byte("package m\n\nimport \"testing\"\n\n"+source), 0o644))
	t.Chdir(dir)
	var out bytes.Buffer
	code, err := run(t.Context(), append(args, "./..."), &out)
	require.NoError(t, err)
	return regexp.MustCompile(`\d+\.\d+ ?s`).ReplaceAllString(out.String(), "TIME"), code
}

func TestPassedTestsAreCountedWithoutTheirParents(t *testing.T) {
	out, code := inModule(t, `func TestA(t *testing.T) { t.Run("x", func(t *testing.T) {}); t.Run("y", func(t *testing.T) {}) }
func TestB(t *testing.T) { t.Log("not shown") }`)
	assert.Equal(t, "ok    example.org/m  TIME\n\n3 passed, 0 failed, 0 skipped\n", out)
	assert.Zero(t, code)
}

func TestEverySkipIsListedWithItsReason(t *testing.T) {
	out, code := inModule(t, `func TestA(t *testing.T) {}
func TestB(t *testing.T) { t.Skip("needs: a moon") }
func TestC(t *testing.T) { t.SkipNow() }`)
	assert.Contains(t, out, "\nskipped:\n  example.org/m TestB: needs: a moon\n  example.org/m TestC: no reason given\n")
	assert.Regexp(t, `\n1 passed, 0 failed, 2 skipped\n$`, out)
	assert.Zero(t, code)
}

func TestSkipsOfOneReasonShareALine(t *testing.T) {
	out, _ := inModule(t, `func TestA(t *testing.T) {}
func TestB(t *testing.T) { t.Skip("a moon") }
func TestC(t *testing.T) { t.Skip("a sun") }
func TestD(t *testing.T) { t.Skip("a moon") }`)
	assert.Contains(t, out, "\nskipped:\n  example.org/m 2 tests: a moon\n  example.org/m TestC: a sun\n\n1 passed, 0 failed, 3 skipped\n")
}

func TestAFailureIsShownWithItsOutputAndCountedOnce(t *testing.T) {
	out, code := inModule(t, `func TestA(t *testing.T) { t.Run("x", func(t *testing.T) { t.Fatal("because") }); t.Run("y", func(t *testing.T) {}) }
func TestB(t *testing.T) { t.Log("quiet") }`)
	assert.Contains(t, out, "m_test.go:5: because")
	assert.NotContains(t, out, "quiet")
	assert.Contains(t, out, "FAIL  example.org/m")
	assert.Regexp(t, `\n2 passed, 1 failed, 0 skipped\n$`, out)
	assert.Equal(t, 1, code)
}

func TestTheEndSaysHowEachFailureBegan(t *testing.T) {
	out, _ := inModule(t, `import "strings"

func TestA(t *testing.T) { t.Run("x", func(t *testing.T) {
	t.Error("because\n\nof this"); t.Log(strings.Repeat("x", 500))
	for range 20 { t.Log("more") }
}) }
func TestB(t *testing.T) { t.Error("that") }`)
	_, end, _ := strings.Cut(out, "\nfailed:\n")
	assert.Regexp(t, "^  example.org/m TestA/x\n    m_test.go:8: because\n    of this\n    m_test.go:8: x{380,400} [.]{3}\n(    m_test.go:9: more\n){12}"+
		"  example.org/m TestB\n    m_test.go:11: that\n\n0 passed, 2 failed, 0 skipped\n$", end)
}

func TestWhatDoesNotBuildOrEndIsAFailure(t *testing.T) {
	out, code := inModule(t, `func TestA(t *testing.T) { undefined() }`)
	assert.Contains(t, out, "undefined: undefined")
	assert.Contains(t, out, "example.org/m could not be tested")
	assert.Regexp(t, `\n0 passed, 1 failed, 0 skipped\n$`, out)
	assert.NotZero(t, code)

	out, code = inModule(t, `func TestA(t *testing.T) {}
func TestB(t *testing.T) { var m map[string]int; m["x"] = 1 }`)
	assert.Contains(t, out, "panic: assignment to entry in nil map")
	assert.Regexp(t, `\n1 passed, 1 failed, 0 skipped\n$`, out)
	assert.NotZero(t, code)
}

func TestARunWithoutTestsIsNoSuccess(t *testing.T) {
	out, code := inModule(t, `func TestA(t *testing.T) {}`, "-run", "NoSuch")
	assert.Contains(t, out, "no test was run")
	assert.NotZero(t, code)
}

func TestTheTestsOfAPackageAreSharedOutAmongProcesses(t *testing.T) {
	const source = `import "os"

var seen = map[string]bool{}

func alone(t *testing.T, other string) { seen[t.Name()] = true; if seen[other] { t.Error("in one process with", other) } }

func TestA(t *testing.T) { alone(t, "TestB") }
func TestB(t *testing.T) { alone(t, "TestA"); if os.Getenv("BREAK") != "" { var m map[string]int; m["x"] = 1 } }
func TestC(t *testing.T) { t.Skip("a moon") }
func TestD(t *testing.T) { t.Skip("a moon") }`
	out, code := inModule(t, source, "-split=2", "-count=1", "./.")
	assert.Equal(t, strings.Repeat("ok    example.org/m  TIME\n", 2)+"\nskipped:\n  example.org/m 2 tests: a moon\n\n2 passed, 0 failed, 2 skipped\n", out)
	assert.Zero(t, code)

	t.Setenv("BREAK", "1")
	out, code = inModule(t, source, "-split=2", "-count=1", "./.")
	assert.Contains(t, out, "panic: assignment to entry in nil map")
	assert.Regexp(t, `\n1 passed, 1 failed, 1 skipped\n$`, out)
	assert.Equal(t, 1, code)
}

func TestOtherPackagesAreTestedBesideOneThatIsSplit(t *testing.T) {
	out, code := inModule(t, `func TestA(t *testing.T) {}`, "-split=3", "./other")
	assert.Contains(t, out, "ok    example.org/m  TIME")
	assert.Regexp(t, `\n1 passed, 0 failed, 0 skipped\n$`, out)
	assert.Zero(t, code)

	out, code = inModule(t, `func TestA(t *testing.T) { undefined() }`, "-split=2", "./.")
	assert.Contains(t, out, "undefined: undefined")
	assert.NotZero(t, code)
}

func TestAWrongSplitIsRefused(t *testing.T) {
	for _, args := range [][]string{{"-split=none", "./..."}, {"-split=0", "./..."}, {"-split=2"}} {
		code, err := run(t.Context(), args, &bytes.Buffer{})
		assert.Error(t, err)
		assert.Equal(t, 2, code)
	}
}
