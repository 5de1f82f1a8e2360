package report

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/plain"
	"github.com/netproof/netproof/harness/words"
)

// WriteTable writes truth tables for people: a matrix per step and port that shows what was observed and marks what was
// not expected, below it what is wrong with the evidence, and a summary at the end.
//
// A run of one scenario shows all of its steps. Of several scenarios those that passed take a line each, and so do
// the steps that passed of the others, unless Verbose is set.
func WriteTable(w io.Writer, run model.Run, opts TableOptions) error {
	if opts.Width <= 0 {
		opts.Width = defaultWidth
	}
	var buf bytes.Buffer
	t := &table{
		w:          &buf,
		style:      style{ascii: opts.ASCII, color: opts.Color},
		width:      max(40, opts.Width),
		verbose:    opts.Verbose,
		brief:      len(run.Scenarios) > 1 && !opts.Verbose,
		withFamily: hasSeveralFamilies(run),
		cluster:    describeCluster(run.Cluster),
		legend:     legend(run),
	}
	for _, s := range run.Scenarios {
		t.nameWidth = max(t.nameWidth, columns(plain.Text(s.Name)))
	}
	t.nameWidth = min(t.nameWidth, 48)
	t.run(run)
	// Names were made plain where they were put in; lines were wrapped since, and a word of a name may begin one.
	_, err := plain.NewWriter(w, opts.Color).Write(buf.Bytes())
	return err
}

// table is the state of one rendering.
type table struct {
	w          *bytes.Buffer
	style      style
	width      int
	verbose    bool
	brief      bool
	withFamily bool
	nameWidth  int
	// cluster and legend are written once, then emptied.
	cluster string
	legend  []legendEntry
	// open is true when the last thing written was more than a line, and an empty line belongs after it.
	open bool
}

// line writes a line; of several empty ones only the first.
func (t *table) line(text string) {
	text = strings.TrimRight(text, " ")
	if text == "" && (t.w.Len() == 0 || bytes.HasSuffix(t.w.Bytes(), []byte("\n\n"))) {
		return
	}
	t.w.WriteString(text + "\n")
}

// paragraph begins something of several lines.
func (t *table) paragraph() {
	t.line("")
	t.open = true
}

// single begins a line that stands together with other single lines.
func (t *table) single() {
	if t.open {
		t.line("")
	}
	t.open = false
}

func (t *table) wrapped(text, first, rest string) {
	for _, line := range wrap(text, first, rest, t.width) {
		t.line(line)
	}
}

func (t *table) run(run model.Run) {
	for _, s := range run.Scenarios {
		t.scenario(s)
	}
	t.words()
	if len(run.Findings) > 0 {
		t.paragraph()
		t.findings(run.Findings, "")
	}
	t.paragraph()
	t.summary(run)
}

func (t *table) scenario(s model.Scenario) {
	if t.brief {
		t.single()
		if t.cluster != "" {
			t.line(t.style.paint(colorDim, t.cluster))
			t.cluster = ""
		}
		t.scenarioLine(s)
		if s.Result == model.Passed && len(s.Findings) == 0 {
			return
		}
	}
	for i, step := range s.Steps {
		if i == 0 && len(s.Steps) > 1 && !t.brief && !t.verbose && allOpen(step) {
			t.single()
			t.wrapped(fmt.Sprintf("%s %s / %s: all %s allowed", t.style.symbol(symAllow), plain.Text(s.Name), plain.Text(step.Name),
				words.Count(len(step.Cells), "connection is", "connections are")), "", "  ")
			continue
		}
		if t.brief && stepPassed(step) {
			t.single()
			t.line(fmt.Sprintf("  %s %s, %s", t.style.symbol(symAllow), plain.Text(step.Name), words.Count(len(step.Cells), "cell", "cells")))
			continue
		}
		t.step(s, step)
		if i > 0 && len(s.Steps) > 2 {
			t.changes(s.Steps[i-1], step)
		}
	}
	t.classes(s)
	if findings := unsaid(s); len(findings) > 0 {
		t.paragraph()
		t.findings(findings, "")
	}
}

