package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/model"
)

// reportOf writes a report with these cells.
func reportOf(t *testing.T, name string, cells ...model.Cell) string {
	t.Helper()
	text, err := json.Marshal(model.Run{Scenarios: []model.Scenario{{Steps: []model.Step{{Cells: cells}}}}})
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(file, text, 0o600))
	return file
}

func TestDifferencesAreFoundCellByCell(t *testing.T) {
	same := model.Cell{ID: "same", Observed: model.Deny, Result: model.Passed}
	allowed := model.Cell{ID: "other", Observed: model.Allow, Result: model.Passed}
	denied := model.Cell{ID: "other", Observed: model.Deny, Result: model.Failed, Reason: "expected allow"}
	left := func(v model.Verdict) model.Cell { return model.Cell{ID: "open", Observed: v, Result: model.Recorded} }
	first := reportOf(t, "first", same, allowed, left(model.Allow))

	for name, tc := range map[string]struct {
		other []model.Cell
		want  int
		says  string
	}{
		"equal":                       {[]model.Cell{same, allowed, left(model.Allow)}, 0, "3 cells in "},
		"another verdict":             {[]model.Cell{same, denied, left(model.Allow)}, 1, "other: allow in "},
		"a cell is missing":           {[]model.Cell{same, left(model.Allow)}, 1, "other is in one report only"},
		"the specification is silent": {[]model.Cell{same, allowed, left(model.Deny)}, 0, "1 of those that the specification leaves open differ"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			differ, err := compare(&out, []string{first, reportOf(t, "second", tc.other...)})
			require.NoError(t, err)
			assert.Equal(t, tc.want, differ)
			assert.Contains(t, out.String(), tc.says)
		})
	}

	_, err := compare(&bytes.Buffer{}, []string{first, reportOf(t, "empty")})
	require.ErrorContains(t, err, "holds no cell")
}
