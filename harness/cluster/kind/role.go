package kind

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"

	"github.com/netproof/netproof/harness/cluster/kind/inherit"
)

// envRole tells a starting process that it is the maker or the watchdog of a cluster. What it needs to know comes on
// its standard input.
const envRole = "NETPROOF_KIND_ROLE"

const (
	roleMaker    = "maker"
	roleWatchdog = "watchdog"
)

// errNoInit says that the program cannot play the roles that a cluster needs.
var errNoInit = errors.New("make kind cluster: kind.Init must be called first in main, and in TestMain")

// initialized is set by Init.
var initialized bool

// Init makes of this process the maker or the watchdog of a cluster if it was started to be that, and then never
// returns. It comes first in main or TestMain; without it no cluster is made.
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

// roleCommand starts this program again in a role, with a name for process lists and files of package inherit.
func roleCommand(role, cluster string, files ...*os.File) *exec.Cmd {
	cmd := exec.Command(ownProgram())
	cmd.Args = []string{"netproof-kind-" + role, cluster}
	cmd.Env = append(os.Environ(), envRole+"="+role)
	inherit.Files(cmd, files...)
	return cmd
}

// ownProgram is the program that is running; on Linux also if its file was replaced since.
func ownProgram() string {
	if onLinux {
		return "/proc/self/exe"
	}
	path, err := os.Executable()
	if err != nil {
		return os.Args[0]
	}
	return path
}

// line reads the one value that a role is started with.
func readTask(decoder *json.Decoder, task any) error {
	if err := decoder.Decode(task); err != nil {
		return fmt.Errorf("read task: %w", err)
	}
	return nil
}

// pipe makes a pipe. Neither end is inherited by accident.
func pipe() (r, w *os.File, err error) {
	r, w, err = os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("make pipe: %w", err)
	}
	return r, w, nil
}