// classes says for whom the workloads of the tables stand.
func (t *table) classes(s model.Scenario) {
	if len(s.Classes) == 0 {
		return
	}
	const most = 10
	t.paragraph()
	t.line("one proven for all that nothing tells apart:")
	for _, c := range s.Classes[:min(most, len(s.Classes))] {
		t.wrapped(fmt.Sprintf("%s and %d like it: %s", plain.Text(string(c.Of)), len(c.Like), words.Few(texts(c.Like), 3)), "  ", "    ")
	}
	if more := len(s.Classes) - most; more > 0 {
		t.line(fmt.Sprintf("  and %d more classes", more))
	}
}

// texts are endpoints as people read them.
func texts(endpoints []model.Endpoint) []string {
	out := make([]string, len(endpoints))
	for i, e := range endpoints {
		out[i] = plain.Text(string(e))
	}
	return out
}

// unsaid are the findings of a scenario without those that a mismatch above says in the same words.
func unsaid(s model.Scenario) []model.Finding {
	return slices.DeleteFunc(slices.Clone(s.Findings), func(f model.Finding) bool {
		return f.Kind == model.IntentViolated && slices.ContainsFunc(s.Steps, func(step model.Step) bool {
			return slices.ContainsFunc(step.Cells, func(c model.Cell) bool {
				return c.Result == model.Failed && c.Explain != "" && strings.Contains(f.Message, c.Explain)
			})
		})
	})
}

// scenarioLine tells a whole scenario in one line.
func (t *table) scenarioLine(s model.Scenario) {
	cells := 0
	for _, step := range s.Steps {
		cells += len(step.Cells)
	}
	text := fmt.Sprintf("%s %s  %8s  %11s  %7s", t.verdict(s.Result), padRight(plain.Text(s.Name), t.nameWidth),
		words.Count(len(s.Steps), "step", "steps"), words.Count(cells, "cell", "cells"), duration(s.DurationMs))
	if s.Result != model.Passed {
		text += "  " + t.style.paint(resultColor(s.Result), string(s.Result))
	}
	t.line(text)
}

// verdict is the sign of a result.
func (t *table) verdict(r model.Result) string {
	sign := "?"
	switch r {
	case model.Passed:
		sign = t.style.symbol(symAllow)
	case model.Failed:
		sign = t.style.symbol(symDeny)
	case model.ResultUnsupported:
		sign = string(symUnsupported)
	}
	return t.style.paint(resultColor(r), sign)
}

func resultColor(r model.Result) string {
	switch r {
	case model.Passed:
		return colorGreen
	case model.Failed:
		return colorRed
	case model.ResultUnsupported, model.Recorded:
		return colorDim
	default:
		return colorYellow
	}
}

// allOpen tells whether a step shows no more than that everybody reaches everybody.
func allOpen(step model.Step) bool {
	return len(step.Cells) > 0 && step.Controls.Held && !slices.ContainsFunc(step.Cells, func(c model.Cell) bool {
		return c.Result != model.Passed || c.Observed != model.Allow
	})
}

func stepPassed(step model.Step) bool {
	for _, c := range step.Cells {
		switch c.Result {
		case model.Passed, model.Recorded, model.ResultUnsupported:
		default:
			return false
		}
	}
	return len(step.Cells) == 0 || step.Controls.Held
}

func (t *table) step(s model.Scenario, step model.Step) {
	t.paragraph()
	t.heading(plain.Text(s.Name) + " / " + plain.Text(step.Name))
	if len(step.Cells) == 0 {
		t.line(" nothing was probed in this step")
	} else {
		t.matrices(s, step)
	}
	t.details(step)
	if text := t.timing(step); text != "" {
		t.wrapped(text, "", "  ")
	}
}

