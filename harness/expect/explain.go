package expect

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/scenario"
	"github.com/netproof/netproof/harness/semantics"
)

// Question is a connection that somebody wants explained.
type Question struct {
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
// destination that is a service is asked about by its service address.
func Explain(s *scenario.Scenario, q Question) ([]Answer, error) {
	port, err := parsePort(q.Port)
	if err != nil {
		return nil, err
	}
	plan, err := s.Plan(q.Families, q.Nodes)
	if err != nil {
		return nil, err
	}
	var known []string
	for _, step := range plan.Steps {
		for _, name := range endpointsOf(&step.Topology) {
			if !slices.Contains(known, name) {
				known = append(known, name)
			}
		}
	}
	for _, e := range []model.Endpoint{q.From, q.To} {
		if !slices.Contains(known, string(e)) {
			return nil, &UnknownEndpointError{Scenario: s.Metadata.Name, Endpoint: e, Known: known}
		}
	}
	var answers []Answer
	for i := range plan.Steps {
		step := &plan.Steps[i]
		answer, err := explainStep(step, q, port)
		if err != nil {
			return nil, fmt.Errorf("%s: step %q: %w", s.File, step.Name, err)
		}
		answers = append(answers, answer)
	}
	return answers, nil
}

func explainStep(step *scenario.PlannedStep, q Question, port model.Port) (Answer, error) {
	answer := Answer{Step: step.Name}
	topology := step.Topology
	here := endpointsOf(&topology)
	for _, e := range []model.Endpoint{q.From, q.To} {
		if !slices.Contains(here, string(e)) {
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
	served, via := portsOf(&topology, q.To)
	ports := meant(port, served)
	if len(ports) == 0 {
		answer.Missing = fmt.Sprintf("%s has no port named %s", q.To, port.Name)
		return answer, nil
	}
	for _, p := range ports {
		for _, family := range q.Families {
			d, err := evaluator.Decide(model.Connection{
				From: q.From, To: q.To, Port: p.Number, Protocol: p.Protocol, IPFamily: family, Via: via,
			})
			if err != nil {
				return answer, err
			}
			answer.Connections = append(answer.Connections, d.Connection)
			answer.Decisions = append(answer.Decisions, d)
		}
	}
	// Which ports and families are asked about makes no difference: nothing of these policies is read.
	if answer.Unjudged = scenario.Undecided(step.Unjudged, answer.Connections[0]); len(answer.Unjudged) > 0 {
		answer.Decisions = nil
	}
	return answer, nil
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

// meant gives the ports that a question is about: those served that fit, and for a number that is not served, the
// number itself, since a policy speaks about it all the same.
func meant(asked model.Port, served []model.Port) []model.Port {
	var ports []model.Port
	for _, p := range served {
		byName := asked.Name != "" && p.Name == asked.Name
		byNumber := asked.Name == "" && p.Number == asked.Number
		if (byName || byNumber) && (asked.Protocol == "" || p.Protocol == asked.Protocol) {
			ports = append(ports, p)
		}
	}
	if len(ports) == 0 && asked.Name == "" {
		if asked.Protocol == "" {
			asked.Protocol = model.TCP
		}
		ports = append(ports, asked)
	}
	return ports
}

// portsOf gives what a destination serves, and the way to it.
func portsOf(t *model.Topology, e model.Endpoint) ([]model.Port, model.Via) {
	if pod, ok := t.Pod(e); ok {
		return pod.Ports, model.ViaPodIP
	}
	if host, ok := t.Host(e); ok {
		return host.Ports, model.ViaPodIP
	}
	service, ok := t.Service(e)
	if !ok {
		return nil, model.ViaPodIP
	}
	var ports []model.Port
	for _, p := range service.Ports {
		ports = append(ports, p.Port)
	}
	return ports, model.ViaService
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
