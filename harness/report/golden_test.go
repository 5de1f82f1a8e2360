package report_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/report"
)

var update = flag.Bool("update", false, "write the golden files anew")

// requireGolden compares with a file in testdata, or writes it with -update.
func requireGolden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, got, 0o644))
		return
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err, "run the test with -update to make it")
	assert.Equal(t, string(want), string(got))
}

func TestTablesLookAsReviewed(t *testing.T) {
	options := map[string]report.TableOptions{
		"":         {Width: 110},
		"-ascii":   {Width: 110, ASCII: true},
		"-narrow":  {Width: 60},
		"-verbose": {Width: 110, Verbose: true},
	}
	for name, makeRun := range sampleRuns {
		for suffix, opts := range options {
			t.Run(name+suffix, func(t *testing.T) {
				var out bytes.Buffer
				require.NoError(t, report.WriteTable(&out, makeRun(), opts))
				requireGolden(t, name+suffix+".txt", out.Bytes())
			})
		}
	}
}

func TestFormatsForProgramsLookAsReviewed(t *testing.T) {
	for _, format := range []string{"json", "junit", "markdown", "csv"} {
		for _, name := range []string{"mismatch", "all-kinds", "setup-failed"} {
			t.Run(format+"/"+name, func(t *testing.T) {
				f, err := report.Lookup(format)
				require.NoError(t, err)
				var out bytes.Buffer
				require.NoError(t, f.Write(&out, sampleRuns[name](), report.Options{}))
				requireGolden(t, name+"."+format, out.Bytes())
			})
		}
	}
}

func TestJUnitIsGreenOnlyIfTheRunIs(t *testing.T) {
	vacuous := makeRun()
	controls := runWithoutControls(t)
	cleanup := tiersRun()
	cleanup.Summary.CleanupFailed = true
	runs := map[string]model.Run{"vacuous": vacuous, "controls": controls, "cleanup": cleanup}
	for name, makeRun := range sampleRuns {
		runs[name] = makeRun()
	}
	for name, run := range runs {
		var out bytes.Buffer
		require.NoError(t, report.WriteJUnit(&out, run))
		red := bytes.Contains(out.Bytes(), []byte("<failure")) || bytes.Contains(out.Bytes(), []byte("<error"))
		assert.Equal(t, model.ExitCode(run) != model.ExitOK, red, name)
	}
}

// runWithoutControls gives a run in which every cell is as expected and the controls did not hold.
func runWithoutControls(t *testing.T) model.Run {
	t.Helper()
	const what = "controls"
	run := makeRun(model.Scenario{Name: what, Steps: []model.Step{makeStep("s", makeCells(what, "s", threePods, 80, always(model.Deny))...)}})
	run.Scenarios[0].Steps[0].Controls.Held = false
	model.Summarize(&run)
	require.Equal(t, model.ResultInconclusive, run.Summary.Result)
	return run
}
