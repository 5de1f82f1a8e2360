package sampling

import (
	"net/netip"
	"slices"
	"time"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
)

// Target is one cell as the sampler sees it: whom to ask, what to dial, and who may answer.
type Target struct {
	Conn model.Connection
	// Expected decides how long a series must agree; it never decides a verdict.
	Expected model.Verdict
	From     probes.Agent
	Address  netip.Addr
	Port     int
	// Answerers may answer: the destination, or the backends of a service.
	Answerers []probes.Identity
	// Recorders are the agents whose servers would have seen the probe.
	Recorders []probes.Agent
	// Unreachable says why the cell cannot be probed at all, such as a destination without an address of this family.
	Unreachable string
	// Unsupported says why this cluster cannot carry the cell's probes.
	Unsupported string
}

// Track is a target and its series. Samples stand at the index of their round, so that a series is in the order of
// sending although denied probes are resolved later than answered ones.
type Track struct {
	Target
	samples []*Sample
	// SettledAs is the verdict with which the series first settled; a later change is flapping.
	SettledAs model.Verdict
}

// Series returns the samples up to the first that is still under way. tail tells whether it is the whole series.
func (t *Track) Series() (done []Sample, tail bool) {
	for _, s := range t.samples {
		if s.Resolved.IsZero() {
			return done, false
		}
		done = append(done, *s)
	}
	return done, true
}

// enough tells whether the samples after the barrier settle the track once those that are still under way come back as
// expected, like those that have.
func (t *Track) enough(p Settling, barrier time.Time) bool {
	n := 0
	var first, last time.Time
	for _, smp := range t.samples {
		back := !smp.Resolved.IsZero() // before that, another goroutine writes into it
		switch {
		case smp.Sent.Before(barrier), back && smp.Void:
			continue
		case back && smp.Verdict != t.Expected:
			return false
		}
		if n == 0 || smp.Sent.Before(first) {
			first = smp.Sent
		}
		if smp.Sent.After(last) {
			last = smp.Sent
		}
		n++
	}
	return n >= p.MinSamples && last.Sub(first) >= p.Window
}

// answeredAt is when the first answered sample came back, zero if none did.
func (t *Track) answeredAt() time.Time {
	for _, smp := range t.samples {
		if smp.Verdict == model.Allow {
			return smp.Resolved
		}
	}
	return time.Time{}
}

// Sample is one probe of one cell.
type Sample struct {
	// Sent is when the packet left, resolved when its outcome was known.
	Sent     time.Time
	Resolved time.Time
	Verdict  model.Verdict
	Response probes.Response
	// Seen is true when the destination recorded the nonce.
	Seen bool
	// Reason explains a verdict other than allow and deny.
	Reason string
	// Void is true when nothing was tried: the prober could not send, or was too starved to listen. It says nothing for
	// nor against any verdict.
	Void bool
}

// Telling returns the samples that are not void.
func Telling(series []Sample) []Sample {
	return slices.DeleteFunc(slices.Clone(series), func(s Sample) bool { return s.Void })
}
