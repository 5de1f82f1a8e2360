package stage

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/netproof/netproof/harness/run/sampling"
)

// A node that is stuck admits for ever what it admitted last, and must never be taken for one that has followed.
func TestTheBarrierUsesNoPortThatAStuckNodeMayAdmit(t *testing.T) {
	c := &Canary{ports: []int{canaryTurn}}
	for range canaryTurns - 1 {
		c.turn++
		port, ok := c.freePort()
		assert.True(t, ok)
		assert.NotContains(t, c.ports, port)
		c.ports = append(c.ports, port)
	}
	c.turn++
	_, ok := c.freePort()
	assert.False(t, ok, "with no port left nothing can be confirmed")
	_, err := c.Barrier(t.Context(), sampling.Rhythm{})
	assert.ErrorIs(t, err, sampling.ErrNotConfirmed)
}
