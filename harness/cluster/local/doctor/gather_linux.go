package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/netproof/netproof/harness/cluster/check"
	"github.com/netproof/netproof/harness/cluster/local/engine"
	"github.com/netproof/netproof/harness/cluster/local/hosttools"
	"github.com/netproof/netproof/harness/cluster/local/sandbox"
	"github.com/netproof/netproof/harness/meminfo"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes/nsagent"
)

// Gather looks at the machine for a cluster with this network plugin and these addresses. self are the arguments, after
// the program's name, with which this program calls [WriteNetworkFacts]; it is started in a sandbox.
func Gather(ctx context.Context, cni string, families []model.IPFamily, self []string) Facts {
	f := Facts{CNI: cni, Families: families, OS: hosttools.ThisOS(), Root: os.Geteuid() == 0, Arch: runtime.GOARCH, CPUs: runtime.NumCPU(),
		Kernel: check.KernelRelease(), IPv6: check.HaveIPv6()}
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
		f.FreeBytes, f.FreeBytesErr = check.FreeBytes(f.CacheDir)
	}
	f.MemoryAvailable = meminfo.Available()
	f.Cgroup, f.MemoryLimit = controlGroup()
	f.SCTP = nsagent.HaveSCTP()
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