// changes says what a step has opened and closed.
func (t *table) changes(before, after model.Step) {
	was := map[model.Connection]model.Verdict{}
	for _, c := range before.Cells {
		was[c.Connection()] = c.Observed
	}
	changed := map[model.Verdict][]string{}
	for _, c := range after.Cells {
		// Whatever was not proven before has not changed as far as anybody knows.
		if v := was[c.Connection()]; v == model.Deny && c.Observed == model.Allow || v == model.Allow && c.Observed == model.Deny {
			changed[c.Observed] = append(changed[c.Observed], t.connection(c))
		}
	}
	var parts []string
	for _, one := range []struct {
		word    string
		verdict model.Verdict
	}{{"opens", model.Allow}, {"closes", model.Deny}} {
		if names := changed[one.verdict]; len(names) > 0 {
			parts = append(parts, fmt.Sprintf("%s %s: %s", one.word, words.Count(len(names), "connection", "connections"), words.Few(names, mostNamed)))
		}
	}
	if len(parts) > 0 {
		t.wrapped(strings.Join(parts, "; "), "", "  ")
	}
}

// heading writes the name of a step, and once, to its right if there is room, what the run was made on.
func (t *table) heading(name string) {
	title := t.style.paint(colorBold, name)
	if t.cluster == "" {
		t.line(title)
		return
	}
	const gap = 3
	if columns(name)+gap+columns(t.cluster) <= t.width {
		t.line(padRight(title, max(columns(name)+gap, min(48, t.width-columns(t.cluster)))) + t.style.paint(colorDim, t.cluster))
	} else {
		t.line(title)
		t.line(t.style.paint(colorDim, t.cluster))
	}
	t.cluster = ""
}

// matrices puts the matrices of a step beside each other as far as there is room, and the legend, once, after them.
func (t *table) matrices(s model.Scenario, step model.Step) {
	const gap = 4
	limit := t.width - 1
	blocks := renderGrids(grids(step.Cells, t.withFamily, s.Strangers), t.style, limit, t.verbose)
	if t.legend != nil {
		last := blocks[len(blocks)-1]
		// A legend beside a matrix begins below the names of the columns.
		block := append([]string{""}, t.legendLines(2)...)
		if len(last) < len(block) || blockWidth(last)+gap+blockWidth(block) > limit {
			block = t.legendLines(len(t.legend))
		}
		blocks = append(blocks, block)
		t.legend = nil
	}
	for len(blocks) > 0 {
		row := blocks[:1]
		total := blockWidth(blocks[0])
		for _, next := range blocks[1:] {
			if total+gap+blockWidth(next) > limit {
				break
			}
			total += gap + blockWidth(next)
			row = blocks[:len(row)+1]
		}
		blocks = blocks[len(row):]
		t.beside(row, gap)
		if len(blocks) > 0 {
			t.line("")
		}
	}
}

func blockWidth(lines []string) int {
	n := 0
	for _, line := range lines {
		n = max(n, columns(line))
	}
	return n
}

func (t *table) beside(blocks [][]string, gap int) {
	height := 0
	for _, b := range blocks {
		height = max(height, len(b))
	}
	for i := range height {
		text := " "
		for k, b := range blocks {
			part := ""
			if i < len(b) {
				part = b[i]
			}
			if k < len(blocks)-1 {
				part = padRight(part, blockWidth(b)+gap)
			}
			text += part
		}
		t.line(text)
	}
}

// legendEntry explains one sign.
type legendEntry struct {
	entry entry
	text  string
}

// legend explains the signs that a report can show; the rarest only if it does.
func legend(run model.Run) []legendEntry {
	entries := []legendEntry{
		{entry{symAllow, markNone}, "allowed"},
		{entry{symDeny, markNone}, "denied"},
		{entry{symNone, markMismatch}, "not as expected"},
		{entry{symUnknown, markNone}, "inconclusive"},
		{entry{symFlaky, markNone}, "flaky"},
		{entry{symUnsupported, markNone}, "unsupported"},
		{entry{symSelf, markNone}, "itself"},
	}
	if slices.ContainsFunc(run.Scenarios, func(s model.Scenario) bool {
		return slices.ContainsFunc(s.Steps, func(step model.Step) bool {
			return slices.ContainsFunc(step.Cells, func(c model.Cell) bool { return entryOf(c).mark == markOneSided })
		})
	}) {
		entries = append(entries, legendEntry{entry{symDeny, markOneSided}, "denied by one side only"})
	}
	if run.Summary.Recorded > 0 {
		entries = append(entries, legendEntry{entry{symNone, markOpen}, "left open"})
	}
	return entries
}

