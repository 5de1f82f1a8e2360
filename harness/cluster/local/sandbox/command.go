package sandbox

import (
	"io"
	"os"
	"time"
)

// DefaultGrace is how long a command may take to end after it was asked to.
const DefaultGrace = 10 * time.Second

// Command is what to run in a sandbox. Its zero value is the current program with its arguments, environment and
// standard streams.
type Command struct {
	// Args are the arguments with the program's name first; nil means os.Args.
	Args []string
	// Env is the environment; nil means os.Environ().
	Env []string
	// Dir is the working directory; empty means the current one.
	Dir string
	// Stdin, Stdout and Stderr are the standard streams; nil means those of this process. A terminal as Stdin is copied
	// through a pipe, since a process in the background may not read it.
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	// ExtraFiles become the descriptors 3, 4, and so on.
	ExtraFiles []*os.File
	// Grace is how long the command may go on after it was asked to end; zero means [DefaultGrace].
	Grace time.Duration
	// Started is called once the command runs, with the id, as this process sees it, of the sandbox's PID 1, or of the
	// command if it is in [Enter]. It may be nil.
	Started func(pid int)
}

// EnterOptions say how a command runs in a sandbox that exists.
type EnterOptions struct {
	// Program is run instead of the current one, with the arguments that follow; it is looked up in PATH inside.
	// Command.Args is not used then.
	Program []string
	// Terminal gives the command the terminal that is its Stdin, as a shell needs it. It has no effect if that is none.
	Terminal bool
}

// TempDir is where TMPDIR points to inside a sandbox. It is on a tmpfs of the sandbox and has mode 0700.
const TempDir = "/run/netproof/tmp"
