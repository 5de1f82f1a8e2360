package scenario

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/policy"
)

var v4 = []model.IPFamily{model.IPv4}

// story is a scenario with a topology to play on and the steps that a test gives.
func story(steps string) map[string]string {
	return map[string]string{
		"scenario.yaml": `apiVersion: netproof.dev/v1alpha1
kind: Scenario
metadata: {name: story}
spec:
  topology:
    namespaces:
      - {name: x, labels: {team: blue}}
      - {name: "y"}
    pods:
      - {name: x/a, node: 0, labels: {app: web}, ports: [80/TCP, {name: metrics, port: 9090}]}
      - {name: x/b, node: 1, labels: {app: db}, ports: [80/TCP]}
      - {name: y/a, labels: {app: web}, ports: [80/TCP]}
    services:
      - {name: x/web, selector: {app: web}, ports: [{port: 8080, targetPort: 80}], type: NodePort}
      - {name: x/db, selector: {app: db}, ports: [80]}
    hosts:
      - {name: ledger, ports: [8443/TCP]}
` + steps,
		"deny.yaml":  denyPolicy,
		"other.yaml": strings.Replace(denyPolicy, "podSelector: {}", "podSelector: {matchLabels: {app: db}}", 1),
	}
}

func planOf(t *testing.T, contents map[string]string, families []model.IPFamily, nodes int) *Plan {
	t.Helper()
	plan, err := mustLoad(t, contents)[0].Plan(families, nodes)
	require.NoError(t, err)
	return plan
}

func changesOf(step PlannedStep) (out []string) {
	for _, c := range step.Changes {
		out = append(out, c.String())
	}
	return out
}

func cellsOf(step PlannedStep) (out []string) {
	for _, c := range step.Cells {
		text := c.Connection.String() + " " + string(c.Expected)
		if c.By != "" {
			text += " by " + string(c.By)
		}
		out = append(out, text)
	}
	return out
}

func forceOf(step PlannedStep) (out []string) {
	for _, a := range step.InForce {
		out = append(out, a.Object.GetName()+" of "+a.Source.File)
	}
	return out
}

func TestChangesOfAStepAreMadeInAFixedOrder(t *testing.T) {
	plan := planOf(t, story(`  steps:
    - {name: first, apply: [deny.yaml], expect: computed}
    - name: everything at once
      expect: computed
      apply: [{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: second, namespace: "y"}, spec: {podSelector: {}}}]
      delete: [networkpolicy/x/deny]
      label: {namespaces: {x: {team: red}}, pods: {x/a: {app: null, tier: front}}}
      create: {pods: [{name: x/c}, {name: x/b, node: 0, ports: [81/UDP]}]}
      remove: {pods: [x/b]}
`), v4, 2)
	assert.Equal(t, []string{"apply NetworkPolicy x/deny (deny.yaml:1)"}, changesOf(plan.Steps[0]))
	assert.Equal(t, []string{
		"remove pods x/b",
		"create pods x/c, x/b",
		"label pod x/a tier=front",
		"label namespace x kubernetes.io/metadata.name=x,team=red",
		"delete NetworkPolicy x/deny",
		"apply NetworkPolicy y/second (scenario.yaml:22)",
	}, changesOf(plan.Steps[1]))
}

func TestApplyReplacesAPolicyOfTheSameName(t *testing.T) {
	plan := planOf(t, story(`  steps:
    - {name: one, apply: [deny.yaml], expect: computed}
    - {name: two, apply: [other.yaml], expect: computed}
    - {name: three, delete: [NetworkPolicy.networking.k8s.io/x/deny], expect: computed}
`), v4, 2)
	assert.Equal(t, []string{"deny of deny.yaml"}, forceOf(plan.Steps[0]))
	assert.Equal(t, []string{"deny of other.yaml"}, forceOf(plan.Steps[1]))
	assert.Equal(t, map[string]string{"app": "db"}, plan.Steps[1].InForce[0].Policy.Spec.PodSelector.MatchLabels)
	assert.Equal(t, DeleteObject{policy.Ref{Kind: policy.NetworkPolicy, Namespace: "x", Name: "deny"}}, plan.Steps[2].Changes[0])
	assert.Empty(t, plan.Steps[2].InForce)
	assert.Empty(t, plan.Vacuous)
}

