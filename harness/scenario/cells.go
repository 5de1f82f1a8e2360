package scenario

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/netproof/netproof/harness/model"
)

// probeUse is a probe, and what of it found something so far. What finds nothing in any step is a mistake.
type probeUse struct {
	*Probe
	via model.Via
	// from, to, cell and ports tell which parts matched.
	fromHit, toHit, cellHit bool
	portHit                 []bool
	nearMiss                string
}

func usesOf(probes []Probe) []*probeUse {
	out := make([]*probeUse, len(probes))
	for i := range probes {
		via := model.Via(probes[i].Via)
		if via == "" {
			via = model.ViaPodIP
		}
		out[i] = &probeUse{Probe: &probes[i], via: via, portHit: make([]bool, len(probes[i].Ports))}
	}
	return out
}

// destination is one end that can be probed, and the ports it serves.
type destination struct {
	endpoint model.Endpoint
	via      model.Via
	ports    []model.Port
}

// maxCells bounds the cells of a step: more of them cannot be proven in a window that means anything.
const maxCells = 100_000

// connections lists the cells of a step, in the order of the topology.
func (p *planner) connections(probes []*probeUse) []model.Connection {
	rank := p.ranks()
	seen := map[model.Connection]bool{}
	var out []model.Connection
	add := func(from model.Endpoint, to destination, port model.Port) {
		if len(out) > maxCells {
			return
		}
		for _, family := range p.families {
			if !p.topology.HasFamily(from, family) || !p.topology.HasFamily(to.endpoint, family) {
				continue
			}
			c := model.Connection{From: from, To: to.endpoint, Port: port.Number, Protocol: port.Protocol, IPFamily: family, Via: to.via}
			if !seen[c] {
				seen[c] = true
				out = append(out, c)
			}
		}
	}
	if len(p.s.Spec.Probes) == 0 && len(probes) == 0 {
		for i := range p.topology.Pods {
			for j := range p.topology.Pods {
				if from, to := &p.topology.Pods[i], &p.topology.Pods[j]; i != j && model.Tells(from, to) {
					for _, port := range to.Ports {
						add(from.Endpoint(), destination{to.Endpoint(), model.ViaPodIP, to.Ports}, port)
					}
				}
			}
		}
		return out
	}
	pods := make(map[model.Endpoint]*model.Pod, len(p.topology.Pods))
	for i := range p.topology.Pods {
		pods[p.topology.Pods[i].Endpoint()] = &p.topology.Pods[i]
	}
	services := make(map[model.Endpoint]*model.Service, len(p.topology.Services))
	for i := range p.topology.Services {
		services[p.topology.Services[i].Endpoint()] = &p.topology.Services[i]
	}
	for _, u := range probes {
		sources, destinations := p.sources(u), p.destinations(u)
		u.fromHit, u.toHit = u.fromHit || len(sources) > 0, u.toHit || len(destinations) > 0
		for _, from := range sources {
			for _, to := range destinations {
				if from == to.endpoint && to.via == model.ViaPodIP && (!u.from.exact() || !u.to.exact() || len(sources) > 1) {
					continue // "every pod" means every other one, and so does a workload of several
				}
				target := pods[to.endpoint]
				if to.via != model.ViaPodIP {
					target = nil
				}
				if pod := pods[from]; u.others && pod != nil && services[to.endpoint].Selects(pod) {
					continue
				}
				if !u.wanted(pods[from], target) {
					continue
				}
				if !from.IsPod() && to.via == model.ViaPodIP && !to.endpoint.IsPod() {
					u.nearMiss = "neither end is a pod"
					continue
				}
				for _, port := range to.ports {
					if u.wants(port) {
						u.cellHit = true
						add(from, to, port)
					}
				}
			}
		}
	}
	slices.SortStableFunc(out, func(a, b model.Connection) int {
		return cmp.Or(cmp.Compare(rank[a.From], rank[b.From]), cmp.Compare(rank[a.To], rank[b.To]), cmp.Compare(a.Via, b.Via))
	})
	return out
}

// wanted leaves out connections of replicas that are like the first one, unless the probe names them, and those of
// strangers to the network of a node, which no policy of the folder decides. An end that is not a pod is nil.
func (u *probeUse) wanted(source, target *model.Pod) bool {
	switch {
	case source != nil && source.Twin && u.from.names(source), target != nil && target.Twin && u.to.names(target):
		return true
	case source != nil && source.Stranger && target != nil && target.HostNetwork:
		return u.from.exact() && u.to.exact()
	}
	return model.Tells(source, target)
}

