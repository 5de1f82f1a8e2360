package expect

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/scenario"
	"github.com/netproof/netproof/harness/semantics"
	"github.com/netproof/netproof/harness/words"
)

// Question is a connection that somebody wants explained.
type Question struct {
	//
	// An end is an endpoint, an address, or a pattern that may stand for several, as in rules.
	From, To model.Endpoint
	// Port is a number, a number and a protocol such as 53/UDP, or the name of a port.
	Port string
	// Families to ask about; the first is also that of the plan.
	Families []model.IPFamily
	// Nodes of the cluster that is assumed.
	Nodes int
}

// Answer is what the specification says in one step.
type Answer struct {
	Step string
	// Missing says why there is nothing to explain: an end does not exist in this step, or does not serve the port.
	Missing string
	// Several is true where patterns were asked about: each connection is one of several pairs.
	Several bool
	// Connections has one entry per port that is meant and per family.
	Connections []model.Connection
	// Decisions has one entry per connection, or none where Unjudged has any.
	Decisions []semantics.Decision
	// Unjudged are the policies of other kinds that may decide the connections: there is no verdict without them.
	Unjudged []scenario.Unjudged
}

// UnknownEndpointError says that no step of a scenario has an endpoint.
type UnknownEndpointError struct {
	Scenario string
	Endpoint model.Endpoint
	// Known are the endpoints that there are.
	Known []string
}

func (e *UnknownEndpointError) Error() string {
	return fmt.Sprintf("scenario %s has no %s", e.Scenario, e.Endpoint)
}

// Explain answers a question for every step of a scenario, without a cluster. Verdicts that depend on addresses which
// only running pods have are undefined, and say so. Where a policy of another kind may decide there is no verdict. A
// destination that is a service is asked about by its service address. Where a pod and a service share a name, each is
// asked about if it serves the port. A workload that asks itself, and has several replicas, asks another of them.
func Explain(s *scenario.Scenario, q Question) ([]Answer, error) {
	port, err := parsePort(q.Port)
	if err != nil {
		return nil, err
	}
	plan, err := s.Whole(q.Families, q.Nodes)
	if err != nil {
		return nil, err
	}
	if q, err = withAddresses(plan, q); err != nil {
		return nil, err
	}
	var known []string
	for _, e := range []model.Endpoint{q.From, q.To} {
		if scenario.IsPattern(string(e)) && !slices.ContainsFunc(plan.Steps, func(step scenario.PlannedStep) bool {
			found, err := scenario.Matching(&step.Topology, string(e), e == q.To)
			return len(found) > 0 || err != nil // the error is said below
		}) {
			return nil, &UnknownEndpointError{Scenario: s.Metadata.Name, Endpoint: e}
		}
	}
	for _, step := range plan.Steps {
		q.From, q.To = replicas(&step.Topology, q.From, q.To)
		for _, name := range endpointsOf(&step.Topology) {
			if !slices.Contains(known, name) {
				known = append(known, name)
			}
		}
	}
	for _, e := range []model.Endpoint{q.From, q.To} {
		if !slices.Contains(known, string(e)) && !scenario.IsPattern(string(e)) {
			return nil, &UnknownEndpointError{Scenario: s.Metadata.Name, Endpoint: e, Known: known}
		}
	}
	var answers []Answer
	asked := 0
	for i := range plan.Steps {
		step := &plan.Steps[i]
		answer, err := explainStep(step, q, port)
		if asked += len(answer.Connections); err == nil && asked > mostAsked {
			err = errTooMany
		}
		if err != nil {
			return nil, fmt.Errorf("%s: step %q: %w", s.File, step.Name, err)
		}
		answers = append(answers, answer)
	}
	return answers, nil
}

