package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/netproof/netproof/harness/model"
)

// UsageError says that the command line, or a file that it names, is wrong, and that nothing was done.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap gives the error itself.
func (e *UsageError) Unwrap() error { return e.Err }

// Usage makes a usage error.
func Usage(format string, args ...any) error { return &UsageError{fmt.Errorf(format, args...)} }

// EndedError is the end of a command that has said all there is to say, and leaves with a code.
type EndedError struct{ Code int }

func (e *EndedError) Error() string { return fmt.Sprintf("ended with exit code %d", e.Code) }

// Ended gives nil for code 0.
func Ended(code int) error {
	if code == model.ExitOK {
		return nil
	}
	return &EndedError{code}
}

// SignalError is the cause of a context that a signal has ended.
type SignalError struct{ Signal syscall.Signal }

func (e *SignalError) Error() string { return "ended by signal: " + e.Signal.String() }

// Is makes a signal count as a cancellation.
func (e *SignalError) Is(target error) bool { return target == context.Canceled }

// WithSignals gives a context that the first SIGINT, SIGTERM, SIGHUP or SIGQUIT ends, with a [SignalError] as its
// cause. A second one ends the process at once, as it would have without this. A reader of our output that goes away
// ends nothing: the write fails, and whoever wrote cleans up.
func WithSignals(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	// Nobody receives it, which is enough. Unlike an ignored signal, programs that we start do not inherit it.
	gone := make(chan os.Signal, 1)
	signal.Notify(gone, syscall.SIGPIPE)
	go func() {
		select {
		case s := <-signals:
			signal.Stop(signals)
			number, _ := s.(syscall.Signal)
			cancel(&SignalError{number})
		case <-ctx.Done():
			signal.Stop(signals)
		}
	}()
	return ctx, func() { cancel(context.Canceled) }
}

// SignalOf gives the signal that ended ctx, 0 if none did.
func SignalOf(ctx context.Context) syscall.Signal {
	var s *SignalError
	if errors.As(context.Cause(ctx), &s) {
		return s.Signal
	}
	return 0
}
