package run

import (
	"slices"
	"time"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
)

// sample is one probe of one cell.
type sample struct {
	// sent is when the packet left, resolved when its outcome was known.
	sent     time.Time
	resolved time.Time
	verdict  model.Verdict
	response probes.Response
	// seen is true when the destination recorded the nonce.
	seen bool
	// reason explains a verdict other than allow and deny.
	reason string
	// void is true when nothing was tried: the prober could not send, or was too starved to listen. It says nothing for nor against
	// any verdict.
	void bool
}

// telling returns the samples that are not void.
func telling(series []sample) []sample {
	return slices.DeleteFunc(slices.Clone(series), func(s sample) bool { return s.void })
}

// settling says when a series of samples has settled.
type settling struct {
	// minSamples that agree, and span at least window, settle a cell.
	minSamples int
	window     time.Duration
	// mismatchWindow replaces window for a verdict other than the expected one. It is longer because taking a change that is
	// still on its way for a broken policy is the worse error; it only delays a mismatch, and never turns it into a pass.
	mismatchWindow time.Duration
}

// settled is what a series says.
type settled struct {
	// ok is true once the series has settled.
	ok      bool
	verdict model.Verdict
	// samples agree with the verdict at the end of the series; since is when the first of them was sent.
	samples int
	since   time.Time
	// at is when the sample that settled the series was resolved.
	at time.Time
	// flips counts the changes between allow and deny after the barrier. One is a late change, more is flapping.
	flips int
}

// judge looks at a series, in the order in which the probes were sent. Only samples sent at or after the barrier settle a
// cell: before it the change may not have reached every node. Samples that are neither allow nor deny break an agreement,
// and settle a cell as what they are when nothing else comes. Void samples are passed over as long as there are others.
func (s settling) judge(series []sample, barrier time.Time, expected model.Verdict) settled {
	var out settled
	if some := telling(series); len(some) > 0 {
		series = some
	}
	if len(series) == 0 {
		return out
	}
	last := model.Verdict("")
	for _, x := range series {
		if x.sent.Before(barrier) || (x.verdict != model.Allow && x.verdict != model.Deny) {
			continue
		}
		if last != "" && last != x.verdict {
			out.flips++
		}
		last = x.verdict
	}

	end := series[len(series)-1].verdict
	first := len(series) - 1
	for first > 0 && series[first-1].verdict == end {
		first--
	}
	out.verdict, out.samples, out.since = end, len(series)-first, series[first].sent

	window := s.window
	if expected != model.Undefined && end != expected && end != model.Unsupported {
		window = s.mismatchWindow
	}
	after := slices.IndexFunc(series[first:], func(x sample) bool { return !x.sent.Before(barrier) })
	if after < 0 {
		return out
	}
	agreeing := series[first+after:]
	for i, x := range agreeing {
		if i+1 >= s.minSamples && x.sent.Sub(agreeing[0].sent) >= window {
			out.ok, out.at = true, x.resolved
			break
		}
	}
	return out
}
