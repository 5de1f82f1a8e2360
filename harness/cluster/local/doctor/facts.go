package doctor

import (
	"github.com/netproof/netproof/harness/cluster/local/engine"
	"github.com/netproof/netproof/harness/cluster/local/hosttools"
	"github.com/netproof/netproof/harness/model"
)

// Facts are what [Judge] judges.
type Facts struct {
	// System is Go's name of the operating system unless that is Linux. Then nothing was looked at but Sandbox, which
	// says what is needed.
	System string

	// CNI is the network plugin that is wanted, and Families are the addresses that pods are to have.
	CNI      string
	Families []model.IPFamily

	OS   hosttools.OS
	Root bool
	// Kernel is its release, CPUs how many may be used.
	Kernel string
	Arch   string
	CPUs   int

	// Sandbox is nil when one could be made.
	Sandbox       error
	UserNamespace bool
	// Network says for each thing that a cluster makes in the kernel why it could not be made, "" if it could. It is
	// nil when that could not be tried, because of NetworkErr.
	Network    []NetworkFact
	NetworkErr error

	// Tools are those of the machine with their paths, "" for those it lacks.
	Tools []ToolFact
	// GoPath is empty when there is no Go, GoVersion then too.
	GoPath, GoVersion string

	Engines    []engine.State
	EnginesErr error
	CacheDir   string
	// FreeBytes of the file system that holds the cache.
	FreeBytes    uint64
	FreeBytesErr error

	// MemoryAvailable is what the kernel says can be had without swapping, MemoryLimit that of the control group, 0 for
	// none.
	MemoryAvailable, MemoryLimit uint64
	// Cgroup is the version of the control groups, 0 for none.
	Cgroup int

	// SCTP is nil when the kernel makes SCTP sockets.
	SCTP error
	// IPv6 is false when the kernel has none, or has it switched off for all interfaces.
	IPv6 bool
}

// ToolFact is a program of the machine and where it was found.
type ToolFact struct {
	hosttools.Tool
	Path string
}

// NetworkFact is a thing that a cluster makes in the kernel.
type NetworkFact struct {
	Name string `json:"name"`
	// Error is empty when it could be made.
	Error string `json:"error,omitempty"`
	// Needed is true when no cluster works without it.
	Needed bool `json:"needed"`
}