func TestDeleteAsksForTheGroupWhereAKindIsAmbiguous(t *testing.T) {
	calico := `{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: deny, namespace: x}, spec: {}}`
	steps := `  steps:
    - {name: one, apply: [deny.yaml, ` + calico + `], expect: {default: allow}}
    - {name: two, delete: [NetworkPolicy%s/x/deny], expect: {default: allow}}
`
	problems := problemsOf(t, story(fmt.Sprintf(steps, "")))
	require.Len(t, problems, 1)
	assert.Equal(t, "write NetworkPolicy.GROUP/x/deny", problems[0].Fix)
	plan := planOf(t, story(fmt.Sprintf(steps, ".projectcalico.org")), v4, 2)
	assert.Equal(t, []string{"deny of deny.yaml"}, forceOf(plan.Steps[1]))
}

func TestLabelsChangeFromTheirStepOn(t *testing.T) {
	plan := planOf(t, story(`  steps:
    - {name: one, expect: computed}
    - {name: two, label: {pods: {x/a: {app: null, tier: front}}, namespaces: {"y": {team: red}}}, expect: computed}
    - {name: three, expect: computed}
`), v4, 2)
	labels := func(i int) (pod, namespace model.Labels) {
		topology := plan.Steps[i].Topology
		p, _ := topology.Pod("x/a")
		ns, _ := topology.Namespace("y")
		return p.Labels, ns.Labels
	}
	pod, ns := labels(0)
	assert.Equal(t, model.Labels{"app": "web"}, pod)
	assert.Equal(t, model.Labels{"kubernetes.io/metadata.name": "y"}, ns)
	for _, i := range []int{1, 2} {
		pod, ns = labels(i)
		assert.Equal(t, model.Labels{"tier": "front"}, pod)
		assert.Equal(t, model.Labels{"kubernetes.io/metadata.name": "y", "team": "red"}, ns)
	}
	initial, _ := plan.Initial.Pod("x/a")
	assert.Equal(t, model.Labels{"app": "web"}, initial.Labels, "what was before is left as it was")
}

func TestPodsComeAndGo(t *testing.T) {
	plan := planOf(t, story(`  steps:
    - {name: gone, remove: {pods: [x/a]}, expect: computed}
    - {name: back, create: {pods: [{name: x/a, node: 1, hostNetwork: true, labels: {app: cache}, ports: [8080]}]}, expect: computed}
`), v4, 2)
	pods := func(topology model.Topology) (out []model.Endpoint) {
		for _, p := range topology.Pods {
			out = append(out, p.Endpoint())
		}
		return out
	}
	assert.Equal(t, []model.Endpoint{"x/a", "x/b", "y/a"}, pods(plan.Initial))
	assert.Equal(t, []model.Endpoint{"x/b", "y/a"}, pods(plan.Steps[0].Topology))
	assert.Equal(t, []string{"x/b->y/a:80/TCP/IPv4/podIP ", "y/a->x/b:80/TCP/IPv4/podIP "}, cellsOf(plan.Steps[0]))
	assert.Equal(t, []model.Endpoint{"x/a", "x/b", "y/a"}, pods(plan.Steps[1].Topology), "a pod that comes back takes its place in tables")
	assert.Equal(t, []Change{CreatePods{[]model.Pod{{
		Namespace: "x", Name: "a", Node: 1, HostNetwork: true, Labels: model.Labels{"app": "cache"},
		Ports: []model.Port{{Number: 8080, Protocol: model.TCP}},
	}}}}, plan.Steps[1].Changes)
}

