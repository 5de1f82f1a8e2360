package run

import (
	"context"
	"errors"
	"fmt"
	"maps"
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
	stretch := func(d *time.Duration) { *d = max(*d, *d*timeout/p.timeout) }
	stretch(&p.dense)
	stretch(&p.spaced)
	stretch(&p.window)
	p.timeout = timeout
	if timeout > defaultPace().timeout {
		// Pods have images and kubelets there, and a plugin is told of changes through an API server that is busier.
		p.gather = timeout / 10
		p.aloft = 700                // of 50 pods on two processors; fewer leave them idle, of more some time out
		p.readyPod = 2 * time.Second // a node of one processor starts a pod in about one
		p.ready, p.settle, p.connect, p.cleanup = 2*time.Minute, 30*time.Second, 20*time.Second, time.Minute
	}
	return p
}

// defaultPace suits a cluster on this machine, where a round trip takes less than a millisecond.
func defaultPace() pace {
	return pace{
		rhythm:   rhythm{dense: 20 * time.Millisecond, spaced: 60 * time.Millisecond, perProbe: 300 * time.Microsecond, timeout: 150 * time.Millisecond, agent: 10 * time.Second},
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
	// start is when the API server had accepted the step's changes; barrier when every node had taken them up, which is
	// confirmed or not.
	start, barrier time.Time
	confirmed      bool
	// limit is how long after start the last cell could settle.
	limit    time.Duration
	controls model.Controls
	// enforcement is why no denial of this window is proven; empty when the canaries and the barrier held.
	enforcement string
	// dead are endpoints whose servers did not answer from inside their own namespace, with the reason.
	dead map[model.Endpoint]string
	// deadProbers could not reach their own servers.
	deadProbers map[model.Endpoint]string
}

// observe samples the targets until every one of them is settled, or ctx ends. changed says whether there is a change that a
// barrier must confirm.
func observe(ctx context.Context, p pace, c *canary, n *nonces, st *stage, targets []target, start time.Time, changed bool) window {
	w := window{start: start, barrier: start, confirmed: true}
	canaries := append(c.to(canaryAllowed, model.Allow), c.to(canaryDenied, model.Deny)...)
	selfs := st.selfTargets(targets)
	all := slices.Concat(targets, canaries, selfs)
	s := newSampler(all, p.rhythm, n)
	w.limit = p.settle + s.rhythm.late
	// The deadlines end the barrier and the loop, not the probes under way: what they find still counts.
	deadline, cancel := context.WithDeadline(ctx, start.Add(w.limit))
	defer cancel()
	live := newLiveness(st, p.rhythm, destinations(targets))
	live.shown = func(since time.Time) map[model.Endpoint]bool { return s.shown(since, st.ports) }

	done := make(chan struct{})
	var barrierErr error
	var barrier time.Time
	if changed {
		go func() {
			defer close(done)
			confirming, cancel := context.WithDeadline(deadline, start.Add(p.settle))
			defer cancel()
			barrier, barrierErr = c.barrier(confirming, p.rhythm)
		}()
	} else {
		barrier = start
		close(done)
	}

	waiting := done
	agreed := false
	// Small tables are sampled until the last cell has settled. In a large one, whose rounds are work for every agent, a cell is asked
	// after the barrier, as often as it takes to settle it. The canaries always are.
	watched := map[*track]bool{}
	for _, t := range s.tracks[len(targets) : len(targets)+len(canaries)] {
		watched[t] = true
	}
	wanted := func(t *track) bool {
		switch {
		case !s.large || watched[t]:
			return true
		case waiting != nil:
			return false
		}
		return !t.enough(p.settling, w.barrier)
	}
	waited := false
	load := 0
	var looked time.Time
	var cost time.Duration
	detached, stop := context.WithTimeout(context.WithoutCancel(ctx), p.cleanup+w.limit)
	defer stop()
loop:
	for {
		began := time.Now()
		// In a large table the servers are looked at once there was a round, and they may have shown themselves that they are alive.
		if !s.large || load >= crowd {
			live.round(ctx)
		}
		load = s.round(ctx, wanted)
		next := time.NewTimer(s.rhythm.next(load, agreed, began.Sub(w.barrier)) - time.Since(began))
		late := false // it is time for the next round, and it has to wait
		for due := false; !due; {
			select {
			case <-waiting:
				waiting = nil
				if barrierErr != nil {
					break loop
				}
				w.barrier = barrier
				due = s.large
			case <-s.resolved:
				due = late && !s.crowded(load)
			case <-next.C:
				late = s.crowded(load)
				due = !late
			case <-deadline.Done():
				break loop
			}
			if waiting != nil {
				continue
			}
			// A look at a large table takes long. There is one at the end of each round, and more as long as they are cheap.
			if !due && s.aloft.Load() > 0 && time.Since(looked) < 10*cost {
				continue
			}
			open, start := 0, time.Now()
			if open, agreed = s.look(p.settling, w.barrier); open == 0 {
				// What is still under way counts too. If it unsettles a cell, sampling goes on.
				s.wait(detached)
				if open, agreed = s.look(p.settling, w.barrier); open == 0 {
					waited = true
					break loop
				}
			}
			looked = time.Now()
			cost = looked.Sub(start)
		}
	}
	if !waited {
		s.wait(detached)
	}
	<-done
	w.confirmed = barrierErr == nil
	// The last look comes after the last sample: a server that died in between was not there to be denied.
	canaryLife := newLiveness(st, p.rhythm, slices.Collect(maps.Keys(c.pods)))
	if ctx.Err() == nil {
		live.flights.Wait()
		live.round(ctx)
		canaryLife.round(ctx)
	}
	w.tracks = s.tracks[:len(targets)]
	w.controls.Servers, w.controls.ServersAlive, w.dead = live.finish()
	_, _, deadCanaries := canaryLife.finish()
	w.judgeCanaries(p, s.tracks[len(targets):len(targets)+len(canaries)], deadCanaries, barrierErr)
	w.judgeSelfs(s.tracks[len(targets)+len(canaries):])
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
		case t.settledAs == "" && (st.verdict == model.Allow || st.verdict == model.Deny): // what could not be told may be told later
			t.settledAs = st.verdict
		}
		agreed = agreed && len(series) > 0 && (t.expected == model.Undefined || series[len(series)-1].verdict == t.expected)
	})
	return open, agreed
}

