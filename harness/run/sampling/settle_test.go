package sampling

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
)

// seriesOf makes a series out of a string, one sample every 50 ms: a allow, d deny, i inconclusive, u unsupported.
func seriesOf(s string, start time.Time) []Sample {
	verdicts := map[rune]model.Verdict{'a': model.Allow, 'd': model.Deny, 'i': model.Inconclusive, 'u': model.Unsupported, 'v': model.Inconclusive}
	var out []Sample
	for i, r := range s {
		sent := start.Add(time.Duration(i) * 50 * time.Millisecond)
		out = append(out, Sample{Sent: sent, Resolved: sent.Add(time.Millisecond), Verdict: verdicts[r], Void: r == 'v'})
	}
	return out
}

func TestSettling(t *testing.T) {
	start := time.Unix(1000, 0)
	p := Settling{MinSamples: 3, Window: 100 * time.Millisecond, MismatchWindow: 400 * time.Millisecond}
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
			got := p.Judge(seriesOf(c.series, start), start.Add(time.Duration(c.barrier)*50*time.Millisecond), c.expected)
			assert.Equal(t, c.ok, got.OK, "settled")
			assert.Equal(t, c.verdict, got.Verdict)
			assert.Equal(t, c.samples, got.Samples, "agreeing samples")
			assert.Equal(t, c.flips, got.Flips, "flips")
		})
	}
}

func TestSeriesStopsAtAProbeUnderWay(t *testing.T) {
	now := time.Unix(1000, 0)
	tr := Track{samples: []*Sample{
		{Sent: now, Resolved: now, Verdict: model.Deny},
		{Sent: now},
		{Sent: now, Resolved: now, Verdict: model.Allow},
	}}
	done, whole := tr.Series()
	assert.Len(t, done, 1, "an answered probe must not overtake a pending one")
	assert.False(t, whole)
}

// Only samples that were sent after the barrier settle a cell: a clock that is wrong must not make one later than it
// was.
func TestTheTimeOfASampleIsNotTakenFromAClockThatIsWrong(t *testing.T) {
	for name, c := range map[string]struct{ off, want time.Duration }{
		"a time in between is the prober's": {off: time.Millisecond, want: time.Millisecond},
		"one before the request is not":     {off: -time.Hour},
		"nor one in the future":             {off: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			requested := time.Now().Add(-time.Second)
			smp := &Sample{Sent: requested}
			s := &sampler{}
			s.resolve(&Track{}, smp, probes.Response{Outcome: probes.Timeout, Sent: true, SentAt: requested.Add(c.off)}, false)
			assert.Equal(t, requested.Add(c.want), smp.Sent)
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
	denied := Settled{OK: true, Verdict: model.Deny, Samples: 3}
	allowed := Settled{OK: true, Verdict: model.Allow, Samples: 3}
	cases := []struct {
		name     string
		st       Settled
		as       model.Verdict
		expected model.Verdict
		doubts   Doubts
		observed model.Verdict
		result   model.Result
	}{
		{"a proven denial passes", denied, model.Deny, model.Deny, Doubts{}, model.Deny, model.Passed},
		{"a proven leak fails", allowed, model.Allow, model.Deny, Doubts{}, model.Allow, model.Failed},
		{"a proven cut fails", denied, model.Deny, model.Allow, Doubts{}, model.Deny, model.Failed},
		{"no denial without canary", denied, model.Deny, model.Deny, Doubts{Enforcement: "canary"}, model.Inconclusive, model.ResultInconclusive},
		{"no mismatch without canary", allowed, model.Allow, model.Deny, Doubts{Enforcement: "canary"}, model.Inconclusive, model.ResultInconclusive},
		{"an answer needs no canary", allowed, model.Allow, model.Allow, Doubts{Enforcement: "canary"}, model.Allow, model.Passed},
		{"no denial with a dead server", denied, model.Deny, model.Deny, Doubts{Denial: "dead"}, model.Inconclusive, model.ResultInconclusive},
		{"no cut with a dead server", denied, model.Deny, model.Allow, Doubts{Denial: "dead"}, model.Inconclusive, model.ResultInconclusive},
		{"an answer shows that the server lives", allowed, model.Allow, model.Allow, Doubts{Denial: "dead"}, model.Allow, model.Passed},
		{"nothing is proven on changed ground", allowed, model.Allow, model.Allow, Doubts{All: "replaced"}, model.Inconclusive, model.ResultInconclusive},
		{"flapping is flaky", Settled{OK: true, Verdict: model.Deny, Samples: 3, Flips: 2}, model.Deny, model.Deny, Doubts{}, model.Deny, model.Flaky},
		{"changing after having settled is flaky", Settled{Verdict: model.Allow, Samples: 1}, model.Deny, model.Deny, Doubts{}, model.Allow, model.Flaky},
		{"what never settled is inconclusive", Settled{Verdict: model.Deny, Samples: 2}, "", model.Deny, Doubts{}, model.Inconclusive, model.ResultInconclusive},
		{"what was never probed is inconclusive", Settled{}, "", model.Allow, Doubts{}, model.Inconclusive, model.ResultInconclusive},
		{"an undefined case is recorded", denied, model.Deny, model.Undefined, Doubts{}, model.Deny, model.Recorded},
		{"an undefined denial needs its proof as well", denied, model.Deny, model.Undefined, Doubts{Denial: "dead"}, model.Inconclusive, model.ResultInconclusive},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			observed, result, reason := VerdictOf(c.st, c.as, Sample{Reason: "x"}, c.expected, c.doubts, time.Second)
			assert.Equal(t, c.observed, observed)
			assert.Equal(t, c.result, result)
			if result != model.Passed {
				assert.NotEmpty(t, reason)
			}
		})
	}
}

func TestWhatWasNeverProbedSaysWhatWasWaitedFor(t *testing.T) {
	_, _, reason := VerdictOf(Settled{}, "", Sample{}, model.Deny, Doubts{Enforcement: "not every node took up the change"}, time.Second)
	assert.Equal(t, "not every node took up the change", reason)
	_, _, reason = VerdictOf(Settled{}, "", Sample{}, model.Deny, Doubts{}, time.Second)
	assert.Equal(t, "never probed", reason)
}
