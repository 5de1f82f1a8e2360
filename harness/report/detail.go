package report

import (
	"fmt"
	"slices"
	"strings"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/plain"
	"github.com/netproof/netproof/harness/words"
)

// How much is spelled out unless the table is verbose.
const (
	mostMismatches = 10
	mostNamed      = 6
	mostReasons    = 8
)

// details spells out what is not a plain pass in a step.
func (t *table) details(step model.Step) {
	byResult := map[model.Result][]model.Cell{}
	for _, c := range step.Cells {
		r := c.Result
		switch r {
		case model.Passed, model.Failed, model.Flaky, model.ResultUnsupported, model.Recorded:
		default:
			r = model.ResultInconclusive
		}
		byResult[r] = append(byResult[r], c)
	}
	t.mismatches(byResult[model.Failed])
	t.grouped("inconclusive", byResult[model.ResultInconclusive], colorYellow, func(c model.Cell) string { return c.Reason })
	t.grouped("flaky", byResult[model.Flaky], colorYellow, func(c model.Cell) string {
		if text := series(c); text != "" && c.Reason != "" {
			return c.Reason + ": " + text
		} else if text != "" {
			return text
		}
		return c.Reason
	})
	t.grouped("unsupported", byResult[model.ResultUnsupported], "", func(c model.Cell) string { return c.Reason })
	t.grouped("left open by the specification", byResult[model.Recorded], "", func(c model.Cell) string {
		text := "observed " + orNone(string(c.Observed))
		if reason := Reason(c); reason != "" {
			return text + ", " + reason
		}
		return text
	})
}

func (t *table) mismatches(cells []model.Cell) {
	if len(cells) == 0 {
		return
	}
	t.line("")
	t.line(t.style.paint(colorRed, words.Count(len(cells), "mismatch", "mismatches")))
	groups := byCause(cells)
	for i, g := range groups {
		if i == mostMismatches && !t.verbose {
			left := 0
			for _, g := range groups[i:] {
				left += len(g)
			}
			t.line(fmt.Sprintf("  and %d more: --verbose shows them all, and so does the JSON report", left))
			break
		}
		t.mismatch(g)
	}
	t.line("")
}

// byCause puts those mismatches together that one rule, or one lack of a rule, makes what they should be.
func byCause(cells []model.Cell) (groups [][]model.Cell) {
	index := map[[4]string]int{}
	for _, c := range cells {
		cause := c.Cause
		if cause == "" {
			cause = c.Explain
		}
		key := [4]string{cause, string(c.Expected), string(c.Observed), Reason(c)}
		i, known := index[key]
		if !known {
			i = len(groups)
			index[key] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], c)
	}
	return groups
}

// mismatch begins with the sentence that says why something else was expected. Below stand the cells that it is about,
// and with Verbose how the specification comes to it.
func (t *table) mismatch(cells []model.Cell) {
	first := cells[0]
	text := fmt.Sprintf("expected %s, observed %s", first.Expected, orNone(string(first.Observed)))
	if first.Explain != "" {
		text += ": " + plain.Text(first.Explain)
	}
	t.wrapped(text, "  ", "    ")
	if reason := Reason(first); reason != "" {
		t.wrapped(plain.Text(reason), "    ", "      ")
	}
	for _, p := range first.Policies {
		if p != (model.PolicyNote{Policy: p.Policy, Source: p.Source}) { // else the sentence names it
			t.wrapped(t.policy(p), "    ", "      ")
		}
	}
	for i, c := range cells {
		if i == mostMismatches && !t.verbose {
			t.line(fmt.Sprintf("    and %d more", len(cells)-i))
			break
		}
		t.wrapped(t.style.paint(colorBold, t.connection(c))+evidence(c), "    ", "      ")
		if t.verbose {
			t.walk(c)
		}
	}
}

// walk draws how the specification comes to a verdict.
func (t *table) walk(c model.Cell) {
	walk := c.Walk
	if len(walk) > 0 && strings.HasPrefix(walk[0], fmt.Sprintf("%s -> %s ", c.From, c.To)) {
		walk = walk[1:] // the connection, and what is expected of it
	}
	for _, line := range walk {
		// The walk brings its own indentation.
		body := strings.TrimLeft(line, " ")
		indent := "      " + t.style.pick("│ ", "| ") + line[:len(line)-len(body)]
		t.wrapped(plain.Text(body), indent, indent+"  ")
	}
}

// Reason is the reason of a cell, unless it says no more than its verdicts do, which stand beside it in every form for
// people.
func Reason(c model.Cell) string {
	switch {
	case c.Result == model.Failed && c.Reason == fmt.Sprintf("expected %s, observed %s", c.Expected, c.Observed),
		c.Result == model.Recorded && c.Reason == "the specification leaves this case open":
		return ""
	}
	return c.Reason
}

