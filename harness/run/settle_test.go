package run

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
)

// seriesOf makes a series out of a string, one sample every 50 ms: a allow, d deny, i inconclusive, u unsupported.
func seriesOf(s string, start time.Time) []sample {
	verdicts := map[rune]model.Verdict{'a': model.Allow, 'd': model.Deny, 'i': model.Inconclusive, 'u': model.Unsupported, 'v': model.Inconclusive}
	var out []sample
	for i, r := range s {
		sent := start.Add(time.Duration(i) * 50 * time.Millisecond)
		out = append(out, sample{sent: sent, resolved: sent.Add(time.Millisecond), verdict: verdicts[r], void: r == 'v'})
	}
	return out
}

func TestSettling(t *testing.T) {
	start := time.Unix(1000, 0)
	p := settling{minSamples: 3, window: 100 * time.Millisecond, mismatchWindow: 400 * time.Millisecond}
	cases := []struct {
		name     string
		series   string
		barrier  int // index of the first sample after it
		expected model.Verdict
		ok       bool
		verdict  model.Verdict
		samples  int
		flips    int
	}{
		{name: "nothing sampled settles nothing", series: "", expected: model.Deny},
		{name: "three agreeing samples over the window settle", series: "ddd", expected: model.Deny, ok: true, verdict: model.Deny, samples: 3},
		{name: "two samples do not", series: "dd", expected: model.Deny, verdict: model.Deny, samples: 2},
		{name: "samples before the barrier do not count", series: "dddd", barrier: 2, expected: model.Deny, verdict: model.Deny, samples: 4},
		{name: "a change before the barrier is the change that was asked for", series: "aaddd", barrier: 2, expected: model.Deny, ok: true, verdict: model.Deny, samples: 3},
		{name: "one late change is not flapping", series: "aaddd", barrier: 1, expected: model.Deny, ok: true, verdict: model.Deny, samples: 3, flips: 1},
		{name: "changing to and fro is", series: "dadaddd", expected: model.Deny, ok: true, verdict: model.Deny, samples: 3, flips: 4},
		{name: "a mismatch needs the longer window", series: "aaaa", expected: model.Deny, verdict: model.Allow, samples: 4},
		{name: "and settles after it", series: "aaaaaaaaa", expected: model.Deny, ok: true, verdict: model.Allow, samples: 9},
		{name: "an undefined case settles either way", series: "aaa", expected: model.Undefined, ok: true, verdict: model.Allow, samples: 3},
		{name: "an inconclusive sample breaks the agreement", series: "ddid", expected: model.Deny, verdict: model.Deny, samples: 1},
		{name: "a void sample does not", series: "ddvd", expected: model.Deny, ok: true, verdict: model.Deny, samples: 3},
		{name: "nothing but void samples prove nothing", series: "vvvv", expected: model.Deny, verdict: model.Inconclusive, samples: 4},
		{name: "an unsupported probe settles as such", series: "uuu", expected: model.Deny, ok: true, verdict: model.Unsupported, samples: 3},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := p.judge(seriesOf(c.series, start), start.Add(time.Duration(c.barrier)*50*time.Millisecond), c.expected)
			assert.Equal(t, c.ok, got.ok, "settled")
			assert.Equal(t, c.verdict, got.verdict)
			assert.Equal(t, c.samples, got.samples, "agreeing samples")
			assert.Equal(t, c.flips, got.flips, "flips")
		})
	}
}

func TestSeriesStopsAtAProbeUnderWay(t *testing.T) {
	now := time.Unix(1000, 0)
	tr := track{samples: []*sample{
		{sent: now, resolved: now, verdict: model.Deny},
		{sent: now},
		{sent: now, resolved: now, verdict: model.Allow},
	}}
	done, whole := tr.series()
	assert.Len(t, done, 1, "an answered probe must not overtake a pending one")
	assert.False(t, whole)
}

