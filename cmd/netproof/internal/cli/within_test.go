package cli_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
)

func TestWithinGivesTheResultOfWorkThatEndsInTime(t *testing.T) {
	got, err := cli.Within(t.Context(), func() (int, error) { return 7, nil })
	require.NoError(t, err)
	assert.Equal(t, 7, got)
	wrong := errors.New("wrong")
	_, err = cli.Within(t.Context(), func() (int, error) { return 0, wrong })
	assert.Equal(t, wrong, err)
}

func TestWithinWaitsNoLongerThanItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	over := errors.New("over")
	stuck := make(chan struct{})
	defer close(stuck)
	_, err := cli.Within(ctx, func() (int, error) {
		cancel(over)
		<-stuck
		return 0, nil
	})
	assert.Equal(t, over, err)
}
