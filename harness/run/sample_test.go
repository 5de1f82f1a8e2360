package run

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
)

// fakeMemory is an agent of which only the memory is asked; it says to have seen every nonce that begins with seen.
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
	s := newSampler(nil, rhythm{agent: time.Minute, gather: 100 * time.Millisecond}, &nonces{})
	var wg sync.WaitGroup
	for _, mine := range []probes.Nonce{"seen-1", "lost-2", "seen-3"} {
		wg.Go(func() {
			seen, failed := s.records(t.Context(), map[probes.Agent][]probes.Nonce{one: {mine}, broken: {mine}})
			assert.Equal(t, mine[:4] == "seen", seen[mine])
			require.ErrorContains(t, failed[broken], "it is gone")
			assert.NoError(t, failed[one])
		})
	}
	wg.Wait()
	assert.EqualValues(t, 1, one.calls.Load(), "three provers ask at the same time")
	assert.EqualValues(t, 3, one.nonces.Load())

	_, _ = s.records(t.Context(), map[probes.Agent][]probes.Nonce{one: {"lost-4"}})
	assert.EqualValues(t, 2, one.calls.Load(), "what is asked later is asked for itself")
}

func TestWhoeverStopsAskingDoesNotStopTheOthers(t *testing.T) {
	one := &fakeMemory{}
	s := newSampler(nil, rhythm{agent: time.Minute, gather: 100 * time.Millisecond}, &nonces{})
	first, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		_, failed := s.records(first, map[probes.Agent][]probes.Nonce{one: {"seen-1"}})
		assert.ErrorIs(t, failed[one], context.Canceled)
	})
	wg.Go(func() {
		seen, failed := s.records(t.Context(), map[probes.Agent][]probes.Nonce{one: {"seen-2"}})
		assert.Empty(t, failed)
		assert.True(t, seen["seen-2"])
	})
	cancel()
	wg.Wait()
}

func TestRoundsOfManyProbesDoNotPileUp(t *testing.T) {
	s := newSampler(nil, rhythm{}, &nonces{})
	assert.False(t, s.crowded(crowd))
	s.aloft.Store(maxAloft)
	assert.True(t, s.crowded(crowd))
	assert.False(t, s.crowded(crowd-1), "small ones may: they cost nothing, and time-outs take long")
}

func TestACellThatCouldNotBeToldAtFirstIsNotFlaky(t *testing.T) {
	s := newSampler([]target{{expected: model.Deny}}, rhythm{}, &nonces{})
	began := time.Now()
	add := func(v model.Verdict) {
		at := began.Add(time.Duration(len(s.tracks[0].samples)) * time.Second)
		s.tracks[0].samples = append(s.tracks[0].samples, &sample{sent: at, resolved: at, verdict: v})
	}
	p := settling{minSamples: 3, window: time.Second, mismatchWindow: time.Second}
	for range 3 {
		add(model.Inconclusive)
	}
	open, _ := s.look(p, began)
	assert.Zero(t, open, "nothing else came")
	assert.Empty(t, s.tracks[0].settledAs)
	for range 3 {
		add(model.Deny)
	}
	open, _ = s.look(p, began)
	assert.Zero(t, open)
	assert.Equal(t, model.Deny, s.tracks[0].settledAs)
}

func TestACellOfALargeTableIsNotAskedMoreThanItTakes(t *testing.T) {
	barrier := time.Now()
	p := settling{minSamples: 3, window: time.Second}
	at := func(ms int, v model.Verdict) *sample {
		smp := &sample{sent: barrier.Add(time.Duration(ms) * time.Millisecond), verdict: v}
		if v != "" {
			smp.resolved = smp.sent.Add(time.Millisecond)
		}
		return smp
	}
	for name, tc := range map[string]struct {
		samples []*sample
		want    bool
	}{
		"enough, and none is back":            {[]*sample{at(0, ""), at(500, ""), at(1000, "")}, true},
		"enough, and some are back":           {[]*sample{at(0, model.Deny), at(500, model.Deny), at(1000, "")}, true},
		"too few":                             {[]*sample{at(0, ""), at(1000, "")}, false},
		"too close":                           {[]*sample{at(0, ""), at(500, ""), at(900, "")}, false},
		"some before the barrier":             {[]*sample{at(-10, ""), at(500, ""), at(1000, "")}, false},
		"one is not as expected":              {[]*sample{at(0, model.Allow), at(500, ""), at(1000, "")}, false},
		"one that was, before the barrier":    {[]*sample{at(-10, model.Allow), at(0, ""), at(500, ""), at(1000, "")}, true},
		"one could not be told":               {[]*sample{at(0, model.Inconclusive), at(500, ""), at(1000, "")}, false},
		"one was not tried, and is no sample": {[]*sample{{sent: barrier, void: true}, at(500, ""), at(1000, "")}, false},
	} {
		t.Run(name, func(t *testing.T) {
			track := &track{target: target{expected: model.Deny}, samples: tc.samples}
			assert.Equal(t, tc.want, track.enough(p, barrier))
		})
	}
}
