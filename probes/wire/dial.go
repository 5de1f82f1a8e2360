package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"time"

	"github.com/netproof/netproof/probes"
)

// Client is the agent at the other end of a stream.
type Client struct {
	identity probes.Identity
	boot     string
	rw       io.ReadWriter
	out      *lineWriter
	// broken is closed when the stream is of no more use; err says why.
	broken chan struct{}

	mu    sync.Mutex
	err   error
	last  int64
	calls map[int64]*call
}

var (
	_ probes.Agent = (*Client)(nil)
	_ Forgetter    = (*Client)(nil)
)

// call is a call that is at work.
type call struct {
	// notify says that something came.
	notify chan struct{}

	// The client's lock guards what follows.
	received reply
	count    int
	end      *end
}

// Dial greets the agent at the other end of a stream and returns it. The stream belongs to the client from then on,
// also after an error: it is closed with it if it can be closed.
func Dial(ctx context.Context, rw io.ReadWriter) (*Client, error) { return DialWithKey(ctx, rw, nil) }

// DialWithKey is [Dial] for an agent that wants to see the key of its run. The error matches [ErrRefused] when it is
// not the right one.
func DialWithKey(ctx context.Context, rw io.ReadWriter, key []byte) (*Client, error) {
	linger := time.Duration(0)
	if len(key) > 0 {
		linger = remoteLinger
	}
	c := &Client{rw: rw, out: newLineWriter(rw, linger), broken: make(chan struct{}), calls: map[int64]*call{}}
	c.out.send(&hello{Protocol: protocolName, Version: Version, Key: key})
	greeted := make(chan error, 1)
	go func() {
		in := newLineReader(rw)
		h, err := readHello(in)
		switch {
		case err != nil:
		case h.Refused != "":
			err = fmt.Errorf("%w: %s", ErrRefused, h.Refused)
		case h.Identity == nil:
			err = errors.New("hello without an identity")
		}
		if err != nil {
			greeted <- err
			return
		}
		c.identity, c.boot = *h.Identity, h.Boot
		greeted <- nil
		c.fail(c.read(in))
	}()
	go func() {
		<-c.out.done
		if c.out.err != nil {
			c.fail(fmt.Errorf("write: %w", c.out.err))
		}
	}()
	var err error
	select {
	case err = <-greeted:
		if err == nil {
			return c, nil
		}
	case <-c.broken:
		err = c.failure()
	case <-ctx.Done():
		err = ctx.Err()
	}
	c.fail(err)
	if ctx.Err() == nil && !errors.Is(err, ErrStream) {
		err = fmt.Errorf("%w: %w", ErrStream, err)
	}
	return nil, fmt.Errorf("greet probe agent: %w", err)
}

// Close ends the use of the stream, and closes it if it can be closed. Calls at work fail with [ErrStream].
func (c *Client) Close() error {
	c.fail(errors.New("closed here"))
	return nil
}

// Broken is closed when the stream is of no more use.
func (c *Client) Broken() <-chan struct{} { return c.broken }

// Identity says whose agent this is.
func (c *Client) Identity() probes.Identity { return c.identity }

// Boot is what a [Guard] said of its start, "" for other agents.
func (c *Client) Boot() string { return c.boot }

// fail ends everything.
func (c *Client) fail(err error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = err
	close(c.broken)
	c.mu.Unlock()
	c.out.end()
	if closer, ok := c.rw.(io.Closer); ok {
		_ = closer.Close()
	}
}

// failure says why the stream is of no more use.
func (c *Client) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Errorf("%w: %w", ErrStream, c.err)
}

// read takes the agent's lines until there is something wrong.
func (c *Client) read(in *lineReader) error {
	for {
		line, err := in.next()
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		var r reply
		if err := decode(line, &r); err != nil {
			return err
		}
		if err := c.take(r); err != nil {
			return err
		}
	}
}

// take hands a line to the call it belongs to.
func (c *Client) take(r reply) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.Call <= 0 || r.Call > c.last {
		return fmt.Errorf("results of call %d, which was never made", r.Call)
	}
	k := c.calls[r.Call]
	if k == nil {
		return nil // cancelled
	}
	if k.end != nil {
		return fmt.Errorf("results of call %d after its end", r.Call)
	}
	k.received.Responses = append(k.received.Responses, r.Responses...)
	k.received.Records = append(k.received.Records, r.Records...)
	k.received.Servers = append(k.received.Servers, r.Servers...)
	k.count += r.size()
	if r.End != nil && r.End.Count != k.count {
		return fmt.Errorf("call %d ended with %d results, but %d came", r.Call, r.End.Count, k.count)
	}
	k.end = r.End
	select {
	case k.notify <- struct{}{}:
	default:
	}
	return nil
}

// do makes a call and gives what comes to collect, in the calling goroutine, until the call has ended.
func (c *Client) do(ctx context.Context, q question, collect func(reply) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	k := &call{notify: make(chan struct{}, 1)}
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return c.failure()
	}
	c.last++
	q.Call = c.last
	c.calls[q.Call] = k
	c.mu.Unlock()
	c.out.send(&q)
	defer func() {
		c.mu.Lock()
		delete(c.calls, q.Call)
		c.mu.Unlock()
	}()
	take := func() (*end, error) {
		c.mu.Lock()
		r, e := k.received, k.end
		k.received = reply{}
		c.mu.Unlock()
		if r.size() == 0 {
			return e, nil
		}
		if err := collect(r); err != nil {
			// The other side does not keep to the protocol: nothing it says can be relied on.
			c.fail(err)
			return nil, c.failure()
		}
		return e, nil
	}
	for {
		var cause error
		select {
		case <-k.notify:
		case <-ctx.Done():
			c.out.send(&question{Cancel: q.Call})
			cause = ctx.Err()
		case <-c.broken:
			cause = c.failure()
		}
		e, err := take()
		switch {
		case err != nil:
			return err
		case e != nil && e.Forgotten:
			return fmt.Errorf("%w: %s", probes.ErrForgotten, e.Error)
		case e != nil && e.Error != "":
			return fmt.Errorf("agent of %s: %s", c.identity.Endpoint, e.Error)
		case e != nil:
			return nil
		case cause != nil:
			return cause
		}
	}
}

