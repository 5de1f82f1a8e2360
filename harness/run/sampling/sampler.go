package sampling

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
)

// fewProbes are so few from one agent that they take off at once.
const fewProbes = 5

// crowded tells whether a round of this load must wait for earlier ones.
func (s *sampler) crowded(load int) bool { return load >= crowd && s.aloft.Load() >= maxAloft }

// sampler sends rounds of probes for a set of targets and keeps their series.
type sampler struct {
	rhythm Rhythm
	// large is true where a round of all targets is a crowd.
	large  bool
	nonces *Nonces

	mu     sync.Mutex
	tracks []*Track
	// resolved is signalled whenever a batch of samples was resolved.
	resolved chan struct{}
	flights  sync.WaitGroup
	recorder recorder
	// aloft is the number of rounds that still have something under way.
	aloft atomic.Int64
	// slots are those of rhythm.aloft; nil without a bound.
	slots *semaphore.Weighted
}

func newSampler(targets []Target, r Rhythm, n *Nonces) *sampler {
	load := r.loadOf(targets)
	large := load >= crowd
	if large {
		r = r.ofCrowd(load)
	}
	s := &sampler{rhythm: r, large: large, nonces: n, resolved: make(chan struct{}, 1)}
	if r.Aloft > 0 {
		s.slots = semaphore.NewWeighted(3 * r.Aloft)
	}
	for _, t := range targets {
		s.tracks = append(s.tracks, &Track{Target: t})
	}
	return s
}