func TestWithoutProbesEveryPodTriesEveryOtherOnAllItServes(t *testing.T) {
	plan := planOf(t, story("  steps: [{name: open, expect: {default: allow}}]\n"), []model.IPFamily{model.IPv4, model.IPv6}, 2)
	assert.Equal(t, []string{
		"x/a->x/b:80/TCP/IPv4/podIP allow", "x/a->x/b:80/TCP/IPv6/podIP allow",
		"x/a->y/a:80/TCP/IPv4/podIP allow", "x/a->y/a:80/TCP/IPv6/podIP allow",
		"x/b->x/a:80/TCP/IPv4/podIP allow", "x/b->x/a:80/TCP/IPv6/podIP allow",
		"x/b->x/a:9090/TCP/IPv4/podIP allow", "x/b->x/a:9090/TCP/IPv6/podIP allow",
		"x/b->y/a:80/TCP/IPv4/podIP allow", "x/b->y/a:80/TCP/IPv6/podIP allow",
		"y/a->x/a:80/TCP/IPv4/podIP allow", "y/a->x/a:80/TCP/IPv6/podIP allow",
		"y/a->x/a:9090/TCP/IPv4/podIP allow", "y/a->x/a:9090/TCP/IPv6/podIP allow",
		"y/a->x/b:80/TCP/IPv4/podIP allow", "y/a->x/b:80/TCP/IPv6/podIP allow",
	}, cellsOf(plan.Steps[0]))
	assert.Equal(t, "scenario.yaml:18", plan.Steps[0].Cells[0].Rule)
}

func TestProbesSelectCellsInTheOrderOfTheTopology(t *testing.T) {
	for name, tc := range map[string]struct {
		probes string
		want   []string
	}{
		"a pair":                     {`{from: x/a, to: x/b}`, []string{"x/a->x/b:80/TCP/IPv4/podIP"}},
		"a pod to itself":            {`{from: x/b, to: x/b}`, []string{"x/b->x/b:80/TCP/IPv4/podIP"}},
		"all others":                 {`{from: "*", to: x/b}`, []string{"x/a->x/b:80/TCP/IPv4/podIP", "y/a->x/b:80/TCP/IPv4/podIP"}},
		"a namespace":                {`{from: y/a, to: "x/*", ports: [80]}`, []string{"y/a->x/a:80/TCP/IPv4/podIP", "y/a->x/b:80/TCP/IPv4/podIP"}},
		"a name everywhere":          {`{from: "*/a", to: x/b}`, []string{"x/a->x/b:80/TCP/IPv4/podIP", "y/a->x/b:80/TCP/IPv4/podIP"}},
		"labels":                     {`{from: "label:app in (db)", to: "label:app=web", ports: [80]}`, []string{"x/b->x/a:80/TCP/IPv4/podIP", "x/b->y/a:80/TCP/IPv4/podIP"}},
		"a named port":               {`{from: "*", to: "*", ports: [metrics]}`, []string{"x/b->x/a:9090/TCP/IPv4/podIP", "y/a->x/a:9090/TCP/IPv4/podIP"}},
		"a named port and protocol":  {`{from: x/b, to: "*", ports: [metrics/TCP, {port: 80}]}`, []string{"x/b->x/a:80/TCP/IPv4/podIP", "x/b->x/a:9090/TCP/IPv4/podIP", "x/b->y/a:80/TCP/IPv4/podIP"}},
		"a node":                     {`{from: "node:1", to: x/b}`, []string{"node:1->x/b:80/TCP/IPv4/podIP"}},
		"a host as destination":      {`{from: x/b, to: "host:ledger"}`, []string{"x/b->host:ledger:8443/TCP/IPv4/podIP"}},
		"a host as source":           {`{from: "host:*", to: x/b}`, []string{"host:ledger->x/b:80/TCP/IPv4/podIP"}},
		"a service by name":          {`{from: x/b, to: x/web, via: service}`, []string{"x/b->x/web:8080/TCP/IPv4/service"}},
		"a service by its pod":       {`{from: y/a, to: x/a, via: service}`, []string{"y/a->x/web:8080/TCP/IPv4/service"}},
		"a service by a pod's label": {`{from: y/a, to: "label:app=db", via: service}`, []string{"y/a->x/db:80/TCP/IPv4/service"}},
		"all services":               {`{from: y/a, to: "*", via: service}`, []string{"y/a->x/web:8080/TCP/IPv4/service", "y/a->x/db:80/TCP/IPv4/service"}},
		"node ports":                 {`{from: "host:ledger", to: "x/*", via: nodePort}`, []string{"host:ledger->x/web:8080/TCP/IPv4/nodePort"}},
		"the same twice":             {`{from: "*", to: x/b}, {from: x/a, to: "*", ports: [80]}`, []string{"x/a->x/b:80/TCP/IPv4/podIP", "x/a->y/a:80/TCP/IPv4/podIP", "y/a->x/b:80/TCP/IPv4/podIP"}},
	} {
		t.Run(name, func(t *testing.T) {
			plan := planOf(t, story("  probes: ["+tc.probes+"]\n  steps: [{name: s, expect: computed}]\n"), v4, 2)
			var have []string
			for _, c := range plan.Steps[0].Cells {
				have = append(have, c.Connection.String())
			}
			assert.Equal(t, tc.want, have)
		})
	}
}

