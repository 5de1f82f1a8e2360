package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/netproof/netproof/harness/cluster/local/engine"
	"github.com/netproof/netproof/harness/cluster/local/hosttools"
	"github.com/netproof/netproof/harness/cluster/local/sandbox"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes/nsagent"
)

// Facts are what [Judge] judges.
type Facts struct {
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
	// Network says for each thing that a cluster makes in the kernel why it could not be made, "" if it could. It is nil when that
	// could not be tried, because of NetworkErr.
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

	// MemoryAvailable is what the kernel says can be had without swapping, MemoryLimit that of the control group, 0 for none.
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

// Gather looks at the machine for a cluster with this network plugin and these addresses. self are the arguments, after the program's name, with which this program calls
// [WriteNetworkFacts]; it is started in a sandbox.
func Gather(ctx context.Context, cni string, families []model.IPFamily, self []string) Facts {
	f := Facts{CNI: cni, Families: families, OS: hosttools.ThisOS(), Root: os.Geteuid() == 0, Arch: runtime.GOARCH, CPUs: runtime.NumCPU()}
	var uname unix.Utsname
	if err := unix.Uname(&uname); err == nil {
		f.Kernel = unix.ByteSliceToString(uname.Release[:])
	}
	f.UserNamespace = sandbox.ReadFacts().NeedsUserNamespace()
	if f.Sandbox = sandbox.Check(ctx); f.Sandbox == nil {
		f.Network, f.NetworkErr = tryNetwork(ctx, self)
	}
	for _, tool := range hosttools.For(cni) {
		f.Tools = append(f.Tools, ToolFact{tool, hosttools.Find(tool.Name)})
	}
	if path, err := exec.LookPath(hosttools.Go.Name); err == nil {
		f.GoPath = path
		out, err := exec.CommandContext(ctx, path, "env", "GOVERSION").Output()
		if f.GoVersion = strings.TrimSpace(string(out)); err != nil {
			f.GoPath = ""
		}
	}
	f.Engines, f.EnginesErr = engine.Status(ctx, cni, "")
	if f.CacheDir, f.FreeBytesErr = engine.DefaultCacheDir(); f.FreeBytesErr == nil {
		f.FreeBytes, f.FreeBytesErr = freeBytes(f.CacheDir)
	}
	f.MemoryAvailable = memoryAvailable()
	f.Cgroup, f.MemoryLimit = controlGroup()
	f.SCTP = nsagent.HaveSCTP()
	f.IPv6 = haveIPv6()
	return f
}

func tryNetwork(ctx context.Context, self []string) ([]NetworkFact, error) {
	var out, errs bytes.Buffer
	code, err := sandbox.Run(ctx, sandbox.Command{
		Args: append([]string{os.Args[0]}, self...), Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs,
	})
	if err == nil && code != 0 {
		err = fmt.Errorf("exit code %d: %s", code, strings.TrimSpace(errs.String()))
	}
	if err != nil {
		return nil, fmt.Errorf("try the kernel's network in a sandbox: %w", err)
	}
	var facts []NetworkFact
	if err := json.Unmarshal(out.Bytes(), &facts); err != nil {
		return nil, fmt.Errorf("try the kernel's network in a sandbox: %w", err)
	}
	return facts, nil
}

// freeBytes asks the nearest folder that exists.
func freeBytes(dir string) (uint64, error) {
	for {
		var s unix.Statfs_t
		err := unix.Statfs(dir, &s)
		if err == nil {
			return s.Bavail * uint64(s.Bsize), nil
		}
		if parent := filepath.Dir(dir); errors.Is(err, fs.ErrNotExist) && parent != dir {
			dir = parent
			continue
		}
		return 0, fmt.Errorf("ask for free space of %s: %w", dir, err)
	}
}

func memoryAvailable() uint64 {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	return parseMeminfo(string(text))
}

// parseMeminfo picks the memory that can be had without swapping, in bytes, out of /proc/meminfo.
func parseMeminfo(text string) uint64 {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, "MemAvailable:"); ok {
			kib, err := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err == nil {
				return kib * 1024
			}
		}
	}
	return 0
}

// controlGroup gives the version of the control groups and the memory limit of this process's own one, 0 for none.
func controlGroup() (version int, limit uint64) {
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		version = 2
	} else if entries, err := os.ReadDir("/sys/fs/cgroup"); err == nil && len(entries) > 0 {
		version = 1
	}
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil || version != 2 {
		return version, 0
	}
	for line := range strings.Lines(string(text)) {
		group, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !ok {
			continue
		}
		for dir := group; ; dir = filepath.Dir(dir) {
			if n, err := readLimit(filepath.Join("/sys/fs/cgroup", dir, "memory.max")); err == nil && (limit == 0 || n < limit) {
				limit = n
			}
			if dir == "/" || dir == "." {
				break
			}
		}
	}
	return version, limit
}

func readLimit(path string) (uint64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
}

func haveIPv6() bool {
	text, err := os.ReadFile("/proc/sys/net/ipv6/conf/default/disable_ipv6")
	return err == nil && strings.TrimSpace(string(text)) == "0"
}
