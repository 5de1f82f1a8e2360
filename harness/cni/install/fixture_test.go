package install_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/cni/install"
)

// manifest is a plugin's, with what installers can get wrong: objects in the wrong order, a list, an empty document.
const manifest = `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent, namespace: kube-system}
spec:
  template:
    metadata: {labels: {app: agent}}
    spec:
      initContainers:
      - name: setup
        image: busybox
        env:
        - {name: LEVEL, value: low}
      containers:
      - name: agent
        image: quay.io/plugin/agent:v1.2.3
        env:
        - {name: LEVEL, value: low}
        - name: NODE
          valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
      volumes:
      - name: rules
        image: {reference: "quay.io/plugin/rules:v1@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}
---
# nothing
---
apiVersion: v1
kind: List
items:
- apiVersion: rbac.authorization.k8s.io/v1
  kind: ClusterRole
  metadata: {name: agent}
- apiVersion: example.com/v1
  kind: Rule
  metadata: {name: first}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: rules.example.com}
spec: {group: example.com, names: {kind: Rule, plural: rules}, scope: Cluster}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: agent}
---
apiVersion: v1
kind: Namespace
metadata: {name: plugin}
`

func digest(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// vendor serves a manifest and gives the plugin that is installed from it.
func vendor(t *testing.T, handler http.HandlerFunc) install.Plugin {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return install.Plugin{
		Name: "plugin", Version: "v1.2.3",
		Source: install.Source{URL: server.URL + "/v1.2.3/plugin.yaml", Digest: digest([]byte(manifest))},
		Agent:  install.Agent{Selector: "app=agent", Container: "agent"},
	}
}

func sends(content string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(content)) }
}

func options(t *testing.T, tweaks ...func(*install.Options)) install.Options {
	t.Helper()
	opts := install.Options{CacheDir: filepath.Join(t.TempDir(), "cni"), PodSubnets: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}}
	for _, tweak := range tweaks {
		tweak(&opts)
	}
	return opts
}

// file writes a file and returns its path.
func file(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, content, 0o600))
	return path
}

// chartFiles are those of a small chart. Its agent's image is made of values.
func chartFiles(tweaks ...func(map[string]string)) map[string]string {
	files := map[string]string{
		"Chart.yaml":  "apiVersion: v2\nname: plugin\nversion: 1.2.3\nappVersion: 1.2.3\n",
		"values.yaml": "tag: v1.2.3\nlevel: low\nport: 1\nextra: {}\nnested: {deep: a}\n",
		"crds/rule.yaml": "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: rules.example.com}\n" +
			"spec: {group: example.com}\n",
		"templates/_names.tpl": `{{- define "name" }}{{ .Release.Name }}{{ end }}`,
		"templates/NOTES.txt":  "Thank you.",
		"templates/agent.yaml": `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: {{ include "name" . }}, namespace: {{ .Release.Namespace }}}
spec:
  template:
    spec:
      containers:
      - name: agent
        image: quay.io/plugin/agent:{{ .Values.tag }}
        args: [--level={{ .Values.level }}, --port={{ .Values.port }}, --deep={{ .Values.nested.deep }}, "--kubernetes={{ .Capabilities.KubeVersion }}"]
`,
		"templates/off.yaml":  "{{ if .Values.off }}kind: Secret{{ end }}",
		"templates/test.yaml": "apiVersion: v1\nkind: Pod\nmetadata:\n  name: test\n  annotations: {helm.sh/hook: \"test, post-upgrade\"}\n",
	}
	for _, tweak := range tweaks {
		tweak(files)
	}
	return files
}

// packed is a chart as Helm packs it.
func packed(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var out bytes.Buffer
	compressed := gzip.NewWriter(&out)
	entries := tar.NewWriter(compressed)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		require.NoError(t, entries.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "plugin/" + name, Size: int64(len(files[name])), Mode: 0o644}))
		_, err := entries.Write([]byte(files[name]))
		require.NoError(t, err)
	}
	require.NoError(t, entries.Close())
	require.NoError(t, compressed.Close())
	return out.Bytes()
}

// unpacked is the chart as a folder.
func unpacked(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	return dir
}

func chartDigest(t *testing.T, folder string) string {
	t.Helper()
	d, err := install.ChartDigest(os.DirFS(folder))
	require.NoError(t, err)
	return d
}