// A node that is stuck admits for ever what it admitted last, and must never be taken for one that has followed.
func TestTheBarrierUsesNoPortThatAStuckNodeMayAdmit(t *testing.T) {
	c := &canary{ports: []int{canaryTurn}}
	for range canaryTurns - 1 {
		c.turn++
		port, ok := c.freePort()
		assert.True(t, ok)
		assert.NotContains(t, c.ports, port)
		c.ports = append(c.ports, port)
	}
	c.turn++
	_, ok := c.freePort()
	assert.False(t, ok, "with no port left nothing can be confirmed")
	_, err := c.barrier(t.Context(), rhythm{})
	assert.ErrorIs(t, err, errNotConfirmed)
}

// Only samples that were sent after the barrier settle a cell: a clock that is wrong must not make one later than it was.
func TestTheTimeOfASampleIsNotTakenFromAClockThatIsWrong(t *testing.T) {
	for name, c := range map[string]struct{ off, want time.Duration }{
		"a time in between is the prober's": {off: time.Millisecond, want: time.Millisecond},
		"one before the request is not":     {off: -time.Hour},
		"nor one in the future":             {off: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			requested := time.Now().Add(-time.Second)
			smp := &sample{sent: requested}
			s := &sampler{}
			s.resolve(&track{}, smp, probes.Response{Outcome: probes.Timeout, Sent: true, SentAt: requested.Add(c.off)}, false)
			assert.Equal(t, requested.Add(c.want), smp.sent)
		})
	}
}

func TestClassify(t *testing.T) {
	b := probes.Identity{Endpoint: "x/b", UID: "1"}
	cases := []struct {
		name     string
		response probes.Response
		seen     bool
		want     model.Verdict
	}{
		{"the destination's answer allows", probes.Response{Outcome: probes.Answered, By: b}, true, model.Allow},
		{"another pod's answer does not", probes.Response{Outcome: probes.Answered, By: probes.Identity{Endpoint: "x/c", UID: "2"}}, true, model.Inconclusive},
		{"a pod of the same name but another UID does not", probes.Response{Outcome: probes.Answered, By: probes.Identity{Endpoint: "x/b", UID: "2"}}, true, model.Inconclusive},
		{"silence denies", probes.Response{Outcome: probes.Timeout, Sent: true}, false, model.Deny},
		{"a reset denies", probes.Response{Outcome: probes.Reset, Sent: true}, false, model.Deny},
		{"an ICMP error denies", probes.Response{Outcome: probes.Prohibited, Sent: true}, false, model.Deny},
		{"silence after the server saw the probe does not", probes.Response{Outcome: probes.Timeout, Sent: true}, true, model.Inconclusive},
		{"silence after the handshake does not", probes.Response{Outcome: probes.Timeout, Sent: true, Connected: true}, false, model.Inconclusive},
		{"what was not sent was not denied", probes.Response{Outcome: probes.Timeout}, false, model.Inconclusive},
		{"a prober's error denies nothing", probes.Response{Outcome: probes.Error, Errno: "EMFILE"}, false, model.Inconclusive},
		{"a wrong answer denies nothing", probes.Response{Outcome: probes.WrongAnswer, Sent: true}, false, model.Inconclusive},
		{"a missing kernel feature is unsupported", probes.Response{Outcome: probes.Unsupported}, false, model.Unsupported},
		{"an unknown outcome denies nothing", probes.Response{Outcome: "", Sent: true}, false, model.Inconclusive},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, reason := classify(c.response, model.SCTP, c.seen, []probes.Identity{b})
			assert.Equal(t, c.want, got)
			if got != model.Allow && got != model.Deny {
				assert.NotEmpty(t, reason, "whatever proves nothing says why")
			}
		})
	}
}

func TestOnlySCTPCanBeUnsupported(t *testing.T) {
	for _, protocol := range []model.Protocol{model.TCP, model.UDP} {
		got, reason := classify(probes.Response{Outcome: probes.Unsupported}, protocol, false, nil)
		assert.Equal(t, model.Inconclusive, got, protocol)
		assert.Contains(t, reason, protocol)
	}
}

