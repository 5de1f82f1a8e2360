package engine

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// errSystem says that engines are of no use on this system.
var errSystem error

// flock locks an open file. It waits for others if it may, and otherwise returns [errBusy] when there are some.
func flock(f *os.File, how lockKind, wait bool) error {
	operation := map[lockKind]int{lockShared: unix.LOCK_SH, lockExclusive: unix.LOCK_EX}[how]
	if !wait {
		operation |= unix.LOCK_NB
	}
	for {
		err := unix.Flock(int(f.Fd()), operation)
		if errors.Is(err, unix.EWOULDBLOCK) {
			return errBusy
		}
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// inGroup gives a command a process group of its own, which is interrupted when the command is canceled or the thread
// that starts it ends.
func inGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGINT}
	// The go command removes its work folder on an interrupt, which it could not on a kill.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
}

// killGroup kills what is left of a process group and waits until it is gone, so that nothing writes any more into a
// folder that is about to be removed. The group's number cannot have been given away while a process of it lives. The
// wait is bounded because a process that nobody reaps, in a container without an init, stays in its group for ever.
func killGroup(pgid int) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range 1000 {
		if errors.Is(syscall.Kill(-pgid, syscall.SIGKILL), syscall.ESRCH) {
			return
		}
		<-tick.C
	}
}
