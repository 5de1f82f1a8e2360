package cilium_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/netproof/netproof/harness/cni"
	"github.com/netproof/netproof/harness/cni/cilium"
	"github.com/netproof/netproof/harness/cni/install"
	"github.com/netproof/netproof/harness/cni/internal/module"
)

var ciliumModule = sync.OnceValues(func() (string, error) {
	return module.Dir(context.Background(), os.DirFS("testdata/module"), "github.com/cilium/cilium")
})

// vendorFiles is Cilium's source at the pinned version.
func vendorFiles(t *testing.T) string {
	t.Helper()
	dir, err := ciliumModule()
	if err != nil {
		t.Skipf("neither module cache nor proxy has Cilium's source: %v", err)
	}
	return dir
}

// archive packs the chart, and something beside it, as the archive of a tag is packed. Only the order of the files is
// another one.
func archive(t *testing.T, tweak func(path string, content []byte) []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	compressed := gzip.NewWriter(&out)
	entries := tar.NewWriter(compressed)
	root := vendorFiles(t)
	add := func(path string) {
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		name, err := filepath.Rel(root, path)
		require.NoError(t, err)
		content = tweak(name, content)
		require.NoError(t, entries.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "cilium-1.15.19/" + name, Size: int64(len(content)), Mode: 0o644}))
		_, err = entries.Write(content)
		require.NoError(t, err)
	}
	add(filepath.Join(root, "README.rst"))
	err := filepath.WalkDir(filepath.Join(root, "install", "kubernetes"), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			add(path)
		}
		return err
	})
	require.NoError(t, err)
	require.NoError(t, entries.Close())
	require.NoError(t, compressed.Close())
	return out.Bytes()
}

func asItIs(_ string, content []byte) []byte { return content }

// served is the plugin from a server that serves this archive as the vendor's does: by way of a redirect.
func served(t *testing.T, content []byte) (plugin install.Plugin, requests func() int) {
	t.Helper()
	var mu sync.Mutex
	count := 0
	mux := http.NewServeMux()
	mux.Handle("/cilium/cilium/archive/refs/tags/v1.15.19.tar.gz", http.RedirectHandler("/codeload", http.StatusFound))
	mux.HandleFunc("/codeload", func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		count++
		mu.Unlock()
		_, _ = w.Write(content)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	plugin = cilium.Plugin()
	plugin.Source.URL = server.URL + "/cilium/cilium/archive/refs/tags/v1.15.19.tar.gz"
	return plugin, func() int {
		mu.Lock()
		defer mu.Unlock()
		return count
	}
}

func options(t *testing.T) install.Options {
	t.Helper()
	return install.Options{CacheDir: t.TempDir(), PodSubnets: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}}
}

func TestPinnedChartIsTheVendors(t *testing.T) {
	digest, err := install.ChartDigest(os.DirFS(filepath.Join(vendorFiles(t), "install", "kubernetes", "cilium")))
	require.NoError(t, err)
	assert.Equal(t, cilium.Plugin().Source.Digest, digest)
}

func TestPinnedVersionHasCapabilities(t *testing.T) {
	capabilities, ok := cni.CapabilitiesOf("cilium", cilium.Version)
	require.True(t, ok, "a pinned version without an entry in the table")
	assert.Equal(t, []cni.Feature{cni.EndPort}, capabilities.Missing(cni.SCTP, cni.EndPort, cni.IPv6, cni.DualStack))
}

func TestChartIsTakenOutOfTheSourceArchiveOnce(t *testing.T) {
	plugin, requests := served(t, archive(t, asItIs))
	opts := options(t)
	bundle, err := install.Load(t.Context(), plugin, opts)
	require.NoError(t, err)
	assert.Equal(t, cilium.Version, bundle.Version)
	assert.Equal(t, []string{"quay.io/cilium/cilium:v1.15.19", "quay.io/cilium/operator-generic:v1.15.19"}, bundle.Images())
	assert.Contains(t, bundle.Source, "install/kubernetes/cilium")

	again, err := install.Load(t.Context(), plugin, opts)
	require.NoError(t, err)
	assert.Equal(t, bundle.Digest, again.Digest, "rendering is repeatable")
	assert.Equal(t, 1, requests(), "the second time it comes from the cache")

	// What is in the cache is a chart like any other.
	charts, err := filepath.Glob(filepath.Join(opts.CacheDir, "*", "cilium.tgz"))
	require.NoError(t, err)
	require.Len(t, charts, 1)
	carried := options(t)
	carried.Chart = charts[0]
	byHand, err := install.Load(t.Context(), cilium.Plugin(), carried)
	require.NoError(t, err)
	assert.Equal(t, bundle.Digest, byHand.Digest)

	require.NoError(t, os.WriteFile(charts[0], []byte("damaged"), 0o600))
	_, err = install.Load(t.Context(), plugin, opts)
	require.NoError(t, err)
	assert.Equal(t, 2, requests(), "a damaged file of the cache is fetched again")
}

