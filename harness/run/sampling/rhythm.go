package sampling

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/netproof/netproof/probes"
)

// Rhythm is the pace of sampling.
type Rhythm struct {
	// Dense is the time between two rounds while changes are expected, spaced afterwards.
	Dense  time.Duration
	Spaced time.Duration
	// Late is what a crowd adds to the times after which something counts as late.
	Late time.Duration
	// PerProbe bounds the load: a round of load n is followed by the next after n*perProbe at the earliest.
	PerProbe time.Duration
	// Timeout of a single probe, patience of one that should be answered, if that is longer.
	Timeout, Patience time.Duration
	// Agent bounds a call to an agent. One that does not come back has no result.
	Agent time.Duration
	// Aloft bounds the probes that are under way at once, where each pod has an agent of its own and nobody else bounds
	// them; 0 for no bound. One that is expected to be denied counts a third: nobody works on it, and it takes a whole
	// time-out.
	Aloft int64
	// Gather is how long a question for what a destination has seen waits for others, where a call is a round trip
	// through an exec.
	Gather time.Duration
}

// next returns the time between the start of a round of load n and the next. Rounds are dense while samples are not as
// expected, so that the moment of a change is measured well, but not for long: what is late is sampled less and less
// often.
func (r Rhythm) next(n int, agreed bool, sinceBarrier time.Duration) time.Duration {
	d := r.Spaced
	switch {
	case sinceBarrier > 10*r.Spaced+r.Late:
		d = 4 * r.Spaced
	case !agreed:
		d = r.Dense
	}
	return max(d, time.Duration(n)*r.PerProbe)
}

// crowd is from which load on a round makes agents and streams busy for long. Of such rounds no more are under way at
// once than maxAloft: on a machine that cannot keep up, more of them would make each later. A round's load is the
// number of its probes, and where calls to agents go through execs callLoad for each agent: what a call costs there
// does not depend on the number of probes.
const (
	crowd    = 500
	maxAloft = 2
	callLoad = 10
)

// load of a round of n probes from so many agents.
func (r Rhythm) load(n, agents int) int {
	if r.Gather > 0 {
		n += callLoad * agents
	}
	return n
}

// loadOf is the load of a round of all targets.
func (r Rhythm) loadOf(targets []Target) int {
	agents := map[probes.Agent]bool{}
	for _, t := range targets {
		agents[t.From] = true
	}
	return r.load(len(targets), len(agents))
}

// ofCrowd suits rounds of such a load, which take longer than the time-out of one probe: through execs, an answer that
// is late only for want of a processor is worth waiting for, and a question that nobody waits for may wait for others.
func (r Rhythm) ofCrowd(load int) Rhythm {
	r.Late = 10 * time.Duration(load) * r.PerProbe
	if r.Gather > 0 {
		r.Patience = 3 * r.Timeout
		r.Gather = max(r.Gather, time.Duration(load)*r.PerProbe/3)
	}
	return r
}

// Nonces makes the nonces of a run.
type Nonces struct {
	Run  string
	next atomic.Int64
}

func (n *Nonces) get() probes.Nonce {
	return probes.Nonce(fmt.Sprintf("%s-%x", n.Run, n.next.Add(1)))
}
