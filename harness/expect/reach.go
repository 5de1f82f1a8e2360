package expect

import (
	"fmt"
	"slices"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/scenario"
	"github.com/netproof/netproof/harness/semantics"
)

// ReachQuestion asks who reaches an endpoint, or whom it reaches. One of From and To is given, as in a [Question].
type ReachQuestion struct {
	From, To model.Endpoint
	// Port restricts the answer to one port; empty means every port that is served.
	Port string
	// Families to ask about; the first is also that of the plan.
	Families []model.IPFamily
	// Nodes of the cluster that is assumed.
	Nodes int
	// Step is the name of the step that is asked about; empty means the last.
	Step string
}

// Reached is the answer for one port of one destination, or for one destination of one source.
type Reached struct {
	Step string
	// Decisions are those about all connections, in the order of the topology.
	Decisions []semantics.Decision
	// Unjudged are policies of other kinds that may decide connections: there are no decisions then.
	Unjudged []scenario.Unjudged
}

// StepError says that a scenario has no step of a name.
type StepError struct {
	Scenario, Step string
	Known          []string
}

func (e *StepError) Error() string {
	return fmt.Sprintf("scenario %s has no step %q", e.Scenario, e.Step)
}

// Reach answers who can reach whom in a step of a scenario, without a cluster. Each decision carries the verdict of
// either side, so that a door shows that is open while nobody may go there.
func Reach(s *scenario.Scenario, q ReachQuestion) (Reached, error) {
	plan, err := s.Whole(q.Families, q.Nodes)
	if err != nil {
		return Reached{}, err
	}
	at := len(plan.Steps) - 1
	if q.Step != "" {
		var names []string
		for _, step := range plan.Steps {
			names = append(names, step.Name)
		}
		if at = slices.Index(names, q.Step); at < 0 {
			return Reached{}, &StepError{s.Metadata.Name, q.Step, names}
		}
	}
	step := &plan.Steps[at]
	ask := Question{From: q.From, To: q.To, Port: q.Port, Families: q.Families, Nodes: q.Nodes}
	if ask, err = withAddresses(plan, ask); err != nil {
		return Reached{}, err
	}
	t := &step.Topology
	var port model.Port
	if q.Port != "" {
		if port, err = parsePort(q.Port); err != nil {
			return Reached{}, err
		}
	}
	sources, err := ends(s, t, ask.From, false)
	if err != nil {
		return Reached{}, err
	}
	destinations, err := ends(s, t, ask.To, true)
	if err != nil {
		return Reached{}, err
	}
	policies, err := unresolvedPolicies(step, q.Families)
	if err != nil {
		return Reached{}, err
	}
	evaluator, err := semantics.New(t, policies.policies)
	if err != nil {
		return Reached{}, err
	}
	a := Answer{Step: step.Name}
	for _, to := range destinations {
		var targets []target
		for _, served := range destinationsOf(t, to) {
			if q.Port == "" && !served.port.Edge || q.Port != "" && slices.Contains(meant(port, []target{served}), served) {
				targets = append(targets, served)
			}
		}
		if len(targets) == 0 && q.Port != "" && port.Name == "" && q.To != "" {
			targets = meant(port, nil) // a policy speaks of a port that nobody serves all the same
		}
		for _, from := range sources {
			if from == to || !from.IsPod() && !to.IsPod() || !tells(t, from, to) {
				continue
			}
			if err := a.decide(evaluator, t, from, to, targets, q.Families); err != nil {
				return Reached{}, err
			}
		}
	}
	out := Reached{Step: step.Name, Decisions: a.Decisions, Unjudged: scenario.Undecided(step.Unjudged, a.Connections...)}
	if len(out.Unjudged) > 0 {
		out.Decisions = nil
	}
	if len(a.Connections) == 0 && port.Name != "" {
		return out, fmt.Errorf("%s has no port named %s%s", q.To, port.Name, servedBy(t, ask.To))
	}
	return out, nil
}

// tells leaves out the replicas that are like the first of their workload, but for connections between the two.
func tells(t *model.Topology, from, to model.Endpoint) bool {
	source, _ := t.Pod(from)
	target, _ := t.Pod(to)
	return model.Tells(source, target)
}

// ends are the endpoints that an end of a question stands for; all of them if it is empty.
func ends(s *scenario.Scenario, t *model.Topology, e model.Endpoint, services bool) ([]model.Endpoint, error) {
	if e != "" {
		found, err := scenario.Matching(t, string(e), services)
		if err == nil && len(found) == 0 {
			err = &UnknownEndpointError{Scenario: s.Metadata.Name, Endpoint: e, Known: endpointsOf(t)}
		}
		return found, err
	}
	var out []model.Endpoint
	for _, name := range endpointsOf(t) {
		out = append(out, model.Endpoint(name))
	}
	if !services {
		out = slices.DeleteFunc(out, func(e model.Endpoint) bool {
			_, pod := t.Pod(e)
			return !pod && e.IsPod()
		})
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}
