package kind

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/check"
	"github.com/netproof/netproof/harness/cluster/kind/engine"
	"github.com/netproof/netproof/harness/image"
)

// Doctor looks at the engine and the machine, and says what is missing for a cluster, and how to fix it.
func Doctor(ctx context.Context, opts Options, wanted cluster.Options) []check.Check {
	return Judge(Gather(ctx, opts, wanted))
}

const (
	// A node has a volume of 1.4 GB; the node image itself takes as much and is there already, or is counted extra.
	diskPerNode  = 3 * check.GiB / 2
	diskPerImage = 2 * check.GiB
	// A control plane takes 0.9 GiB, a worker up to 0.6 with pods.
	memoryControlPlane = 9 * check.GiB / 10
	memoryPerWorker    = 6 * check.GiB / 10
)

// Judge turns facts into checks, in the order in which to fix what is missing.
func Judge(f Facts) []check.Check {
	first, ok := judgeEngine(f)
	checks := []check.Check{first}
	if ok {
		checks = append(checks, judgeVersion(f), judgeCgroups(f), judgeDisk(f), judgePrivileges(f))
	}
	if ok && f.Image != "" {
		checks = append(checks, judgeImage(f))
	}
	switch {
	case ok && (f.OtherSystem || !f.Local):
		checks = append(checks, check.Check{Name: "machine", State: check.OK, Detail: "the containers are on another one; its kernel was not looked at"})
	case !f.OtherSystem:
		checks = append(checks, judgeMemory(f), judgeHandles(f), judgeModules(f), check.IPv6(f.IPv6, f.Families))
	}
	if f.AgentErr != nil {
		c := check.Check{Name: "agent image", State: check.Missing, Detail: oneLine(f.AgentErr.Error()), Fix: "CGO_ENABLED=0 go build ./cmd/netproof, which is what make build does"}
		if errors.Is(f.AgentErr, image.ErrNotLinux) {
			c.Fix = image.HowToBuild + ", then --executable netproof-linux"
		}
		checks = append(checks, c)
	}
	return append(checks, judgeDirect(f, ok))
}

// refuse makes an error of the checks that are missing.
func refuse(checks []check.Check) error {
	var errs []error
	for _, c := range checks {
		if c.State == check.Missing {
			errs = append(errs, &engine.Problem{Kind: engine.Kind(c.Name), Cause: c.Name + ": " + c.Detail, Fix: c.Fix})
		}
	}
	return errors.Join(errs...)
}

func judgeEngine(f Facts) (check.Check, bool) {
	c := check.Check{Name: "container engine", State: check.Missing}
	err := f.EngineErr
	if err == nil {
		err = f.InfoErr
	}
	if p, known := errors.AsType[*engine.Problem](err); known {
		c.Detail, c.Fix = p.Cause, p.Fix
		return c, false
	}
	if err != nil {
		c.Detail, c.Fix = oneLine(err.Error()), f.Engine+" info must work"
		if f.Engine == "" {
			c.Fix = "use --runtime docker or podman"
		}
		return c, false
	}
	c.State, c.Detail = check.OK, fmt.Sprintf("%s %s on %s", f.Engine, f.Info.Server, f.Info.System)
	if f.Info.Rootless {
		c.Detail += ", rootless"
	}
	return c, true
}

func judgeVersion(f Facts) check.Check {
	c := check.Check{Name: "engine version", State: check.OK, Detail: f.Info.Server}
	// Docker 20.10 is the first that gives a container control groups of its own (--cgroupns), Podman 4.0 the first
	// whose networks have labels and both IP families.
	major, minor, name := 20, 10, "Docker 20.10"
	if f.Engine == engine.Podman {
		major, minor, name = 4, 0, "Podman 4.0"
	}
	if !engine.Since(f.Info.Server, major, minor) || !engine.Since(f.Info.Client, major, minor) {
		c.State, c.Detail = check.Missing, fmt.Sprintf("client %s, server %s: too old for kind", f.Info.Client, f.Info.Server)
		c.Fix = "upgrade to " + name + " or newer"
	}
	return c
}

func judgeCgroups(f Facts) check.Check {
	c := check.Check{Name: "cgroups", State: check.OK, Detail: fmt.Sprintf("version %d", f.Info.Cgroup)}
	switch {
	case f.Info.Cgroup == 0:
		c.State, c.Detail, c.Fix = check.Limited, "the engine does not tell its version", "if nodes do not start, mount cgroup v2"
	case f.Info.Cgroup == 1 && f.Info.Rootless:
		c.State, c.Detail, c.Fix = check.Missing, "version 1, which a rootless engine cannot share out",
			"boot with systemd.unified_cgroup_hierarchy=1, or use a rootful engine"
	case f.Info.Cgroup == 1:
		c.State, c.Detail = check.Limited, "version 1: the kubelet is told to accept it, and a later Kubernetes will not"
		c.Fix = "boot with systemd.unified_cgroup_hierarchy=1"
	}
	return c
}

