//go:build linux

package nsagent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/vishvananda/netns"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
	"github.com/netproof/netproof/probes/message"
)

// Agent acts in one network namespace on behalf of one endpoint. Its methods may be called at the same time.
type Agent struct {
	engine           *Engine
	identity         probes.Identity
	ns               netns.NsHandle
	portsID          string
	ports            *sourcePorts
	probing, serving *loop
	records          *records
	secret           atomic.Pointer[message.Key]

	mu      sync.Mutex
	servers map[model.Port]*server
	closed  bool
	closing chan struct{}
	// calls are the calls at work.
	calls sync.WaitGroup
}

var _ probes.Agent = (*Agent)(nil)

// Identity says whose agent this is.
func (a *Agent) Identity() probes.Identity { return a.identity }

// SetKey makes the agent take part in another run: from now on its servers answer only probes that were made with this
// key, and its probes carry it.
func (a *Agent) SetKey(k message.Key) { a.secret.Store(&k) }

func (a *Agent) key() message.Key { return *a.secret.Load() }

// enter notes the beginning of a call; leave must follow unless it fails.
func (a *Agent) enter() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return fmt.Errorf("%w: %s", ErrClosed, a.identity.Endpoint)
	}
	a.calls.Add(1)
	return nil
}

func (a *Agent) leave() { a.calls.Done() }

// Listen begins to serve ports, on all addresses of both IP families, as far as the kernel has them. When it returns
// nil, the servers answer. A port that is served already stays as it is. Ports that cannot be served stand in one
// error, which wraps [ErrNotSupported] for a protocol this kernel lacks; the others are served nevertheless, and
// [Agent.Liveness] reports on all of them until [Agent.Stop].
func (a *Agent) Listen(ports ...model.Port) error {
	if err := a.enter(); err != nil {
		return err
	}
	defer a.leave()
	a.mu.Lock()
	defer a.mu.Unlock()
	var errs []error
	for _, p := range ports {
		key := model.Port{Number: p.Number, Protocol: p.Protocol}
		if s := a.servers[key]; s != nil && s.err == nil {
			continue
		}
		s := a.serve(p)
		a.servers[key] = s
		if s.err != nil {
			errs = append(errs, s.err)
		}
	}
	return errors.Join(errs...)
}

// Stop ends the servers of these ports: when it returns, the kernel refuses connections to them. What they have seen
// stays on record. Ports that are not served are ignored.
func (a *Agent) Stop(ports ...model.Port) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range ports {
		key := model.Port{Number: p.Number, Protocol: p.Protocol}
		if s := a.servers[key]; s != nil {
			s.stop()
			delete(a.servers, key)
		}
	}
}

// Ports returns the ports that are to be served, in order.
func (a *Agent) Ports() []model.Port {
	a.mu.Lock()
	defer a.mu.Unlock()
	ports := make([]model.Port, 0, len(a.servers))
	for _, s := range a.servers {
		ports = append(ports, s.port)
	}
	slices.SortFunc(ports, model.ComparePorts)
	return ports
}

// Records returns those of the nonces that this endpoint's servers have seen. Memory is bounded: when it cannot be told
// any more whether a nonce was seen, the error is [probes.ErrForgotten], beside the records that there are.
func (a *Agent) Records(ctx context.Context, nonces []probes.Nonce) ([]probes.Record, error) {
	if err := a.enter(); err != nil {
		return nil, err
	}
	defer a.leave()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	seen, forgotten := a.records.find(nonces)
	if len(forgotten) > 0 {
		return seen, fmt.Errorf("%w: %s may have seen %d of %d nonces, the first %q",
			probes.ErrForgotten, a.identity.Endpoint, len(forgotten), len(nonces), forgotten[0])
	}
	return seen, nil
}

// Forget drops all records. It is for a caller that will not ask again for any nonce used before.
func (a *Agent) Forget(context.Context) error {
	if err := a.enter(); err != nil {
		return err
	}
	defer a.leave()
	a.records.forget()
	return nil
}

// Close stops the servers and ends the calls at work with [ErrClosed]. It returns when no socket is left. Closing
// again does nothing.
func (a *Agent) Close() error {
	a.mu.Lock()
	if a.closed {
		a.mu.Unlock()
		return nil
	}
	a.closed = true
	close(a.closing)
	for key, s := range a.servers {
		s.stop()
		delete(a.servers, key)
	}
	a.mu.Unlock()
	a.calls.Wait()
	a.engine.unregister(a)
	if !a.ns.IsOpen() {
		return nil
	}
	if err := a.ns.Close(); err != nil {
		return fmt.Errorf("close network namespace of %s: %w", a.identity.Endpoint, err)
	}
	return nil
}
