//go:build linux

package local

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestProxyModeIsOneThatKernelAndToolCanDo(t *testing.T) {
	for _, c := range []struct{ kernel, nft, want string }{
		{"6.1.0-18-amd64", "nftables v1.0.6 (Lester Gooch #5)", "nftables"},
		{"5.13.0", "nftables v1.0.1", "nftables"},
		{"5.12.19", "nftables v1.0.6", "iptables"},
		{"4.18.0-553.el8_10.x86_64", "nftables v1.0.4", "iptables"},
		{"6.1.0", "nftables v1.0.0 (Fearless Fosdick)", "iptables"},
		{"6.1.0", "nftables v0.9.8", "iptables"},
		{"6.1.0", "", "iptables"},
		{"10.0-rc1", "nftables v2.0", "nftables"},
	} {
		assert.Equal(t, c.want, proxyMode(c.kernel, c.nft), "%s, %s", c.kernel, c.nft)
	}
}