// wants tells whether a probe tries a port, and notes which of its own ports it is.
func (u *probeUse) wants(port model.Port) bool {
	if len(u.Ports) == 0 {
		return true
	}
	wanted := false
	for i, ref := range u.Ports {
		if ref.matches(port) {
			wanted, u.portHit[i] = true, true
		}
	}
	return wanted
}

// ranks is the order of endpoints in tables: pods, services, nodes, hosts.
func (p *planner) ranks() map[model.Endpoint]int {
	rank := map[model.Endpoint]int{}
	add := func(e model.Endpoint) {
		if _, ok := rank[e]; !ok {
			rank[e] = len(rank)
		}
	}
	for i := range p.topology.Pods {
		add(p.topology.Pods[i].Endpoint())
	}
	for i := range p.topology.Services {
		add(p.topology.Services[i].Endpoint())
	}
	for i := range p.topology.Nodes {
		add(model.NodeEndpoint(i))
	}
	for i := range p.topology.Hosts {
		add(p.topology.Hosts[i].Endpoint())
	}
	return rank
}

func (p *planner) sources(u *probeUse) (out []model.Endpoint) {
	for i := range p.topology.Pods {
		if u.from.matchesPod(&p.topology.Pods[i]) {
			out = append(out, p.topology.Pods[i].Endpoint())
		}
	}
	for i := range p.topology.Nodes {
		if u.from.matchesNode(i) {
			if p.nodes > 0 && i >= p.nodes {
				p.add(u.fromAt, fmt.Sprintf("write a node below %d, or run with `--nodes %d`", p.nodes, i+1), "there is no node %d: the cluster has %d", i, p.nodes)
			}
			out = append(out, model.NodeEndpoint(i))
		}
	}
	for i := range p.topology.Hosts {
		if u.from.matchesHost(&p.topology.Hosts[i]) {
			out = append(out, p.topology.Hosts[i].Endpoint())
		}
	}
	return out
}

func (p *planner) destinations(u *probeUse) (out []destination) {
	if u.via != model.ViaPodIP {
		for i := range p.topology.Services {
			s := &p.topology.Services[i]
			if !u.to.matchesService(s, &p.topology) {
				continue
			}
			if u.via == model.ViaNodePort && s.Type != "NodePort" {
				u.nearMiss = fmt.Sprintf("service %s is not of type NodePort", s.Endpoint())
				continue
			}
			d := destination{endpoint: s.Endpoint(), via: u.via}
			for _, port := range s.Ports {
				d.ports = append(d.ports, port.Port)
			}
			out = append(out, d)
		}
		return out
	}
	for i := range p.topology.Pods {
		if pod := &p.topology.Pods[i]; u.to.matchesPod(pod) {
			out = append(out, destination{pod.Endpoint(), model.ViaPodIP, pod.Ports})
		}
	}
	for i := range p.topology.Hosts {
		if h := &p.topology.Hosts[i]; u.to.matchesHost(h) {
			out = append(out, destination{h.Endpoint(), model.ViaPodIP, h.Ports})
		}
	}
	return out
}

// unusedProbes reports the parts of probes that matched nothing.
func (p *planner) unusedProbes(uses []*probeUse, where string) {
	for _, u := range uses {
		if u.from.kind == noPattern || u.to.kind == noPattern || u.made {
			continue // reported when it was read, or with its rule
		}
		switch {
		case u.to.kind == nodePattern:
			p.add(u.toAt, "probe a hostNetwork pod on that node", "a node serves no ports")
		case !u.fromHit:
			p.add(u.fromAt, p.endpointFix(u.from, false), "%s in %s", u.from.unmatched(false), where)
		case !u.toHit && u.nearMiss != "":
			p.add(u.viaAt, "add `type: NodePort` to the service", "%s", u.nearMiss)
		case !u.toHit:
			services := u.via != model.ViaPodIP
			fix := p.endpointFix(u.to, services)
			if _, isService := p.topology.Service(model.Endpoint(u.To)); isService && !services {
				fix = "add `via: service`: it is a service"
			}
			p.add(u.toAt, fix, "%s in %s", u.to.unmatched(services), where)
		case p.shallow:
		case !u.cellHit && u.nearMiss != "":
			p.add(u.fromAt, "let one end be a pod", "%s, so no policy can cut the connection", u.nearMiss)
		case !u.cellHit && len(u.Ports) == 0:
			p.add(u.At, "add ports to the destination, or another endpoint", "the probe has no cell in %s: the destination serves no port, or is the source itself", where)
		default:
			for i, hit := range u.portHit {
				if !hit {
					p.add(u.Ports[i].At, p.portFix(u.to, u.via), "no destination of `%s` serves port `%s` in %s", u.To, u.Ports[i], where)
				}
			}
		}
	}
}

