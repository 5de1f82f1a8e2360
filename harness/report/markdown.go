package report

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/netproof/netproof/harness/model"
)

// mostMarkdown is how many bytes of truth tables go into a Markdown report: GitHub takes comments of 65,536 characters.
const mostMarkdown = 40_000

// WriteMarkdown writes GitHub Markdown for pull requests and wikis: the result, a table of scenarios, what is wrong, and,
// folded away, the truth tables.
func WriteMarkdown(w io.Writer, run model.Run) error {
	var b bytes.Buffer
	s := run.Summary
	fmt.Fprintf(&b, "### netproof: %s\n\n", orNone(string(s.Result)))
	fmt.Fprintf(&b, "%d of %s as expected in %s", s.Passed, count(s.Cells, "cell", "cells"), count(s.Scenarios, "scenario", "scenarios"))
	if text := describeCluster(run.Cluster); text != "" {
		fmt.Fprintf(&b, ", on %s", escapeMarkdown(text))
	}
	b.WriteString("\n")
	if !run.Complete {
		b.WriteString("\n**The run is not complete**: it ended before all that was selected had been judged.\n")
	}
	for _, f := range run.Findings {
		fmt.Fprintf(&b, "\n**%s**: %s\n", escapeMarkdown(string(f.Kind)), escapeMarkdown(f.Message))
	}
	if len(run.Scenarios) > 0 {
		b.WriteString("\n| scenario | result | cells | mismatches | inconclusive | time |\n|---|---|---:|---:|---:|---:|\n")
		for _, sc := range run.Scenarios {
			var n model.Summary
			for _, step := range sc.Steps {
				for _, c := range step.Cells {
					n.Cells++
					switch c.Result {
					case model.Failed:
						n.Failed++
					case model.ResultInconclusive, model.Flaky:
						n.Inconclusive++
					}
				}
			}
			fmt.Fprintf(&b, "| %s | %s | %d | %d | %d | %s |\n", escapeMarkdown(sc.Name), orNone(string(sc.Result)),
				n.Cells, n.Failed, n.Inconclusive, duration(sc.DurationMs))
		}
	}
	markdownDetails(&b, run)
	var tables bytes.Buffer
	if err := WriteTable(&tables, run, TableOptions{Width: 110}); err != nil {
		return err
	}
	if tables.Len() <= mostMarkdown {
		fmt.Fprintf(&b, "\n<details><summary>Truth tables</summary>\n\n%s\n</details>\n", fence(tables.String()))
	} else {
		b.WriteString("\nThe truth tables are too long for here; the JSON report has them.\n")
	}
	_, err := w.Write(b.Bytes())
	return err
}

// markdownDetails lists mismatches and scenario findings, up to a number that a comment can hold.
func markdownDetails(b *bytes.Buffer, run model.Run) {
	const most = 30
	t := table{withFamily: hasSeveralFamilies(run)}
	shown, all := 0, 0
	for _, s := range run.Scenarios {
		for _, f := range s.Findings {
			fmt.Fprintf(b, "\n- %s: **%s**: %s\n", escapeMarkdown(s.Name), escapeMarkdown(string(f.Kind)), escapeMarkdown(f.Message))
		}
		for _, step := range s.Steps {
			for _, c := range step.Cells {
				if c.Result != model.Failed {
					continue
				}
				if all++; all > most {
					continue
				}
				shown++
				fmt.Fprintf(b, "\n- %s / %s: **%s** expected %s, observed %s%s\n", escapeMarkdown(s.Name), escapeMarkdown(step.Name),
					escapeMarkdown(t.connection(c)), c.Expected, orNone(string(c.Observed)), escapeMarkdown(evidence(c)))
				if c.Explain != "" {
					fmt.Fprintf(b, "  - expected because %s\n", escapeMarkdown(c.Explain))
				}
				for _, p := range c.Policies {
					fmt.Fprintf(b, "  - %s\n", escapeMarkdown(t.policy(p)))
				}
			}
		}
	}
	if all > shown {
		fmt.Fprintf(b, "\nand %d more mismatches\n", all-shown)
	}
}

// fence puts text into a code block that no line of it can end.
func fence(text string) string {
	marks := "```"
	for strings.Contains(text, marks) {
		marks += "`"
	}
	return marks + "text\n" + text + marks + "\n"
}

var markdownEscaper = strings.NewReplacer(
	`\`, `\\`, "|", `\|`, "`", "\\`", "*", `\*`, "_", `\_`, "<", "&lt;", ">", "&gt;", "&", "&amp;", "[", `\[`, "]", `\]`,
	"#", `\#`, "\n", " ", "\r", " ", "@", "&#64;",
)

// escapeMarkdown makes text from files appear as it is: no markup, no links, nobody mentioned.
func escapeMarkdown(text string) string { return markdownEscaper.Replace(clean(text)) }
