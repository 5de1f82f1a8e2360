package kind

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// envRole tells a starting process that it is the maker or the watchdog of a cluster. What it needs to know comes on its standard input.
const envRole = "NETPROOF_KIND_ROLE"

const (
	roleMaker    = "maker"
	roleWatchdog = "watchdog"
)

// errNoInit says that the program cannot play the roles that a cluster needs.
var errNoInit = errors.New("make kind cluster: kind.Init must be called first in main, and in TestMain")

// initialized is set by Init.
var initialized bool

// Init makes of this process the maker or the watchdog of a cluster if it was started to be that, and then never returns. It comes first in
// main or TestMain; without it no cluster is made.
func Init() {
	initialized = true
	role, ok := os.LookupEnv(envRole)
	if !ok {
		return
	}
	_ = os.Unsetenv(envRole) // fails only for a name that cannot be
	switch role {
	case roleMaker:
		exit(makerMain())
	case roleWatchdog:
		exit(watchdogMain())
	}
}

// exit ends a process that main has no part in.
func exit(code int) {
	os.Exit(code) //nolint:forbidigo // main of this process is not reached
}

// roleCommand starts this program again in a role, with a name for process lists and files from descriptor 3 on.
func roleCommand(role, cluster string, files ...*os.File) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{"netproof-kind-" + role, cluster}
	cmd.Env = append(os.Environ(), envRole+"="+role)
	cmd.ExtraFiles = files
	return cmd
}

// line reads the one value that a role is started with.
func readTask(decoder *json.Decoder, task any) error {
	if err := decoder.Decode(task); err != nil {
		return fmt.Errorf("read task: %w", err)
	}
	return nil
}

// pipe makes a pipe neither end of which is inherited by accident.
func pipe() (r, w *os.File, err error) {
	r, w, err = os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("make pipe: %w", err)
	}
	return r, w, nil
}

// inheritable are descriptors that every child of this process is to have as well.
func inheritable(fds ...int) error {
	for _, fd := range fds {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return fmt.Errorf("hand on descriptor %d: %w", fd, err)
		}
	}
	return nil
}

// sessionOfItsOwn keeps signals of a terminal from a process.
func sessionOfItsOwn() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }
