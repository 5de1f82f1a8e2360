//go:build linux

package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Namespaces are those of a running sandbox, held open so that they cannot be mistaken for others when a process id is
// used again.
type Namespaces struct {
	files []namespaceFile
}

type namespaceFile struct {
	option string
	file   *os.File
}

// OpenNamespaces opens the namespaces of a sandbox by the id of its PID 1, as [Command.Started] tells it. It is the
// caller who must make sure, after this returned, that the sandbox was still alive.
func OpenNamespaces(pid int) (*Namespaces, error) {
	n := &Namespaces{}
	for _, ns := range []struct{ name, option string }{
		{"user", "--user"}, {"mnt", "--mount"}, {"net", "--net"}, {"pid", "--pid"},
	} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, ns.name))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open namespaces of process %d: %w", pid, err), n.Close())
		}
		if ns.name == "user" {
			// The kernel refuses to enter the user namespace one is in already.
			if own, err := isOwn(f, ns.name); err != nil || own {
				if err := errors.Join(err, f.Close()); err != nil {
					return nil, errors.Join(fmt.Errorf("compare user namespaces: %w", err), n.Close())
				}
				continue
			}
		}
		n.files = append(n.files, namespaceFile{ns.option, f})
	}
	return n, nil
}

// isOwn tells whether f is this process's namespace of that kind.
func isOwn(f *os.File, kind string) (bool, error) {
	theirs, err := f.Stat()
	if err != nil {
		return false, err
	}
	ours, err := os.Stat("/proc/self/ns/" + kind)
	if err != nil {
		return false, err
	}
	return os.SameFile(ours, theirs), nil
}

// Close lets go of the namespaces.
func (n *Namespaces) Close() error {
	var errs []error
	for _, ns := range n.files {
		errs = append(errs, ns.file.Close())
	}
	n.files = nil
	return errors.Join(errs...)
}

// invitation is what the outer side tells a process that has come in.
type invitation struct {
	// Exec is the program to run instead.
	Exec []string `json:"exec,omitempty"`
	// Name is the current program's, which arrives as the path of a descriptor.
	Name string `json:"name"`
	// Dir is the working directory.
	Dir string `json:"dir"`
	// Descriptors is how many of them after the control socket were only needed on the way.
	Descriptors int `json:"descriptors"`
	// Terminal asks for the foreground of the terminal on standard input.
	Terminal bool `json:"terminal,omitempty"`
}

// Enter runs a command in the namespaces of a sandbox, by way of the nsenter program (util-linux, or that of busybox),
// and waits for its end. The command is killed when this process dies. Signals, ctx, the exit code and errors are as
// with [Run].
func Enter(ctx context.Context, n *Namespaces, c Command, o EnterOptions) (int, error) {
	// The parent-death signal follows the thread that started the child: keep it until the child is gone.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		return 0, fmt.Errorf("enter sandbox: %w (it comes with util-linux: apt-get install util-linux, apk add util-linux-misc)", err)
	}
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return 0, fmt.Errorf("enter sandbox: %w", err)
	}
	defer self.Close()
	conn, theirs, err := credentialPair()
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	defer theirs.Close()

	// The order of descriptors: the caller's, the control socket, then those that are only needed on the way in.
	fd := 3 + len(c.ExtraFiles)
	files := append(append([]*os.File(nil), c.ExtraFiles...), theirs, self)
	args := []string{"nsenter"}
	for _, ns := range n.files {
		args = append(args, ns.option+"=/proc/self/fd/"+strconv.Itoa(3+len(files)))
		if ns.option == "--user" {
			// Only one id is mapped, so there is no other to change to.
			args = append(args, "--preserve-credentials")
		}
		files = append(files, ns.file)
	}
	// By descriptor it is this very program, even when its file was replaced or lies where the sandbox has a mount of
	// its own.
	args = append(args, "--", "/proc/self/fd/"+strconv.Itoa(fd+1))
	if o.Program == nil {
		args = append(args, c.args()[1:]...)
	}

	dir := c.Dir
	if dir == "" {
		if dir, err = os.Getwd(); err != nil {
			dir = "/"
		}
	}
	cmd := exec.Command(nsenter)
	cmd.Args = args
	cmd.Env = c.environ(stageEnter + ":" + strconv.Itoa(fd))
	cmd.ExtraFiles = files
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	connectOutput(cmd, &c)
	if tty := terminalOf(&c); o.Terminal && tty != nil {
		defer keepTerminal(tty)()
		cmd.Stdin = tty
	} else {
		o.Terminal = false
		// A Ctrl-C comes to us only, and we pass it on: nsenter would just die of it, and take the command along.
		cmd.SysProcAttr.Setpgid = true
		connectInput(cmd, &c)
	}

	signals := watchSignals()
	defer signals.stop()
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("enter sandbox: %w", err)
	}
	_ = theirs.Close() // the command has its own
	target, err := welcome(conn, cmd.Process.Pid, invitation{
		Exec:        o.Program,
		Name:        c.args()[0],
		Dir:         dir,
		Descriptors: len(files) - len(c.ExtraFiles) - 1,
		Terminal:    o.Terminal,
	})
	if err != nil {
		_ = cmd.Process.Kill() // it may have ended by itself, which then is the reason
		_ = cmd.Wait()
		return 0, fmt.Errorf("enter sandbox: nsenter: %s: %w", cmd.ProcessState, err)
	}
	defer func() { _ = target.Release() }()
	started := make(chan struct{})
	close(started)
	end := supervise(ctx, cmd, &c, signals, target, started)
	return end.code, end.err
}

