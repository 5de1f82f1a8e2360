package sampling

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
)

// fakeMemory is an agent with a memory only; it says to have seen every nonce that begins with seen.
type fakeMemory struct {
	probes.Agent
	calls, nonces atomic.Int64
	err           error
}

func (a *fakeMemory) Records(_ context.Context, nonces []probes.Nonce) (out []probes.Record, err error) {
	a.calls.Add(1)
	a.nonces.Add(int64(len(nonces)))
	for _, n := range nonces {
		if n[:4] == "seen" {
			out = append(out, probes.Record{Nonce: n})
		}
	}
	return out, a.err
}

func TestQuestionsOfOneRoundForOneDestinationAreOneCall(t *testing.T) {
	one, broken := &fakeMemory{}, &fakeMemory{err: errors.New("it is gone")}
	s := newSampler(nil, Rhythm{Agent: time.Minute, Gather: 100 * time.Millisecond}, &Nonces{})
	var wg sync.WaitGroup
	for _, mine := range []probes.Nonce{"seen-1", "lost-2", "seen-3"} {
		wg.Go(func() {
			seen, failed := s.records(t.Context(), map[probes.Agent][]probes.Nonce{one: {mine}, broken: {mine}}, s.rhythm.Gather)
			assert.Equal(t, mine[:4] == "seen", seen[mine])
			require.ErrorContains(t, failed[broken], "it is gone")
			assert.NoError(t, failed[one])
		})
	}
	wg.Wait()
	assert.EqualValues(t, 1, one.calls.Load(), "three provers ask at the same time")
	assert.EqualValues(t, 3, one.nonces.Load())

	_, _ = s.records(t.Context(), map[probes.Agent][]probes.Nonce{one: {"lost-4"}}, s.rhythm.Gather)
	assert.EqualValues(t, 2, one.calls.Load(), "what is asked later is asked for itself")
}

func TestWhoeverStopsAskingDoesNotStopTheOthers(t *testing.T) {
	one := &fakeMemory{}
	s := newSampler(nil, Rhythm{Agent: time.Minute, Gather: 100 * time.Millisecond}, &Nonces{})
	first, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		_, failed := s.records(first, map[probes.Agent][]probes.Nonce{one: {"seen-1"}}, s.rhythm.Gather)
		assert.ErrorIs(t, failed[one], context.Canceled)
	})
	wg.Go(func() {
		seen, failed := s.records(t.Context(), map[probes.Agent][]probes.Nonce{one: {"seen-2"}}, s.rhythm.Gather)
		assert.Empty(t, failed)
		assert.True(t, seen["seen-2"])
	})
	cancel()
	wg.Wait()
}

func TestRoundsOfManyProbesDoNotPileUp(t *testing.T) {
	s := newSampler(nil, Rhythm{}, &Nonces{})
	assert.False(t, s.crowded(crowd))
	s.aloft.Store(maxAloft)
	assert.True(t, s.crowded(crowd))
	assert.False(t, s.crowded(crowd-1), "small ones may: they cost nothing, and time-outs take long")
}

func TestACellThatCouldNotBeToldAtFirstIsNotFlaky(t *testing.T) {
	s := newSampler([]Target{{Expected: model.Deny}}, Rhythm{}, &Nonces{})
	began := time.Now()
	add := func(v model.Verdict) {
		at := began.Add(time.Duration(len(s.tracks[0].samples)) * time.Second)
		s.tracks[0].samples = append(s.tracks[0].samples, &Sample{Sent: at, Resolved: at, Verdict: v})
	}
	p := Settling{MinSamples: 3, Window: time.Second, MismatchWindow: time.Second}
	for range 3 {
		add(model.Inconclusive)
	}
	open, _ := s.look(p, began)
	assert.Zero(t, open, "nothing else came")
	assert.Empty(t, s.tracks[0].SettledAs)
	for range 3 {
		add(model.Deny)
	}
	open, _ = s.look(p, began)
	assert.Zero(t, open)
	assert.Equal(t, model.Deny, s.tracks[0].SettledAs)
}

