package calico_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/netproof/netproof/harness/cni"
	"github.com/netproof/netproof/harness/cni/calico"
	"github.com/netproof/netproof/harness/cni/install"
	"github.com/netproof/netproof/harness/cni/internal/module"
)

var calicoModule = sync.OnceValues(func() (string, error) {
	return module.Dir(context.Background(), os.DirFS("../../cluster/local/engine/modules/calico"), "github.com/projectcalico/calico")
})

// vendorFiles is Calico's source at the pinned version, as the Go module that the local provider builds.
func vendorFiles(t *testing.T) string {
	t.Helper()
	dir, err := calicoModule()
	if err != nil {
		t.Skipf("neither module cache nor proxy has Calico's source: %v", err)
	}
	return dir
}

// load installs from a server that serves what the vendor's serves, at the same path.
func load(t *testing.T, tweaks ...func(*install.Options)) (*install.Bundle, error) {
	t.Helper()
	server := httptest.NewServer(http.StripPrefix("/"+calico.Version, http.FileServer(http.Dir(vendorFiles(t)))))
	t.Cleanup(server.Close)
	plugin := calico.Plugin()
	plugin.Source.URL = server.URL + "/" + calico.Version + "/manifests/calico-vxlan.yaml"
	opts := install.Options{CacheDir: t.TempDir(), PodSubnets: prefixes("10.244.0.0/16")}
	for _, tweak := range tweaks {
		tweak(&opts)
	}
	return install.Load(context.WithoutCancel(t.Context()), plugin, opts)
}

func mustLoad(t *testing.T, tweaks ...func(*install.Options)) *install.Bundle {
	t.Helper()
	bundle, err := load(t, tweaks...)
	require.NoError(t, err)
	return bundle
}

func subnets(text ...string) func(*install.Options) {
	return func(o *install.Options) { o.PodSubnets = prefixes(text...) }
}

func find(t *testing.T, bundle *install.Bundle, kind, name string) *unstructured.Unstructured {
	t.Helper()
	for _, o := range bundle.Objects {
		if o.GetKind() == kind && o.GetName() == name {
			return o
		}
	}
	t.Fatalf("there is no %s %s", kind, name)
	return nil
}

// env is the environment of calico-node, without what comes from elsewhere.
func env(t *testing.T, bundle *install.Bundle) map[string]string {
	t.Helper()
	containers, _, err := unstructured.NestedSlice(find(t, bundle, "DaemonSet", "calico-node").Object, "spec", "template", "spec", "containers")
	require.NoError(t, err)
	require.Len(t, containers, 1)
	set := map[string]string{}
	for _, e := range containers[0].(map[string]any)["env"].([]any) {
		entry := e.(map[string]any)
		if value, ok := entry["value"].(string); ok {
			set[entry["name"].(string)] = value
		}
	}
	return set
}

// networkConfig is what install-cni is given, with the places that it fills in filled in.
func networkConfig(t *testing.T, bundle *install.Bundle) string {
	t.Helper()
	text, _, err := unstructured.NestedString(find(t, bundle, "ConfigMap", "calico-config").Object, "data", "cni_network_config")
	require.NoError(t, err)
	return regexp.MustCompile(`\s+`).ReplaceAllString(text, "")
}

func TestPinnedManifestIsTheVendors(t *testing.T) {
	bundle := mustLoad(t)
	assert.Equal(t, calico.Version, bundle.Version)
	assert.Equal(t, []string{"docker.io/calico/cni:v3.30.1", "docker.io/calico/kube-controllers:v3.30.1", "docker.io/calico/node:v3.30.1"}, bundle.Images())
	assert.Len(t, bundle.Objects, 39)
	assert.Equal(t, bundle.Digest, mustLoad(t).Digest, "the same input gives the same digest")
	assert.NotEqual(t, bundle.Digest, mustLoad(t, subnets("10.245.0.0/16")).Digest)
}

func TestPinnedVersionHasCapabilities(t *testing.T) {
	capabilities, ok := cni.CapabilitiesOf("calico", calico.Version)
	require.True(t, ok, "a pinned version without an entry in the table")
	assert.Empty(t, capabilities.Missing(cni.SCTP, cni.EndPort, cni.DualStack, cni.AdminNetworkPolicy, cni.BaselineAdminNetworkPolicy))
	// Only kinds that the manifest defines can be claimed.
	served := map[string]bool{}
	for _, o := range mustLoad(t).Objects {
		if o.GetKind() == "CustomResourceDefinition" {
			group, _, _ := unstructured.NestedString(o.Object, "spec", "group")
			kind, _, _ := unstructured.NestedString(o.Object, "spec", "names", "kind")
			served[kind+"."+group] = true
		}
	}
	for _, kind := range capabilities.Kinds() {
		assert.True(t, served[kind.String()], "%s", kind)
	}
}

func TestPinIsTheVersionThatTheLocalProviderBuilds(t *testing.T) {
	pins, err := os.ReadFile("../../cluster/local/engine/pins.go")
	require.NoError(t, err)
	assert.Contains(t, string(pins), `CalicoVersion     = "`+calico.Version+`"`)
}