func explainStep(step *scenario.PlannedStep, q Question, port model.Port) (Answer, error) {
	answer := Answer{Step: step.Name, Several: scenario.IsPattern(string(q.From)) || scenario.IsPattern(string(q.To))}
	topology := step.Topology
	here := endpointsOf(&topology)
	for _, e := range []model.Endpoint{q.From, q.To} {
		if !slices.Contains(here, string(e)) && !scenario.IsPattern(string(e)) {
			answer.Missing = fmt.Sprintf("%s does not exist in this step", e)
			return answer, nil
		}
	}
	policies, err := unresolvedPolicies(step, q.Families)
	if err != nil {
		return answer, err
	}
	evaluator, err := semantics.New(&topology, policies.policies)
	if err != nil {
		return answer, err
	}
	if answer.Several {
		return answer.several(evaluator, step, q, port)
	}
	targets := meant(port, destinationsOf(&topology, q.To))
	if len(targets) == 0 {
		answer.Missing = fmt.Sprintf("%s has no port named %s%s", q.To, port.Name, servedBy(&topology, q.To))
		return answer, nil
	}
	if err := answer.decide(evaluator, &topology, q.From, q.To, targets, q.Families); err != nil {
		return answer, err
	}
	if len(answer.Connections) == 0 {
		answer.Missing = fmt.Sprintf("%s and %s have no address of one family", q.From, q.To)
		return answer, nil
	}
	// Which ports and families are asked about makes no difference: nothing of these policies is read.
	if answer.Unjudged = scenario.Undecided(step.Unjudged, answer.Connections[0]); len(answer.Unjudged) > 0 {
		answer.Decisions = nil
	}
	return answer, nil
}

// mostAsked bounds the connections of a question: its patterns may stand for many, in a folder that comes from a
// stranger.
const mostAsked = 100_000

var errTooMany = fmt.Errorf("the question is about more than %d connections: name an end or a port, or ask about fewer files", mostAsked)

// decide asks about each port and family.
func (a *Answer) decide(evaluator *semantics.Evaluator, t *model.Topology, from, to model.Endpoint, targets []target, families []model.IPFamily) error {
	for _, target := range targets {
		for _, family := range families {
			if !t.HasFamily(from, family) || !t.HasFamily(to, family) {
				continue
			}
			d, err := evaluator.Decide(model.Connection{
				From: from, To: to, Port: target.port.Number, Protocol: target.port.Protocol, IPFamily: family, Via: target.via,
			})
			if err != nil {
				return err
			}
			if len(a.Connections) == mostAsked {
				return errTooMany
			}
			a.Connections = append(a.Connections, d.Connection)
			a.Decisions = append(a.Decisions, d)
		}
	}
	return nil
}

// several answers for all pairs that patterns stand for, as far as the destination serves the port.
func (a Answer) several(evaluator *semantics.Evaluator, step *scenario.PlannedStep, q Question, port model.Port) (Answer, error) {
	t := &step.Topology
	sources, err := scenario.Matching(t, string(q.From), false)
	if err != nil {
		return a, err
	}
	destinations, err := scenario.Matching(t, string(q.To), true)
	if err != nil {
		return a, err
	}
	for _, to := range destinations {
		var targets []target
		for _, served := range destinationsOf(t, to) {
			if slices.Contains(meant(port, []target{served}), served) {
				targets = append(targets, served)
			}
		}
		if !scenario.IsPattern(string(q.To)) {
			targets = meant(port, destinationsOf(t, to))
		}
		for _, from := range sources {
			if from == to && len(sources)+len(destinations) > 2 || !from.IsPod() && !to.IsPod() {
				continue
			}
			if err := a.decide(evaluator, t, from, to, targets, q.Families); err != nil {
				return a, err
			}
		}
	}
	if len(a.Connections) == 0 {
		a.Missing = fmt.Sprintf("nobody that %s stands for serves %s to %s", q.To, q.Port, q.From)
		return a, nil
	}
	if a.Unjudged = scenario.Undecided(step.Unjudged, a.Connections...); len(a.Unjudged) > 0 {
		a.Decisions = nil
	}
	return a, nil
}

// withAddresses puts endpoints where a question has addresses: the host that has the address, or one that nobody
// declared.
func withAddresses(plan *scenario.Plan, q Question) (Question, error) {
	for _, end := range []*model.Endpoint{&q.From, &q.To} {
		a, err := netip.ParseAddr(string(*end))
		if err != nil {
			continue
		}
		var found model.Endpoint
		for i := range plan.Steps {
			t := &plan.Steps[i].Topology
			hosts, err := scenario.Matching(t, string(*end), false)
			if err != nil {
				return q, err
			}
			if len(hosts) > 0 {
				found = hosts[0]
				continue
			}
			h := model.Host{Name: a.String(), Addresses: []netip.Addr{a}}
			t.Hosts = append(t.Hosts, h)
			found = h.Endpoint()
		}
		*end = found
	}
	return q, nil
}

