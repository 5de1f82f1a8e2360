package run

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
)

// pace is how a run waits. All of it is a bound or a spacing; nothing waits without looking.
type pace struct {
	rhythm
	settling
	// settle bounds the time from a change to the settling of the last cell.
	settle time.Duration
	// ready bounds the time until new pods are ready.
	ready time.Duration
	// connect bounds the time until connections work that no policy cuts.
	connect time.Duration
	// cleanup bounds what is done after the end of the run.
	cleanup time.Duration
}

// defaultPace suits a cluster on this machine, where a round trip takes less than a millisecond.
func defaultPace() pace {
	return pace{
		rhythm:   rhythm{dense: 20 * time.Millisecond, spaced: 60 * time.Millisecond, perProbe: 300 * time.Microsecond, timeout: 150 * time.Millisecond},
		settling: settling{minSamples: 3, window: 120 * time.Millisecond, mismatchWindow: 2 * time.Second},
		settle:   15 * time.Second,
		ready:    60 * time.Second,
		connect:  5 * time.Second,
		cleanup:  30 * time.Second,
	}
}

// window is what one step's sampling found: the series of every cell, and the controls of the same time.
type window struct {
	tracks []*track
	// start is when the API server had accepted the step's changes; barrier when every node had taken them up.
	start, barrier time.Time
	controls       model.Controls
	// enforcement is why no denial of this window is proven; empty when the canaries and the barrier held.
	enforcement string
	findings    []model.Finding
	// dead are endpoints whose servers did not answer from inside their own namespace, with the reason.
	dead map[model.Endpoint]string
	// deadProbers could not reach their own servers.
	deadProbers map[model.Endpoint]string
}

// observe samples the targets until every one of them is settled, or ctx ends. changed says whether the step changed anything
// that a barrier must confirm.
func observe(ctx context.Context, p pace, c *canary, n *nonces, targets []target, agents map[model.Endpoint]probes.Agent, start time.Time, changed bool) window {
	w := window{start: start, barrier: start, dead: map[model.Endpoint]string{}, deadProbers: map[model.Endpoint]string{}}
	// The deadline ends the loop, not the probes under way: what they find still counts.
	deadline, cancel := context.WithDeadline(ctx, start.Add(p.settle))
	defer cancel()

	canaries := append(c.to(canaryAllowed, model.Allow), c.to(canaryDenied, model.Deny)...)
	selfs := selfTargets(targets, agents)
	all := slices.Concat(targets, canaries, selfs)
	s := newSampler(all, p.rhythm, n)
	live := newLiveness(destinations(targets), agents)

	confirmed := make(chan struct{})
	var barrierErr error
	var barrier time.Time
	if changed {
		go func() {
			defer close(confirmed)
			barrier, barrierErr = c.barrier(deadline, p.rhythm)
		}()
	} else {
		barrier = start
		close(confirmed)
	}

	waiting := confirmed
	agreed := false
loop:
	for {
		began := time.Now()
		count := s.round(ctx, nil)
		live.round(ctx)
		next := time.NewTimer(p.next(count, agreed, began.Sub(w.barrier)) - time.Since(began))
		for due := false; !due; {
			select {
			case <-waiting:
				waiting = nil
				if barrierErr != nil {
					break loop
				}
				w.barrier = barrier
			case <-s.resolved:
			case <-next.C:
				due = true
			case <-deadline.Done():
				break loop
			}
			if waiting != nil {
				continue
			}
			open := 0
			if open, agreed = s.look(p.settling, w.barrier); open == 0 {
				break loop
			}
		}
	}
	detached, stop := context.WithTimeout(context.WithoutCancel(ctx), p.cleanup)
	defer stop()
	s.wait(detached)
	<-confirmed
	w.tracks = s.tracks[:len(targets)]
	w.judgeCanaries(p, s.tracks[len(targets):len(targets)+len(canaries)], barrierErr)
	w.judgeSelfs(s.tracks[len(targets)+len(canaries):])
	live.finish(&w)
	w.controls.Held = w.controls.CanaryAllowed && w.controls.CanaryDenied && w.controls.Servers == w.controls.ServersAlive &&
		w.enforcement == "" && len(w.deadProbers) == 0
	return w
}

// look judges every series so far. open counts those that have not settled; agreed is true when the last sample of each is as
// expected.
func (s *sampler) look(p settling, barrier time.Time) (open int, agreed bool) {
	agreed = true
	s.each(func(t *track, series []sample, _ bool) {
		st := p.judge(series, barrier, t.expected)
		switch {
		case !st.ok && t.unreachable == "":
			open++
		case t.settledAs == "":
			t.settledAs = st.verdict
		}
		agreed = agreed && len(series) > 0 && (t.expected == model.Undefined || series[len(series)-1].verdict == t.expected)
	})
	return open, agreed
}

// selfTargets are connections from each prober to a server of its own pod, which no policy can cut: a prober that cannot make
// them proves nothing by failing elsewhere.
func selfTargets(targets []target, agents map[model.Endpoint]probes.Agent) []target {
	var out []target
	done := map[model.Endpoint]bool{}
	for _, t := range targets {
		// The first target to a pod tells one of its addresses and ports.
		e := t.conn.To
		if done[e] || t.conn.Via != model.ViaPodIP || t.conn.Protocol == model.SCTP || t.unreachable != "" || agents[e] == nil {
			continue
		}
		done[e] = true
		self := t
		self.conn.From, self.from, self.expected = e, agents[e], model.Allow
		out = append(out, self)
	}
	return out
}

