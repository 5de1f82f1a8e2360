//go:build linux

package rerun

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
)

// insideVariable marks the process that runs the tests, in the new namespaces.
const insideVariable = "NETPROOF_RERUN"

// InNamespaces runs the tests in a process of its own in new namespaces, and returns the exit code.
func InNamespaces(m *testing.M) int {
	if os.Getenv(insideVariable) != "" {
		return m.Run()
	}
	executable, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, "find the test's own executable:", err)
		return 1
	}
	cmd := exec.Command(executable, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), insideVariable+"=1")
	// The signal comes when the thread that started the process ends, so this one must not.
	runtime.LockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
	}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return max(1, exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "run the tests in new namespaces:", err)
		return 1
	}
	return 0
}