// selfTargets are connections from each prober to a server of its own, which no policy can cut: a prober that cannot make
// them proves nothing by failing elsewhere. Endpoints that serve nothing have none.
func (s *stage) selfTargets(targets []target) []target {
	var out []target
	type key struct {
		endpoint model.Endpoint
		family   model.IPFamily
	}
	made := map[key]bool{}
	add := func(e model.Endpoint, f model.IPFamily) {
		k := key{e, f}
		if made[k] || s.agents[e] == nil {
			return
		}
		made[k] = true
		ports := s.ports(e)
		i := slices.IndexFunc(ports, func(p model.Port) bool { return p.Protocol != model.SCTP })
		if i < 0 {
			return
		}
		c := model.Connection{From: e, To: e, Port: ports[i].Number, Protocol: ports[i].Protocol, IPFamily: f, Via: model.ViaPodIP}
		if t := s.target(c, model.Allow); t.unreachable == "" {
			out = append(out, t)
		}
	}
	for _, t := range targets {
		add(t.conn.From, t.conn.IPFamily)
		add(t.conn.To, t.conn.IPFamily)
	}
	return out
}

// ports are what an endpoint was declared to serve.
func (s *stage) ports(e model.Endpoint) []model.Port {
	if p, ok := s.declared.Pod(e); ok {
		return p.Ports
	}
	if h, ok := s.declared.Host(e); ok {
		return h.Ports
	}
	return nil
}

