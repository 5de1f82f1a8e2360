package kind

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/kind/engine"
	"github.com/netproof/netproof/harness/cluster/local/doctor"
	"github.com/netproof/netproof/harness/model"
)

// Check is one thing that was looked at; it has the form of those for local clusters.
type Check = doctor.Check

// Doctor looks at the engine and the machine, and says what is missing for a cluster, and how to mend it.
func Doctor(ctx context.Context, opts Options, wanted cluster.Options) []Check {
	return Judge(Gather(ctx, opts, wanted))
}

const (
	gib = 1 << 30
	// A node has a volume of 1.4 GB; the node image itself takes as much and is there already, or is counted extra.
	diskPerNode  = 3 * gib / 2
	diskPerImage = 2 * gib
	// A control plane takes 0.9 GiB, a worker up to 0.6 with pods.
	memoryControlPlane = 9 * gib / 10
	memoryPerWorker    = 6 * gib / 10
)

// Judge turns facts into checks, in the order in which to mend what is missing.
func Judge(f Facts) []Check {
	first, ok := judgeEngine(f)
	checks := []Check{first}
	if ok {
		checks = append(checks, judgeVersion(f), judgeCgroups(f), judgeDisk(f), judgePrivileges(f))
	}
	if ok && f.Image != "" {
		checks = append(checks, judgeImage(f))
	}
	if !f.Local && ok {
		checks = append(checks, Check{Name: "machine", State: doctor.OK, Detail: "the containers are on another one; its kernel was not looked at"})
	} else {
		checks = append(checks, judgeMemory(f), judgeHandles(f), judgeModules(f), judgeIPv6(f))
	}
	if f.AgentErr != nil {
		checks = append(checks, Check{Name: "agent image", State: doctor.Missing, Detail: oneLine(f.AgentErr.Error()),
			Mend: "CGO_ENABLED=0 go build ./cmd/netproof, which is what make build does"})
	}
	return append(checks, judgeDirect(f, ok))
}

// refuse makes an error of the checks that are missing.
func refuse(checks []Check) error {
	var errs []error
	for _, c := range checks {
		if c.State == doctor.Missing {
			errs = append(errs, &engine.Problem{Kind: engine.Kind(c.Name), Cause: c.Name + ": " + c.Detail, Mend: c.Mend})
		}
	}
	return errors.Join(errs...)
}

func judgeEngine(f Facts) (Check, bool) {
	c := Check{Name: "container engine", State: doctor.Missing}
	err := f.EngineErr
	if err == nil {
		err = f.InfoErr
	}
	if p, known := errors.AsType[*engine.Problem](err); known {
		c.Detail, c.Mend = p.Cause, p.Mend
		return c, false
	}
	if err != nil {
		c.Detail, c.Mend = oneLine(err.Error()), f.Engine+" info must work"
		if f.Engine == "" {
			c.Mend = "use --runtime docker or podman"
		}
		return c, false
	}
	c.State, c.Detail = doctor.OK, fmt.Sprintf("%s %s on %s", f.Engine, f.Info.Server, f.Info.System)
	if f.Info.Rootless {
		c.Detail += ", rootless"
	}
	return c, true
}

func judgeVersion(f Facts) Check {
	c := Check{Name: "engine version", State: doctor.OK, Detail: f.Info.Server}
	// Docker 20.10 is the first that gives a container control groups of its own (--cgroupns), Podman 4.0 the first whose networks
	// have labels and both IP families.
	major, minor, name := 20, 10, "Docker 20.10"
	if f.Engine == engine.Podman {
		major, minor, name = 4, 0, "Podman 4.0"
	}
	if !engine.Since(f.Info.Server, major, minor) || !engine.Since(f.Info.Client, major, minor) {
		c.State, c.Detail = doctor.Missing, fmt.Sprintf("client %s, server %s: too old for kind", f.Info.Client, f.Info.Server)
		c.Mend = "upgrade to " + name + " or newer"
	}
	return c
}

func judgeCgroups(f Facts) Check {
	c := Check{Name: "cgroups", State: doctor.OK, Detail: fmt.Sprintf("version %d", f.Info.Cgroup)}
	switch {
	case f.Info.Cgroup == 0:
		c.State, c.Detail, c.Mend = doctor.Limited, "the engine does not tell its version", "if nodes do not start, mount cgroup v2"
	case f.Info.Cgroup == 1 && f.Info.Rootless:
		c.State, c.Detail, c.Mend = doctor.Missing, "version 1, which a rootless engine cannot share out",
			"boot with systemd.unified_cgroup_hierarchy=1, or use a rootful engine"
	case f.Info.Cgroup == 1:
		c.State, c.Detail = doctor.Limited, "version 1: the kubelet is told to accept it, and a later Kubernetes will not"
		c.Mend = "boot with systemd.unified_cgroup_hierarchy=1"
	}
	return c
}

