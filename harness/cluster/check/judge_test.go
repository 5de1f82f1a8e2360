package check

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/netproof/netproof/harness/model"
)

func TestAKernelWithoutIPv6MattersWhereItIsWanted(t *testing.T) {
	assert.Equal(t, Check{Name: "IPv6", State: OK}, IPv6(true, []model.IPFamily{model.IPv6}))
	assert.Equal(t, Limited, IPv6(false, []model.IPFamily{model.IPv4}).State)
	without := IPv6(false, []model.IPFamily{model.IPv4, model.IPv6})
	assert.Equal(t, Missing, without.State)
	assert.Contains(t, without.Fix, "disable_ipv6=0")
}

func TestSizesAreSaidInTheUnitThatFits(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 MiB", GiB - 1: "1023 MiB", GiB: "1.0 GiB", 9 * GiB / 2: "4.5 GiB"} {
		assert.Equal(t, want, Size(n))
	}
}
