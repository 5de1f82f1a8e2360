package progress_test

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/netproof/netproof/cmd/netproof/internal/progress"
	"github.com/netproof/netproof/harness/model"
)

// tell gives a display a short run, with three seconds of waiting in it.
func tell(p *progress.Progress) {
	p.Note("building the cluster")
	p.Note("building the cluster")
	p.RunStarted(model.Run{Cluster: model.Cluster{CNI: model.CNI{Name: "calico", Version: "v3"}, Kubernetes: "v1", Nodes: 2}})
	p.ScenarioStarted("deny", 0, 2)
	p.StepStarted("deny", "isolated", 0, 1)
	p.Note("settling")
	time.Sleep(3 * time.Second)
	p.StepDone("deny", model.Step{Name: "isolated", SettledMs: 350, Cells: make([]model.Cell, 6)})
	p.ScenarioDone(model.Scenario{Name: "deny", Result: model.Passed, DurationMs: 900, Steps: []model.Step{{Cells: make([]model.Cell, 6)}}})
	p.ScenarioStarted("bad", 1, 2)
	p.ScenarioDone(model.Scenario{Name: "bad", Result: model.Failed, DurationMs: 100, Steps: []model.Step{{Cells: make([]model.Cell, 1)}}})
	p.Found(model.Finding{Kind: model.Cleanup, Message: "namespace x\nis still there"})
	p.Close()
	p.Note("after the end")
	p.Close()
}

// show gives what a display wrote.
func show(t *testing.T, opts progress.Options) string {
	t.Helper()
	var out bytes.Buffer
	synctest.Test(t, func(*testing.T) { tell(progress.New(&out, opts)) })
	return out.String()
}

func TestPlainLinesSayEachThingOnce(t *testing.T) {
	assert.Equal(t, `building the cluster
cluster ready: calico v3, Kubernetes v1, 2 nodes
[1/2] deny, step 1 of 1, isolated: settling
[1/2] deny: passed, 6 cells, 0.9 s
[2/2] bad: failed, 1 cell, 0.1 s
cleanup: namespace x is still there
`, show(t, progress.Options{}))
}

func TestVerboseAddsTheSteps(t *testing.T) {
	assert.Contains(t, show(t, progress.Options{Verbose: true}), "\ndeny / isolated: 6 cells, settled after 350 ms\n")
}

func TestQuietSaysNothing(t *testing.T) {
	assert.Empty(t, show(t, progress.Options{Quiet: true}))
	assert.Empty(t, show(t, progress.Options{Quiet: true, Terminal: true}))
}

func TestATerminalShowsOneLineThatIsGoneInTheEnd(t *testing.T) {
	out := show(t, progress.Options{Terminal: true, Columns: 60, ASCII: true})
	assert.Contains(t, out, "[1/2] deny, step 1 of 1, isolated: settling (2 s)")
	assert.NotContains(t, out, "deny: passed", "what passed is in the table")
	assert.Equal(t, []string{
		"cluster ready: calico v3, Kubernetes v1, 2 nodes", "[2/2] bad: failed, 1 cell, 0.1 s", "cleanup: namespace x is still there",
	}, screen(out))
}

func TestALineNeverWraps(t *testing.T) {
	var out bytes.Buffer
	p := progress.New(&out, progress.Options{Terminal: true, Columns: 20})
	p.Note(strings.Repeat("long ", 50))
	p.Close()
	for _, part := range strings.FieldsFunc(out.String(), func(r rune) bool { return r == '\r' || r == '\n' }) {
		assert.LessOrEqual(t, len([]rune(strings.TrimPrefix(part, "\x1b[K"))), 19)
	}
}

// screen gives the lines that a terminal shows after all of it: a carriage return goes back, and erasing takes the line
// away.
func screen(out string) []string {
	var lines []string
	for _, line := range strings.Split(out, "\n") {
		parts := strings.Split(line, "\r\x1b[K")
		if last := parts[len(parts)-1]; last != "" {
			lines = append(lines, last)
		}
	}
	return lines
}
