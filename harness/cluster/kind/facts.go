package kind

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/check"
	"github.com/netproof/netproof/harness/cluster/kind/engine"
	"github.com/netproof/netproof/harness/image"
	"github.com/netproof/netproof/harness/meminfo"
	"github.com/netproof/netproof/harness/model"
)

// Facts are what [Judge] judges.
type Facts struct {
	// Engine is the name of the one that was found; EngineErr says why there is none.
	Engine    string
	EngineErr error
	// Info is what it says of itself; InfoErr says why it does not.
	Info    engine.Info
	InfoErr error
	// Local is true when containers run on this very kernel. What follows is unknown otherwise.
	Local bool
	Root  bool
	// OtherSystem is true where this is not Linux: then containers run in a virtual machine, or on another machine.
	OtherSystem bool

	// FreeBytes of the file system that holds the engine's images and volumes.
	FreeBytes    uint64
	FreeBytesErr error
	// MemoryAvailable is what can be had without swapping, in bytes; 0 if unknown.
	MemoryAvailable uint64
	CPUs            int
	// Instances and Watches are the limits of inotify per user; 0 if unknown.
	Instances, Watches int
	// Modules are those that nodes need of the kernel.
	Modules []Module
	// Withheld are the numbers of the capabilities that no process here can get, and DefaultRuntime is what starts
	// containers.
	Withheld       []int
	DefaultRuntime string
	// IPv6 is false when the kernel has it not, or switched off.
	IPv6 bool

	// Image is the node image that would be taken; ImageHere whether the engine has it. Empty if nobody asked.
	Image     string
	ImageHere bool
	ImageErr  error
	// AgentErr says why no image for probe pods can be made of the executable.
	AgentErr error

	// Workers and Families are those of the cluster that is wanted.
	Workers  int
	Families []model.IPFamily
}

// Module is a part of the kernel.
type Module struct {
	Name string
	// Use says what for.
	Use   string
	State ModuleState
}

// ModuleState is whether a part of the kernel is there.
type ModuleState string

// The states. Loadable ones are loaded when they are needed; about Unknown ones nothing can be said without trying.
const (
	Present  ModuleState = "present"
	Loadable ModuleState = "loadable"
	Lacking  ModuleState = "lacking"
	Unknown  ModuleState = "unknown"
)

// neededModules are what nodes with a network plugin use.
var neededModules = []Module{
	{Name: "overlay", Use: "the file systems of containers"},
	{Name: "veth", Use: "the interfaces of pods"},
	{Name: "vxlan", Use: "the network between nodes"},
	{Name: "nf_tables", Use: "policies and Services"},
	{Name: "nf_conntrack", Use: "policies and Services"},
	{Name: "br_netfilter", Use: "the engine's own networks"},
}

// Gather looks at the machine and the engine, and changes nothing.
func Gather(ctx context.Context, opts Options, wanted cluster.Options) Facts {
	var f Facts
	s, err := opts.plan(wanted)
	if err != nil {
		f.ImageErr = err
	}
	e, err := engine.Detect(ctx, opts.Runtime)
	if err != nil {
		f = facts(Facts{EngineErr: err, ImageErr: f.ImageErr})
	} else {
		imageErr := f.ImageErr
		f = gather(ctx, e, &s)
		f.ImageErr = errors.Join(imageErr, f.ImageErr)
	}
	f.Image, f.Workers, f.Families = s.image, s.workers, s.families
	_, _, _, f.AgentErr = agentImage(opts.Executable)
	if errors.Is(f.AgentErr, image.ErrDynamic) && opts.Executable == "" {
		f.AgentErr = fmt.Errorf("%w", image.ErrDynamic)
	}
	return f
}

// gather asks the engine, and the machine if that is the engine's. s may be nil: then no image is looked for.
func gather(ctx context.Context, e *engine.Engine, s *spec) Facts {
	f := Facts{Engine: e.Name}
	if f.Info, f.InfoErr = e.Info(ctx); f.InfoErr != nil {
		return facts(f)
	}
	f.DefaultRuntime = f.Info.Runtime
	f.Local = onLinux && f.Info.Kernel == check.KernelRelease() && f.Info.System != "Docker Desktop"
	if s != nil {
		_, err := e.Output(ctx, "image", "inspect", "--format", "{{.Id}}", s.image)
		f.ImageHere = err == nil
		if err != nil && !engine.IsGone(err) {
			f.ImageErr = err
		}
	}
	if f.Local {
		f.FreeBytes, f.FreeBytesErr = check.FreeBytes(f.Info.Root)
	}
	return facts(f)
}

// facts adds what the machine says, whatever the engine does.
func facts(f Facts) Facts {
	f.Root = os.Geteuid() == 0
	f.OtherSystem = !onLinux
	if f.OtherSystem || f.Engine != "" && f.InfoErr == nil && !f.Local {
		return f
	}
	f.Instances, f.Watches = readNumber("/proc/sys/fs/inotify/max_user_instances"), readNumber("/proc/sys/fs/inotify/max_user_watches")
	f.MemoryAvailable = meminfo.Available()
	f.Modules = readModules("/", check.KernelRelease())
	f.Withheld = withheld()
	f.IPv6 = check.HaveIPv6()
	return f
}

func readNumber(path string) int {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(text))) // 0: unknown
	return n
}

// readModules finds out which of the needed modules there are, from what the kernel shows and what lies in
// /lib/modules.
func readModules(root, release string) []Module {
	in := func(parts ...string) string { return filepath.Join(append([]string{root}, parts...)...) }
	filesystems, _ := os.ReadFile(in("proc/filesystems"))
	builtin, builtinErr := os.ReadFile(in("lib/modules", release, "modules.builtin"))
	loadable, loadableErr := os.ReadFile(in("lib/modules", release, "modules.dep"))
	out := slices.Clone(neededModules)
	for i, m := range out {
		_, shown := os.Stat(in("sys/module", m.Name))
		switch {
		case shown == nil, m.Name == "overlay" && strings.Contains(string(filesystems), "\toverlay\n"), hasModule(builtin, m.Name):
			out[i].State = Present
		case hasModule(loadable, m.Name):
			out[i].State = Loadable
		case builtinErr != nil || loadableErr != nil:
			// A kernel without a list has what it has built in, and shows only modules with parameters.
			out[i].State = Unknown
		default:
			out[i].State = Lacking
		}
	}
	return out
}

// hasModule looks for a module in modules.builtin or modules.dep.
func hasModule(list []byte, name string) bool {
	for line := range strings.Lines(string(list)) {
		path, _, _ := strings.Cut(strings.TrimSpace(line), ":")
		file, _, _ := strings.Cut(filepath.Base(path), ".ko")
		if strings.ReplaceAll(file, "-", "_") == name {
			return true
		}
	}
	return false
}

// withheld are the capabilities that the kernel knows and this process's bounding set lacks.
func withheld() []int {
	status, _ := os.ReadFile("/proc/self/status")
	return parseWithheld(string(status), readNumber("/proc/sys/kernel/cap_last_cap"))
}

func parseWithheld(status string, last int) []int {
	for line := range strings.Lines(status) {
		rest, ok := strings.CutPrefix(line, "CapBnd:")
		if !ok {
			continue
		}
		set, err := strconv.ParseUint(strings.TrimSpace(rest), 16, 64)
		if err != nil {
			return nil
		}
		var out []int
		for c := range last + 1 {
			if set&(1<<c) == 0 {
				out = append(out, c)
			}
		}
		return out
	}
	return nil
}
