package stage

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/run/sampling"
	"github.com/netproof/netproof/probes"
)

// Exists tells whether a connection can be made on the stage as it is now: its source is there, and somebody serves its
// port. A pod that was replaced may serve other ports than the one before.
func (s *Stage) Exists(c model.Connection) bool {
	if _, unsupported := s.unsupported[c.From]; s.agents[c.From] == nil && !unsupported {
		return false
	}
	if c.Via != model.ViaPodIP {
		return len(s.Target(c, model.Allow).Answerers) > 0
	}
	return slices.ContainsFunc(s.Ports(c.To), func(p model.Port) bool { return p.Number == c.Port && p.Protocol == c.Protocol })
}

// Address looks up the live address of an endpoint, for the placeholders in policies.
func (s *Stage) Address(e model.Endpoint, family model.IPFamily) (netip.Addr, bool) {
	if p, ok := s.declared.Pod(e); ok {
		return model.AddressOf(p.Addresses, family)
	}
	if h, ok := s.declared.Host(e); ok {
		return model.AddressOf(h.Addresses, family)
	}
	if i, ok := e.NodeIndex(); ok && i < len(s.declared.Nodes) {
		return model.AddressOf(s.declared.Nodes[i].Addresses, family)
	}
	return netip.Addr{}, false
}

// Target says how a connection is probed.
func (s *Stage) Target(c model.Connection, expected model.Verdict) sampling.Target {
	t := sampling.Target{Conn: c, Expected: expected, From: s.agents[c.From], Port: c.Port}
	for _, e := range []model.Endpoint{c.From, c.To} {
		if why, known := s.unsupported[e]; known {
			t.Unsupported = why
			return t
		}
	}
	if t.From == nil {
		t.Unreachable = fmt.Sprintf("there is no prober at %s", c.From)
		return t
	}
	var ok bool
	if c.Via == model.ViaPodIP {
		agent := s.agents[c.To]
		if agent == nil {
			t.Unreachable = fmt.Sprintf("%s does not run", c.To)
			return t
		}
		t.Answerers, t.Recorders = []probes.Identity{agent.Identity()}, []probes.Agent{agent}
		t.Address, ok = s.Address(c.To, c.IPFamily)
	} else {
		svc, known := s.declared.Service(c.To)
		if !known {
			t.Unreachable = fmt.Sprintf("there is no service %s", c.To)
			return t
		}
		for _, p := range s.declared.Pods {
			if svc.Selects(&p) {
				agent := s.agents[p.Endpoint()]
				t.Answerers = append(t.Answerers, agent.Identity())
				t.Recorders = append(t.Recorders, agent)
			}
		}
		t.Address, ok = model.AddressOf(svc.Addresses, c.IPFamily)
		if c.Via == model.ViaNodePort {
			t.Address, ok = model.AddressOf(s.declared.Nodes[0].Addresses, c.IPFamily)
			t.Port = 0
			for _, p := range svc.Ports {
				if p.Port.Number == c.Port && p.Port.Protocol == c.Protocol {
					t.Port = p.NodePort
				}
			}
			ok = ok && t.Port != 0
		}
	}
	if !ok {
		t.Unreachable = fmt.Sprintf("%s has no %s address", c.To, c.IPFamily)
	}
	return t
}

// Agent is that of an endpoint that runs, or nil; with Ports it makes the stage the [sampling.Servers] of its
// endpoints.
func (s *Stage) Agent(e model.Endpoint) probes.Agent { return s.agents[e] }

// Ports are what an endpoint was declared to serve.
func (s *Stage) Ports(e model.Endpoint) []model.Port {
	if p, ok := s.declared.Pod(e); ok {
		return p.Ports
	}
	if h, ok := s.declared.Host(e); ok {
		return h.Ports
	}
	return nil
}

// SelfTargets are connections from each prober to a server of its own, which no policy can cut: a prober that cannot
// make them proves nothing by failing elsewhere. Endpoints that serve nothing have none.
func (s *Stage) SelfTargets(targets []sampling.Target) []sampling.Target {
	var out []sampling.Target
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
		ports := s.Ports(e)
		i := slices.IndexFunc(ports, func(p model.Port) bool { return p.Protocol != model.SCTP })
		if i < 0 {
			return
		}
		c := model.Connection{From: e, To: e, Port: ports[i].Number, Protocol: ports[i].Protocol, IPFamily: f, Via: model.ViaPodIP}
		if t := s.Target(c, model.Allow); t.Unreachable == "" {
			out = append(out, t)
		}
	}
	for _, t := range targets {
		add(t.Conn.From, t.Conn.IPFamily)
		add(t.Conn.To, t.Conn.IPFamily)
	}
	return out
}
