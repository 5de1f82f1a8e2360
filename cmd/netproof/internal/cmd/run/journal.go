package run

import (
	"errors"
	"fmt"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
	"github.com/netproof/netproof/cmd/netproof/internal/output"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/report"
	prove "github.com/netproof/netproof/harness/run"
	"github.com/netproof/netproof/harness/writefile"
)

// journal keeps a run readable while it goes on, in a file beside the JSON report that it will become. A run that is killed
// leaves it behind; netproof report convert reads it. Errors of the journal stay in it: a full disk is told by the report.
type journal struct {
	to   *report.Journal
	file *writefile.File
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
		f, err := writefile.Create(path)
		if err != nil {
			errs = append(errs, fmt.Errorf("begin journal: %w", err))
			continue
		}
		out = append(out, journal{to: report.NewJournal(f), file: f})
	}
	return out, errors.Join(errs...)
}

// journalPath is where the journal of a report is kept, empty if it has none.
func journalPath(o output.Output) string {
	if o.Path == "" || o.Format.Name != "json" || writefile.IsStream(o.Path) {
		return ""
	}
	return o.Path + ".journal"
}

// checkJournals finds out before the run which journals could not be written in it.
func checkJournals(outputs []output.Output) error {
	for _, o := range outputs {
		path := journalPath(o)
		if path == "" {
			continue
		}
		if err := writefile.CheckFile(path); err != nil {
			return cli.Usage("--output %s: the journal of the run lies beside it: %w", o.Path, err)
		}
	}
	return nil
}

// oldJournals gives the journals that earlier runs left where this one keeps its own.
func oldJournals(outputs []output.Output) map[writefile.ID]bool {
	old := map[writefile.ID]bool{}
	for _, o := range outputs {
		if path := journalPath(o); path != "" {
			if f, err := writefile.Open(path); err == nil {
				old[f.ID()] = true
				_ = f.Close() // it was only looked at
			}
		}
	}
	return old
}

// readJournals gives what the inner process of this run left in its journals. The caller removes them.
func readJournals(opts Options) (run model.Run, found []*writefile.File) {
	for _, o := range opts.Outputs {
		path := journalPath(o)
		if path == "" {
			continue
		}
		f, err := writefile.Open(path)
		if err != nil {
			continue // the run did not get so far
		}
		rest, err := report.ReadJournal(f)
		if err != nil || opts.oldJournals[f.ID()] {
			_ = f.Close() // it was only read
			continue
		}
		run, found = rest, append(found, f)
	}
	return run, found
}

// remove ends a journal whose report has been written.
func (j journal) remove() error { return errors.Join(j.to.Err(), j.file.Remove()) }

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
