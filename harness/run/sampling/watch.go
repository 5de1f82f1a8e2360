package sampling

import (
	"context"
	"slices"
	"time"

	"github.com/netproof/netproof/harness/model"
)

// Window is what one step's sampling found: the series of every cell, and the controls of the same time.
type Window struct {
	// Tracks are those of the targets, in their order.
	Tracks []*Track
	// Start is when the API server had accepted the step's changes; Barrier when every node had taken them up, which is
	// Confirmed or not.
	Start, Barrier time.Time
	Confirmed      bool
	// Limit is how long after Start the last cell could settle.
	Limit    time.Duration
	Controls model.Controls
	// Enforcement is why no denial of this window is proven; empty when the canaries and the barrier held.
	Enforcement string
	// Dead are endpoints whose servers did not answer from inside their own namespace, with the reason.
	Dead map[model.Endpoint]string
	// DeadProbers could not reach their own servers.
	DeadProbers map[model.Endpoint]string
}

// Watch says what is sampled in one step, and how.
type Watch struct {
	Rhythm
	Settling
	// Settle bounds the time from the change to the settling of the last cell; a large table has [Rhythm].Late on top.
	Settle time.Duration
	// Cleanup bounds what is waited for after that: probes under way.
	Cleanup time.Duration
	Nonces  *Nonces
	Servers Servers
	// Targets are the cells. Canaries are connections with a known end, which say whether denials can be trusted at
	// all; CanaryPods serve them. Selfs are connections from each prober to a server of its own, which no policy can
	// cut.
	Targets, Canaries, Selfs []Target
	CanaryPods               []model.Endpoint
	// Start is when the API server had accepted the step's changes.
	Start time.Time
	// Barrier returns when every node has taken up what was changed, and at which moment; see [ErrNotConfirmed]. It is
	// nil where nothing was changed.
	Barrier func(context.Context) (time.Time, error)
}

// Observe samples the targets until every one of them is settled, or ctx ends.
func (w Watch) Observe(ctx context.Context) Window {
	o := w.begin(ctx)
	defer o.cancel()
	for o.another(ctx) {
	}
	return o.finish(ctx)
}

// observation is a watch under way.
type observation struct {
	Watch
	out     Window
	sampler *sampler
	live    *Liveness
	// always are tracks that are sampled in every round, also of a large table.
	always map[*Track]bool

	// deadline ends the barrier and the rounds, not the probes under way: what they find still counts. detached bounds
	// those.
	deadline, detached context.Context
	cancel             func()

	// confirmed is closed once the barrier has come to an end; waiting is the same until that was noticed, and nil
	// afterwards.
	confirmed, waiting <-chan struct{}
	barrier            time.Time
	barrierErr         error

	// load is that of the last round. agreed is true when the last sample of each cell was as expected.
	load   int
	agreed bool
	// looked is when all series were last judged, and cost how long that took.
	looked time.Time
	cost   time.Duration
	// landed is true once nothing is under way any more.
	landed bool
}

// begin starts the barrier.
func (w Watch) begin(ctx context.Context) *observation {
	o := &observation{Watch: w, out: Window{Start: w.Start, Barrier: w.Start}, always: map[*Track]bool{}}
	o.sampler = newSampler(slices.Concat(w.Targets, w.Canaries, w.Selfs), w.Rhythm, w.Nonces)
	for _, t := range o.canaries() {
		o.always[t] = true
	}
	o.live = NewLiveness(w.Servers, w.Rhythm, destinations(w.Targets))
	o.live.Shown = func(since time.Time) map[model.Endpoint]bool { return o.sampler.shown(since, w.Servers.Ports) }
	o.out.Limit = w.Settle + o.sampler.rhythm.Late
	var end, stop func()
	o.deadline, end = context.WithDeadline(ctx, w.Start.Add(o.out.Limit))
	o.detached, stop = context.WithTimeout(context.WithoutCancel(ctx), w.Cleanup+o.out.Limit)
	o.cancel = func() { end(); stop() }

	confirmed := make(chan struct{})
	o.confirmed, o.waiting = confirmed, confirmed
	if w.Barrier == nil {
		o.barrier = w.Start
		close(confirmed)
		return o
	}
	go func() {
		defer close(confirmed)
		confirming, cancel := context.WithDeadline(o.deadline, w.Start.Add(w.Settle))
		defer cancel()
		o.barrier, o.barrierErr = w.Barrier(confirming)
	}()
	return o
}

func (o *observation) canaries() []*Track {
	return o.sampler.tracks[len(o.Targets) : len(o.Targets)+len(o.Canaries)]
}