func TestAStepMayHaveProbesOfItsOwn(t *testing.T) {
	plan := planOf(t, story(`  probes: [{from: x/a, to: x/b}]
  steps:
    - {name: one, expect: {default: allow}}
    - {name: two, probes: [{from: y/a, to: x/b}], expect: {default: allow}}
    - {name: three, expect: {default: allow}}
`), v4, 2)
	assert.Equal(t, []string{"x/a->x/b:80/TCP/IPv4/podIP allow"}, cellsOf(plan.Steps[0]))
	assert.Equal(t, []string{"y/a->x/b:80/TCP/IPv4/podIP allow"}, cellsOf(plan.Steps[1]))
	assert.Equal(t, []string{"x/a->x/b:80/TCP/IPv4/podIP allow"}, cellsOf(plan.Steps[2]))
}

func TestAProbeMayWaitForItsPod(t *testing.T) {
	plan := planOf(t, story(`  probes: [{from: x/a, to: x/b}, {from: x/c, to: x/b}]
  steps:
    - {name: one, expect: {default: allow}}
    - {name: two, create: {pods: [{name: x/c}]}, expect: {default: allow}}
`), v4, 2)
	assert.Len(t, plan.Steps[0].Cells, 1)
	assert.Len(t, plan.Steps[1].Cells, 2)
}

func TestTheLastRuleThatMatchesDecides(t *testing.T) {
	plan := planOf(t, story(`  probes: [{from: "*", to: x/a}, {from: y/a, to: x/a, via: service}, {from: "node:0", to: x/a, ports: [80]}]
  steps:
    - name: s
      expect:
        default: allow
        rules:
          - {from: "*", to: x/a, verdict: deny}
          - {from: x/b, to: x/a, ports: [metrics], verdict: deny, by: ingress}
          - {from: y/a, to: x/web, via: service, verdict: undefined}
`), v4, 2)
	assert.Equal(t, []string{
		"x/b->x/a:80/TCP/IPv4/podIP deny",
		"x/b->x/a:9090/TCP/IPv4/podIP deny by ingress",
		"y/a->x/a:80/TCP/IPv4/podIP deny",
		"y/a->x/a:9090/TCP/IPv4/podIP deny",
		"y/a->x/web:8080/TCP/IPv4/service undefined",
		"node:0->x/a:80/TCP/IPv4/podIP allow", // "*" is every pod, and a node is none
	}, cellsOf(plan.Steps[0]))
	assert.Equal(t, "scenario.yaml:24", plan.Steps[0].Cells[0].Rule)
	assert.Equal(t, "scenario.yaml:25", plan.Steps[0].Cells[1].Rule)
	assert.Equal(t, "scenario.yaml:22", plan.Steps[0].Cells[5].Rule)
	assert.False(t, plan.Steps[0].Computed)
}

