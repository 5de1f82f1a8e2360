package scenario

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/model"
)

const twoPods = `apiVersion: v1
kind: Pod
metadata: {name: a, namespace: x, labels: {app: a}}
spec: {containers: [{name: c, image: i, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: b, namespace: x}
spec: {containers: [{name: c, image: i, ports: [{containerPort: 80}]}]}
`

// shop has a workload of every kind.
const shop = `apiVersion: v1
kind: List
items:
  - apiVersion: v1
    kind: Namespace
    metadata: {name: shop, labels: {env: prod}}
  - apiVersion: apps/v1
    kind: Deployment
    metadata: {name: web, namespace: shop}
    spec:
      replicas: 3
      selector: {matchLabels: {app: web}}
      template:
        metadata: {labels: {app: web, tier: front}}
        spec:
          initContainers:
            - {name: setup, image: i, ports: [{containerPort: 1}]}
            - {name: proxy, image: i, restartPolicy: Always, ports: [{name: admin, containerPort: 15000}]}
          containers:
            - {name: c, image: i, ports: [{name: http, containerPort: 8080}], resources: {limits: {cpu: 1}}}
            - {name: d, image: i, ports: [{containerPort: 53, protocol: UDP}]}
  - apiVersion: apps/v1
    kind: StatefulSet
    metadata: {name: db, namespace: shop}
    spec:
      selector: {matchLabels: {app: db}}
      template:
        metadata: {labels: {app: db}}
        spec: {containers: [{name: c, image: i}]}
  - apiVersion: apps/v1
    kind: DaemonSet
    metadata: {name: agent, namespace: kube-system}
    spec:
      selector: {matchLabels: {app: agent}}
      template:
        metadata: {labels: {app: agent}}
        spec: {hostNetwork: true, containers: [{name: c, image: i, ports: [{containerPort: 9100, hostPort: 9100}]}]}
  - apiVersion: batch/v1
    kind: Job
    metadata: {name: migrate, namespace: shop}
    spec: {template: {metadata: {labels: {app: migrate}}, spec: {containers: [{name: c, image: i}]}}}
  - apiVersion: batch/v1
    kind: CronJob
    metadata: {name: migrate, namespace: shop}
    spec: {jobTemplate: {spec: {template: {metadata: {labels: {app: nightly}}, spec: {containers: [{name: c, image: i, ports: [{containerPort: 80}]}]}}}}}
  - apiVersion: v1
    kind: Pod
    metadata: {name: debug}
    spec: {containers: [{name: c, image: i}]}
  - apiVersion: v1
    kind: Service
    metadata: {name: web, namespace: shop}
    spec: {type: LoadBalancer, selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}, {name: s, port: 443, targetPort: 8443}, {name: gone, port: 1, targetPort: nothing}]}
  - apiVersion: v1
    kind: Service
    metadata: {name: db, namespace: shop}
    spec: {clusterIP: None, selector: {app: db}, ports: [{port: 5432}]}
  - apiVersion: v1
    kind: Service
    metadata: {name: elsewhere, namespace: shop}
    spec: {selector: {app: elsewhere}, ports: [{port: 80}]}
  - apiVersion: v1
    kind: ConfigMap
    metadata: {name: settings, namespace: shop}
  - apiVersion: networking.k8s.io/v1
    kind: NetworkPolicy
    metadata: {name: jobs, namespace: shop}
    spec:
      podSelector: {matchExpressions: [{key: app, operator: In, values: [migrate]}]}
      ingress: [{ports: [{port: 7000}, {port: 7001, protocol: UDP}, {port: http}, {protocol: TCP}]}]
`

