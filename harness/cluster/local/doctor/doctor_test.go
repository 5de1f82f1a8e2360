//go:build linux

package doctor

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/cluster/check"
	"github.com/netproof/netproof/harness/cluster/local/engine"
	"github.com/netproof/netproof/harness/cluster/local/hosttools"
	"github.com/netproof/netproof/harness/cluster/local/sandbox"
	"github.com/netproof/netproof/harness/model"
)

func TestMain(m *testing.M) { sandbox.Main(m) }

// makeFacts gives those of a machine that lacks nothing, but for the tweaks.
func makeFacts(tweaks ...func(*Facts)) Facts {
	f := Facts{
		CNI: "calico", OS: hosttools.OS{ID: "debian"}, Kernel: "6.1.0", Arch: "amd64", CPUs: 2,
		Network:         []NetworkFact{{Name: "bridge", Needed: true}, {Name: "VXLAN", Needed: true}},
		GoPath:          "/usr/bin/go",
		GoVersion:       "go1.26.0",
		Engines:         []engine.State{{Engine: "etcd", Version: "v3", Built: true, Size: 25e6}, {Engine: "calico", Version: "v3", Built: true, Size: 180e6}},
		CacheDir:        "/cache",
		FreeBytes:       20 * check.GiB,
		MemoryAvailable: 6 * check.GiB,
		Cgroup:          2,
		IPv6:            true,
	}
	for _, tool := range hosttools.For(f.CNI) {
		f.Tools = append(f.Tools, ToolFact{tool, "/usr/sbin/" + tool.Name})
	}
	for _, tweak := range tweaks {
		tweak(&f)
	}
	return f
}

func checkOf(t *testing.T, checks []check.Check, name string) check.Check {
	t.Helper()
	for _, c := range checks {
		if c.Name == name {
			return c
		}
	}
	require.Fail(t, "no check", name)
	return check.Check{}
}

func TestAMachineThatLacksNothingIsFine(t *testing.T) {
	checks := Judge(makeFacts())
	assert.False(t, check.Missed(checks))
	for _, c := range checks {
		assert.Equal(t, check.OK, c.State, c.Name)
		assert.Empty(t, c.Fix, c.Name)
	}
}

func TestWhatIsMissingIsNamedWithItsFix(t *testing.T) {
	without := func(name string) func(*Facts) {
		return func(f *Facts) {
			for i := range f.Tools {
				if f.Tools[i].Name == name {
					f.Tools[i].Path = ""
				}
			}
		}
	}
	unbuilt := func(f *Facts) { f.Engines[1].Built = false }
	type tweaks = []func(*Facts)
	for name, tc := range map[string]struct {
		tweaks      tweaks
		check       string
		state       check.State
		detail, fix string
	}{
		"no ipset":          {tweaks{without("ipset")}, "ipset", check.Missing, "Felix", "apt-get install"},
		"no conntrack":      {tweaks{without("conntrack")}, "conntrack", check.Limited, "Felix", "apt-get install"},
		"engines not built": {tweaks{unbuilt}, "engines", check.Limited, "not built yet: calico v3", "netproof engines build"},
		"no Go to build with": {
			tweaks{unbuilt, func(f *Facts) { f.GoPath = "" }}, "go", check.Missing, "builds the upstream programs", "Go",
		},
		"no Go, nothing to build": {tweaks{func(f *Facts) { f.GoPath = "" }}, "go", check.Limited, "not needed", "Go"},
		"a full disk":             {tweaks{func(f *Facts) { f.FreeBytes = check.GiB / 2 }}, "disk", check.Missing, "512 MiB free", "free 512 MiB"},
		"no room for a build":     {tweaks{unbuilt, func(f *Facts) { f.FreeBytes = 2 * check.GiB }}, "disk", check.Missing, "2.0 GiB free", "free 6.0 GiB"},
		"room to run":             {tweaks{func(f *Facts) { f.FreeBytes = 2 * check.GiB }}, "disk", check.OK, "2.0 GiB free", ""},
		"little memory":           {tweaks{func(f *Facts) { f.MemoryAvailable = check.GiB / 2 }}, "memory", check.Missing, "512 MiB available", "800 MB"},
		"a tight limit":           {tweaks{func(f *Facts) { f.MemoryLimit = check.GiB / 2 }}, "memory", check.Missing, "limited to 512 MiB", "raise the limit"},
		"little memory to build":  {tweaks{unbuilt, func(f *Facts) { f.MemoryAvailable = 2 * check.GiB }}, "memory", check.Limited, "2.0 GiB", "--engine-dir"},
		"no SCTP":                 {tweaks{func(f *Facts) { f.SCTP = errors.New("not supported") }}, "SCTP", check.Limited, "unsupported", "modprobe sctp"},
		"no IPv6":                 {tweaks{func(f *Facts) { f.IPv6 = false }}, "IPv6", check.Limited, "do not work", "disable_ipv6=0"},
		"no IPv6 where wanted": {tweaks{func(f *Facts) { f.IPv6, f.Families = false, []model.IPFamily{model.IPv4, model.IPv6} }},
			"IPv6", check.Missing, "do not work", "disable_ipv6=0"},
		"no VXLAN": {
			tweaks{func(f *Facts) { f.Network[1].Error = "operation not supported" }}, "VXLAN", check.Missing, "operation not supported", "kernel",
		},
		"a sandbox that is forbidden": {tweaks{func(f *Facts) {
			f.Sandbox = &sandbox.UnavailableError{Step: "create namespaces", Err: errors.New("operation not permitted"),
				Obstacles: []sandbox.Obstacle{{Cause: "AppArmor forbids it", Fix: "sysctl -w x=0"}}}
		}}, "sandbox", check.Missing, "create namespaces: operation not permitted; AppArmor forbids it", "sysctl -w x=0"},
	} {
		t.Run(name, func(t *testing.T) {
			checks := Judge(makeFacts(tc.tweaks...))
			c := checkOf(t, checks, tc.check)
			assert.Equal(t, tc.state, c.State)
			assert.Contains(t, c.Detail, tc.detail)
			assert.Contains(t, c.Fix, tc.fix)
			assert.Equal(t, tc.state == check.Missing, check.Missed(checks))
		})
	}
}

func TestOnAnotherSystemNothingButThatIsSaid(t *testing.T) {
	checks := Judge(Facts{System: "darwin", Sandbox: &sandbox.UnavailableError{
		Step: "create namespaces", Obstacles: sandbox.Facts{System: "darwin"}.Obstacles(),
	}})
	require.Len(t, checks, 1)
	assert.Equal(t, check.Missing, checks[0].State)
	assert.Contains(t, checks[0].Detail, "this is darwin")
	assert.Contains(t, checks[0].Fix, "--provider kind")
}

// The sandbox that this test runs in is a place where all that a cluster needs can be made, or doctor says why not.
func TestTheKernelIsAskedByMakingWhatAClusterMakes(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, WriteNetworkFacts(t.Context(), &out))
	var facts []NetworkFact
	require.NoError(t, json.Unmarshal(out.Bytes(), &facts))
	names := map[string]string{}
	for _, f := range facts {
		names[f.Name] = f.Error
	}
	assert.Equal(t, map[string]string{"bridge": "", "virtual ethernet": "", "VXLAN": "", "nftables": ""}, names)
}