func TestARuleForAPodCoversTheServiceInFrontOfIt(t *testing.T) {
	plan := planOf(t, story(`  probes: [{from: y/a, to: "*", via: service}]
  steps: [{name: s, expect: {default: allow, rules: [{from: "*", to: x/a, verdict: deny}]}}]
`), v4, 2)
	assert.Equal(t, []string{"y/a->x/web:8080/TCP/IPv4/service deny", "y/a->x/db:80/TCP/IPv4/service allow"}, cellsOf(plan.Steps[0]))
}

func TestTheDefaultMayBeComputedAndRulesWritten(t *testing.T) {
	plan := planOf(t, story(`  probes: [{from: "*", to: x/b}]
  steps: [{name: s, expect: {default: computed, rules: [{from: x/a, to: x/b, verdict: allow}]}}]
`), v4, 2)
	assert.Equal(t, []string{"x/a->x/b:80/TCP/IPv4/podIP allow", "y/a->x/b:80/TCP/IPv4/podIP "}, cellsOf(plan.Steps[0]))
	assert.True(t, plan.Steps[0].Computed)
}

func TestPodsWithoutANodeAreSpreadOnceTheNodesAreKnown(t *testing.T) {
	contents := story("  steps: [{name: s, create: {pods: [{name: x/c}, {name: x/d}]}, expect: computed}]\n")
	nodesOf := func(topology model.Topology) (out []int) {
		for _, p := range topology.Pods {
			out = append(out, p.Node)
		}
		return out
	}
	assert.Equal(t, []int{0, 1, 0, 1, 0}, nodesOf(planOf(t, contents, v4, 2).Steps[0].Topology))
	assert.Equal(t, []int{0, 1, 2, 0, 1}, nodesOf(planOf(t, contents, v4, 3).Steps[0].Topology))
	assert.Equal(t, []int{0, 1, -1, -1, -1}, nodesOf(planOf(t, contents, v4, 0).Steps[0].Topology))
	assert.Len(t, planOf(t, contents, v4, 3).Initial.Nodes, 3)
}

func TestHostNetworkPodsAvoidEachOthersPorts(t *testing.T) {
	text := strings.Replace(minimal, "      - {name: x/b, ports: [80/TCP]}", `      - {name: x/b, hostNetwork: true, ports: [18080]}
      - {name: x/c}
      - {name: x/d, hostNetwork: true, ports: [18080]}`, 1)
	contents := map[string]string{"scenario.yaml": text}
	plan := planOf(t, contents, v4, 2)
	b, _ := plan.Initial.Pod("x/b")
	d, _ := plan.Initial.Pod("x/d")
	assert.NotEqual(t, b.Node, d.Node)

	_, err := mustLoad(t, contents)[0].Plan(v4, 1)
	var problems Problems
	require.True(t, errors.As(err, &problems))
	assert.Contains(t, problems[0].Error(), "scenario.yaml:12:9: there is no node left where the hostNetwork pod x/d can have its ports")
}

func TestAScenarioThatNeedsMoreNodesIsRefusedWithThePlaces(t *testing.T) {
	contents := story(`  probes: [{from: "node:3", to: x/b}]
  steps:
    - name: s
      create: {pods: [{name: x/c, node: 2}]}
      apply:
        - {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: x}, spec: {ingress: [{from: [{ipBlock: {cidr: "$(cidr:node:4)"}}]}]}}
      expect: computed
`)
	s := mustLoad(t, contents)[0]
	assert.Equal(t, 4, s.MaxNode())
	_, err := s.Plan(v4, 5)
	require.NoError(t, err)
	_, err = s.Plan(v4, 1)
	var problems Problems
	require.True(t, errors.As(err, &problems))
	var have []string
	for _, p := range problems {
		have = append(have, p.Position().String()+" "+p.Fix)
	}
	assert.Equal(t, []string{
		"scenario.yaml:11:9 write a node below 1, or run with `--nodes 2`",
		"scenario.yaml:18:19 write a node below 1, or run with `--nodes 4`",
		"scenario.yaml:21:23 write a node below 1, or run with `--nodes 3`",
		"scenario.yaml:23:144 write a node below 1, or run with `--nodes 5`",
	}, have)
}

