package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"github.com/netproof/netproof/harness/cluster/kind/inherit"
)

// The engines that kind works with and netproof has been made for.
const (
	Docker = "docker"
	Podman = "podman"
)

// changeTimeout bounds a command that changes the engine's state. Removing the containers of a large cluster takes the
// longest.
const changeTimeout = 90 * time.Second

// Engine is a container engine that is called by its command line.
type Engine struct {
	// Name is Docker or Podman, which is also the name of the program.
	Name string
	// Held is kept open by every command that changes something, if it is not nil: whoever holds the other end of a
	// pipe sees when no such command is running any more.
	Held *os.File
}

// Error is a command of the engine that failed.
type Error struct {
	// Args are the command's, without the program.
	Args []string
	// Program is what was called.
	Program string
	// Output is what the command wrote to its standard error, and for commands whose output is of no other use, to its
	// standard output.
	Output string
	Err    error
}

func (e *Error) Error() string {
	args := e.Args
	if len(args) > 3 {
		args = append(append([]string{}, args[:3]...), "...")
	}
	text := e.Program + " " + strings.Join(args, " ") + ": "
	if e.Output == "" {
		return text + e.Err.Error()
	}
	return text + LastLines(e.Output, 5)
}

// Unwrap gives what the program's execution failed with.
func (e *Error) Unwrap() error { return e.Err }

// LastLines cuts a text to its last lines: that is where programs say why they end.
func LastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// Command is an engine command that has not been started. It is in a process group of its own, so that an interrupt
// from the terminal is the caller's business.
func (e *Engine) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, e.Name, args...)
	inherit.OwnGroup(cmd)
	// After the program ended nobody writes any more who matters.
	cmd.WaitDelay = time.Second
	return cmd
}

// Output runs a command that only asks, and gives its standard output. It ends with ctx.
func (e *Engine) Output(ctx context.Context, args ...string) (string, error) {
	var out, errs bytes.Buffer
	cmd := e.Command(ctx, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return out.String(), &Error{Program: e.Name, Args: args, Output: strings.TrimSpace(errs.String()), Err: err}
	}
	return out.String(), nil
}

// Lines is Output cut into its lines that are not empty.
func (e *Engine) Lines(ctx context.Context, args ...string) ([]string, error) {
	out, err := e.Output(ctx, args...)
	var lines []string
	for line := range strings.Lines(out) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines, err
}

// Change runs a command that changes something. It goes on when ctx ends, for a bounded time: a program that is killed
// in the middle leaves nobody who knows what the engine still does. Stdin may be nil.
func (e *Engine) Change(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	if ctx.Err() != nil {
		return "", &Error{Program: e.Name, Args: args, Err: context.Cause(ctx)}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), changeTimeout)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := e.Command(ctx, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &errs
	if e.Held != nil {
		inherit.Files(cmd, e.Held)
	}
	err := cmd.Run()
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("no end after %s: %w", changeTimeout, err)
	}
	if err != nil {
		return out.String(), &Error{Program: e.Name, Args: args, Output: strings.TrimSpace(errs.String() + "\n" + out.String()), Err: err}
	}
	return out.String(), nil
}

// OutputOf gives what the command behind an error wrote, or the text of the error.
func OutputOf(err error) string {
	if e, ok := errors.AsType[*Error](err); ok && e.Output != "" {
		return e.Output
	}
	if err == nil {
		return ""
	}
	return err.Error()
}

// IsGone tells whether an error says that what a command was to act on does not exist, or is already on its way.
func IsGone(err error) bool {
	return gone.MatchString(OutputOf(err))
}

// gone matches what Docker 20.10 to 28 and Podman say of a container, network, image or volume that is not there, and
// Docker of a container that another command is removing.
var gone = regexp.MustCompile(`(?i)no such (container|network|image|object|volume)|network \S+ not found|` +
	`no container with name or id|unable to find network|image not known|removal of container \S+ is already in progress`)