// legendLines writes the legend in so many lines, fewer if it is shorter.
func (t *table) legendLines(lines int) []string {
	var out []string
	if lines == 2 {
		for _, part := range [][]legendEntry{t.legend[:3], t.legend[3:]} {
			var texts []string
			for _, e := range part {
				texts = append(texts, t.legendText(e))
			}
			out = append(out, strings.Join(texts, "   "))
		}
		return out
	}
	line := ""
	for _, e := range t.legend {
		text := t.legendText(e)
		if line != "" && columns(line)+3+columns(text) > t.width-1 {
			out = append(out, line)
			line = ""
		}
		if line != "" {
			line += "   "
		}
		line += text
	}
	return append(out, line)
}

func (t *table) legendText(e legendEntry) string {
	return strings.TrimSpace(t.style.entry(e.entry)) + " " + e.text
}

// wordsText explains what stands below tables. README has the same text.
const wordsText = "settled: samples agree that were sent after every node had the change. " +
	"controls: checks that make a denial a proof. " +
	"canary: a connection of netproof's own that must be denied. " +
	"vacuous: proves nothing."

// words explains the words of a verbose table that has shown some.
func (t *table) words() {
	if !t.verbose || t.legend != nil {
		return
	}
	t.paragraph()
	for _, line := range wrap(wordsText, "", "  ", t.width) {
		t.line(t.style.paint(colorDim, line))
	}
}

// Timing tells how long the change of a step took: what was cut was enforced, what was opened was released. It is empty
// where nothing is known.
func Timing(step model.Step) string {
	var parts []string
	if step.EnforcedMs > 0 {
		parts = append(parts, "enforced "+duration(step.EnforcedMs)+" after apply")
	}
	if step.ReleasedMs > 0 {
		parts = append(parts, "released "+duration(step.ReleasedMs)+" after apply")
	}
	if step.SettledMs > 0 {
		parts = append(parts, "settled after "+duration(step.SettledMs))
	}
	return strings.Join(parts, ", ")
}

// timing tells how long a change took and whether the controls held.
func (t *table) timing(step model.Step) string {
	var parts []string
	if text := Timing(step); text != "" {
		parts = append(parts, text)
	}
	c := step.Controls
	if c.Servers > 0 || c.Held {
		parts = append(parts, t.controls(c))
	}
	return strings.Join(parts, ", ")
}

func (t *table) controls(c model.Controls) string {
	var facts []string
	if c.Servers > 0 {
		facts = append(facts, fmt.Sprintf("%d of %d servers alive", c.ServersAlive, c.Servers))
	}
	if c.Held {
		if c.CanaryDenied {
			facts = append(facts, "canary denied")
		}
		text := "controls held"
		if len(facts) > 0 {
			text += " (" + strings.Join(facts, ", ") + ")"
		}
		return text
	}
	if !c.CanaryDenied {
		facts = append(facts, "canary not denied")
	}
	if !c.CanaryAllowed {
		facts = append(facts, "open canary not answered")
	}
	return t.style.paint(colorYellow, "controls did not hold") + " (" + strings.Join(facts, ", ") + ")"
}

func (t *table) findings(findings []model.Finding, indent string) {
	for _, f := range findings {
		label := strings.ReplaceAll(plain.Text(string(f.Kind)), "-", " ")
		what, more, _ := strings.Cut(f.Message, "\n") // a fix has a line of its own
		t.wrapped(fmt.Sprintf("%s: %s", t.style.paint(resultColor(f.Result), "! "+label), plain.Text(what)), indent, indent+"  ")
		for line := range strings.Lines(more) {
			t.wrapped(plain.Text(strings.TrimSpace(line)), indent+"  ", indent+"  ")
		}
	}
}

