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

// Forgetter is an agent whose records can be dropped.
type Forgetter interface {
	// Forget drops all records. It is for a caller that will not ask again for any nonce used before.
	Forget(ctx context.Context) error
}

// Guard is an agent that works only for those who show the key of its run, and probes only the endpoints of that run.
type Guard interface {
	// Admit is given what the client showed, and returns an error if it is not the key. The client hears it.
	Admit(key []byte) error
	// Boot is another one each time the agent's program starts. What its servers had seen before is forgotten.
	Boot() string
	// SetTargets replaces the addresses that may be probed.
	SetTargets(list []netip.Addr)
}

// flushTime is how long the last lines may take to be written when the stream ends.
const flushTime = time.Second

// Serve lets the other end of the stream use an agent, until the stream ends (then it returns nil), breaks, or ctx
// ends. Calls that are at work then are cancelled, and have ended when it returns. At the end it closes the stream if
// it can be closed; if not, and a read or a write does not return, a goroutine is left that waits for it.
func Serve(ctx context.Context, rw io.ReadWriter, agent probes.Agent) error {
	ctx, cancel := context.WithCancel(ctx)
	_, guarded := agent.(Guard)
	linger := time.Duration(0)
	if guarded {
		linger = remoteLinger
	}
	s := &session{agent: agent, out: newLineWriter(rw, linger), calls: map[int64]context.CancelFunc{}}
	identity := agent.Identity()
	if !guarded {
		s.out.send(&hello{Protocol: protocolName, Version: Version, Identity: &identity})
	}

	read := make(chan error, 1)
	go func() { read <- s.read(ctx, newLineReader(rw)) }()
	var err error
	flush := flushTime
	select {
	case err = <-read:
		if err != nil {
			err = fmt.Errorf("%w: %w", ErrStream, err)
		}
	case <-s.out.done:
		err = fmt.Errorf("%w: write: %w", ErrStream, s.out.err)
	case <-ctx.Done():
		err, flush = ctx.Err(), 0
	}
	cancel()
	s.close()
	s.running.Wait()
	s.out.end()
	select {
	case <-s.out.done:
	case <-time.After(flush):
	}
	if c, ok := rw.(io.Closer); ok {
		_ = c.Close()
	}
	if err != nil {
		return fmt.Errorf("serve probes of %s: %w", identity.Endpoint, err)
	}
	return nil
}

// session is the agent's end of a stream.
type session struct {
	agent   probes.Agent
	out     *lineWriter
	running sync.WaitGroup

	mu     sync.Mutex
	closed bool
	calls  map[int64]context.CancelFunc
}

// read takes the client's lines. It returns nil when the stream ends between two of them.
func (s *session) read(ctx context.Context, in *lineReader) error {
	h, err := readHello(in)
	guard, guarded := s.agent.(Guard)
	if guarded && errors.Is(err, ErrVersion) {
		// Whoever is of another version is to learn it, not to wait for a hello.
		s.out.send(&hello{Protocol: protocolName, Version: Version})
	}
	if err != nil {
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
	if guarded {
		if err := guard.Admit(h.Key); err != nil {
			s.out.send(&hello{Protocol: protocolName, Version: Version, Refused: err.Error()})
			return fmt.Errorf("%w: %w", ErrRefused, err)
		}
		identity := s.agent.Identity()
		s.out.send(&hello{Protocol: protocolName, Version: Version, Identity: &identity, Boot: guard.Boot()})
	}
	for {
		line, err := in.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		var q question
		if err := decode(line, &q); err != nil {
			return err
		}
		if err := s.take(ctx, q); err != nil {
			return err
		}
	}
}

// take begins, or cancels, a call.
func (s *session) take(ctx context.Context, q question) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if q.Cancel != 0 {
		// A call that has ended in the meantime needs no cancelling.
		if cancel := s.calls[q.Cancel]; cancel != nil {
			cancel()
		}
		return nil
	}
	var work func(context.Context) (int, error)
	kinds := 0
	if q.Probe != nil {
		kinds++
		work = func(ctx context.Context) (int, error) { return s.probe(ctx, q.Call, q.Probe) }
	}
	if q.Records != nil {
		kinds++
		work = func(ctx context.Context) (int, error) {
			records, err := s.agent.Records(ctx, q.Records)
			s.out.send(&reply{Call: q.Call, Records: records})
			return len(records), err
		}
	}
	if q.Liveness {
		kinds++
		work = func(ctx context.Context) (int, error) {
			servers, err := s.agent.Liveness(ctx)
			s.out.send(&reply{Call: q.Call, Servers: servers})
			return len(servers), err
		}
	}
	if q.Forget {
		kinds++
		work = s.forget
	}
	if q.Targets != nil {
		kinds++
		work = func(context.Context) (int, error) { return 0, s.setTargets(q.Targets) }
	}
	if q.Ping {
		kinds++
		work = func(context.Context) (int, error) { return 0, nil }
	}
	switch {
	case kinds != 1 || q.Call <= 0:
		return fmt.Errorf("call %d asks for %d things: must be one", q.Call, kinds)
	case s.calls[q.Call] != nil:
		return fmt.Errorf("call %d is at work already", q.Call)
	case len(s.calls) >= maxCalls:
		return fmt.Errorf("more than %d calls at a time", maxCalls)
	case s.closed:
		return context.Canceled
	}
	ctx, cancel := context.WithCancel(ctx)
	s.calls[q.Call] = cancel
	s.running.Go(func() {
		defer cancel()
		count, err := work(ctx)
		e := &end{Count: count}
		if err != nil {
			e.Error, e.Forgotten = err.Error(), errors.Is(err, probes.ErrForgotten)
		}
		s.mu.Lock()
		delete(s.calls, q.Call)
		s.mu.Unlock()
		s.out.send(&reply{Call: q.Call, End: e})
	})
	return nil
}

// close keeps further calls from beginning.
func (s *session) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
}

func (s *session) probe(ctx context.Context, call int64, batch []probes.Request) (int, error) {
	count := 0
	patience := time.Duration(0)
	if s.out.linger > 0 && len(batch) >= manyProbes {
		patience = gather
	}
	err := s.agent.Probe(ctx, batch, func(r probes.Response) {
		count++
		s.out.sendWithin(&reply{Call: call, Responses: []probes.Response{r}}, patience)
	})
	return count, err
}

func (s *session) forget(ctx context.Context) (int, error) {
	f, ok := s.agent.(Forgetter)
	if !ok {
		return 0, errors.New("this agent's records cannot be dropped")
	}
	return 0, f.Forget(ctx)
}

func (s *session) setTargets(list []netip.Addr) error {
	g, ok := s.agent.(Guard)
	if !ok {
		return errors.New("this agent probes any address")
	}
	g.SetTargets(list)
	return nil
}
