package scenario

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/model"
)

// advised are a shop's workloads and one policy, whose spec is given.
func advised(spec string) map[string]string {
	return map[string]string{"all.yaml": `apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {tier: back}}
---
apiVersion: v1
kind: Namespace
metadata: {name: front}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec: {containers: [{name: c, image: i, ports: [{name: sql, containerPort: 5432}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: front, labels: {app: web}}
spec: {containers: [{name: c, image: i, ports: [{name: http, containerPort: 8080}]}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: shop}
spec: ` + spec + "\n"}
}

func TestARuleThatCanNeverMatchIsSaid(t *testing.T) {
	const dns = `to: [{namespaceSelector: {}}], ports: [{port: 53, protocol: UDP}]`
	for name, c := range map[string]struct{ spec, want, fix string }{
		"a name of a port": {`{podSelector: {}, ingress: [{ports: [{port: sq1}]}]}`,
			"ingress[0].ports[0]: no pod that NetworkPolicy shop/p selects has port sq1", "there is sql (5432/TCP)"},
		"a number of a port": {`{podSelector: {}, ingress: [{ports: [{port: 5432}, {port: 5433}]}]}`,
			"ingress[0].ports[1]: no pod that NetworkPolicy shop/p selects has port 5433", "there is sql (5432/TCP)"},
		"a protocol": {`{podSelector: {}, ingress: [{ports: [{port: sql, protocol: UDP}]}]}`, "ingress[0].ports[0]: no pod that NetworkPolicy shop/p selects has port sql", ""},
		"a range":    {`{podSelector: {}, ingress: [{ports: [{port: 5433, endPort: 5500}]}]}`, "ingress[0].ports[0]: no pod that NetworkPolicy shop/p selects has port 5433", ""},
		"a port of an egress rule": {`{podSelector: {}, egress: [{to: [{namespaceSelector: {}}], ports: [{port: 80}]}, {` + dns + `}]}`,
			"egress[0].ports[0]: no pod that the rule leads to has port 80", "there is http (8080/TCP) and sql (5432/TCP)"},
		"a label of a pod": {`{podSelector: {}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: wep}}}]}]}`,
			"ingress[0].from[0] matches no pod: none there has the labels `app=wep`", "did you mean `app: web`?"},
		"a label of a namespace": {`{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {name: front}}}]}]}`,
			"ingress[0].from[0] matches no namespace: none has the labels `name=front`", "did you mean `kubernetes.io/metadata.name: front`?"},
		"two peers for one": {`{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: front}}}, {podSelector: {matchLabels: {app: web}}}]}]}`,
			"ingress[0].from[0] and ingress[0].from[1] are alternatives: the first alone admits every pod of its namespaces", "make one item of the two"},
		"no names": {`{podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}], ports: [{port: 5432}]}]}`,
			"NetworkPolicy shop/p isolates shop/db for egress, and no policy admits DNS (53/UDP)", "admit 53/UDP"},
	} {
		t.Run(name, func(t *testing.T) {
			s := mustLoad(t, advised(c.spec))[0]
			found := false
			for _, w := range s.Warnings {
				if w.Message == c.want {
					found = true
					assert.Contains(t, w.Fix, c.fix)
					assert.Equal(t, "all.yaml", w.File)
					assert.GreaterOrEqual(t, w.Line, 19, "it is a line of the policy")
				}
			}
			require.True(t, found, "%v", s.Warnings)
			plan, err := s.Plan([]model.IPFamily{model.IPv4}, 2)
			require.NoError(t, err)
			assert.Contains(t, strings.Join(plan.Unproven, "\n"), c.want, "a strict run takes it for a failure")
		})
	}
}

func TestARuleThatCanMatchIsNotSaid(t *testing.T) {
	for _, spec := range []string{
		`{podSelector: {}, ingress: [{ports: [{port: sql}, {port: 5432}, {port: 5000, endPort: 6000}]}]}`,
		`{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: front}}, podSelector: {matchLabels: {app: web}}}]}]}`,
		`{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: front}}}, {podSelector: {matchLabels: {app: db}}}]}]}`,
		`{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/24}}]}]}`,
		`{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 53, protocol: UDP}]}, {to: [{ipBlock: {cidr: 203.0.113.0/24}}], ports: [{port: 443}]}]}`,
		`{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}]}]}`,
		`{podSelector: {}, policyTypes: [Ingress, Egress]}`,
		`{podSelector: {}}`,
	} {
		assert.Empty(t, mustLoad(t, advised(spec))[0].Warnings, spec)
	}
}