func TestACellOfALargeTableIsNotAskedMoreThanItTakes(t *testing.T) {
	barrier := time.Now()
	p := Settling{MinSamples: 3, Window: time.Second}
	at := func(ms int, v model.Verdict) *Sample {
		smp := &Sample{Sent: barrier.Add(time.Duration(ms) * time.Millisecond), Verdict: v}
		if v != "" {
			smp.Resolved = smp.Sent.Add(time.Millisecond)
		}
		return smp
	}
	for name, tc := range map[string]struct {
		samples []*Sample
		want    bool
	}{
		"enough, and none is back":            {[]*Sample{at(0, ""), at(500, ""), at(1000, "")}, true},
		"enough, and some are back":           {[]*Sample{at(0, model.Deny), at(500, model.Deny), at(1000, "")}, true},
		"too few":                             {[]*Sample{at(0, ""), at(1000, "")}, false},
		"too close":                           {[]*Sample{at(0, ""), at(500, ""), at(900, "")}, false},
		"some before the barrier":             {[]*Sample{at(-10, ""), at(500, ""), at(1000, "")}, false},
		"one is not as expected":              {[]*Sample{at(0, model.Allow), at(500, ""), at(1000, "")}, false},
		"one that was, before the barrier":    {[]*Sample{at(-10, model.Allow), at(0, ""), at(500, ""), at(1000, "")}, true},
		"one could not be told":               {[]*Sample{at(0, model.Inconclusive), at(500, ""), at(1000, "")}, false},
		"one was not tried, and is no sample": {[]*Sample{{Sent: barrier, Resolved: barrier, Void: true}, at(500, ""), at(1000, "")}, false},
	} {
		t.Run(name, func(t *testing.T) {
			track := &Track{Target: Target{Expected: model.Deny}, samples: tc.samples}
			assert.Equal(t, tc.want, track.enough(p, barrier))
		})
	}
}

// slowProber is an agent whose probes are answered when land is closed; it counts those that are under way, and keeps
// their time-outs.
type slowProber struct {
	probes.Agent
	land        chan struct{}
	aloft, most *atomic.Int64
	mu          sync.Mutex
	timeouts    []int64
}

func (a *slowProber) Probe(_ context.Context, batch []probes.Request, deliver func(probes.Response)) error {
	now := a.aloft.Add(int64(len(batch)))
	defer a.aloft.Add(-int64(len(batch)))
	for most := a.most.Load(); now > most && !a.most.CompareAndSwap(most, now); most = a.most.Load() {
	}
	<-a.land
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range batch {
		a.timeouts = append(a.timeouts, r.TimeoutMs)
		deliver(probes.Response{ID: r.ID, Nonce: r.Nonce, Outcome: probes.Answered})
	}
	return nil
}

func TestNoMoreProbesAreAloftThanTheAgentsCanBear(t *testing.T) {
	for name, tc := range map[string]struct {
		expected model.Verdict
		aloft    int64
		want     int64
	}{
		"those that are answered":         {model.Allow, 20, 20},
		"those of which nothing is known": {model.Undefined, 20, 20},
		"those that are denied":           {model.Deny, 20, 60},
		"more from one agent than may be": {model.Allow, 7, 10},
		"where somebody else bounds them": {model.Allow, 0, 300},
	} {
		t.Run(name, func(t *testing.T) {
			var aloft, most atomic.Int64
			var targets []Target
			land := make(chan struct{})
			for range 30 {
				agent := &slowProber{land: land, aloft: &aloft, most: &most}
				for range 10 {
					targets = append(targets, Target{From: agent, Expected: tc.expected})
				}
			}
			s := newSampler(targets, Rhythm{Agent: time.Minute, Aloft: tc.aloft}, &Nonces{})
			assert.Equal(t, len(targets), s.round(t.Context(), nil), "it does not wait for them")
			assert.Eventually(t, func() bool { return aloft.Load() == tc.want }, time.Minute, time.Millisecond, "as many as may be")
			close(land)
			s.flights.Wait()
			assert.Equal(t, tc.want, most.Load())
			for _, track := range s.tracks {
				assert.False(t, track.samples[0].Resolved.IsZero())
			}
		})
	}
}

func TestWhatWaitsForOthersEndsWithTheRun(t *testing.T) {
	var aloft, most atomic.Int64
	s := newSampler([]Target{{From: &slowProber{aloft: &aloft, most: &most}}}, Rhythm{Agent: time.Minute, Aloft: 1}, &Nonces{})
	require.NoError(t, s.slots.Acquire(t.Context(), 3))
	ended, end := context.WithCancelCause(t.Context())
	end(errors.New("the user has had enough"))
	_, err := s.clear(ended, fewProbes+1, 1)
	require.ErrorContains(t, err, "the user has had enough")
	free, err := s.clear(ended, fewProbes, 1)
	require.NoError(t, err, "a few take off at once")
	free()
}

