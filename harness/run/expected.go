package run

import (
	"errors"
	"strings"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/scenario"
)

// ExpectedError says that a computed table is not the one that was reviewed and kept in the scenario's expected.txt.
type ExpectedError struct {
	Scenario    string
	Differences []scenario.Difference
}

// Error lists the cells that differ.
func (e *ExpectedError) Error() string {
	lines := make([]string, len(e.Differences))
	for i, d := range e.Differences {
		lines[i] = d.Error()
	}
	return strings.Join(lines, "\n") +
		"\n    mend: if the change is wanted, run once with --update-expected, and have the new table reviewed like code"
}

// Computed returns the part of the scenario's tables that is left to the specification. complete is false while verdicts depend
// on addresses that are not known: those are known after the scenario has run. Steps whose verdicts are all written by hand are left out.
func (p *PreparedScenario) Computed() (steps []scenario.ExpectedStep, complete bool) {
	complete = true
	for _, step := range p.plan.Steps {
		if !step.Computed {
			continue
		}
		out := scenario.ExpectedStep{Name: step.Name}
		for _, cell := range step.Cells {
			if cell.Expected != "" {
				continue
			}
			verdict, known := p.computed[model.CellID(p.scenario.Metadata.Name, step.Name, cell.Connection)]
			complete = complete && known
			out.Cells = append(out.Cells, scenario.ExpectedCell{Connection: cell.Connection, Verdict: verdict})
		}
		steps = append(steps, out)
	}
	return steps, complete
}

// CheckReviewed compares the computed tables with the expected.txt beside their scenarios. Those that have none pass: a run writes it.
// Its error joins one [ExpectedError] for each scenario that differs, and what is wrong with the files.
func (p *Prepared) CheckReviewed() error {
	var errs []error
	for _, s := range p.list {
		errs = append(errs, s.CheckReviewed())
	}
	return errors.Join(errs...)
}

// CheckReviewed is the same for one scenario: now as far as verdicts are known, and each step's table again before it is probed.
func (p *PreparedScenario) CheckReviewed() error {
	content, ok := p.scenario.Expected()
	if steps, _ := p.Computed(); len(steps) == 0 || !ok {
		return nil
	}
	expected, err := scenario.ParseExpected(p.scenario.ExpectedFile(), content)
	if err != nil {
		return err
	}
	p.expected = expected
	if steps, complete := p.Computed(); complete {
		if differences := expected.Differences(steps); len(differences) > 0 {
			return &ExpectedError{Scenario: p.scenario.Metadata.Name, Differences: differences}
		}
	}
	return nil
}

// keepComputed remembers what the specification says of a step, and compares it with the reviewed table.
func (p *PreparedScenario) keepComputed(step scenario.PlannedStep, list []expectation) error {
	if !step.Computed {
		return nil
	}
	now := scenario.ExpectedStep{Name: step.Name}
	for i, cell := range step.Cells {
		if cell.Expected != "" || list[i].pending {
			continue
		}
		p.computed[model.CellID(p.scenario.Metadata.Name, step.Name, cell.Connection)] = list[i].verdict
		now.Cells = append(now.Cells, scenario.ExpectedCell{Connection: cell.Connection, Verdict: list[i].verdict})
	}
	if p.expected == nil {
		return nil
	}
	var wrong []scenario.Difference
	for _, d := range p.expected.Differences([]scenario.ExpectedStep{now}) {
		if d.Step == step.Name && d.Computed != "" {
			wrong = append(wrong, d)
		}
	}
	if len(wrong) > 0 {
		return &ExpectedError{Scenario: p.scenario.Metadata.Name, Differences: wrong}
	}
	return nil
}

// isInputError tells whether an error is about what the user wrote, rather than about the cluster.
func isInputError(err error) bool {
	var problems scenario.Problems
	var disagreement *Disagreement
	var expected *ExpectedError
	var unjudged *UnjudgedError
	return errors.As(err, &problems) || errors.As(err, &disagreement) || errors.As(err, &expected) || errors.As(err, &unjudged)
}
