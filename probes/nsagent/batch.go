//go:build linux

package nsagent

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
	"github.com/netproof/netproof/probes/message"
)

// Probe sends a batch, as [probes.Agent] says. All of it is in flight at once, as far as the engine's bound on open
// sockets allows, so it takes as long as the longest time-out and not as the sum. When ctx ends, outcomes that are
// known are still delivered, no socket is left open on return, and the rest of the batch is unknown.
func (a *Agent) Probe(ctx context.Context, requests []probes.Request, deliver func(probes.Response)) error {
	return a.probe(ctx, requests, message.Probe, deliver)
}

func (a *Agent) probe(ctx context.Context, requests []probes.Request, kind message.Kind, deliver func(probes.Response)) error {
	if err := a.enter(); err != nil {
		return err
	}
	defer a.leave()
	a.engine.begin()
	defer a.engine.end()
	b := &batch{agent: a, loop: a.probing, kind: kind, notify: make(chan struct{}, 1)}
	return b.run(ctx, requests, deliver)
}

// batch is one call of Probe.
type batch struct {
	agent *Agent
	loop  *loop
	kind  message.Kind
	// notify says that done is not empty.
	notify chan struct{}

	mu   sync.Mutex
	done []probes.Response

	// flights are the probes that the loop watches; they and ended belong to the loop's goroutine.
	flights []*flight
	ended   bool
}

// run is the calling goroutine's part: it launches as many as it is granted, and delivers what comes in.
func (b *batch) run(ctx context.Context, requests []probes.Request, deliver func(probes.Response)) error {
	limiter := b.agent.engine.limiter
	var waiting *waiter
	var spare []probes.Response
	delivered, rest := 0, requests
	collect := func() {
		b.mu.Lock()
		arrived := b.done
		b.done = spare[:0]
		b.mu.Unlock()
		for i := range arrived {
			deliver(arrived[i])
		}
		delivered += len(arrived)
		clear(arrived)
		spare = arrived
	}
	stop := func(cause error) error {
		if waiting != nil {
			limiter.cancel(waiting)
		}
		b.loop.call(b.cancel)
		collect()
		if delivered == len(requests) {
			return nil
		}
		return fmt.Errorf("probe from %s: %d of %d outcomes are unknown: %w",
			b.agent.identity.Endpoint, len(requests)-delivered, len(requests), cause)
	}
	for delivered < len(requests) {
		if err := ctx.Err(); err != nil {
			return stop(err)
		}
		var grants <-chan int
		if len(rest) > 0 {
			if waiting == nil {
				waiting = limiter.request(b.agent, len(rest))
			}
			grants = waiting.granted
		}
		select {
		case n := <-grants:
			waiting = nil
			if err := b.launch(rest[:n]); err != nil {
				return stop(err)
			}
			rest = rest[n:]
		case <-b.notify:
			collect()
		case <-ctx.Done():
		case <-b.agent.closing:
			return stop(ErrClosed)
		}
	}
	return nil
}

// finished takes an outcome from whoever found it.
func (b *batch) finished(r probes.Response) {
	b.mu.Lock()
	b.done = append(b.done, r)
	b.mu.Unlock()
	select {
	case b.notify <- struct{}{}:
	default:
	}
}

// cancel drops what is in flight, and gives its sockets back: nothing is held when Probe has returned. It runs in the
// loop's goroutine.
func (b *batch) cancel() {
	b.ended = true
	for len(b.flights) > 0 {
		b.flights[len(b.flights)-1].drop(b.loop)
	}
	b.loop.settle()
}

// launch sends requests for which sockets were granted, and hands them to the loop. What cannot be sent is finished
// at once.
func (b *batch) launch(requests []probes.Request) error {
	flights := make([]flight, len(requests))
	for i := range flights {
		flights[i].prepare(b, &requests[i])
	}
	failure := b.agent.engine.inside(b.agent.ns, func() error {
		for i := range flights {
			flights[i].makeSocket()
		}
		return nil
	})
	var scratch [message.MaxRequest]byte
	freed := 0
	for i := range flights {
		f := &flights[i]
		if failure != nil && f.fd < 0 && f.resp.Outcome == "" {
			f.conclude(probes.Error, 0, failure.Error())
		}
		if f.resp.Outcome == "" {
			f.send(scratch[:0])
		}
		if f.resp.Outcome != "" {
			if f.fd >= 0 {
				_ = unix.Close(f.fd)
				f.fd = -1
			}
			freed++
			b.finished(f.resp)
		}
	}
	b.agent.engine.limiter.release(freed)
	if freed == len(flights) {
		return nil
	}
	if b.loop.do(func() {
		for i := range flights {
			if flights[i].fd >= 0 {
				flights[i].takeOff(b.loop)
			}
		}
	}) {
		return nil
	}
	for i := range flights {
		if flights[i].fd >= 0 {
			_ = unix.Close(flights[i].fd)
		}
	}
	b.agent.engine.limiter.release(len(flights) - freed)
	return ErrClosed
}

// check tells what is wrong with a request, if anything.
func check(r *probes.Request) error {
	switch {
	case r.Protocol != model.TCP && r.Protocol != model.UDP && r.Protocol != model.SCTP:
		return fmt.Errorf("protocol %q: want TCP, UDP or SCTP", r.Protocol)
	case !r.Address.IsValid() || r.Address.IsUnspecified():
		return fmt.Errorf("address %q is not one of a host", r.Address)
	case r.Port < 1 || r.Port > 65535:
		return fmt.Errorf("port %d: want 1 to 65535", r.Port)
	case r.TimeoutMs <= 0:
		return errors.New("no time-out")
	}
	return message.CheckNonce(r.Nonce)
}