func TestInACrowdWhatShouldBeAnsweredHasMoreTime(t *testing.T) {
	var aloft, most atomic.Int64
	agent := &slowProber{land: make(chan struct{}), aloft: &aloft, most: &most}
	close(agent.land)
	timeouts := func(n int, gather time.Duration, expected model.Verdict) []int64 {
		agent.timeouts = nil
		targets := slices.Repeat([]Target{{From: agent, Expected: expected}}, n)
		s := newSampler(targets, Rhythm{Agent: time.Minute, Timeout: 300 * time.Millisecond, PerProbe: 300 * time.Microsecond, Gather: gather}, &Nonces{})
		s.round(t.Context(), nil)
		s.flights.Wait()
		if load := s.rhythm.load(n, 1); load >= crowd && gather > 0 {
			assert.Equal(t, time.Duration(load)*100*time.Microsecond, s.rhythm.Gather, "and questions wait longer for others")
		} else {
			assert.Equal(t, gather, s.rhythm.Gather)
		}
		return slices.Compact(agent.timeouts)
	}
	assert.Equal(t, []int64{900}, timeouts(crowd, time.Millisecond, model.Allow))
	assert.Equal(t, []int64{300}, timeouts(crowd, time.Millisecond, model.Deny), "a time-out is all that comes of it")
	assert.Equal(t, []int64{300}, timeouts(crowd-callLoad-1, time.Millisecond, model.Allow))
	assert.Equal(t, []int64{300}, timeouts(crowd, 0, model.Allow), "agents in this process know when they are starved")
}

func TestAgentsThatAreCalledThroughExecsAreALoad(t *testing.T) {
	near, far := Rhythm{}, Rhythm{Gather: time.Millisecond}
	one, two := &fakeMemory{}, &fakeMemory{}
	targets := []Target{{From: one}, {From: two}, {From: one}}
	assert.Equal(t, 3, near.loadOf(targets))
	assert.Equal(t, 3+2*callLoad, far.loadOf(targets))
}

func TestServersThatAnsweredNeedNoLook(t *testing.T) {
	since := time.Now()
	before, after := since.Add(-time.Second), since.Add(time.Second)
	allowed, denied := model.Allow, model.Deny
	ports := func(model.Endpoint) []model.Port {
		return []model.Port{{Number: 80, Protocol: model.TCP}, {Number: 80, Protocol: model.UDP}}
	}
	cell := func(via model.Via, protocol model.Protocol, samples ...*Sample) *Track {
		return &Track{
			Target: Target{
				Conn:      model.Connection{To: "x/a", Port: 80, Protocol: protocol, Via: via},
				Expected:  model.Allow,
				Answerers: []probes.Identity{{Endpoint: "x/a"}},
			},
			samples: samples,
		}
	}
	at := func(v model.Verdict, sent, resolved time.Time) *Sample {
		return &Sample{Verdict: v, Sent: sent, Resolved: resolved}
	}
	answered := at(allowed, after, after)
	udp := cell(model.ViaPodIP, model.UDP, answered)
	denial := cell(model.ViaPodIP, model.TCP, answered)
	denial.Expected = model.Deny
	for _, c := range []struct {
		name   string
		tracks []*Track
		shown  bool
	}{
		{"each of its ports answered", []*Track{udp, cell(model.ViaPodIP, model.TCP, at(denied, before, before), answered)}, true},
		{"one did not", []*Track{udp}, false},
		{"one answered what was sent before", []*Track{udp, cell(model.ViaPodIP, model.TCP, at(allowed, before, after))}, false},
		{"one was not heard of yet", []*Track{udp, cell(model.ViaPodIP, model.TCP, at("", after, time.Time{}))}, false},
		{"somebody should have been denied", []*Track{udp, denial}, false},
		{"somebody was denied", []*Track{udp, cell(model.ViaPodIP, model.TCP, answered, at(denied, before, after))}, false},
		{"somebody was, behind a service", []*Track{udp, cell(model.ViaPodIP, model.TCP, answered), cell(model.ViaService, model.TCP, at(denied, after, after))}, false},
		{"nobody can tell what became of a probe", []*Track{udp, cell(model.ViaPodIP, model.TCP, answered, at(model.Inconclusive, after, after))}, false},
		{"one answered behind a service", []*Track{udp, cell(model.ViaService, model.TCP, answered)}, false},
	} {
		s := &sampler{tracks: c.tracks}
		assert.Equal(t, c.shown, s.shown(since, ports)["x/a"], c.name)
	}
}
