package run

import (
	"time"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/run/sampling"
	"github.com/netproof/netproof/harness/run/stage"
)

// pace is how a run waits. All of it is a bound or a spacing; nothing waits without looking.
type pace struct {
	sampling.Rhythm
	sampling.Settling
	// settle bounds the time from a change to the settling of the last cell; large tables have rhythm.late on top.
	settle time.Duration
	// ready bounds the time until new pods are ready, and each of a topology adds readyPod to it.
	ready, readyPod time.Duration
	// connect bounds the time until connections work that no policy cuts.
	connect time.Duration
	// cleanup bounds what is done after the end of the run.
	cleanup time.Duration
}

// paceOf suits a cluster where an answer may take this long.
func paceOf(timeout time.Duration) pace {
	p := defaultPace()
	stretch := func(d *time.Duration) { *d = max(*d, *d*timeout/p.Timeout) }
	stretch(&p.Dense)
	stretch(&p.Spaced)
	stretch(&p.Window)
	p.Timeout = timeout
	if timeout > defaultPace().Timeout {
		// Pods have images and kubelets there, and a plugin hears of changes through an API server that is busier.
		p.Gather = timeout / 10
		p.Aloft = 700                // of 50 pods on two processors; fewer leave them idle, of more some time out
		p.readyPod = 2 * time.Second // a node of one processor starts a pod in about one
		p.ready, p.settle, p.connect, p.cleanup = 2*time.Minute, 30*time.Second, 20*time.Second, time.Minute
	}
	return p
}

// defaultPace suits a cluster on this machine, where a round trip takes less than a millisecond.
func defaultPace() pace {
	return pace{
		Rhythm:   sampling.Rhythm{Dense: 20 * time.Millisecond, Spaced: 60 * time.Millisecond, PerProbe: 300 * time.Microsecond, Timeout: 150 * time.Millisecond, Agent: 10 * time.Second},
		Settling: sampling.Settling{MinSamples: 3, Window: 120 * time.Millisecond, MismatchWindow: 2 * time.Second},
		settle:   15 * time.Second,
		ready:    60 * time.Second,
		connect:  5 * time.Second,
		cleanup:  30 * time.Second,
	}
}

// among is the pace of one of so many lanes. They share the processors: each looks less often, which makes times of
// enforcement coarser, and no verdict less proven, since a cell needs the same number of samples over the same windows.
// They also wait for each other's pods, and share what the agents can bear.
func (p pace) among(lanes int) pace {
	p.Dense *= 3
	p.Spaced *= 2
	p.Aloft = (p.Aloft + int64(lanes) - 1) / int64(lanes)
	p.ready *= time.Duration(lanes)
	p.readyPod *= time.Duration(lanes)
	return p
}

// watch samples targets beside the canaries, and looks at the provers of both.
func (s *session) watch(c *stage.Canary, targets []sampling.Target, start time.Time) sampling.Watch {
	return sampling.Watch{
		Rhythm: s.pace.Rhythm, Settling: s.pace.Settling, Settle: s.pace.settle, Cleanup: s.pace.cleanup, Nonces: s.nonces, Servers: s.stage,
		Targets: targets, Selfs: s.stage.SelfTargets(targets), Start: start,
		Canaries:   append(c.To(stage.CanaryAllowed, model.Allow), c.To(stage.CanaryDenied, model.Deny)...),
		CanaryPods: c.Endpoints(),
	}
}
