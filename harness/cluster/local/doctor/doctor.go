package doctor

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/netproof/netproof/harness/cluster/local/hosttools"
	"github.com/netproof/netproof/harness/cluster/local/sandbox"
	"github.com/netproof/netproof/harness/model"
)

// State is what a check came to.
type State string

// The states.
const (
	OK State = "ok"
	// Limited: clusters work, but some scenarios or comforts do not.
	Limited State = "limited"
	// Missing: no cluster can be made.
	Missing State = "missing"
)

// Check is one thing that was looked at.
type Check struct {
	Name   string `json:"name"`
	State  State  `json:"state"`
	Detail string `json:"detail,omitempty"`
	// Mend is a command or a setting; empty when nothing has to be mended, or nothing can.
	Mend string `json:"mend,omitempty"`
}

const gib = 1 << 30

// What a cluster and a build need. A cluster of two nodes takes 800 MB; the linker takes 3 GB for the largest program;
// sources, packages and programs of all engines take 7 GB of disk, the programs alone less than 1 GB.
const (
	memoryToRun   = 1 * gib
	memoryToBuild = 4 * gib
	diskToRun     = 1 * gib
	diskToBuild   = 8 * gib
)

// Judge turns facts into checks, in the order in which to mend what is missing.
func Judge(f Facts) []Check {
	checks := []Check{{Name: "kernel", State: OK, Detail: fmt.Sprintf("Linux %s on %s, %d CPUs", f.Kernel, f.Arch, f.CPUs)}}
	checks = append(checks, judgeSandbox(f))
	checks = append(checks, judgeNetwork(f)...)
	checks = append(checks, judgeTools(f)...)
	engines, built := judgeEngines(f)
	checks = append(checks, judgeGo(f, built), engines, judgeDisk(f, built), judgeMemory(f, built), judgeGroups(f))
	return append(checks, judgeIPv6(f), judgeSCTP(f))
}

// Missed tells whether anything is missing.
func Missed(checks []Check) bool {
	for _, c := range checks {
		if c.State == Missing {
			return true
		}
	}
	return false
}

func judgeSandbox(f Facts) Check {
	c := Check{Name: "sandbox", State: OK, Detail: "network, mount and PID namespaces as root"}
	if f.UserNamespace {
		c.Detail = "network, mount and PID namespaces in a user namespace, without root"
	}
	if f.Sandbox == nil {
		return c
	}
	c.State, c.Detail = Missing, f.Sandbox.Error()
	var unavailable *sandbox.UnavailableError
	if errors.As(f.Sandbox, &unavailable) {
		c.Detail = unavailable.Step
		if unavailable.Err != nil {
			c.Detail += ": " + unavailable.Err.Error()
		}
		var mends []string
		for _, o := range unavailable.Obstacles {
			c.Detail += "; " + o.Cause
			mends = append(mends, o.Mend)
		}
		c.Mend = strings.Join(mends, "; ")
	}
	return c
}

func judgeNetwork(f Facts) []Check {
	if f.Sandbox != nil {
		return nil // nothing could be tried, and the reason has been said
	}
	if f.NetworkErr != nil {
		return []Check{{Name: "kernel network", State: Missing, Detail: f.NetworkErr.Error()}}
	}
	var names []string
	var checks []Check
	for _, n := range f.Network {
		if n.Error == "" {
			names = append(names, n.Name)
			continue
		}
		c := Check{Name: n.Name, State: Limited, Detail: n.Error, Mend: "use a kernel that has it, or load its module as root"}
		if n.Needed {
			c.State = Missing
		}
		checks = append(checks, c)
	}
	if len(names) > 0 {
		checks = append([]Check{{Name: "kernel network", State: OK, Detail: strings.Join(names, ", ")}}, checks...)
	}
	return checks
}

func judgeTools(f Facts) []Check {
	var checks []Check
	for _, tool := range f.Tools {
		c := Check{Name: tool.Name, State: OK, Detail: tool.Path}
		if tool.Path == "" {
			c.State, c.Detail = Missing, tool.Purpose
			if tool.Optional {
				c.State = Limited
			}
			c.Mend = hosttools.Install(f.OS, []hosttools.Tool{tool.Tool}, f.Root)
		}
		checks = append(checks, c)
	}
	return checks
}

