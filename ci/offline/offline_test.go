package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/cluster/local/engine"
)

// entries reads the names of a tar stream and the contents of its files.
func entries(t *testing.T, r io.Reader) (names []string, contents map[string]string) {
	t.Helper()
	contents = map[string]string{}
	files := tar.NewReader(r)
	for {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			return names, contents
		}
		require.NoError(t, err)
		content, err := io.ReadAll(files)
		require.NoError(t, err)
		names = append(names, h.Name)
		contents[h.Name] = string(content)
	}
}

func helloLayer(t *testing.T, file string, compressed bool) layer {
	t.Helper()
	l, err := writeLayer(filepath.Join(t.TempDir(), file), compressed, func(l *layerWriter) error {
		return errors.Join(l.text("usr/bin/hello", "hi", 0o755), l.link("usr/bin/greet", "hello"))
	})
	require.NoError(t, err)
	return l
}

func TestALayerHasTheParentFoldersOfItsFilesOnce(t *testing.T) {
	content, err := os.ReadFile(helloLayer(t, "l", false).File)
	require.NoError(t, err)
	names, contents := entries(t, bytes.NewReader(content))
	assert.Equal(t, []string{"usr/", "usr/bin/", "usr/bin/hello", "usr/bin/greet"}, names)
	assert.Equal(t, "hi", contents["usr/bin/hello"])
}

func TestEqualLayersHaveEqualDigestsCompressedOrNot(t *testing.T) {
	plain, zipped := helloLayer(t, "l", false), helloLayer(t, "z", true)
	assert.Equal(t, plain.DiffID, zipped.DiffID)
	f, err := os.Open(zipped.File)
	require.NoError(t, err)
	defer f.Close()
	r, err := gzip.NewReader(f)
	require.NoError(t, err)
	names, _ := entries(t, r)
	assert.Len(t, names, 4)
}

func TestATreeBecomesALayerWithoutWhatIsSkipped(t *testing.T) {
	root := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(root, "a/b"), 0o750))
	require.NoError(t, os.WriteFile(filepath.Join(root, "a/b/file"), []byte("x"), 0o640))
	require.NoError(t, os.WriteFile(filepath.Join(root, "a/other"), nil, 0o600))
	l, err := writeLayer(filepath.Join(t.TempDir(), "l"), false, func(l *layerWriter) error {
		return l.tree(root, "var", func(name string) bool { return name == "a/other" })
	})
	require.NoError(t, err)
	f, err := os.Open(l.File)
	require.NoError(t, err)
	defer f.Close()
	names, _ := entries(t, f)
	assert.Equal(t, []string{"var/", "var/a/", "var/a/b/", "var/a/b/file"}, names)
}

