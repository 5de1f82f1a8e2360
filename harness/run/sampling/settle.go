package sampling

import (
	"slices"
	"time"

	"github.com/netproof/netproof/harness/model"
)

// Settling says when a series of samples has settled.
type Settling struct {
	// MinSamples that agree, and span at least window, settle a cell.
	MinSamples int
	Window     time.Duration
	// MismatchWindow replaces window for a verdict other than the expected one. It is longer because taking a change
	// that is still on its way for a broken policy is the worse error; it only delays a mismatch, and never turns it
	// into a pass.
	MismatchWindow time.Duration
}

// Settled is what a series says.
type Settled struct {
	// ok is true once the series has settled.
	OK      bool
	Verdict model.Verdict
	// Samples agree with the verdict at the end of the series; since is when the first of them was sent.
	Samples int
	Since   time.Time
	// At is when the sample that settled the series was resolved.
	At time.Time
	// Flips counts the changes between allow and deny after the barrier. One is a late change, more is flapping.
	Flips int
}

// Judge looks at a series, in the order in which the probes were sent. Only samples sent at or after the barrier settle
// a cell: before it the change may not have reached every node. Samples that are neither allow nor deny break an
// agreement, and settle a cell as what they are when nothing else comes. Void samples are passed over as long as there
// are others.
func (s Settling) Judge(series []Sample, barrier time.Time, expected model.Verdict) Settled {
	var out Settled
	if some := Telling(series); len(some) > 0 {
		series = some
	}
	if len(series) == 0 {
		return out
	}
	last := model.Verdict("")
	for _, x := range series {
		if x.Sent.Before(barrier) || (x.Verdict != model.Allow && x.Verdict != model.Deny) {
			continue
		}
		if last != "" && last != x.Verdict {
			out.Flips++
		}
		last = x.Verdict
	}

	end := series[len(series)-1].Verdict
	first := len(series) - 1
	for first > 0 && series[first-1].Verdict == end {
		first--
	}
	out.Verdict, out.Samples, out.Since = end, len(series)-first, series[first].Sent

	window := s.Window
	if expected != model.Undefined && end != expected && end != model.Unsupported {
		window = s.MismatchWindow
	}
	after := slices.IndexFunc(series[first:], func(x Sample) bool { return !x.Sent.Before(barrier) })
	if after < 0 {
		return out
	}
	agreeing := series[first+after:]
	for i, x := range agreeing {
		if i+1 >= s.MinSamples && x.Sent.Sub(agreeing[0].Sent) >= window {
			out.OK, out.At = true, x.Resolved
			break
		}
	}
	return out
}
