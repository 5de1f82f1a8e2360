package check

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestFreeSpaceIsThatOfTheNearestFolderThatExists(t *testing.T) {
	dir := t.TempDir()
	have, err := FreeBytes(dir)
	require.NoError(t, err)
	below, err := FreeBytes(filepath.Join(dir, "not", "yet", "made"))
	require.NoError(t, err)
	assert.NotZero(t, have)
	assert.InDelta(t, float64(have), float64(below), GiB)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	_, err = FreeBytes(filepath.Join(dir, "file", "below"))
	require.ErrorContains(t, err, dir, "what is below a file is nowhere")
}

func TestTheKernelTellsItsRelease(t *testing.T) {
	version, err := os.ReadFile("/proc/sys/kernel/osrelease")
	require.NoError(t, err)
	assert.Equal(t, strings.TrimSpace(string(version)), KernelRelease())
}
