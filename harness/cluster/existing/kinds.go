package existing

import (
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// The families of policies beyond NetworkPolicy.
const (
	// AdminPolicies are those of the Network Policy API, https://network-policy-api.sigs.k8s.io.
	AdminPolicies = "admin"
	// CalicoPolicies are Calico's own, as custom resources and through its API server.
	CalicoPolicies = "calico"
	// CiliumPolicies are Cilium's own.
	CiliumPolicies = "cilium"
)

// PolicyFamilies are all of them.
func PolicyFamilies() []string { return []string{AdminPolicies, CalicoPolicies, CiliumPolicies} }

// policyKinds are the kinds that scenarios apply, by family; "" is what every cluster has. They are those of harness/scenario.
var policyKinds = map[string][]schema.GroupResource{
	"": {{Group: "networking.k8s.io", Resource: "networkpolicies"}},
	AdminPolicies: {
		{Group: "policy.networking.k8s.io", Resource: "adminnetworkpolicies"},
		{Group: "policy.networking.k8s.io", Resource: "baselineadminnetworkpolicies"},
		{Group: "policy.networking.k8s.io", Resource: "clusternetworkpolicies"},
	},
	CalicoPolicies: slices.Concat(calicoKinds("crd.projectcalico.org"), calicoKinds("projectcalico.org")),
	CiliumPolicies: {
		{Group: "cilium.io", Resource: "ciliumnetworkpolicies"},
		{Group: "cilium.io", Resource: "ciliumclusterwidenetworkpolicies"},
		{Group: "cilium.io", Resource: "ciliumcidrgroups"},
	},
}

func calicoKinds(group string) []schema.GroupResource {
	var out []schema.GroupResource
	for _, resource := range []string{
		"networkpolicies", "globalnetworkpolicies", "networksets", "globalnetworksets", "tiers",
		"stagednetworkpolicies", "stagedglobalnetworkpolicies", "stagedkubernetesnetworkpolicies",
	} {
		out = append(out, schema.GroupResource{Group: group, Resource: resource})
	}
	return out
}

// clusterScoped are the kinds of policyKinds that are in no namespace.
var clusterScoped = []string{
	"adminnetworkpolicies", "baselineadminnetworkpolicies", "clusternetworkpolicies", "globalnetworkpolicies", "globalnetworksets", "tiers",
	"stagedglobalnetworkpolicies", "ciliumclusterwidenetworkpolicies", "ciliumcidrgroups",
}

// isPolicyKind tells whether scenarios apply objects of a kind.
func isPolicyKind(gr schema.GroupResource) bool {
	for _, kinds := range policyKinds {
		if slices.Contains(kinds, gr) {
			return true
		}
	}
	return false
}