// judgeCanaries decides from the canaries' series whether denials of this window can be trusted at all.
func (w *window) judgeCanaries(p pace, tracks []*track, barrierErr error) {
	w.controls.CanaryAllowed, w.controls.CanaryDenied = true, true
	var leaks, cuts, silent []string
	for _, t := range tracks {
		series, _ := t.series()
		series = telling(series)
		where := fmt.Sprintf("%s -> %s", t.conn.From, t.conn.To)
		for _, smp := range series {
			if smp.verdict == t.expected {
				continue
			}
			if t.expected == model.Deny {
				w.controls.CanaryDenied = false
				leaks = append(leaks, where)
			} else {
				w.controls.CanaryAllowed = false
				cuts = append(cuts, where)
			}
			break
		}
		if len(series) == 0 {
			w.controls.CanaryAllowed, w.controls.CanaryDenied = false, false
			silent = append(silent, where)
		}
	}
	var reasons []string
	if len(silent) > 0 {
		reasons = append(reasons, "the canaries could not be probed: "+strings.Join(silent, ", "))
	}
	if len(leaks) > 0 {
		reasons = append(reasons, "the canary that must be denied was not: "+strings.Join(leaks, ", "))
	}
	if len(cuts) > 0 {
		reasons = append(reasons, "the canary that must be allowed was not: "+strings.Join(cuts, ", "))
	}
	switch {
	case errors.Is(barrierErr, errNotConfirmed):
		reasons = append(reasons, fmt.Sprintf("not every node took up the change within %s: %v", p.settle, barrierErr))
	case barrierErr != nil:
		reasons = append(reasons, barrierErr.Error())
	}
	w.enforcement = strings.Join(reasons, "; ")
	if w.enforcement != "" {
		w.findings = append(w.findings, model.Finding{Kind: model.Control, Message: w.enforcement, Result: model.ResultInconclusive})
	}
}

func (w *window) judgeSelfs(tracks []*track) {
	for _, t := range tracks {
		series, _ := t.series()
		if len(telling(series)) == 0 && len(series) > 0 {
			w.deadProbers[t.conn.From] = series[0].reason
		}
		for _, smp := range telling(series) {
			if smp.verdict != model.Allow {
				w.deadProbers[t.conn.From] = or(smp.reason, string(smp.response.Outcome))
				break
			}
		}
	}
}

// destinations are the pods that the targets go to, services by their backends.
func destinations(targets []target) []model.Endpoint {
	var out []model.Endpoint
	seen := map[model.Endpoint]bool{}
	for _, t := range targets {
		for _, id := range t.answerers {
			if !seen[id.Endpoint] {
				seen[id.Endpoint] = true
				out = append(out, id.Endpoint)
			}
		}
	}
	return out
}

// liveness asks the servers of the destinations from inside their own namespaces, once per round.
type liveness struct {
	agents map[model.Endpoint]probes.Agent
	order  []model.Endpoint

	mu      sync.Mutex
	pending map[model.Endpoint]bool
	servers map[model.Endpoint]int
	alive   map[model.Endpoint]int
	dead    map[model.Endpoint]string
	flights sync.WaitGroup
}

func newLiveness(order []model.Endpoint, agents map[model.Endpoint]probes.Agent) *liveness {
	return &liveness{
		agents: agents, order: order, pending: map[model.Endpoint]bool{},
		servers: map[model.Endpoint]int{}, alive: map[model.Endpoint]int{}, dead: map[model.Endpoint]string{},
	}
}

// round starts a look at every destination that is not being looked at.
func (l *liveness) round(ctx context.Context) {
	for _, e := range l.order {
		agent := l.agents[e]
		l.mu.Lock()
		busy := l.pending[e]
		l.pending[e] = true
		l.mu.Unlock()
		if busy || agent == nil {
			continue
		}
		l.flights.Add(1)
		go func() {
			defer l.flights.Done()
			status, err := agent.Liveness(ctx)
			l.mu.Lock()
			defer l.mu.Unlock()
			l.pending[e] = false
			if err != nil {
				if ctx.Err() == nil {
					l.dead[e] = err.Error()
				}
				return
			}
			alive, servers := 0, 0
			for _, s := range status {
				switch {
				case s.Unsupported:
					continue
				case s.Unknown:
					return // the next look will tell; a server that was never seen alive is not
				case s.Alive:
					alive++
				case l.dead[e] == "":
					l.dead[e] = fmt.Sprintf("port %s: %s", s.Port, s.Detail)
				}
				servers++
			}
			if _, known := l.alive[e]; !known || alive < l.alive[e] {
				l.alive[e] = alive
			}
			l.servers[e] = max(l.servers[e], servers)
		}()
	}
}

// finish waits for the looks under way and writes the result into the window.
func (l *liveness) finish(w *window) {
	l.flights.Wait()
	for _, e := range l.order {
		w.controls.Servers += l.servers[e]
		w.controls.ServersAlive += l.alive[e]
		if _, looked := l.alive[e]; !looked && l.dead[e] == "" {
			l.dead[e] = "it was never looked at"
		}
		if why := l.dead[e]; why != "" {
			w.dead[e] = why
		}
	}
}
