package stage

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"
)

// web is the pod that policies act on, or do not.
var web = candidate{
	namespace: "shop", labels: labels.Set{"app": "web", "tier": "front"},
	namespaceLabels: labels.Set{"kubernetes.io/metadata.name": "shop", "team": "blue"},
}

func TestWhomPoliciesOfOtherKindsActOn(t *testing.T) {
	for _, tc := range []struct {
		what, group, kind, object string
		selects, sure             bool
	}{
		{"all namespaces", "policy.networking.k8s.io", "AdminNetworkPolicy", `spec: {subject: {namespaces: {}}}`, true, true},
		{"its namespace", "policy.networking.k8s.io", "BaselineAdminNetworkPolicy", `spec: {subject: {namespaces: {matchLabels: {team: blue}}}}`, true, true},
		{"another namespace", "policy.networking.k8s.io", "ClusterNetworkPolicy", `spec: {subject: {namespaces: {matchLabels: {team: red}}}}`, false, true},
		{
			"its pods", "policy.networking.k8s.io", "AdminNetworkPolicy",
			`spec: {subject: {pods: {namespaceSelector: {}, podSelector: {matchExpressions: [{key: app, operator: In, values: [web, db]}]}}}}`, true, true,
		},
		{
			"other pods", "policy.networking.k8s.io", "AdminNetworkPolicy",
			`spec: {subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: db}}}}}`, false, true,
		},
		{"a subject of a later version", "policy.networking.k8s.io", "ClusterNetworkPolicy", `spec: {subject: {nodes: {}}}`, true, false},

		{"everything", "crd.projectcalico.org", "GlobalNetworkPolicy", `spec: {}`, true, true},
		{"its label", "projectcalico.org", "GlobalNetworkPolicy", `spec: {selector: "app == 'web'"}`, true, true},
		{"other labels", "projectcalico.org", "GlobalNetworkPolicy", `spec: {selector: "app == 'db'"}`, false, true},
		{"its namespace by name", "projectcalico.org", "GlobalNetworkPolicy", `spec: {selector: "projectcalico.org/namespace in {'shop'}"}`, true, true},
		{"other namespaces", "projectcalico.org", "GlobalNetworkPolicy", `spec: {selector: all(), namespaceSelector: "team == 'red'"}`, false, true},
		{"interfaces of hosts", "projectcalico.org", "GlobalNetworkPolicy", `spec: {selector: all(), preDNAT: true}`, false, true},
		{"accounts", "projectcalico.org", "GlobalNetworkPolicy", `spec: {selector: all(), serviceAccountSelector: "role == 'x'"}`, true, false},
		{"a selector that cannot be read", "projectcalico.org", "GlobalNetworkPolicy", `spec: {selector: "app ~ 'web'"}`, true, false},
		{"its namespace", "crd.projectcalico.org", "NetworkPolicy", `{metadata: {namespace: shop}, spec: {selector: all()}}`, true, true},
		{"another namespace", "crd.projectcalico.org", "NetworkPolicy", `{metadata: {namespace: bank}, spec: {selector: all()}}`, false, true},

		{"everything", "cilium.io", "CiliumClusterwideNetworkPolicy", `spec: {endpointSelector: {}}`, true, true},
		{"its label", "cilium.io", "CiliumClusterwideNetworkPolicy", `spec: {endpointSelector: {matchLabels: {"k8s:app": web, any:tier: front}}}`, true, true},
		{"other labels", "cilium.io", "CiliumClusterwideNetworkPolicy", `spec: {endpointSelector: {matchLabels: {"k8s:app": db}}}`, false, true},
		{
			"its namespace by name", "cilium.io", "CiliumClusterwideNetworkPolicy",
			`spec: {endpointSelector: {matchLabels: {"k8s:io.kubernetes.pod.namespace": shop}}}`, true, true,
		},
		{
			"its namespace by label", "cilium.io", "CiliumClusterwideNetworkPolicy",
			`spec: {endpointSelector: {matchLabels: {"k8s:io.cilium.k8s.namespace.labels.team": red}}}`, false, true,
		},
		{"one of several rules", "cilium.io", "CiliumNetworkPolicy", `{metadata: {namespace: shop}, specs: [{endpointSelector: {matchLabels: {app: db}}}, {endpointSelector: {}}]}`, true, true},
		{"hosts", "cilium.io", "CiliumClusterwideNetworkPolicy", `spec: {nodeSelector: {}}`, false, true},
		{"labels of another source", "cilium.io", "CiliumClusterwideNetworkPolicy", `spec: {endpointSelector: {matchLabels: {"container:x": "1"}}}`, true, false},

		{"nobody knows whom", "crd.antrea.io", "ClusterNetworkPolicy", `spec: {appliedTo: []}`, true, false},
	} {
		t.Run(tc.kind+" of "+tc.group+" selects "+tc.what, func(t *testing.T) {
			var o unstructured.Unstructured
			require.NoError(t, yaml.Unmarshal([]byte(tc.object), &o.Object))
			is, sure := subjectOf(&rivalKind{resource: schema.GroupVersionResource{Group: tc.group}, kind: tc.kind}, &o)
			assert.Equal(t, tc.selects, is(web))
			assert.Equal(t, tc.sure, sure)
		})
	}
}

func TestWhichKindsActOnPods(t *testing.T) {
	for kind, acts := range map[string]bool{
		"policy.networking.k8s.io/AdminNetworkPolicy": true, "projectcalico.org/GlobalNetworkPolicy": true, "cilium.io/CiliumNetworkPolicy": true,
		"crd.antrea.io/ClusterNetworkPolicy": true, "projectcalico.org/StagedGlobalNetworkPolicy": false, "projectcalico.org/GlobalNetworkSet": false,
		"networking.k8s.io/NetworkPolicy": false, // looked at by itself
	} {
		group, name, _ := strings.Cut(kind, "/")
		assert.Equal(t, acts, isRivalKind(group, name), kind)
	}
}

func TestSelectorsOfCalico(t *testing.T) {
	have := map[string]string{"app": "web", "tier": "front", "example.com/zone": "a-1"}
	for text, want := range map[string]bool{
		"":                               true,
		"all()":                          true,
		"global()":                       false,
		"app == 'web'":                   true,
		`app != "web"`:                   false,
		"missing != 'x'":                 true,
		"app == 'web' && tier == 'back'": false,
		"app == 'db' || tier == 'front'": true,
		"app == 'db' || app == 'web' && tier == 'x'":    false,
		"!(app == 'db') && has(tier)":                   true,
		"!has(tier)":                                    false,
		"app in {'db', 'web'}":                          true,
		"app in {}":                                     false,
		"app not in {'db'}":                             true,
		"missing not in {'db'}":                         true,
		"example.com/zone starts with 'a'":              true,
		"example.com/zone ends with '-2'":               false,
		"tier contains 'ron' && ! all() || has ( app )": true,
	} {
		selector, err := parseCalico(text)
		require.NoError(t, err, text)
		assert.Equal(t, want, selector(have), text)
	}
	for _, text := range []string{
		"app", "app ==", "app == web", "app == 'web", "(app == 'web'", "app == 'web')", "app in ['web']", "app in {'web'", "app in {'web',}",
		"&& app == 'a'", "app = 'a'", "all(", "has()x", "app not contains 'a'", "app starts 'a'", "app == 'a' tier == 'b'", "not", "!",
	} {
		_, err := parseCalico(text)
		require.Error(t, err, text)
	}
	_, err := parseCalico(strings.Repeat("(", 100_000))
	require.Error(t, err)
}
