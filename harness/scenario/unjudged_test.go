package scenario

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/policy"
)

// besidePods are pods in two namespaces that are not that of the policy, and one in a third.
const besidePods = `apiVersion: v1
kind: Pod
metadata: {name: a, namespace: x}
spec: {containers: [{name: c, image: i, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: b, namespace: "y"}
spec: {containers: [{name: c, image: i, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: c, namespace: z}
spec: {containers: [{name: c, image: i, ports: [{containerPort: 80}]}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: x}
spec: {podSelector: {}}
---
`

func TestWhichConnectionsAPolicyOfAnotherKindMayDecide(t *testing.T) {
	const nothing, fromOrToZ, all = "nothing", "from or to z", "everything"
	for _, tc := range []struct {
		apiVersion, kind, name, namespace string
		want                              string
		applied                           bool
	}{
		{"policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy", "p", "", all, true},
		{"policy.networking.k8s.io/v1alpha1", "BaselineAdminNetworkPolicy", "default", "", all, true},
		{"policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", "p", "", all, true},
		{"policy.networking.k8s.io/v1", "KindOfTomorrow", "p", "", all, false},
		{"netpol.networking.k8s.io/v1", "AdminNetworkPolicy", "p", "", all, false},
		{"projectcalico.org/v3", "GlobalNetworkPolicy", "p", "", all, true},
		{"projectcalico.org/v3", "NetworkPolicy", "p", "z", fromOrToZ, true},
		{"projectcalico.org/v3", "NetworkSet", "p", "z", nothing, true},
		{"projectcalico.org/v3", "GlobalNetworkSet", "p", "", nothing, true},
		{"projectcalico.org/v3", "Tier", "mine", "", nothing, true},
		{"projectcalico.org/v3", "Tier", "default", "", all, true},
		{"projectcalico.org/v3", "Tier", "kube-admin", "", all, true},
		{"projectcalico.org/v3", "StagedNetworkPolicy", "p", "z", nothing, true},
		{"projectcalico.org/v3", "StagedGlobalNetworkPolicy", "p", "", nothing, true},
		{"projectcalico.org/v3", "StagedKubernetesNetworkPolicy", "p", "z", nothing, true},
		{"projectcalico.org/v3", "HostEndpoint", "p", "", all, false},
		{"projectcalico.org/v3", "Profile", "p", "", all, false},
		{"projectcalico.org/v3", "FelixConfiguration", "default", "", nothing, false},
		{"projectcalico.org/v3", "IPPool", "p", "", nothing, false},
		{"crd.projectcalico.org/v1", "GlobalNetworkPolicy", "p", "", all, true},
		{"crd.projectcalico.org/v1", "NetworkPolicy", "p", "z", fromOrToZ, true},
		{"cilium.io/v2", "CiliumNetworkPolicy", "p", "z", fromOrToZ, true},
		{"cilium.io/v2", "CiliumClusterwideNetworkPolicy", "p", "", all, true},
		{"cilium.io/v2", "CiliumCIDRGroup", "p", "", nothing, true},
		{"cilium.io/v2", "CiliumLocalRedirectPolicy", "p", "z", all, false},
		{"cilium.io/v2alpha1", "CiliumL2AnnouncementPolicy", "p", "", nothing, false},
		{"crd.antrea.io/v1beta1", "ClusterNetworkPolicy", "p", "", all, false},
		{"crd.antrea.io/v1beta1", "NetworkPolicy", "p", "z", fromOrToZ, false},
		{"crd.antrea.io/v1beta1", "Tier", "p", "", nothing, false},
		{"policy.antrea.io/v1", "NetworkPolicy", "p", "z", fromOrToZ, false},
		{"k8s.ovn.org/v1", "EgressFirewall", "default", "z", fromOrToZ, false},
		{"k8s.ovn.org/v1", "UserDefinedNetwork", "p", "z", all, false},
		{"k8s.ovn.org/v1", "EgressIP", "p", "", nothing, false},
		{"network.openshift.io/v1", "EgressNetworkPolicy", "p", "z", fromOrToZ, false},
		{"network.openshift.io/v1", "HostSubnet", "p", "", nothing, false},
		{"kubeovn.io/v1", "SecurityGroup", "p", "", all, false},
		{"kubeovn.io/v1", "Subnet", "p", "", all, false},
		{"crd.nsx.vmware.com/v1alpha1", "SecurityPolicy", "p", "z", all, false},
		{"networking.k8s.aws/v1alpha1", "ApplicationNetworkPolicy", "p", "z", all, false},
		{"k8s.cni.cncf.io/v1beta1", "MultiNetworkPolicy", "p", "z", all, false},
		{"k8s.cni.cncf.io/v1", "NetworkAttachmentDefinition", "p", "z", nothing, false},
		// The root namespace of a mesh is for all of it.
		{"security.istio.io/v1", "AuthorizationPolicy", "p", "z", all, false},
		{"security.istio.io/v1", "PeerAuthentication", "p", "z", all, false},
		{"networking.istio.io/v1", "Sidecar", "p", "z", all, false},
		{"networking.istio.io/v1", "VirtualService", "p", "z", nothing, false},
		{"policy.linkerd.io/v1beta3", "Server", "p", "z", all, false},
		{"kuma.io/v1alpha1", "MeshTrafficPermission", "p", "z", all, false},
		{"consul.hashicorp.com/v1alpha1", "ServiceIntentions", "p", "z", all, false},
		// Groups that nobody has heard of.
		{"networking.gke.io/v1alpha1", "FQDNNetworkPolicy", "p", "z", all, false},
		{"example.com/v1", "NetworkPolicy", "p", "z", all, false},
		{"example.com/v1", "TenantFirewall", "p", "", all, false},
		{"example.com/v1", "Database", "p", "z", nothing, false},
		{"kyverno.io/v1", "ClusterPolicy", "p", "", nothing, false},
		{"gateway.networking.k8s.io/v1", "HTTPRoute", "p", "z", nothing, false},
		{"policy/v1", "PodDisruptionBudget", "p", "z", nothing, false},
		{"policy/v1beta1", "PodSecurityPolicy", "p", "", nothing, false},
		{"admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy", "p", "", nothing, false},
		{"v1", "ConfigMap", "firewall", "z", nothing, false},
	} {
		t.Run(tc.apiVersion+" "+tc.kind+" "+tc.name, func(t *testing.T) {
			namespace := ""
			if tc.namespace != "" {
				namespace = ", namespace: " + tc.namespace
			}
			text := fmt.Sprintf("apiVersion: %s\nkind: %s\nmetadata: {name: %s%s}\nspec: {somethingOfItsOwn: 1}\n", tc.apiVersion, tc.kind, tc.name, namespace)
			s := mustLoad(t, map[string]string{"a.yaml": besidePods, "other.yaml": text})
			plan, err := s[0].Plan([]model.IPFamily{model.IPv4}, 1)
			require.NoError(t, err)
			assert.Empty(t, plan.Steps[0].Unjudged, "nothing is in force before any policy")
			objects := plan.Steps[1].Unjudged
			among := Undecided(objects, model.Connection{From: "x/a", To: "y/b"})
			out := Undecided(objects, model.Connection{From: "z/c", To: "y/b"})
			in := Undecided(objects, model.Connection{From: "host:h", To: "z/c"})
			outside := Undecided(objects, model.Connection{From: "node:0", To: "host:h"})
			switch tc.want {
			case nothing:
				assert.Empty(t, objects)
				return
			case fromOrToZ:
				assert.Empty(t, among)
				assert.Empty(t, outside)
			case all:
				assert.Len(t, among, 1)
				assert.Len(t, outside, 1)
			}
			require.Len(t, objects, 1)
			assert.Equal(t, objects, out)
			assert.Equal(t, objects, in)
			assert.Equal(t, tc.applied, objects[0].Applied)
			group, _ := schema.ParseGroupVersion(tc.apiVersion)
			assert.Equal(t, fmt.Sprintf("%s %s (other.yaml:1)", group.Group, policy.Ref{Kind: schema.GroupVersionKind{Kind: tc.kind}, Namespace: tc.namespace, Name: tc.name}), objects[0].String())
			if tc.applied {
				assert.Empty(t, s[0].LeftOut)
				return
			}
			assert.Equal(t, objects, s[0].LeftOut)
			assert.Contains(t, plan.Unproven, objects[0].String()+" is left out: nothing is proven about it")
			var said []string
			for _, w := range s[0].Warnings {
				said = append(said, w.Message)
			}
			assert.Contains(t, said, fmt.Sprintf("%s is left out: netproof does not apply policies of %s, so nothing is proven about it",
				policy.Ref{Kind: schema.GroupVersionKind{Kind: tc.kind}, Namespace: tc.namespace, Name: tc.name}, group.Group))
		})
	}
}

