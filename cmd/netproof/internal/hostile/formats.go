package hostile

import (
	"bytes"
	"errors"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/report"
)

// Format is a kind of file that netproof reads.
type Format struct {
	// File is the name of the one that gets hostile, Content what it holds otherwise.
	File, Content string
	// Fields are the places in it that a hostile string can take.
	Fields []Field
	// Beside are the other files of the folder.
	Beside map[string]string
	// Report is true for what report convert reads; other formats are read as parts of a folder.
	Report bool
}

// Formats are all of them by name. A new format is a line here.
func Formats() map[string]Format {
	saved, journal := savedReport()
	others := map[string]string{"all.yaml": Policy + Workloads}
	all := map[string]Format{
		"scenario":     {File: "scenario.yaml", Content: scenarioFile, Fields: yamlFields(scenarioFile), Beside: map[string]string{"deny.yaml": Policy}},
		"applied":      {File: "deny.yaml", Content: Policy, Fields: yamlFields(Policy), Beside: map[string]string{"scenario.yaml": scenarioFile}},
		"assertions":   {File: "netproof.yaml", Content: assertionsFile, Fields: yamlFields(assertionsFile), Beside: others},
		"expected.txt": {File: "expected.txt", Content: expectedFile, Fields: words(expectedFile), Beside: others},
		"report":       {File: "report.json", Content: saved, Fields: jsonFields(saved), Report: true},
		"journal":      {File: "report.json.journal", Content: journal, Fields: jsonFields(journal), Report: true},
	}
	for kind, manifest := range manifests {
		all["manifest of "+kind] = Format{File: "hostile.yaml", Content: manifest, Fields: yamlFields(manifest), Beside: others}
	}
	return all
}

const scenarioFile = `apiVersion: netproof.dev/v1alpha1
kind: Scenario
metadata: {name: h, labels: {feature: ingress}}
spec:
  description: words
  source: https://kubernetes.io/docs/
  topology:
    namespaces: [{name: x, labels: {team: blue}}]
    pods:
      - {name: x/a, labels: {app: a}, ports: [80/TCP, {name: metrics, port: 9090, protocol: TCP}]}
      - {name: x/b, node: 1, labels: {app: b}, ports: [80/TCP]}
    services: [{name: x/web, selector: {app: b}, type: ClusterIP, ports: [80/TCP]}]
    hosts: [{name: out, ports: [443/TCP]}]
  probes: [{from: "*", to: "x/*", ports: [80/TCP], via: podIP}]
  steps:
    - name: open
      expect: {default: allow}
    - name: closed
      apply: [deny.yaml]
      delete: []
      label: {pods: {x/a: {role: web}}, namespaces: {x: {team: red}}}
      create: {pods: [{name: x/c, ports: [80]}]}
      expect:
        default: allow
        rules: [{from: "*", to: "x/*", ports: [80/TCP], verdict: deny, by: ingress}]
    - name: gone
      remove: {pods: [x/c]}
      delete: [NetworkPolicy/x/deny]
      expect: computed
`

// Policy is a policy that denies.
const Policy = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: x, labels: {a: b}, annotations: {netproof.dev/owner: team, netproof.dev/purpose: words, netproof.dev/review-by: "2030-01-01"}}
spec:
  podSelector: {matchExpressions: [{key: app, operator: In, values: [a, b]}]}
  policyTypes: [Ingress, Egress]
  ingress: [{from: [{namespaceSelector: {matchLabels: {team: none}}, podSelector: {matchLabels: {app: z}}}], ports: [{port: http, protocol: TCP}]}]
  egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]}]