// policy tells what a policy says about itself, and where it was read.
func (t *table) policy(p model.PolicyNote) string {
	var parts []string
	if p.Owner != "" {
		parts = append(parts, "owner "+p.Owner)
	}
	if p.Purpose != "" {
		parts = append(parts, fmt.Sprintf("purpose %q", p.Purpose))
	}
	if p.Review != "" {
		parts = append(parts, "review by "+p.Review)
	}
	name := p.Policy
	if p.Source != "" {
		name += " (" + p.Source + ")"
	}
	if len(parts) == 0 {
		return plain.Text(name)
	}
	return plain.Text(name + ": " + strings.Join(parts, ", "))
}

// connection names a cell for people.
func (t *table) connection(c model.Cell) string {
	return plain.Text(fmt.Sprintf("%s -> %s ", c.From, c.To)) + portTitle(c.Port, c.Protocol, c.IPFamily, c.Via, t.withFamily)
}

// evidence tells what the verdict of a cell rests on, in parentheses.
func evidence(c model.Cell) string {
	e := c.Evidence
	if e == nil {
		return ""
	}
	total := max(len(e.Series), c.Samples)
	of := fmt.Sprintf("%d of %d", c.Samples, total)
	var parts []string
	switch c.Observed {
	case model.Allow:
		text := of + " answered"
		if e.AnsweredBy != "" {
			text += " by " + e.AnsweredBy
		}
		parts = append(parts, text)
		if e.RTTMicros > 0 {
			parts = append(parts, micros(e.RTTMicros))
		}
	default:
		how := string(c.Manner)
		what := strings.TrimSpace(e.Outcome + " " + e.Errno)
		if how == "" || how == string(model.Answered) {
			how, what = what, ""
		}
		parts = append(parts, strings.TrimSpace(of+" "+how))
		if what != "" {
			parts = append(parts, what)
		}
		switch {
		case e.Seen > 0:
			parts = append(parts, fmt.Sprintf("%d seen by the server", e.Seen))
		case c.Observed == model.Deny:
			parts = append(parts, "none seen by the server")
		}
	}
	return " (" + plain.Text(strings.Join(parts, ", ")) + ")"
}

// series tells how the verdict of a cell changed: deny x3, allow x1, deny x2.
func series(c model.Cell) string {
	if c.Evidence == nil {
		return ""
	}
	var parts []string
	samples := c.Evidence.Series
	for i := 0; i < len(samples); {
		j := i
		for j < len(samples) && samples[j].Verdict == samples[i].Verdict {
			j++
		}
		parts = append(parts, fmt.Sprintf("%s x%d", samples[i].Verdict, j-i))
		i = j
	}
	const most = 12
	if len(parts) > most {
		parts = append(parts[:most], "and so on")
	}
	return strings.Join(parts, ", ")
}

// grouped lists cells by what is to say about them: the reason once, with those it holds for.
func (t *table) grouped(what string, cells []model.Cell, color string, reason func(model.Cell) string) {
	if len(cells) == 0 {
		return
	}
	var reasons []string
	names := map[string][]string{}
	for _, c := range cells {
		r := reason(c)
		if r == "" {
			r = "no reason was given"
		}
		if names[r] == nil {
			reasons = append(reasons, r)
		}
		names[r] = append(names[r], t.connection(c))
	}
	// What concerns most cells first; otherwise in the order of the cells.
	slices.SortStableFunc(reasons, func(a, b string) int { return len(names[b]) - len(names[a]) })
	t.line("")
	t.line(t.style.paint(color, fmt.Sprintf("%d %s", len(cells), what)))
	for i, r := range reasons {
		if i == mostReasons && !t.verbose {
			t.line(fmt.Sprintf("  and %d more reasons: --verbose shows them all, and so does the JSON report", len(reasons)-i))
			break
		}
		of := names[r]
		if len(of) > 1 {
			t.wrapped(fmt.Sprintf("%d: %s", len(of), plain.Text(r)), "  ", "     ")
		} else {
			t.wrapped(plain.Text(r), "  ", "     ")
		}
		more := ""
		if len(of) > mostNamed && !t.verbose {
			more = fmt.Sprintf(" and %d more", len(of)-mostNamed)
			of = of[:mostNamed]
		}
		words := slices.Clone(of)
		for i := range words[:len(words)-1] {
			words[i] += ","
		}
		words[len(words)-1] += more
		for _, line := range wrapWords(words, "     ", "     ", t.width) {
			t.line(line)
		}
	}
	t.line("")
}
