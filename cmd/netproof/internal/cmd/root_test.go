package cmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
	"github.com/netproof/netproof/harness/expect"
	"github.com/netproof/netproof/harness/scenario"
)

func TestEveryErrorHasItsExitCode(t *testing.T) {
	signalled, cancel := context.WithCancelCause(t.Context())
	cancel(&cli.SignalError{Signal: syscall.SIGINT})
	other := errors.New("other")
	for name, tc := range map[string]struct {
		ctx  context.Context
		err  error
		want int
	}{
		"none":                       {t.Context(), nil, 0},
		"a run that chose its code":  {t.Context(), cli.Ended(5), 5},
		"a wrong command line":       {t.Context(), cli.Usage("wrong"), 2},
		"a wrong file":               {t.Context(), fmt.Errorf("load: %w", scenario.Problems{{Message: "m"}}), 2},
		"a wrong table":              {t.Context(), errors.Join(&expect.Disagreement{}), 2},
		"nothing to do":              {t.Context(), fmt.Errorf("x: %w", scenario.ErrNothing), 5},
		"a time-out":                 {t.Context(), fmt.Errorf("x: %w", context.DeadlineExceeded), 4},
		"anything else":              {t.Context(), other, 3},
		"a signal":                   {signalled, other, 130},
		"a code chosen after signal": {signalled, cli.Ended(1), 1},
		"a signal, nothing wrong":    {signalled, nil, 0},
	} {
		assert.Equal(t, tc.want, exitCode(tc.ctx, tc.err), name)
	}
}

// Every command that a person can see says what it does and is a sentence of its own in the help.
func TestEveryCommandIsDescribed(t *testing.T) {
	var out bytes.Buffer
	root, _ := newRoot(cli.Streams{Out: &out, Err: &out, Getenv: func(string) string { return "" }})
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		require.NotEmpty(t, c.Short, c.CommandPath())
		assert.Regexp(t, `^[a-z].*[^.]$`, c.Short, c.CommandPath())
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(root)
}