func TestChangedChartIsRefused(t *testing.T) {
	plugin, _ := served(t, archive(t, func(path string, content []byte) []byte {
		if filepath.Base(path) == "values.yaml" {
			return append(content, "# changed\n"...)
		}
		return content
	}))
	opts := options(t)
	_, err := install.Load(t.Context(), plugin, opts)
	var wrong *install.DigestError
	require.ErrorAs(t, err, &wrong)
	assert.Equal(t, plugin.Source.Digest, wrong.Want)
	assert.Contains(t, wrong.What, plugin.Source.URL)
	assert.NoDirExists(t, filepath.Join(opts.CacheDir, plugin.Source.Digest[len("sha256:"):]), "nothing of it is kept")
}

func TestWhatStandsBesideTheChartDoesNotMatter(t *testing.T) {
	plugin, _ := served(t, archive(t, func(path string, content []byte) []byte {
		if path == "README.rst" {
			return append(content, "changed"...)
		}
		return content
	}))
	_, err := install.Load(t.Context(), plugin, options(t))
	require.NoError(t, err)
}

func TestHalfAnArchiveIsRefused(t *testing.T) {
	whole := archive(t, asItIs)
	for _, cut := range []int{100, len(whole) / 2, len(whole) - 4} {
		plugin, _ := served(t, whole[:cut])
		_, err := install.Load(t.Context(), plugin, options(t))
		require.ErrorContains(t, err, "unexpected EOF", "cut after %d of %d bytes", cut, len(whole))
	}
}

// config is Cilium's ConfigMap.
func config(t *testing.T, opts install.Options) map[string]string {
	t.Helper()
	opts.Chart = filepath.Join(vendorFiles(t), "install", "kubernetes", "cilium")
	bundle, err := install.Load(t.Context(), cilium.Plugin(), opts)
	require.NoError(t, err)
	for _, o := range bundle.Objects {
		if o.GetName() == "cilium-config" && o.GetKind() == "ConfigMap" {
			data, _, err := unstructured.NestedStringMap(o.Object, "data")
			require.NoError(t, err)
			return data
		}
	}
	t.Fatal("there is no cilium-config")
	return nil
}

func TestValuesReachTheAgent(t *testing.T) {
	got := config(t, options(t))
	for key, want := range map[string]string{
		"ipam":                            "kubernetes",
		"routing-mode":                    "native",
		"auto-direct-node-routes":         "true",
		"enable-endpoint-routes":          "true",
		"ipv4-native-routing-cidr":        "10.244.0.0/16",
		"k8s-require-ipv4-pod-cidr":       "true",
		"enable-ipv4":                     "true",
		"enable-ipv6":                     "false",
		"kube-proxy-replacement":          "false",
		"bpf-lb-sock":                     "false",
		"enable-l7-proxy":                 "false",
		"mesh-auth-enabled":               "false",
		"enable-health-checking":          "false",
		"enable-endpoint-health-checking": "false",
		"enable-host-legacy-routing":      "true",
		"preallocate-bpf-maps":            "false",
		"bpf-map-dynamic-size-ratio":      "0.0005",
		"enable-sctp":                     "true",
		"identity-allocation-mode":        "crd",
	} {
		assert.Equal(t, want, got[key], key)
	}
	assert.NotContains(t, got, "enable-hubble")
}

func TestValuesFollowTheFamilies(t *testing.T) {
	opts := options(t)
	opts.PodSubnets = []netip.Prefix{netip.MustParsePrefix("fd00:10:244::/56")}
	six := config(t, opts)
	assert.Equal(t, "false", six["enable-ipv4"])
	assert.Equal(t, "true", six["enable-ipv6"])
	assert.Equal(t, "fd00:10:244::/56", six["ipv6-native-routing-cidr"])
	assert.NotContains(t, six, "k8s-require-ipv4-pod-cidr")

	opts.PodSubnets = append(opts.PodSubnets, netip.MustParsePrefix("10.244.0.0/16"))
	both := config(t, opts)
	assert.Equal(t, "true", both["enable-ipv4"])
	assert.Equal(t, "true", both["enable-ipv6"])
	assert.Equal(t, "true", both["k8s-require-ipv6-pod-cidr"])
}

func TestUserDecidesLast(t *testing.T) {
	opts := options(t)
	opts.Set = []string{"routingMode=tunnel,autoDirectNodeRoutes=false", "hubble.enabled=true", "hubble.tls.enabled=false", "extraConfig.monitor-aggregation=none"}
	got := config(t, opts)
	assert.Equal(t, "tunnel", got["routing-mode"])
	assert.Equal(t, "true", got["enable-hubble"])
	assert.Equal(t, "none", got["monitor-aggregation"])
}

func TestChartsOwnRefusalReachesTheUser(t *testing.T) {
	opts := options(t)
	opts.Chart = filepath.Join(vendorFiles(t), "install", "kubernetes", "cilium")
	opts.Set = []string{"tunnel=vxlan"}
	_, err := install.Load(t.Context(), cilium.Plugin(), opts)
	require.ErrorContains(t, err, "render chart cilium 1.15.19")
	require.ErrorContains(t, err, "tunnel was deprecated")
}
