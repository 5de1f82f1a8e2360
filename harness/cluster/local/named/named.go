//go:build linux

package named

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/netproof/netproof/harness/cluster/local/sandbox"
	"github.com/netproof/netproof/harness/peercred"
)

// answerTime is how long a daemon may take to answer. It does nothing else but wait.
const answerTime = 2 * time.Second

// addressOf is the abstract address of a user's name.
func addressOf(uid int, name string) *net.UnixAddr {
	return &net.UnixAddr{Net: "unix", Name: prefixOf(uid) + name}
}

func prefixOf(uid int) string { return "@netproof/" + strconv.Itoa(uid) + "/" }

// checkName makes sure that a name can be used everywhere: in labels, in contexts of a kubeconfig, as an argument.
func checkName(name string) error {
	if problems := validation.IsDNS1123Label(name); len(problems) > 0 {
		return fmt.Errorf("name %q: %s", name, strings.Join(problems, "; "))
	}
	return nil
}

// Create starts the program in a sandbox in the background, and returns when it is ready.
//
// When it cannot get ready, when ctx ends before, or when this process dies before, nothing is left of it. The error
// matches [ErrExists] if the name is taken, and is a [CreateError] if the program did not do its work.
func Create(ctx context.Context, name string, o Options) (Info, error) {
	if err := checkName(name); err != nil {
		return Info{}, err
	}
	dir, err := os.Getwd()
	if err != nil {
		return Info{}, fmt.Errorf("create %s: %w", name, err)
	}
	conn, theirs, err := connection()
	if err != nil {
		return Info{}, fmt.Errorf("create %s: %w", name, err)
	}
	defer conn.Close()
	defer theirs.Close()

	env := o.Env
	if env == nil {
		env = os.Environ()
	}
	var crash tail
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = o.Args
	if cmd.Args == nil {
		cmd.Args = os.Args
	}
	cmd.Env = append(slices.Clone(env), envRole+"="+roleDaemon+":3")
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = &crash
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return Info{}, fmt.Errorf("create %s: start daemon: %w", name, err)
	}
	_ = theirs.Close() // the daemon has its own
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // the state says it
	}()
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	defer stop()

	progress := o.Progress
	if progress == nil {
		progress = os.Stderr
	}
	info, err := follow(conn, config{Name: name, Dir: dir, Grace: o.Grace}, progress)
	if err == nil && ctx.Err() == nil {
		return info, nil
	}
	// It is about to end, or we have asked it to.
	_ = conn.Close()
	<-ended
	switch {
	case ctx.Err() != nil:
		return Info{}, fmt.Errorf("create %s: %w", name, context.Cause(ctx))
	case errors.Is(err, io.EOF):
		return Info{}, fmt.Errorf("create %s: daemon ended: %s %s", name, cmd.ProcessState, strings.TrimSpace(crash.String()))
	}
	return Info{}, err
}

// follow tells the daemon what to do and listens to it until it is done.
func follow(conn net.Conn, c config, progress io.Writer) (Info, error) {
	if err := json.NewEncoder(conn).Encode(c); err != nil {
		return Info{}, fmt.Errorf("create %s: %w", c.Name, err)
	}
	for messages := json.NewDecoder(conn); ; {
		var r report
		if err := messages.Decode(&r); err != nil {
			return Info{}, fmt.Errorf("create %s: hear from daemon: %w", c.Name, err)
		}
		switch {
		case r.Ready != nil:
			return *r.Ready, nil
		case r.Exists:
			return Info{}, fmt.Errorf("create %s: %w", c.Name, whyTaken(c.Name))
		case r.Error != "":
			return Info{}, &CreateError{Name: c.Name, Message: r.Error, Code: r.Code}
		}
		_, _ = progress.Write(r.Output) // whoever does not want to see it may still want the sandbox
	}
}

// whyTaken tells a name that something of this user runs under from one that another user holds.
func whyTaken(name string) error {
	c, err := dial(name)
	if err == nil {
		_ = c.conn.Close() // it was only to see who is there
	}
	var held *HeldError
	if errors.As(err, &held) {
		return held
	}
	return ErrExists
}

