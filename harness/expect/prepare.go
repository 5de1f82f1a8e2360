package expect

import (
	"cmp"
	"errors"
	"slices"

	"github.com/netproof/netproof/harness/cni"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/scenario"
)

// Options say what tables are prepared for.
type Options struct {
	// Families and Nodes are those of the cluster.
	Families []model.IPFamily
	Nodes    int
	// Anew leaves the reviewed tables out: they are to be written anew.
	Anew bool
	// Strict asks for reasons why a green result would prove less than a reader takes it for; see [Scenario.Unproven].
	Strict bool
}

// Prepared are scenarios ready to run. Nothing of them changes: several runs can share them, at the same time.
type Prepared struct {
	list []*Scenario
}

// Scenarios are the prepared scenarios in the order of the files.
func (p *Prepared) Scenarios() []*Scenario { return slices.Clone(p.list) }

// Beyond are the ways of all scenarios that reach beyond their own namespaces and are not allowed, as a run on a
// cluster that is not disposable finds them: for those who want to know before there is a cluster.
func (p *Prepared) Beyond(allow []scenario.Reach) scenario.Problems {
	var out scenario.Problems
	for _, one := range p.list {
		out = append(out, one.scenario.Beyond(allow)...)
	}
	return out
}

// Scenario is a scenario whose plan is made, and whose hand-written tables agree with the specification as far as that
// can be told without addresses. Nothing of it changes.
type Scenario struct {
	scenario *scenario.Scenario
	plan     *scenario.Plan
	strict   bool
	// tables has for each step what is known before there are addresses.
	tables []*Table
	// reviewed is the reviewed table, if there is one to compare with.
	reviewed *scenario.Expected
}

// Scenario returns the scenario as it was loaded.
func (p *Scenario) Scenario() *scenario.Scenario { return p.scenario }

// Name of the scenario.
func (p *Scenario) Name() string { return p.scenario.Metadata.Name }

// Plan returns what will be done.
func (p *Scenario) Plan() *scenario.Plan { return p.plan }

// Table is what is known of a step before there are addresses: the verdicts of some cells may be pending.
func (p *Scenario) Table(step int) *Table { return p.tables[step] }

// Vacuous has a finding for each reason why the scenario proves nothing, whatever comes of it.
func (p *Scenario) Vacuous() []model.Finding {
	var out []model.Finding
	for _, message := range p.plan.Vacuous {
		out = append(out, model.Finding{Kind: model.NothingProven, Message: message, Result: model.Vacuous})
	}
	return out
}

// Prepare plans scenarios for a cluster, and compares every hand-written verdict with the specification, and computed
// ones with the reviewed tables. It touches nothing. Its error joins [scenario.Problems], one [Disagreement] per
// reason, one [UnjudgedError] per scenario and, where there is nothing else, one [ReviewError] per scenario.
func Prepare(scenarios []*scenario.Scenario, opts Options) (*Prepared, error) {
	out := &Prepared{}
	var errs []error
	for _, s := range scenarios {
		p, err := prepare(s, opts)
		errs = append(errs, err)
		if p != nil {
			out.list = append(out.list, p)
		}
	}
	if err := brief(errors.Join(errs...)); err != nil || opts.Anew {
		return out, err
	}
	for _, p := range out.list {
		errs = append(errs, p.review())
	}
	return out, errors.Join(errs...)
}

// prepare is nil where there is no plan.
func prepare(s *scenario.Scenario, opts Options) (*Scenario, error) {
	plan, err := s.Plan(opts.Families, opts.Nodes)
	if err != nil {
		return nil, err
	}
	p := &Scenario{scenario: s, plan: plan, strict: opts.Strict}
	unjudged := &UnjudgedError{Scenario: s}
	var errs []error
	for i := range plan.Steps {
		step := &plan.Steps[i]
		// Objects with placeholders have no meaning yet; live addresses come with the pods.
		policies, err := unresolvedPolicies(step, opts.Families)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		table, open, err := tableOf(s, step, p.before(i), &step.Topology, policies)
		unjudged.add(step, policies.unjudged, open)
		errs = append(errs, err)
		p.tables = append(p.tables, table)
	}
	if len(unjudged.Connections) > 0 {
		errs = append(errs, unjudged)
	}
	return p, errors.Join(errs...)
}

// Live is what is known of a cluster while a step of a scenario is in force there.
type Live struct {
	// Address looks up addresses for the placeholders in policies.
	Address  scenario.Lookup
	Families []model.IPFamily
	// Topology of the step, with all addresses.
	Topology *model.Topology
	// Previous is the table that was resolved for the step before; nil where there is none.
	Previous *Table
	// Lacks tells whether the network plugin says that it does not have a feature; nil where nothing is known of it.
	Lacks func(cni.Feature) bool
}

// before is the table of the step before one; nil where there is none.
func (p *Scenario) before(step int) *Table {
	if step == 0 || step > len(p.tables) {
		return nil
	}
	return p.tables[step-1]
}

// Resolve makes the table of a step, now that all addresses are known. Its error is about what people wrote: a
// [Disagreement], an [UnjudgedError], a [ReviewError], or a placeholder without an address.
func (p *Scenario) Resolve(step int, live Live) (*Table, error) {
	planned := &p.plan.Steps[step]
	policies, err := resolvedPolicies(planned, live.Address, live.Families)
	if err != nil {
		return nil, err
	}
	table, open, err := tableOf(p.scenario, planned, cmp.Or(live.Previous, p.before(step)), live.Topology, policies)
	if err == nil && len(open) > 0 {
		unjudged := &UnjudgedError{Scenario: p.scenario}
		unjudged.add(planned, policies.unjudged, open)
		err = unjudged
	}
	if err == nil {
		err = p.reviewStep(planned, table)
	}
	if err == nil && live.Lacks != nil {
		err = table.need(p.scenario, live, policies)
	}
	if err != nil {
		return nil, err
	}
	return table, nil
}
