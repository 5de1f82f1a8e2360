package expect

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/scenario"
)

// calico is a scenario in which an object of Calico's is in force in the second step of three. delete is how a step
// names it.
func calico(kind, metadata, delete, rules string) string {
	return `apiVersion: netproof.dev/v1alpha1
kind: Scenario
metadata: {name: beside}
spec:
  topology:
    namespaces: [{name: x}, {name: z}]
    pods:
      - {name: x/a, ports: [80/TCP]}
      - {name: x/b, ports: [80/TCP]}
      - {name: z/c, labels: {app: c}, ports: [80/TCP]}
    services: [{name: z/web, selector: {app: c}, ports: [80/TCP]}]
  steps:
    - {name: open, expect: computed}
    - name: beside
      apply:
        - {apiVersion: projectcalico.org/v3, kind: ` + kind + `, metadata: {` + metadata + `}, spec: {}}
      expect: {default: computed, rules: [` + rules + `]}
    - {name: gone, delete: [` + delete + `], expect: computed}
`
}

// inZ is a policy that selects pods of namespace z.
func inZ(rules string) string {
	return calico("NetworkPolicy", "name: p, namespace: z", "NetworkPolicy/z/p", rules)
}

// global is an object of the cluster's scope.
func global(kind string) string { return calico(kind, "name: p", kind+"/p", "") }

// scene is a scenario of pods in namespace x that serve port 80, each with its name as label app, and of steps.
func scene(pods []string, steps string) string {
	text := `apiVersion: netproof.dev/v1alpha1
kind: Scenario
metadata: {name: scene}
spec:
  topology:
    namespaces: [{name: x}]
    pods:
`
	for _, name := range pods {
		text += fmt.Sprintf("      - {name: x/%[1]s, labels: {app: %[1]s}, ports: [80]}\n", name)
	}
	return text + "  steps:\n" + steps
}

// policy is one for ingress of a pod of a scene, as a step applies it.
func policy(name, pod, ingress string) string {
	return fmt.Sprintf(`        - apiVersion: networking.k8s.io/v1
          kind: NetworkPolicy
          metadata: {name: %s, namespace: x}
          spec: {podSelector: {matchLabels: {app: %s}}, policyTypes: [Ingress], ingress: [%s]}
`, name, pod, ingress)
}

// two is a cluster of two nodes.
var two = Options{Families: []model.IPFamily{model.IPv4}, Nodes: 2}

func load(t *testing.T, text string) []*scenario.Scenario {
	t.Helper()
	files := fstest.MapFS{"0.scenario.yaml": {Data: []byte(text)}}
	list, err := scenario.Load(t.Context(), []string{"0.scenario.yaml"}, scenario.Options{FS: files})
	require.NoError(t, err)
	return list
}

// second is the second step of a scenario, and what is expected there.
func second(t *testing.T, text string) ([]Cell, []scenario.PlannedCell) {
	t.Helper()
	prepared, err := Prepare(load(t, text), two)
	require.NoError(t, err)
	p := prepared.Scenarios()[0]
	return p.Table(1).Cells, p.Plan().Steps[1].Cells
}

func TestWhatAnotherKindMayDecideIsExpectedAsWritten(t *testing.T) {
	list, cells := second(t, inZ(`{from: "z/*", to: "*", verdict: deny}, {from: "*", to: "z/*", verdict: deny}`))
	for i, cell := range cells {
		c := cell.Connection
		if strings.HasPrefix(string(c.From), "z/") || strings.HasPrefix(string(c.To), "z/") {
			assert.Equal(t, model.Deny, list[i].Verdict, c)
			assert.Equal(t, "it is written at "+cell.Rule+", and the specification of NetworkPolicy says nothing about projectcalico.org NetworkPolicy z/p (0.scenario.yaml:16)",
				list[i].Summary())
			continue
		}
		// What the policy cannot decide is computed, and told as always.
		assert.Equal(t, model.Allow, list[i].Verdict, c)
		assert.Contains(t, list[i].Summary(), "no policy isolates")
	}

	// Objects that decide nothing leave everything to the specification.
	list, _ = second(t, global("StagedGlobalNetworkPolicy"))
	for _, e := range list {
		assert.Equal(t, model.Allow, e.Verdict)
	}
}

func TestWhatTheTableSaysOfOtherNamespacesIsStillCompared(t *testing.T) {
	_, err := Prepare(load(t, inZ(`{from: "*", to: "*", verdict: deny}`)), two)
	var disagreement *Disagreement
	require.ErrorAs(t, err, &disagreement)
	assert.Contains(t, err.Error(), "x/a->x/b")
	assert.NotContains(t, err.Error(), "z/c")
}

func TestWhatCannotBeComputedIsSaidOncePerScenario(t *testing.T) {
	_, err := Prepare(load(t, global("GlobalNetworkPolicy")), two)
	var unjudged *UnjudgedError
	require.ErrorAs(t, err, &unjudged)
	assert.Len(t, unjudged.Connections, 6)
	assert.Equal(t, `0.scenario.yaml: scenario beside, step "beside": the verdicts of 6 cells cannot be computed, such as that of `+
		`x/a->x/b:80/TCP/IPv4/podIP: the specification of NetworkPolicy says nothing about projectcalico.org GlobalNetworkPolicy p (0.scenario.yaml:16)`+
		"\n    fix: write them into `expect` of the step, such as `{from: \"x/a\", to: \"x/b\", verdict: deny}`", err.Error())
	assert.True(t, IsInputError(err))
}

func TestExplainGivesNoVerdictWhereAnotherKindMayDecide(t *testing.T) {
	ask := func(text string, from, to model.Endpoint) (unjudged []int) {
		t.Helper()
		answers, err := Explain(load(t, text)[0], Question{From: from, To: to, Port: "80", Families: []model.IPFamily{model.IPv4, model.IPv6}, Nodes: 2})
		require.NoError(t, err)
		for _, a := range answers {
			unjudged = append(unjudged, len(a.Unjudged))
			assert.Len(t, a.Connections, 2)
			if len(a.Unjudged) > 0 {
				assert.Empty(t, a.Decisions, "a verdict beside a policy that cannot be judged")
			} else {
				assert.Len(t, a.Decisions, 2)
			}
		}
		return unjudged
	}
	never, once := []int{0, 0, 0}, []int{0, 1, 0}
	assert.Equal(t, once, ask(global("GlobalNetworkPolicy"), "x/a", "x/b"))
	assert.Equal(t, once, ask(global("GlobalNetworkPolicy"), "node:0", "x/b"))
	assert.Equal(t, never, ask(inZ(""), "x/a", "x/b"))
	assert.Equal(t, once, ask(inZ(""), "x/a", "z/c"))
	assert.Equal(t, once, ask(inZ(""), "x/a", "z/web"), "a service leads to pods of its namespace")
	assert.Equal(t, once, ask(inZ(""), "z/c", "x/a"))
	assert.Equal(t, never, ask(inZ(""), "node:1", "x/a"))
	assert.Equal(t, never, ask(global("GlobalNetworkSet"), "x/a", "z/c"))
}