// connection returns two connected sockets.
func connection() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("create socket: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "socket")
	conn, err := connOf(os.NewFile(uintptr(fds[0]), "socket"))
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return conn, theirs, nil
}

// connOf makes a connection of a file, which it closes.
func connOf(f *os.File) (*net.UnixConn, error) {
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("use socket: %w", err)
	}
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("use socket: it is not a unix socket"), conn.Close())
	}
	return c, nil
}

// client is a connection to a daemon.
type client struct {
	name   string
	conn   *net.UnixConn
	daemon int
	in     *json.Decoder
}

// dial connects to the daemon of a name.
func dial(name string) (*client, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	conn, err := net.DialUnix("unix", nil, addressOf(os.Geteuid(), name))
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("%s: %w", name, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", name, err)
	}
	cred, err := peercred.Of(conn)
	if err == nil && int(cred.Uid) != os.Geteuid() {
		err = &HeldError{Name: name, PID: int(cred.Pid), UID: int(cred.Uid)}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("connect to %s: %w", name, err), conn.Close())
	}
	return &client{name: name, conn: conn, daemon: int(cred.Pid), in: json.NewDecoder(conn)}, nil
}

// ask sends a request and waits for the answer until the deadline; zero means for ever.
func (c *client) ask(op operation, deadline time.Time) (answer, error) {
	var a answer
	err := errors.Join(c.conn.SetDeadline(deadline), json.NewEncoder(c.conn).Encode(request{op}))
	if err == nil {
		err = c.in.Decode(&a)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		return a, fmt.Errorf("%s: %w: its daemon just ended", c.name, ErrNotFound)
	}
	if err != nil {
		return a, fmt.Errorf("ask daemon of %s (process %d): %w", c.name, c.daemon, err)
	}
	return a, nil
}

// deadline is when a daemon must have answered.
func deadline(ctx context.Context) time.Time {
	at := time.Now().Add(answerTime)
	if d, ok := ctx.Deadline(); ok && d.Before(at) {
		return d
	}
	return at
}

// Find says what runs under a name.
func Find(ctx context.Context, name string) (Info, error) {
	c, err := dial(name)
	if err != nil {
		return Info{}, err
	}
	defer c.conn.Close()
	a, err := c.ask(opInfo, deadline(ctx))
	return a.Info, err
}

// Log returns the last of what the program under a name wrote to its standard output and error, some 64 KiB at most.
func Log(ctx context.Context, name string) ([]byte, error) {
	c, err := dial(name)
	if err != nil {
		return nil, err
	}
	defer c.conn.Close()
	a, err := c.ask(opLog, deadline(ctx))
	return a.Log, err
}

// List says what runs under this user's names, in their order, and which of these names another user holds. A name that
// cannot be asked about keeps none of the others from being listed; the error joins what is wrong with each.
func List(ctx context.Context) (infos []Info, held []*HeldError, err error) {
	text, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return nil, nil, fmt.Errorf("list sockets: %w", err)
	}
	var errs []error
	for _, name := range parseSockets(string(text), os.Geteuid()) {
		info, err := ask(ctx, name)
		var theirs *HeldError
		switch {
		case errors.Is(err, ErrNotFound): // it has gone since
		case errors.As(err, &theirs):
			held = append(held, theirs)
		case err != nil:
			errs = append(errs, err)
		default:
			infos = append(infos, info)
		}
	}
	return infos, held, errors.Join(errs...)
}

// ask says what runs under a name. A daemon that does not answer is no error.
func ask(ctx context.Context, name string) (Info, error) {
	c, err := dial(name)
	if errors.Is(err, syscall.EAGAIN) {
		// So many wait for an answer that there is no room for one more. Whose daemon it is cannot be told without
		// being let in.
		return Info{Name: name, State: Unresponsive}, nil
	}
	if err != nil {
		return Info{}, err
	}
	defer c.conn.Close()
	a, err := c.ask(opInfo, deadline(ctx))
	var late net.Error
	if errors.As(err, &late) && late.Timeout() {
		return Info{Name: name, State: Unresponsive, Daemon: c.daemon}, nil
	}
	return a.Info, err
}

