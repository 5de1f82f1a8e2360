package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/plain"
	"github.com/netproof/netproof/harness/words"
)

// ErrNotReport says that what was read is not a report that this version can use.
var ErrNotReport = errors.New("not a usable netproof report")

// WriteJSON writes the report in the form of docs/contract.md, indented, with a newline at its end. Lists and maps
// without content are written as empty ones, never as null, so that readers need no special case.
func WriteJSON(w io.Writer, run model.Run) error {
	return plain.WriteJSON(w, normalize(run))
}

// normalize returns the run with kind and version set and with no nil where the report promises a list or a map. What
// the caller holds is not changed.
func normalize(run model.Run) model.Run {
	run.APIVersion, run.Kind = model.APIVersion, model.ReportKind
	run.Cluster.IPFamilies = orEmpty(run.Cluster.IPFamilies)
	run.Scenarios = orEmpty(slices.Clone(run.Scenarios))
	for i := range run.Scenarios {
		s := &run.Scenarios[i]
		if s.Labels == nil {
			s.Labels = map[string]string{}
		}
		s.Steps = orEmpty(slices.Clone(s.Steps))
		for j := range s.Steps {
			s.Steps[j].Cells = orEmpty(s.Steps[j].Cells)
		}
	}
	return run
}

func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// ReadJSON reads a report that [WriteJSON] wrote. It is strict: another kind of document, another or a newer version,
// an unknown key, a value outside its list, a summary that does not fit the cells, or a file that ends in the middle is
// an error that matches [ErrNotReport] and says where and why. A report of a run that did not end is fine.
func ReadJSON(r io.Reader) (model.Run, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return model.Run{}, err
	}
	run, err := decodeReport(data)
	if err != nil {
		return model.Run{}, fmt.Errorf("%w: %w", ErrNotReport, err)
	}
	return run, nil
}

