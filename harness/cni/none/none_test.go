package none_test

import (
	"net/netip"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/cni/none"
)

func TestCNIConfigIsOneThatLibcniTakes(t *testing.T) {
	text, err := none.CNIConfig([]netip.Prefix{netip.MustParsePrefix("10.244.0.0/24"), netip.MustParsePrefix("fd00::/64")}, 1500)
	require.NoError(t, err)
	list, err := libcni.NetworkConfFromBytes(text)
	require.NoError(t, err)
	require.Len(t, list.Plugins, 1)
	assert.Equal(t, "ptp", list.Plugins[0].Network.Type)
	assert.Contains(t, string(list.Plugins[0].Bytes), "fd00::/64")
	assert.Contains(t, string(list.Plugins[0].Bytes), `"dst":"::/0"`)
}
