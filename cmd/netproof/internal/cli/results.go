package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/plain"
)

// results is standard output. It remembers the first write that did not succeed, and writes nothing after it.
type results struct {
	w io.Writer

	mu  sync.Mutex
	err error
}

var _ io.Writer = (*results)(nil)

func (r *results) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return 0, r.err
	}
	var n int
	n, r.err = r.w.Write(p)
	return n, r.err
}

// Remembering gives the same streams, with an Out for which [Streams.Lost] knows whether all was written. Commands may then
// write to Out without a look at the error.
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
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.err == nil:
		return nil
	case errors.Is(r.err, unix.EBADF):
		return errors.New("the result is lost: standard output is closed: give it a file, or name one with --output where a command has that")
	}
	return fmt.Errorf("the result is lost: standard output: %w", r.err)
}

// IsLost tells whether err says nothing but what [Streams.Lost] says.
func (s Streams) IsLost(err error) bool {
	r, ok := plain.Unwrap(s.Out).(*results)
	if !ok {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err != nil && isOnly(err, r.err)
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

// Unwritten is the exit code of a command that would have ended with code, but whose result could not be written: a result that
// nobody can read proves nothing.
func Unwritten(code int) int {
	if code == model.ExitOK || code == model.ExitCleanupFailed {
		return model.ExitInconclusive
	}
	return code
}

// KeepClosed makes writes to standard output fail if it was closed when the program was started. main calls it before all else.
//
// The Go runtime opens /dev/null for reading and writing in place of a closed descriptor, so that no file gets its number. But then a result
// is lost without an error. A shell's > /dev/null opens it for writing only, and a program that detaches from its terminal opens it
// once for several descriptors: both are what somebody wants, and stay as they are. A program that opens /dev/null for reading
// and writing as standard output alone, as Python's subprocess.DEVNULL does, cannot be told from a closed one.
func KeepClosed() error {
	const out = 1
	var st unix.Stat_t
	flags, err := unix.FcntlInt(out, unix.F_GETFL, 0)
	if err != nil || flags&unix.O_ACCMODE != unix.O_RDWR || unix.Fstat(out, &st) != nil ||
		st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(1, 3) {
		return nil
	}
	for _, other := range []int{0, 2} {
		if sharesFile(out, other) {
			return nil
		}
	}
	// What is open for reading only fails as a closed descriptor does.
	null, err := os.Open(os.DevNull)
	if err != nil {
		return fmt.Errorf("close standard output: %w", err)
	}
	defer null.Close()
	if err := unix.Dup3(int(null.Fd()), out, 0); err != nil {
		return fmt.Errorf("close standard output: %w", err)
	}
	return nil
}

// sharesFile tells whether two descriptors came from one opening of a file: then they share its flags.
func sharesFile(a, b int) bool {
	flags, err := unix.FcntlInt(uintptr(a), unix.F_GETFL, 0)
	if err != nil {
		return false
	}
	before, err := unix.FcntlInt(uintptr(b), unix.F_GETFL, 0)
	if err != nil {
		return false
	}
	if _, err := unix.FcntlInt(uintptr(a), unix.F_SETFL, flags^unix.O_APPEND); err != nil {
		return false
	}
	after, err := unix.FcntlInt(uintptr(b), unix.F_GETFL, 0)
	_, restoreErr := unix.FcntlInt(uintptr(a), unix.F_SETFL, flags)
	return err == nil && restoreErr == nil && before != after
}