// parseSockets picks the names of a user out of /proc/net/unix, sorted.
func parseSockets(text string, uid int) []string {
	const listening = 0x10000 // __SO_ACCEPTCON of include/uapi/linux/net.h
	var names []string
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) != 8 {
			continue
		}
		flags, err := strconv.ParseUint(fields[3], 16, 32)
		name, ours := strings.CutPrefix(fields[7], prefixOf(uid))
		if err == nil && flags&listening != 0 && ours && checkName(name) == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Delete asks what runs under a name to end, and returns when all of it is gone. When ctx ends first it is killed; that
// too is waited for, and no error.
func Delete(ctx context.Context, name string) error {
	c, err := dial(name)
	if err != nil {
		return err
	}
	defer c.conn.Close()
	// A pidfd stays with its process. That of the daemon is right for as long as the connection holds.
	daemon, err := unix.PidfdOpen(c.daemon, 0)
	if errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("%s: %w: its daemon just ended", name, ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("delete %s: watch daemon: %w", name, err)
	}
	defer func() { _ = unix.Close(daemon) }()
	watched := []int{daemon}
	for _, pid := range childrenOf(c.daemon) {
		if first, err := unix.PidfdOpen(pid, 0); err == nil { // otherwise it has ended
			defer func() { _ = unix.Close(first) }()
			watched = append(watched, first)
		}
	}
	// If the daemon is alive now, these were its children.
	if err := unix.PidfdSendSignal(daemon, 0, nil, 0); err != nil {
		watched = watched[:1]
	}
	if _, err := c.ask(opDelete, deadline(ctx)); err != nil && !errors.Is(err, ErrNotFound) {
		// It does not listen.
		if err := kill(daemon); err != nil {
			return fmt.Errorf("delete %s: kill daemon: %w", name, err)
		}
	}
	for _, fd := range watched {
		if !waitGone(ctx, fd) {
			if err := kill(daemon); err != nil {
				return fmt.Errorf("delete %s: kill daemon: %w", name, err)
			}
			waitGone(context.WithoutCancel(ctx), fd)
		}
	}
	return nil
}

// childrenOf lists the children of a process. The only one that a daemon has is PID 1 of its sandbox.
func childrenOf(pid int) []int {
	var children []int
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // fails only for a bad pattern
	for _, file := range threads {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		for _, field := range strings.Fields(string(text)) {
			if child, err := strconv.Atoi(field); err == nil {
				children = append(children, child)
			}
		}
	}
	return children
}

// kill kills the process of a pidfd, if it is still there.
func kill(pidfd int) error {
	err := unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// waitGone waits until the process of a pidfd has ended; false means that ctx ended first.
func waitGone(ctx context.Context, pidfd int) bool {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 20)
		if n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
	}
}

// Enter runs a command in the sandbox of a name, see [sandbox.Enter].
func Enter(ctx context.Context, name string, cmd sandbox.Command, o sandbox.EnterOptions) (int, error) {
	c, err := dial(name)
	if err != nil {
		return 0, err
	}
	defer c.conn.Close()
	before, err := c.ask(opInfo, deadline(ctx))
	if err != nil {
		return 0, err
	}
	if before.Info.State != Ready {
		return 0, fmt.Errorf("enter %s: %w: it is %s", name, ErrNotReady, before.Info.State)
	}
	ns, err := sandbox.OpenNamespaces(before.Info.PID)
	if err != nil {
		return 0, fmt.Errorf("enter %s: %w", name, err)
	}
	defer ns.Close()
	// The daemon is its parent: as long as that knows it, nobody else has its process id.
	after, err := c.ask(opInfo, deadline(ctx))
	if err != nil {
		return 0, err
	}
	if after.Info.State != Ready {
		return 0, fmt.Errorf("enter %s: %w: it is %s", name, ErrNotReady, after.Info.State)
	}
	return sandbox.Enter(ctx, ns, cmd, o)
}
