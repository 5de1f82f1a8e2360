package scenario

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/plain"
)

// ExpectedStep is the truth table of a step that leaves cells to the specification.
type ExpectedStep struct {
	Name  string
	Cells []ExpectedCell
}

// ExpectedCell is one verdict.
type ExpectedCell struct {
	Connection model.Connection
	// Verdict is allow, deny or undefined.
	Verdict model.Verdict
	// Asserted is true where a rule decides the cell, and not the specification. Such a cell is shown, and not
	// compared: the rule itself is reviewed.
	Asserted bool
}

// The signs of an expected.txt.
const (
	allowSign     = "+"
	denySign      = "x"
	undefinedSign = "?"
	noCellSign    = "."
	// assertedMark follows the sign of a cell that a rule decides.
	assertedMark = "!"
)

var signs = map[model.Verdict]string{model.Allow: allowSign, model.Deny: denySign, model.Undefined: undefinedSign}

const expectedHeader = `# What the specification expects of scenario %s.
# Written by netproof, reviewed by people, compared on every run.
# Rows connect to columns: + allow, x deny, ? undefined, . not probed%s.
`

// FormatExpected renders computed tables as the content of an expected.txt: a matrix per step and port, which people
// can review. Where all IP families agree there is one matrix for them.
func FormatExpected(scenario string, steps []ExpectedStep) []byte {
	var b bytes.Buffer
	asserted := ""
	for _, step := range steps {
		if slices.ContainsFunc(step.Cells, func(c ExpectedCell) bool { return c.Asserted }) {
			asserted = "; ! a rule decides"
		}
	}
	fmt.Fprintf(&b, expectedHeader, scenario, asserted)
	for _, step := range steps {
		if len(step.Cells) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\nstep: %s\n", plain.Text(step.Name))
		for _, section := range sectionsOf(step.Cells) {
			section.write(&b)
		}
	}
	return b.Bytes()
}

// portSection is a matrix of an expected.txt.
type portSection struct {
	port     int
	protocol model.Protocol
	via      model.Via
	// family is empty for all of them.
	family model.IPFamily
	rows   []model.Endpoint
	cols   []model.Endpoint
	cells  map[[2]model.Endpoint]sectionCell
}

type sectionCell struct {
	verdict  model.Verdict
	asserted bool
}

// sign is what stands in the matrix.
func (c sectionCell) sign() string {
	sign := cmp.Or(signs[c.verdict], undefinedSign)
	if c.asserted {
		sign += assertedMark
	}
	return sign
}

func (s *portSection) title() string {
	t := fmt.Sprintf("%d/%s", s.port, s.protocol)
	if s.via != model.ViaPodIP {
		t += " via " + string(s.via)
	}
	if s.family != "" {
		t += " " + string(s.family)
	}
	return t
}

func (s *portSection) put(from, to model.Endpoint, c sectionCell) {
	if !slices.Contains(s.rows, from) {
		s.rows = append(s.rows, from)
	}
	if !slices.Contains(s.cols, to) {
		s.cols = append(s.cols, to)
	}
	s.cells[[2]model.Endpoint{from, to}] = c
}

// sectionsOf groups cells by port and way, and by family where families differ.
func sectionsOf(cells []ExpectedCell) []*portSection {
	type key struct {
		port     int
		protocol model.Protocol
		via      model.Via
		family   model.IPFamily
	}
	index := map[key]*portSection{}
	var out []*portSection
	for _, c := range cells {
		conn := c.Connection
		k := key{conn.Port, conn.Protocol, conn.Via, conn.IPFamily}
		if index[k] == nil {
			index[k] = &portSection{port: k.port, protocol: k.protocol, via: k.via, family: k.family, cells: map[[2]model.Endpoint]sectionCell{}}
			out = append(out, index[k])
		}
		index[k].put(conn.From, conn.To, sectionCell{c.Verdict, c.Asserted})
	}
	slices.SortStableFunc(out, func(a, b *portSection) int {
		return cmp.Or(cmp.Compare(a.port, b.port), cmp.Compare(a.protocol, b.protocol), cmp.Compare(a.via, b.via), cmp.Compare(a.family, b.family))
	})
	var merged []*portSection
	for i := 0; i < len(out); {
		j := i + 1
		same := true
		for ; j < len(out) && out[j].port == out[i].port && out[j].protocol == out[i].protocol && out[j].via == out[i].via; j++ {
			same = same && sameCells(out[i].cells, out[j].cells)
		}
		if same {
			out[i].family = ""
			merged = append(merged, out[i])
		} else {
			merged = append(merged, out[i:j]...)
		}
		i = j
	}
	return merged
}

