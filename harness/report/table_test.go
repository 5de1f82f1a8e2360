package report_test

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/report"
)

func tableOf(t *testing.T, run model.Run, opts report.TableOptions) string {
	t.Helper()
	var out bytes.Buffer
	require.NoError(t, report.WriteTable(&out, run, opts))
	return out.String()
}

func TestNoLineIsWiderThanTheTerminal(t *testing.T) {
	for name, makeRun := range sampleRuns {
		for _, width := range []int{70, 80, 110, 200} {
			for _, verbose := range []bool{false, true} {
				for _, line := range strings.Split(tableOf(t, makeRun(), report.TableOptions{Width: width, Verbose: verbose}), "\n") {
					assert.LessOrEqual(t, utf8.RuneCountInString(line), width, "%s: %s", name, line)
				}
			}
		}
	}
}

func TestColourAddsNothing(t *testing.T) {
	codes := regexp.MustCompile("\x1b\\[[0-9;]*m")
	for name, makeRun := range sampleRuns {
		plain := tableOf(t, makeRun(), report.TableOptions{Width: 110})
		coloured := tableOf(t, makeRun(), report.TableOptions{Width: 110, Color: true})
		assert.NotContains(t, plain, "\x1b", name)
		assert.Contains(t, coloured, "\x1b[", name)
		assert.Equal(t, plain, codes.ReplaceAllString(coloured, ""), name)
	}
}

func TestAsciiMeansAscii(t *testing.T) {
	for name, makeRun := range sampleRuns {
		for _, r := range tableOf(t, makeRun(), report.TableOptions{ASCII: true, Width: 110}) {
			require.Less(t, r, rune(128), name)
		}
	}
}

func TestNamesFromAFileCannotSteerTheTerminal(t *testing.T) {
	run := mismatchRun()
	run.Scenarios[0].Name = "evil\x1b[2Jname\r\n"
	run.Findings = []model.Finding{{Kind: "odd\x1b[31m", Message: "bell\a"}}
	out := tableOf(t, run, report.TableOptions{Color: false})
	assert.NotContains(t, out, "\x1b")
	assert.NotContains(t, out, "\a")
	assert.NotContains(t, out, "\r")
	assert.Contains(t, out, "evil")
}

func TestTheFixOfAFindingHasALineOfItsOwn(t *testing.T) {
	run := mismatchRun()
	run.Findings = []model.Finding{{Kind: model.Infrastructure, Message: "docker does not answer\n  fix: start it"}}
	assert.Contains(t, tableOf(t, run, report.TableOptions{}), "! infrastructure: docker does not answer\n  fix: start it\n")
}

func TestManyMismatchesAreCountedNotPoured(t *testing.T) {
	run := wideRun()
	for i := range run.Scenarios[0].Steps[0].Cells {
		c := &run.Scenarios[0].Steps[0].Cells[i]
		c.Observed, c.Result = model.Allow, model.Failed
	}
	model.Summarize(&run)
	out := tableOf(t, run, report.TableOptions{Width: 110})
	assert.Less(t, strings.Count(out, "\n"), 40)
	assert.Contains(t, out, "2450 mismatches")
	assert.Contains(t, out, "and 2440 more")
	assert.Greater(t, strings.Count(tableOf(t, run, report.TableOptions{Width: 110, Verbose: true}), "\n"), 2450)
}

func TestEndpointsThatBehaveAlikeAreDrawnTogetherAndOthersAreNot(t *testing.T) {
	out := tableOf(t, wideRun(), report.TableOptions{Width: 110})
	assert.Contains(t, out, "x/p-00 +47 = x/p-{00..06}, x/p-{08..29}, x/p-{31..49}")
	assert.Regexp(t, `(?m)^ x/p-07 +✗ +\. +\[✓\]`, out)
}

func TestEveryCellIsInAMatrixHoweverManyPanelsItTakes(t *testing.T) {
	out := tableOf(t, wideRun(), report.TableOptions{Width: 80, Verbose: true})
	matrices, _, _ := strings.Cut(out, "✓ allowed")
	assert.Equal(t, 2449, strings.Count(matrices, "✗"))
	assert.Equal(t, 1, strings.Count(matrices, "[✓]"))
	assert.Equal(t, 50, strings.Count(matrices, ".")-strings.Count("v3.30.1, v1.36.3", "."))
}

func TestTheEnvironmentDecidesCharactersAndColour(t *testing.T) {
	for name, tc := range map[string]struct {
		env         map[string]string
		terminal    bool
		ascii, tint bool
	}{
		"a terminal":                      {map[string]string{"LANG": "de_DE.UTF-8", "TERM": "xterm"}, true, false, true},
		"a pipe":                          {map[string]string{"LANG": "C.UTF-8"}, false, false, false},
		"nothing set":                     {nil, true, false, true},
		"the C locale":                    {map[string]string{"LANG": "C"}, true, true, true},
		"utf8 without a dash":             {map[string]string{"LANG": "en_US.utf8"}, false, false, false},
		"LC_ALL outranks LANG":            {map[string]string{"LC_ALL": "C", "LANG": "C.UTF-8"}, false, true, false},
		"LC_CTYPE outranks LANG":          {map[string]string{"LC_CTYPE": "C.UTF-8", "LANG": "C"}, false, false, false},
		"LC_ALL outranks LC_CTYPE":        {map[string]string{"LC_ALL": "POSIX", "LC_CTYPE": "C.UTF-8"}, false, true, false},
		"Latin-1":                         {map[string]string{"LANG": "de_DE.ISO-8859-1"}, false, true, false},
		"NO_COLOR":                        {map[string]string{"NO_COLOR": "1"}, true, false, false},
		"NO_COLOR that is empty":          {map[string]string{"NO_COLOR": ""}, true, false, true},
		"CLICOLOR_FORCE":                  {map[string]string{"CLICOLOR_FORCE": "1"}, false, false, true},
		"CLICOLOR_FORCE=0":                {map[string]string{"CLICOLOR_FORCE": "0"}, false, false, false},
		"NO_COLOR outranks the force":     {map[string]string{"NO_COLOR": "1", "CLICOLOR_FORCE": "1"}, true, false, false},
		"a dumb terminal":                 {map[string]string{"TERM": "dumb"}, true, false, false},
		"CLICOLOR=0 on a proper terminal": {map[string]string{"CLICOLOR": "0"}, true, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			opts := report.DetectTable(func(key string) string { return tc.env[key] }, tc.terminal, 90)
			assert.Equal(t, report.TableOptions{Width: 90, ASCII: tc.ascii, Color: tc.tint}, opts)
		})
	}
}