// The influence of what can be applied follows from its line in package policy.
func TestEveryPolicyThatIsAppliedHasAnInfluence(t *testing.T) {
	for _, kind := range policy.Kinds() {
		if kind.Family == policy.Kubernetes || kind.Role == policy.Tier {
			continue
		}
		r := influenceOf(kind.GroupKind, "p")
		assert.NotEqual(t, noPolicy, r, "%s", kind.GroupKind)
		assert.Equal(t, kind.Role == policy.Rules, r > inert, "%s", kind.GroupKind)
		if !kind.Namespaced {
			assert.NotEqual(t, ownNamespace, r, "%s", kind.GroupKind)
		}
	}
}

func TestAnUnnamedNamespaceIsDefault(t *testing.T) {
	s := mustLoad(t, map[string]string{"a.yaml": besidePods, "b.yaml": "apiVersion: crd.antrea.io/v1beta1\nkind: NetworkPolicy\nmetadata: {name: p}\n"})
	require.Len(t, s[0].LeftOut, 1)
	assert.True(t, s[0].LeftOut[0].MayDecide(model.Connection{From: "default/a", To: "x/a"}))
	assert.False(t, s[0].LeftOut[0].MayDecide(model.Connection{From: "y/b", To: "x/a"}))
}

func TestASlipInTheGroupIsNoOtherKind(t *testing.T) {
	for _, apiVersion := range []string{"networking.k8s.oi/v1", "network.k8s.io/v1", "projectcalico.og/v3", "extensions/v1beta1", "v1", "apps/v1"} {
		problems := problemsOf(t, map[string]string{"a.yaml": besidePods, "b.yaml": "apiVersion: " + apiVersion + "\nkind: NetworkPolicy\nmetadata: {name: p, namespace: x}\nspec: {podSelector: {}}\n"})
		assert.Contains(t, problems.Error(), "fix: write `apiVersion: networking.k8s.io/v1`", apiVersion)
	}
}

