package stage

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestNobodyIsLookedForWhereNobodyElseIs(t *testing.T) {
	s := &Stage{} // it could not even ask
	why, err := s.Joined(t.Context())
	require.NoError(t, err)
	assert.Empty(t, why)
}
