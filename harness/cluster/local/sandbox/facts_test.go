package sandbox_test

import (
	"errors"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/netproof/netproof/harness/cluster/local/sandbox"
)

// allCapabilities is the effective set of a root with all privileges.
const allCapabilities = 1<<41 - 1

func TestWhoNeedsAUserNamespace(t *testing.T) {
	const sysAdmin, netAdmin = 21, 12
	for name, c := range map[string]struct {
		facts sandbox.Facts
		want  bool
	}{
		"root":                               {sandbox.Facts{Capabilities: allCapabilities}, false},
		"an ordinary user":                   {sandbox.Facts{UID: 1000}, true},
		"a user with all capabilities":       {sandbox.Facts{UID: 1000, Capabilities: allCapabilities}, true},
		"root of a container":                {sandbox.Facts{Capabilities: 0xa80425fb}, true},
		"root without network privileges":    {sandbox.Facts{Capabilities: allCapabilities &^ (1 << netAdmin)}, true},
		"root without system administration": {sandbox.Facts{Capabilities: allCapabilities &^ (1 << sysAdmin)}, true},
	} {
		assert.Equal(t, c.want, c.facts.NeedsUserNamespace(), name)
	}
}

func TestObstaclesAreFoundInFacts(t *testing.T) {
	user := func(change func(f *sandbox.Facts)) sandbox.Facts {
		f := sandbox.Facts{UID: 1000, Sysctls: map[string]string{
			"user.max_user_namespaces": "63456", "user.max_net_namespaces": "63456",
			"kernel.unprivileged_userns_clone": "1", "kernel.apparmor_restrict_unprivileged_userns": "0",
		}}
		change(&f)
		return f
	}
	root := func(change func(f *sandbox.Facts)) sandbox.Facts {
		f := user(change)
		f.UID, f.Capabilities = 0, allCapabilities
		return f
	}
	for name, c := range map[string]struct {
		change       func(f *sandbox.Facts)
		cause, fix   string
		certain, all bool // all: root has it, too
	}{
		"none": {change: func(*sandbox.Facts) {}},
		"user namespaces built out": {
			change: func(f *sandbox.Facts) { f.NoUserNamespaces = true },
			cause:  "CONFIG_USER_NS", fix: "as root", certain: true,
		},
		"user namespaces limited to none": {
			change: func(f *sandbox.Facts) { f.Sysctls["user.max_user_namespaces"] = "0" },
			cause:  "user.max_user_namespaces is 0", fix: "sysctl -w user.max_user_namespaces=65536", certain: true,
		},
		"Debian's switch": {
			change: func(f *sandbox.Facts) { f.Sysctls["kernel.unprivileged_userns_clone"] = "0" },
			cause:  "kernel.unprivileged_userns_clone is 0", fix: "sysctl -w kernel.unprivileged_userns_clone=1", certain: true,
		},
		"AppArmor": {
			change: func(f *sandbox.Facts) { f.Sysctls["kernel.apparmor_restrict_unprivileged_userns"] = "1" },
			cause:  "AppArmor", fix: "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
		},
		"a container's filter": {
			change: func(f *sandbox.Facts) { f.Seccomp = 2 },
			cause:  "seccomp", fix: "seccomp=unconfined",
		},
		"a container's masks": {
			change: func(f *sandbox.Facts) { f.Masked = []string{"/proc/kcore", "/proc/sys"} },
			cause:  "/proc/kcore, /proc/sys", fix: "systempaths=unconfined",
		},
		"network namespaces limited to none": {
			change: func(f *sandbox.Facts) { f.Sysctls["user.max_net_namespaces"] = "0" },
			cause:  "user.max_net_namespaces is 0", fix: "sysctl -w user.max_net_namespaces=65536", certain: true, all: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			found := user(c.change).Obstacles()
			if c.cause == "" {
				assert.Empty(t, found)
				return
			}
			if assert.Len(t, found, 1) {
				assert.Contains(t, found[0].Cause, c.cause)
				assert.Contains(t, found[0].Fix, c.fix)
				assert.Equal(t, c.certain, found[0].Certain)
			}
			assert.Equal(t, c.all, len(root(c.change).Obstacles()) > 0, "for root")
		})
	}
}

func TestOnAnotherSystemTheOneObstacleIsThatItIsNotLinux(t *testing.T) {
	found := sandbox.Facts{System: "darwin", Seccomp: 2}.Obstacles()
	if assert.Len(t, found, 1) {
		assert.Contains(t, found[0].Cause, "this is darwin")
		assert.Contains(t, found[0].Fix, "--provider kind")
		assert.True(t, found[0].Certain)
	}
}

func TestAnUnavailableSandboxIsExplained(t *testing.T) {
	err := error(&sandbox.UnavailableError{Step: "mount /proc", Err: syscall.EPERM, Obstacles: []sandbox.Obstacle{
		{Cause: "a is 0", Fix: "set it", Certain: true}, {Cause: "b is odd", Fix: "even it"},
	}})
	assert.ErrorIs(t, err, sandbox.ErrUnavailable)
	assert.ErrorIs(t, err, syscall.EPERM)
	assert.False(t, errors.Is(err, syscall.ENOSPC))
	assert.Equal(t, []string{
		"mount /proc for the sandbox: operation not permitted",
		"  because a is 0",
		"    fix: set it",
		"  probably because b is odd",
		"    fix: even it",
	}, strings.Split(err.Error(), "\n"))
}

func TestFactsOfThisProcessAreRead(t *testing.T) {
	f := sandbox.ReadFacts()
	if runtime.GOOS != "linux" {
		assert.Equal(t, sandbox.Facts{System: runtime.GOOS}, f)
		return
	}
	assert.Equal(t, syscall.Geteuid(), f.UID)
	assert.NotEmpty(t, f.Sysctls["user.max_net_namespaces"])
	if f.UID == 0 {
		assert.NotZero(t, f.Capabilities)
	}
}
