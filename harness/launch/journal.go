package launch

import (
	"errors"
	"fmt"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/report"
	"github.com/netproof/netproof/harness/run"
	"github.com/netproof/netproof/harness/writefile"
)

// Journal keeps a run readable while it goes on, in a file beside the JSON report that it will become. A run that is
// killed leaves it behind; netproof report convert reads it. Errors of the journal stay in it: a full disk shows in
// the report.
type Journal struct {
	to   *report.Journal
	file *writefile.File
}

var _ run.Observer = Journal{}

// journalOf is where the journal of a JSON report is kept.
func journalOf(path string) string { return path + ".journal" }

// CheckJournal finds out before a run whether the journal of a JSON report could not be written.
func CheckJournal(path string) error { return writefile.CheckFile(journalOf(path)) }

// OpenJournals opens a journal beside each of the JSON reports.
func OpenJournals(reports []string) ([]Journal, error) {
	var out []Journal
	var errs []error
	for _, path := range reports {
		f, err := writefile.Create(journalOf(path))
		if err != nil {
			errs = append(errs, fmt.Errorf("begin journal: %w", err))
			continue
		}
		out = append(out, Journal{to: report.NewJournal(f), file: f})
	}
	return out, errors.Join(errs...)
}

// OldJournals are the journals that earlier runs left beside these reports: nothing in them is about this run.
type OldJournals map[writefile.ID]bool

// FindJournals finds those that are there before a run.
func FindJournals(reports []string) OldJournals {
	old := OldJournals{}
	for _, path := range reports {
		if f, err := writefile.Open(journalOf(path)); err == nil {
			old[f.ID()] = true
			_ = f.Close() // it was only looked at
		}
	}
	return old
}

// Read gives what another process left in the journals of this run. The caller removes them.
func (old OldJournals) Read(reports []string) (left model.Run, found []*writefile.File) {
	for _, path := range reports {
		f, err := writefile.Open(journalOf(path))
		if err != nil {
			continue // the run did not get so far
		}
		rest, err := report.ReadJournal(f)
		if err != nil || old[f.ID()] {
			_ = f.Close() // it was only read
			continue
		}
		left, found = rest, append(found, f)
	}
	return left, found
}

// Remove ends a journal whose report has been written. Its error is the first of all that went wrong with it.
func (j Journal) Remove() error { return errors.Join(j.to.Err(), j.file.Remove()) }

// RunStarted implements [run.Observer].
func (j Journal) RunStarted(begun model.Run) { _ = j.to.Header(begun) }

// Note implements [run.Observer].
func (Journal) Note(string) {}

// Detail implements [run.Observer].
func (Journal) Detail(string) {}

// ScenarioStarted implements [run.Observer].
func (Journal) ScenarioStarted(string, int, int) {}

// StepStarted implements [run.Observer].
func (Journal) StepStarted(string, string, int, int) {}

// StepDone implements [run.Observer].
func (j Journal) StepDone(scenario string, step model.Step) { j.step(scenario, step) }

func (j Journal) step(scenario string, step model.Step) {
	_ = j.to.Step(scenario, step)
	for _, c := range step.Cells {
		_ = j.to.Cell(scenario, step.Name, c)
	}
}

// ScenarioDone implements [run.Observer]. It writes the steps once more, since the final control may have changed
// cells; the last record of a cell counts.
func (j Journal) ScenarioDone(s model.Scenario) {
	for _, step := range s.Steps {
		j.step(s.Name, step)
	}
	for _, f := range s.Findings {
		_ = j.to.Finding(s.Name, f)
	}
	_ = j.to.Scenario(s)
}

// Found implements [run.Observer].
func (j Journal) Found(f model.Finding) { _ = j.to.Finding("", f) }
