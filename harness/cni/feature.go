package cni

import (
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/netproof/netproof/harness/policy"
)

// Feature is something that a scenario can need of a network plugin and that not every plugin has: one of the constants
// below, or a kind of policy, made by [KindFeature].
type Feature string

// The features that the table speaks of.
const (
	// SCTP is a policy's rule for SCTP ports.
	SCTP Feature = "SCTP"
	// EndPort is a range of ports in a NetworkPolicy.
	EndPort Feature = "EndPort"
	// PodIPBlock is an ipBlock of a NetworkPolicy that covers addresses of pods. The API reference leaves open whether
	// such a block selects pods, so a plugin that cannot do it is not wrong.
	PodIPBlock Feature = "PodIPBlock"
	// IPv6 is policies for pods with IPv6 addresses.
	IPv6 Feature = "IPv6"
	// DualStack is policies for pods with an address of each family.
	DualStack Feature = "DualStack"
	// AdminNetworkPolicy is the kind of that name in policy.networking.k8s.io.
	AdminNetworkPolicy Feature = "AdminNetworkPolicy"
	// BaselineAdminNetworkPolicy is the kind of that name in policy.networking.k8s.io.
	BaselineAdminNetworkPolicy Feature = "BaselineAdminNetworkPolicy"
)

// sentences say what each feature is, in words that follow "it can enforce".
var sentences = map[Feature]string{
	SCTP:                       "policies for SCTP",
	EndPort:                    "ranges of ports (endPort)",
	PodIPBlock:                 "an ipBlock that covers pods",
	IPv6:                       "policies for IPv6",
	DualStack:                  "policies for pods with an address of each IP family",
	AdminNetworkPolicy:         "AdminNetworkPolicy objects",
	BaselineAdminNetworkPolicy: "BaselineAdminNetworkPolicy objects",
}

const kindPrefix = "kind:"

// KindFeature is the feature of enforcing policies of a kind. For kinds that have a constant it is that constant.
func KindFeature(kind schema.GroupKind) Feature {
	if kind.Group == policy.AdminGroup {
		for _, f := range []Feature{AdminNetworkPolicy, BaselineAdminNetworkPolicy} {
			if kind.Kind == string(f) {
				return f
			}
		}
	}
	return Feature(kindPrefix + kind.String())
}

// kind is the reverse of [KindFeature]; ok is false for the constants.
func (f Feature) kind() (schema.GroupKind, bool) {
	text, ok := strings.CutPrefix(string(f), kindPrefix)
	return schema.ParseGroupKind(text), ok
}

// String says what the feature is, in words that follow "it can enforce".
func (f Feature) String() string {
	if kind, ok := f.kind(); ok {
		return kind.Kind + " objects of " + kind.Group
	}
	if s, ok := sentences[f]; ok {
		return s
	}
	return string(f)
}
