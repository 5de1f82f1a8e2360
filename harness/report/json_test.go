package report_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/report"
)

func jsonOf(t *testing.T, run model.Run) string {
	t.Helper()
	var out bytes.Buffer
	require.NoError(t, report.WriteJSON(&out, run))
	return out.String()
}

func TestAReportIsReadBackAsItWas(t *testing.T) {
	for name, makeRun := range sampleRuns {
		t.Run(name, func(t *testing.T) {
			first := jsonOf(t, makeRun())
			run, err := report.ReadJSON(strings.NewReader(first))
			require.NoError(t, err)
			assert.Equal(t, first, jsonOf(t, run))
			assert.Equal(t, model.ExitCode(makeRun()), model.ExitCode(run))
		})
	}
}

func TestListsAndMapsAreNeverNull(t *testing.T) {
	run := model.Run{Complete: true, Scenarios: []model.Scenario{{Name: "s", Steps: []model.Step{{Name: "a"}}}, {Name: "t"}}}
	before := run.Scenarios[0]
	text := jsonOf(t, run)
	assert.NotContains(t, text, "null")
	assert.Equal(t, before, run.Scenarios[0], "the caller's run is left alone")
	assert.NotContains(t, jsonOf(t, model.Run{}), "null")
}

func TestAReportHasTheShapeOfTheContract(t *testing.T) {
	var doc map[string]any
	require.NoError(t, json.Unmarshal([]byte(jsonOf(t, mismatchRun())), &doc))
	assert.Equal(t, "netproof.dev/v1alpha1", doc["apiVersion"])
	assert.Equal(t, "Report", doc["kind"])
	assert.Equal(t, true, doc["complete"])
	scenario := doc["scenarios"].([]any)[0].(map[string]any)
	step := scenario["steps"].([]any)[1].(map[string]any)
	assert.EqualValues(t, 41, step["enforcedMs"])
	cell := step["cells"].([]any)[0].(map[string]any)
	for _, key := range []string{"id", "from", "to", "port", "protocol", "ipFamily", "via", "expected", "observed", "result", "manner", "samples", "reason", "explain"} {
		assert.Contains(t, cell, key)
	}
	assert.Equal(t, "default-deny-ingress/isolated/x/a->x/b:80/TCP/IPv4/podIP", cell["id"])
	summary := doc["summary"].(map[string]any)
	for _, key := range []string{"scenarios", "cells", "passed", "failed", "inconclusive", "unsupported", "flaky", "result", "durationMs"} {
		assert.Contains(t, summary, key)
	}
}

func TestWhatIsNotAReportIsRefusedWithTheReason(t *testing.T) {
	good := jsonOf(t, mismatchRun())
	replace := func(old, new string) string {
		require.Contains(t, good, old)
		return strings.Replace(good, old, new, 1)
	}
	for name, tc := range map[string]struct{ input, message string }{
		"an empty file":         {" \n", "the file is empty"},
		"text":                  {"hello\n", "line 1: invalid character 'h'"},
		"half a report":         {good[:len(good)/2], "it ends in the middle, at line"},
		"two reports":           {good + good, "after top-level value"},
		"a list":                {"[]", "line 1: the document is a array, not a object"},
		"another object":        {`{"a": 1}`, "it has no apiVersion and no kind"},
		"a manifest":            {`{"apiVersion": "v1", "kind": "Pod"}`, `it is kind "Pod" of apiVersion "v1"`},
		"a scenario":            {`{"apiVersion": "netproof.dev/v1alpha1", "kind": "Scenario"}`, `it is kind "Scenario"`},
		"a later version":       {replace(`"netproof.dev/v1alpha1"`, `"netproof.dev/v2"`), "it is of version v2, this netproof reads v1alpha1"},
		"an unknown key":        {replace(`"complete"`, `"shiny": 1, "complete"`), `unknown field "shiny": written by another version of netproof (v0.1.0)`},
		"a wrong type":          {replace(`"port": 80`, `"port": "80"`), "port is a string, not a number"},
		"an unknown verdict":    {replace(`"expected": "allow"`, `"expected": "maybe"`), `expected "maybe" is none of allow, deny, undefined`},
		"an unheard result":     {replace(`"result": "passed",`, `"result": "fine",`), `result "fine" is none of passed`},
		"a mismatch taken out":  {replace(`"result": "failed",`, `"result": "passed",`), "does not fit its cells"},
		"a prettier summary":    {replace(`"failed": 1`, `"failed": 0`), "does not fit its cells"},
		"a cell without an id":  {replace(`"id": "default-deny-ingress/before any policy/x/a->x/b:80/TCP/IPv4/podIP"`, `"id": ""`), "x/a->x/b:80/TCP/IPv4/podIP has no id"},
		"an id used twice":      {replace("x/a->y/a:80", "x/a->x/b:80"), "two cells have the id"},
		"a scenario, no name":   {replace(`"name": "default-deny-ingress"`, `"name": ""`), "a scenario has no name"},
		"a scenario, no result": {replace(`"result": "failed",`+"\n      \"labels\"", `"result": "",`+"\n      \"labels\""), `scenario default-deny-ingress: result ""`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := report.ReadJSON(strings.NewReader(tc.input))
			require.ErrorIs(t, err, report.ErrNotReport)
			assert.ErrorContains(t, err, tc.message)
		})
	}
}

func TestAnUnknownFormatIsAnsweredWithThoseThereAre(t *testing.T) {
	_, err := report.Lookup("pdf")
	require.ErrorIs(t, err, report.ErrUnknownFormat)
	assert.EqualError(t, err, `unknown report format "pdf": there is table, json, junit, markdown, csv`)
}
