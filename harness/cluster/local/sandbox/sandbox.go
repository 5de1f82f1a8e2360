//go:build linux

package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// envStage tells a process what it is to a sandbox: "init:FD", "probe:FD" or "enter:FD" before [Init], where FD is the
// control socket, and afterwards the identity of the sandbox's PID namespace.
const envStage = "NETPROOF_SANDBOX"

const (
	stageInit  = "init"
	stageProbe = "probe"
	stageEnter = "enter"
)

func (c *Command) grace() time.Duration {
	if c.Grace > 0 {
		return c.Grace
	}
	return DefaultGrace
}

func (c *Command) args() []string {
	if c.Args == nil {
		return os.Args
	}
	return c.Args
}

// environ returns the environment with the stage set to value.
func (c *Command) environ(value string) []string {
	env := c.Env
	if env == nil {
		env = os.Environ()
	}
	return withEnv(env, envStage, value)
}

// withEnv returns a copy of env in which key has this value and appears once.
func withEnv(env []string, key, value string) []string {
	out := make([]string, 0, len(env)+1)
	for _, kv := range env {
		if !strings.HasPrefix(kv, key+"=") {
			out = append(out, kv)
		}
	}
	return append(out, key+"="+value)
}

// Inside tells whether this process is in a sandbox. It holds for PID 1, the worker, everything they start (also in
// network and mount namespaces made there) and what [Enter] brought in.
var Inside = sync.OnceValue(func() bool {
	value := os.Getenv(envStage)
	if stage, _, ok := parseStage(value); ok {
		return stage == stageEnter || os.Getpid() == 1
	}
	return value != "" && value == pidNamespace()
})

// parseStage splits the value of envStage that a starting process was given.
func parseStage(value string) (stage string, fd int, ok bool) {
	stage, number, found := strings.Cut(value, ":")
	if !found {
		return "", 0, false
	}
	fd, err := strconv.Atoi(number)
	if err != nil || fd < 3 {
		return "", 0, false
	}
	switch stage {
	case stageInit, stageProbe, stageEnter:
		return stage, fd, true
	}
	return "", 0, false
}

// pidNamespace identifies the PID namespace of this process, such as pid:[4026531836].
func pidNamespace() string {
	id, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return ""
	}
	return id
}

// status is what PID 1 reports over the control socket, once.
type status struct {
	// Step is what could not be done; empty when the command runs.
	Step string `json:"step,omitempty"`
	// Errno of the failure, and its text.
	Errno int    `json:"errno,omitempty"`
	Error string `json:"error,omitempty"`
}

// Run runs the command in a new sandbox and waits for its end. SIGINT, SIGTERM, SIGHUP and SIGQUIT are handed to it;
// when a second one comes, or the grace after the first is over, it is killed. The end of ctx is like a SIGTERM.
//
// It returns the exit code of the command, or 128+n when signal n ended it or when it had to be killed after signal n.
// An error means that the command did not run, and then matches [ErrUnavailable] if this machine does not allow
// sandboxes, or that it had to be killed because ctx ended, and then is the cause of that.
func Run(ctx context.Context, c Command) (int, error) {
	return run(ctx, c, stageInit)
}

// Check makes a sandbox, sets it up, and ends it. A nil error means that [Run] works here. The program must call
// [Init].
func Check(ctx context.Context) error {
	code, err := run(ctx, Command{}, stageProbe)
	if err == nil && code != 0 {
		err = fmt.Errorf("try a sandbox: exit code %d", code)
	}
	return err
}

func run(ctx context.Context, c Command, stage string) (int, error) {
	// The parent-death signal follows the thread that started the child: keep it until the child is gone.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	facts := ReadFacts()
	if err := facts.refuse(); err != nil {
		return 0, err
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return 0, err
	}
	defer ours.Close()
	defer theirs.Close()

	cmd := exec.Command("/proc/self/exe")
	cmd.Args = c.args()
	cmd.Dir = c.Dir
	cmd.Env = c.environ(stage + ":" + strconv.Itoa(3+len(c.ExtraFiles)))
	cmd.ExtraFiles = append(append([]*os.File(nil), c.ExtraFiles...), theirs)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
		// A Ctrl-C on the terminal comes to the outer process only, which then decides.
		Setpgid: true,
	}
	if facts.NeedsUserNamespace() {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		// One id each is what the kernel lets anybody map; more would need newuidmap and its set-user-id bit.
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	connectOutput(cmd, &c)
	connectInput(cmd, &c)

	signals := watchSignals()
	defer signals.stop()
	if err := cmd.Start(); err != nil {
		return 0, facts.explain("create namespaces", err)
	}
	_ = theirs.Close() // PID 1 has its own

	reported := make(chan status, 1)
	started := make(chan struct{})
	go func() {
		defer close(reported)
		var st status
		if json.NewDecoder(ours).Decode(&st) != nil {
			return
		}
		if st.Step == "" {
			close(started)
		}
		reported <- st
	}()
	end := supervise(ctx, cmd, &c, signals, cmd.Process, started)
	st, ok := <-reported
	switch {
	case ok && st.Step != "":
		return 0, facts.explain(st.Step, statusError{st})
	case !ok && !end.asked:
		return 0, fmt.Errorf("start sandbox: it ended during its set-up: %s", cmd.ProcessState)
	}
	return end.code, end.err
}

// statusError is a failure that PID 1 reported.
type statusError struct{ status }

func (e statusError) Error() string { return e.status.Error }

func (e statusError) Is(target error) bool {
	errno, ok := target.(syscall.Errno)
	return ok && e.Errno != 0 && int(errno) == e.Errno
}

// socketPair returns two connected stream sockets, closed on exec.
func socketPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("create control socket: %w", err)
	}
	// A descriptor that os.NewFile finds non-blocking goes to the poller, so that Close ends a pending Read.
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("create control socket: %w", err), unix.Close(fds[0]), unix.Close(fds[1]))
	}
	return os.NewFile(uintptr(fds[0]), "control"), os.NewFile(uintptr(fds[1]), "control"), nil
}
