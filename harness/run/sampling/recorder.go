package sampling

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/netproof/netproof/probes"
)

// recorder puts together what several provers ask of one destination at about the same time: a table of n by n pods
// would else be n times n calls a round.
type recorder struct {
	mu      sync.Mutex
	pending map[probes.Agent]*inquiry
}

// inquiry is one call to an agent for the nonces that it has seen. After done is closed the rest of it does not change.
type inquiry struct {
	nonces []probes.Nonce
	done   chan struct{}
	found  []probes.Record
	err    error
}

// ask adds nonces to the next call to an agent. Whoever began it may have lost interest before others, so that its ctx
// ends nothing.
func (r *recorder) ask(ctx context.Context, agent probes.Agent, nonces []probes.Nonce, gather, limit time.Duration) *inquiry {
	r.mu.Lock()
	defer r.mu.Unlock()
	if q := r.pending[agent]; q != nil {
		q.nonces = append(q.nonces, nonces...)
		return q
	}
	q := &inquiry{nonces: slices.Clone(nonces), done: make(chan struct{})}
	if r.pending == nil {
		r.pending = map[probes.Agent]*inquiry{}
	}
	r.pending[agent] = q
	go func() {
		defer close(q.done)
		if gather > 0 {
			<-time.After(gather)
		}
		r.mu.Lock()
		delete(r.pending, agent)
		r.mu.Unlock()
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
		defer cancel()
		q.found, q.err = agent.Records(bounded, q.nonces)
	}()
	return q
}

func anyFailed(failed map[probes.Agent]error, agents []probes.Agent) error {
	for _, a := range agents {
		if err := failed[a]; err != nil {
			return err
		}
	}
	return nil
}
