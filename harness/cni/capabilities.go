package cni

import (
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/netproof/netproof/harness/policy"
)

// table says what each plugin can do, the rows of a plugin from old to new and without a gap. A version that is not
// here is one that nobody has looked up yet: add its row with the sources, or leave it out, and nothing is claimed
// about it.
//
// A source is a section of the vendor's documentation, a release note, or a file of the vendor's source at that
// version.
var table = []row{
	{
		plugin: "calico", from: "v3.28", below: "v3.29",
		claims: calicoClaims(map[Feature]claim{
			AdminNetworkPolicy:         {false, "new in v3.29, release-notes/v3.29.0-release-notes.md"},
			BaselineAdminNetworkPolicy: {false, "new in v3.30, release-notes/v3.30.0-release-notes.md"},
		}),
		kinds: calicoKinds(), kindsSource: calicoKindsSource,
	},
	{
		plugin: "calico", from: "v3.29", below: "v3.30",
		claims: calicoClaims(map[Feature]claim{
			AdminNetworkPolicy:         {true, "release-notes/v3.29.0-release-notes.md, k8s AdminNetworkPolicy support"},
			BaselineAdminNetworkPolicy: {false, "new in v3.30, release-notes/v3.30.0-release-notes.md"},
		}),
		kinds: calicoKinds(policy.Tier), kindsSource: calicoKindsSource,
	},
	{
		plugin: "calico", from: "v3.30", below: "v3.31",
		claims: calicoClaims(map[Feature]claim{
			AdminNetworkPolicy:         {true, "release-notes/v3.29.0-release-notes.md, k8s AdminNetworkPolicy support"},
			BaselineAdminNetworkPolicy: {true, "release-notes/v3.30.0-release-notes.md, calico 9464"},
		}),
		kinds: calicoKinds(policy.Tier), kindsSource: calicoKindsSource,
	},
	{
		plugin: "cilium", from: "v1.15", below: "v1.16",
		claims: ciliumClaims(claim{false, ciliumKnownMissing + "port ranges, cilium issue 16622"}),
		kinds:  ciliumKinds(), kindsSource: ciliumKindsSource,
	},
	{
		plugin: "cilium", from: "v1.16", below: "v1.17",
		claims: ciliumClaims(claim{true, "new in v1.16, cilium pull request 33389"}),
		kinds:  ciliumKinds(), kindsSource: ciliumKindsSource,
	},
	{
		// kind's releases from v0.24.0, whose kindnetd was the first to enforce policies, to v0.33.0.
		plugin: "kindnet", from: "v20240813", below: "v20260821",
		claims: map[Feature]claim{
			SCTP:                       {true, "sigs.k8s.io/kube-network-policies, pkg/network/packet.go"},
			EndPort:                    {true, "sigs.k8s.io/kube-network-policies, pkg/pipeline/networkpolicy.go"},
			PodIPBlock:                 {true, "sigs.k8s.io/kube-network-policies, pkg/pipeline/networkpolicy.go"},
			IPv6:                       {true, kindFamilies},
			DualStack:                  {true, kindFamilies},
			AdminNetworkPolicy:         {false, kindnetRole},
			BaselineAdminNetworkPolicy: {false, kindnetRole},
		},
		kindsSource: kindnetRole,
	},
}

const (
	calicoSCTP        = "docs.tigera.io/calico, reference, resources, NetworkPolicy: protocols of a rule"
	calicoPorts       = "libcalico-go/lib/backend/k8s/conversion/conversion.go, k8sPortToCalico"
	calicoNets        = "libcalico-go/lib/backend/k8s/conversion/conversion.go, k8sPeerToCalicoFields"
	calicoFamilies    = "docs.tigera.io/calico, networking, IPAM, configure dual stack or IPv6 only"
	calicoKindsSource = "manifests/crds.yaml; docs.tigera.io/calico, reference, resources"

	ciliumKnownMissing = "Documentation/network/kubernetes/policy.rst, known missing features: "
	ciliumKindsSource  = "Documentation/network/kubernetes/policy.rst; pkg/k8s/apis/cilium.io/client/crds"

	kindFamilies = "kind.sigs.k8s.io, configuration, networking: ipFamily"
	kindnetRole  = "the ClusterRole kindnet of kind's default CNI manifest reads no such objects"
)

// calicoClaims are what the versions of Calico have in common, and what is particular to one.
func calicoClaims(particular map[Feature]claim) map[Feature]claim {
	claims := map[Feature]claim{
		SCTP:       {true, calicoSCTP},
		EndPort:    {true, calicoPorts},
		PodIPBlock: {true, calicoNets},
		IPv6:       {true, calicoFamilies},
		DualStack:  {true, calicoFamilies},
	}
	for f, c := range particular {
		claims[f] = c
	}
	return claims
}

// calicoKinds leaves out the staged policies, which decide nothing, and the group projectcalico.org, which only an
// installation with Calico's API server serves. Host endpoints decide too, and netproof applies none.
func calicoKinds(also ...policy.Role) []schema.GroupKind {
	return append(kindsOf(policy.CalicoGroup, append(also, policy.Rules, policy.Set)...), schema.GroupKind{Group: policy.CalicoGroup, Kind: "HostEndpoint"})
}

// kindsOf are the kinds of a group with one of the roles.
func kindsOf(group string, roles ...policy.Role) []schema.GroupKind {
	var kinds []schema.GroupKind
	for _, k := range policy.OfGroup(group) {
		if slices.Contains(roles, k.Role) {
			kinds = append(kinds, k.GroupKind)
		}
	}
	return kinds
}

// ciliumClaims are what the versions of Cilium have in common, and what each says about ranges of ports. SCTP is for
// installations with sctp.enabled, as netproof makes them; package install finds out about others.
func ciliumClaims(endPort claim) map[Feature]claim {
	const noAdmin = "cilium issue 23380, support for ClusterNetworkPolicy, came later"
	return map[Feature]claim{
		SCTP:                       {true, "Documentation/configuration/sctp.rst, with sctp.enabled"},
		EndPort:                    endPort,
		PodIPBlock:                 {false, ciliumKnownMissing + "ipBlock set with a pod IP, cilium issue 9209"},
		IPv6:                       {true, "Documentation/helm-values.rst, ipv6.enabled"},
		DualStack:                  {true, "Documentation/helm-values.rst, ipv4.enabled and ipv6.enabled"},
		AdminNetworkPolicy:         {false, noAdmin},
		BaselineAdminNetworkPolicy: {false, noAdmin},
	}
}

func ciliumKinds() []schema.GroupKind { return kindsOf(policy.CiliumGroup, policy.Rules, policy.Set) }
