package hostile_test

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/cmd/netproof/internal/hostile"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/plain"
	"github.com/netproof/netproof/harness/report"
	"github.com/netproof/netproof/harness/scenario"
)

// FuzzHostileText puts any string into any field of any format, and looks at all that is made of the file without a
// command line: errors, warnings, notes, changes, tables, reports of each form. Programs that are fuzzed are compiled
// with all that they import, so the commands themselves are left to the tests of package cmd.
func FuzzHostileText(f *testing.F) {
	all := hostile.Formats()
	names := slices.Sorted(maps.Keys(all))
	for i, text := range hostile.Strings {
		for which := range names {
			f.Add(text, uint8(which), uint16(7*i+which), (i+which)%2 == 0)
		}
	}
	f.Fuzz(func(t *testing.T, text string, which uint8, place uint16, raw bool) {
		format := all[names[int(which)%len(names)]]
		content := format.Fields[int(place)%len(format.Fields)].With(text, raw)
		faults := ofFolder(format, content)
		if format.Report {
			faults = ofReport(content)
		}
		require.Empty(t, faults, "with\n%q", content)
	})
}

// said looks at text behind the last door, as commands print it.
func said(text string) []string {
	var b bytes.Buffer
	_, _ = plain.NewWriter(&b, false).Write([]byte(text)) // a buffer
	return hostile.Look("", b.String())
}

func ofReport(content string) []string {
	run, err := report.Read(strings.NewReader(content))
	if err != nil {
		return said(err.Error())
	}
	faults := hostile.LookAtProgress(run)
	for _, form := range report.Formats() {
		var b bytes.Buffer
		if err := form.Write(&b, run, report.Options{Table: report.TableOptions{Verbose: true, Width: 60}}); err != nil {
			return append(faults, err.Error())
		}
		faults = append(faults, hostile.Look(form.Name, b.String())...)
	}
	return faults
}

func ofFolder(format hostile.Format, content string) (faults []string) {
	files := fstest.MapFS{"dir/" + format.File: {Data: []byte(content)}}
	for name, other := range format.Beside {
		files["dir/"+name] = &fstest.MapFile{Data: []byte(other)}
	}
	if format.File == "expected.txt" {
		if _, err := scenario.ParseExpected("dir/expected.txt", []byte(content)); err != nil {
			faults = append(faults, said(err.Error())...)
		}
	}
	list, err := scenario.Load(context.Background(), []string{"dir"}, scenario.Options{FS: files})
	if err != nil {
		return append(faults, said(err.Error())...)
	}
	for _, s := range list {
		for _, w := range s.Warnings {
			faults = append(faults, hostile.Look("", w.Error())...)
		}
		for _, note := range s.Notes {
			faults = append(faults, hostile.Look("", note)...)
		}
		plan, err := s.Plan([]model.IPFamily{model.IPv4}, 2)
		if err != nil {
			faults = append(faults, said(err.Error())...)
			continue
		}
		var steps []scenario.ExpectedStep
		for _, step := range plan.Steps {
			steps = append(steps, scenario.ExpectedStep{Name: step.Name, Cells: make([]scenario.ExpectedCell, 1)})
			for _, change := range step.Changes {
				faults = append(faults, hostile.Look("", change.String())...)
			}
		}
		faults = append(faults, hostile.Look("", strings.Join(plan.Vacuous, "\n"))...)
		faults = append(faults, hostile.Look("", string(scenario.FormatExpected(s.Metadata.Name, steps)))...)
	}
	return faults
}