// known are the outcomes there are.
var known = map[probes.Outcome]bool{
	probes.Answered: true, probes.Timeout: true, probes.Reset: true, probes.Prohibited: true, probes.Unreachable: true,
	probes.Unsupported: true, probes.WrongAnswer: true, probes.Error: true,
}

// Probe implements [probes.Agent].
func (c *Client) Probe(ctx context.Context, batch []probes.Request, deliver func(probes.Response)) error {
	open := make(map[int64]probes.Nonce, len(batch))
	for _, r := range batch {
		if _, twice := open[r.ID]; twice {
			return fmt.Errorf("probe from %s: two requests have the id %d", c.identity.Endpoint, r.ID)
		}
		open[r.ID] = r.Nonce
	}
	// A long batch goes as several calls, all in flight at once; their outcomes come together here.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	arrived := make(chan []probes.Response)
	ended := make(chan error)
	calls := 0
	for rest := batch; len(rest) > 0; calls++ {
		n := min(maxBatch, len(rest))
		part := rest[:n]
		rest = rest[n:]
		go func() {
			ended <- c.do(ctx, question{Probe: part}, func(r reply) error {
				if len(r.Records)+len(r.Servers) > 0 {
					return errors.New("results of another kind than asked for")
				}
				arrived <- r.Responses
				return nil
			})
		}()
	}
	var failure error
	for calls > 0 {
		select {
		case responses := <-arrived:
			for _, r := range responses {
				nonce, ok := open[r.ID]
				if !ok || nonce != r.Nonce || !known[r.Outcome] {
					c.fail(fmt.Errorf("outcome %.32q of request %d with nonce %.64q: it was not asked for, or is unknown",
						r.Outcome, r.ID, r.Nonce))
					failure = c.failure()
					continue
				}
				delete(open, r.ID)
				deliver(r)
			}
		case err := <-ended:
			calls--
			if err != nil && failure == nil {
				failure = err
				cancel()
			}
		}
	}
	switch {
	case len(open) == 0:
		return nil
	case failure == nil:
		failure = fmt.Errorf("%w: the agent called it complete", ErrStream)
	}
	return fmt.Errorf("probe from %s: %d of %d outcomes are unknown: %w", c.identity.Endpoint, len(open), len(batch), failure)
}

// Records implements [probes.Agent].
func (c *Client) Records(ctx context.Context, nonces []probes.Nonce) ([]probes.Record, error) {
	var records []probes.Record
	var forgotten error
	for rest := nonces; len(rest) > 0; {
		n := min(maxNonces, len(rest))
		asked := make(map[probes.Nonce]bool, n)
		for _, nonce := range rest[:n] {
			asked[nonce] = true
		}
		err := c.do(ctx, question{Records: rest[:n]}, func(r reply) error {
			if len(r.Responses)+len(r.Servers) > 0 {
				return errors.New("results of another kind than asked for")
			}
			for _, record := range r.Records {
				if !asked[record.Nonce] {
					return fmt.Errorf("record of nonce %.64q, which was not asked for", record.Nonce)
				}
			}
			records = append(records, r.Records...)
			return nil
		})
		rest = rest[n:]
		switch {
		case errors.Is(err, probes.ErrForgotten):
			forgotten = errors.Join(forgotten, err)
		case err != nil:
			return nil, fmt.Errorf("records of %s: %w", c.identity.Endpoint, err)
		}
	}
	if forgotten != nil {
		return records, fmt.Errorf("records of %s: %w", c.identity.Endpoint, forgotten)
	}
	return records, nil
}

// Liveness implements [probes.Agent].
func (c *Client) Liveness(ctx context.Context) ([]probes.ServerStatus, error) {
	var servers []probes.ServerStatus
	err := c.do(ctx, question{Liveness: true}, func(r reply) error {
		if len(r.Responses)+len(r.Records) > 0 {
			return errors.New("results of another kind than asked for")
		}
		servers = append(servers, r.Servers...)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("liveness of %s: %w", c.identity.Endpoint, err)
	}
	return servers, nil
}

// Forget drops all records of the agent's servers. It is for a caller that will not ask again for any nonce used
// before.
func (c *Client) Forget(ctx context.Context) error {
	if err := c.do(ctx, question{Forget: true}, nothing); err != nil {
		return fmt.Errorf("forget records of %s: %w", c.identity.Endpoint, err)
	}
	return nil
}

// SetTargets tells a [Guard] which addresses it may probe from now on.
func (c *Client) SetTargets(ctx context.Context, list []netip.Addr) error {
	if err := c.do(ctx, question{Targets: list}, nothing); err != nil {
		return fmt.Errorf("set the targets of %s: %w", c.identity.Endpoint, err)
	}
	return nil
}

// Ping returns nil when the other end is there and reads.
func (c *Client) Ping(ctx context.Context) error { return c.do(ctx, question{Ping: true}, nothing) }

// nothing collects the results of a call that has none.
func nothing(reply) error { return errors.New("results of a call that has none") }