func judgeDisk(f Facts) check.Check {
	c := check.Check{Name: "disk", State: check.OK}
	if !f.Local {
		c.Detail = "of another machine; not looked at"
		return c
	}
	if f.FreeBytesErr != nil {
		c.State, c.Detail = check.Limited, f.FreeBytesErr.Error()
		return c
	}
	need := uint64(f.Workers+1) * diskPerNode
	if f.Image != "" && !f.ImageHere {
		need += diskPerImage
	}
	c.Detail = fmt.Sprintf("%s free for %s", check.Size(f.FreeBytes), f.Info.Root)
	if f.FreeBytes < need {
		c.State = check.Missing
		c.Detail += fmt.Sprintf("; %d nodes take %s", f.Workers+1, check.Size(need))
		c.Fix = fmt.Sprintf("free %s: %s system df shows what is there, %s system prune removes what is not used", check.Size(need-f.FreeBytes), f.Engine, f.Engine)
	}
	return c
}

// capSysResource is CAP_SYS_RESOURCE, see capabilities(7).
const capSysResource = 24

func judgePrivileges(f Facts) check.Check {
	c := check.Check{Name: "privileged containers", State: check.OK}
	if !f.Local || f.Info.Rootless || len(f.Withheld) == 0 {
		return c
	}
	what := fmt.Sprintf("capabilities %v", f.Withheld)
	if slices.Equal(f.Withheld, []int{capSysResource}) {
		what = "CAP_SYS_RESOURCE"
	}
	c.Detail = fmt.Sprintf("this machine withholds %s; containers are started by %s, which is to take it out", what, f.DefaultRuntime)
	if f.DefaultRuntime == "runc" || f.DefaultRuntime == "crun" {
		c.State, c.Detail = check.Missing, fmt.Sprintf("this machine withholds %s, which %s asks for", what, f.DefaultRuntime)
		c.Fix = "start the engine with ci/docker.sh of this project, which takes it out of what containers ask for"
	}
	return c
}

func judgeImage(f Facts) check.Check {
	c := check.Check{Name: "node image", State: check.OK, Detail: f.Image}
	switch {
	case f.ImageErr != nil:
		c.State, c.Detail = check.Missing, oneLine(f.ImageErr.Error())
	case !f.ImageHere:
		c.State, c.Detail = check.Limited, f.Image+" is not here yet: the first run pulls it"
		c.Fix = f.Engine + " pull " + f.Image + "; without a network make kind-images, then " + ImageEnv + "=netproof.dev/kind-node:v1.36.3"
	}
	return c
}

func judgeMemory(f Facts) check.Check {
	need := uint64(memoryControlPlane + f.Workers*memoryPerWorker)
	c := check.Check{Name: "memory", State: check.OK, Detail: check.Size(f.MemoryAvailable) + " available"}
	if f.MemoryAvailable > 0 && f.MemoryAvailable < need {
		c.State, c.Detail = check.Limited, fmt.Sprintf("%s available; a control plane and %d workers take %s", check.Size(f.MemoryAvailable), f.Workers, check.Size(need))
		c.Fix = "free some, or ask for fewer --nodes"
	}
	return c
}

// Instances of inotify that the programs of a node take, all from the same user, as counted on a cluster with Calico:
// kubelet 7, systemd 4, containerd 2, kube-proxy 1, and on the control plane API server and controller manager 7 each.
// With the kernel's default of 128 a few nodes just fit in.
const (
	handlesControlPlane = 30
	handlesPerWorker    = 14
)

func judgeHandles(f Facts) check.Check {
	c := check.Check{Name: "inotify", State: check.OK, Detail: fmt.Sprintf("%d instances, %d watches", f.Instances, f.Watches)}
	if f.Instances == 0 || f.Instances >= engine.WantInstances && f.Watches >= engine.WantWatches {
		return c
	}
	c.State, c.Fix = check.Limited, engine.RaiseHandles
	c.Detail += ": enough for few nodes; when they run out, nodes do not start"
	if need := handlesControlPlane + f.Workers*handlesPerWorker; f.Instances < need {
		c.State = check.Missing
		c.Detail = fmt.Sprintf("%d instances: %d nodes take %d and more", f.Instances, f.Workers+1, need)
	}
	return c
}

func judgeModules(f Facts) check.Check {
	c := check.Check{Name: "kernel modules", State: check.OK}
	var there, unknown, lacking []string
	for _, m := range f.Modules {
		switch m.State {
		case Lacking:
			lacking = append(lacking, fmt.Sprintf("%s (%s)", m.Name, m.Use))
		case Unknown:
			unknown = append(unknown, m.Name)
		default:
			there = append(there, m.Name)
		}
	}
	c.Detail = strings.Join(there, ", ")
	if len(unknown) > 0 {
		c.Detail = strings.TrimPrefix(c.Detail+"; ", "; ") + "this kernel does not tell about " + strings.Join(unknown, ", ")
	}
	if len(lacking) > 0 {
		c.State, c.Detail, c.Fix = check.Missing, "not in this kernel: "+strings.Join(lacking, ", "), "use a kernel that has them (Debian and Ubuntu: linux-modules-extra)"
	}
	return c
}

func judgeDirect(f Facts, engineWorks bool) check.Check {
	c := check.Check{Name: "direct probing", State: check.OK, Detail: "the network namespaces of pods can be entered"}
	switch {
	case f.OtherSystem:
		c.State, c.Detail = check.Limited, "only over the API server; nothing else depends on it"
	case !engineWorks || !f.Local || !f.Root:
		c.State, c.Detail, c.Fix = check.Limited, "only over the API server", "run as root on the engine's machine; nothing else depends on it"
	}
	return c
}
