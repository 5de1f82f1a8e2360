package report

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/plain"
)

// JournalKind is the kind that the first line of a journal names.
const JournalKind = "Journal"

// record is one line of a journal. Exactly one of the parts after Type is set, the one that Type names.
type record struct {
	Type string `json:"type"`
	// Scenario and Step say where a cell, a step or a finding belongs.
	Scenario string `json:"scenario,omitempty"`
	Step     string `json:"step,omitempty"`

	Header       *header         `json:"header,omitempty"`
	ScenarioBody *model.Scenario `json:"scenarioBody,omitempty"`
	StepBody     *model.Step     `json:"stepBody,omitempty"`
	Cell         *model.Cell     `json:"cell,omitempty"`
	Finding      *model.Finding  `json:"finding,omitempty"`
	Footer       *footer         `json:"footer,omitempty"`
}

type header struct {
	APIVersion string        `json:"apiVersion"`
	Kind       string        `json:"kind"`
	StartedAt  time.Time     `json:"startedAt,omitzero"`
	Tool       model.Tool    `json:"tool"`
	Cluster    model.Cluster `json:"cluster"`
	// Scenarios are the names of those that the run is to prove, in the order of a report.
	Scenarios []string `json:"scenarios,omitempty"`
}

type footer struct {
	Complete bool          `json:"complete"`
	Summary  model.Summary `json:"summary"`
}

// The types of records.
const (
	recordHeader   = "header"
	recordScenario = "scenario"
	recordStep     = "step"
	recordCell     = "cell"
	recordFinding  = "finding"
	recordFooter   = "footer"
)

// Journal writes a run down while it happens: JSON lines, each written whole, and at once, so that a run that is killed
// leaves everything that was known. Scenarios and steps are known by their names and may be written in any order and
// again, the last wins; the same goes for cells and their ids. It may be used from several goroutines. The first error
// stays: every later call returns it.
type Journal struct {
	mu  sync.Mutex
	w   io.Writer
	err error
}

// NewJournal writes a journal to w, one Write per record.
func NewJournal(w io.Writer) *Journal { return &Journal{w: w} }

// Header writes tool and cluster of the run, and the names of its scenarios in the order of the report: lanes end
// theirs in any. It comes first, and again when more is known of the cluster.
func (j *Journal) Header(run model.Run) error {
	h := header{APIVersion: model.APIVersion, Kind: JournalKind, StartedAt: run.StartedAt, Tool: run.Tool, Cluster: run.Cluster}
	for _, s := range run.Scenarios {
		h.Scenarios = append(h.Scenarios, s.Name)
	}
	return j.write(record{Type: recordHeader, Header: &h})
}

// Scenario writes what is known of a scenario, its steps and findings left out.
func (j *Journal) Scenario(s model.Scenario) error {
	s.Steps, s.Findings = nil, nil
	return j.write(record{Type: recordScenario, Scenario: s.Name, ScenarioBody: &s})
}

// Step writes what is known of a step, its cells left out.
func (j *Journal) Step(scenario string, s model.Step) error {
	s.Cells = nil
	return j.write(record{Type: recordStep, Scenario: scenario, Step: s.Name, StepBody: &s})
}

// Cell writes a judged cell.
func (j *Journal) Cell(scenario, step string, c model.Cell) error {
	return j.write(record{Type: recordCell, Scenario: scenario, Step: step, Cell: &c})
}

// Finding writes a finding about a scenario, or about the run when scenario is empty.
func (j *Journal) Finding(scenario string, f model.Finding) error {
	return j.write(record{Type: recordFinding, Scenario: scenario, Finding: &f})
}

// Footer writes the end of the run: its summary, and whether it is complete.
func (j *Journal) Footer(run model.Run) error {
	return j.write(record{Type: recordFooter, Footer: &footer{Complete: run.Complete, Summary: run.Summary}})
}

// Err gives the first error of a call, nil if all has been written.
func (j *Journal) Err() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.err
}

func (j *Journal) write(rec record) error {
	line, err := plain.JSON(rec, "")
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil {
		return j.err
	}
	if err == nil {
		_, err = j.w.Write(line)
	}
	if err != nil {
		j.err = fmt.Errorf("write journal: %w", err)
	}
	return j.err
}

// ReadJournal rebuilds the run that a journal tells of. A last line that is not whole is left out: it is what a killed
// run leaves. A journal without a footer gives a run that is not complete, summarized from what there is. Anything else
// that does not fit is an error that matches [ErrNotReport] and names the line.
func ReadJournal(r io.Reader) (model.Run, error) {
	b := builder{scenarios: map[string]int{}, steps: map[[2]string]int{}, cells: map[[3]string]int{}}
	lines := bufio.NewReader(r)
	for number := 1; ; number++ {
		line, err := lines.ReadBytes('\n')
		if err != nil && err != io.EOF {
			return model.Run{}, err
		}
		atEnd := err == io.EOF
		if len(bytes.TrimSpace(line)) > 0 {
			if err := b.line(line, number == 1); err != nil {
				if number > 1 && isCut(err) && isBlank(lines) {
					break
				}
				return model.Run{}, fmt.Errorf("%w: journal line %d: %w", ErrNotReport, number, err)
			}
		}
		if atEnd {
			break
		}
	}
	if !b.begun {
		return model.Run{}, fmt.Errorf("%w: the journal is empty", ErrNotReport)
	}
	slices.SortStableFunc(b.run.Scenarios, func(one, other model.Scenario) int {
		return cmp.Compare(b.place(one.Name), b.place(other.Name))
	})
	run := normalize(b.run)
	if !b.ended {
		run.Complete = false
	}
	model.Summarize(&run)
	return run, nil
}