// parsePort reads 80, 53/UDP or a name. The protocol is empty where it was not given.
func parsePort(text string) (model.Port, error) {
	number, protocol, slash := strings.Cut(text, "/")
	p := model.Port{Protocol: model.Protocol(strings.ToUpper(protocol))}
	if slash && p.Protocol != model.TCP && p.Protocol != model.UDP && p.Protocol != model.SCTP {
		return p, fmt.Errorf("port %q: the protocol must be TCP, UDP or SCTP", text)
	}
	n, err := strconv.Atoi(number)
	switch {
	case err == nil && (n < 1 || n > 65535):
		return p, fmt.Errorf("port %q: it must be from 1 to 65535", text)
	case err == nil:
		p.Number = n
	case number == "":
		return p, fmt.Errorf("port %q: it must be a number such as 80, a number and a protocol such as 53/UDP, or a name", text)
	default:
		p.Name = number
	}
	return p, nil
}

// target is a port of a destination, and the way to it.
type target struct {
	port model.Port
	via  model.Via
}

// meant gives what a question is about: the ports served that fit, of the pod and of the service if they share a name.
// For a number that nobody serves it is the number itself, since a policy speaks about it all the same.
func meant(asked model.Port, served []target) (out []target) {
	for _, t := range served {
		byName := asked.Name != "" && t.port.Name == asked.Name
		byNumber := asked.Name == "" && t.port.Number == asked.Number
		if (byName || byNumber) && (asked.Protocol == "" || t.port.Protocol == asked.Protocol) {
			out = append(out, t)
		}
	}
	if len(out) == 0 && asked.Name == "" {
		if asked.Protocol == "" {
			asked.Protocol = model.TCP
		}
		via := model.ViaPodIP
		if len(served) > 0 {
			via = served[0].via
		}
		out = append(out, target{asked, via})
	}
	return out
}

// destinationsOf gives what a destination serves, and the way to each port; those of a pod come before those of a
// service of the same name.
func destinationsOf(t *model.Topology, e model.Endpoint) (out []target) {
	if pod, ok := t.Pod(e); ok {
		for _, p := range pod.Ports {
			out = append(out, target{p, model.ViaPodIP})
		}
	}
	if host, ok := t.Host(e); ok {
		for _, p := range host.Ports {
			out = append(out, target{p, model.ViaPodIP})
		}
	}
	if service, ok := t.Service(e); ok {
		for _, p := range service.Ports {
			out = append(out, target{p.Port, model.ViaService})
		}
	}
	return out
}

// servedBy lists the ports of a destination, for a message.
func servedBy(t *model.Topology, e model.Endpoint) string {
	var names []string
	for _, d := range destinationsOf(t, e) {
		name := d.port.String()
		if d.port.Name != "" {
			name = d.port.Name
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return ": it serves none"
	}
	return ": it serves " + words.And(names)
}

// replicas finds the pods that names of workloads stand for: the first replica, and another one where a workload asks
// itself.
func replicas(t *model.Topology, from, to model.Endpoint) (model.Endpoint, model.Endpoint) {
	of := func(e model.Endpoint) (out []model.Endpoint) {
		namespace, name, ok := e.Split()
		for i := range t.Pods {
			if p := &t.Pods[i]; ok && p.Namespace == namespace && (p.Workload == name || p.Name == name) {
				out = append(out, p.Endpoint())
			}
		}
		return out
	}
	sources, targets := of(from), of(to)
	itself := from == to && len(targets) > 1
	if len(sources) > 0 {
		from = sources[0]
	}
	switch {
	case itself:
		to = targets[1]
	case len(targets) > 0:
		to = targets[0]
	}
	return from, to
}

func endpointsOf(t *model.Topology) []string {
	var names []string
	for _, p := range t.Pods {
		names = append(names, string(p.Endpoint()))
	}
	for _, s := range t.Services {
		names = append(names, string(s.Endpoint()))
	}
	for _, n := range t.Nodes {
		names = append(names, string(model.NodeEndpoint(n.Index)))
	}
	for _, h := range t.Hosts {
		names = append(names, string(h.Endpoint()))
	}
	return names
}
