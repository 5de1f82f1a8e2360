package expect

import (
	"strings"

	"github.com/netproof/netproof/harness/scenario"
)

// ReviewError says that a computed table is not the one that was reviewed and kept in the scenario's expected.txt.
type ReviewError struct {
	Scenario    string
	Differences []scenario.Difference
}

// Error lists the cells that differ.
func (e *ReviewError) Error() string {
	lines := make([]string, len(e.Differences))
	for i, d := range e.Differences {
		lines[i] = d.Error()
	}
	return strings.Join(lines, "\n") +
		"\n    fix: if the change is wanted, run once with --update-expected, and have the new table reviewed like code"
}

// Computed returns the part of the scenario's tables that is left to the specification. The tables are those of the
// steps that a run has reached, nil for others. complete is false where verdicts depend on addresses that are not
// known: those are known after the scenario has run. Steps whose verdicts are all written by hand are left out.
func (p *Scenario) Computed(tables []*Table) (steps []scenario.ExpectedStep, complete bool) {
	complete = true
	for i, planned := range p.plan.Steps {
		if !planned.Computed {
			continue
		}
		step, known := p.latest(i, tables).computed()
		complete = complete && known
		steps = append(steps, step)
	}
	return steps, complete
}

// computed are the cells that are left to the specification. Those that are pending have no verdict, and then known is
// false.
func (t *Table) computed() (out scenario.ExpectedStep, known bool) {
	out, known = scenario.ExpectedStep{Name: t.Step}, true
	for _, c := range t.Cells {
		if c.Computed {
			known = known && !c.Pending
			out.Cells = append(out.Cells, scenario.ExpectedCell{Connection: c.Conn, Verdict: c.Verdict})
		}
	}
	return out, known
}

// review compares the computed tables with the expected.txt beside the scenario, as far as verdicts are known; each
// step's table is compared again before it is probed. A scenario that has none passes: a run writes it.
func (p *Scenario) review() error {
	content, ok := p.scenario.Expected()
	steps, complete := p.Computed(nil)
	if len(steps) == 0 || !ok {
		return nil
	}
	reviewed, err := scenario.ParseExpected(p.scenario.ExpectedFile(), content)
	if err != nil {
		return err
	}
	p.reviewed = reviewed
	if !complete {
		return nil
	}
	if differences := reviewed.Differences(steps); len(differences) > 0 {
		return &ReviewError{Scenario: p.Name(), Differences: differences}
	}
	return nil
}

// reviewStep compares what the specification says of a step with the reviewed table.
func (p *Scenario) reviewStep(step *scenario.PlannedStep, table *Table) error {
	if !step.Computed || p.reviewed == nil {
		return nil
	}
	now := scenario.ExpectedStep{Name: step.Name}
	for _, c := range table.Cells {
		if c.Computed && !c.Pending {
			now.Cells = append(now.Cells, scenario.ExpectedCell{Connection: c.Conn, Verdict: c.Verdict})
		}
	}
	var wrong []scenario.Difference
	for _, d := range p.reviewed.Differences([]scenario.ExpectedStep{now}) {
		if d.Step == step.Name && d.Computed != "" {
			wrong = append(wrong, d)
		}
	}
	if len(wrong) > 0 {
		return &ReviewError{Scenario: p.Name(), Differences: wrong}
	}
	return nil
}
