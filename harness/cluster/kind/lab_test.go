package kind

import (
	"crypto/rand"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

// rand16 is a text that is unlikely to come twice.
func rand16() string { return rand.Text()[:16] }

func address(t *testing.T, text string) netip.Addr {
	t.Helper()
	a, err := netip.ParseAddr(text)
	require.NoError(t, err)
	return a
}
