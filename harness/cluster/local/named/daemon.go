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
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netproof/netproof/harness/cluster/local/sandbox"
	"github.com/netproof/netproof/harness/peercred"
)

// envRole tells a starting process that it is the daemon, or the program in the sandbox that serves under a name, and
// the descriptor of its connection to the process that started it: "daemon:3", "serve:3". The descriptor after that of
// the second is its door.
const envRole = "NETPROOF_NAMED"

const (
	roleDaemon = "daemon"
	roleServe  = "serve"
)

// config is the first message to a daemon from the process that creates it.
type config struct {
	Name  string        `json:"name"`
	Dir   string        `json:"dir"`
	Grace time.Duration `json:"grace"`
}

// report is what a daemon tells the process that creates it. One with neither Ready nor an error carries output.
type report struct {
	Output []byte `json:"output,omitempty"`
	Ready  *Info  `json:"ready,omitempty"`
	// Exists means that the name is taken.
	Exists bool   `json:"exists,omitempty"`
	Error  string `json:"error,omitempty"`
	Code   int    `json:"code,omitempty"`
}

// operation is what a client can ask a daemon for.
type operation string

const (
	opInfo   operation = "info"
	opLog    operation = "log"
	opDelete operation = "delete"
)

type request struct {
	Op operation `json:"op"`
}

type answer struct {
	Info Info   `json:"info"`
	Log  []byte `json:"log,omitempty"`
}

// news is what the program in the sandbox tells its daemon, once it is ready or when it has ended with an error.
type news struct {
	Ready bool            `json:"ready,omitempty"`
	Info  json.RawMessage `json:"info,omitempty"`
	Error string          `json:"error,omitempty"`
}

// serving is the connection of this process to its daemon, and door a socket of the machine that listens on loopback,
// if it serves under a name.
var (
	serving *net.UnixConn
	door    net.Listener
)

// Init makes this process the daemon if [Create] started it to be that; then it never returns. It comes right after
// sandbox.Init.
func Init() {
	role, number, _ := strings.Cut(os.Getenv(envRole), ":")
	fd, err := strconv.Atoi(number)
	if err != nil || (role != roleDaemon && role != roleServe) {
		return
	}
	// No child of ours is either.
	_ = os.Unsetenv(envRole) // fails only for a name that cannot be
	unix.CloseOnExec(fd)
	conn, err := connOf(os.NewFile(uintptr(fd), "socket"))
	if err != nil {
		fmt.Fprintf(os.Stderr, "named sandbox: %v\n", err)
		exit(1)
	}
	if role == roleServe {
		unix.CloseOnExec(fd + 1)
		serving = conn
		if door, err = listenerOf(os.NewFile(uintptr(fd+1), "door")); err != nil {
			fmt.Fprintf(os.Stderr, "named sandbox: %v\n", err)
			exit(1)
		}
		return
	}
	exit(newDaemon(conn).run())
}

// exit ends a process that main has no part in.
func exit(code int) {
	os.Exit(code) //nolint:forbidigo // main of this process is not reached
}

// daemon is the process that keeps a sandbox under a name.
type daemon struct {
	creator *net.UnixConn
	// ctx is the life of the sandbox, which stop ends.
	ctx  context.Context
	stop context.CancelCauseFunc

	// started ends once the sandbox has its PID 1, or there will be none.
	started context.Context
	start   context.CancelFunc

	mu     sync.Mutex
	info   Info
	failed string
	log    tail
}

func newDaemon(creator *net.UnixConn) *daemon {
	d := &daemon{creator: creator}
	d.info.Created, d.info.Daemon, d.info.State = time.Now(), os.Getpid(), Creating
	d.ctx, d.stop = context.WithCancelCause(context.Background())
	d.started, d.start = context.WithCancel(context.Background())
	return d
}

// run is the life of the daemon.
func (d *daemon) run() int {
	var c config
	if err := json.NewDecoder(d.creator).Decode(&c); err != nil {
		return 1 // the creating process died at once, so nobody is there to be told
	}
	d.info.Name = c.Name
	// A daemon must not keep a folder, hence a mount, busy.
	if err := os.Chdir("/"); err != nil {
		return d.fail(report{Error: err.Error()})
	}
	listener, err := net.ListenUnix("unix", addressOf(os.Geteuid(), c.Name))
	if errors.Is(err, syscall.EADDRINUSE) {
		return d.fail(report{Exists: true})
	}
	if err != nil {
		return d.fail(report{Error: err.Error()})
	}
	defer listener.Close()
	conn, theirs, err := connection()
	if err != nil {
		return d.fail(report{Error: err.Error()})
	}
	defer conn.Close()
	defer theirs.Close()
	outside, err := openDoor()
	if err != nil {
		return d.fail(report{Error: err.Error()})
	}
	defer outside.Close()
	written, output, err := os.Pipe()
	if err != nil {
		return d.fail(report{Error: err.Error()})
	}
	defer written.Close()
	defer output.Close()

	go d.watchCreator()
	go d.accept(listener)
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		d.hear(conn, written)
	}()
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		d.copy(written)
	}()
	code, err := sandbox.Run(d.ctx, sandbox.Command{
		Env:        append(os.Environ(), envRole+"="+roleServe+":3"),
		Dir:        c.Dir,
		Stdout:     output,
		Stderr:     output,
		ExtraFiles: []*os.File{theirs, outside},
		Grace:      c.Grace,
		Started: func(pid int) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.info.PID = pid
			d.start()
		},
	})
	d.start()
	// Nothing of the sandbox is left, and with our own copies of its socket and pipe closed there is no more to hear.
	_, _ = theirs.Close(), output.Close()
	<-heard
	<-copied
	// Free the name before anybody hears of it.
	_ = listener.Close()
	d.mu.Lock()
	ready, failed := d.info.State != Creating, d.failed
	d.mu.Unlock()
	if ready {
		return 0
	}
	switch {
	case failed != "":
	case err != nil:
		failed = err.Error()
	default:
		failed = fmt.Sprintf("the program ended with exit code %d before it was ready", code)
	}
	return d.fail(report{Error: failed, Code: code})
}

