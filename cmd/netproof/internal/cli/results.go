package cli

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/plain"
)

// results is standard output. It remembers the first write that did not succeed, and writes nothing after it.
type results struct {
	w io.Writer
	// writing is held by who writes, which may block for as long as nobody reads. Who asks for the error does not wait.
	writing sync.Mutex

	mu  sync.Mutex
	err error
}

var _ io.Writer = (*results)(nil)

func (r *results) Write(p []byte) (int, error) {
	r.writing.Lock()
	defer r.writing.Unlock()
	if err := r.lost(); err != nil {
		return 0, err
	}
	n, err := r.w.Write(p)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
	return n, err
}

func (r *results) lost() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// Remembering gives the same streams, with an Out for which [Streams.Lost] knows whether all was written. Commands may
// then write to Out without a look at the error.
func (s Streams) Remembering() Streams {
	s.Out = &results{w: s.Out}
	return s
}

// Lost gives the error of the first write to Out that did not succeed, nil if there was none.
func (s Streams) Lost() error {
	r, ok := plain.Unwrap(s.Out).(*results)
	if !ok {
		return nil
	}
	switch err := r.lost(); {
	case err == nil:
		return nil
	case errors.Is(err, syscall.EBADF):
		return errors.New("the result is lost: standard output is closed: give it a file, or name one with --output where a command has that")
	default:
		return fmt.Errorf("the result is lost: standard output: %w", err)
	}
}

// IsLost tells whether err says nothing but what [Streams.Lost] says.
func (s Streams) IsLost(err error) bool {
	r, ok := plain.Unwrap(s.Out).(*results)
	if !ok {
		return false
	}
	lost := r.lost()
	return lost != nil && isOnly(err, lost)
}

// isOnly tells whether nothing but that error is wrapped in err, or joined there.
func isOnly(err, that error) bool {
	if err == that { //nolint:errorlint // this very error, not one like it
		return true
	}
	switch e := err.(type) { //nolint:errorlint // the links of the chain are what is looked at
	case interface{ Unwrap() error }:
		return isOnly(e.Unwrap(), that)
	case interface{ Unwrap() []error }:
		for _, joined := range e.Unwrap() {
			if !isOnly(joined, that) {
				return false
			}
		}
		return true
	}
	return false
}

// Direct is Out for a program that is started: a terminal has to stay one.
func (s Streams) Direct() io.Writer {
	if r, ok := plain.Unwrap(s.Out).(*results); ok {
		return r.w
	}
	return s.Out
}

// Unwritten is the exit code of a command that would have ended with code, but whose result could not be written: a
// result that nobody can read proves nothing.
func Unwritten(code int) int {
	if code == model.ExitOK || code == model.ExitCleanupFailed {
		return model.ExitInconclusive
	}
	return code
}
