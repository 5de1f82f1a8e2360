package cli

import (
	"io"
	"os"
	"strconv"

	"golang.org/x/term"

	"github.com/netproof/netproof/harness/plain"
	"github.com/netproof/netproof/harness/writefile"
)

// Streams are all that a command may read from and write to, its environment included. Results go to Out, progress and
// errors to Err.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
	Getenv   func(string) string
	// OutTerminal and ErrTerminal say what Out and Err are.
	OutTerminal, ErrTerminal Terminal
}

// Terminal describes what is behind a stream.
type Terminal struct {
	// Is is false for files and pipes.
	Is bool
	// Columns is the width, 0 if it is not known.
	Columns int
}

// Plain gives the same streams behind a last door, which lets no control character, no foreign escape sequence and no
// command to a CI system through. Messages make foreign text plain where they are put together; this is for what one of
// them forgot.
func (s Streams) Plain() Streams {
	force := s.Getenv("CLICOLOR_FORCE")
	forced := force != "" && force != "0"
	s.Out = plain.NewWriter(s.Out, s.OutTerminal.Is || forced)
	s.Err = plain.NewWriter(s.Err, s.ErrTerminal.Is || forced)
	return s
}

// Raw gives the streams without that door: for a program of the user's, and for what another program reads byte by
// byte.
func (s Streams) Raw() Streams {
	s.Out, s.Err = plain.Unwrap(s.Out), plain.Unwrap(s.Err)
	return s
}

// IsOut tells whether a path names standard output.
func IsOut(path string) bool {
	fd, ok := writefile.Descriptor(path)
	return ok && fd == 1
}

// Beside is the stream for what is said of a result that is written to a path: Out, unless that is where the result
// goes.
func (s Streams) Beside(path string) io.Writer {
	if IsOut(path) {
		return s.Err
	}
	return s.Out
}

// System gives the streams of the process.
func System() Streams {
	return Streams{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv,
		OutTerminal: terminalOf(os.Stdout), ErrTerminal: terminalOf(os.Stderr),
	}
}

func terminalOf(f *os.File) Terminal {
	t := Terminal{Is: term.IsTerminal(int(f.Fd()))}
	if columns, _, err := term.GetSize(int(f.Fd())); t.Is && err == nil {
		t.Columns = columns
	}
	// A user, or a CI system, may say how wide a line may be where there is no terminal to ask.
	if columns, err := strconv.Atoi(os.Getenv("COLUMNS")); t.Columns == 0 && err == nil && columns > 0 {
		t.Columns = columns
	}
	return t
}
