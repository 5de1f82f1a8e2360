package report

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/plain"
	"github.com/netproof/netproof/harness/words"
)

// mostMarkdown is how many bytes of truth tables go into a Markdown report: GitHub takes comments of 65,536 characters.
const mostMarkdown = 40_000

// WriteMarkdown writes GitHub Markdown for pull requests and wikis: the result, a table of scenarios, what is wrong,
// and, folded away, the truth tables.
func WriteMarkdown(w io.Writer, run model.Run) error {
	var b bytes.Buffer
	s := run.Summary
	fmt.Fprintf(&b, "### netproof: %s\n\n", orNone(string(s.Result)))
	b.WriteString(Tally(s))
	if s.Scenarios > 0 {
		fmt.Fprintf(&b, " (%s)", words.Count(s.Scenarios, "scenario", "scenarios"))
	}
	if text := describeCluster(run.Cluster); text != "" {
		fmt.Fprintf(&b, ", on %s", code(text))
	}
	b.WriteString("\n")
	if !run.Complete {
		b.WriteString("\n**The run is not complete**: it ended before all that was selected had been judged.\n")
	}
	for _, f := range run.Findings {
		fmt.Fprintf(&b, "\n**%s**: %s\n", code(string(f.Kind)), code(f.Message))
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
			fmt.Fprintf(&b, "| %s | %s | %d | %d | %d | %s |\n", codeCell(sc.Name), orNone(string(sc.Result)),
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
			fmt.Fprintf(b, "\n- %s: **%s**: %s\n", code(s.Name), code(string(f.Kind)), code(f.Message))
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
				fmt.Fprintf(b, "\n- %s / %s: **%s** expected %s, observed %s", code(s.Name), code(step.Name),
					code(t.connection(c)), c.Expected, orNone(string(c.Observed)))
				if proof := evidence(c); proof != "" {
					fmt.Fprintf(b, " %s", code(strings.TrimSpace(proof)))
				}
				b.WriteString("\n")
				if c.Explain != "" {
					fmt.Fprintf(b, "  - expected because %s\n", code(c.Explain))
				}
				for _, p := range c.Policies {
					fmt.Fprintf(b, "  - %s\n", code(t.policy(p)))
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

// code makes text from files appear as it is: as a code span, in which GitHub and GitLab make no markup, no links of
// addresses, nobody mentioned, no references to issues or commits. No escape outside of one does that: both look for
// them in the text that a reader sees.
func code(text string) string {
	text = plain.Text(text)
	if strings.TrimSpace(text) == "" {
		return ""
	}
	marks := "`"
	for strings.Contains(text, marks) {
		marks += "`"
	}
	if strings.HasPrefix(text, "`") || strings.HasSuffix(text, "`") {
		text = " " + text + " " // taken away again
	}
	return marks + text + marks
}

// codeCell is code in a cell of a table, where a bar ends the cell also within a code span.
func codeCell(text string) string {
	return strings.NewReplacer(`\`, `\\`, "|", `\|`).Replace(code(text))
}
