package render

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// write makes a folder of files, which becomes the working folder.
func write(t *testing.T, files map[string]string) {
	t.Helper()
	t.Chdir(t.TempDir())
	for name, text := range files {
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o700))
		require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
	}
}

const pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: c, image: i}]}\n"

func TestAKustomizationIsBuiltWithItsBase(t *testing.T) {
	write(t, map[string]string{
		"base/kustomization.yaml": "resources: [pod.yaml]\n", "base/pod.yaml": pod,
		"overlays/prod/kustomization.yaml": "namespace: prod\nnamePrefix: a-\nresources: [../../base]\npatches: [{path: patch.yaml}]\n",
		"overlays/prod/patch.yaml":         "apiVersion: v1\nkind: Pod\nmetadata: {name: web, labels: {tier: front}}\n",
	})
	out, notes, err := Kustomize(t.Context(), "overlays/prod")
	require.NoError(t, err)
	assert.Empty(t, notes)
	for _, want := range []string{"name: a-web", "namespace: prod", "tier: front"} {
		assert.Contains(t, string(out), want)
	}
}

func TestAKustomizationFetchesRunsAndReadsNothingElse(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "secret.yaml")
	require.NoError(t, os.WriteFile(outside, []byte(pod), 0o600))
	for text, want := range map[string]string{
		"resources: ['https://localhost:1/a.yaml']":                                  "nothing is fetched here",
		"resources: ['github.com/example/policies//base?ref=v1']":                    "nothing is fetched here",
		"resources: ['git@localhost:policies.git']":                                  "nothing is fetched here",
		"resources: ['git::localhost/policies']":                                     "nothing is fetched here",
		"components: ['ssh://localhost/policies']":                                   "nothing is fetched here",
		"patches: [{path: 'https://localhost:1/a.yaml'}]":                            "nothing is fetched here",
		"openapi: {path: 'https://localhost:1/a.json'}":                              "nothing is fetched here",
		"configMapGenerator: [{name: a, files: ['k=https://localhost:1/a']}]":        "nothing is fetched here",
		"replacements: [{path: 'https://localhost:1/a.yaml'}]":                       "nothing is fetched here",
		"crds: ['https://localhost:1/a.yaml']":                                       "nothing is fetched here",
		"generators: [a.yaml]":                                                       "has generators, which are not run here",
		"transformers: [a.yaml]":                                                     "has transformers, which are not run here",
		"validators: [a.yaml]":                                                       "has validators, which are not run here",
		"helmCharts: [{name: a, repo: 'https://localhost:1'}]":                       "has helmCharts, which are not run here",
		"resources: [../../../../../../etc/hostname]":                                "not below the folder that is read",
		"resources: [" + outside + "]":                                               "not there, or not below the folder that is read",
		"resources: [link.yaml]":                                                     "not there, or not below the folder that is read",
		"configMapGenerator: [{name: a, files: [../outside/a.txt]}]":                 "security; file",
		"resources: [pod.yaml]\nconfigMapGenerator: [{name: a, files: [link.yaml]}]": "link",
	} {
		t.Run(text, func(t *testing.T) {
			write(t, map[string]string{"here/kustomization.yaml": text + "\n", "here/pod.yaml": pod, "outside/a.txt": "a", "here/a.yaml": "kind: A\n"})
			require.NoError(t, os.Symlink(outside, "here/link.yaml"))
			_, _, err := Kustomize(t.Context(), "here")
			require.ErrorContains(t, err, want)
			assert.NotContains(t, err.Error(), "containers")
		})
	}
}

func TestWhatKustomizeSaysIsReturned(t *testing.T) {
	write(t, map[string]string{"kustomization.yaml": "commonLabels: {a: b}\nresources: [pod.yaml]\n", "pod.yaml": pod})
	_, notes, err := Kustomize(t.Context(), ".")
	require.NoError(t, err)
	assert.Contains(t, strings.Join(notes, "\n"), "commonLabels")
}

