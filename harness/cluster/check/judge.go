package check

import (
	"fmt"
	"slices"

	"github.com/netproof/netproof/harness/model"
)

// IPv6 judges whether the kernel has it, for a cluster with these addresses.
func IPv6(have bool, wanted []model.IPFamily) Check {
	c := Check{Name: "IPv6", State: OK}
	if have {
		return c
	}
	c.State, c.Detail, c.Fix = Limited, "--ip-family ipv6 and dual do not work",
		"boot without ipv6.disable=1, and sysctl -w net.ipv6.conf.default.disable_ipv6=0"
	if slices.Contains(wanted, model.IPv6) {
		c.State = Missing
	}
	return c
}

// GiB is 2^30 bytes.
const GiB = 1 << 30

// Size says a number of bytes in MiB or GiB.
func Size(n uint64) string {
	if n < GiB {
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/GiB)
}
