package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/netproof/netproof/probes"
	"github.com/netproof/netproof/probes/wire"
)

// Dial makes a connection to an agent. Its context is that of the connection: when it ends, the connection does.
type Dial func(ctx context.Context) (io.ReadWriteCloser, error)

var (
	// ErrLost is matched by what a call returns when there is no connection, or it was lost: nothing is known about the
	// rest.
	ErrLost = errors.New("no connection to the agent")
	// ErrRestarted says that the agent's program was started again: what its servers had seen is forgotten. It is
	// final.
	ErrRestarted = errors.New("the agent was started again")

	errClosed = errors.New("agent is closed")
)

// Options of an [Agent]. The zero value is good.
type Options struct {
	// Targets are the addresses that may be probed, and a number that changes with them. Nil means that the agent is
	// not told any.
	Targets func() (version int64, list []netip.Addr)
	// Backoff is the pause before the second try to connect; it doubles up to MaxBackoff. Defaults: 50 ms and 2 s.
	Backoff, MaxBackoff time.Duration
	// Patience bounds the time in which an agent greets, or answers a ping. Default: 5 s. An agent that does not answer
	// any more is as good as gone: a node that stops says nothing to those who were connected through it.
	Patience time.Duration
	// Calls counts the calls that go over the connection; nil to count nothing.
	Calls *atomic.Int64
	// Connections counts the connections that were made; nil to count nothing.
	Connections *atomic.Int64
}

// Agent is a [probes.Agent] whose work is done at the other end of a connection. It connects at once, and keeps trying
// until Close.
type Agent struct {
	identity probes.Identity
	key      []byte
	dial     Dial
	opts     Options
	close    context.CancelCauseFunc
	ended    chan struct{}
	boot     string

	mu     sync.Mutex
	client *wire.Client
	// why there is no client; changed is closed when one of both changes.
	why     error
	changed chan struct{}

	// telling guards version, that of the targets which the agent at the other end of client has.
	telling sync.Mutex
	version int64
	told    *wire.Client
}

var _ probes.Agent = (*Agent)(nil)

// New makes an agent for an identity that works for those who show the key.
func New(identity probes.Identity, key []byte, dial Dial, opts Options) *Agent {
	if opts.Backoff <= 0 {
		opts.Backoff = 50 * time.Millisecond
	}
	if opts.MaxBackoff <= 0 {
		opts.MaxBackoff = 2 * time.Second
	}
	if opts.Patience <= 0 {
		opts.Patience = 5 * time.Second
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	a := &Agent{
		identity: identity, key: key, dial: dial, opts: opts, close: cancel, ended: make(chan struct{}),
		why: errors.New("not connected yet"), changed: make(chan struct{}),
	}
	go a.keepConnected(ctx)
	return a
}

// Identity says whose agent this is.
func (a *Agent) Identity() probes.Identity { return a.identity }

// Close ends the connection. Calls at work return an error.
func (a *Agent) Close() error {
	a.close(errClosed)
	<-a.ended
	return nil
}

// final tells whether an agent that is not connected for this reason never will be.
func final(err error) bool {
	return errors.Is(err, ErrRestarted) || errors.Is(err, wire.ErrRefused) || errors.Is(err, wire.ErrVersion) || errors.Is(err, errClosed)
}

// Await returns when the agent can be asked. Its error says why it could not be reached until ctx ended.
func (a *Agent) Await(ctx context.Context) error {
	for {
		a.mu.Lock()
		client, why, changed := a.client, a.why, a.changed
		a.mu.Unlock()
		if client != nil {
			return nil
		}
		if final(why) {
			return fmt.Errorf("agent of %s: %w", a.identity.Endpoint, why)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("agent of %s: %w (%w)", a.identity.Endpoint, why, context.Cause(ctx))
		}
	}
}

func (a *Agent) set(c *wire.Client, why error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.client, a.why = c, why
	close(a.changed)
	a.changed = make(chan struct{})
}

// keepConnected connects again and again until there is no use in it.
func (a *Agent) keepConnected(ctx context.Context) {
	defer close(a.ended)
	pause := a.opts.Backoff
	for {
		began := time.Now()
		err := a.connection(ctx)
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		a.set(nil, err)
		if final(err) {
			return
		}
		if time.Since(began) > 2*a.opts.MaxBackoff {
			pause = a.opts.Backoff // it had worked
		}
		again := time.NewTimer(pause)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
		}
		pause = min(2*pause, a.opts.MaxBackoff)
	}
}

