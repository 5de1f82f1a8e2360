package expect

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/plain"
	"github.com/netproof/netproof/harness/scenario"
	"github.com/netproof/netproof/harness/words"
)

// ReviewError says that a computed table is not the one that was reviewed and kept in the scenario's expected.txt.
type ReviewError struct {
	// Scenario is its name, and File the table.
	Scenario, File string
	Differences    []scenario.Difference
}

// mostDifferences is how many changed verdicts are listed one by one.
const mostDifferences = 20

// Error lists the verdicts that changed, and counts the connections that are new or gone by the workload that most of
// them have in common.
func (e *ReviewError) Error() string {
	var lines []string
	var fresh, gone []model.Connection
	changed := 0
	for _, d := range e.Differences {
		switch {
		case d.Written == "":
			fresh = append(fresh, d.Connection)
		case d.Computed == "":
			gone = append(gone, d.Connection)
		case changed < mostDifferences:
			changed++
			lines = append(lines, d.Error())
		default:
			changed++
		}
	}
	if more := changed - mostDifferences; more > 0 {
		lines = append(lines, fmt.Sprintf("%d more verdicts changed", more))
	}
	file := e.File
	if len(fresh) > 0 {
		lines = append(lines, fmt.Sprintf("%s: %s, which the file does not have: %s", file, words.Count(len(fresh), "cell", "cells"), byWorkload(fresh)))
	}
	if len(gone) > 0 {
		lines = append(lines, fmt.Sprintf("%s: %s, which the file has and nothing probes any more: %s", file, words.Count(len(gone), "cell", "cells"), byWorkload(gone)))
	}
	return plainLines(lines) +
		"\n    fix: if the change is wanted, run once with --update-expected, and have the new table reviewed like code"
}

// byWorkload says which workloads connections are about: those that most of them have at an end, until all are
// covered, and the first few of these.
func byWorkload(connections []model.Connection) string {
	const most = 5
	var parts []string
	for rest := connections; len(rest) > 0; {
		counts := map[model.Endpoint]int{}
		var best model.Endpoint
		for _, c := range rest {
			for _, end := range []model.Endpoint{c.From, c.To} {
				if counts[end]++; counts[end] > counts[best] || counts[end] == counts[best] && cmp.Less(end, best) {
					best = end
				}
			}
		}
		if len(parts) == most {
			parts = append(parts, fmt.Sprintf("%d of others", len(rest)))
			break
		}
		before := len(rest)
		rest = slices.DeleteFunc(slices.Clone(rest), func(c model.Connection) bool { return c.From == best || c.To == best })
		parts = append(parts, fmt.Sprintf("%d from or to %s", before-len(rest), best))
	}
	return strings.Join(parts, ", ")
}

func plainLines(lines []string) string {
	out := make([]string, len(lines))
	for i, line := range lines {
		out[i] = plain.Text(line)
	}
	return strings.Join(out, "\n")
}

// Computed returns the tables of the steps that leave cells to the specification. The tables are those of the
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

// computed are the cells of a step that leaves some to the specification. Those that are pending have no verdict, and
// then known is false.
func (t *Table) computed() (out scenario.ExpectedStep, known bool) {
	out, known = scenario.ExpectedStep{Name: t.Step}, true
	for _, c := range t.Cells {
		known = known && !(c.Computed && c.Pending)
		out.Cells = append(out.Cells, scenario.ExpectedCell{Connection: c.Conn, Verdict: c.Verdict, Asserted: !c.Computed})
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
		return &ReviewError{Scenario: p.Name(), File: p.scenario.ExpectedFile(), Differences: differences}
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
		if !c.Computed || !c.Pending {
			now.Cells = append(now.Cells, scenario.ExpectedCell{Connection: c.Conn, Verdict: c.Verdict, Asserted: !c.Computed})
		}
	}
	var wrong []scenario.Difference
	for _, d := range p.reviewed.Differences([]scenario.ExpectedStep{now}) {
		if d.Step == step.Name && d.Computed != "" {
			wrong = append(wrong, d)
		}
	}
	if len(wrong) > 0 {
		return &ReviewError{Scenario: p.Name(), File: p.scenario.ExpectedFile(), Differences: wrong}
	}
	return nil
}