// endpointFix suggests an endpoint that exists.
func (p *planner) endpointFix(pat pattern, services bool) string {
	var names []string
	switch pat.kind {
	case hostPattern:
		if len(p.topology.Hosts) == 0 {
			return "declare it under topology.hosts"
		}
		for i := range p.topology.Hosts {
			if h := &p.topology.Hosts[i]; !h.Stranger {
				names = append(names, string(h.Endpoint()))
			}
		}
		if len(names) == 0 {
			return "declare it under hosts"
		}
	case labelPattern:
		return "write a selector that fits the labels of a pod"
	case everyPattern:
		if services {
			return "declare a service under topology.services"
		}
		return "declare pods under topology.pods"
	case podPattern:
		if services {
			for i := range p.topology.Services {
				names = append(names, string(p.topology.Services[i].Endpoint()))
			}
		}
		if !services || len(names) == 0 {
			for i := range p.topology.Pods {
				if pod := &p.topology.Pods[i]; !pod.Stranger {
					names = append(names, string(pod.Endpoint()))
				}
			}
		}
	}
	return didYouMean(pat.text, names)
}

// portFix lists the ports that the destinations of a pattern serve.
func (p *planner) portFix(to pattern, via model.Via) string {
	u := &probeUse{Probe: &Probe{to: to}, via: via}
	seen := map[string]bool{}
	var names []string
	for _, d := range p.destinations(u) {
		for _, port := range d.ports {
			if !port.Edge && !seen[port.String()] {
				seen[port.String()] = true
				names = append(names, port.String())
			}
		}
	}
	if len(names) == 0 {
		return "give the destination ports"
	}
	return oneOf(names)
}

// unusedServices reports services without pods, and ports of services that their pods do not serve.
func (p *planner) unusedServices(plan *Plan) {
	topologies := []*model.Topology{&plan.Initial}
	for i := range plan.Steps {
		topologies = append(topologies, &plan.Steps[i].Topology)
	}
	for i := range p.s.Spec.Topology.Services {
		in := &p.s.Spec.Topology.Services[i]
		svc, ok := plan.Initial.Service(model.Endpoint(in.Name))
		if !ok || len(svc.Selector) == 0 {
			continue // reported when it was read
		}
		found := false
		missing := map[int]model.Endpoint{}
		for _, t := range topologies {
			for _, pod := range backends(svc, t) {
				found = true
				for j, port := range svc.Ports {
					if !serves(pod, port) {
						missing[j] = pod.Endpoint()
					}
				}
			}
		}
		if !found {
			p.add(in.At, "write a selector that fits the labels of a pod in its namespace", "service `%s` selects no pod in any step", in.Name)
			continue
		}
		if p.shallow || p.s.Plain {
			continue
		}
		for j := range svc.Ports {
			if pod, ok := missing[j]; ok && j < len(in.Ports) {
				p.add(in.Ports[j].At, "add targetPort with a port that the pods serve, or the port to the pod",
					"service `%s` sends port %s to a port that pod `%s` does not serve", in.Name, svc.Ports[j].Port, pod)
			}
		}
	}
}

// serves tells whether the pod has the port that a port of a service leads to.
func serves(pod *model.Pod, port model.ServicePort) bool {
	number, ok := port.On(pod)
	return ok && slices.ContainsFunc(pod.Ports, func(p model.Port) bool { return p.Number == number && p.Protocol == port.Port.Protocol })
}

// ruleUse is a rule of the step, with the endpoints that it matches.
type ruleUse struct {
	*Rule
	from map[model.Endpoint]bool
	// pods are pods and hosts, services are services.
	pods, services map[model.Endpoint]bool
	matched        int
	decided        int
	// overruled is a later rule that gave one of its cells another verdict.
	overruled *Rule
}

