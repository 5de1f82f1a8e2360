package report_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/report"
)

// writeRun tells a journal what a run would: everything once when it begins and once when it is known, then the end.
func writeRun(t *testing.T, j *report.Journal, run model.Run) {
	t.Helper()
	require.NoError(t, j.Header(model.Run{Tool: run.Tool}))
	require.NoError(t, j.Header(run))
	for _, s := range run.Scenarios {
		begun := s
		begun.Result, begun.DurationMs = model.Interrupted, 0
		require.NoError(t, j.Scenario(begun))
		for _, step := range s.Steps {
			require.NoError(t, j.Step(s.Name, model.Step{Name: step.Name}))
			for _, c := range step.Cells {
				require.NoError(t, j.Cell(s.Name, step.Name, c))
			}
			require.NoError(t, j.Step(s.Name, step))
		}
		for _, f := range s.Findings {
			require.NoError(t, j.Finding(s.Name, f))
		}
		require.NoError(t, j.Scenario(s))
	}
	for _, f := range run.Findings {
		require.NoError(t, j.Finding("", f))
	}
	require.NoError(t, j.Footer(run))
}

func journalOf(t *testing.T, run model.Run) string {
	t.Helper()
	var out bytes.Buffer
	writeRun(t, report.NewJournal(&out), run)
	return out.String()
}

func TestAJournalGivesTheSameReport(t *testing.T) {
	for name, makeRun := range sampleRuns {
		t.Run(name, func(t *testing.T) {
			run, err := report.ReadJournal(strings.NewReader(journalOf(t, makeRun())))
			require.NoError(t, err)
			assert.Equal(t, jsonOf(t, makeRun()), jsonOf(t, run))
		})
	}
}

func TestAJournalCutAnywhereGivesWhatWasKnownAndIsNeverGreen(t *testing.T) {
	text := journalOf(t, tiersRun())
	_, err := report.ReadJournal(strings.NewReader(text))
	require.NoError(t, err)
	firstLine := strings.Index(text, "\n") + 1
	for cut := firstLine; cut < len(text)-1; cut += 97 {
		run, err := report.ReadJournal(strings.NewReader(text[:cut]))
		require.NoError(t, err, "cut at byte %d", cut)
		require.False(t, run.Complete, "cut at byte %d", cut)
		require.NotEqual(t, model.ExitOK, model.ExitCode(run), "cut at byte %d", cut)
		cells := strings.Count(text[:cut], "\n{\"type\":\"cell\"") - 1
		require.GreaterOrEqual(t, run.Summary.Cells, cells, "cut at byte %d", cut)
	}
}

func TestAJournalThatIsWrongInItsMiddleNamesTheLine(t *testing.T) {
	lines := strings.SplitAfter(journalOf(t, mismatchRun()), "\n")
	for name, tc := range map[string]struct {
		line    int
		text    string
		message string
	}{
		"no header":        {0, "{\"type\":\"footer\",\"footer\":{}}\n", "journal line 1: it begins with a \"footer\" record"},
		"another document": {0, "{\"type\":\"header\",\"header\":{\"apiVersion\":\"netproof.dev/v2\",\"kind\":\"Journal\"}}\n", "it is of version v2"},
		"a broken line":    {4, "{\"type\":\"ce\n", "journal line 5"},
		"an unknown type":  {4, "{\"type\":\"song\"}\n", "journal line 5: a record of type \"song\" without its content"},
		"a wrong cell":     {4, "{\"type\":\"cell\",\"cell\":{\"id\":\"a\"}}\n", "journal line 5: cell a"},
	} {
		t.Run(name, func(t *testing.T) {
			broken := append([]string{}, lines...)
			broken[tc.line] = tc.text
			_, err := report.ReadJournal(strings.NewReader(strings.Join(broken, "")))
			require.ErrorIs(t, err, report.ErrNotReport)
			assert.ErrorContains(t, err, tc.message)
		})
	}
	_, err := report.ReadJournal(strings.NewReader(""))
	require.ErrorIs(t, err, report.ErrNotReport)
}

func TestReadTakesReportsAndJournals(t *testing.T) {
	want := jsonOf(t, mismatchRun())
	for name, text := range map[string]string{"report": want, "journal": journalOf(t, mismatchRun())} {
		run, err := report.Read(strings.NewReader(text))
		require.NoError(t, err, name)
		assert.Equal(t, want, jsonOf(t, run), name)
	}
}

func TestEachRecordIsWrittenBeforeTheCallReturns(t *testing.T) {
	var out bytes.Buffer
	j := report.NewJournal(&out)
	require.NoError(t, j.Header(mismatchRun()))
	for i, c := range mismatchRun().Scenarios[0].Steps[0].Cells {
		require.NoError(t, j.Cell("s", "t", c))
		assert.Equal(t, i+2, bytes.Count(out.Bytes(), []byte("\n")))
	}
	require.NoError(t, j.Err())
}

func TestLanesMayWriteAtTheSameTime(t *testing.T) {
	var out bytes.Buffer
	j := report.NewJournal(&out)
	require.NoError(t, j.Header(makeRun()))
	var wg sync.WaitGroup
	for lane := range 8 {
		wg.Go(func() {
			name := fmt.Sprintf("s%d", lane)
			for _, c := range makeCells(name, "step", threePods, 80, always(model.Deny)) {
				assert.NoError(t, j.Cell(name, "step", c))
			}
		})
	}
	wg.Wait()
	run, err := report.ReadJournal(&out)
	require.NoError(t, err)
	assert.Equal(t, 8*6, run.Summary.Cells)
	assert.Len(t, run.Scenarios, 8)
}

// fullDisk takes so many writes and no more.
type fullDisk struct{ room int }

var errFull = errors.New("no space left on device")

func (d *fullDisk) Write(p []byte) (int, error) {
	if d.room--; d.room < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestAFullDiskIsToldAtOnceAndAtTheEnd(t *testing.T) {
	j := report.NewJournal(&fullDisk{room: 1})
	require.NoError(t, j.Header(makeRun()))
	require.ErrorIs(t, j.Finding("", model.Finding{}), errFull)
	require.ErrorIs(t, j.Footer(makeRun()), errFull)
	require.ErrorIs(t, j.Err(), errFull)
}

func TestAJournalKeepsTheOrderOfTheFiles(t *testing.T) {
	var out bytes.Buffer
	j := report.NewJournal(&out)
	require.NoError(t, j.Header(model.Run{Scenarios: []model.Scenario{{Name: "first"}, {Name: "second"}, {Name: "third"}}}))
	for _, name := range []string{"third", "unforeseen", "first"} { // as lanes end them
		require.NoError(t, j.Scenario(model.Scenario{Name: name}))
	}
	run, err := report.ReadJournal(&out)
	require.NoError(t, err)
	var names []string
	for _, s := range run.Scenarios {
		names = append(names, s.Name)
	}
	assert.Equal(t, []string{"first", "third", "unforeseen"}, names, "second was not begun")
}