func TestAFolderWhosePoliciesAreAllLeftOutProvesNothing(t *testing.T) {
	const istio = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: x}\nspec: {}\n"
	s := mustLoad(t, map[string]string{"a.yaml": twoPods, "b.yaml": istio})
	plan, err := s[0].Plan([]model.IPFamily{model.IPv4}, 1)
	require.NoError(t, err)
	assert.Len(t, plan.Steps[1].Unjudged, 1)
	assert.Equal(t, []string{"security.istio.io AuthorizationPolicy x/p (b.yaml:1) is left out, and there is no other policy: nothing is proven"}, plan.Vacuous)

	_, err = load(map[string]string{"b.yaml": istio})
	require.ErrorIs(t, err, ErrNothing)
	assert.ErrorContains(t, err, "no policy in it that netproof applies (security.istio.io AuthorizationPolicy x/p (b.yaml:1) is left out)")
}

func TestPoliciesOfOtherKindsComeAndGo(t *testing.T) {
	const text = `apiVersion: netproof.dev/v1alpha1
kind: Scenario
metadata: {name: comes-and-goes}
spec:
  topology:
    namespaces: [{name: x}]
    pods: [{name: x/a, ports: [80/TCP]}, {name: x/b, ports: [80/TCP]}]
  steps:
    - {name: open, expect: {default: allow}}
    - name: shut
      apply: [{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: p, namespace: x}, spec: {}}]
      expect: {default: deny}
    - {name: still, expect: {default: deny}}
    - {name: open again, delete: [CiliumNetworkPolicy/x/p], expect: {default: allow}}
`
	s := mustLoad(t, map[string]string{"scenario.yaml": text})
	plan, err := s[0].Plan([]model.IPFamily{model.IPv4}, 1)
	require.NoError(t, err)
	var have []int
	for _, step := range plan.Steps {
		have = append(have, len(step.Unjudged))
	}
	assert.Equal(t, []int{0, 1, 1, 0}, have)
}

func TestOfManyObjectsTheFirstAreNamed(t *testing.T) {
	object := func(name string) Unjudged {
		return Unjudged{Group: "cilium.io", Kind: "CiliumNetworkPolicy", Namespace: "x", Name: name, Source: Position{"f.yaml", 3, 1}}
	}
	assert.Equal(t, "cilium.io CiliumNetworkPolicy x/a (f.yaml:3) and cilium.io CiliumNetworkPolicy x/b (f.yaml:3)", Names([]Unjudged{object("a"), object("b")}))
	assert.Regexp(t, `x/c \(f.yaml:3\) and 2 more$`, Names([]Unjudged{object("a"), object("b"), object("c"), object("d"), object("e")}))
	text, err := json.Marshal(object("a"))
	require.NoError(t, err)
	assert.JSONEq(t, `{"group": "cilium.io", "kind": "CiliumNetworkPolicy", "namespace": "x", "name": "a", "source": "f.yaml:3", "applied": false}`, string(text))
}

func TestAPolicyWithoutAVersionIsToldTheOneOfItsKind(t *testing.T) {
	for kind, version := range map[string]string{
		"NetworkPolicy": "networking.k8s.io/v1", "GlobalNetworkPolicy": "projectcalico.org/v3", "CiliumNetworkPolicy": "cilium.io/v2",
		"AdminNetworkPolicy": "policy.networking.k8s.io/v1alpha1", "ConfigMap": "networking.k8s.io/v1",
	} {
		problems := problemsOf(t, map[string]string{"a.yaml": "kind: " + kind + "\nmetadata: {name: p}\n"})
		assert.Contains(t, problems.Error(), "fix: add `apiVersion: "+version+"`", kind)
	}
}
