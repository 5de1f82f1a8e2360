package run

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
)

// target is one cell as the sampler sees it: whom to ask, what to dial, and who may answer.
type target struct {
	conn model.Connection
	// expected decides how long a series must agree; it never decides a verdict.
	expected model.Verdict
	from     probes.Agent
	address  netip.Addr
	port     int
	// answerers may answer: the destination, or the backends of a service.
	answerers []probes.Identity
	// recorders are the agents whose servers would have seen the probe.
	recorders []probes.Agent
	// unreachable says why the cell cannot be probed at all, such as a destination without an address of this family.
	unreachable string
	// unsupported says why this cluster cannot carry the cell's probes.
	unsupported string
}

// track is a target and its series. Samples stand at the index of their round, so that a series is in the order of sending
// although denied probes are resolved later than answered ones.
type track struct {
	target
	samples []*sample
	// settledAs is the verdict with which the series first settled; a later change is flapping.
	settledAs model.Verdict
}

// series returns the samples up to the first that is still under way. tail tells whether it is the whole series.
func (t *track) series() (done []sample, tail bool) {
	for _, s := range t.samples {
		if s.resolved.IsZero() {
			return done, false
		}
		done = append(done, *s)
	}
	return done, true
}

// enough tells whether the samples after the barrier settle the track once those that are still under way come back as expected, like
// those that have.
func (t *track) enough(p settling, barrier time.Time) bool {
	n := 0
	var first, last time.Time
	for _, smp := range t.samples {
		back := !smp.resolved.IsZero() // before that, another goroutine writes into it
		switch {
		case smp.sent.Before(barrier), back && smp.void:
			continue
		case back && smp.verdict != t.expected:
			return false
		}
		if n == 0 || smp.sent.Before(first) {
			first = smp.sent
		}
		if smp.sent.After(last) {
			last = smp.sent
		}
		n++
	}
	return n >= p.minSamples && last.Sub(first) >= p.window
}

// rhythm is the pace of sampling.
type rhythm struct {
	// dense is the time between two rounds while changes are expected, spaced afterwards.
	dense  time.Duration
	spaced time.Duration
	// late is what a crowd adds to the times after which something counts as late.
	late time.Duration
	// perProbe bounds the load: a round of load n is followed by the next after n*perProbe at the earliest.
	perProbe time.Duration
	// timeout of a single probe, patience of one that should be answered, if that is longer.
	timeout, patience time.Duration
	// agent bounds a call to an agent. One that does not come back has no result.
	agent time.Duration
	// aloft bounds the probes that are under way at once, where each pod has an agent of its own and nobody else bounds them; 0 for no bound.
	// One that is expected to be denied counts a third: nobody works on it, and it takes a whole time-out.
	aloft int64
	// gather is how long a question for what a destination has seen waits for others, where a call is a round trip through an exec.
	gather time.Duration
}

// next returns the time between the start of a round of load n and the next. Rounds are dense while samples are not as
// expected, so that the moment of a change is measured well, but not for long: what is late is sampled less and less often.
func (r rhythm) next(n int, agreed bool, sinceBarrier time.Duration) time.Duration {
	d := r.spaced
	switch {
	case sinceBarrier > 10*r.spaced+r.late:
		d = 4 * r.spaced
	case !agreed:
		d = r.dense
	}
	return max(d, time.Duration(n)*r.perProbe)
}

// nonces makes the nonces of a run.
type nonces struct {
	run  string
	next atomic.Int64
}

func (n *nonces) get() probes.Nonce {
	return probes.Nonce(fmt.Sprintf("%s-%x", n.run, n.next.Add(1)))
}

// crowd is from which load on a round makes agents and streams busy for long. Of such rounds no more are under way at once than maxAloft: on a
// machine that cannot keep up, more of them would make each later. A round's load is the number of its probes, and where calls to agents go
// through execs callLoad for each agent: what a call costs there does not depend on the number of probes.
const (
	crowd    = 500
	maxAloft = 2
	callLoad = 10
)

// load of a round of n probes from so many agents.
func (r rhythm) load(n, agents int) int {
	if r.gather > 0 {
		n += callLoad * agents
	}
	return n
}

// loadOf is the load of a round of all targets.
func (r rhythm) loadOf(targets []target) int {
	agents := map[probes.Agent]bool{}
	for _, t := range targets {
		agents[t.from] = true
	}
	return r.load(len(targets), len(agents))
}

// ofCrowd suits rounds of such a load, which take longer than the time-out of one probe: through execs, an answer that is late only for want
// of a processor is worth waiting for, and a question that nobody waits for may wait for others.
func (r rhythm) ofCrowd(load int) rhythm {
	r.late = 10 * time.Duration(load) * r.perProbe
	if r.gather > 0 {
		r.patience = 3 * r.timeout
		r.gather = max(r.gather, time.Duration(load)*r.perProbe/3)
	}
	return r
}