func TestAPolicyIsVacuousOnlyIfItNeverSelectsAPod(t *testing.T) {
	policy := func(name, selector string) string {
		return fmt.Sprintf("{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: %s, namespace: x}, spec: {podSelector: {matchLabels: {%s}}}}", name, selector)
	}
	plan := planOf(t, story(`  steps:
    - name: one
      apply:
        - `+policy("later", "app: cache")+`
        - `+policy("never", "app: nobody")+`
        - `+policy("other-namespace", "app: gone")+`
      expect: computed
    - {name: two, label: {pods: {x/b: {app: cache}, y/a: {app: gone}}}, expect: computed}
    - {name: three, delete: [NetworkPolicy/x/never], expect: computed}
`), v4, 2)
	assert.Equal(t, []string{
		"NetworkPolicy x/never (scenario.yaml:22) selects no pod in any step: nothing is proven about it",
		"NetworkPolicy x/other-namespace (scenario.yaml:23) selects no pod in any step: nothing is proven about it",
	}, plan.Vacuous)
}

func TestEqualTopologiesHaveEqualKeys(t *testing.T) {
	key := func(old, replacement string) string {
		contents := story("  steps: [{name: s, expect: computed}]\n")
		contents["scenario.yaml"] = strings.Replace(contents["scenario.yaml"], old, replacement, 1)
		return planOf(t, contents, v4, 2).TopologyKey
	}
	same := key("", "")
	assert.Equal(t, same, key("name: story", "name: another"))
	assert.Equal(t, same, key("80/TCP", "80"))
	assert.Equal(t, same, key("name: s,", "name: s, create: {pods: [{name: x/z}]},"))
	for _, change := range [][2]string{
		{"app: web", "app: web, tier: front"},
		{"node: 1", "node: 0"},
		{"team: blue", "team: red"},
		{"port: 9090", "port: 9091"},
		{"targetPort: 80}", "targetPort: 9090}"},
		{"8443/TCP", "8444/TCP"},
		{"x/b", "x/bb"},
	} {
		assert.NotEqual(t, same, key(change[0], change[1]), "%v", change)
	}
}

func TestPlanningTwiceGivesTheSame(t *testing.T) {
	contents := story(`  probes: [{from: "*", to: "*"}, {from: "*", to: "*", via: service}]
  steps: [{name: s, apply: [deny.yaml], label: {pods: {x/a: {b: c}}}, expect: computed}, {name: t, remove: {pods: [x/b]}, expect: computed}]
`)
	s := mustLoad(t, contents)[0]
	first, err := s.Plan(v4, 2)
	require.NoError(t, err)
	first.Steps[0].Topology.Pods[0].Labels["spoiled"] = "yes"
	first.Initial.Pods[0].Ports[0].Number = 7
	second, err := s.Plan(v4, 2)
	require.NoError(t, err)
	assert.NotContains(t, second.Steps[0].Topology.Pods[0].Labels, "spoiled")
	third, err := s.Plan(v4, 2)
	require.NoError(t, err)
	assert.Equal(t, second, third)
}