// openDoor listens on a free port of the machine's loopback. A socket stays in the network namespace that it was made
// in, so the program in the sandbox can be reached through it, and can reach nobody.
func openDoor() (*os.File, error) {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, fmt.Errorf("listen on the machine's loopback: %w", err)
	}
	defer l.Close() // the file is a copy
	f, err := l.File()
	if err != nil {
		return nil, fmt.Errorf("pass on a socket: %w", err)
	}
	return f, nil
}

// listenerOf makes a listener of a file, which it closes.
func listenerOf(f *os.File) (net.Listener, error) {
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("use socket: %w", err)
	}
	return l, nil
}

// fail tells the creating process why there is no sandbox.
func (d *daemon) fail(r report) int {
	_ = json.NewEncoder(d.creator).Encode(r) // if nobody is there then nobody needs to know
	return 1
}

// watchCreator ends a sandbox that is not ready when the process that wants it is gone.
func (d *daemon) watchCreator() {
	_, _ = io.Copy(io.Discard, d.creator) // however it ends, it has ended
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.info.State == Creating {
		d.stop(errors.New("the process that creates it ended"))
	}
}

// hear listens to the program in the sandbox. What it wrote before it was ready is passed on first.
func (d *daemon) hear(conn *net.UnixConn, written *os.File) {
	for in := json.NewDecoder(conn); ; {
		var n news
		if in.Decode(&n) != nil {
			return
		}
		// The program may be heard of before this process knows its PID.
		<-d.started.Done()
		d.mu.Lock()
		switch {
		case n.Error != "" && d.failed == "":
			d.failed = n.Error
		case n.Ready && d.info.State == Creating:
			d.drain(written)
			d.info.State, d.info.Detail = Ready, n.Info
			info := d.info
			// It may have gone in this moment. Then the sandbox is complete, and stays.
			_ = json.NewEncoder(d.creator).Encode(report{Ready: &info})
			d.detach()
		}
		d.mu.Unlock()
	}
}

// detach lets go of what belongs to the process that created the sandbox.
func (d *daemon) detach() {
	_ = d.creator.Close()
	// Its end of our standard error goes with it, and the next write there would be the end of us.
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer null.Close()
	_ = unix.Dup3(int(null.Fd()), 2, 0) // cannot fail with two open descriptors
}

// copy passes on what the programs in the sandbox write, until none of them can write any more.
func (d *daemon) copy(written *os.File) {
	raw, err := written.SyscallConn()
	if err != nil {
		return
	}
	// Read calls the function again whenever there is something to read, until it returns true.
	_ = raw.Read(func(uintptr) bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.drain(written)
	})
}

// drain passes on what has been written so far, and tells whether no more can come. Reading and passing on are one step
// under the lock, so that whoever holds it can be sure that no part of it is on its way elsewhere.
func (d *daemon) drain(written *os.File) (ended bool) {
	raw, err := written.SyscallConn()
	if err != nil {
		return true
	}
	err = raw.Control(func(fd uintptr) {
		for buf := make([]byte, 4096); ; {
			n, err := unix.Read(int(fd), buf)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if n <= 0 {
				ended = !errors.Is(err, unix.EAGAIN)
				return
			}
			_, _ = d.log.Write(buf[:n])
			if d.info.State == Creating {
				_ = json.NewEncoder(d.creator).Encode(report{Output: buf[:n]}) // watchCreator sees when it is gone
			}
		}
	})
	return ended || err != nil
}

// accept serves clients until the listener is closed.
func (d *daemon) accept(l *net.UnixListener) {
	for {
		conn, err := l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // this client is gone
		}
		go d.answer(conn)
	}
}

// answer serves one client.
func (d *daemon) answer(conn *net.UnixConn) {
	defer conn.Close()
	if cred, err := peercred.Of(conn); err != nil || int(cred.Uid) != os.Geteuid() {
		return
	}
	for in, out := json.NewDecoder(conn), json.NewEncoder(conn); ; {
		var r request
		if in.Decode(&r) != nil {
			return
		}
		if out.Encode(d.do(r.Op)) != nil {
			return
		}
	}
}

// do does what a client asks for.
func (d *daemon) do(op operation) answer {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch op {
	case opLog:
		return answer{Info: d.info, Log: d.log.Bytes()}
	case opDelete:
		if d.info.State == Creating {
			d.failed = "it was deleted meanwhile"
		} else {
			d.info.State = Deleting
		}
		d.stop(errors.New("deleted"))
	}
	return answer{Info: d.info}
}