func TestVerdictNeedsItsControls(t *testing.T) {
	denied := settled{ok: true, verdict: model.Deny, samples: 3}
	allowed := settled{ok: true, verdict: model.Allow, samples: 3}
	cases := []struct {
		name     string
		st       settled
		as       model.Verdict
		expected model.Verdict
		doubts   doubts
		observed model.Verdict
		result   model.Result
	}{
		{"a proven denial passes", denied, model.Deny, model.Deny, doubts{}, model.Deny, model.Passed},
		{"a proven leak fails", allowed, model.Allow, model.Deny, doubts{}, model.Allow, model.Failed},
		{"a proven cut fails", denied, model.Deny, model.Allow, doubts{}, model.Deny, model.Failed},
		{"no denial without canary", denied, model.Deny, model.Deny, doubts{enforcement: "canary"}, model.Inconclusive, model.ResultInconclusive},
		{"no mismatch without canary", allowed, model.Allow, model.Deny, doubts{enforcement: "canary"}, model.Inconclusive, model.ResultInconclusive},
		{"an answer needs no canary", allowed, model.Allow, model.Allow, doubts{enforcement: "canary"}, model.Allow, model.Passed},
		{"no denial with a dead server", denied, model.Deny, model.Deny, doubts{denial: "dead"}, model.Inconclusive, model.ResultInconclusive},
		{"no cut with a dead server", denied, model.Deny, model.Allow, doubts{denial: "dead"}, model.Inconclusive, model.ResultInconclusive},
		{"an answer shows that the server lives", allowed, model.Allow, model.Allow, doubts{denial: "dead"}, model.Allow, model.Passed},
		{"nothing is proven on changed ground", allowed, model.Allow, model.Allow, doubts{all: "replaced"}, model.Inconclusive, model.ResultInconclusive},
		{"flapping is flaky", settled{ok: true, verdict: model.Deny, samples: 3, flips: 2}, model.Deny, model.Deny, doubts{}, model.Deny, model.Flaky},
		{"changing after having settled is flaky", settled{verdict: model.Allow, samples: 1}, model.Deny, model.Deny, doubts{}, model.Allow, model.Flaky},
		{"what never settled is inconclusive", settled{verdict: model.Deny, samples: 2}, "", model.Deny, doubts{}, model.Inconclusive, model.ResultInconclusive},
		{"what was never probed is inconclusive", settled{}, "", model.Allow, doubts{}, model.Inconclusive, model.ResultInconclusive},
		{"an undefined case is recorded", denied, model.Deny, model.Undefined, doubts{}, model.Deny, model.Recorded},
		{"an undefined denial needs its proof as well", denied, model.Deny, model.Undefined, doubts{denial: "dead"}, model.Inconclusive, model.ResultInconclusive},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			observed, result, reason := verdictOf(c.st, c.as, sample{reason: "x"}, c.expected, c.doubts, time.Second)
			assert.Equal(t, c.observed, observed)
			assert.Equal(t, c.result, result)
			if result != model.Passed {
				assert.NotEmpty(t, reason)
			}
		})
	}
}

func TestWhatWasNeverProbedSaysWhatWasWaitedFor(t *testing.T) {
	_, _, reason := verdictOf(settled{}, "", sample{}, model.Deny, doubts{enforcement: "not every node took up the change"}, time.Second)
	assert.Equal(t, "not every node took up the change", reason)
	_, _, reason = verdictOf(settled{}, "", sample{}, model.Deny, doubts{}, time.Second)
	assert.Equal(t, "never probed", reason)
}

func TestSideBySideJoinsErrors(t *testing.T) {
	one, two := errors.New("one"), errors.New("two")
	err := sideBySide(1, func() error { return one }, func() error { return nil }, func() error { return two })
	assert.ErrorIs(t, err, one)
	assert.ErrorIs(t, err, two)
}