func judgeDisk(f Facts) Check {
	c := Check{Name: "disk", State: doctor.OK}
	if !f.Local {
		c.Detail = "of another machine; not looked at"
		return c
	}
	if f.FreeBytesErr != nil {
		c.State, c.Detail = doctor.Limited, f.FreeBytesErr.Error()
		return c
	}
	need := uint64(f.Workers+1) * diskPerNode
	if f.Image != "" && !f.ImageHere {
		need += diskPerImage
	}
	c.Detail = fmt.Sprintf("%s free for %s", size(f.FreeBytes), f.Info.Root)
	if f.FreeBytes < need {
		c.State = doctor.Missing
		c.Detail += fmt.Sprintf("; %d nodes take %s", f.Workers+1, size(need))
		c.Mend = fmt.Sprintf("free %s: %s system df shows what is there, %s system prune removes what is not used", size(need-f.FreeBytes), f.Engine, f.Engine)
	}
	return c
}

// capSysResource is CAP_SYS_RESOURCE, see capabilities(7).
const capSysResource = 24

func judgePrivileges(f Facts) Check {
	c := Check{Name: "privileged containers", State: doctor.OK}
	if !f.Local || f.Info.Rootless || len(f.Withheld) == 0 {
		return c
	}
	what := fmt.Sprintf("capabilities %v", f.Withheld)
	if slices.Equal(f.Withheld, []int{capSysResource}) {
		what = "CAP_SYS_RESOURCE"
	}
	c.Detail = fmt.Sprintf("this machine withholds %s; containers are started by %s, which is to take it out", what, f.DefaultRuntime)
	if f.DefaultRuntime == "runc" || f.DefaultRuntime == "crun" {
		c.State, c.Detail = doctor.Missing, fmt.Sprintf("this machine withholds %s, which %s asks for", what, f.DefaultRuntime)
		c.Mend = "start the engine with ci/docker.sh of this project, which takes it out of what containers ask for"
	}
	return c
}

func judgeImage(f Facts) Check {
	c := Check{Name: "node image", State: doctor.OK, Detail: f.Image}
	switch {
	case f.ImageErr != nil:
		c.State, c.Detail = doctor.Missing, oneLine(f.ImageErr.Error())
	case !f.ImageHere:
		c.State, c.Detail = doctor.Limited, f.Image+" is not here yet: the first run pulls it"
		c.Mend = f.Engine + " pull " + f.Image + "; without a network make kind-images, then " + ImageEnv + "=netproof.dev/kind-node:v1.36.3"
	}
	return c
}

func judgeMemory(f Facts) Check {
	need := uint64(memoryControlPlane + f.Workers*memoryPerWorker)
	c := Check{Name: "memory", State: doctor.OK, Detail: size(f.MemoryAvailable) + " available"}
	if f.MemoryAvailable > 0 && f.MemoryAvailable < need {
		c.State, c.Detail = doctor.Limited, fmt.Sprintf("%s available; a control plane and %d workers take %s", size(f.MemoryAvailable), f.Workers, size(need))
		c.Mend = "free some, or ask for fewer --nodes"
	}
	return c
}

// Instances of inotify that the programs of a node take, all from the same user, as counted on a cluster with Calico: kubelet 7, systemd 4,
// containerd 2, kube-proxy 1, and on the control plane API server and controller manager 7 each. With the kernel's default of 128 a
// few nodes just fit in.
const (
	handlesControlPlane = 30
	handlesPerWorker    = 14
)

func judgeHandles(f Facts) Check {
	c := Check{Name: "inotify", State: doctor.OK, Detail: fmt.Sprintf("%d instances, %d watches", f.Instances, f.Watches)}
	if f.Instances == 0 || f.Instances >= engine.WantInstances && f.Watches >= engine.WantWatches {
		return c
	}
	c.State, c.Mend = doctor.Limited, engine.RaiseHandles
	c.Detail += ": enough for few nodes; when they run out, nodes do not start"
	if need := handlesControlPlane + f.Workers*handlesPerWorker; f.Instances < need {
		c.State = doctor.Missing
		c.Detail = fmt.Sprintf("%d instances: %d nodes take %d and more", f.Instances, f.Workers+1, need)
	}
	return c
}

func judgeModules(f Facts) Check {
	c := Check{Name: "kernel modules", State: doctor.OK}
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
		c.State, c.Detail, c.Mend = doctor.Missing, "not in this kernel: "+strings.Join(lacking, ", "), "use a kernel that has them (Debian and Ubuntu: linux-modules-extra)"
	}
	return c
}

func judgeIPv6(f Facts) Check {
	c := Check{Name: "IPv6", State: doctor.OK}
	if f.IPv6 {
		return c
	}
	c.State, c.Detail, c.Mend = doctor.Limited, "--ip-family ipv6 and dual do not work",
		"boot without ipv6.disable=1, and sysctl -w net.ipv6.conf.default.disable_ipv6=0"
	if slices.Contains(f.Families, model.IPv6) {
		c.State = doctor.Missing
	}
	return c
}

func judgeDirect(f Facts, engineWorks bool) Check {
	c := Check{Name: "direct probing", State: doctor.OK, Detail: "the network namespaces of pods can be entered"}
	if !engineWorks || !f.Local || !f.Root {
		c.State, c.Detail, c.Mend = doctor.Limited, "only over the API server", "run as root on the engine's machine; nothing else depends on it"
	}
	return c
}

func size(n uint64) string {
	if n < gib {
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/gib)
}