func decodeReport(data []byte) (model.Run, error) {
	var run model.Run
	if len(bytes.TrimSpace(data)) == 0 {
		return run, errors.New("the file is empty")
	}
	var head struct {
		APIVersion string     `json:"apiVersion"`
		Kind       string     `json:"kind"`
		Tool       model.Tool `json:"tool"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return run, explainJSON(data, err)
	}
	if err := checkHead(head.APIVersion, head.Kind, model.ReportKind); err != nil {
		return run, err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&run); err != nil {
		err = explainJSON(data, err)
		if strings.Contains(err.Error(), "unknown field") {
			err = fmt.Errorf("%w: written by another version of netproof (%s)", err, orNone(head.Tool.Version))
		}
		return run, err
	}
	return run, validate(run)
}

func checkHead(apiVersion, kind, wantKind string) error {
	group, version, _ := strings.Cut(apiVersion, "/")
	wantGroup, wantVersion, _ := strings.Cut(model.APIVersion, "/")
	switch {
	case apiVersion == "" && kind == "":
		return fmt.Errorf("it has no apiVersion and no kind, a report has %s and %s", model.APIVersion, wantKind)
	case group != wantGroup || kind != wantKind:
		return fmt.Errorf("it is kind %q of apiVersion %q, a report is kind %q of %q", kind, apiVersion, wantKind, model.APIVersion)
	case version != wantVersion:
		return fmt.Errorf("it is of version %s, this netproof reads %s: use the netproof that wrote it, or a newer one", version, wantVersion)
	}
	return nil
}

// explainJSON turns an offset into a line and says plainly what a decoder means.
func explainJSON(data []byte, err error) error {
	var syntax *json.SyntaxError
	var typed *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		if int(syntax.Offset) >= len(data) {
			return fmt.Errorf("it ends in the middle, at line %d", lastLine(data))
		}
		return fmt.Errorf("line %d: %w", lineAt(data, int(syntax.Offset)), err)
	case errors.As(err, &typed):
		where := typed.Field
		if where == "" {
			where = "the document"
		}
		return fmt.Errorf("line %d: %s is a %s, not a %s", lineAt(data, int(typed.Offset)), where, typed.Value, jsonKind(typed))
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("it ends in the middle, at line %d", lastLine(data))
	}
	return errors.New(strings.TrimPrefix(err.Error(), "json: "))
}

func jsonKind(err *json.UnmarshalTypeError) string {
	switch kind := err.Type.Kind().String(); kind {
	case "slice":
		return "list"
	case "struct", "map":
		return "object"
	case "bool", "string":
		return kind
	default:
		return "number of type " + kind
	}
}

func lastLine(data []byte) int { return lineAt(data, len(bytes.TrimRight(data, "\n"))) }

func lineAt(data []byte, offset int) int {
	return 1 + bytes.Count(data[:min(offset, len(data))], []byte("\n"))
}

// validate checks what a later reader relies on.
func validate(run model.Run) error {
	seen := map[string]bool{}
	for _, s := range run.Scenarios {
		if s.Name == "" {
			return errors.New("a scenario has no name")
		}
		if !slices.Contains(scenarioResults, s.Result) {
			return fmt.Errorf("scenario %s: result %q is none of %s", s.Name, s.Result, list(scenarioResults))
		}
		for _, step := range s.Steps {
			for _, c := range step.Cells {
				if err := validateCell(c); err != nil {
					return fmt.Errorf("scenario %s, step %q: %w", s.Name, step.Name, err)
				}
				if seen[c.ID] {
					return fmt.Errorf("scenario %s, step %q: two cells have the id %s", s.Name, step.Name, c.ID)
				}
				seen[c.ID] = true
			}
		}
	}
	counted := run
	counted.Scenarios = slices.Clone(run.Scenarios)
	model.Summarize(&counted)
	if counted.Summary != run.Summary {
		return fmt.Errorf("its summary (%s) does not fit its cells (%s): the file was changed, or is not whole",
			describeSummary(run.Summary), describeSummary(counted.Summary))
	}
	return nil
}

var (
	scenarioResults = []model.Result{
		model.Passed, model.Failed, model.ResultInconclusive, model.ResultUnsupported, model.Vacuous, model.Interrupted,
	}
	cellResults = []model.Result{
		model.Passed, model.Failed, model.ResultInconclusive, model.ResultUnsupported, model.Flaky, model.Recorded,
	}
	expectations = []model.Verdict{model.Allow, model.Deny, model.Undefined}
	observations = []model.Verdict{"", model.Allow, model.Deny, model.Inconclusive, model.Unsupported}
)

func validateCell(c model.Cell) error {
	switch {
	case c.ID == "":
		return fmt.Errorf("cell %s has no id", c.Connection())
	case c.From == "" || c.To == "" || c.Protocol == "" || c.Port < 0 || c.Port > 65535:
		return fmt.Errorf("cell %s: from, to, port and protocol are not all there", c.ID)
	case !slices.Contains(expectations, c.Expected):
		return fmt.Errorf("cell %s: expected %q is none of %s", c.ID, c.Expected, list(expectations))
	case !slices.Contains(observations, c.Observed):
		return fmt.Errorf("cell %s: observed %q is none of %s", c.ID, c.Observed, list(observations[1:]))
	case !slices.Contains(cellResults, c.Result):
		return fmt.Errorf("cell %s: result %q is none of %s", c.ID, c.Result, list(cellResults))
	}
	return nil
}

func list[T ~string](values []T) string {
	var out []string
	for _, v := range values {
		out = append(out, string(v))
	}
	return strings.Join(out, ", ")
}

func describeSummary(s model.Summary) string {
	return fmt.Sprintf("%s: %s, %s, %d passed, %d failed, %d inconclusive, %d unsupported, %d flaky, %d recorded",
		plain.Text(orNone(string(s.Result))), words.Count(s.Scenarios, "scenario", "scenarios"), words.Count(s.Cells, "cell", "cells"), s.Passed, s.Failed, s.Inconclusive, s.Unsupported, s.Flaky, s.Recorded)
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
