package scenario

import (
	"cmp"
	"fmt"

	"github.com/netproof/netproof/harness/policy"
)

// Limits bound what all scenarios of one call make together. They are checked before anything is listed or made: a
// folder may come from a stranger.
type Limits struct {
	// Namespaces, Pods and Services are the most that there may be, counted by name: scenarios that use the same name
	// one after the other make one.
	Namespaces, Pods, Services int
	// Cells are the most connections that may be probed, of one IP family, summed over all steps of all scenarios.
	Cells int
}

// DefaultLimits are far above what suites of scenarios need, and low enough for a machine of CI to end with a message.
var DefaultLimits = Limits{Namespaces: 200, Pods: 1000, Services: 200, Cells: 1_000_000}

func (l Limits) orDefault() Limits {
	return Limits{
		Namespaces: cmp.Or(l.Namespaces, DefaultLimits.Namespaces), Pods: cmp.Or(l.Pods, DefaultLimits.Pods),
		Services: cmp.Or(l.Services, DefaultLimits.Services), Cells: cmp.Or(l.Cells, DefaultLimits.Cells),
	}
}

const (
	// maxSteps bounds the steps of a scenario.
	maxSteps = 1000
	// maxStepObjects bounds what all steps of a scenario have to remember: its objects, once for each step.
	maxStepObjects = 500_000
	// maxApplied bounds the policies that all steps of a scenario apply.
	maxApplied = 20_000
)

// within counts what the scenarios make, and reports what is too much. It returns false if something is.
func (l *loader) within(limits Limits, scenarios []*Scenario) bool {
	limits = limits.orDefault()
	before := l.count()
	namespaces, pods, services := map[string]bool{}, map[string]bool{}, map[string]bool{}
	cells := 0
	for _, s := range scenarios {
		t := &s.Spec.Topology
		// Strangers are no more than the namespaces that they stand in, and nobody wrote them.
		for i := range t.Namespaces {
			if !t.Namespaces[i].stranger {
				namespaces[t.Namespaces[i].Name] = true
			}
		}
		for i := range t.Services {
			if !t.Services[i].like {
				services[t.Services[i].Name] = true
			}
		}
		for i := range t.Pods {
			if !t.Pods[i].stranger && !t.Pods[i].like {
				pods[t.Pods[i].Name] = true
			}
		}
		for _, step := range s.Spec.Steps {
			if step.Create != nil {
				for i := range step.Create.Pods {
					pods[step.Create.Pods[i].Name] = true
				}
			}
		}
		for _, of := range []struct {
			what     string
			has, max int
		}{
			{"namespaces", len(namespaces), limits.Namespaces}, {"pods", len(pods), limits.Pods}, {"services", len(services), limits.Services},
		} {
			if of.has > of.max {
				l.add(s.Metadata.At, fmt.Sprintf("take some out, or raise the bound: --max-%s %d", of.what, of.has),
					"up to scenario `%s` the run makes %d %s, and %d are the most", s.Metadata.Name, of.has, of.what, of.max)
			}
		}
		applied, policies := countPolicies(s)
		if applied > maxApplied {
			l.add(s.Metadata.At, "make several scenarios of it", "scenario `%s` applies %d policies, and %d are the most", s.Metadata.Name, applied, maxApplied)
		}
		if steps := len(s.Spec.Steps); steps > maxSteps || steps*(len(t.Pods)+len(t.Namespaces)+len(t.Services)+policies) > maxStepObjects {
			l.add(s.Metadata.At, "make several scenarios of it", "scenario `%s` has too many steps for what it holds: %d", s.Metadata.Name, steps)
		}
		if l.count() > before {
			return false // counting cells would take long
		}
		if cells += newPlanner(s, nil, 0).countCells(limits.Cells - cells); cells > limits.Cells {
			l.add(s.Metadata.At, "narrow the probes, make fewer steps, or raise the bound with --max-cells",
				"up to scenario `%s` the run has more than %d cells", s.Metadata.Name, limits.Cells)
			return false
		}
	}
	return true
}

// countPolicies counts the policies of a scenario: each time that one is applied, and each one once.
func countPolicies(s *Scenario) (applied, policies int) {
	seen := map[policy.Ref]bool{}
	for _, step := range s.Spec.Steps {
		for _, a := range step.Apply {
			applied += len(a.objects)
			for _, o := range a.objects {
				seen[o.key()] = true
			}
		}
	}
	return applied, len(seen)
}

// countCells counts the cells of all steps, for one IP family, without listing them. It stops above the bound. Cells
// that several probes name are counted for each of them.
func (p *planner) countCells(most int) (cells int) {
	p.shallow = true // what is wrong is reported when the plan is made
	p.setUp()
	probes := usesOf(p.s.Spec.Probes)
	for i := range p.s.Spec.Steps {
		step := &p.s.Spec.Steps[i]
		p.remove(step)
		p.create(step)
		if step.Label != nil {
			p.label(step)
		}
		uses := probes
		if len(step.Probes) > 0 {
			uses = usesOf(step.Probes)
		}
		cells += p.countStep(uses)
		if cells > most {
			return cells
		}
	}
	return cells
}

func (p *planner) countStep(uses []*probeUse) (cells int) {
	if len(uses) == 0 {
		for i := range p.topology.Pods {
			cells += len(p.topology.Pods[i].Ports) * (len(p.topology.Pods) - 1)
		}
		return cells
	}
	for _, u := range uses {
		ports := 0
		for _, to := range p.destinations(u) {
			for _, port := range to.ports {
				if u.wants(port) {
					ports++
				}
			}
		}
		if ports > 0 {
			cells += ports * len(p.sources(u))
		}
	}
	return cells
}