// round starts one probe for each track that wanted accepts, and returns the round's load without waiting for results.
func (s *sampler) round(ctx context.Context, wanted func(*Track) bool) int {
	type flight struct {
		agent probes.Agent
		// weight is the flight's share of Rhythm.Aloft in thirds: 3 per probe that should be answered, 1 per expected
		// denial.
		weight  int64
		batch   []probes.Request
		tracks  []*Track
		samples []*Sample
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
		smp := &Sample{Sent: time.Now()}
		t.samples = append(t.samples, smp)
		if t.Unsupported != "" {
			smp.Verdict, smp.Reason, smp.Resolved = model.Unsupported, t.Unsupported, time.Now()
			continue
		}
		if t.Unreachable != "" {
			smp.Verdict, smp.Reason, smp.Resolved = model.Inconclusive, t.Unreachable, time.Now()
			continue
		}
		f := byAgent[t.From]
		if f == nil {
			f = &flight{agent: t.From}
			byAgent[t.From] = f
			flights = append(flights, f)
		}
		timeout := s.rhythm.Timeout
		if t.Expected == model.Allow {
			timeout = max(timeout, s.rhythm.Patience)
		}
		f.batch = append(f.batch, probes.Request{
			ID: int64(len(f.batch)), Nonce: s.nonces.get(), Protocol: t.Conn.Protocol,
			Address: t.Address, Port: t.Port, TimeoutMs: timeout.Milliseconds(),
		})
		f.weight++
		if t.Expected != model.Deny {
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
			bounded, cancel := context.WithTimeout(ctx, s.rhythm.Agent)
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

// clear waits until n probes of this weight may take off. They have landed when free is called. A few always may: those
// of the canaries must not wait for a table.
func (s *sampler) clear(ctx context.Context, n int, weight int64) (free func(), err error) {
	if s.slots == nil || n <= fewProbes {
		return func() {}, nil
	}
	weight = min(weight, 3*s.rhythm.Aloft)
	if err := s.slots.Acquire(ctx, weight); err != nil {
		return nil, context.Cause(ctx)
	}
	return func() { s.slots.Release(weight) }, nil
}

// settleFlight resolves what was not answered: it asks the destinations which nonces they have seen.
func (s *sampler) settleFlight(ctx context.Context, tracks []*Track, samples []*Sample, batch []probes.Request, responses []probes.Response, answered []bool, probeErr error) {
	ask := map[probes.Agent][]probes.Nonce{}
	for i, t := range tracks {
		if answered[i] && responses[i].Outcome != probes.Answered {
			for _, a := range t.Recorders {
				ask[a] = append(ask[a], batch[i].Nonce)
			}
		}
	}
	seen, failed := s.records(ctx, ask, s.rhythm.Gather)
	for i, t := range tracks {
		r := responses[i]
		switch {
		case answered[i] && r.Outcome == probes.Answered:
		case !answered[i]:
			samples[i].Void = true
			reason := "the prober gave no result"
			if probeErr != nil {
				reason += ": " + probeErr.Error()
			}
			s.fail(samples[i], reason)
		default:
			if err := anyFailed(failed, t.Recorders); err != nil {
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
	ctx, cancel := context.WithTimeout(ctx, gather+s.rhythm.Agent)
	defer cancel()
	inquiries := map[probes.Agent]*inquiry{}
	for agent, list := range ask {
		inquiries[agent] = s.recorder.ask(ctx, agent, list, gather, s.rhythm.Agent)
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

func (s *sampler) resolve(t *Track, smp *Sample, r probes.Response, seen bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	smp.Response, smp.Seen, smp.Resolved = r, seen || r.Outcome == probes.Answered, time.Now()
	// The prober knows best when it sent, but not by a clock that contradicts what is known here.
	if r.SentAt.After(smp.Sent) && r.SentAt.Before(smp.Resolved) {
		smp.Sent = r.SentAt
	}
	smp.Verdict, smp.Reason = classify(r, t.Conn.Protocol, seen, t.Answerers)
	smp.Void = r.Outcome == probes.Error
}

func (s *sampler) fail(smp *Sample, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	smp.Verdict, smp.Reason, smp.Resolved = model.Inconclusive, reason, time.Now()
}

func (s *sampler) signal() {
	select {
	case s.resolved <- struct{}{}:
	default:
	}
}

// each calls f with every target and its series so far.
func (s *sampler) each(f func(t *Track, done []Sample, tail bool)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tracks {
		done, tail := t.Series()
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
			if smp.Verdict == model.Deny {
				for _, a := range t.Recorders {
					ask[a] = append(ask[a], smp.Response.Nonce)
				}
			}
		}
	}
	s.mu.Unlock()
	seen, failed := s.records(ctx, ask, 0) // nobody else asks any more
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tracks {
		err := anyFailed(failed, t.Recorders)
		for _, smp := range t.samples {
			switch {
			case smp.Verdict != model.Deny:
			case err != nil:
				smp.Verdict, smp.Reason = model.Inconclusive, "the destination could not say whether it saw the probe: "+err.Error()
			case seen[smp.Response.Nonce]:
				smp.Seen = true
				smp.Verdict, smp.Reason = classify(smp.Response, t.Conn.Protocol, true, t.Answerers)
			}
		}
	}
}

// unanswered names the targets that were not answered yet; when there are none, last is when the last one was.
func (s *sampler) unanswered() (missing []string, last time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tracks {
		at := t.answeredAt()
		if at.IsZero() {
			missing = append(missing, fmt.Sprintf("%s (%s)", t.Conn.To, t.Conn.IPFamily))
		} else if at.After(last) {
			last = at
		}
	}
	return missing, last
}

// look judges every series so far. open counts those that have not settled; agreed is true when the last sample of each
// is as expected.
func (s *sampler) look(p Settling, barrier time.Time) (open int, agreed bool) {
	agreed = true
	s.each(func(t *Track, series []Sample, _ bool) {
		st := p.Judge(series, barrier, t.Expected)
		switch {
		case !st.OK && t.Unreachable == "":
			open++
		case t.SettledAs == "" && (st.Verdict == model.Allow || st.Verdict == model.Deny): // what could not be told may be told later
			t.SettledAs = st.Verdict
		}
		agreed = agreed && len(series) > 0 && (t.Expected == model.Undefined || series[len(series)-1].Verdict == t.Expected)
	})
	return open, agreed
}
