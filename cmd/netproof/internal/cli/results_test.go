package cli_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
	"github.com/netproof/netproof/harness/model"
)

// narrow takes so many bytes and no more, each time with an error of its own.
type narrow struct{ room, calls int }

func (n *narrow) Write(p []byte) (int, error) {
	n.calls++
	if len(p) > n.room {
		return 0, fmt.Errorf("call %d: full", n.calls)
	}
	n.room -= len(p)
	return len(p), nil
}

func TestTheFirstLostWriteIsRememberedAndNothingFollowsIt(t *testing.T) {
	out := &narrow{room: 3}
	streams := cli.Streams{Out: out}.Remembering()
	_, err := fmt.Fprint(streams.Out, "abc")
	require.NoError(t, err)
	require.NoError(t, streams.Lost())
	_, first := fmt.Fprint(streams.Out, "d")
	require.EqualError(t, first, "call 2: full")
	out.room = 100
	_, err = fmt.Fprint(streams.Out, "e")
	require.Equal(t, first, err)
	assert.EqualError(t, streams.Lost(), "the result is lost: standard output: call 2: full")

	assert.True(t, streams.IsLost(fmt.Errorf("write table: %w", err)))
	assert.True(t, streams.IsLost(errors.Join(err, first)))
	assert.False(t, streams.IsLost(errors.Join(err, errors.New("and something else"))), "that has to be said")
	assert.False(t, streams.IsLost(nil))
}

func TestALostResultIsNoSuccess(t *testing.T) {
	for code, want := range map[int]int{
		model.ExitOK: model.ExitInconclusive, model.ExitCleanupFailed: model.ExitInconclusive,
		model.ExitMismatch: model.ExitMismatch, model.ExitUsage: model.ExitUsage, model.ExitTimeout: model.ExitTimeout, 130: 130,
	} {
		assert.Equal(t, want, cli.Unwritten(code))
	}
}
