package model_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/netproof/netproof/harness/model"
)

// makeRun returns a complete run of one scenario whose controls held and whose cells have these results.
func makeRun(results []model.Result, tweaks ...func(*model.Run)) model.Run {
	step := model.Step{Name: "isolated", Controls: model.Controls{Held: true}}
	for _, r := range results {
		step.Cells = append(step.Cells, model.Cell{Expected: model.Deny, Observed: model.Deny, Result: r})
	}
	run := model.Run{Complete: true, Scenarios: []model.Scenario{{Name: "s", Steps: []model.Step{step}}}}
	for _, tweak := range tweaks {
		tweak(&run)
	}
	return run
}

func withFinding(kind model.FindingKind, r model.Result) func(*model.Run) {
	return func(run *model.Run) {
		run.Findings = append(run.Findings, model.Finding{Kind: kind, Message: "m", Result: r})
	}
}

func withScenarioFinding(kind model.FindingKind, r model.Result) func(*model.Run) {
	return func(run *model.Run) {
		s := &run.Scenarios[0]
		s.Findings = append(s.Findings, model.Finding{Kind: kind, Message: "m", Result: r})
	}
}

func TestTheGravestResultDecidesScenarioRunAndExitCode(t *testing.T) {
	const (
		pass = model.Passed
		fail = model.Failed
		inc  = model.ResultInconclusive
		uns  = model.ResultUnsupported
		flak = model.Flaky
		rec  = model.Recorded
		vac  = model.Vacuous
		intr = model.Interrupted
	)
	incomplete := func(r *model.Run) { r.Complete = false }
	signal := func(r *model.Run) { r.Summary.Signal = 2; r.Complete = false }
	timeout := func(r *model.Run) { r.Summary.TimedOut = true; r.Complete = false }
	noControls := func(r *model.Run) { r.Scenarios[0].Steps[0].Controls.Held = false }
	allowed := func(r *model.Run) { r.Scenarios[0].Steps[0].Cells[0].Observed = model.Allow }
	cut := func(r *model.Run) { r.Scenarios[0].Result = intr }
	noScenario := func(r *model.Run) { r.Scenarios = nil }
	type tweaks = []func(*model.Run)
	type cells = []model.Result
	for name, tc := range map[string]struct {
		cells    cells
		tweaks   tweaks
		scenario model.Result
		run      model.Result
		exit     int
	}{
		"all cells as expected": {cells{pass, pass}, nil, pass, pass, 0},
		"a mismatch":            {cells{pass, fail}, nil, fail, fail, 1},
		"a mismatch outranks what is inconclusive":  {cells{inc, fail, flak}, nil, fail, fail, 1},
		"an inconclusive cell":                      {cells{pass, inc}, nil, inc, inc, 3},
		"a flaky cell counts as inconclusive":       {cells{pass, flak}, nil, inc, inc, 3},
		"a cell without a result":                   {cells{pass, ""}, nil, inc, inc, 3},
		"an unsupported cell alone does no harm":    {cells{pass, uns}, nil, pass, pass, 0},
		"a recorded cell alone does no harm":        {cells{pass, rec}, nil, pass, pass, 0},
		"nothing but unsupported cells":             {cells{uns, uns}, nil, uns, vac, 5},
		"nothing but recorded cells":                {cells{rec}, nil, vac, vac, 5},
		"a scenario without cells":                  {cells{}, nil, vac, vac, 5},
		"no scenario":                               {cells{}, tweaks{noScenario}, "", vac, 5},
		"no scenario, set-up failed":                {cells{}, tweaks{noScenario, withFinding(model.Infrastructure, inc), incomplete}, "", inc, 3},
		"a policy that selects no pod":              {cells{pass}, tweaks{withScenarioFinding(model.NothingProven, vac)}, vac, vac, 5},
		"inconclusive outranks vacuous":             {cells{inc}, tweaks{withScenarioFinding(model.NothingProven, vac)}, inc, inc, 3},
		"a plugin that enforces nothing":            {cells{pass}, tweaks{withFinding(model.NoEnforcement, fail)}, pass, fail, 1},
		"a failed control":                          {cells{pass}, tweaks{withScenarioFinding(model.Control, inc)}, inc, inc, 3},
		"a finding without a result":                {cells{pass}, tweaks{withFinding(model.Control, "")}, pass, inc, 3},
		"denials without controls are no proof":     {cells{pass}, tweaks{noControls}, inc, inc, 3},
		"an answer is a proof without controls":     {cells{pass}, tweaks{noControls, allowed}, pass, pass, 0},
		"an incomplete run":                         {cells{pass}, tweaks{incomplete}, pass, inc, 3},
		"a signal":                                  {cells{pass}, tweaks{signal}, pass, intr, 130},
		"a signal after a mismatch":                 {cells{fail}, tweaks{signal}, fail, fail, 130},
		"the overall time-out":                      {cells{pass}, tweaks{timeout}, pass, intr, 4},
		"the overall time-out outranks 3":           {cells{inc}, tweaks{timeout}, inc, intr, 4},
		"a mismatch outranks the time-out":          {cells{fail}, tweaks{timeout}, fail, fail, 1},
		"an interrupted scenario":                   {cells{pass, inc}, tweaks{cut}, intr, intr, 3},
		"an interrupted scenario with a mismatch":   {cells{fail}, tweaks{cut}, fail, fail, 1},
		"clean-up failed after a pass":              {cells{pass}, tweaks{withFinding(model.Cleanup, inc)}, pass, pass, 6},
		"clean-up of a scenario failed":             {cells{pass}, tweaks{withScenarioFinding(model.Cleanup, fail)}, pass, pass, 6},
		"a mismatch outranks a failed clean-up":     {cells{fail}, tweaks{withFinding(model.Cleanup, inc)}, fail, fail, 1},
		"inconclusive outranks a failed clean-up":   {cells{inc}, tweaks{withFinding(model.Cleanup, inc)}, inc, inc, 3},
		"an infrastructure failure outranks passed": {cells{pass}, tweaks{withFinding(model.Infrastructure, inc)}, pass, inc, 3},
	} {
		t.Run(name, func(t *testing.T) {
			run := makeRun(tc.cells, tc.tweaks...)
			model.Summarize(&run)
			if len(run.Scenarios) > 0 {
				assert.Equal(t, tc.scenario, run.Scenarios[0].Result, "scenario")
			}
			assert.Equal(t, tc.run, run.Summary.Result, "run")
			assert.Equal(t, tc.exit, model.ExitCode(run), "exit code")
			again := run
			model.Summarize(&again)
			assert.Equal(t, run, again, "summarizing twice changes nothing")
		})
	}
}

func TestEveryCellIsCountedOnce(t *testing.T) {
	run := makeRun([]model.Result{
		model.Passed, model.Passed, model.Failed, model.ResultInconclusive, model.ResultUnsupported, model.Flaky,
		model.Recorded, "unheard of",
	})
	run.Summary.DurationMs = 7
	model.Summarize(&run)
	assert.Equal(t, model.Summary{
		Scenarios: 1, Cells: 8, Passed: 2, Failed: 1, Inconclusive: 2, Unsupported: 1, Flaky: 1, Recorded: 1,
		Result: model.Failed, DurationMs: 7,
	}, run.Summary)
}

func TestARunThatWasNeverSummarizedIsNotGreen(t *testing.T) {
	assert.Equal(t, model.ExitInconclusive, model.ExitCode(model.Run{Complete: true}))
}
