package doctor

import (
	"errors"
	"fmt"
	"strings"

	"github.com/netproof/netproof/harness/cluster/check"
	"github.com/netproof/netproof/harness/cluster/local/hosttools"
	"github.com/netproof/netproof/harness/cluster/local/sandbox"
)

// What a cluster and a build need. A cluster of two nodes takes 800 MB; the linker takes 3 GB for the largest program;
// sources, packages and programs of all engines take 7 GB of disk, the programs alone less than 1 GB.
const (
	memoryToRun   = 1 * check.GiB
	memoryToBuild = 4 * check.GiB
	diskToRun     = 1 * check.GiB
	diskToBuild   = 8 * check.GiB
)

// Judge turns facts into checks, in the order in which to fix what is missing.
func Judge(f Facts) []check.Check {
	if f.System != "" {
		return []check.Check{judgeSandbox(f)}
	}
	checks := []check.Check{{Name: "kernel", State: check.OK, Detail: fmt.Sprintf("Linux %s on %s, %d CPUs", f.Kernel, f.Arch, f.CPUs)}}
	checks = append(checks, judgeSandbox(f))
	checks = append(checks, judgeNetwork(f)...)
	checks = append(checks, judgeTools(f)...)
	engines, built := judgeEngines(f)
	checks = append(checks, judgeGo(f, built), engines, judgeDisk(f, built), judgeMemory(f, built), judgeGroups(f))
	return append(checks, check.IPv6(f.IPv6, f.Families), judgeSCTP(f))
}

func judgeSandbox(f Facts) check.Check {
	c := check.Check{Name: "sandbox", State: check.OK, Detail: "network, mount and PID namespaces as root"}
	if f.UserNamespace {
		c.Detail = "network, mount and PID namespaces in a user namespace, without root"
	}
	if f.Sandbox == nil {
		return c
	}
	c.State, c.Detail = check.Missing, f.Sandbox.Error()
	var unavailable *sandbox.UnavailableError
	if errors.As(f.Sandbox, &unavailable) {
		c.Detail = unavailable.Step
		if unavailable.Err != nil {
			c.Detail += ": " + unavailable.Err.Error()
		}
		var fixes []string
		for _, o := range unavailable.Obstacles {
			c.Detail += "; " + o.Cause
			fixes = append(fixes, o.Fix)
		}
		c.Fix = strings.Join(fixes, "; ")
	}
	return c
}

func judgeNetwork(f Facts) []check.Check {
	if f.Sandbox != nil {
		return nil // nothing could be tried, and the reason has been said
	}
	if f.NetworkErr != nil {
		return []check.Check{{Name: "kernel network", State: check.Missing, Detail: f.NetworkErr.Error()}}
	}
	var names []string
	var checks []check.Check
	for _, n := range f.Network {
		if n.Error == "" {
			names = append(names, n.Name)
			continue
		}
		c := check.Check{Name: n.Name, State: check.Limited, Detail: n.Error, Fix: "use a kernel that has it, or load its module as root"}
		if n.Needed {
			c.State = check.Missing
		}
		checks = append(checks, c)
	}
	if len(names) > 0 {
		checks = append([]check.Check{{Name: "kernel network", State: check.OK, Detail: strings.Join(names, ", ")}}, checks...)
	}
	return checks
}

func judgeTools(f Facts) []check.Check {
	var checks []check.Check
	for _, tool := range f.Tools {
		c := check.Check{Name: tool.Name, State: check.OK, Detail: tool.Path}
		if tool.Path == "" {
			c.State, c.Detail = check.Missing, tool.Purpose
			if tool.Optional {
				c.State = check.Limited
			}
			c.Fix = hosttools.Install(f.OS, []hosttools.Tool{tool.Tool}, f.Root)
		}
		checks = append(checks, c)
	}
	return checks
}

// judgeEngines also tells whether all engines are built.
func judgeEngines(f Facts) (check.Check, bool) {
	c := check.Check{Name: "engines", State: check.OK}
	if f.EnginesErr != nil {
		c.State, c.Detail = check.Missing, f.EnginesErr.Error()
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
	c.State = check.Limited
	c.Detail = fmt.Sprintf("not built yet: %s; the first run builds them, once, in some minutes", strings.Join(lacking, ", "))
	c.Fix = "netproof engines build, or just run"
	return c, false
}

func judgeGo(f Facts, built bool) check.Check {
	c := check.Check{Name: "go", State: check.OK, Detail: strings.TrimSpace(f.GoVersion + " " + f.GoPath)}
	if f.GoPath != "" {
		return c
	}
	c.Detail, c.Fix = hosttools.Go.Purpose, hosttools.Install(f.OS, []hosttools.Tool{hosttools.Go}, f.Root)
	if c.State = check.Missing; built {
		c.State, c.Detail = check.Limited, "not needed as long as the engines in the cache are used"
	}
	return c
}

func judgeDisk(f Facts, built bool) check.Check {
	need := uint64(diskToBuild)
	if built {
		need = diskToRun
	}
	if f.FreeBytesErr != nil {
		return check.Check{Name: "disk", State: check.Limited, Detail: f.FreeBytesErr.Error()}
	}
	c := check.Check{Name: "disk", State: check.OK, Detail: fmt.Sprintf("%s free for %s", check.Size(f.FreeBytes), f.CacheDir)}
	if f.FreeBytes < need {
		c.State = check.Missing
		c.Fix = fmt.Sprintf("free %s, or set NETPROOF_CACHE, GOCACHE and GOMODCACHE to folders that have room", check.Size(need-f.FreeBytes))
	}
	return c
}

func judgeMemory(f Facts, built bool) check.Check {
	have := f.MemoryAvailable
	c := check.Check{Name: "memory", State: check.OK, Detail: check.Size(f.MemoryAvailable) + " available"}
	if f.MemoryLimit > 0 {
		c.Detail += ", control group limited to " + check.Size(f.MemoryLimit)
		have = min(have, f.MemoryLimit)
	}
	switch {
	case have < memoryToRun:
		c.State, c.Fix = check.Missing, "a cluster of two nodes takes 800 MB: free some memory, or raise the limit"
	case !built && have < memoryToBuild:
		c.State, c.Fix = check.Limited, "building the engines may take 4 GiB: build them elsewhere and use --engine-dir"
	}
	return c
}

func judgeGroups(f Facts) check.Check {
	c := check.Check{Name: "cgroups", State: check.OK, Detail: fmt.Sprintf("version %d", f.Cgroup)}
	if f.Cgroup == 0 {
		c.Detail = "none; nothing depends on them"
	}
	return c
}

func judgeSCTP(f Facts) check.Check {
	if f.SCTP == nil {
		return check.Check{Name: "SCTP", State: check.OK}
	}
	return check.Check{Name: "SCTP", State: check.Limited, Detail: f.SCTP.Error() + "; cells that need it are unsupported",
		Fix: "modprobe sctp as root, or a kernel with CONFIG_IP_SCTP"}
}