// isCut tells whether a line may be the beginning of a good one.
func isCut(err error) bool {
	var syntax *json.SyntaxError
	return errors.Is(err, errCut) || errors.As(err, &syntax)
}

// isBlank tells whether only white space follows.
func isBlank(r io.Reader) bool {
	rest, err := io.ReadAll(r)
	return err == nil && len(bytes.TrimSpace(rest)) == 0
}

// builder puts a run together from records.
type builder struct {
	run          model.Run
	begun, ended bool
	// order are the names of the scenarios as the report is to have them.
	order     []string
	scenarios map[string]int
	steps     map[[2]string]int
	cells     map[[3]string]int
}

func (b *builder) line(line []byte, first bool) error {
	var rec record
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&rec); err != nil {
		return explainRecord(err)
	}
	if first && rec.Type != recordHeader {
		return fmt.Errorf("it begins with a %q record, not with a header", rec.Type)
	}
	switch {
	case rec.Type == recordHeader && rec.Header != nil:
		if err := checkHead(rec.Header.APIVersion, rec.Header.Kind, JournalKind); err != nil {
			return err
		}
		b.begun = true
		b.run.StartedAt = rec.Header.StartedAt
		b.run.Tool, b.run.Cluster, b.order = rec.Header.Tool, rec.Header.Cluster, rec.Header.Scenarios
	case rec.Type == recordScenario && rec.ScenarioBody != nil:
		s := b.scenario(rec.Scenario)
		rec.ScenarioBody.Steps, rec.ScenarioBody.Findings = s.Steps, s.Findings
		*s = *rec.ScenarioBody
	case rec.Type == recordStep && rec.StepBody != nil:
		s := b.step(rec.Scenario, rec.Step)
		rec.StepBody.Cells = s.Cells
		*s = *rec.StepBody
	case rec.Type == recordCell && rec.Cell != nil:
		if err := validateCell(*rec.Cell); err != nil {
			return err
		}
		s := b.step(rec.Scenario, rec.Step)
		key := [3]string{rec.Scenario, rec.Step, rec.Cell.ID}
		if i, ok := b.cells[key]; ok {
			s.Cells[i] = *rec.Cell
			break
		}
		b.cells[key] = len(s.Cells)
		s.Cells = append(s.Cells, *rec.Cell)
	case rec.Type == recordFinding && rec.Finding != nil:
		if rec.Scenario == "" {
			b.run.Findings = append(b.run.Findings, *rec.Finding)
			break
		}
		s := b.scenario(rec.Scenario)
		s.Findings = append(s.Findings, *rec.Finding)
	case rec.Type == recordFooter && rec.Footer != nil:
		b.ended = true
		b.run.Complete, b.run.Summary = rec.Footer.Complete, rec.Footer.Summary
	default:
		return fmt.Errorf("a record of type %q without its content", rec.Type)
	}
	return nil
}

func (b *builder) scenario(name string) *model.Scenario {
	i, ok := b.scenarios[name]
	if !ok {
		i = len(b.run.Scenarios)
		b.scenarios[name] = i
		b.run.Scenarios = append(b.run.Scenarios, model.Scenario{Name: name})
	}
	return &b.run.Scenarios[i]
}

// place is where a scenario stands in the report. One that the header does not name comes last.
func (b *builder) place(scenario string) int {
	if i := slices.Index(b.order, scenario); i >= 0 {
		return i
	}
	return len(b.order)
}

func (b *builder) step(scenario, name string) *model.Step {
	s := b.scenario(scenario)
	key := [2]string{scenario, name}
	i, ok := b.steps[key]
	if !ok {
		i = len(s.Steps)
		b.steps[key] = i
		s.Steps = append(s.Steps, model.Step{Name: name})
	}
	return &s.Steps[i]
}

var errCut = errors.New("it ends in the middle")

func explainRecord(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errCut
	}
	return err
}

// Read reads a saved report or a journal, whichever r holds.
func Read(r io.Reader) (model.Run, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return model.Run{}, err
	}
	first, _, _ := bytes.Cut(bytes.TrimLeft(data, " \t\r\n"), []byte("\n"))
	var rec record
	if json.Unmarshal(first, &rec) == nil && rec.Type != "" {
		return ReadJournal(bytes.NewReader(data))
	}
	return ReadJSON(bytes.NewReader(data))
}
