package sampling

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
)

// Servers are the endpoints of a cluster as they run now.
type Servers interface {
	// Agent of an endpoint; nil if it does not run.
	Agent(model.Endpoint) probes.Agent
	// Ports are what an endpoint was declared to serve.
	Ports(model.Endpoint) []model.Port
}

// Liveness asks the servers of endpoints from inside their own namespaces, once per round.
type Liveness struct {
	servers Servers
	rhythm  Rhythm
	order   []model.Endpoint
	// Shown, if it is set, knows the endpoints that have shown since then that they are alive.
	Shown func(since time.Time) map[model.Endpoint]bool
	// since is when the last round began.
	since time.Time

	mu      sync.Mutex
	pending map[model.Endpoint]bool
	// alive is the smallest number of an endpoint's servers that were alive at once; there is none before a look
	// succeeded.
	alive map[model.Endpoint]int
	// unsupported is the number of servers that this kernel cannot have.
	unsupported map[model.Endpoint]int
	dead        map[model.Endpoint]string
	flights     sync.WaitGroup
}

// NewLiveness prepares looks at the servers of these endpoints.
func NewLiveness(s Servers, r Rhythm, order []model.Endpoint) *Liveness {
	return &Liveness{
		servers: s, rhythm: r, order: order,
		pending: map[model.Endpoint]bool{}, alive: map[model.Endpoint]int{}, unsupported: map[model.Endpoint]int{},
		dead: map[model.Endpoint]string{},
	}
}

// Round starts a look at every endpoint that is not being looked at, but for those that were shown to be alive.
func (l *Liveness) Round(ctx context.Context) {
	since := l.since
	l.since = time.Now() // first: what comes in while it is found out who was shown belongs to the next round too
	var shown map[model.Endpoint]bool
	if l.Shown != nil {
		shown = l.Shown(since)
	}
	for _, e := range l.order {
		agent, wanted := l.servers.Agent(e), l.servers.Ports(e)
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
			bounded, cancel := context.WithTimeout(ctx, l.rhythm.Agent)
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

// judge compares what an agent says of its servers with those that were declared: one that the agent does not speak of
// is as dead as one that does not answer.
func (l *Liveness) judge(e model.Endpoint, wanted []model.Port, status []probes.ServerStatus) {
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

func (l *Liveness) count(e model.Endpoint, alive, unsupported int) {
	if before, known := l.alive[e]; !known || alive < before {
		l.alive[e], l.unsupported[e] = alive, unsupported
	}
}

func (l *Liveness) bury(e model.Endpoint, p model.Port, why string) {
	if l.dead[e] == "" {
		l.dead[e] = fmt.Sprintf("port %s: %s", p, why)
	}
}

// Finish waits for the looks under way. It counts the servers, and says why those endpoints are dead that are.
func (l *Liveness) Finish() (servers, alive int, dead map[model.Endpoint]string) {
	l.flights.Wait()
	for _, e := range l.order {
		servers += len(l.servers.Ports(e)) - l.unsupported[e]
		alive += l.alive[e]
		if _, looked := l.alive[e]; !looked && l.dead[e] == "" {
			l.dead[e] = "it was never looked at"
		}
	}
	return servers, alive, l.dead
}

// shown are the endpoints whose servers need no look, since their answers are a better one: nobody is expected to be
// denied there, each of their ports answered a probe sent since then, and none that came back since then was without an
// answer. Only for a denial it matters who was alive when.
func (s *sampler) shown(since time.Time, ports func(model.Endpoint) []model.Port) map[model.Endpoint]bool {
	type server struct {
		endpoint model.Endpoint
		port     int
		protocol model.Protocol
	}
	answered, missed := map[server]bool{}, map[model.Endpoint]bool{}
	s.mu.Lock()
	for _, t := range s.tracks {
		doubt := t.Expected != model.Allow
		for _, smp := range t.samples {
			switch {
			case smp.Resolved.IsZero():
			case smp.Verdict == model.Allow:
				// Behind a service one of many answered, on a port of its own.
				if t.Conn.Via == model.ViaPodIP && !smp.Sent.Before(since) {
					answered[server{t.Conn.To, t.Conn.Port, t.Conn.Protocol}] = true
				}
			case !smp.Resolved.Before(since):
				doubt = true
			}
		}
		if doubt {
			for _, id := range t.Answerers {
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
