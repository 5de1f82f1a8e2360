package stage

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// policyOf is an object in namespace x with this beside its metadata.
func policyOf(t *testing.T, content string) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	require.NoError(t, yaml.Unmarshal([]byte(content), &o.Object))
	o.SetKind("Policy")
	o.SetName("p")
	o.SetNamespace("x")
	return o
}

func TestNamesOfNamespacesAreTranslatedWhereverPoliciesHaveThem(t *testing.T) {
	for name, tc := range map[string]struct{ have, want string }{
		"labels": {
			`spec: {ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: bank, team: bank}}}]}]}`,
			`spec: {ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: run-bank, team: bank}}}]}]}`,
		},
		"expressions": {
			`spec: {subject: {namespaces: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: NotIn, values: [bank, kube-system]}, {key: team, operator: In, values: [bank]}]}}}`,
			`spec: {subject: {namespaces: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: NotIn, values: [run-bank, kube-system]}, {key: team, operator: In, values: [bank]}]}}}`,
		},
		"built-in namespaces": {
			`spec: {egress: [{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}}]}]}`,
			`spec: {egress: [{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}}]}]}`,
		},
		"labels of Cilium": {
			`specs: [{endpointSelector: {matchLabels: {"k8s:io.kubernetes.pod.namespace": x}}, ingressDeny: [{fromEndpoints: [{matchLabels: {io.kubernetes.pod.namespace: bank, "any:app": bank}}]}]}]`,
			`specs: [{endpointSelector: {matchLabels: {"k8s:io.kubernetes.pod.namespace": run-x}}, ingressDeny: [{fromEndpoints: [{matchLabels: {io.kubernetes.pod.namespace: run-bank, "any:app": bank}}]}]}]`,
		},
		"expressions of Cilium": {
			`spec: {ingress: [{fromEndpoints: [{matchExpressions: [{key: "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name", operator: In, values: [bank]}]}]}]}`,
			`spec: {ingress: [{fromEndpoints: [{matchExpressions: [{key: "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name", operator: In, values: [run-bank]}]}]}]}`,
		},
		"services of Cilium": {
			`spec: {egress: [{toServices: [{k8sService: {serviceName: s, namespace: bank}}, {k8sServiceSelector: {selector: {matchLabels: {a: b}}, namespace: bank}}]}]}`,
			`spec: {egress: [{toServices: [{k8sService: {serviceName: s, namespace: run-bank}}, {k8sServiceSelector: {selector: {matchLabels: {a: b}}, namespace: run-bank}}]}]}`,
		},
		"selectors of Calico": {
			`spec: {namespaceSelector: "projectcalico.org/name == 'x'", ingress: [{source: {notSelector: "app == 'bank' && (projectcalico.org/namespace in {'bank', \"z\",'default'} || has(a))"}}]}`,
			`spec: {namespaceSelector: "projectcalico.org/name == 'run-x'", ingress: [{source: {notSelector: "app == 'bank' && (projectcalico.org/namespace in {'run-bank', \"run-z\",'default'} || has(a))"}}]}`,
		},
		"labels with the names of operators": {
			`spec: {selector: "projectcalico.org/namespace != 'bank' && in == 'bank' || not == 'bank'"}`,
			`spec: {selector: "projectcalico.org/namespace != 'run-bank' && in == 'bank' || not == 'bank'"}`,
		},
		"services of Calico": {
			`spec: {egress: [{action: Allow, destination: {services: {name: s, namespace: bank}}}]}`,
			`spec: {egress: [{action: Allow, destination: {services: {name: s, namespace: run-bank}}}]}`,
		},
		"accounts, which have names as well": {
			`spec: {serviceAccountSelector: "projectcalico.org/name == 'bank'"}`,
			`spec: {serviceAccountSelector: "projectcalico.org/name == 'bank'"}`,
		},
		"ports, which have names as well": {
			`spec: {ingress: [{ports: [{port: bank}]}], namespace: bank}`,
			`spec: {ingress: [{ports: [{port: bank}]}], namespace: bank}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			have := policyOf(t, tc.have)
			before := have.DeepCopy()
			got, err := names{"run-"}.object(have)
			require.NoError(t, err)
			want := policyOf(t, tc.want)
			want.SetNamespace("run-x")
			assert.Equal(t, want.Object, got.Object)
			assert.Equal(t, before, have, "what was given stays as it is")
			same, err := names{}.object(have)
			require.NoError(t, err)
			assert.Equal(t, have.Object, same.Object, "without a prefix names are the scenario's")
		})
	}
}

func TestANameThatCannotBeTranslatedIsRefused(t *testing.T) {
	for name, content := range map[string]string{
		"a part of a name":         `spec: {selector: "projectcalico.org/namespace starts with 'bank'"}`,
		"a selector nobody reads":  `spec: {namespaceSelector: "projectcalico.org/name ~ 'bank'"}`,
		"a label that looks alike": `spec: {selector: "other.projectcalico.org/name == 'bank'"}`,
		"another source of labels": `spec: {endpointSelector: {matchLabels: {"k8s.io.kubernetes.pod.namespace": bank}}}`,
		"an expression alike":      `spec: {endpointSelector: {matchExpressions: [{key: "container:io.kubernetes.pod.namespace", operator: In, values: [bank]}]}}`,
		"a name in DNS":            `spec: {egress: [{toFQDNs: [{matchName: web.bank.svc.cluster.local}]}]}`,
		"a short name in DNS":      `spec: {egress: [{destination: {domains: ["*.bank.svc"]}}]}`,
		"a text of another field":  `spec: {ingress: [{http: {paths: [{exact: "projectcalico.org/name == 'bank'"}]}}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := names{"run-"}.object(policyOf(t, content))
			require.ErrorIs(t, err, errByName)
			assert.ErrorContains(t, err, "Policy p with a namespace prefix: ")
		})
	}
}