// judgeEngines also tells whether all engines are built.
func judgeEngines(f Facts) (Check, bool) {
	c := Check{Name: "engines", State: OK}
	if f.EnginesErr != nil {
		c.State, c.Detail = Missing, f.EnginesErr.Error()
		return c, false
	}
	var built, lacking []string
	var size int64
	for _, e := range f.Engines {
		text := e.Engine + " " + e.Version
		if e.Built {
			built = append(built, text)
			size += e.Size
		} else {
			lacking = append(lacking, text)
		}
	}
	if len(lacking) == 0 {
		c.Detail = fmt.Sprintf("%s (%d MB in %s)", strings.Join(built, ", "), size/1_000_000, f.CacheDir)
		return c, true
	}
	c.State = Limited
	c.Detail = fmt.Sprintf("not built yet: %s; the first run builds them, once, in some minutes", strings.Join(lacking, ", "))
	c.Mend = "make setup, or just run"
	return c, false
}

func judgeGo(f Facts, built bool) Check {
	c := Check{Name: "go", State: OK, Detail: strings.TrimSpace(f.GoVersion + " " + f.GoPath)}
	if f.GoPath != "" {
		return c
	}
	c.Detail, c.Mend = hosttools.Go.Purpose, hosttools.Install(f.OS, []hosttools.Tool{hosttools.Go}, f.Root)
	if c.State = Missing; built {
		c.State, c.Detail = Limited, "not needed as long as the engines in the cache are used"
	}
	return c
}

func judgeDisk(f Facts, built bool) Check {
	need := uint64(diskToBuild)
	if built {
		need = diskToRun
	}
	if f.FreeBytesErr != nil {
		return Check{Name: "disk", State: Limited, Detail: f.FreeBytesErr.Error()}
	}
	c := Check{Name: "disk", State: OK, Detail: fmt.Sprintf("%s free for %s", size(f.FreeBytes), f.CacheDir)}
	if f.FreeBytes < need {
		c.State = Missing
		c.Mend = fmt.Sprintf("free %s, or set NETPROOF_CACHE, GOCACHE and GOMODCACHE to folders that have room", size(need-f.FreeBytes))
	}
	return c
}

func judgeMemory(f Facts, built bool) Check {
	have := f.MemoryAvailable
	c := Check{Name: "memory", State: OK, Detail: size(f.MemoryAvailable) + " available"}
	if f.MemoryLimit > 0 {
		c.Detail += ", control group limited to " + size(f.MemoryLimit)
		have = min(have, f.MemoryLimit)
	}
	switch {
	case have < memoryToRun:
		c.State, c.Mend = Missing, "a cluster of two nodes takes 800 MB: free some memory, or raise the limit"
	case !built && have < memoryToBuild:
		c.State, c.Mend = Limited, "building the engines may take 4 GiB: build them elsewhere and use --engine-dir"
	}
	return c
}

func judgeGroups(f Facts) Check {
	c := Check{Name: "cgroups", State: OK, Detail: fmt.Sprintf("version %d", f.Cgroup)}
	if f.Cgroup == 0 {
		c.Detail = "none; nothing depends on them"
	}
	return c
}

func judgeIPv6(f Facts) Check {
	if f.IPv6 {
		return Check{Name: "IPv6", State: OK}
	}
	c := Check{Name: "IPv6", State: Limited, Detail: "--ip-family ipv6 and dual do not work",
		Mend: "boot without ipv6.disable=1, and sysctl -w net.ipv6.conf.default.disable_ipv6=0"}
	if slices.Contains(f.Families, model.IPv6) {
		c.State = Missing
	}
	return c
}

func judgeSCTP(f Facts) Check {
	if f.SCTP == nil {
		return Check{Name: "SCTP", State: OK}
	}
	return Check{Name: "SCTP", State: Limited, Detail: f.SCTP.Error() + "; cells that need it are unsupported",
		Mend: "modprobe sctp as root, or a kernel with CONFIG_IP_SCTP"}
}

func size(n uint64) string {
	if n < gib {
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/gib)
}