`

// Workloads are a namespace and two pods for it.
const Workloads = `---
apiVersion: v1
kind: Namespace
metadata: {name: x, labels: {team: blue}}
---
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: x, labels: {app: a}}
spec: {containers: [{name: c, image: i, ports: [{name: http, containerPort: 80, protocol: TCP}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: b, namespace: x, labels: {app: b}}
spec: {containers: [{name: c, image: i, ports: [{containerPort: 80}]}]}
`

const assertionsFile = `apiVersion: netproof.dev/v1alpha1
kind: Assertions
metadata: {name: h, labels: {feature: ingress}}
spec:
  description: words
  source: https://kubernetes.io/
  hosts: [{name: out, ports: [443/TCP]}]
  probes: [{from: "*", to: "*"}]
  rules: [{from: x/a, to: x/b, ports: [80/TCP], verdict: deny, by: both, via: podIP}]
`

const expectedFile = `# comment
step: before any policy

80/TCP via podIP IPv4
        x/a  x/b
  x/a     .    +
  x/b     +    .

step: with all policies

80/TCP
        x/a  x/b
  x/a     .    x
  x/b     x    .
`

// template is what workloads make pods of.
const template = `metadata: {labels: {app: w}}, spec: {restartPolicy: Never, containers: [{name: c, image: i, ports: [{name: http, containerPort: 80}]}]}`

// manifests are one of each kind that a folder may hold.
var manifests = func() map[string]string {
	m := map[string]string{
		"NetworkPolicy": Policy,
		"Namespace":     "apiVersion: v1\nkind: Namespace\nmetadata: {name: w, labels: {team: red}, annotations: {a: b}}\n",
		"Pod":           "apiVersion: v1\nkind: Pod\nmetadata: {name: w, namespace: x, labels: {app: w}}\nspec: {hostNetwork: false, containers: [{name: c, image: i, ports: [{name: http, containerPort: 80, protocol: TCP}]}]}\n",
		"CronJob":       "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: w, namespace: x}\nspec: {schedule: '* * * * *', jobTemplate: {spec: {template: {" + template + "}}}}\n",
		"Service":       "apiVersion: v1\nkind: Service\nmetadata: {name: w, namespace: x}\nspec: {selector: {app: a}, type: ClusterIP, ports: [{name: p, port: 80, targetPort: http, protocol: TCP}]}\n",
		"Secret":        "apiVersion: v1\nkind: Secret\nmetadata: {name: w, namespace: x}\ndata: {a: Yg==}\n",
		"Unknown":       "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w, namespace: x}\nspec: {a: b}\n",
		"List":          "apiVersion: v1\nkind: List\nitems:\n  - {apiVersion: v1, kind: ConfigMap, metadata: {name: w}, data: {a: b}}\n",
		"GlobalNetworkPolicy": "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: w}\n" +
			"spec: {order: 1, selector: all(), types: [Ingress], ingress: [{action: Deny, source: {selector: app == 'a'}}]}\n",
		"CiliumNetworkPolicy": "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: w, namespace: x}\n" +
			"spec: {description: d, endpointSelector: {matchLabels: {app: a}}, ingress: [{fromEndpoints: [{matchLabels: {app: b}}]}]}\n",
		"AdminNetworkPolicy": "apiVersion: policy.networking.k8s.io/v1alpha1\nkind: AdminNetworkPolicy\nmetadata: {name: w}\n" +
			"spec: {priority: 1, subject: {namespaces: {}}, ingress: [{name: r, action: Deny, from: [{namespaces: {}}]}]}\n",
	}
	for kind, group := range map[string]string{"Deployment": "apps", "StatefulSet": "apps", "DaemonSet": "apps", "ReplicaSet": "apps", "Job": "batch"} {
		m[kind] = "apiVersion: " + group + "/v1\nkind: " + kind + "\nmetadata: {name: w, namespace: x}\nspec: {selector: {matchLabels: {app: w}}, template: {" + template + "}}\n"
	}
	return m
}()

// savedReport gives a report with something in every field, and its journal.
func savedReport() (saved, journal string) {
	cell := func(to string, expected, observed model.Verdict, result model.Result) model.Cell {
		return model.Cell{
			ID: "s/step/x/a->" + to + ":80/TCP/IPv4/podIP", From: "x/a", To: model.Endpoint(to), Port: 80, Protocol: model.TCP, IPFamily: model.IPv4,
			Via: model.ViaPodIP, Expected: expected, Observed: observed, Result: result, Manner: "dropped", Samples: 2, Reason: "reason", Explain: "explained",
			Walk: []string{"x/a -> " + to, "  walked"}, Policies: []model.PolicyNote{{Policy: "NetworkPolicy x/p", Source: "p.yaml:1", Owner: "o", Purpose: "p", Review: "r"}},
			Evidence: &model.Evidence{AnsweredBy: "x/b", Outcome: "timeout", Errno: "E", RTTMicros: 1, Seen: 1, Series: []model.Sample{{Verdict: observed}, {Verdict: observed}}},
		}
	}
	finding := model.Finding{Kind: model.Control, Message: "message\n  fix: it", Result: model.ResultInconclusive}
	run := model.Run{
		Complete: true, Tool: model.Tool{Version: "v1"}, Findings: []model.Finding{finding},
		Cluster: model.Cluster{Provider: "local", Name: "n", CNI: model.CNI{Name: "calico", Version: "v3"}, Kubernetes: "v1", Nodes: 2, IPFamilies: []model.IPFamily{model.IPv4}},
		Scenarios: []model.Scenario{{
			Name: "s", File: "s.yaml", Labels: map[string]string{"feature": "f"}, Result: model.Failed, Findings: []model.Finding{finding},
			Steps: []model.Step{{Name: "step", EnforcedMs: 1, Controls: model.Controls{Held: true, Servers: 1, ServersAlive: 1}, Cells: []model.Cell{
				cell("x/b", model.Deny, model.Allow, model.Failed), cell("x/c", model.Allow, model.Inconclusive, model.ResultInconclusive),
				cell("x/d", model.Allow, model.Deny, model.Flaky), cell("x/e", model.Allow, model.Unsupported, model.ResultUnsupported),
				cell("x/f", model.Undefined, model.Allow, model.Recorded), cell("x/g", model.Allow, model.Allow, model.Passed),
			}}},
		}},
	}
	model.Summarize(&run)
	var whole, lines bytes.Buffer
	err := report.WriteJSON(&whole, run)
	j := report.NewJournal(&lines)
	s := run.Scenarios[0]
	err = errors.Join(err, j.Header(run), j.Scenario(s), j.Step(s.Name, s.Steps[0]), j.Finding("", finding), j.Finding(s.Name, finding))
	for _, c := range s.Steps[0].Cells {
		err = errors.Join(err, j.Cell(s.Name, s.Steps[0].Name, c))
	}
	if err = errors.Join(err, j.Footer(run)); err != nil {
		panic(err) // buffers do not fail
	}
	return whole.String(), lines.String()
}
