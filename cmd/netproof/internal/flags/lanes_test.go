package flags

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLanesAreANumberOrAuto(t *testing.T) {
	var l Lanes
	assert.Equal(t, "auto", l.String(), "the default")
	require.NoError(t, l.Set("3"))
	assert.Equal(t, "3", l.String())
	assert.Equal(t, 3, l.Count(Existing), "it was asked for")
	require.NoError(t, l.Set("auto"))
	assert.Equal(t, 1, l.Count(Existing), "others work there")
	for _, wrong := range []string{"0", "-1", "33", "two", "", "1.5", "AUTO"} {
		assert.ErrorContains(t, l.Set(wrong), "write auto, or a number from 1 to 32", wrong)
	}
}