func sameCells(a, b map[[2]model.Endpoint]sectionCell) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if b[k] != v {
			return false
		}
	}
	return true
}

func (s *portSection) write(b *bytes.Buffer) {
	first := 0
	for _, from := range s.rows {
		first = max(first, len(from))
	}
	fmt.Fprintf(b, "\n%s\n  %-*s", s.title(), first, "")
	for _, to := range s.cols {
		fmt.Fprintf(b, "  %s", to)
	}
	b.WriteString("\n")
	for _, from := range s.rows {
		line := fmt.Sprintf("  %-*s", first, from)
		for _, to := range s.cols {
			sign := noCellSign
			if v, ok := s.cells[[2]model.Endpoint{from, to}]; ok {
				sign = v.sign()
			}
			line += fmt.Sprintf("  %-*s", len(to), sign)
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
}

// Expected is the content of an expected.txt.
type Expected struct {
	file  string
	cells map[expectedKey]expectedEntry
	steps map[string]bool
}

type expectedKey struct {
	step string
	conn model.Connection // without a family where all families are meant
}

type expectedEntry struct {
	verdict model.Verdict
	line    int
}

// ParseExpected reads an expected.txt. Its error is a [Problems], which quotes nothing of the file: what stands in its
// place may be another one, and its lines a secret.
func ParseExpected(file string, data []byte) (*Expected, error) {
	e := &Expected{file: file, cells: map[expectedKey]expectedEntry{}, steps: map[string]bool{}}
	c := &collector{}
	const fix = "write the file anew from the specification, and review the difference"
	if !utf8.Valid(data) || len(data) > maxExpectedSize {
		c.add(Position{file, 1, 1}, fix, "the file is not a table of expected verdicts")
		return nil, c.problems
	}
	step, section := "", (*portSection)(nil)
	for i, line := range strings.Split(string(data), "\n") {
		at := Position{file, i + 1, 1}
		line = strings.TrimRight(line, " \r")
		name, isStep := strings.CutPrefix(line, "step: ")
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case isStep:
			step, section = name, nil
			if e.steps[step] {
				c.add(at, fix, "the step stands there twice")
			}
			e.steps[step] = true
		case !strings.HasPrefix(line, " "):
			if section = parseTitle(line); section == nil || step == "" {
				c.add(at, fix, "this line is not the title of a table")
				section = nil
			}
		case section == nil:
			c.add(at, fix, "this line belongs to no table")
		case section.cols == nil:
			for _, f := range strings.Fields(line) {
				section.cols = append(section.cols, model.Endpoint(f))
			}
		default:
			e.row(c, at, step, section, strings.Fields(line), fix)
		}
	}
	if len(c.problems) > 0 {
		return nil, c.problems.sorted()
	}
	return e, nil
}

func parseTitle(line string) *portSection {
	words := strings.Fields(line)
	if len(words) == 0 {
		return nil
	}
	number, protocol, ok := strings.Cut(words[0], "/")
	n, err := strconv.Atoi(number)
	if !ok || err != nil || !slices.Contains(protocols, protocol) {
		return nil
	}
	s := &portSection{port: n, protocol: model.Protocol(protocol), via: model.ViaPodIP}
	words = words[1:]
	if len(words) > 1 && words[0] == "via" {
		s.via, words = model.Via(words[1]), words[2:]
	}
	if len(words) > 0 && (words[0] == string(model.IPv4) || words[0] == string(model.IPv6)) {
		s.family, words = model.IPFamily(words[0]), words[1:]
	}
	if len(words) > 0 {
		return nil
	}
	return s
}

func (e *Expected) row(c *collector, at Position, step string, s *portSection, words []string, fix string) {
	if len(words) != len(s.cols)+1 {
		c.add(at, fix, "the row has %s, and the table %s", counted(len(words)-1, "cell"), counted(len(s.cols), "column"))
		return
	}
	for i, sign := range words[1:] {
		if sign == noCellSign {
			continue
		}
		sign, _ = strings.CutSuffix(sign, assertedMark)
		verdict := model.Verdict("")
		for v, known := range signs {
			if known == sign {
				verdict = v
			}
		}
		if verdict == "" {
			c.add(at, "write + for allow, x for deny, ? for undefined, . for no cell", "column %d is not a verdict", i+1)
			continue
		}
		key := expectedKey{step, model.Connection{
			From: model.Endpoint(words[0]), To: s.cols[i], Port: s.port, Protocol: s.protocol, Via: s.via, IPFamily: s.family,
		}}
		if _, twice := e.cells[key]; twice {
			c.add(at, fix, "the cell of column %d stands there twice", i+1)
			continue
		}
		e.cells[key] = expectedEntry{verdict: verdict, line: at.Line}
	}
}

// Difference is a cell in which an expected.txt and the specification disagree.
type Difference struct {
	// Source is file and line of the cell, or the file alone when it has no such cell.
	Source     string
	Step       string
	Connection model.Connection
	// Written is what the file says, Computed what the specification says; empty when one of them has no such cell.
	Written  model.Verdict
	Computed model.Verdict
}

// Error says in one line which cell differs.
func (d Difference) Error() string {
	what := plain.Text(fmt.Sprintf("%s: step %q: %s -> %s %d/%s", d.Source, d.Step, d.Connection.From, d.Connection.To, d.Connection.Port, d.Connection.Protocol))
	if d.Connection.Via != model.ViaPodIP {
		what += " via " + string(d.Connection.Via)
	}
	if d.Connection.IPFamily != "" {
		what += " " + string(d.Connection.IPFamily)
	}
	switch {
	case d.Written == "":
		return what + fmt.Sprintf(": the specification says %s, and the file has no entry for this connection", d.Computed)
	case d.Computed == "":
		return what + fmt.Sprintf(": the file says %s, and there is no such cell", d.Written)
	}
	return what + fmt.Sprintf(": the file says %s, the specification says %s", d.Written, d.Computed)
}

// Differences compares the file with what was computed, in the order of the cells, followed by cells of the file that
// were not computed. Cells of IP families that the run does not have are passed over.
func (e *Expected) Differences(steps []ExpectedStep) (out []Difference) {
	families := map[model.IPFamily]bool{"": true}
	seen := map[expectedKey]bool{}
	for _, step := range steps {
		name := plain.Text(step.Name) // as the file has it
		for _, c := range step.Cells {
			families[c.Connection.IPFamily] = true
			exact := expectedKey{name, c.Connection}
			every := exact
			every.conn.IPFamily = ""
			entry, ok := e.cells[exact]
			if !ok {
				entry, ok = e.cells[every]
			}
			seen[exact], seen[every] = true, true
			d := Difference{Source: e.file, Step: step.Name, Connection: c.Connection, Computed: c.Verdict}
			if ok {
				d.Source, d.Written = fmt.Sprintf("%s:%d", e.file, entry.line), entry.verdict
			}
			if d.Written != d.Computed && !c.Asserted {
				out = append(out, d)
			}
		}
	}
	var stale []expectedKey
	for key := range e.cells {
		if !seen[key] && families[key.conn.IPFamily] {
			stale = append(stale, key)
		}
	}
	slices.SortFunc(stale, func(a, b expectedKey) int {
		return cmp.Or(cmp.Compare(e.cells[a].line, e.cells[b].line), cmp.Compare(a.conn.To, b.conn.To))
	})
	for _, key := range stale {
		entry := e.cells[key]
		out = append(out, Difference{Source: fmt.Sprintf("%s:%d", e.file, entry.line), Step: key.step, Connection: key.conn, Written: entry.verdict})
	}
	return out
}
