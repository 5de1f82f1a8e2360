//go:build linux

package inns

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// ErrRestore is what [Do] wraps when the function was run but its thread could not go back to the namespace it came
// from. The thread is thrown away then; whatever the function made is as valid as after a success.
var ErrRestore = errors.New("restore the thread's network namespace")

// setns is unix.Setns; tests replace it to see what happens to a thread that cannot go back.
var setns = unix.Setns

// Do calls fn on a thread that is in the network namespace ns, and returns its error. A handle that is not open
// ([netns.None]) means the namespace of the process: then fn is called without ceremony, and needs no privilege.
//
// fn runs in a goroutine of its own, locked to its thread; it must not start goroutines that rely on the namespace and
// must not unlock the thread. A panic in fn is raised again in the caller, and runtime.Goexit (thus t.FailNow) ends the
// caller too. Entering a namespace takes CAP_SYS_ADMIN in the user namespace that owns it.
func Do(ns netns.NsHandle, fn func() error) error {
	if !ns.IsOpen() {
		return fn()
	}
	return away(func() error {
		if err := setns(int(ns), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return nil
	}, fn)
}

// New makes a network namespace, with nothing in it but a loopback interface that is down. It lasts as long as the
// handle is open, a socket or an interface pair's other end refers to it, or a thread is inside. No thread is left
// inside.
func New() (netns.NsHandle, error) {
	ns := netns.None()
	err := away(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make network namespace: %w", err)
		}
		return nil
	}, func() (err error) {
		if ns, err = netns.Get(); err != nil {
			return fmt.Errorf("open the new network namespace: %w", err)
		}
		return nil
	})
	if err != nil && ns.IsOpen() {
		_ = ns.Close()
		ns = netns.None()
	}
	return ns, err
}

// away calls leave, fn, and returns to the namespace of before, all in a goroutine of its own.
func away(leave, fn func() error) error {
	result := visit{goexit: true}
	done := make(chan struct{})
	go func() {
		defer close(done)
		result.run(leave, fn)
	}()
	<-done
	switch {
	case result.panicked:
		panic(result.panicValue)
	case result.goexit:
		runtime.Goexit()
	}
	return result.err
}

// visit is one call inside a namespace and how it ended.
type visit struct {
	err        error
	panicked   bool
	panicValue any
	// goexit stays true when the function left through runtime.Goexit.
	goexit bool
}

func (v *visit) run(leave, fn func() error) {
	// The goroutine ends after this call. Unless the lock is released below, the runtime ends the thread with it: a
	// thread left in a foreign namespace must never serve another goroutine. (The process's first thread cannot end;
	// the runtime parks it for good. So /proc/self/ns/net may lie after that: read /proc/thread-self/ns/net.)
	runtime.LockOSThread()

	home, err := netns.Get()
	if err != nil {
		v.goexit, v.err = false, fmt.Errorf("open the thread's network namespace: %w", err)
		runtime.UnlockOSThread()
		return
	}
	defer func() { _ = home.Close() }()

	if err := leave(); err != nil {
		v.goexit, v.err = false, err
		runtime.UnlockOSThread()
		return
	}
	defer func() {
		if err := setns(int(home), unix.CLONE_NEWNET); err != nil {
			v.err = errors.Join(v.err, fmt.Errorf("%w: %w", ErrRestore, err))
			return
		}
		runtime.UnlockOSThread()
	}()
	defer func() {
		if !v.goexit {
			return
		}
		if p := recover(); p != nil {
			v.goexit, v.panicked, v.panicValue = false, true, p
		}
	}()
	v.err = fn()
	v.goexit = false
}