func TestReplicasAreAskedByTheFirstAlone(t *testing.T) {
	text := strings.ReplaceAll(`apiVersion: apps/v1
kind: KIND
metadata: {name: web, namespace: x}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: i, ports: [{containerPort: 80}]}]}
---
`, "KIND", "Deployment")
	cells := func(files map[string]string) (out []string) {
		plan, err := mustLoad(t, files)[0].Plan([]model.IPFamily{model.IPv4}, 2)
		require.NoError(t, err)
		for _, c := range plan.Steps[1].Cells {
			out = append(out, string(c.Connection.From)+" "+string(c.Connection.To)+" "+string(c.Expected))
		}
		return out
	}
	files := map[string]string{"all.yaml": text + twoPods + "---\n" + denyPolicy, "netproof.yaml": noStrangers}
	assert.ElementsMatch(t, []string{
		"x/a x/b ", "x/a x/web ", "x/b x/a ", "x/b x/web ", "x/web x/a ", "x/web x/b ", "x/web x/web-2 ",
	}, cells(files))

	asserting := func(rule string) map[string]string {
		return map[string]string{"all.yaml": files["all.yaml"], "netproof.yaml": "apiVersion: netproof.dev/v1alpha1\nkind: Assertions\nspec: {rules: [" + rule + "]}\n"}
	}
	assert.Contains(t, cells(asserting(`{from: x/web, to: x/web, verdict: deny}`)), "x/web x/web-2 deny", "a workload is all of its pods")
	assert.Contains(t, cells(asserting(`{from: x/a, to: x/web, verdict: deny}`)), "x/a x/web deny")
	assert.NotContains(t, cells(asserting(`{from: x/web, to: x/web, verdict: deny}`)), "x/web x/web deny", "a pod reaches itself, whatever the policies say")

	scaled := map[string]string{"all.yaml": strings.Replace(files["all.yaml"], "replicas: 3", "paused: false", 1)}
	assert.NotContains(t, cells(scaled), "x/web x/web-2 ")
	scaled["hpa.yaml"] = "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: web, namespace: x}\n" +
		"spec: {maxReplicas: 5, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}}\n"
	assert.Contains(t, cells(scaled), "x/web x/web-2 ", "an autoscaler makes more of it")
}

func TestWorkloadsOfOtherProjectsAreStoodInFor(t *testing.T) {
	template := "{metadata: {labels: {app: a}}, spec: {containers: [{name: c, image: i, ports: [{containerPort: 80}]}]}}"
	for _, kind := range []string{
		"argoproj.io/v1alpha1 Rollout", "apps.openshift.io/v1 DeploymentConfig", "serving.knative.dev/v1 Service", "apps.kruise.io/v1alpha1 CloneSet",
		"v1 ReplicationController",
	} {
		version, name, _ := strings.Cut(kind, " ")
		s := mustLoad(t, map[string]string{
			"w.yaml": "apiVersion: " + version + "\nkind: " + name + "\nmetadata: {name: w, namespace: x}\nspec: {template: " + template + "}\n",
			"b.yaml": denyPolicy + "---\n" + twoPods,
		})[0]
		plan, err := s.Plan([]model.IPFamily{model.IPv4}, 2)
		require.NoError(t, err)
		pod, ok := plan.Initial.Pod("x/w")
		require.True(t, ok, kind)
		assert.Equal(t, "a", pod.Labels["app"], kind)
		assert.Equal(t, 80, pod.Ports[0].Number, kind)
	}
	s := mustLoad(t, map[string]string{
		"w.yaml": "apiVersion: argoproj.io/v1alpha1\nkind: Rollout\nmetadata: {name: w, namespace: x}\nspec: {workloadRef: {apiVersion: apps/v1, kind: Deployment, name: b}}\n",
		"b.yaml": denyPolicy + "---\n" + twoPods,
	})[0]
	require.Len(t, s.Warnings, 1)
	assert.Equal(t, "Rollout x/w has its pod template in another object: that one is stood in for", s.Warnings[0].Message)
}
