package hostile

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/netproof/netproof/cmd/netproof/internal/progress"
	"github.com/netproof/netproof/harness/model"
)

// Look finds what may have an effect in text that goes to a terminal, to a log or into a file, in a form that --format
// names; other forms are text.
func Look(form, text string) (faults []string) {
	faults = lookAtText(text)
	switch form {
	case "json":
		if !json.Valid([]byte(text)) {
			faults = append(faults, fmt.Sprintf("no JSON: %q", text))
		}
	case "csv":
		faults = append(faults, lookAtCSV(text)...)
	case "junit":
		for dec := xml.NewDecoder(strings.NewReader(text)); ; {
			if _, err := dec.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return append(faults, fmt.Sprintf("no XML: %v", err))
			}
		}
	case "markdown":
		faults = append(faults, lookAtMarkdown(text)...)
	}
	return faults
}

// ciCommand is what CI systems look for in a line, in words of its own: plain has others. A heading of Markdown is
// none.
var ciCommand = regexp.MustCompile(`(?m)^[\s\p{Z}]*(::|##[^# ]|---|\+\+\+|~~~|\^\^\^)|##[A-Za-z]*\[|(travis|section)_(fold|time|start|end):`)

// lookAtText looks at what may go to a terminal or a log.
func lookAtText(text string) (faults []string) {
	if !utf8.ValidString(text) {
		faults = append(faults, fmt.Sprintf("not UTF-8: %q", text))
	}
	if found := ciCommand.FindString(text); found != "" {
		faults = append(faults, fmt.Sprintf("a CI system reads %q in %q", found, text))
	}
	for _, r := range text {
		if r != '\n' && (unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Variation_Selector)) {
			faults = append(faults, fmt.Sprintf("%U in %q", r, text))
		}
	}
	return faults
}

// formula is a sign that makes a spreadsheet calculate, where a cell begins in one that splits at commas or at
// something else.
var formula = regexp.MustCompile(`(^|[;|"])[\s\p{Z}]*[=+@＝＋＠－-]`)

func lookAtCSV(text string) (faults []string) {
	records, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil {
		return []string{fmt.Sprintf("no CSV: %v", err)}
	}
	for _, record := range records {
		for _, cell := range record {
			if formula.MatchString(cell) {
				faults = append(faults, fmt.Sprintf("%q is calculated", cell))
			}
		}
	}
	return faults
}

var (
	ticks = regexp.MustCompile("`+")
	alive = regexp.MustCompile(`(?i)https?:|www\.|@|#\d|GH-\d|!\[|\]\(|<img|[0-9a-f]{40}|evil`)
)

// lookAtMarkdown looks at what is outside of code, where GitHub looks for links, markup and mentions.
func lookAtMarkdown(text string) (faults []string) {
	rest := withoutCode(text)
	if found := alive.FindString(rest); found != "" {
		faults = append(faults, fmt.Sprintf("%q is alive in\n%s\nof\n%s", found, rest, text))
	}
	return faults
}

// withoutCode takes fenced blocks and code spans out: both end at a run of as many backticks as they began with.
func withoutCode(text string) string {
	var out strings.Builder
	for {
		begin := ticks.FindStringIndex(text)
		if begin == nil {
			return out.String() + text
		}
		marks := text[begin[0]:begin[1]]
		out.WriteString(text[:begin[0]])
		text = text[begin[1]:]
		fence := len(marks) >= 3 && strings.HasPrefix(text, "text\n")
		end := -1
		for _, at := range ticks.FindAllStringIndex(text, -1) {
			if at[1]-at[0] == len(marks) && (!fence || text[at[0]-1] == '\n') {
				end = at[1]
				break
			}
		}
		if end < 0 {
			return out.String() + marks + text
		}
		text = text[end:]
	}
}

// LookAtProgress shows a run as it is shown while it goes on.
func LookAtProgress(r model.Run) (faults []string) {
	for _, terminal := range []bool{false, true} {
		var b bytes.Buffer
		p := progress.New(&b, progress.Options{Verbose: true, Terminal: terminal, ASCII: true})
		p.RunStarted(r)
		for _, s := range r.Scenarios {
			p.ScenarioStarted(s.Name, 0, 1)
			for _, step := range s.Steps {
				p.StepStarted(s.Name, step.Name, 0, 1)
				p.Note(step.Name)
				p.StepDone(s.Name, step)
			}
			p.ScenarioDone(s)
		}
		for _, f := range r.Findings {
			p.Found(f)
		}
		p.Close()
		faults = append(faults, lookAtText(strings.ReplaceAll(b.String(), "\r\x1b[K", ""))...)
	}
	return faults
}