// judgeCanaries decides from the canaries' series whether denials of this window can be trusted at all.
func (w *window) judgeCanaries(p pace, tracks []*track, dead map[model.Endpoint]string, barrierErr error) {
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
			// A handshake is made by the kernels: packets went both ways, and only the server's program was too starved to answer in time.
			if t.expected == model.Allow && smp.response.Connected {
				continue
			}
			if t.expected == model.Deny {
				w.controls.CanaryDenied = false
				leaks = append(leaks, where)
			} else {
				w.controls.CanaryAllowed = false
				cuts = append(cuts, fmt.Sprintf("%s (%s)", where, lost(smp, w.start)))
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
	for _, e := range slices.Sorted(maps.Keys(dead)) {
		reasons = append(reasons, fmt.Sprintf("the server of the canary %s was not alive: %s", e, dead[e]))
	}
	switch {
	case errors.Is(barrierErr, errNotConfirmed):
		reasons = append(reasons, fmt.Sprintf("not every node took up the change within %s: %v", p.settle, barrierErr))
	case barrierErr != nil:
		reasons = append(reasons, barrierErr.Error())
	}
	w.enforcement = strings.Join(reasons, "; ")
}

// lost says what became of a sample that should have been answered, for whoever must find out why.
func lost(smp sample, start time.Time) string {
	what := or(string(smp.response.Outcome), string(smp.verdict))
	if smp.reason != "" {
		what += ", " + smp.reason
	}
	if !smp.seen {
		what += ", the server did not see it"
	}
	return fmt.Sprintf("%s, sent %d ms after the change", what, smp.sent.Sub(start).Milliseconds())
}

func (w *window) judgeSelfs(tracks []*track) {
	w.deadProbers = map[model.Endpoint]string{}
	for _, t := range tracks {
		series, _ := t.series()
		if len(telling(series)) == 0 && len(series) > 0 {
			w.deadProbers[t.conn.From] = series[0].reason
		}
		answered := slices.ContainsFunc(series, func(smp sample) bool { return smp.verdict == model.Allow })
		for _, smp := range telling(series) {
			// As with canaries: the kernels shook hands, so packets went both ways. But it must have heard an answer at all.
			if smp.verdict != model.Allow && !(answered && smp.response.Connected) {
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

// shown are the endpoints whose servers need no look, since their answers are a better one: nobody is expected to be denied there, each of
// their ports answered a probe sent since then, and none that came back since then was without an answer. Only for a denial it matters who
// was alive when.
func (s *sampler) shown(since time.Time, ports func(model.Endpoint) []model.Port) map[model.Endpoint]bool {
	type server struct {
		endpoint model.Endpoint
		port     int
		protocol model.Protocol
	}
	answered, missed := map[server]bool{}, map[model.Endpoint]bool{}
	s.mu.Lock()
	for _, t := range s.tracks {
		doubt := t.expected != model.Allow
		for _, smp := range t.samples {
			switch {
			case smp.resolved.IsZero():
			case smp.verdict == model.Allow:
				// Behind a service one of many answered, on a port of its own.
				if t.conn.Via == model.ViaPodIP && !smp.sent.Before(since) {
					answered[server{t.conn.To, t.conn.Port, t.conn.Protocol}] = true
				}
			case !smp.resolved.Before(since):
				doubt = true
			}
		}
		if doubt {
			for _, id := range t.answerers {
				missed[id.Endpoint] = true
			}
		}
	}
	s.mu.Unlock()
	out := map[model.Endpoint]bool{}
	for one := range answered {
		out[one.endpoint] = !missed[one.endpoint] && !slices.ContainsFunc(ports(one.endpoint), func(p model.Port) bool {
			return !answered[server{one.endpoint, p.Number, p.Protocol}]
		})
	}
	return out
}

// liveness asks the servers of endpoints from inside their own namespaces, once per round.
type liveness struct {
	stage  *stage
	rhythm rhythm
	order  []model.Endpoint
	// shown, if it is set, knows the endpoints that have shown since then that they are alive.
	shown func(since time.Time) map[model.Endpoint]bool
	// since is when the last round began.
	since time.Time

	mu      sync.Mutex
	pending map[model.Endpoint]bool
	// alive is the smallest number of an endpoint's servers that were alive at once; there is none before a look succeeded.
	alive map[model.Endpoint]int
	// unsupported is the number of servers that this kernel cannot have.
	unsupported map[model.Endpoint]int
	dead        map[model.Endpoint]string
	flights     sync.WaitGroup
}

func newLiveness(s *stage, r rhythm, order []model.Endpoint) *liveness {
	return &liveness{
		stage: s, rhythm: r, order: order,
		pending: map[model.Endpoint]bool{}, alive: map[model.Endpoint]int{}, unsupported: map[model.Endpoint]int{},
		dead: map[model.Endpoint]string{},
	}
}

// round starts a look at every endpoint that is not being looked at, but for those that were shown to be alive.
func (l *liveness) round(ctx context.Context) {
	since := l.since
	l.since = time.Now() // first: what comes in while it is found out who was shown belongs to the next round too
	var shown map[model.Endpoint]bool
	if l.shown != nil {
		shown = l.shown(since)
	}
	for _, e := range l.order {
		agent, wanted := l.stage.agents[e], l.stage.ports(e)
		l.mu.Lock()
		if shown[e] {
			l.count(e, len(wanted), 0)
			l.mu.Unlock()
			continue
		}
		busy := l.pending[e]
		l.pending[e] = true
		l.mu.Unlock()
		if busy || agent == nil {
			continue
		}
		l.flights.Add(1)
		go func() {
			defer l.flights.Done()
			bounded, cancel := context.WithTimeout(ctx, l.rhythm.agent)
			defer cancel()
			status, err := agent.Liveness(bounded)
			l.mu.Lock()
			defer l.mu.Unlock()
			l.pending[e] = false
			if err == nil {
				l.judge(e, wanted, status)
			} else if ctx.Err() == nil {
				l.dead[e] = err.Error()
			}
		}()
	}
}

// judge compares what an agent says of its servers with those that were declared: one that the agent does not speak of is
// as dead as one that does not answer.
func (l *liveness) judge(e model.Endpoint, wanted []model.Port, status []probes.ServerStatus) {
	alive, unsupported, whole := 0, 0, true
	for _, p := range wanted {
		i := slices.IndexFunc(status, func(s probes.ServerStatus) bool { return s.Port.Number == p.Number && s.Port.Protocol == p.Protocol })
		switch {
		case i < 0:
			l.bury(e, p, "there is none")
		case status[i].Unsupported && p.Protocol == model.SCTP:
			unsupported++
		case status[i].Unknown:
			whole = false // the next look will tell; a server that was never seen alive is not
		case status[i].Alive:
			alive++
		default:
			l.bury(e, p, status[i].Detail)
		}
	}
	if whole {
		l.count(e, alive, unsupported)
	}
}

func (l *liveness) count(e model.Endpoint, alive, unsupported int) {
	if before, known := l.alive[e]; !known || alive < before {
		l.alive[e], l.unsupported[e] = alive, unsupported
	}
}

func (l *liveness) bury(e model.Endpoint, p model.Port, why string) {
	if l.dead[e] == "" {
		l.dead[e] = fmt.Sprintf("port %s: %s", p, why)
	}
}

// finish waits for the looks under way. It counts the servers, and says why those endpoints are dead that are.
func (l *liveness) finish() (servers, alive int, dead map[model.Endpoint]string) {
	l.flights.Wait()
	for _, e := range l.order {
		servers += len(l.stage.ports(e)) - l.unsupported[e]
		alive += l.alive[e]
		if _, looked := l.alive[e]; !looked && l.dead[e] == "" {
			l.dead[e] = "it was never looked at"
		}
	}
	return servers, alive, l.dead
}
