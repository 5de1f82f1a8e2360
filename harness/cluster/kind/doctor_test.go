package kind

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/cluster/check"
	"github.com/netproof/netproof/harness/cluster/kind/engine"
	"github.com/netproof/netproof/harness/image"
	"github.com/netproof/netproof/harness/model"
)

// makeFacts gives those of a machine that lacks nothing, but for the tweaks.
func makeFacts(tweaks ...func(*Facts)) Facts {
	f := Facts{
		Engine: "docker", Local: true, Root: true, DefaultRuntime: "runc", CPUs: 2,
		Info:      engine.Info{Client: "28.2.2", Server: "28.2.2", Cgroup: 2, Root: "/var/lib/docker", System: "Debian GNU/Linux 12 (bookworm)"},
		FreeBytes: 100 * check.GiB, MemoryAvailable: 8 * check.GiB, Instances: 8192, Watches: 1 << 20, IPv6: true,
		Image: "kindest/node:v1", ImageHere: true, Workers: 2, Families: []model.IPFamily{model.IPv4},
	}
	for _, m := range neededModules {
		m.State = Present
		f.Modules = append(f.Modules, m)
	}
	for _, tweak := range tweaks {
		tweak(&f)
	}
	return f
}

func TestAMachineThatLacksNothingIsFine(t *testing.T) {
	checks := Judge(makeFacts())
	require.NoError(t, refuse(checks))
	for _, c := range checks {
		assert.Equal(t, check.OK, c.State, c.Name)
		assert.Empty(t, c.Fix, c.Name)
	}
}

func TestWhatIsMissingIsNamedWithItsFix(t *testing.T) {
	unreachable := &engine.Problem{Kind: engine.Unreachable, Cause: "docker does not answer", Fix: "systemctl start docker"}
	for name, tc := range map[string]struct {
		tweak       func(*Facts)
		check       string
		state       check.State
		detail, fix string
	}{
		"no engine": {func(f *Facts) {
			*f = Facts{EngineErr: &engine.Problem{Kind: engine.Missing, Cause: "kind clusters need Docker or Podman", Fix: "apt-get install docker.io"}}
		}, "container engine", check.Missing, "Docker or Podman", "apt-get install"},
		"no daemon":                   {func(f *Facts) { f.InfoErr = unreachable }, "container engine", check.Missing, "does not answer", "systemctl start"},
		"an odd daemon":               {func(f *Facts) { f.InfoErr = errors.New("strange") }, "container engine", check.Missing, "strange", "docker info must work"},
		"an old server":               {func(f *Facts) { f.Info.Server = "19.03.15" }, "engine version", check.Missing, "19.03.15", "Docker 20.10"},
		"an old client":               {func(f *Facts) { f.Info.Client = "18.09.1" }, "engine version", check.Missing, "client 18.09.1", "Docker 20.10"},
		"an old Podman":               {func(f *Facts) { f.Engine, f.Info.Server = "podman", "3.4.4" }, "engine version", check.Missing, "3.4.4", "Podman 4.0"},
		"control groups v1":           {func(f *Facts) { f.Info.Cgroup = 1 }, "cgroups", check.Limited, "version 1", "unified_cgroup_hierarchy"},
		"rootless on v1":              {func(f *Facts) { f.Info.Cgroup, f.Info.Rootless = 1, true }, "cgroups", check.Missing, "rootless", "rootful"},
		"a full disk":                 {func(f *Facts) { f.FreeBytes = check.GiB }, "disk", check.Missing, "1.0 GiB free for /var/lib/docker; 3 nodes take 4.5 GiB", "free 3.5 GiB"},
		"no room to pull":             {func(f *Facts) { f.FreeBytes, f.ImageHere = 5*check.GiB, false }, "disk", check.Missing, "6.5 GiB", "free 1.5 GiB"},
		"no image yet":                {func(f *Facts) { f.ImageHere = false }, "node image", check.Limited, "the first run pulls it", "make kind-images"},
		"a capability less":           {func(f *Facts) { f.Withheld = []int{24} }, "privileged containers", check.Missing, "CAP_SYS_RESOURCE, which runc asks for", "ci/docker.sh"},
		"and a way around":            {func(f *Facts) { f.Withheld, f.DefaultRuntime = []int{24}, "netproof" }, "privileged containers", check.OK, "started by netproof", ""},
		"little memory":               {func(f *Facts) { f.MemoryAvailable = check.GiB }, "memory", check.Limited, "2.1 GiB", "fewer --nodes"},
		"few inotify handles":         {func(f *Facts) { f.Instances = 128 }, "inotify", check.Limited, "128 instances", "max_user_instances=512"},
		"hardly any":                  {func(f *Facts) { f.Instances = 50 }, "inotify", check.Missing, "3 nodes take", "max_user_watches=524288"},
		"no VXLAN":                    {func(f *Facts) { f.Modules[2].State = Lacking }, "kernel modules", check.Missing, "vxlan (the network between nodes)", "linux-modules-extra"},
		"a kernel that does not tell": {func(f *Facts) { f.Modules[2].State = Unknown }, "kernel modules", check.OK, "does not tell about vxlan", ""},
		"no IPv6":                     {func(f *Facts) { f.IPv6 = false }, "IPv6", check.Limited, "do not work", "disable_ipv6=0"},
		"no IPv6, but wanted":         {func(f *Facts) { f.IPv6, f.Families = false, []model.IPFamily{model.IPv6} }, "IPv6", check.Missing, "do not work", "disable_ipv6=0"},
		"a dynamic executable":        {func(f *Facts) { f.AgentErr = image.ErrDynamic }, "agent image", check.Missing, "dynamically linked", "CGO_ENABLED=0"},
		"an executable for a Mac":     {func(f *Facts) { f.AgentErr = image.ErrNotLinux }, "agent image", check.Missing, "not an executable for Linux", "GOOS=linux go build -o netproof-linux ./cmd/netproof, then --executable netproof-linux"},
		"a Mac":                       {func(f *Facts) { f.OtherSystem, f.Local, f.Modules = true, false, nil }, "machine", check.OK, "another one", ""},
		"an ordinary user":            {func(f *Facts) { f.Root = false }, "direct probing", check.Limited, "API server", "root"},
		"another machine":             {func(f *Facts) { f.Local, f.Instances = false, 1 }, "machine", check.OK, "another one", ""},
	} {
		t.Run(name, func(t *testing.T) {
			checks := Judge(makeFacts(tc.tweak))
			for _, c := range checks {
				if c.Name == tc.check {
					assert.Equal(t, tc.state, c.State)
					assert.Contains(t, c.Detail, tc.detail)
					assert.Contains(t, c.Fix, tc.fix)
					assert.Equal(t, tc.state == check.Missing, check.Missed(checks))
					err := refuse(checks)
					if tc.state == check.Missing {
						require.ErrorContains(t, err, "fix: "+c.Fix)
					} else {
						require.NoError(t, err)
					}
					return
				}
			}
			require.Fail(t, "no check", tc.check)
		})
	}
}