// expect says what the scenario expects of each cell.
func (p *planner) expect(step *Step, connections []model.Connection) []PlannedCell {
	out := make([]PlannedCell, len(connections))
	if step.Expect == nil {
		for i, c := range connections {
			out[i].Connection = c
		}
		return out
	}
	e := step.Expect
	if e.Like != "" && p.previous == nil && !p.shallow {
		p.add(e.likeAt, "write `default: allow` or `default: deny`", "there is no step before step `%s`", step.Name)
	}
	fallback := model.Verdict(e.Default)
	if e.Default == computed {
		fallback = ""
	}
	rules := make([]*ruleUse, len(e.Rules))
	for i := range e.Rules {
		rules[i] = p.ruleUse(&e.Rules[i])
	}
	ports := p.servedPorts()
	var matching []*ruleUse
	said := map[[2]*Rule]bool{}
	for i, c := range connections {
		out[i] = PlannedCell{Connection: c, Expected: fallback, Rule: e.defaultAt.Short()}
		if before, ok := p.previous[c]; ok && e.Like != "" {
			out[i].Expected, out[i].Rule, out[i].Like = before, e.likeAt.Short(), true
		}
		var last *ruleUse
		matching = matching[:0]
		for _, r := range rules {
			if r.matches(c, ports) {
				r.matched++
				last = r
				matching = append(matching, r)
			}
		}
		if p.s.Plain && last != nil {
			p.decideAlone(&out[i], matching, step, said)
			continue
		}
		for _, r := range matching {
			if r.Verdict != last.Verdict {
				r.overruled = last.Rule
			}
		}
		if last != nil {
			last.decided++
			out[i].Expected, out[i].By, out[i].Rule, out[i].Like = model.Verdict(last.Verdict), model.Side(last.By), last.At.Short(), false
		}
	}
	for _, r := range rules {
		p.judgeRule(r, step)
	}
	return out
}

// decideAlone gives a cell of a folder the verdict of its rules, each of which stands on its own: their order means
// nothing, and two that want different things contradict each other, be they from the folder or from outside.
func (p *planner) decideAlone(cell *PlannedCell, matching []*ruleUse, step *Step, said map[[2]*Rule]bool) {
	var first *ruleUse
	for _, r := range matching {
		r.decided++
		switch {
		case first == nil:
			first = r
			cell.Expected, cell.By, cell.Rule = model.Verdict(r.Verdict), model.Side(r.By), r.At.Short()
		case r.Verdict != first.Verdict:
			if pair := [2]*Rule{first.Rule, r.Rule}; !said[pair] && !p.shallow {
				said[pair] = true
				p.problems = append(p.problems, contradiction(first.Rule, r.Rule, cell.Connection, fmt.Sprintf("step `%s`", step.Name)))
			}
		case r.outside != nil && first.outside == nil && model.Side(r.By) == cell.By:
			cell.Rule = r.At.Short() // it stays where the folder's own may go
		case r.By != "" && cell.By == "":
			cell.By, cell.Rule = model.Side(r.By), r.At.Short()
		case r.By != "" && model.Side(r.By) != cell.By:
			cell.By = model.ByBoth
		}
	}
}

func (p *planner) ruleUse(r *Rule) *ruleUse {
	u := &ruleUse{Rule: r, from: map[model.Endpoint]bool{}, pods: map[model.Endpoint]bool{}, services: map[model.Endpoint]bool{}}
	for i := range p.topology.Pods {
		pod := &p.topology.Pods[i]
		if r.from.matchesPod(pod) {
			u.from[pod.Endpoint()] = true
		}
		if r.to.matchesPod(pod) {
			u.pods[pod.Endpoint()] = true
		}
	}
	for i := range p.topology.Hosts {
		h := &p.topology.Hosts[i]
		if r.from.matchesHost(h) {
			u.from[h.Endpoint()] = true
		}
		if r.to.matchesHost(h) {
			u.pods[h.Endpoint()] = true
		}
	}
	for i := range p.topology.Nodes {
		if r.from.matchesNode(i) {
			u.from[model.NodeEndpoint(i)] = true
		}
	}
	for i := range p.topology.Services {
		if s := &p.topology.Services[i]; r.to.matchesService(s, &p.topology) {
			u.services[s.Endpoint()] = true
		}
	}
	for _, e := range r.except {
		if !u.spare(e, &p.topology) {
			p.add(r.At, p.endpointFix(e, false), "%s: the rule excepts nobody by it", e.unmatched(false))
		}
	}
	return u
}