func TestManifestIsFittedToTheFamilies(t *testing.T) {
	for name, c := range map[string]struct {
		subnets []string
		env     map[string]string
		ipam    string
	}{
		"IPv4": {
			[]string{"10.244.0.0/16"},
			map[string]string{"CALICO_IPV4POOL_CIDR": "10.244.0.0/16", "IP": "autodetect", "IP6": "", "FELIX_IPV6SUPPORT": "false"},
			`"ipam":{"type":"calico-ipam"}`,
		},
		"IPv6": {
			[]string{"fd00:10:244::/56"},
			map[string]string{
				"CALICO_IPV4POOL_CIDR": "none", "IP": "none", "CALICO_ROUTER_ID": "hash",
				"CALICO_IPV6POOL_CIDR": "fd00:10:244::/56", "IP6": "autodetect", "FELIX_IPV6SUPPORT": "true",
			},
			`"ipam":{"type":"calico-ipam","assign_ipv4":"false","assign_ipv6":"true"}`,
		},
		"both": {
			[]string{"10.244.0.0/16", "fd00:10:244::/56"},
			map[string]string{
				"CALICO_IPV4POOL_CIDR": "10.244.0.0/16", "IP": "autodetect", "CALICO_ROUTER_ID": "",
				"CALICO_IPV6POOL_CIDR": "fd00:10:244::/56", "IP6": "autodetect", "FELIX_IPV6SUPPORT": "true",
			},
			`"ipam":{"type":"calico-ipam","assign_ipv4":"true","assign_ipv6":"true"}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			bundle := mustLoad(t, subnets(c.subnets...))
			got := env(t, bundle)
			for variable, want := range c.env {
				assert.Equal(t, want, got[variable], variable)
			}
			assert.Equal(t, "Always", got["CALICO_IPV4POOL_VXLAN"])
			assert.Equal(t, "Never", got["CALICO_IPV4POOL_IPIP"])
			assert.Contains(t, networkConfig(t, bundle), c.ipam)
		})
	}
}

func TestWhatWasChangedIsSaid(t *testing.T) {
	assert.Equal(t, []string{
		`DaemonSet kube-system/calico-node, container calico-node: CALICO_IPV4POOL_CIDR=10.244.0.0/16`,
		`DaemonSet kube-system/calico-node, container calico-node: CALICO_IPV4POOL_IPIP=Never instead of "Never"`,
		`DaemonSet kube-system/calico-node, container calico-node: CALICO_IPV4POOL_VXLAN=Always instead of "CrossSubnet"`,
		`DaemonSet kube-system/calico-node, container calico-node: CALICO_IPV6POOL_VXLAN=Always instead of "CrossSubnet"`,
	}, mustLoad(t).Changes)
}

func TestUserDecidesLast(t *testing.T) {
	bundle := mustLoad(t, func(o *install.Options) {
		o.Set = []string{"CALICO_IPV4POOL_VXLAN=CrossSubnet", "calico-node/FELIX_LOGSEVERITYSCREEN=Debug"}
		o.ImageOverrides = []install.Override{{From: "calico/node", To: "registry.local/np/node:dev"}}
		o.Mirror = "mirror.local:5000/hub"
	})
	got := env(t, bundle)
	assert.Equal(t, "CrossSubnet", got["CALICO_IPV4POOL_VXLAN"])
	assert.Equal(t, "Debug", got["FELIX_LOGSEVERITYSCREEN"])
	assert.Equal(t, []string{"mirror.local:5000/hub/calico/cni:v3.30.1", "mirror.local:5000/hub/calico/kube-controllers:v3.30.1", "registry.local/np/node:dev"}, bundle.Images())
	assert.Equal(t, calico.Version, bundle.Version, "an override does not change which Calico it is")
}

func TestManifestOfTheUsersKeepsItsEncapsulation(t *testing.T) {
	file := filepath.Join(vendorFiles(t), "manifests", "calico.yaml")
	bundle := mustLoad(t, func(o *install.Options) { o.Manifest = file })
	assert.Equal(t, file, bundle.Source)
	got := env(t, bundle)
	assert.Equal(t, "Always", got["CALICO_IPV4POOL_IPIP"], "this one is for BGP")
	assert.Equal(t, "10.244.0.0/16", got["CALICO_IPV4POOL_CIDR"])
}

func TestManifestWithoutCalicoNodeStaysAsItIs(t *testing.T) {
	file := filepath.Join(vendorFiles(t), "manifests", "tigera-operator.yaml")
	bundle := mustLoad(t, subnets("10.244.0.0/16", "fd00::/56"), func(o *install.Options) { o.Manifest = file })
	assert.Empty(t, bundle.Changes)
}

func TestManifestThatCannotGiveIPv6AddressesIsAnError(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(vendorFiles(t), "manifests", "calico-vxlan.yaml"))
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "calico.yaml")
	require.NoError(t, os.WriteFile(file, []byte(strings.ReplaceAll(string(text), `"type": "calico-ipam"`, `"type": "host-local"`)), 0o600))
	_, err = load(t, subnets("fd00::/56"), func(o *install.Options) { o.Manifest = file })
	require.ErrorContains(t, err, "does not name calico-ipam once")
	_, err = load(t, func(o *install.Options) { o.Manifest = file })
	require.NoError(t, err, "IPv4 needs no change there")
}

func TestSubnetsAreMaskedAndTold(t *testing.T) {
	bundle := mustLoad(t, func(o *install.Options) { o.PodSubnets = []netip.Prefix{netip.MustParsePrefix("10.244.3.7/16")} })
	assert.Equal(t, "10.244.0.0/16", env(t, bundle)["CALICO_IPV4POOL_CIDR"])
}