// terminalOf returns the terminal that is the command's standard input, or nil.
func terminalOf(c *Command) *os.File {
	f, ok := c.Stdin.(*os.File)
	if c.Stdin == nil {
		f, ok = os.Stdin, true
	}
	if !ok || !isTerminal(f) {
		return nil
	}
	return f
}

// keepTerminal returns a function that gives the terminal back to the process group that has it now, in the mode it has
// now.
func keepTerminal(tty *os.File) func() {
	fd := int(tty.Fd())
	group, errGroup := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
	mode, errMode := unix.IoctlGetTermios(fd, unix.TCGETS)
	return func() {
		// From the background, where we are now, changing a terminal stops the process unless it ignores this.
		signal.Ignore(syscall.SIGTTOU)
		defer signal.Reset(syscall.SIGTTOU)
		// A terminal that has gone needs no restoring.
		if errGroup == nil {
			_ = unix.IoctlSetPointerInt(fd, unix.TIOCSPGRP, group)
		}
		if errMode == nil {
			_ = unix.IoctlSetTermios(fd, unix.TCSETS, mode)
		}
	}
}

// credentialPair returns two connected sockets. Ours tells who writes to it.
func credentialPair() (*net.UnixConn, *os.File, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, nil, err
	}
	defer ours.Close()
	if err := unix.SetsockoptInt(int(ours.Fd()), unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("create control socket: %w", err), theirs.Close())
	}
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("create control socket: %w", err), theirs.Close())
	}
	return conn.(*net.UnixConn), theirs, nil
}

// welcome waits for the process that nsenter brings in, and tells it what to do.
func welcome(conn *net.UnixConn, nsenter int, in invitation) (*os.Process, error) {
	oob := make([]byte, unix.CmsgSpace(unix.SizeofUcred))
	_, n, _, _, err := conn.ReadMsgUnix(make([]byte, 1), oob)
	if err != nil {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) == 0 {
		return nil, errors.Join(errors.New("it ended on the way in"), err)
	}
	cred, err := unix.ParseUnixCredentials(&messages[0])
	if err != nil {
		return nil, err
	}
	// It waits for us, so its id is its own. The kernel gave it in the terms of our PID namespace.
	target, err := os.FindProcess(int(cred.Pid))
	if err != nil {
		return nil, err
	}
	// The process has armed its parent-death signal. If nsenter lives now, that signal will come.
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, nsenter, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil); err != nil {
		return nil, errors.Join(err, target.Release())
	}
	if info.Signo != 0 {
		return nil, errors.Join(errors.New("it ended on the way in"), target.Release())
	}
	if err := json.NewEncoder(conn).Encode(in); err != nil {
		return nil, errors.Join(err, target.Release())
	}
	return target, nil
}

// enterInit finishes the way into a sandbox that [Enter] began. It returns if this program is the one to run.
func enterInit(control *os.File) {
	gone := func() { exit(128 + int(syscall.SIGKILL)) }
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0, 0, 0); err != nil {
		enterFailed(err, 1)
	}
	fd := int(control.Fd())
	if _, err := control.Write([]byte{0}); err != nil {
		gone()
	}
	var in invitation
	if err := json.NewDecoder(control).Decode(&in); err != nil {
		gone()
	}
	for i := 1; i <= in.Descriptors; i++ {
		_ = unix.Close(fd + i)
	}
	if err := os.Chdir(in.Dir); err != nil {
		// The sandbox has an own /run and /proc, where the folder may not be.
		if err := os.Chdir("/"); err != nil {
			enterFailed(err, 1)
		}
	}
	if err := errors.Join(os.Setenv(envStage, pidNamespace()), os.Setenv("TMPDIR", TempDir)); err != nil {
		enterFailed(err, 1)
	}
	if in.Terminal {
		takeTerminal()
	} else {
		// We are in the background, where a write to a terminal with "stty tostop" would stop us for good.
		signal.Ignore(syscall.SIGTTIN, syscall.SIGTTOU)
	}
	if in.Exec != nil {
		path, err := exec.LookPath(in.Exec[0])
		if err != nil {
			enterFailed(err, 127)
		}
		if in.Terminal {
			// What is handled goes back to its default in an exec, what was ignored stays so, and a shell whose keys do
			// nothing is of no use.
			signal.Notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU)
		}
		// The parent-death signal stays armed across an exec.
		enterFailed(fmt.Errorf("run %s: %w", path, syscall.Exec(path, in.Exec, os.Environ())), 126)
	}
	os.Args[0] = in.Name
	go func() {
		// The parent-death signal ends with the thread that armed it, this watch does not.
		_, _ = io.Copy(io.Discard, control)
		gone()
	}()
}

// enterFailed ends this process with a message.
func enterFailed(err error, code int) {
	fmt.Fprintf(os.Stderr, "enter sandbox: %v\n", err)
	exit(code)
}

// takeTerminal makes this process a group of its own, in the foreground of the terminal: a Ctrl-C then comes to it
// alone, and not to nsenter, which would die of it.
func takeTerminal() {
	signal.Ignore(syscall.SIGTTOU)
	defer signal.Reset(syscall.SIGTTOU)
	if err := unix.Setpgid(0, 0); err != nil {
		return // the leader of a session has the terminal already
	}
	// Without a controlling terminal there is no foreground to take.
	_ = unix.IoctlSetPointerInt(0, unix.TIOCSPGRP, os.Getpid())
}
