package named

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

var (
	// ErrExists is matched by the error of [Create] when the name is taken.
	ErrExists = errors.New("name is taken")
	// ErrNotFound is matched by errors about a name that nothing runs under.
	ErrNotFound = errors.New("not found")
	// ErrNotReady is matched by the error of [Enter] when the sandbox is being created or deleted.
	ErrNotReady = errors.New("not ready")
)

// HeldError says that another user holds the socket of a name, so that it cannot be used. Errors of all functions that
// take a name match it.
type HeldError struct {
	Name string
	// PID and UID are who holds it. PID is 0 for a process that cannot be seen from here.
	PID, UID int
}

func (e *HeldError) Error() string {
	return fmt.Sprintf("the name %s is held by process %d of user %d and runs nothing of yours: end that process, or take another name", e.Name, e.PID, e.UID)
}

// CreateError says why the program in the sandbox did not get ready.
type CreateError struct {
	Name string
	// Message is the error that the program's work returned, or how the program ended.
	Message string
	// Code is the exit code of the program; 0 when it did not even run.
	Code int
}

func (e *CreateError) Error() string { return "create " + e.Name + ": " + e.Message }

// State is the state of a named sandbox.
type State string

// The states. A daemon that does not answer in time is Unresponsive.
const (
	Creating     State = "creating"
	Ready        State = "ready"
	Deleting     State = "deleting"
	Unresponsive State = "unresponsive"
)

// Info says what runs under a name.
type Info struct {
	Name  string `json:"name"`
	State State  `json:"state"`
	// Created is when the daemon started.
	Created time.Time `json:"created,omitzero"`
	// PID is the id of the sandbox's PID 1 as seen from outside; 0 before there is one.
	PID int `json:"pid,omitempty"`
	// Daemon is the process id of the daemon.
	Daemon int `json:"daemon"`
	// Detail is what the program said about itself when it was ready.
	Detail json.RawMessage `json:"detail,omitempty"`
}

// Options say how to create a named sandbox. The zero value runs this program again as it was called.
type Options struct {
	// Args and Env are those of the program in the sandbox; nil means those of this process.
	Args, Env []string
	// Progress gets what the program writes to its standard output and error until it is ready; nil means os.Stderr.
	Progress io.Writer
	// Grace is how long the program may take to end after it was asked to; zero means [sandbox.DefaultGrace].
	Grace time.Duration
}