func TestEachWorkloadOfAPlainFolderGetsAStandIn(t *testing.T) {
	s := mustLoad(t, map[string]string{"manifests/all.yaml": shop, "manifests/netproof.yaml": noStrangers}, "manifests")
	require.Len(t, s, 1)
	assert.True(t, s[0].Plain)
	assert.Equal(t, "manifests", s[0].Metadata.Name)
	plan, err := s[0].Plan([]model.IPFamily{model.IPv4}, 2)
	require.NoError(t, err)

	var namespaces []string
	for _, ns := range plan.Initial.Namespaces {
		namespaces = append(namespaces, ns.Name)
	}
	assert.Equal(t, []string{"default", "kube-system", "shop"}, namespaces)
	assert.Equal(t, model.Labels{"env": "prod", "kubernetes.io/metadata.name": "shop"}, plan.Initial.Namespaces[2].Labels)

	tcp := func(name string, n int) model.Port { return model.Port{Name: name, Number: n, Protocol: model.TCP} }
	udp := func(n int) model.Port { return model.Port{Number: n, Protocol: model.UDP} }
	type want struct {
		labels model.Labels
		ports  []model.Port
	}
	have := map[model.Endpoint]want{}
	for _, p := range plan.Initial.Pods {
		have[p.Endpoint()] = want{p.Labels, p.Ports}
	}
	assert.Equal(t, map[model.Endpoint]want{
		"shop/web": {
			model.Labels{"app": "web", "tier": "front", "pod-template-hash": generatedValue},
			[]model.Port{tcp("http", 8080), udp(53), tcp("admin", 15000), tcp("", 8443)},
		},
		"shop/web-2": {
			model.Labels{"app": "web", "tier": "front", "pod-template-hash": generatedValue},
			[]model.Port{tcp("http", 8080), udp(53), tcp("admin", 15000), tcp("", 8443)},
		},
		"shop/db": {
			model.Labels{
				"app": "db", "statefulset.kubernetes.io/pod-name": "db-0", "apps.kubernetes.io/pod-index": "0",
				"controller-revision-hash": generatedValue,
			},
			[]model.Port{tcp("", 5432)},
		},
		"kube-system/agent": {
			model.Labels{"app": "agent", "controller-revision-hash": generatedValue, "pod-template-generation": generatedValue},
			[]model.Port{tcp("", 9100)},
		},
		"shop/migrate-job": {
			model.Labels{
				"app": "migrate", "job-name": "migrate", "batch.kubernetes.io/job-name": "migrate",
				"controller-uid": generatedValue, "batch.kubernetes.io/controller-uid": generatedValue,
			}, nil,
		},
		"shop/migrate-cronjob": {
			model.Labels{
				"app": "nightly", "job-name": generatedValue, "batch.kubernetes.io/job-name": generatedValue,
				"controller-uid": generatedValue, "batch.kubernetes.io/controller-uid": generatedValue,
			},
			[]model.Port{tcp("", 80)},
		},
		"default/debug": {model.Labels{}, nil},
	}, have)
	agent, _ := plan.Initial.Pod("kube-system/agent")
	assert.True(t, agent.HostNetwork)

	require.Len(t, plan.Initial.Services, 1)
	assert.Equal(t, []model.ServicePort{
		{Port: tcp("http", 80), Target: "http"}, {Port: tcp("s", 443), Target: "8443"},
	}, plan.Initial.Services[0].Ports)

	var warnings []string
	for _, w := range s[0].Warnings {
		warnings = append(warnings, w.Message)
	}
	assert.ElementsMatch(t, []string{
		"port 1 of Service shop/web is ignored: no workload behind it has a port `nothing`",
		"Job shop/migrate declares no port, so nobody is asked to reach it, though NetworkPolicy shop/jobs (manifests/all.yaml:65) admits ports",
	}, warnings)
	assert.Equal(t, []string{
		"manifests: 1 object is neither a policy nor a workload: 1 of kind ConfigMap",
		"manifests: 1 service without a workload of the folder behind it, left out: Service shop/elsewhere",
		"manifests: 1 service without an address (clusterIP: None), with its pods probed anyway, left out: Service shop/db",
	}, s[0].Notes)
}

func TestAPlainFolderIsProvenBeforeAndWithItsPolicies(t *testing.T) {
	s := mustLoad(t, map[string]string{"a.yaml": denyPolicy, "b.yaml": twoPods, "netproof.yaml": noStrangers})
	plan, err := s[0].Plan([]model.IPFamily{model.IPv4}, 2)
	require.NoError(t, err)
	require.Len(t, plan.Steps, 2)
	assert.Equal(t, "before any policy", plan.Steps[0].Name)
	assert.Empty(t, plan.Steps[0].Changes)
	assert.Equal(t, "policies", plan.Steps[1].Name)
	require.Len(t, plan.Steps[1].Changes, 1)
	assert.Equal(t, "apply NetworkPolicy x/deny (a.yaml:1)", plan.Steps[1].Changes[0].String())
	for _, step := range plan.Steps {
		assert.True(t, step.Computed)
		require.Len(t, step.Cells, 2)
		for _, c := range step.Cells {
			assert.Empty(t, c.Expected)
		}
	}
}

