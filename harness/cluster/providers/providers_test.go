package providers

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/model"
)

func TestEveryProviderOffersWhatItHasAndNothingElse(t *testing.T) {
	assert.Equal(t, "local: calico, none; kind: calico, cilium, kindnet", Offer())
	for _, provider := range Names() {
		for _, plugin := range Plugins(provider) {
			assert.NoError(t, CheckPlugin(provider, plugin), "%s %s", provider, plugin)
		}
	}
	require.EqualError(t, CheckPlugin(Local, "cilium"), "the provider local has calico or none; the provider kind has cilium")
	require.EqualError(t, CheckPlugin(Kind, "none"), "the provider kind has calico or cilium or kindnet; the provider local has none")
	require.EqualError(t, CheckPlugin(Local, "flannel"), "the provider local has calico or none")
	require.NoError(t, CheckPlugin(Existing, "anything"), "an existing cluster has what it has")
}

func TestEveryNameOfIPFamiliesHasSome(t *testing.T) {
	for _, name := range IPFamilyNames() {
		families, ok := IPFamilies(name)
		assert.True(t, ok, name)
		assert.NotEmpty(t, families, name)
	}
	families, _ := IPFamilies("dual")
	assert.Equal(t, []model.IPFamily{model.IPv4, model.IPv6}, families, "the primary one first")
	_, ok := IPFamilies("ipv5")
	assert.False(t, ok)
}
