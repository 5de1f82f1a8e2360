package policy

import (
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// The families of policies. A family is a set of kinds that users name with one word.
const (
	// Kubernetes is NetworkPolicy alone, which every cluster has.
	Kubernetes = ""
	// Admin is the Network Policy API: https://network-policy-api.sigs.k8s.io.
	Admin = "admin"
	// Calico is Calico's own kinds, as custom resources and through its API server.
	Calico = "calico"
	// Cilium is Cilium's own kinds.
	Cilium = "cilium"
)

// Families are those beyond NetworkPolicy.
func Families() []string { return []string{Admin, Calico, Cilium} }

// Describe says in plain words what the objects of a family are, such as "Calico's own policies".
func Describe(family string) string {
	switch family {
	case Admin:
		return "policies of the Network Policy API"
	case Calico:
		return "Calico's own policies"
	case Cilium:
		return "Cilium's own policies"
	}
	return "NetworkPolicies"
}

// The API groups of the kinds.
const (
	KubernetesGroup = "networking.k8s.io"
	AdminGroup      = "policy.networking.k8s.io"
	// CalicoGroup is that of Calico's custom resources.
	CalicoGroup = "crd.projectcalico.org"
	// CalicoAPIGroup is that of the same objects through Calico's API server.
	CalicoAPIGroup = "projectcalico.org"
	CiliumGroup    = "cilium.io"
)

// Role is what objects of a kind are for.
type Role int

const (
	// Rules allow or deny connections. Those of a namespaced kind select pods of their own namespace alone:
	//
	//   - a NetworkPolicy of Calico "only applies to workload endpoint resources in that namespace":
	//     https://docs.tigera.io/calico/latest/reference/resources/networkpolicy
	//   - an endpointSelector of a CiliumNetworkPolicy gets the policy's namespace added to it:
	//     https://docs.cilium.io/en/stable/network/kubernetes/policy/
	Rules Role = iota
	// Set is a list of addresses that rules select. It decides nothing by itself.
	Set
	// Tier orders other policies. It decides nothing by itself, unless policies of Kubernetes' own kinds are in it.
	Tier
	// Staged rules are counted and not enforced.
	Staged
)

// Kind is one kind of policies, or of the objects that policies are made of.
type Kind struct {
	schema.GroupKind

	// Resource is what the API server calls the kind in paths, such as networkpolicies.
	Resource string
	// Version is the one that people usually write.
	Version string
	// Namespaced is false for kinds of the cluster's scope.
	Namespaced bool
	Role       Role
	Family     string
	// Tiered is true for policies that say in which tier they are. Whoever changes one needs rights on that as well.
	Tiered bool
}

// GroupResource names the kind as rights do.
func (k Kind) GroupResource() schema.GroupResource {
	return schema.GroupResource{Group: k.Group, Resource: k.Resource}
}

// NetworkPolicy is the kind of Kubernetes' own policies.
var NetworkPolicy = schema.GroupVersionKind{Group: KubernetesGroup, Version: "v1", Kind: "NetworkPolicy"}

const (
	inNamespace = true
	inCluster   = false
)

// table holds the kinds that can be applied. Kinds of the same groups that configure the network plugin itself are left
// out: they would change the cluster beneath the proof.
var table = slices.Concat(
	[]Kind{kind(Kubernetes, KubernetesGroup, "v1", "NetworkPolicy", "networkpolicies", inNamespace, Rules)},
	[]Kind{
		kind(Admin, AdminGroup, "v1alpha1", "AdminNetworkPolicy", "adminnetworkpolicies", inCluster, Rules),
		kind(Admin, AdminGroup, "v1alpha1", "BaselineAdminNetworkPolicy", "baselineadminnetworkpolicies", inCluster, Rules),
		kind(Admin, AdminGroup, "v1alpha2", "ClusterNetworkPolicy", "clusternetworkpolicies", inCluster, Rules),
	},
	calico(CalicoGroup, "v1"),
	calico(CalicoAPIGroup, "v3"),
	[]Kind{
		kind(Cilium, CiliumGroup, "v2", "CiliumNetworkPolicy", "ciliumnetworkpolicies", inNamespace, Rules),
		kind(Cilium, CiliumGroup, "v2", "CiliumClusterwideNetworkPolicy", "ciliumclusterwidenetworkpolicies", inCluster, Rules),
		kind(Cilium, CiliumGroup, "v2alpha1", "CiliumCIDRGroup", "ciliumcidrgroups", inCluster, Set),
	},
)

func calico(group, version string) []Kind {
	return []Kind{
		tiered(kind(Calico, group, version, "NetworkPolicy", "networkpolicies", inNamespace, Rules)),
		tiered(kind(Calico, group, version, "GlobalNetworkPolicy", "globalnetworkpolicies", inCluster, Rules)),
		kind(Calico, group, version, "NetworkSet", "networksets", inNamespace, Set),
		kind(Calico, group, version, "GlobalNetworkSet", "globalnetworksets", inCluster, Set),
		kind(Calico, group, version, "Tier", "tiers", inCluster, Tier),
		tiered(kind(Calico, group, version, "StagedNetworkPolicy", "stagednetworkpolicies", inNamespace, Staged)),
		tiered(kind(Calico, group, version, "StagedGlobalNetworkPolicy", "stagedglobalnetworkpolicies", inCluster, Staged)),
		kind(Calico, group, version, "StagedKubernetesNetworkPolicy", "stagedkubernetesnetworkpolicies", inNamespace, Staged),
	}
}

func kind(family, group, version, name, resource string, namespaced bool, role Role) Kind {
	return Kind{
		GroupKind: schema.GroupKind{Group: group, Kind: name}, Resource: resource, Version: version, Namespaced: namespaced, Role: role, Family: family,
	}
}

func tiered(k Kind) Kind {
	k.Tiered = true
	return k
}

// Kinds are all kinds that netproof can apply, in the order of the table: by family, and those of an API group
// together.
func Kinds() []Kind { return slices.Clone(table) }

// OfFamily are the kinds of a family.
func OfFamily(family string) []Kind { return having(func(k Kind) bool { return k.Family == family }) }

// OfGroup are the kinds of an API group; none for a group that is not in the table.
func OfGroup(group string) []Kind { return having(func(k Kind) bool { return k.Group == group }) }

func having(property func(Kind) bool) []Kind {
	return slices.DeleteFunc(Kinds(), func(k Kind) bool { return !property(k) })
}

// Lookup finds a kind; ok is false for one that netproof cannot apply.
func Lookup(kind schema.GroupKind) (found Kind, ok bool) {
	return first(func(k Kind) bool { return k.GroupKind == kind })
}

// LookupResource finds a kind by what the API server calls it.
func LookupResource(resource schema.GroupResource) (found Kind, ok bool) {
	return first(func(k Kind) bool { return k.GroupResource() == resource })
}

func first(property func(Kind) bool) (Kind, bool) {
	i := slices.IndexFunc(table, property)
	if i < 0 {
		return Kind{}, false
	}
	return table[i], true
}
