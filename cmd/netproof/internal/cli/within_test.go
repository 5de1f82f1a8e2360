package cli_test

import (
	"bytes"
	"context"
	"errors"
	"io"
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

// stuck is a writer that takes nothing until it is let go, as a pipe that nobody reads from.
type stuck struct{ begun, end chan struct{} }

func (s stuck) Write(p []byte) (int, error) {
	close(s.begun)
	<-s.end
	return len(p), nil
}

func TestWritingWithinPassesOnAllAndEveryError(t *testing.T) {
	var out bytes.Buffer
	want := bytes.Repeat([]byte("netproof"), 1<<18)
	require.NoError(t, cli.WriteWithin(t.Context(), &out, func(w io.Writer) error {
		_, err := w.Write(want)
		return err
	}))
	assert.Equal(t, want, out.Bytes())

	wrong := errors.New("wrong")
	assert.Equal(t, wrong, cli.WriteWithin(t.Context(), &out, func(io.Writer) error { return wrong }))
	// The file that is written to is full.
	err := cli.WriteWithin(t.Context(), fails{wrong}, func(w io.Writer) error {
		_, err := w.Write(want)
		return err
	})
	assert.ErrorIs(t, err, wrong)
	// The last write is the one that does not succeed.
	err = cli.WriteWithin(t.Context(), fails{wrong}, func(w io.Writer) error {
		_, _ = w.Write([]byte("x"))
		return nil
	})
	assert.ErrorIs(t, err, wrong)
}

type fails struct{ err error }

func (f fails) Write([]byte) (int, error) { return 0, f.err }

func TestWritingWithinEndsWithItsContextAlsoWhereNobodyReads(t *testing.T) {
	for name, size := range map[string]int{"a large piece": 1 << 20, "the last piece": 1} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			over := errors.New("over")
			s := stuck{make(chan struct{}), make(chan struct{})}
			defer close(s.end)
			go func() {
				<-s.begun
				cancel(over)
			}()
			err := cli.WriteWithin(ctx, s, func(w io.Writer) error {
				_, err := w.Write(make([]byte, size))
				for err == nil && size > 1 {
					_, err = w.Write(make([]byte, size))
				}
				return err
			})
			assert.Equal(t, over, err)
		})
	}
}

// A command that a signal has ended asks whether its result was lost, while the last write is still on its way.
func TestWhatIsLostIsToldWhileAWriteBlocks(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	over := errors.New("over")
	s := stuck{make(chan struct{}), make(chan struct{})}
	defer close(s.end)
	streams := cli.Streams{Out: s}.Remembering()
	go func() {
		<-s.begun
		cancel(over)
	}()
	err := cli.WriteWithin(ctx, streams.Out, func(w io.Writer) error {
		_, err := w.Write([]byte("x"))
		return err
	})
	require.Equal(t, over, err)
	require.NoError(t, streams.Lost())
	assert.False(t, streams.IsLost(err))
}
