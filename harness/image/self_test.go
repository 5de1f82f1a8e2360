package image

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestProbePodsCannotRunWhatIsNotForLinux(t *testing.T) {
	path, err := running("linux")
	require.NoError(t, err)
	assert.Regexp(t, `^/proc/\d+/exe$`, path)

	_, err = running("darwin")
	require.ErrorIs(t, err, ErrNotLinux)
	assert.ErrorContains(t, err, "for darwin")
	assert.ErrorContains(t, err, "--executable")
	assert.ErrorContains(t, err, HowToBuild)
}