// fewProbes are so few from one agent that they take off at once.
const fewProbes = 5

// crowded tells whether a round of this load must wait for earlier ones.
func (s *sampler) crowded(load int) bool { return load >= crowd && s.aloft.Load() >= maxAloft }

// sampler sends rounds of probes for a set of targets and keeps their series.
type sampler struct {
	rhythm rhythm
	// large is true where a round of all targets is a crowd.
	large  bool
	nonces *nonces

	mu     sync.Mutex
	tracks []*track
	// resolved is signalled whenever a batch of samples was resolved.
	resolved chan struct{}
	flights  sync.WaitGroup
	recorder recorder
	// aloft is the number of rounds of which something is still under way.
	aloft atomic.Int64
	// slots are those of rhythm.aloft; nil without a bound.
	slots *semaphore.Weighted
}

func newSampler(targets []target, r rhythm, n *nonces) *sampler {
	load := r.loadOf(targets)
	large := load >= crowd
	if large {
		r = r.ofCrowd(load)
	}
	s := &sampler{rhythm: r, large: large, nonces: n, resolved: make(chan struct{}, 1)}
	if r.aloft > 0 {
		s.slots = semaphore.NewWeighted(3 * r.aloft)
	}
	for _, t := range targets {
		s.tracks = append(s.tracks, &track{target: t})
	}
	return s
}

// round sends one probe for each target that wanted selects, and returns their load once all were handed out; they resolve by and by.
func (s *sampler) round(ctx context.Context, wanted func(*track) bool) int {
	type flight struct {
		agent probes.Agent
		// weight is what it counts of rhythm.aloft, three times.
		weight  int64
		batch   []probes.Request
		tracks  []*track
		samples []*sample
	}
	var flights []*flight
	byAgent := map[probes.Agent]*flight{}
	n := 0
	s.mu.Lock()
	for _, t := range s.tracks {
		if wanted != nil && !wanted(t) {
			continue
		}
		n++
		smp := &sample{sent: time.Now()}
		t.samples = append(t.samples, smp)
		if t.unsupported != "" {
			smp.verdict, smp.reason, smp.resolved = model.Unsupported, t.unsupported, time.Now()
			continue
		}
		if t.unreachable != "" {
			smp.verdict, smp.reason, smp.resolved = model.Inconclusive, t.unreachable, time.Now()
			continue
		}
		f := byAgent[t.from]
		if f == nil {
			f = &flight{agent: t.from}
			byAgent[t.from] = f
			flights = append(flights, f)
		}
		timeout := s.rhythm.timeout
		if t.expected == model.Allow {
			timeout = max(timeout, s.rhythm.patience)
		}
		f.batch = append(f.batch, probes.Request{
			ID: int64(len(f.batch)), Nonce: s.nonces.get(), Protocol: t.conn.Protocol,
			Address: t.address, Port: t.port, TimeoutMs: timeout.Milliseconds(),
		})
		f.weight++
		if t.expected != model.Deny {
			f.weight += 2
		}
		f.tracks = append(f.tracks, t)
		f.samples = append(f.samples, smp)
	}
	s.mu.Unlock()

	s.aloft.Add(1)
	landing := atomic.Int64{}
	landing.Store(int64(len(flights)))
	if len(flights) == 0 {
		s.aloft.Add(-1)
	}
	for _, f := range flights {
		s.flights.Add(1)
		go func() {
			defer s.flights.Done()
			defer func() {
				if landing.Add(-1) == 0 {
					s.aloft.Add(-1)
					s.signal()
				}
			}()
			responses := make([]probes.Response, len(f.batch))
			answered := make([]bool, len(f.batch))
			free, err := s.clear(ctx, len(f.batch), f.weight)
			if err != nil {
				s.settleFlight(ctx, f.tracks, f.samples, f.batch, responses, answered, err)
				return
			}
			bounded, cancel := context.WithTimeout(ctx, s.rhythm.agent)
			defer cancel()
			err = f.agent.Probe(bounded, f.batch, func(r probes.Response) {
				if r.ID < 0 || r.ID >= int64(len(f.batch)) || r.Nonce != f.batch[r.ID].Nonce || answered[r.ID] {
					return // not one of ours: what it should have answered stays unknown
				}
				responses[r.ID], answered[r.ID] = r, true
				if r.Outcome == probes.Answered {
					s.resolve(f.tracks[r.ID], f.samples[r.ID], r, false)
				}
			})
			free()
			s.settleFlight(ctx, f.tracks, f.samples, f.batch, responses, answered, err)
		}()
	}
	s.signal()
	return s.rhythm.load(n, len(flights))
}