func TestVerbsWithoutContentChangeNothing(t *testing.T) {
	for _, verb := range []string{
		"create: {pods: []}", "create: {pods: }", "create: {}", "create:", "remove: {pods: []}", "remove: {pods: }", "remove: {}", "remove:",
		"delete: []", "delete:", "apply: []", "apply:", "label: {}", "label:", "label: {pods: {}}", "label: {namespaces: {}}", "label: {pods: , namespaces: }",
		"label: {pods: {x/a: {}}}", "label: {pods: {x/a: }}", `label: {namespaces: {"y": {}}}`, `label: {namespaces: {"y": }}`,
	} {
		t.Run(verb, func(t *testing.T) {
			plan := planOf(t, story("  steps:\n    - name: nothing\n      "+verb+"\n      expect: {default: allow}\n"), v4, 2)
			require.Len(t, plan.Steps, 1)
			assert.Empty(t, plan.Steps[0].Changes)
			assert.Equal(t, plan.Initial, plan.Steps[0].Topology)
		})
	}
}

func TestVerbsWithoutContentStillNameWhatThereIs(t *testing.T) {
	err := problemsOf(t, story("  steps:\n    - name: nothing\n      label: {pods: {x/q: {}}, namespaces: {z: {}}}\n      expect: {default: allow}\n"))
	assert.ErrorContains(t, err, "there is no pod `x/q` to label")
	assert.ErrorContains(t, err, "there is no namespace `z` to label")
}

// contractExample is the scenario that the project's contract with its scripts shows: whoever copies it must be able to
// load it.
const contractExample = `apiVersion: netproof.dev/v1alpha1
kind: Scenario
metadata:
  name: default-deny-ingress
  labels: {feature: ingress, level: core}
spec:
  description: A policy that selects every pod and lists no ingress rule isolates the namespace.
  source: https://kubernetes.io/docs/concepts/services-networking/network-policies/
  topology:
    namespaces:
      - {name: x, labels: {team: blue}}
      - {name: "y"}
    pods:
      - {name: x/a, labels: {app: web}, ports: [80/TCP, 81/UDP]}
      - {name: x/b, node: 1, ports: [80/TCP, {name: metrics, port: 9090, protocol: TCP}]}
      - {name: y/a, hostNetwork: false, ports: [80/TCP]}
    services:
      - {name: x/web, selector: {app: web}, ports: [80/TCP]}
  probes:                # optional. Default: every pod to every other pod, on every port the destination serves
    - {from: "*", to: "x/*", ports: [80/TCP], via: podIP}     # via: podIP | service | nodePort. A step may have its own
  steps:
    - name: before any policy
      expect: {default: allow}
    - name: isolated
      apply: [deny.yaml]            # a file beside the scenario, or an inline object; Kubernetes and CNI kinds
      delete: []                    # kind/namespace/name
      label: {pods: {x/a: {app: null}}, namespaces: {"y": {team: red}}}
      create: {pods: []}            # pods that appear now; ` + "`remove: {pods: [x/b]}`" + ` for those that go
      expect:
        default: allow
        rules:                      # in order, the last that matches wins
          - {from: "*", to: "x/*", verdict: deny}
          - {from: x/a, to: x/b, ports: [80/TCP], verdict: allow}
          # by: ingress | egress | both   optional: which side must refuse
`

func TestTheExampleOfTheContractIsPlanned(t *testing.T) {
	plan := planOf(t, map[string]string{"scenario.yaml": contractExample, "deny.yaml": denyPolicy}, v4, 2)
	require.Len(t, plan.Steps, 2)
	assert.Empty(t, plan.Vacuous)
	assert.Empty(t, plan.Scenario.Warnings)
	assert.Equal(t, []string{"label pod x/a ", "label namespace y kubernetes.io/metadata.name=y,team=red", "apply NetworkPolicy x/deny (deny.yaml:1)"},
		changesOf(plan.Steps[1]))
	assert.Equal(t, []string{
		"x/a->x/b:80/TCP/IPv4/podIP allow", "x/b->x/a:80/TCP/IPv4/podIP deny",
		"y/a->x/a:80/TCP/IPv4/podIP deny", "y/a->x/b:80/TCP/IPv4/podIP deny",
	}, cellsOf(plan.Steps[1]))
}
