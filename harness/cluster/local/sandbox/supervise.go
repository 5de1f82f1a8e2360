//go:build linux

package sandbox

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// forwarded are the signals by which a person or a program asks another to end.
var forwarded = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT}

// signalWatch receives the forwarded signals instead of the process dying of them.
type signalWatch struct{ c chan os.Signal }

func watchSignals() signalWatch {
	w := signalWatch{c: make(chan os.Signal, 8)}
	for _, s := range forwarded {
		// One that was ignored from the start, as by nohup, stays so.
		if !signal.Ignored(s) {
			signal.Notify(w.c, s)
		}
	}
	return w
}

func (w signalWatch) stop() { signal.Stop(w.c) }

// connectOutput gives cmd the command's standard output and error.
func connectOutput(cmd *exec.Cmd, c *Command) {
	cmd.Stdout, cmd.Stderr = c.Stdout, c.Stderr
	if cmd.Stdout == nil {
		cmd.Stdout = os.Stdout
	}
	if cmd.Stderr == nil {
		cmd.Stderr = os.Stderr
	}
}

// connectInput gives cmd the command's standard input.
func connectInput(cmd *exec.Cmd, c *Command) {
	in := c.Stdin
	if in == nil {
		in = os.Stdin
	}
	if f, ok := in.(*os.File); ok && !isTerminal(f) {
		cmd.Stdin = f
		return
	}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return // StdinPipe fails only when Stdin is set already
	}
	// os/exec would wait for the copy to end, and a read from a terminal may never do so.
	go func() {
		_, _ = io.Copy(pipe, in) // the command need not read all, or at all
		_ = pipe.Close()
	}()
}

// isTerminal tells whether f is one.
func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// ending is how a supervised command came to its end.
type ending struct {
	code int
	err  error
	// asked is true when the command was asked to end.
	asked bool
}

// supervise waits for cmd, which was started by this goroutine, and hands signals to the process target meanwhile.
func supervise(ctx context.Context, cmd *exec.Cmd, c *Command, signals signalWatch, target *os.Process, started <-chan struct{}) ending {
	// Copies of the output end with the last process that holds it; all of them die with the sandbox.
	cmd.WaitDelay = c.grace()
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()

	var (
		end    ending
		first  syscall.Signal // the first signal received
		killed syscall.Signal // the signal on whose account the command was killed
		cause  error
		budget <-chan time.Time
		ended  = ctx.Done()
	)
	ask := func(s syscall.Signal) {
		end.asked = true
		budget = time.After(c.grace())
		_ = target.Signal(s) // it may be gone already
	}
	kill := func() {
		_ = target.Kill()
		_ = cmd.Process.Kill()
	}
	for {
		select {
		case <-started:
			started = nil
			if c.Started != nil {
				c.Started(target.Pid)
			}
		case s := <-signals.c:
			sig, _ := s.(syscall.Signal)
			switch {
			case first != 0:
				killed = sig
				kill()
			case end.asked: // by ctx, which may well have ended because of this very signal
				first = sig
			default:
				first = sig
				ask(sig)
			}
		case <-ended:
			ended = nil
			if !end.asked {
				ask(syscall.SIGTERM)
			}
		case <-budget:
			killed = first
			if first == 0 {
				cause = context.Cause(ctx)
			}
			kill()
		case err := <-done:
			end.code, end.err = exitCode(cmd.ProcessState, err)
			if killed != 0 {
				end.code = 128 + int(killed)
			}
			if cause != nil {
				end.err = cause
			}
			return end
		}
	}
}

// exitCode renders how a process ended the way a shell does.
func exitCode(state *os.ProcessState, err error) (int, error) {
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return state.ExitCode(), nil
}
