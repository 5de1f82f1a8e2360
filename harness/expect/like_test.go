package expect

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/model"
)

// likeBefore isolates b, then lets a in and makes d appear. first and second are what the steps expect.
func likeBefore(first, second string) string {
	return scene([]string{"a", "b", "c"}, "    - name: isolated\n      apply:\n"+policy("b", "b", "")+"      expect: "+first+"\n"+
		"    - name: a may\n      create: {pods: [{name: x/d, labels: {app: d}, ports: [80]}]}\n      apply:\n"+
		policy("a", "b", "{from: [{podSelector: {matchLabels: {app: a}}}]}")+"      expect: "+second+"\n")
}

const isolated = "{default: allow, rules: [{from: \"*\", to: x/b, verdict: deny}]}"

func TestAStepCanExpectWhatTheOneBeforeDid(t *testing.T) {
	for name, first := range map[string]string{"written": isolated, "computed": "computed"} {
		t.Run(name, func(t *testing.T) {
			p, err := Prepare(load(t, likeBefore(first, "{like: previous, default: computed, rules: [{from: x/a, to: x/b, verdict: allow}]}")), two)
			require.NoError(t, err)
			fresh := 0
			for _, c := range p.Scenarios()[0].Table(1).Cells {
				isNew := c.Conn.From == "x/d" || c.Conn.To == "x/d"
				assert.Equal(t, isNew, c.Computed, "%s: only what the step before did not have is computed", c.Conn)
				want := model.Allow
				if c.Conn.To == "x/b" && c.Conn.From != "x/a" {
					want = model.Deny
				}
				assert.Equal(t, want, c.Verdict, "%s", c.Conn)
				if isNew {
					fresh++
				}
			}
			assert.Equal(t, 6, fresh)

			// Without the rule the change is a disagreement, whichever way the step before was said.
			_, err = Prepare(load(t, likeBefore(first, "{like: previous}")), two)
			var d *Disagreement
			require.ErrorAs(t, err, &d)
			assert.Equal(t, "x/a->x/b:80/TCP/IPv4/podIP", d.Connection.String())
			assert.Equal(t, []string{"deny", "allow", "0.scenario.yaml:26"}, []string{d.Written, d.Computed, d.WrittenBy})
			assert.Empty(t, d.Others)
		})
	}
}

func TestTheDefaultBesideLikeIsForNewCells(t *testing.T) {
	_, err := Prepare(load(t, likeBefore(isolated, "{like: previous, default: deny, rules: [{from: x/a, to: x/b, verdict: allow}]}")), two)
	var d *Disagreement
	require.ErrorAs(t, err, &d)
	assert.Equal(t, "x/a->x/d:80/TCP/IPv4/podIP", d.Connection.String())
	assert.Len(t, d.Others, 4, "all that d sends and gets but to b")
}
