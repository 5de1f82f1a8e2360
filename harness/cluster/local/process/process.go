//go:build linux

package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// tailLines is how much of a log an error quotes.
	tailLines = 12
	// A program may ask to be started again this often within restartWindow; beyond that it is taken for broken.
	maxRestarts   = 10
	restartWindow = time.Minute
)

// Command is a program to run for as long as the cluster lives.
type Command struct {
	// Name is what errors and the log file call it, such as kube-apiserver or node-1/felix.
	Name string
	Path string
	Args []string
	// Env is the whole environment, as KEY=VALUE.
	Env []string
	// RestartOn lists exit codes by which the program asks to be started again.
	RestartOn []int
	// Nice is added to the scheduling priority: a program with a higher value waits for the others.
	Nice int
}

// DeathError says that a process ended that nobody had asked to.
type DeathError struct {
	Name   string
	At     time.Time
	Status string
	// Tail is the end of its log.
	Tail string
}

func (e *DeathError) Error() string {
	msg := fmt.Sprintf("%s ended unexpectedly at %s: %s", e.Name, e.At.Format("15:04:05.000"), e.Status)
	if e.Tail != "" {
		msg += "; the end of its log:\n" + indent(e.Tail)
	}
	return msg
}

func indent(s string) string { return "    " + strings.ReplaceAll(s, "\n", "\n    ") }

// Event is something that happened to a process.
type Event struct {
	At      time.Time
	Process string
	// What is started, restarted, stopped or died.
	What   string
	Detail string
}

// Group is a set of processes that live and fall together.
type Group struct {
	logDir string

	mu        sync.Mutex
	processes []*Process
	events    []Event
	deaths    []error
	failed    chan struct{}
}

// NewGroup makes an empty group whose logs go to logDir.
func NewGroup(logDir string) (*Group, error) {
	if err := os.MkdirAll(logDir, 0o755); err != nil {
		return nil, fmt.Errorf("make log folder: %w", err)
	}
	return &Group{logDir: logDir, failed: make(chan struct{})}, nil
}

// Failed is closed when the first process dies unasked.
func (g *Group) Failed() <-chan struct{} { return g.failed }

// Err returns every unasked death so far, as [DeathError]s joined, or nil.
func (g *Group) Err() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return errors.Join(g.deaths...)
}

// Events returns what has happened so far, oldest first.
func (g *Group) Events() []Event {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.events)
}

// Processes returns those that were started, in that order, including those that have ended.
func (g *Group) Processes() []*Process {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.processes)
}

func (g *Group) record(p *Process, what, detail string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.events = append(g.events, Event{At: time.Now(), Process: p.cmd.Name, What: what, Detail: detail})
}

func (g *Group) recordDeath(err *DeathError) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.events = append(g.events, Event{At: err.At, Process: err.Name, What: "died", Detail: err.Status})
	if len(g.deaths) == 0 {
		close(g.failed)
	}
	g.deaths = append(g.deaths, err)
}

// Stop ends every process, the youngest first, each in its own time up to grace, after which it is killed.
func (g *Group) Stop(grace time.Duration) {
	processes := g.Processes()
	for _, p := range slices.Backward(processes) {
		p.Stop(grace)
	}
}

// Kill ends every process at once.
func (g *Group) Kill() {
	processes := g.Processes()
	for _, p := range processes {
		p.markStopping()
		p.signal(unix.SIGKILL)
	}
	for _, p := range processes {
		<-p.done
	}
}

// Process is one running program, across its restarts.
type Process struct {
	group  *Group
	cmd    Command
	thread *Thread
	log    *logFile
	done   chan struct{}

	mu       sync.Mutex
	child    *exec.Cmd
	stopping bool
	restarts []time.Time
	// end is how it ended for good, asked for or not.
	end *DeathError
}

