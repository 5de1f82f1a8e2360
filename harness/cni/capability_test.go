package cni

import (
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestTableHasNoOverlapAndNoHole(t *testing.T) {
	rows := map[string][]row{}
	for _, r := range table {
		rows[r.plugin] = append(rows[r.plugin], r)
	}
	for plugin, all := range rows {
		for i, r := range all {
			from, err := parseVersion(r.from)
			require.NoError(t, err)
			below, err := parseVersion(r.below)
			require.NoError(t, err)
			assert.True(t, from.less(below), "%s: the range from %s to %s is empty", plugin, r.from, r.below)
			if i > 0 {
				assert.Equal(t, all[i-1].below, r.from, "%s: a range begins where the one before it ends", plugin)
			}
		}
	}
}

func TestEveryRowSpeaksOfEveryFeatureAndNamesItsSource(t *testing.T) {
	for _, r := range table {
		assert.ElementsMatch(t, slices.Collect(maps.Keys(sentences)), slices.Collect(maps.Keys(r.claims)), "%s %s", r.plugin, r.from)
		for f, c := range r.claims {
			assert.NotEmpty(t, c.source, "%s %s: %s", r.plugin, r.from, f)
		}
		assert.NotEmpty(t, r.kindsSource, "%s %s", r.plugin, r.from)
	}
}

func TestVersionsBelongToTheRangeOfTheirNumbers(t *testing.T) {
	for _, c := range []struct {
		name, version string
		ok            bool
		baseline      bool
	}{
		{"calico", "v3.30.1", true, true},
		{"calico", "v3.30", true, true},
		{"calico", "3.29.9", true, false},
		{"calico", "v3.30.1-fips", true, true},
		{"calico", "v3.27.9", false, false},
		{"calico", "v4.0.0", false, false},
		{"calico", "master", false, false},
		{"calico", "", false, false},
		{"kindnet", "v20250214-acbabc1a", true, false},
		{"kindnet", "v20240202-8f1494ea", false, false},
		{"nobody", "v3.30.1", false, false},
	} {
		got, ok := CapabilitiesOf(c.name, c.version)
		assert.Equal(t, c.ok, ok, "%s %s", c.name, c.version)
		assert.Equal(t, c.baseline, supports(got, BaselineAdminNetworkPolicy), "%s %s", c.name, c.version)
	}
}

func TestMissingNamesWhatThePluginSaysItCannotDo(t *testing.T) {
	cilium, ok := CapabilitiesOf("cilium", "v1.15.19")
	require.True(t, ok)
	own := KindFeature(schema.GroupKind{Group: "cilium.io", Kind: "CiliumNetworkPolicy"})
	others := KindFeature(schema.GroupKind{Group: "crd.projectcalico.org", Kind: "GlobalNetworkPolicy"})
	unknown := KindFeature(schema.GroupKind{Group: "example.com", Kind: "Policy"})
	assert.Equal(t, []Feature{EndPort, others}, cilium.Missing(SCTP, EndPort, own, others, EndPort, unknown))
	assert.Equal(t, "cilium v1.15.19 does not enforce ranges of ports (endPort) "+
		"(Documentation/network/kubernetes/policy.rst, known missing features: port ranges, cilium issue 16622)", cilium.Reason(EndPort))
	assert.Contains(t, cilium.Reason(others), "cilium v1.15.19 does not enforce GlobalNetworkPolicy objects of crd.projectcalico.org")
	assert.Contains(t, cilium.Reason(unknown), "nothing is known")
	assert.True(t, supports(cilium, own))
	assert.False(t, supports(cilium, unknown), "nothing is said about it")
}

func TestNothingIsClaimedAboutAnUnknownPlugin(t *testing.T) {
	unknown, ok := CapabilitiesOf("nobody", "v1")
	assert.False(t, ok)
	assert.Empty(t, unknown.Missing(SCTP, EndPort))
	assert.False(t, supports(unknown, SCTP))
	require.NoError(t, unknown.Stale(SCTP))
}

func TestAFeatureThatIsSwitchedOffIsMissing(t *testing.T) {
	cilium, _ := CapabilitiesOf("cilium", "v1.15.19")
	without := cilium.Without(SCTP, "enable-sctp is not true").Without(IPv6, "no IPv6 here")
	assert.Equal(t, []Feature{SCTP, IPv6}, without.Missing(SCTP, DualStack, IPv6))
	assert.Contains(t, without.Reason(SCTP), "enable-sctp is not true")
	assert.Empty(t, cilium.Missing(SCTP), "the original stays as it was")
}

func TestAnEntryThatProvedWrongIsStale(t *testing.T) {
	cilium, _ := CapabilitiesOf("cilium", "v1.15.19")
	require.NoError(t, cilium.Stale(SCTP))
	assert.ErrorContains(t, cilium.Stale(SCTP, EndPort), "cilium v1.15.19 does not enforce ranges of ports")
}

func TestAdminPoliciesAreTheSameFeatureByKindAndByName(t *testing.T) {
	for _, f := range []Feature{AdminNetworkPolicy, BaselineAdminNetworkPolicy} {
		assert.Equal(t, f, KindFeature(schema.GroupKind{Group: "policy.networking.k8s.io", Kind: string(f)}))
	}
}

// supports tells whether the plugin says that it can do this.
func supports(c Capabilities, f Feature) bool {
	said, ok := c.claim(f)
	return ok && said.can
}
