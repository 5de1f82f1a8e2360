package providers

import (
	"runtime"

	"github.com/netproof/netproof/harness/meminfo"
)

// MaxLanes is the largest number of lanes that may be asked for. More would wait for each other on every machine.
const MaxLanes = 32

// laneMemory is how much of the memory that is left is reserved for a lane, in bytes.
const laneMemory = 512 << 20

// Lanes is how many scenarios this machine bears side by side on a cluster of a provider. Scenarios mostly wait, so it
// is two for each processor that this process may use, as far as there is memory, and not more than four. On kind,
// where a pod is a container that kubelets start on the same processors, it is one for two processors: more were seen
// to starve the container runtime. On a cluster that others use it is one.
func Lanes(provider string) int {
	lanes := 2 * runtime.GOMAXPROCS(0)
	switch provider {
	case Existing:
		return 1
	case Kind:
		lanes /= 4
	}
	return bearable(lanes, meminfo.Available())
}

// bearable is the number of lanes where processors bear so many, and this is the memory; 0 is unknown.
func bearable(lanes int, memory uint64) int {
	n := min(4, lanes)
	if memory > 0 {
		n = min(n, int(memory/laneMemory)) //nolint:gosec // it fits, divided
	}
	return max(1, n)
}
