//go:build linux

package podagent

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netns"

	"github.com/netproof/netproof/harness/peercred"
	"github.com/netproof/netproof/probes"
	"github.com/netproof/netproof/probes/message"
	"github.com/netproof/netproof/probes/nsagent"
	"github.com/netproof/netproof/probes/wire"
)

// agent is the agent of one endpoint in this process's own network namespace.
type agent struct {
	*nsagent.Agent
	engine     *nsagent.Engine
	commitment string
	boot       string

	mu      sync.Mutex
	targets []netip.Addr
}

var (
	_ probes.Agent = (*agent)(nil)
	_ wire.Guard   = (*agent)(nil)
)

// newAgent starts to serve the ports. Liveness says which cannot be served.
func newAgent(s Settings) (*agent, error) {
	engine, err := nsagent.NewEngine(nsagent.Options{})
	if err != nil {
		return nil, fmt.Errorf("start agent: %w", err)
	}
	// A key that nobody has: until the runner has shown its own, nobody is answered.
	nobody := make([]byte, 32)
	_, _ = rand.Read(nobody) // it does not fail: it ends the program instead
	inner, err := engine.NewAgent(nsagent.Config{Identity: s.Identity, Namespace: netns.None(), Key: nobody})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start agent: %w", err), engine.Close())
	}
	if err := inner.Listen(s.Ports...); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return &agent{Agent: inner, engine: engine, commitment: s.Commitment, boot: rand.Text()}, nil
}

// Boot implements [wire.Guard].
func (a *agent) Boot() string { return a.boot }

// Admit implements [wire.Guard].
func (a *agent) Admit(key []byte) error {
	if subtle.ConstantTimeCompare([]byte(Commitment(key)), []byte(a.commitment)) != 1 {
		return errors.New("the key is not that of this agent's run")
	}
	a.SetKey(message.Key(key))
	return nil
}

// SetTargets implements [wire.Guard].
func (a *agent) SetTargets(list []netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.targets = list
}

// Probe sends what goes to endpoints of the run, and nothing else.
func (a *agent) Probe(ctx context.Context, batch []probes.Request, deliver func(probes.Response)) error {
	a.mu.Lock()
	targets := a.targets
	a.mu.Unlock()
	var admitted []probes.Request
	for _, r := range batch {
		if slices.Contains(targets, r.Address) {
			admitted = append(admitted, r)
			continue
		}
		deliver(probes.Response{ID: r.ID, Nonce: r.Nonce, Outcome: probes.Error, Detail: fmt.Sprintf("%s is not an endpoint of this run", r.Address)})
	}
	return a.Agent.Probe(ctx, admitted, deliver)
}

// Serve runs the agent of a pod until ctx ends.
func Serve(ctx context.Context, s Settings) (err error) {
	a, err := newAgent(s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.engine.Close()) }()
	listener, err := net.Listen("unix", s.socketName())
	if err != nil {
		return fmt.Errorf("wait for the runner: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = listener.Close() })()
	var streams sync.WaitGroup
	defer streams.Wait()
	for {
		conn, err := listener.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("wait for the runner: %w", err)
		}
		if err := checkPeer(conn); err != nil {
			fmt.Fprintln(os.Stderr, err)
			_ = conn.Close() // nothing was said
			continue
		}
		streams.Go(func() {
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
			if err := wire.Serve(ctx, conn, a); err != nil && ctx.Err() == nil {
				fmt.Fprintln(os.Stderr, err)
			}
		})
	}
}

// Stdio runs the agent and serves one runner over standard input and output. It returns when the input ends.
func Stdio(ctx context.Context, s Settings, in io.Reader, out io.Writer) (err error) {
	a, err := newAgent(s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.engine.Close()) }()
	return wire.Serve(ctx, readWriter{in, out}, a)
}

type readWriter struct {
	io.Reader
	io.Writer
}

// bridgePatience bounds the wait for the pod's process, which may have been started a moment ago.
const bridgePatience = 10 * time.Second

// Bridge connects standard input and output to the agent that serves in the same container. It returns when either
// ends.
func Bridge(ctx context.Context, s Settings, in io.Reader, out io.Writer) error {
	conn, err := dial(ctx, s.socketName())
	if err != nil {
		return fmt.Errorf("reach the agent of %s: %w", s.Identity.Endpoint, err)
	}
	defer conn.Close()
	if err := checkPeer(conn); err != nil {
		return fmt.Errorf("reach the agent of %s: %w", s.Identity.Endpoint, err)
	}
	done := make(chan error, 2)
	go func() {
		_, err := io.Copy(conn, in)
		done <- err
	}()
	go func() {
		_, err := io.Copy(out, conn)
		done <- err
	}()
	select {
	case err = <-done:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("carry the stream of %s: %w", s.Identity.Endpoint, err)
	}
	return nil
}

// checkPeer makes sure that the other end of a connection is a process of the same user in the same container. Others
// that share the network, as on a node, see the name of a socket once it is there.
func checkPeer(conn net.Conn) error {
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return fmt.Errorf("the connection is of kind %T, not a unix socket", conn)
	}
	cred, err := peercred.Of(unixConn)
	if err != nil {
		return fmt.Errorf("see who is at the other end: %w", err)
	}
	if int(cred.Uid) != os.Geteuid() || cred.Pid == 0 {
		return fmt.Errorf("process %d of user %d is at the other end, and is not of this container", cred.Pid, cred.Uid)
	}
	return nil
}

// dial connects as soon as there is somebody. A socket of the abstract namespace cannot be watched for.
func dial(ctx context.Context, name string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, bridgePatience)
	defer cancel()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", name)
		if err == nil {
			return conn, nil
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return nil, err
		}
	}
}
