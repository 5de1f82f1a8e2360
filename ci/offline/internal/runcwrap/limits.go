//go:build linux

package main

import (
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// capabilityNames are the capabilities of Linux in the order of their numbers (capabilities(7)).
var capabilityNames = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW",
	"CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT",
	"CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD",
	"CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG",
	"CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

// youngCapabilities came with Linux 5.8 and 5.9: engines before Docker 24 do not give them to privileged containers.
var youngCapabilities = []string{"CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE"}

// limits is what the kernel lets containers of this process have.
type limits struct {
	// bounding is the bounding set, a bit for each capability by its number.
	bounding uint64
	// oomScoreAdj is the process's own: without CAP_SYS_RESOURCE no child can get a lower one.
	oomScoreAdj int
	// hard are the process's own hard limits by the names of runtime specifications: without CAP_SYS_RESOURCE no child
	// can get higher ones.
	hard map[string]uint64
}

// resourceNames are the resources of getrlimit(2) in the order of their numbers.
var resourceNames = []string{
	"RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_DATA", "RLIMIT_STACK", "RLIMIT_CORE", "RLIMIT_RSS", "RLIMIT_NPROC", "RLIMIT_NOFILE",
	"RLIMIT_MEMLOCK", "RLIMIT_AS", "RLIMIT_LOCKS", "RLIMIT_SIGPENDING", "RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_RTPRIO", "RLIMIT_RTTIME",
}

// readLimits reads the limits of this process, from its folder in /proc and from the kernel.
func readLimits(proc string) (limits, error) {
	status, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil {
		return limits{}, fmt.Errorf("read capabilities: %w", err)
	}
	bounding, err := parseBounding(string(status))
	if err != nil {
		return limits{}, err
	}
	text, err := os.ReadFile(filepath.Join(proc, "oom_score_adj"))
	if err != nil {
		return limits{}, fmt.Errorf("read OOM score: %w", err)
	}
	score, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return limits{}, fmt.Errorf("read OOM score: %w", err)
	}
	l := limits{bounding: bounding, oomScoreAdj: score, hard: map[string]uint64{}}
	for number, name := range resourceNames {
		var have unix.Rlimit
		if err := unix.Getrlimit(number, &have); err != nil {
			return limits{}, fmt.Errorf("read %s: %w", name, err)
		}
		l.hard[name] = have.Max
	}
	return l, nil
}

// parseBounding finds the bounding set in the text of /proc/PID/status.
func parseBounding(status string) (uint64, error) {
	for line := range strings.Lines(status) {
		if value, ok := strings.CutPrefix(line, "CapBnd:"); ok {
			set, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			if err != nil {
				return 0, fmt.Errorf("read capabilities: CapBnd: %w", err)
			}
			return set, nil
		}
	}
	return 0, fmt.Errorf("read capabilities: no CapBnd in the process's status")
}

// restricted says that a capability below the highest of the set is missing. Those above it the kernel does not know.
func (l limits) restricted() bool { return bits.OnesCount64(l.bounding) < bits.Len64(l.bounding) }

// has says whether a container may have the capability. One that has no name here is left to runc.
func (l limits) has(name string) bool {
	for number, known := range capabilityNames {
		if known == name {
			return l.bounding&(1<<number) != 0
		}
	}
	return true
}