func (o *observation) selfs() []*Track {
	return o.sampler.tracks[len(o.Targets)+len(o.Canaries):]
}

// wanted selects the tracks of a round. Small tables are sampled until the last cell has settled. In a large one, whose
// rounds are work for every agent, a cell is asked after the barrier, as often as it takes to settle it.
func (o *observation) wanted(t *Track) bool {
	switch {
	case !o.sampler.large || o.always[t]:
		return true
	case o.waiting != nil:
		return false
	}
	return !t.enough(o.Settling, o.out.Barrier)
}

// another sends a round, and judges what comes in until it is time for the next. It is false when there is none: every
// cell has settled, or the time is over.
func (o *observation) another(ctx context.Context) bool {
	began := time.Now()
	// In a large table the servers are looked at once there was a round, and they may have shown themselves that they
	// are alive.
	if !o.sampler.large || o.load >= crowd {
		o.live.Round(ctx)
	}
	o.load = o.sampler.round(ctx, o.wanted)
	next := time.NewTimer(o.sampler.rhythm.next(o.load, o.agreed, began.Sub(o.out.Barrier)) - time.Since(began))
	defer next.Stop()
	late := false // it is time for the next round, and it has to wait
	for due := false; !due; {
		select {
		case <-o.waiting:
			o.waiting = nil
			if o.barrierErr != nil {
				return false
			}
			o.out.Barrier = o.barrier
			due = o.sampler.large
		case <-o.sampler.resolved:
			due = late && !o.sampler.crowded(o.load)
		case <-next.C:
			late = o.sampler.crowded(o.load)
			due = !late
		case <-o.deadline.Done():
			return false
		}
		if o.waiting != nil {
			continue
		}
		// A look at a large table takes long. There is one at the end of each round, and more as long as they are
		// cheap.
		if !due && o.sampler.aloft.Load() > 0 && time.Since(o.looked) < 10*o.cost {
			continue
		}
		if o.settled() {
			return false
		}
	}
	return true
}

// settled judges every series so far. It is true when all have settled, and nothing is under way any more.
func (o *observation) settled() bool {
	open, start := 0, time.Now()
	if open, o.agreed = o.sampler.look(o.Settling, o.out.Barrier); open == 0 {
		// What is still under way counts too. If it unsettles a cell, sampling goes on.
		o.sampler.wait(o.detached)
		if open, o.agreed = o.sampler.look(o.Settling, o.out.Barrier); open == 0 && !o.silent() {
			o.landed = true
			return true
		}
	}
	o.looked = time.Now()
	o.cost = o.looked.Sub(start)
	return false
}

// silent tells whether some canary has said nothing yet: on a busy machine all of its probes may be void at first.
func (o *observation) silent() bool {
	return slices.ContainsFunc(o.canaries(), func(t *Track) bool {
		series, _ := t.Series()
		return len(Telling(series)) == 0
	})
}

// finish waits for what is under way, and judges the controls.
func (o *observation) finish(ctx context.Context) Window {
	if !o.landed {
		o.sampler.wait(o.detached)
	}
	<-o.confirmed
	o.out.Confirmed = o.barrierErr == nil
	// The last look comes after the last sample: a server that died in between was not there to be denied.
	canaryLife := NewLiveness(o.Servers, o.Rhythm, o.CanaryPods)
	if ctx.Err() == nil {
		o.live.flights.Wait()
		o.live.Round(ctx)
		canaryLife.Round(ctx)
	}
	out := &o.out
	out.Tracks = o.sampler.tracks[:len(o.Targets)]
	out.Controls.Servers, out.Controls.ServersAlive, out.Dead = o.live.Finish()
	_, _, deadCanaries := canaryLife.Finish()
	out.judgeCanaries(o.Settle, o.canaries(), deadCanaries, o.barrierErr)
	out.judgeSelfs(o.selfs())
	out.Controls.Held = out.Controls.CanaryAllowed && out.Controls.CanaryDenied && out.Controls.Servers == out.Controls.ServersAlive &&
		out.Enforcement == "" && len(out.DeadProbers) == 0
	return *out
}

// destinations are the pods that the targets go to, services by their backends.
func destinations(targets []Target) []model.Endpoint {
	var out []model.Endpoint
	seen := map[model.Endpoint]bool{}
	for _, t := range targets {
		for _, id := range t.Answerers {
			if !seen[id.Endpoint] {
				seen[id.Endpoint] = true
				out = append(out, id.Endpoint)
			}
		}
	}
	return out
}
