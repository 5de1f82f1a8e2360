package scenario

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/model"
)

func cell(from, to model.Endpoint, port int, via model.Via, family model.IPFamily, v model.Verdict) ExpectedCell {
	return ExpectedCell{Connection: model.Connection{From: from, To: to, Port: port, Protocol: model.TCP, IPFamily: family, Via: via}, Verdict: v}
}

func exampleTable() []ExpectedStep {
	pod := model.ViaPodIP
	return []ExpectedStep{
		{"before: any policy", []ExpectedCell{
			cell("x/a", "x/b", 80, pod, model.IPv4, model.Allow), cell("x/a", "x/b", 80, pod, model.IPv6, model.Allow),
			cell("x/b", "x/a", 80, pod, model.IPv4, model.Deny), cell("x/b", "x/a", 80, pod, model.IPv6, model.Deny),
		}},
		{"written by hand", nil},
		{"policies", []ExpectedCell{
			cell("x/a", "x/b", 8080, pod, model.IPv4, model.Allow), cell("x/a", "x/b", 8080, pod, model.IPv6, model.Deny),
			cell("node:0", "x/b", 80, pod, model.IPv4, model.Undefined), cell("node:0", "x/b", 80, pod, model.IPv6, model.Undefined),
			cell("x/a", "x/web", 80, model.ViaService, model.IPv4, model.Allow), cell("x/a", "x/web", 80, model.ViaService, model.IPv6, model.Allow),
		}},
	}
}

const exampleText = `# What the specification expects of scenario shop.
# Written by netproof, reviewed by people, compared on every run.
# Rows connect to columns: + allow, x deny, ? undefined, . not probed.

step: before: any policy

80/TCP
       x/b  x/a
  x/a  +    .
  x/b  .    x

step: policies

80/TCP
          x/b
  node:0  ?

80/TCP via service
       x/web
  x/a  +

8080/TCP IPv4
       x/b
  x/a  +

8080/TCP IPv6
       x/b
  x/a  x
`

func TestTheComputedTableIsWrittenForPeople(t *testing.T) {
	assert.Equal(t, exampleText, string(FormatExpected("shop", exampleTable())))
}

func TestTheComputedTableIsReadBack(t *testing.T) {
	e, err := ParseExpected("expected.txt", []byte(exampleText))
	require.NoError(t, err)
	assert.Empty(t, e.Differences(exampleTable()))
}

func TestARunWithFewerFamiliesIsComparedAsFarAsItGoes(t *testing.T) {
	steps := exampleTable()
	for i := range steps {
		var kept []ExpectedCell
		for _, c := range steps[i].Cells {
			if c.Connection.IPFamily == model.IPv4 {
				kept = append(kept, c)
			}
		}
		steps[i].Cells = kept
	}
	e, err := ParseExpected("expected.txt", []byte(exampleText))
	require.NoError(t, err)
	assert.Empty(t, e.Differences(steps))
	e, err = ParseExpected("expected.txt", FormatExpected("shop", steps))
	require.NoError(t, err)
	assert.Len(t, e.Differences(exampleTable()), 1, "only the cell in which the families differ")
}

func TestDifferencesNameTheCellAndTheLine(t *testing.T) {
	steps := exampleTable()
	steps[0].Cells[0].Verdict = model.Deny
	steps[0].Cells = append(steps[0].Cells, cell("y/a", "x/b", 80, model.ViaPodIP, model.IPv4, model.Allow))
	steps[2].Cells = steps[2].Cells[:4]
	e, err := ParseExpected("expected.txt", []byte(exampleText))
	require.NoError(t, err)
	var have []string
	for _, d := range e.Differences(steps) {
		have = append(have, d.Error())
	}
	assert.Equal(t, []string{
		`expected.txt:9: step "before: any policy": x/a -> x/b 80/TCP IPv4: the file says allow, the specification says deny`,
		`expected.txt: step "before: any policy": y/a -> x/b 80/TCP IPv4: the specification says allow, and the file has no entry for this connection`,
		`expected.txt:20: step "policies": x/a -> x/web 80/TCP via service: the file says allow, and there is no such cell`,
	}, have)
}

func TestAComputedTableThatIsNoneIsRefusedWithPlaces(t *testing.T) {
	_, err := ParseExpected("expected.txt", []byte("80/TCP\n  a\nstep: s\n  a b\n80/TPC\n80/TCP\n       x/a  x/b\n  x/a  +\n  x/b  +  y\n  x/b  -  +\n\nstep: s\n"))
	var problems Problems
	require.True(t, errors.As(err, &problems))
	var lines []int
	for _, p := range problems {
		lines = append(lines, p.Line)
	}
	assert.Equal(t, []int{1, 2, 4, 5, 8, 9, 10, 12}, lines)
	_, err = ParseExpected("expected.txt", []byte{0xff})
	require.Error(t, err)
}

func FuzzParseExpected(f *testing.F) {
	f.Add([]byte(exampleText))
	f.Add([]byte("step: s\n80/TCP via x IPv4\n  a\n  b +\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := ParseExpected("expected.txt", data)
		if err != nil {
			return
		}
		e.Differences(exampleTable())
	})
}

func TestCellsThatARuleDecidesAreShownAndNotCompared(t *testing.T) {
	computed := cell("x/a", "x/b", 80, model.ViaPodIP, model.IPv4, model.Allow)
	asserted := cell("x/b", "x/a", 80, model.ViaPodIP, model.IPv4, model.Deny)
	asserted.Asserted = true
	steps := []ExpectedStep{{Name: "policies", Cells: []ExpectedCell{computed, asserted}}}
	text := FormatExpected("shop", steps)
	assert.Contains(t, string(text), "? undefined, . not probed; ! a rule decides.\n")
	assert.Contains(t, string(text), "  x/b  .    x!\n")
	e, err := ParseExpected("expected.txt", text)
	require.NoError(t, err)
	assert.Empty(t, e.Differences(steps))

	steps[0].Cells[1].Verdict = model.Allow
	assert.Empty(t, e.Differences(steps), "netproof.yaml itself was changed")
	steps[0].Cells[1].Asserted = false
	differences := e.Differences(steps)
	require.Len(t, differences, 1, "the rule is gone, and the policies give another verdict")
	assert.Equal(t, model.Deny, differences[0].Written)

	e, err = ParseExpected("expected.txt", FormatExpected("shop", []ExpectedStep{{Name: "policies", Cells: []ExpectedCell{computed}}}))
	require.NoError(t, err)
	assert.Empty(t, e.Differences([]ExpectedStep{{Name: "policies", Cells: []ExpectedCell{computed, asserted}}}), "files of before have no such cells")
}