func store(files map[string]string) map[string]string {
	all := map[string]string{"shop/Chart.yaml": "apiVersion: v2\nname: store\nversion: 1.0.0\n", "shop/values.yaml": "port: 80\nnames: {web: web, db: db}\n"}
	for name, text := range files {
		all[name] = text
	}
	return all
}

func TestAChartIsRenderedWithItsValues(t *testing.T) {
	write(t, store(map[string]string{
		"shop/templates/_helpers.tpl": `{{ define "name" }}{{ .Release.Name }}-web{{ end }}`,
		"shop/templates/NOTES.txt":    "read this",
		"shop/templates/a.yaml":       "name: {{ include \"name\" . }}\nnamespace: {{ .Release.Namespace }}\nport: {{ .Values.port }}\nnames: {{ .Values.names | toJson }}\n",
		"one.yaml":                    "port: 81\nnames: {db: data}\n", "two.yaml": "port: 82\n",
	}))
	out, _, err := Chart(t.Context(), "shop", []string{"one.yaml", "two.yaml"}, Release{Namespace: "prod"})
	require.NoError(t, err)
	require.Len(t, out, 1)
	assert.Equal(t, filepath.Join("shop", "templates", "a.yaml"), out[0].File)
	assert.Equal(t, "name: store-web\nnamespace: prod\nport: 82\nnames: {\"db\":\"data\",\"web\":\"web\"}\n", string(out[0].Text))
}

func TestAChartThatCannotBeRenderedSaysWhy(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"a mistake in a template":   {map[string]string{"shop/templates/a.yaml": "{{ .Values.port"}, "unclosed action"},
		"a value that is required":  {map[string]string{"shop/templates/a.yaml": `{{ required "give a size" .Values.size }}`}, "give a size"},
		"a dependency that is away": {map[string]string{"shop/Chart.yaml": "apiVersion: v2\nname: s\nversion: 1.0.0\ndependencies: [{name: base, version: 1.0.0, repository: 'https://localhost:1'}]\n"}, "it needs the chart base"},
		"values that are a list":    {map[string]string{"values.yaml": "- a\n"}, "values.yaml: it is not YAML, or no mapping of values"},
	} {
		t.Run(name, func(t *testing.T) {
			write(t, store(c.files))
			var values []string
			if _, given := c.files["values.yaml"]; given {
				values = []string{"values.yaml"}
			}
			_, _, err := Chart(t.Context(), "shop", values, Release{})
			assert.ErrorContains(t, err, c.want)
		})
	}
	write(t, map[string]string{"a/b.yaml": pod})
	_, _, err := Chart(t.Context(), "a", nil, Release{})
	assert.EqualError(t, err, "a holds no Chart.yaml")
}

func TestAHostileChartReachesNothing(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(secret, []byte("s3cret"), 0o600))
	write(t, store(map[string]string{
		"shop/values.schema.json": `{"$ref": "file://` + secret + `"}`,
		"shop/templates/a.yaml":   `file: {{ .Files.Get "` + secret + `" | quote }}, host: {{ getHostByName "localhost" | quote }}, objects: {{ lookup "v1" "Pod" "" "" | toJson }}`,
	}))
	out, _, err := Chart(t.Context(), "shop", nil, Release{})
	require.NoError(t, err)
	assert.Equal(t, `file: "", host: "", objects: {}`, string(out[0].Text))

	require.NoError(t, os.Symlink(secret, "shop/link.yaml"))
	_, _, err = Chart(t.Context(), "shop", nil, Release{})
	assert.ErrorContains(t, err, "leads out of the folder")
}

func TestRenderingEndsWithItsContext(t *testing.T) {
	write(t, store(map[string]string{"shop/templates/a.yaml": "{{ range until 100000 }}{{ range until 100000 }}{{ end }}{{ end }}"}))
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, _, err := Chart(ctx, "shop", nil, Release{})
	assert.ErrorIs(t, err, context.DeadlineExceeded)
}