// noStrangers asks about nobody whom the folder does not mention.
const noStrangers = `apiVersion: netproof.dev/v1alpha1
kind: Assertions
spec: {strangers: []}
`

const assertions = `apiVersion: netproof.dev/v1alpha1
kind: Assertions
metadata: {name: shop-policies, labels: {team: shop}}
spec:
  description: The shop is closed.
  source: https://example.com/rules
  hosts: [{name: ledger, ports: [8443]}]
  strangers: []
  rules:
    - {from: "*", to: shop/db, verdict: deny, by: ingress}
    - {from: shop/web, to: shop/web, via: service, verdict: allow}
    - {from: shop/web, to: "host:ledger", verdict: allow}
    - {from: "node:1", to: shop/web, ports: [http], verdict: undefined}
`

func TestNetproofYAMLAssertsAndTheRestIsComputed(t *testing.T) {
	s := mustLoad(t, map[string]string{"all.yaml": shop, "netproof.yaml": assertions})
	assert.Equal(t, "shop-policies", s[0].Metadata.Name)
	assert.Equal(t, map[string]string{"team": "shop"}, s[0].Metadata.Labels)
	assert.Equal(t, "The shop is closed.", s[0].Spec.Description)
	assert.Equal(t, 1, s[0].MaxNode())
	plan, err := s[0].Plan([]model.IPFamily{model.IPv4}, 2)
	require.NoError(t, err)
	asserted := map[string]string{}
	computedCells := 0
	for _, c := range plan.Steps[1].Cells {
		if c.Expected == "" {
			computedCells++
			continue
		}
		asserted[c.Connection.String()] = strings.Join(strings.Fields(string(c.Expected)+" "+string(c.By)+" "+c.Rule), " ")
	}
	assert.Positive(t, computedCells)
	deny, through := "deny ingress netproof.yaml:10", "allow netproof.yaml:11"
	assert.Equal(t, map[string]string{
		"shop/web->shop/db:5432/TCP/IPv4/podIP":             deny,
		"shop/migrate-job->shop/db:5432/TCP/IPv4/podIP":     deny,
		"shop/migrate-cronjob->shop/db:5432/TCP/IPv4/podIP": deny,
		"kube-system/agent->shop/db:5432/TCP/IPv4/podIP":    deny,
		"default/debug->shop/db:5432/TCP/IPv4/podIP":        deny,
		"shop/web->shop/web:80/TCP/IPv4/service":            through,
		"shop/web->shop/web:443/TCP/IPv4/service":           through,
		"shop/web->host:ledger:8443/TCP/IPv4/podIP":         "allow netproof.yaml:12",
		"node:1->shop/web:8080/TCP/IPv4/podIP":              "undefined netproof.yaml:13",
	}, asserted)
	for _, c := range plan.Steps[0].Cells {
		assert.Empty(t, c.Expected, "before any policy nothing is asserted")
	}
}

func TestFilesOfOtherToolsAreLeftAlone(t *testing.T) {
	s := mustLoad(t, map[string]string{
		"all.yaml": denyPolicy + "---\n" + twoPods, "kustomization.yaml": "resources: [all.yaml]\n", "values.yaml": "a: b\n",
	})
	assert.Empty(t, s[0].Warnings)
}

func TestAPolicyThatSelectsNoWorkloadMakesThePlanVacuous(t *testing.T) {
	policy := strings.Replace(denyPolicy, "podSelector: {}", "podSelector: {matchLabels: {app: nobody}}", 1)
	s := mustLoad(t, map[string]string{"a.yaml": policy, "b.yaml": twoPods})
	plan, err := s[0].Plan([]model.IPFamily{model.IPv4}, 0)
	require.NoError(t, err)
	assert.Equal(t, []string{"NetworkPolicy x/deny (a.yaml:1) selects no pod in any step: nothing is proven about it"}, plan.Vacuous)
}