func TestNothingIsSaidOfLinuxWhereThereIsNoneAndNoEngine(t *testing.T) {
	none := &engine.Problem{Kind: engine.Missing, Cause: "kind clusters need Docker or Podman", Fix: "install Docker Desktop"}
	checks := Judge(Facts{EngineErr: none, OtherSystem: true, Image: "kindest/node:v1", Workers: 2})
	assert.Equal(t, []check.Check{
		{Name: "container engine", State: check.Missing, Detail: none.Cause, Fix: none.Fix},
		{Name: "direct probing", State: check.Limited, Detail: "only over the API server; nothing else depends on it"},
	}, checks)
}

func TestModulesAreFoundWhereverTheKernelHasThem(t *testing.T) {
	root := t.TempDir()
	write := func(path, content string) {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(root, path), []byte(content), 0o644))
	}
	state := func() map[string]ModuleState {
		out := map[string]ModuleState{}
		for _, m := range readModules(root, "6.1.0") {
			out[m.Name] = m.State
		}
		return out
	}
	write("proc/filesystems", "nodev\tsysfs\nnodev\toverlay\n\text4\n")
	assert.Equal(t, Present, state()["overlay"])
	assert.Equal(t, Unknown, state()["vxlan"], "a kernel without a list of modules may have it built in")
	write("lib/modules/6.1.0/modules.builtin", "kernel/net/netfilter/nf_tables.ko\n")
	write("lib/modules/6.1.0/modules.dep", "kernel/drivers/net/vxlan/vxlan.ko.xz: kernel/net/ipv4/udp_tunnel.ko.xz\nkernel/net/bridge/br_netfilter.ko.xz:\n")
	require.NoError(t, os.MkdirAll(filepath.Join(root, "sys/module/nf_conntrack"), 0o755))
	assert.Equal(t, map[string]ModuleState{
		"overlay": Present, "veth": Lacking, "vxlan": Loadable, "nf_tables": Present, "nf_conntrack": Present, "br_netfilter": Loadable,
	}, state())
}

func TestWithheldCapabilitiesAreThoseTheBoundingSetLacks(t *testing.T) {
	const status = "Name:\tx\nCapInh:\t0000000000000000\nCapBnd:\t000001fffeffffff\nCapAmb:\t0\n" // of this project's machine
	assert.Equal(t, []int{24}, parseWithheld(status, 40))
	assert.Empty(t, parseWithheld("CapBnd:\t000001ffffffffff\n", 40))
	assert.Empty(t, parseWithheld("nothing", 40))
}

func TestTheDoctorLooksAtThisMachine(t *testing.T) {
	checks := Doctor(t.Context(), Options{}, clusterOptions(""))
	assert.NotEmpty(t, checks)
	for _, c := range checks {
		assert.NotEmpty(t, c.Name)
		if c.State == check.Missing {
			assert.NotEmpty(t, c.Detail, c.Name)
		}
	}
}
