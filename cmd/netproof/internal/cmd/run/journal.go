package run

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/netproof/netproof/cmd/netproof/internal/output"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/report"
	prove "github.com/netproof/netproof/harness/run"
)

// journal keeps a run readable while it goes on, in a file beside the JSON report that it will become. A run that is killed
// leaves it behind; netproof report convert reads it. Errors of the journal stay in it: a full disk is told by the report.
type journal struct {
	to   *report.Journal
	path string
}

var _ prove.Observer = journal{}

// openJournals opens a journal beside each JSON report that goes to a file.
func openJournals(outputs []output.Output) ([]journal, error) {
	var out []journal
	var errs []error
	for _, o := range outputs {
		path := journalPath(o)
		if path == "" {
			continue
		}
		j, err := report.OpenJournal(path)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out = append(out, journal{to: j, path: path})
	}
	return out, errors.Join(errs...)
}

// journalPath is where the journal of a report is kept, empty if it has none.
func journalPath(o output.Output) string {
	if o.Path == "" || o.Format.Name != "json" {
		return ""
	}
	return filepath.Clean(o.Path) + ".journal"
}

func readJournal(path string) (model.Run, error) {
	f, err := os.Open(path)
	if err != nil {
		return model.Run{}, err
	}
	defer f.Close()
	return report.ReadJournal(f)
}

// remove ends a journal whose report has been written.
func (j journal) remove() error { return errors.Join(j.to.Close(), os.Remove(j.path)) }

func (j journal) RunStarted(run model.Run) { _ = j.to.Header(run) }

func (journal) Note(string) {}

func (journal) ScenarioStarted(string, int, int) {}

func (journal) StepStarted(string, string, int, int) {}

func (j journal) StepDone(scenario string, step model.Step) { j.step(scenario, step) }

func (j journal) step(scenario string, step model.Step) {
	_ = j.to.Step(scenario, step)
	for _, c := range step.Cells {
		_ = j.to.Cell(scenario, step.Name, c)
	}
}

// ScenarioDone writes the steps once more, since the final control may have changed cells; the last record of a cell counts.
func (j journal) ScenarioDone(s model.Scenario) {
	for _, step := range s.Steps {
		j.step(s.Name, step)
	}
	for _, f := range s.Findings {
		_ = j.to.Finding(s.Name, f)
	}
	_ = j.to.Scenario(s)
}

func (j journal) Found(f model.Finding) { _ = j.to.Finding("", f) }