func TestAnArchiveNamesItsImagesAndHasSharedLayersOnce(t *testing.T) {
	shared := helloLayer(t, "l", true)
	file := filepath.Join(t.TempDir(), "images.tar")
	require.NoError(t, writeArchive(file, []image{
		{names: []string{"one:1", "one:2"}, layers: []layer{shared}, config: runConfig{Entrypoint: []string{"/hello"}}},
		{names: []string{"two:1"}, layers: []layer{shared}, config: runConfig{Env: []string{"PATH=/opt", "X=1"}}},
	}))
	f, err := os.Open(file)
	require.NoError(t, err)
	defer f.Close()
	names, contents := entries(t, f)
	layers := 0
	for _, name := range names {
		if strings.HasSuffix(name, "layer.tar") {
			layers++
		}
	}
	assert.Equal(t, 1, layers)
	var manifest []struct {
		Config           string
		RepoTags, Layers []string
	}
	require.NoError(t, json.Unmarshal([]byte(contents["manifest.json"]), &manifest))
	require.Len(t, manifest, 2)
	assert.Equal(t, []string{"one:1", "one:2"}, manifest[0].RepoTags)
	assert.Equal(t, manifest[0].Layers, manifest[1].Layers)
	var config struct {
		Architecture, OS string
		Config           runConfig
		RootFS           struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	require.NoError(t, json.Unmarshal([]byte(contents[manifest[0].Config]), &config))
	assert.Equal(t, "amd64", config.Architecture)
	assert.Equal(t, []string{"sha256:" + shared.DiffID}, config.RootFS.DiffIDs)
	assert.Equal(t, []string{defaultPath}, config.Config.Env)
	assert.Equal(t, []string{"/hello"}, config.Config.Entrypoint)
	require.NoError(t, json.Unmarshal([]byte(contents[manifest[1].Config]), &config))
	assert.Equal(t, []string{"PATH=/opt", "X=1"}, config.Config.Env)
}

const status = `Package: iptables
Status: install ok installed
Depends: libc6 (>= 2.36), libxtables12 (= 1.8.9-2), netbase:any | other
Pre-Depends: dpkg (>= 1)

Package: libc6
Depends: libgcc-s1

Package: libgcc-s1

Package: libxtables12
Depends: libc6

Package: netbase

Package: dpkg

Package: unrelated
`

func TestPackagesComeWithWhatTheyNeedAndNothingElse(t *testing.T) {
	got := closure(parseDepends(status), []string{"iptables"}, []string{"dpkg"})
	assert.Equal(t, []string{"iptables", "libc6", "libgcc-s1", "libxtables12", "netbase"}, got)
}

func TestPathsAreThoseOfAMergedUsr(t *testing.T) {
	assert.Equal(t, "usr/sbin/ip", mergedPath("/sbin/ip"))
	assert.Equal(t, "usr/lib/x", mergedPath("/lib/x"))
	assert.Equal(t, "usr/bin/x", mergedPath("/usr/bin/x"))
	assert.Equal(t, "etc/x", mergedPath("/etc/x"))
	assert.Equal(t, "bin", mergedPath("/bin"), "the link itself")
}

func TestAlternativesComeWithTheProgramThatIsChosen(t *testing.T) {
	tree := t.TempDir()
	for _, dir := range []string{"usr/bin", "usr/sbin", "etc/alternatives"} {
		require.NoError(t, os.MkdirAll(filepath.Join(tree, dir), 0o755))
	}
	for name, target := range map[string]string{
		"usr/sbin/iptables": "/etc/alternatives/iptables", "etc/alternatives/iptables": "/usr/sbin/iptables-nft",
		"usr/bin/awk": "/etc/alternatives/awk", "etc/alternatives/awk": "/usr/bin/mawk",
		"usr/bin/sh": "dash",
	} {
		require.NoError(t, os.Symlink(target, filepath.Join(tree, name)))
	}
	files := map[string]bool{"usr/sbin/iptables-nft": true}
	require.NoError(t, addAlternatives(tree, files))
	assert.Equal(t, map[string]bool{
		"usr/sbin/iptables-nft": true, "usr/sbin/iptables": true, "etc/alternatives/iptables": true, "usr/bin/sh": true,
	}, files)
}

func TestTheKubeletGetsOneMoreArgument(t *testing.T) {
	got, err := withKubeletArgument("# comment\nKUBELET_EXTRA_ARGS=--a=b", "--c=d")
	require.NoError(t, err)
	assert.Equal(t, "# comment\nKUBELET_EXTRA_ARGS=--a=b --c=d\n", got)
	_, err = withKubeletArgument("OTHER=\n", "--c=d")
	assert.Error(t, err, "a kind that does it in another way")
}

func TestTheBaseSpecificationHasKindsHookAndNoLimits(t *testing.T) {
	got, err := baseSpec([]byte(`{"process":{"args":["sh"],"rlimits":[{"type":"RLIMIT_NOFILE"}]},"linux":{}}`))
	require.NoError(t, err)
	assert.JSONEq(t, `{"process":{"args":["sh"]},"linux":{},"hooks":{"createContainer":[{"path":"/kind/bin/mount-product-files.sh"}]}}`,
		string(got))
	_, err = baseSpec([]byte(`{}`))
	assert.Error(t, err)
}

func TestKeysTellPartsApart(t *testing.T) {
	assert.NotEqual(t, keyOf("ab", "c"), keyOf("a", "bc"))
	assert.Equal(t, keyOf("ab", "c"), keyOf("ab", "c"))
}

func TestAThingIsBuiltOnceAndWholeOrNotAtAll(t *testing.T) {
	c := cache{dir: t.TempDir(), log: io.Discard}
	_, err := c.ensure("thing", "k", func(string) error { return errors.New("broken") })
	require.ErrorContains(t, err, "broken")
	assert.NoDirExists(t, filepath.Join(c.dir, "thing-k"))
	built := 0
	for range 2 {
		dir, err := c.ensure("thing", "k", func(dir string) error {
			built++
			return os.WriteFile(filepath.Join(dir, "file"), nil, 0o600)
		})
		require.NoError(t, err)
		assert.FileExists(t, filepath.Join(dir, "file"))
	}
	assert.Equal(t, 1, built)
}

func TestImagesHaveTheNamesOfTheVendorsManifestAndOneOfTheirContent(t *testing.T) {
	assert.Equal(t, imageNames{known: "docker.io/calico/node:v1", keyed: "netproof.dev/calico/node:v1-k"},
		taggedNames(calicoNode, "v1", "k"))
	assert.Equal(t, imageNames{known: "netproof.dev/kind-node:v1", keyed: "netproof.dev/kind-node:v1-k"}, taggedNames(nodeName, "v1", "k"))
}

func TestEveryModuleHasItsFiles(t *testing.T) {
	seen := map[string]bool{}
	for _, m := range append(modules(), ciliumModule()) {
		content, err := moduleFiles.ReadFile("modules/" + m.Name + "/go.mod.txt")
		require.NoError(t, err)
		assert.FileExists(t, filepath.Join("modules", m.Name, "go.sum.txt"))
		assert.False(t, seen[m.Name], "names are unique")
		seen[m.Name] = true
		for _, pkg := range m.Programs {
			listed := strings.Contains(string(content), "\t"+pkg+"\n") || strings.Contains(string(content), "\ntool "+pkg+"\n")
			assert.True(t, listed, "go.mod of %s keeps %s by a tool line", m.Name, pkg)
		}
	}
}

func TestTheVersionsAreThoseOfTheModuleFiles(t *testing.T) {
	for name, line := range map[string]string{
		"containerd": "github.com/containerd/containerd/v2 " + containerdVersion,
		"crictl":     "sigs.k8s.io/cri-tools " + crictlVersion,
		"coredns":    "github.com/coredns/coredns " + coreDNSVersion,
		"nodeetcd":   "go.etcd.io/etcd/server/v3 " + etcdVersion,
		"kubenode":   "k8s.io/kubernetes " + engine.KubernetesVersion,
		"cnimeta":    "github.com/containernetworking/plugins " + engine.CNIPluginsVersion,
		"cilium":     "github.com/cilium/cilium " + ciliumVersion,
	} {
		content, err := moduleFiles.ReadFile("modules/" + name + "/go.mod.txt")
		require.NoError(t, err)
		assert.True(t, strings.Contains(string(content), line+" "), "%s: %s", name, line)
	}
}

func TestOptionsRefuseWhatTheyDoNotKnow(t *testing.T) {
	o, err := parseOptions([]string{"--print", "--preload-calico=false"}, io.Discard)
	require.NoError(t, err)
	assert.Equal(t, options{print: true, load: true}, o, "Cilium's images are not made unless they are asked for")
	o, err = parseOptions([]string{"--cilium"}, io.Discard)
	require.NoError(t, err)
	assert.Equal(t, options{load: true, preload: true, cilium: true}, o)
	_, err = parseOptions([]string{"extra"}, io.Discard)
	assert.ErrorContains(t, err, "extra")
}
