package kind

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/kind/pkg/apis/config/defaults"
	"sigs.k8s.io/kind/pkg/apis/config/v1alpha4"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/model"
)

func TestWhatNobodyChoseHasADefault(t *testing.T) {
	t.Setenv(ImageEnv, "")
	s, err := Options{}.plan(cluster.Options{})
	require.NoError(t, err)
	assert.Regexp(t, `^netproof-[a-z0-9]{6}$`, s.name)
	assert.Equal(t, "calico", s.cni)
	assert.Equal(t, 2, s.workers)
	assert.Equal(t, []model.IPFamily{model.IPv4}, s.families)
	assert.Equal(t, defaults.Image, s.image)
	assert.True(t, strings.HasSuffix(s.logs, "netproof-logs-"+s.name), s.logs)
	another, err := Options{}.plan(cluster.Options{})
	require.NoError(t, err)
	assert.NotEqual(t, s.name, another.name, "several clusters side by side")
}

func TestTheNodeImageIsChosenInOrder(t *testing.T) {
	env := func(value string) func(string) string { return func(string) string { return value } }
	for name, tc := range map[string]struct {
		opts      Options
		env, want string
	}{
		"the option goes first":         {Options{NodeImage: "a:1"}, "b:1", "a:1"},
		"a version picks kind's image":  {Options{KubernetesVersion: "1.35.1"}, "b:1", "kindest/node:v1.35.1"},
		"with or without v":             {Options{KubernetesVersion: "v1.34.0-rc.1"}, "", "kindest/node:v1.34.0-rc.1"},
		"the environment":               {Options{}, "b:1", "b:1"},
		"kind's default, with a digest": {Options{}, "", defaults.Image},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := tc.opts.image(env(tc.env))
			require.NoError(t, err)
			assert.Equal(t, tc.want, got)
		})
	}
}

func TestWrongChoicesAreRefusedBeforeAnythingIsMade(t *testing.T) {
	for name, tc := range map[string]struct {
		opts Options
		of   cluster.Options
		want string
	}{
		"no network plugin":       {Options{}, cluster.Options{CNI: "none"}, "calico, cilium, kindnet"},
		"an unknown plugin":       {Options{}, cluster.Options{CNI: "flannel"}, `"flannel": there is calico, cilium, kindnet`},
		"no node":                 {Options{}, cluster.Options{Nodes: -1}, "at least 1 node"},
		"an upper-case name":      {Options{Name: "My"}, cluster.Options{}, `cluster name "My"`},
		"a name for no host name": {Options{Name: strings.Repeat("a", 50)}, cluster.Options{}, "at most 49 characters"},
		"a version of two parts":  {Options{KubernetesVersion: "1.35"}, cluster.Options{}, "three numbers"},
		"image and version":       {Options{KubernetesVersion: "1.35.1", NodeImage: "x"}, cluster.Options{}, "one of the two"},
		"a family twice":          {Options{}, cluster.Options{IPFamilies: []model.IPFamily{model.IPv4, model.IPv4}}, "IP families"},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := New(tc.opts)
			if err == nil {
				_, err = p.Create(t.Context(), tc.of)
			}
			require.ErrorContains(t, err, tc.want)
		})
	}
}

func makeSpec(tweaks ...func(*spec)) spec {
	s := spec{name: "c", cni: "calico", workers: 2, families: []model.IPFamily{model.IPv4}, image: "node:1", progress: func(string) {}}
	for _, tweak := range tweaks {
		tweak(&s)
	}
	return s
}

func TestKindIsToldWhatWasAskedFor(t *testing.T) {
	families := func(f ...model.IPFamily) func(*spec) { return func(s *spec) { s.families = f } }
	for name, tc := range map[string]struct {
		spec    spec
		cgroup  int
		family  v1alpha4.ClusterIPFamily
		disable bool
		pods    string
		patches int
	}{
		"calico":            {makeSpec(), 2, v1alpha4.IPv4Family, true, "", 2},
		"on cgroup v1":      {makeSpec(), 1, v1alpha4.IPv4Family, true, "", 3},
		"kind's own plugin": {makeSpec(func(s *spec) { s.cni = "kindnet" }), 2, v1alpha4.IPv4Family, false, "", 2},
		"IPv6":              {makeSpec(families(model.IPv6)), 2, v1alpha4.IPv6Family, true, "", 2},
		"dual stack":        {makeSpec(families(model.IPv4, model.IPv6)), 2, v1alpha4.DualStackFamily, true, "", 2},
		"IPv6 first":        {makeSpec(families(model.IPv6, model.IPv4)), 2, v1alpha4.DualStackFamily, true, "fd00:10:244::/56,10.244.0.0/16", 2},
	} {
		t.Run(name, func(t *testing.T) {
			text, err := kindConfig(tc.spec, tc.cgroup)
			require.NoError(t, err)
			var c v1alpha4.Cluster
			require.NoError(t, json.Unmarshal(text, &c))
			assert.Equal(t, tc.family, c.Networking.IPFamily)
			assert.Equal(t, tc.disable, c.Networking.DisableDefaultCNI)
			assert.Equal(t, tc.pods, c.Networking.PodSubnet)
			require.Len(t, c.KubeadmConfigPatches, tc.patches)
			assert.Equal(t, tc.cgroup == 1, strings.Contains(strings.Join(c.KubeadmConfigPatches, ""), "failCgroupV1: false"))
			var roles []string
			for _, n := range c.Nodes {
				roles = append(roles, string(n.Role))
				assert.Equal(t, "node:1", n.Image)
			}
			assert.Equal(t, []string{"control-plane", "worker", "worker"}, roles)
		})
	}
}

func TestLabelsSayWhatACluserIs(t *testing.T) {
	now := time.Date(2026, 11, 27, 9, 0, 0, 0, time.UTC)
	s := makeSpec(func(s *spec) { s.families = []model.IPFamily{model.IPv6, model.IPv4} })
	m, ours := readMark(s.labels(now))
	require.True(t, ours)
	assert.Equal(t, mark{name: "c", cni: "calico", image: "node:1", families: s.families, workers: 2, created: now}, m)
	_, ours = readMark(map[string]string{"com.docker.compose.project": "c"})
	assert.False(t, ours)
}

func TestSubnetsOfNetworksAreLocalAndDiffer(t *testing.T) {
	a, b, c := subnetOf("netproof-a", 0), subnetOf("netproof-a", 1), subnetOf("netproof-b", 0)
	for _, p := range []string{a.String(), b.String(), c.String()} {
		assert.True(t, strings.HasPrefix(p, "fd") && strings.HasSuffix(p, "::/64"), p)
	}
	assert.NotEqual(t, a, b)
	assert.NotEqual(t, a, c)
	assert.Equal(t, a, subnetOf("netproof-a", 0))
}
