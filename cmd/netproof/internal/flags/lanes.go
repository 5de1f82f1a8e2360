package flags

import (
	"fmt"
	"strconv"

	"github.com/spf13/pflag"

	"github.com/netproof/netproof/harness/cluster/providers"
)

// Lanes is the flag --lanes: how many scenarios run side by side in one cluster. 0 is auto.
type Lanes int

var _ pflag.Value = (*Lanes)(nil)

func (l *Lanes) String() string {
	if *l == 0 {
		return "auto"
	}
	return strconv.Itoa(int(*l))
}

// Type is what help texts show for the value.
func (*Lanes) Type() string { return "number" }

// Set reads a number or auto.
func (l *Lanes) Set(text string) error {
	if text == "auto" {
		*l = 0
		return nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > providers.MaxLanes {
		return fmt.Errorf("write auto, or a number from 1 to %d", providers.MaxLanes)
	}
	*l = Lanes(n)
	return nil
}

// Count is the number of lanes on a cluster of a provider.
func (l Lanes) Count(provider string) int {
	if l > 0 {
		return int(l)
	}
	return providers.Lanes(provider)
}
