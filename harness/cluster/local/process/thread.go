//go:build linux

package process

import (
	"errors"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrThreadClosed says that a function was handed to a thread that has ended.
var ErrThreadClosed = errors.New("thread is closed")

// Thread is an operating-system thread of its own that runs functions one after the other. What they change about the
// thread, its namespaces above all, stays until Close, when the thread is thrown away.
type Thread struct {
	work   chan func()
	closed chan struct{}
	once   sync.Once
}

// NewThread makes a thread and runs setup on it. When setup fails the thread is thrown away.
func NewThread(setup func() error) (*Thread, error) {
	t := &Thread{work: make(chan func()), closed: make(chan struct{})}
	ready := make(chan error, 1)
	go t.run(setup, ready)
	if err := <-ready; err != nil {
		return nil, err
	}
	return t, nil
}

func (t *Thread) run(setup func() error, ready chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// The main thread cannot be thrown away, and /proc/self speaks of its namespaces: leave it as it is. While this
		// goroutine holds it, the next one gets another.
		handedOver := make(chan error, 1)
		go t.run(setup, handedOver)
		ready <- <-handedOver
		runtime.UnlockOSThread()
		return
	}
	// No UnlockOSThread from here on: the runtime ends the thread together with this goroutine.
	if setup != nil {
		if err := setup(); err != nil {
			ready <- err
			return
		}
	}
	ready <- nil
	for {
		select {
		case fn := <-t.work:
			fn()
		case <-t.closed:
			return
		}
	}
}

// Do runs fn on the thread and returns its error. Functions of several callers run one after the other. fn must not
// call Do of the same thread.
func (t *Thread) Do(fn func() error) error {
	done := make(chan error, 1)
	select {
	case t.work <- func() { done <- fn() }:
		return <-done
	case <-t.closed:
		return ErrThreadClosed
	}
}

// Close ends the thread after the function that it is running, and with it, by their parent-death signal, the children
// that were started from it.
func (t *Thread) Close() { t.once.Do(func() { close(t.closed) }) }
