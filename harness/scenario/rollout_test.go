package scenario

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/model"
)

// rolledOut is a folder of two policies, with the steps and the intents of netproof.yaml.
func rolledOut(steps string) map[string]string {
	return map[string]string{
		"00-deny.yaml": denyPolicy, "allow/10-web.yaml": "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: web, namespace: x}\nspec: {podSelector: {}, ingress: [{}]}\n",
		"pods.yaml":     twoPods,
		"netproof.yaml": "apiVersion: netproof.dev/v1alpha1\nkind: Assertions\nspec:\n  strangers: []\n  intents: [{allow: {from: x/a, to: x/b}}]\n  steps:\n" + steps,
	}
}

func TestPoliciesAreAppliedStepByStep(t *testing.T) {
	for _, entries := range [][2]string{{"00-deny.yaml", "1*.yaml"}, {"NetworkPolicy/x/deny", "allow/*.yaml"}, {"networkpolicy/x/deny", "allow/10-web.yaml"}} {
		plan, err := mustLoad(t, rolledOut("    - {name: close, apply: ["+entries[0]+"]}\n    - {name: open, apply: [\""+entries[1]+"\"]}\n"))[0].Plan([]model.IPFamily{model.IPv4}, 1)
		require.NoError(t, err)
		require.Len(t, plan.Steps, 3)
		assert.Equal(t, []string{OpenStep, "close", "open"}, []string{plan.Steps[0].Name, plan.Steps[1].Name, plan.Steps[2].Name})
		assert.Len(t, plan.Steps[1].InForce, 1)
		assert.Len(t, plan.Steps[2].InForce, 2)
		for i, step := range plan.Steps {
			for _, c := range step.Cells {
				asserted := c.Expected != ""
				assert.Equal(t, i == 2 && c.Connection.From == "x/a" && c.Connection.To == "x/b", asserted, "intents speak of the last step: %s", c.Connection)
			}
		}
	}
}

func TestStepsOfAFolderAreRefusedWithPlaceAndFix(t *testing.T) {
	for steps, want := range map[string]string{
		"    - {name: close, apply: [00-deny.yaml]}\n":                                                 "netproof.yaml:7:5: no step applies NetworkPolicy x/web",
		"    - {name: close, apply: [00-deny.yaml, 01-deny.yaml]}\n    - {name: b, apply: [\"1*\"]}\n": "no policy of the folder is `01-deny.yaml`, or in a file of that name",
		"    - {name: close, apply: [\"*.yaml\"]}\n    - {name: b, apply: [00-deny.yaml]}\n":           "NetworkPolicy x/deny is applied in step `close` already",
		"    - {name: close, apply: [00-deny.yaml]}\n    - {name: close, apply: [\"1*\"]}\n":           "duplicate step `close`",
		"    - {apply: [\"*.yaml\"]}\n":                                                                "the step has no name",
		"    - {name: before any policy, apply: [\"*.yaml\"]}\n":                                       "the step that comes before all others is called",
		"    - {name: close}\n    - {name: b, apply: [\"*.yaml\"]}\n":                                  "the step applies nothing",
		"    - {name: close, apply: [NetworkPolicy/x/deni]}\n    - {name: b, apply: [\"*.yaml\"]}\n":   "did you mean `NetworkPolicy/x/deny`?",
	} {
		assert.Contains(t, problemsOf(t, rolledOut(steps)).Error(), want, steps)
	}
}