// summary is the last line: the result, and the numbers behind it.
func (t *table) summary(run model.Run) {
	s := run.Summary
	result := string(s.Result)
	switch {
	case s.Signal != 0:
		result += fmt.Sprintf(" (ended by signal %d)", s.Signal)
	case s.TimedOut:
		result += " (overall time-out)"
	case result == "":
		result = "no result"
	}
	text := Tally(s)
	var size []string
	if s.Scenarios > 0 {
		size = append(size, words.Count(s.Scenarios, "scenario", "scenarios"))
	}
	if s.DurationMs > 0 {
		size = append(size, duration(s.DurationMs))
	}
	if len(size) > 0 {
		text += " (" + strings.Join(size, ", ") + ")"
	}
	t.wrapped(fmt.Sprintf("%s %s: %s", t.verdict(s.Result), t.style.paint(resultColor(s.Result), result), text), "", "  ")
	var unasserted []string
	for _, s := range run.Scenarios {
		if s.Unasserted && s.Result == model.Passed {
			unasserted = append(unasserted, plain.Text(s.Name))
		}
	}
	if len(unasserted) > 0 {
		t.wrapped(fmt.Sprintf("nothing was asserted about %s: the plugin does what the policies say, and nobody has said yet what they shall do. "+
			"Review expected.txt, or add rules to netproof.yaml", words.Few(unasserted, mostNamed)), "  ", "  ")
	}
	if !run.Complete {
		t.wrapped("the run is not complete: it ended before all that was selected had been judged", "  ", "  ")
	}
	if s.CleanupFailed {
		t.wrapped(t.style.paint(colorYellow, "clean-up failed:")+" something is left behind, or could not be shown to be gone", "  ", "  ")
	}
}

// Tally counts the cells of a run by what became of them, in words: 212 of 214 cells as expected, 2 left open.
func Tally(s model.Summary) string {
	switch {
	case s.Scenarios == 0:
		return "no scenario was run"
	case s.Cells == 0:
		return "nothing was probed"
	}
	parts := []string{fmt.Sprintf("%d of %s as expected", s.Passed, words.Count(s.Cells, "cell", "cells"))}
	for _, n := range []struct {
		n         int
		one, many string
	}{
		{s.Failed, "mismatch", "mismatches"},
		{s.Inconclusive, "inconclusive", "inconclusive"},
		{s.Flaky, "flaky", "flaky"},
		{s.Unsupported, "unsupported", "unsupported"},
		{s.Recorded, "left open", "left open"},
	} {
		if n.n > 0 {
			parts = append(parts, words.Count(n.n, n.one, n.many))
		}
	}
	return strings.Join(parts, ", ")
}

func describeCluster(c model.Cluster) string {
	var parts []string
	if c.CNI.Name != "" {
		parts = append(parts, strings.TrimSpace(c.CNI.Name+" "+c.CNI.Version))
	}
	if c.Kubernetes != "" {
		parts = append(parts, "Kubernetes "+c.Kubernetes)
	}
	if c.Nodes > 0 {
		parts = append(parts, words.Count(c.Nodes, "node", "nodes"))
	}
	var families []string
	for _, f := range c.IPFamilies {
		families = append(families, string(f))
	}
	if len(families) > 0 {
		parts = append(parts, strings.Join(families, "+"))
	}
	return plain.Text(strings.Join(parts, ", "))
}

func hasSeveralFamilies(run model.Run) bool {
	families := slices.Clone(run.Cluster.IPFamilies)
	for _, s := range run.Scenarios {
		for _, step := range s.Steps {
			for _, c := range step.Cells {
				if !slices.Contains(families, c.IPFamily) {
					families = append(families, c.IPFamily)
				}
			}
		}
	}
	return len(families) > 1
}