// Start starts a program from thread, in the thread's namespaces. It dies with the thread.
func (g *Group) Start(thread *Thread, cmd Command) (*Process, error) {
	path := filepath.Join(g.logDir, cmd.Name+".log")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("start %s: make log folder: %w", cmd.Name, err)
	}
	log, err := openLog(path)
	if err != nil {
		return nil, fmt.Errorf("start %s: open log: %w", cmd.Name, err)
	}
	p := &Process{group: g, cmd: cmd, thread: thread, log: log, done: make(chan struct{})}
	if err := p.spawn(); err != nil {
		log.Close()
		return nil, err
	}
	g.mu.Lock()
	g.processes = append(g.processes, p)
	g.mu.Unlock()
	g.record(p, "started", "")
	go p.watch()
	return p, nil
}

// spawn starts the child once. The caller makes sure that no other child of p runs.
func (p *Process) spawn() error {
	child := exec.Command(p.cmd.Path, p.cmd.Args...)
	child.Env = p.cmd.Env
	child.Stdout = p.log
	child.Stderr = p.log
	// A program that left children behind must not keep Wait from returning.
	child.WaitDelay = time.Second
	child.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopping {
		return fmt.Errorf("start %s: it was stopped", p.cmd.Name)
	}
	if err := p.thread.Do(child.Start); err != nil {
		return fmt.Errorf("start %s: %w", p.cmd.Name, err)
	}
	if p.cmd.Nice != 0 {
		// Only a matter of speed: a system that refuses runs it at the common priority.
		_ = unix.Setpriority(unix.PRIO_PROCESS, child.Process.Pid, p.cmd.Nice)
	}
	p.child = child
	return nil
}

func (p *Process) watch() {
	defer close(p.done)
	defer p.log.Close()
	for {
		err := p.child.Wait()
		state := p.child.ProcessState
		status := "exit status unknown"
		code := -1
		if state != nil {
			status, code = state.String(), state.ExitCode()
		} else if err != nil {
			status = err.Error()
		}
		if p.isStopping() {
			p.setEnd(status)
			p.group.record(p, "stopped", status)
			return
		}
		if slices.Contains(p.cmd.RestartOn, code) && p.mayRestart() {
			err := p.spawn()
			if err == nil {
				p.group.record(p, "restarted", status)
				continue
			}
			status += ", and could not be started again: " + err.Error()
		}
		p.setEnd(status)
		p.group.recordDeath(p.end)
		return
	}
}

func (p *Process) setEnd(status string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end = &DeathError{Name: p.cmd.Name, At: time.Now(), Status: status, Tail: p.log.Tail(tailLines)}
}

func (p *Process) isStopping() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stopping
}

func (p *Process) mayRestart() bool {
	now := time.Now()
	p.restarts = slices.DeleteFunc(p.restarts, func(t time.Time) bool { return now.Sub(t) > restartWindow })
	if len(p.restarts) >= maxRestarts {
		return false
	}
	p.restarts = append(p.restarts, now)
	return true
}

// Name is the name it was started under.
func (p *Process) Name() string { return p.cmd.Name }

// PID is the process id of the present child, or of the last one.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.child.Process.Pid
}

// Done is closed when it has ended for good.
func (p *Process) Done() <-chan struct{} { return p.done }

// Tail returns the last lines of its output.
func (p *Process) Tail(lines int) string { return p.log.Tail(lines) }

// Alive tells whether it runs.
func (p *Process) Alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

func (p *Process) markStopping() {
	p.mu.Lock()
	p.stopping = true
	p.mu.Unlock()
}

func (p *Process) signal(sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	// os.Process knows whether it has been waited for, so the signal never reaches another process with the same id.
	_ = p.child.Process.Signal(sig)
}

// Kill kills it, as a fault for tests: the death counts as unexpected.
func (p *Process) Kill() { p.signal(unix.SIGKILL) }

// Stop asks it to end, waits up to grace, and kills it then. The death is not recorded as unexpected.
func (p *Process) Stop(grace time.Duration) {
	p.markStopping()
	p.signal(unix.SIGTERM)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
		return
	case <-timer.C:
	}
	p.signal(unix.SIGKILL)
	<-p.done
}

// Watch returns a [*DeathError] as soon as it has ended, and ctx's error when that comes first. It tells a start-up
// that polls a program's health that there is nothing left to wait for.
func (p *Process) Watch(ctx context.Context) error {
	select {
	case <-p.done:
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.end
	case <-ctx.Done():
		return ctx.Err()
	}
}
