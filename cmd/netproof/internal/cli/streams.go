package cli

import (
	"io"
	"os"
	"strconv"

	"golang.org/x/term"
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