// connection makes one connection, and returns why it ended.
func (a *Agent) connection(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := a.dial(ctx)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	greeting, done := context.WithTimeout(ctx, a.opts.Patience)
	client, err := wire.DialWithKey(greeting, conn, a.key)
	done()
	if err != nil {
		return err
	}
	defer client.Close()
	switch {
	case client.Identity() != a.identity:
		return fmt.Errorf("%w: it is that of %s %s", wire.ErrRefused, client.Identity().Endpoint, client.Identity().UID)
	case a.boot != "" && client.Boot() != a.boot:
		return ErrRestarted
	}
	a.boot = client.Boot()
	if a.opts.Connections != nil {
		a.opts.Connections.Add(1)
	}
	a.set(client, nil)
	return a.watch(ctx, client)
}

// watch returns when a connection has ended, and ends one whose agent does not answer any more.
func (a *Agent) watch(ctx context.Context, client *wire.Client) error {
	tick := time.NewTicker(a.opts.Patience)
	defer tick.Stop()
	for {
		select {
		case <-client.Broken():
			return client.Ping(ctx) // its error says why
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		limit, cancel := context.WithTimeout(ctx, a.opts.Patience)
		err := client.Ping(limit)
		cancel()
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("it did not answer within %s: %w", a.opts.Patience, err)
		}
	}
}

// connected gives the connection that there is. It does not wait for one: who asks every few milliseconds wants to know
// now.
func (a *Agent) connected() (*wire.Client, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.client == nil {
		return nil, fmt.Errorf("%w of %s: %w", ErrLost, a.identity.Endpoint, a.why)
	}
	if a.opts.Calls != nil {
		a.opts.Calls.Add(1)
	}
	return a.client, nil
}

func lost(err error) error {
	if errors.Is(err, wire.ErrStream) {
		return fmt.Errorf("%w: %w", ErrLost, err)
	}
	return err
}

// aim tells the agent which addresses it may probe, when they have changed.
func (a *Agent) aim(ctx context.Context, c *wire.Client) error {
	if a.opts.Targets == nil {
		return nil
	}
	a.telling.Lock()
	defer a.telling.Unlock()
	version, list := a.opts.Targets()
	if a.told == c && version == a.version {
		return nil
	}
	if err := c.SetTargets(ctx, list); err != nil {
		return err
	}
	a.told, a.version = c, version
	return nil
}

// Probe implements [probes.Agent]. When the connection is lost, the error matches [ErrLost].
func (a *Agent) Probe(ctx context.Context, batch []probes.Request, deliver func(probes.Response)) error {
	c, err := a.connected()
	if err != nil {
		return err
	}
	if err := a.aim(ctx, c); err != nil {
		return lost(err)
	}
	return lost(c.Probe(ctx, batch, deliver))
}

// Records implements [probes.Agent].
func (a *Agent) Records(ctx context.Context, nonces []probes.Nonce) ([]probes.Record, error) {
	c, err := a.connected()
	if err != nil {
		return nil, err
	}
	records, err := c.Records(ctx, nonces)
	return records, lost(err)
}

// Liveness implements [probes.Agent].
func (a *Agent) Liveness(ctx context.Context) ([]probes.ServerStatus, error) {
	c, err := a.connected()
	if err != nil {
		return nil, err
	}
	servers, err := c.Liveness(ctx)
	return servers, lost(err)
}