// clear waits until n probes of this weight may take off. They have landed when free is called. A few always may: those of the canaries must
// not wait for a table.
func (s *sampler) clear(ctx context.Context, n int, weight int64) (free func(), err error) {
	if s.slots == nil || n <= fewProbes {
		return func() {}, nil
	}
	weight = min(weight, 3*s.rhythm.aloft)
	if err := s.slots.Acquire(ctx, weight); err != nil {
		return nil, context.Cause(ctx)
	}
	return func() { s.slots.Release(weight) }, nil
}

// settleFlight resolves what was not answered: it asks the destinations which nonces they have seen.
func (s *sampler) settleFlight(ctx context.Context, tracks []*track, samples []*sample, batch []probes.Request, responses []probes.Response, answered []bool, probeErr error) {
	ask := map[probes.Agent][]probes.Nonce{}
	for i, t := range tracks {
		if answered[i] && responses[i].Outcome != probes.Answered {
			for _, a := range t.recorders {
				ask[a] = append(ask[a], batch[i].Nonce)
			}
		}
	}
	seen, failed := s.records(ctx, ask, s.rhythm.gather)
	for i, t := range tracks {
		r := responses[i]
		switch {
		case answered[i] && r.Outcome == probes.Answered:
		case !answered[i]:
			samples[i].void = true
			reason := "the prober gave no result"
			if probeErr != nil {
				reason += ": " + probeErr.Error()
			}
			s.fail(samples[i], reason)
		default:
			if err := anyFailed(failed, t.recorders); err != nil {
				s.fail(samples[i], "the destination could not say whether it saw the probe: "+err.Error())
				continue
			}
			s.resolve(t, samples[i], r, seen[batch[i].Nonce])
		}
	}
	s.signal()
}

// records asks every agent for its nonces, side by side; each question waits so long for those of others.
func (s *sampler) records(ctx context.Context, ask map[probes.Agent][]probes.Nonce, gather time.Duration) (seen map[probes.Nonce]bool, failed map[probes.Agent]error) {
	seen, failed = map[probes.Nonce]bool{}, map[probes.Agent]error{}
	ctx, cancel := context.WithTimeout(ctx, gather+s.rhythm.agent)
	defer cancel()
	inquiries := map[probes.Agent]*inquiry{}
	for agent, list := range ask {
		inquiries[agent] = s.recorder.ask(ctx, agent, list, gather, s.rhythm.agent)
	}
	for agent, q := range inquiries {
		select {
		case <-q.done:
		case <-ctx.Done():
			failed[agent] = context.Cause(ctx)
			continue
		}
		if q.err != nil {
			failed[agent] = q.err
		}
		for _, r := range q.found {
			seen[r.Nonce] = true
		}
	}
	return seen, failed
}

// recorder puts together what several provers ask of one destination at about the same time: a table of n by n pods would else be n
// times n calls a round.
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

// ask adds nonces to the next call to an agent. Whoever began it may have lost interest before others, so that its ctx ends nothing.
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

func (s *sampler) resolve(t *track, smp *sample, r probes.Response, seen bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	smp.response, smp.seen, smp.resolved = r, seen || r.Outcome == probes.Answered, time.Now()
	// The prober knows best when it sent, but not by a clock that contradicts what is known here.
	if r.SentAt.After(smp.sent) && r.SentAt.Before(smp.resolved) {
		smp.sent = r.SentAt
	}
	smp.verdict, smp.reason = classify(r, t.conn.Protocol, seen, t.answerers)
	smp.void = r.Outcome == probes.Error
}

func (s *sampler) fail(smp *sample, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	smp.verdict, smp.reason, smp.resolved = model.Inconclusive, reason, time.Now()
}

func (s *sampler) signal() {
	select {
	case s.resolved <- struct{}{}:
	default:
	}
}

// each calls f with every target and its series so far.
func (s *sampler) each(f func(t *track, done []sample, tail bool)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tracks {
		done, tail := t.series()
		f(t, done, tail)
	}
}

// wait blocks until every probe under way was resolved, and asks the destinations once more about all denied samples: a
// packet that arrived after its prober had given up was not denied.
func (s *sampler) wait(ctx context.Context) {
	s.flights.Wait()
	ask := map[probes.Agent][]probes.Nonce{}
	s.mu.Lock()
	for _, t := range s.tracks {
		for _, smp := range t.samples {
			if smp.verdict == model.Deny {
				for _, a := range t.recorders {
					ask[a] = append(ask[a], smp.response.Nonce)
				}
			}
		}
	}
	s.mu.Unlock()
	seen, failed := s.records(ctx, ask, 0) // nobody else asks any more
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tracks {
		err := anyFailed(failed, t.recorders)
		for _, smp := range t.samples {
			switch {
			case smp.verdict != model.Deny:
			case err != nil:
				smp.verdict, smp.reason = model.Inconclusive, "the destination could not say whether it saw the probe: "+err.Error()
			case seen[smp.response.Nonce]:
				smp.seen = true
				smp.verdict, smp.reason = classify(smp.response, t.conn.Protocol, true, t.answerers)
			}
		}
	}
}