// spare takes the sources of an exception out, and tells whether there are any.
func (r *ruleUse) spare(e pattern, t *model.Topology) (found bool) {
	for i := range t.Pods {
		if e.matchesPod(&t.Pods[i]) {
			found = true
			delete(r.from, t.Pods[i].Endpoint())
		}
	}
	for i := range t.Hosts {
		if e.matchesHost(&t.Hosts[i]) {
			found = true
			delete(r.from, t.Hosts[i].Endpoint())
		}
	}
	for i := range t.Nodes {
		if e.matchesNode(i) {
			found = true
			delete(r.from, model.NodeEndpoint(i))
		}
	}
	return found
}

// servedKey names a destination: a pod and a service may have one name.
type servedKey struct {
	endpoint model.Endpoint
	service  bool
}

// servedPorts lists the ports of every destination, for rules that name ports.
func (p *planner) servedPorts() map[servedKey][]model.Port {
	out := map[servedKey][]model.Port{}
	for i := range p.topology.Pods {
		out[servedKey{p.topology.Pods[i].Endpoint(), false}] = p.topology.Pods[i].Ports
	}
	for i := range p.topology.Hosts {
		out[servedKey{p.topology.Hosts[i].Endpoint(), false}] = p.topology.Hosts[i].Ports
	}
	for i := range p.topology.Services {
		for _, port := range p.topology.Services[i].Ports {
			key := servedKey{p.topology.Services[i].Endpoint(), true}
			out[key] = append(out[key], port.Port)
		}
	}
	return out
}

func (r *ruleUse) matches(c model.Connection, served map[servedKey][]model.Port) bool {
	service := c.Via != model.ViaPodIP
	if !r.from[c.From] || service && !r.services[c.To] || !service && !r.pods[c.To] {
		return false
	}
	if r.Via != "" && model.Via(r.Via) != c.Via || r.apart != nil && !r.apartFrom(c.From, c.To) {
		return false
	}
	if len(r.Ports) == 0 && r.Verdict != string(model.Allow) {
		return true
	}
	for _, port := range served[servedKey{c.To, service}] {
		if port.Number != c.Port || port.Protocol != c.Protocol {
			continue
		}
		if len(r.Ports) == 0 {
			// What works is said of the ports that the destination has, not of those that are asked about besides.
			return !port.Edge
		}
		for _, ref := range r.Ports {
			if ref.matches(port) {
				return true
			}
		}
	}
	return false
}

// judgeRule reports rules that speak of nothing. One from outside the folder may speak of another folder: see
// unusedAssertions.
func (p *planner) judgeRule(r *ruleUse, step *Step) {
	if r.Rule.from.kind == noPattern || r.to.kind == noPattern {
		return // reported when it was read
	}
	problem, wrong := p.ruleProblem(r, step)
	switch {
	case r.outside != nil:
		r.outside.decided += r.decided
		if wrong {
			r.outside.problems = append(r.outside.problems, problem)
		}
	case wrong:
		p.problems = append(p.problems, problem)
	case !p.shallow && r.decided == 0 && r.overruled != nil:
		p.add(r.At, "remove it, or put it after the rule that overrides it",
			"the rule decides no cell of step `%s`: later rules match all of its cells, and %s wants another verdict", step.Name, r.overruled.At.Short())
	case !p.shallow && r.decided == 0:
		p.warn(r.At, "remove it, or put it after the rules that override it", "the rule decides no cell of step `%s`: later rules match all of its cells", step.Name)
		p.idle = append(p.idle, fmt.Sprintf("the rule at %s decides no cell of step `%s`", r.At.Short(), step.Name))
	}
}

// ruleProblem says why a rule cannot match a cell of a step, if it cannot.
func (p *planner) ruleProblem(r *ruleUse, step *Step) (problem Problem, wrong bool) {
	where := fmt.Sprintf("step `%s`", step.Name)
	services := model.Via(r.Via) == model.ViaService || model.Via(r.Via) == model.ViaNodePort
	switch {
	case r.to.kind == nodePattern:
		return problemAt(r.toAt, "name a hostNetwork pod on that node", "a node serves no ports"), true
	case len(r.from) == 0:
		return problemAt(r.fromAt, p.endpointFix(r.Rule.from, false), "%s in %s", r.Rule.from.unmatched(false), where), true
	case len(r.pods) == 0 && len(r.services) == 0:
		return problemAt(r.toAt, p.endpointFix(r.to, services), "%s in %s", r.to.unmatched(services), where), true
	case !p.shallow && r.matched == 0:
		return problemAt(r.At, "make it match connections that are probed, or add a probe", "the rule matches no cell of %s", where), true
	}
	return Problem{}, false
}
