//go:build linux

package sandbox_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/cluster/local/sandbox"
)

// TestOfASandboxedBinary is run by the tests below, in a binary whose TestMain is sandbox.Main.
func TestOfASandboxedBinary(t *testing.T) {
	if os.Getenv(envDo) != "tests" {
		assert.False(t, sandbox.Inside())
		return
	}
	t.Run("passes", func(t *testing.T) { assert.True(t, sandbox.Inside()) })
	t.Run("has a temporary folder", func(t *testing.T) { assert.Contains(t, t.TempDir(), sandbox.TempDir) })
	t.Run("fails", func(t *testing.T) { t.Error("on purpose") })
	t.Run("hangs", func(t *testing.T) { <-t.Context().Done() })
}

func TestTheFlagsOfGoTestWork(t *testing.T) {
	eachUser(t, func(t *testing.T, u account) {
		run := func(flags ...string) (int, string) {
			p := prepare(t, u, "tests")
			p.Args = append([]string{p.Path}, flags...)
			var out bytes.Buffer
			p.Stdout = &out
			_ = p.Run()
			nothingLeft(t, p.mark, nil)
			return p.ProcessState.ExitCode(), out.String() + p.stderr.String()
		}
		profile := filepath.Join(filepath.Dir(binary), "profile-"+u.name)
		require.NoError(t, os.WriteFile(profile, nil, 0o666))
		require.NoError(t, os.Chmod(profile, 0o666))

		code, out := run("-test.v", "-test.run=SandboxedBinary/(pass|has)", "-test.memprofile="+profile)
		assert.Equal(t, 0, code, out)
		assert.Contains(t, out, "--- PASS: TestOfASandboxedBinary/passes")
		assert.Contains(t, out, "--- PASS: TestOfASandboxedBinary/has_a_temporary_folder")
		written, err := os.Stat(profile)
		require.NoError(t, err)
		assert.NotZero(t, written.Size(), "files of a test are the machine's")

		code, out = run("-test.run=SandboxedBinary/fails")
		assert.Equal(t, 1, code)
		assert.Contains(t, out, "on purpose")

		code, out = run("-test.run=SandboxedBinary/hangs", "-test.timeout=100ms")
		assert.Equal(t, 2, code)
		assert.Contains(t, out, "test timed out after 100ms")
	})
}
