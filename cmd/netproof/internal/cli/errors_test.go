package cli_test

import (
	"context"
	"errors"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
)

func TestTheFirstSignalEndsTheContextAndSaysWhichItWas(t *testing.T) {
	ctx, stop := cli.WithSignals(t.Context())
	defer stop()
	assert.Zero(t, cli.SignalOf(ctx))
	self, err := os.FindProcess(os.Getpid())
	require.NoError(t, err)
	defer func() { assert.NoError(t, self.Release()) }()
	require.NoError(t, self.Signal(syscall.SIGTERM))
	<-ctx.Done()
	assert.Equal(t, syscall.SIGTERM, cli.SignalOf(ctx))
	assert.ErrorIs(t, context.Cause(ctx), context.Canceled)
	assert.EqualError(t, context.Cause(ctx), "ended by signal: terminated")
}

func TestStoppingIsNoSignal(t *testing.T) {
	ctx, stop := cli.WithSignals(t.Context())
	stop()
	<-ctx.Done()
	assert.Zero(t, cli.SignalOf(ctx))
}

func TestErrorsOfUseKeepWhatIsBehindThem(t *testing.T) {
	behind := errors.New("behind")
	err := cli.Usage("flag: %w", behind)
	assert.ErrorIs(t, err, behind)
	var usage *cli.UsageError
	assert.ErrorAs(t, err, &usage)
	assert.NoError(t, cli.Ended(0))
	assert.EqualError(t, cli.Ended(3), "ended with exit code 3")
}
