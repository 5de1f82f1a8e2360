package scenario

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/model"
)

// stages is a folder of three stages with two workloads each, and monitoring.
func stages(intents string) map[string]string {
	var b strings.Builder
	for _, ns := range []string{"dev", "test", "prod", "monitoring"} {
		b.WriteString("apiVersion: v1\nkind: Namespace\nmetadata: {name: " + ns + ", labels: {stage: " + strings.ReplaceAll(ns, "test", "dev") + "}}\n---\n")
		b.WriteString("apiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: " + ns + ", labels: {app: web}}\nspec: {containers: [{name: c, image: i, ports: [{containerPort: 80}]}]}\n---\n")
	}
	b.WriteString("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: closed, namespace: prod}\nspec: {podSelector: {}}\n")
	return map[string]string{
		"all.yaml":      b.String(),
		"netproof.yaml": "apiVersion: netproof.dev/v1alpha1\nkind: Assertions\nspec:\n  strangers: []\n  intents:\n" + intents,
	}
}

// decided are the cells that intents decide, as "from to verdict line".
func decided(t *testing.T, files map[string]string) (out []string) {
	t.Helper()
	plan, err := mustLoad(t, files)[0].Plan([]model.IPFamily{model.IPv4}, 1)
	require.NoError(t, err)
	for _, c := range plan.Steps[1].Cells {
		if c.Expected != "" {
			_, line, _ := strings.Cut(c.Rule, ":")
			out = append(out, strings.Join([]string{string(c.Connection.From), string(c.Connection.To), string(c.Expected), line}, " "))
		}
	}
	return out
}

func TestIntentsAreJudgedEachOnItsOwn(t *testing.T) {
	assert.ElementsMatch(t, []string{"dev/web prod/web deny 6", "test/web prod/web deny 6", "monitoring/web prod/web allow 7"},
		decided(t, stages("    - deny: {from: \"*\", to: prod/web, except: [\"monitoring/*\"]}\n    - allow: {from: monitoring/web, to: prod/web}\n")))
	assert.ElementsMatch(t, []string{"dev/web prod/web deny 6", "prod/web dev/web deny 6"}, decided(t, stages("    - isolate: {namespaces: [dev, prod]}\n")))
	assert.ElementsMatch(t, []string{
		"dev/web prod/web deny 6", "test/web prod/web deny 6", "prod/web dev/web deny 6", "prod/web test/web deny 6",
		"dev/web monitoring/web deny 6", "test/web monitoring/web deny 6", "prod/web monitoring/web deny 6",
	}, decided(t, stages("    - isolate: {label: stage, except: [\"monitoring/*\"]}\n")), "dev and test are one group")
	assert.ElementsMatch(t, []string{"dev/web prod/web deny 6"}, decided(t, stages("    - deny: {from: dev/web, to: prod/web, by: ingress}\n    - deny: {from: dev/*, to: prod/*}\n")),
		"two that want the same are both right")
}

func TestIntentsThatContradictEachOtherNameBothLines(t *testing.T) {
	for _, order := range [][2]string{
		{"    - deny: {from: \"*\", to: prod/web}\n", "    - allow: {from: dev/web, to: prod/web}\n"},
		{"    - allow: {from: dev/web, to: prod/web}\n", "    - deny: {from: \"*\", to: prod/web}\n"},
		{"    - isolate: {label: stage}\n", "    - allow: {from: dev/web, to: prod/web}\n"},
	} {
		problems := problemsOf(t, stages(order[0]+order[1]))
		require.Len(t, problems, 1, "%v", problems)
		assert.Contains(t, problems[0].Error(), "netproof.yaml:7:7: it contradicts netproof.yaml:6: of dev/web->prod/web:80/TCP/IPv4/podIP one wants ")
		assert.Contains(t, problems[0].Fix, "except")
	}
	files := stages("    - deny: {from: \"*\", to: prod/web}\n")
	files["netproof.yaml"] += "  rules: [{from: dev/web, to: prod/web, verdict: allow}]\n"
	assert.Contains(t, problemsOf(t, files)[0].Error(), "it contradicts netproof.yaml:6", "rules of a folder have no order either")
}

func TestIntentsAreRefusedWithPlaceAndFix(t *testing.T) {
	for intent, want := range map[string]string{
		"{allow: {from: dev/web, to: prod/web}, deny: {from: dev/web, to: test/web}}": "netproof.yaml:6:7: an intent says one thing, and this one says 2",
		"{}":                                    "netproof.yaml:6:7: an intent says one thing, and this one says 0",
		"{deny: {from: dev/web}}":               "`to` is missing",
		"{deny: {from: dev/web, to: prod/wbe}}": "there is no pod `prod/wbe`",
		"{allow: {from: dev/web, to: prod/web, by: both}}": "`by` says which side refuses, and the intent does not deny",
		"{deny: {from: dev/web, to: prod/web, by: me}}":    "\"me\" is not a side of a connection",
		"{isolate: {}}":                                          "groups of namespaces are said by their names or by a label",
		"{isolate: {namespaces: [dev]}}":                         "one group is apart from nobody",
		"{isolate: {namespaces: [dev, prd]}}":                    "netproof.yaml:6:36: no namespace of the folder is `prd`",
		"{isolate: {label: team}}":                               "there are no two groups of namespaces: the label `team` has 0 values",
		"{deny: {from: dev/web, to: prod/web, except: [x]}}":     "\"x\" is not a pattern",
		"{deny: {from: \"*\", to: prod/web, except: [dev/wbe]}}": "there is no pod `dev/wbe`: the rule excepts nobody by it",
		"{refuse: {from: dev/web, to: prod/web}}":                "unknown key `refuse`",
	} {
		assert.Contains(t, problemsOf(t, stages("    - "+intent+"\n")).Error(), want, intent)
	}
}
