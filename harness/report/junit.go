package report

import (
	"encoding/xml"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/plain"
)

// The elements of JUnit XML, in the form that Jenkins, GitLab and GitHub actions read.
type (
	junitSuites struct {
		XMLName xml.Name `xml:"testsuites"`
		Name    string   `xml:"name,attr"`
		junitCounts
		Time   string       `xml:"time,attr"`
		Suites []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name string `xml:"name,attr"`
		junitCounts
		Time string `xml:"time,attr"`
		// Timestamp is when the run began: lanes prove scenarios side by side.
		Timestamp  string           `xml:"timestamp,attr,omitempty"`
		File       string           `xml:"file,attr,omitempty"`
		Properties *junitProperties `xml:"properties"`
		Cases      []junitCase      `xml:"testcase"`
	}
	// junitCounts are the cases of one suite, or of all.
	junitCounts struct {
		Tests    int `xml:"tests,attr"`
		Failures int `xml:"failures,attr"`
		Errors   int `xml:"errors,attr"`
		Skipped  int `xml:"skipped,attr"`
	}
	junitProperties struct {
		List []junitProperty `xml:"property"`
	}
	junitProperty struct {
		Name  string `xml:"name,attr"`
		Value string `xml:"value,attr"`
	}
	junitCase struct {
		Class   string     `xml:"classname,attr"`
		Name    string     `xml:"name,attr"`
		Time    string     `xml:"time,attr"`
		Failure *junitNote `xml:"failure"`
		Error   *junitNote `xml:"error"`
		Skipped *junitNote `xml:"skipped"`
	}
	junitNote struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

// plain makes a note plain. Its text may have several lines, and its message a fix on a line of its own.
func (n *junitNote) plain() {
	for _, text := range []*string{&n.Message, &n.Text} {
		lines := strings.Split(*text, "\n")
		for i := range lines {
			lines[i] = plain.Text(lines[i])
		}
		*text = strings.Join(lines, "\n")
	}
}

// WriteJUnit writes JUnit XML: a suite per scenario, a test case per cell and per finding. A mismatch is a failure;
// what is inconclusive or flaky, and a scenario that proved nothing, is an error, so that no CI system takes it for a
// pass; what is unsupported or left open by the specification is skipped.
func WriteJUnit(w io.Writer, run model.Run) error {
	out := junitSuites{Name: "netproof", Time: seconds(run.Summary.DurationMs)}
	severalFamilies := hasSeveralFamilies(run)
	if cases := junitFindings("netproof", run.Findings); len(cases) > 0 || !run.Complete {
		if !run.Complete {
			cases = append(cases, junitCase{Class: "netproof", Name: "the run is complete", Time: seconds(0), Error: &junitNote{
				Message: "the run ended before all that was selected had been judged",
			}})
		}
		out.add(junitSuite{Name: "netproof", Time: seconds(0), Cases: cases})
	}
	for _, s := range run.Scenarios {
		suite := junitSuite{
			Name: s.Name, File: s.File, Time: seconds(s.DurationMs), Timestamp: timestamp(run.StartedAt), Properties: propertiesOf(run, s),
			Cases: junitFindings(s.Name, s.Findings),
		}
		for _, step := range s.Steps {
			for _, c := range step.Cells {
				one := junitCell(s.Name+"."+step.Name, c, severalFamilies)
				one.Time = seconds(step.SettledMs) // the cells of a step are proven side by side
				suite.Cases = append(suite.Cases, one)
			}
		}
		if green(suite.Cases) && s.Result != model.Passed && s.Result != model.ResultUnsupported {
			suite.Cases = append(suite.Cases, junitCase{Class: s.Name, Name: "the scenario proves something", Time: seconds(0),
				Error: &junitNote{Message: orNone(string(s.Result))}})
		}
		out.add(suite)
	}
	// Whatever made the run not green must not get lost on the way to a CI system.
	if out.Failures+out.Errors == 0 && model.ExitCode(run) != model.ExitOK {
		out.add(junitSuite{Name: "netproof", Time: seconds(0), Cases: []junitCase{{
			Class: "netproof", Name: "the run proves something", Time: seconds(0), Error: &junitNote{Message: orNone(string(run.Summary.Result))},
		}}})
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	if err := enc.Encode(out); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

// timestamp is a time as JUnit XML has it, in UTC.
func timestamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05")
}

// propertiesOf say on what a scenario was proven, and of which files it was made.
func propertiesOf(run model.Run, s model.Scenario) *junitProperties {
	out := &junitProperties{}
	add := func(name, value string) {
		if value != "" {
			out.List = append(out.List, junitProperty{plain.Text(name), plain.Text(value)})
		}
	}
	c := run.Cluster
	add("netproof.version", run.Tool.Version)
	add("netproof.commit", run.Tool.Commit)
	add("provider", c.Provider)
	add("plugin", strings.TrimSpace(c.CNI.Name+" "+c.CNI.Version))
	add("kubernetes", c.Kubernetes)
	if c.Nodes > 0 {
		add("nodes", strconv.Itoa(c.Nodes))
	}
	var families []string
	for _, f := range c.IPFamilies {
		families = append(families, string(f))
	}
	add("ipFamilies", strings.Join(families, ","))
	for _, f := range s.Files {
		add("file "+f.Path, "sha256:"+f.SHA256)
	}
	for _, w := range s.Warnings {
		add("warning", w)
	}
	if len(out.List) == 0 {
		return nil
	}
	return out
}

func green(cases []junitCase) bool {
	for _, c := range cases {
		if c.Failure != nil || c.Error != nil {
			return false
		}
	}
	return true
}

// add counts the cases of a suite and takes it in, every text of it made plain.
func (s *junitSuites) add(suite junitSuite) {
	suite.Name, suite.File = plain.Text(suite.Name), plain.Text(suite.File)
	for i, c := range suite.Cases {
		suite.Cases[i].Class, suite.Cases[i].Name = plain.Text(c.Class), plain.Text(c.Name)
		for _, note := range []*junitNote{c.Failure, c.Error, c.Skipped} {
			if note != nil {
				note.plain()
			}
		}
		suite.Tests++
		switch {
		case c.Failure != nil:
			suite.Failures++
		case c.Error != nil:
			suite.Errors++
		case c.Skipped != nil:
			suite.Skipped++
		}
	}
	s.Tests += suite.Tests
	s.Failures += suite.Failures
	s.Errors += suite.Errors
	s.Skipped += suite.Skipped
	s.Suites = append(s.Suites, suite)
}

func junitFindings(class string, findings []model.Finding) []junitCase {
	var cases []junitCase
	for _, f := range findings {
		c := junitCase{Class: class, Name: string(f.Kind), Time: seconds(0)}
		if f.Result == model.Failed {
			c.Failure = &junitNote{Message: f.Message}
		} else {
			c.Error = &junitNote{Message: f.Message}
		}
		cases = append(cases, c)
	}
	return cases
}

func junitCell(class string, c model.Cell, withFamily bool) junitCase {
	t := table{withFamily: withFamily}
	out := junitCase{Class: class, Name: t.connection(c), Time: seconds(0)}
	note := &junitNote{Message: c.Reason, Text: strings.Join(c.Walk, "\n")}
	switch c.Result {
	case model.Passed:
		return out
	case model.Failed:
		note.Message = fmt.Sprintf("expected %s, observed %s%s", c.Expected, orNone(string(c.Observed)), evidence(c))
		if c.Explain != "" {
			note.Message += "; expected because " + c.Explain
		}
		out.Failure = note
	case model.ResultUnsupported:
		out.Skipped = note
	case model.Recorded:
		note.Message = "left open by the specification, observed " + orNone(string(c.Observed))
		out.Skipped = note
	default:
		if note.Message == "" {
			note.Message = orNone(string(c.Result))
		}
		out.Error = note
	}
	return out
}

func seconds(ms int64) string { return fmt.Sprintf("%.3f", float64(ms)/1000) }
