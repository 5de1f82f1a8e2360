package install_test

import (
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/netproof/netproof/harness/cni/install"
	"github.com/netproof/netproof/harness/model"
)

func loadManifest(t *testing.T, tweaks ...func(*install.Options)) (*install.Bundle, error) {
	t.Helper()
	return install.Load(t.Context(), vendor(t, sends(manifest)), options(t, tweaks...))
}

func loadChart(t *testing.T, files map[string]string, tweaks ...func(*install.Options)) (*install.Bundle, error) {
	t.Helper()
	plugin := vendor(t, sends(manifest))
	plugin.Values = func(n install.Network) map[string]any {
		return map[string]any{"level": string(n.Families[0]), "hidden": true}
	}
	return install.Load(t.Context(), plugin, options(t, append([]func(*install.Options){func(o *install.Options) { o.Chart = unpacked(t, files) }}, tweaks...)...))
}

func kinds(bundle *install.Bundle) []string {
	var kinds []string
	for _, o := range bundle.Objects {
		kinds = append(kinds, o.GetKind())
	}
	return kinds
}

// agentOf is the DaemonSet as text.
func agentOf(t *testing.T, bundle *install.Bundle) string {
	t.Helper()
	for _, o := range bundle.Objects {
		if o.GetKind() == "DaemonSet" {
			text, err := o.MarshalJSON()
			require.NoError(t, err)
			return string(text)
		}
	}
	t.Fatal("there is no DaemonSet")
	return ""
}

func set(settings ...string) func(*install.Options) {
	return func(o *install.Options) { o.Set = settings }
}

func TestObjectsStandInTheOrderInWhichTheyNeedEachOther(t *testing.T) {
	bundle, err := loadManifest(t)
	require.NoError(t, err)
	assert.Equal(t, []string{"Namespace", "CustomResourceDefinition", "ServiceAccount", "ClusterRole", "Rule", "DaemonSet"}, kinds(bundle))
	assert.Equal(t, "v1.2.3", bundle.Version)
	assert.Equal(t, "plugin", bundle.Plugin)
	assert.Empty(t, bundle.Changes)
}

func TestImagesAreFoundWhereverPodsNameThem(t *testing.T) {
	bundle, err := loadManifest(t)
	require.NoError(t, err)
	assert.Equal(t, []string{
		"busybox", "quay.io/plugin/agent:v1.2.3",
		"quay.io/plugin/rules:v1@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
	}, bundle.Images())
}

func TestDigestIsOfWhatIsApplied(t *testing.T) {
	plain, err := loadManifest(t)
	require.NoError(t, err)
	reformatted, err := loadManifest(t, func(o *install.Options) { o.Manifest = file(t, "m.yaml", []byte("# A comment.\n"+manifest)) })
	require.NoError(t, err)
	assert.Equal(t, plain.Digest, reformatted.Digest)
	changed, err := loadManifest(t, set("LEVEL=high"))
	require.NoError(t, err)
	assert.NotEqual(t, plain.Digest, changed.Digest)
}

func TestManifestSettingsAreVariablesOfContainers(t *testing.T) {
	bundle, err := loadManifest(t, set("LEVEL=high", "agent/NODE=me", "setup/NEW=a=b"))
	require.NoError(t, err)
	assert.Equal(t, []string{
		`DaemonSet kube-system/agent, container setup: LEVEL=high instead of "low"`,
		`DaemonSet kube-system/agent, container agent: LEVEL=high instead of "low"`,
		`DaemonSet kube-system/agent, container agent: NODE=me instead of a value from elsewhere`,
		`DaemonSet kube-system/agent, container setup: NEW=a=b`,
	}, bundle.Changes)
	assert.Contains(t, agentOf(t, bundle), `"env":[{"name":"LEVEL","value":"high"},{"name":"NODE","value":"me"}]`)
	assert.Contains(t, agentOf(t, bundle), `"env":[{"name":"LEVEL","value":"high"},{"name":"NEW","value":"a=b"}]`)
}

func TestManifestSettingThatFitsNothingSaysWhatThereIs(t *testing.T) {
	for setting, want := range map[string]string{
		"LEVELL=high":      "no container of a DaemonSet has a variable LEVELL; to add it, say which container gets it, as in CONTAINER/LEVELL=...; there are agent, setup",
		"agnet/LEVEL=high": "no DaemonSet has a container agnet; there are agent, setup",
		"LEVEL":            "neither CONTAINER/NAME=VALUE nor NAME=VALUE",
		"=x":               "neither CONTAINER/NAME=VALUE nor NAME=VALUE",
		"/LEVEL=x":         "neither CONTAINER/NAME=VALUE nor NAME=VALUE",
		"agent/=x":         "neither CONTAINER/NAME=VALUE nor NAME=VALUE",
	} {
		_, err := loadManifest(t, set(setting))
		assert.ErrorContains(t, err, want, setting)
	}
	only := file(t, "m.yaml", []byte("apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n"))
	_, err := loadManifest(t, set("LEVEL=high"), func(o *install.Options) { o.Manifest = only })
	require.ErrorContains(t, err, "no DaemonSet whose containers could be set anything")
}

func TestOverridesAndMirrorReplaceImages(t *testing.T) {
	const rules = "quay.io/plugin/rules:v1@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	for name, c := range map[string]struct {
		overrides []string
		mirror    string
		want      []string
	}{
		"a repository":           {[]string{"quay.io/plugin/agent=local/agent"}, "", []string{"busybox", "local/agent:v1.2.3", rules}},
		"one tag":                {[]string{"quay.io/plugin/agent:v1.2.3=local/agent:dev"}, "", []string{"busybox", "local/agent:dev", rules}},
		"a digest goes with it":  {[]string{"quay.io/plugin/rules=quay.io/plugin/rules:v1"}, "", []string{"busybox", "quay.io/plugin/agent:v1.2.3", "quay.io/plugin/rules:v1"}},
		"Docker Hub by its name": {[]string{"docker.io/library/busybox=b:1"}, "", []string{"b:1", "quay.io/plugin/agent:v1.2.3", rules}},
		"Docker Hub unnamed":     {[]string{"library/=localhost:5000/"}, "", []string{"localhost:5000/busybox", "quay.io/plugin/agent:v1.2.3", rules}},
		"a beginning":            {[]string{"quay.io/=r.local/quay/"}, "", []string{"busybox", "r.local/quay/plugin/agent:v1.2.3", strings.Replace(rules, "quay.io", "r.local/quay", 1)}},
		"the first that fits": {
			[]string{"quay.io/plugin/agent=a", "quay.io/=r.local/"}, "",
			[]string{"a:v1.2.3", "busybox", strings.Replace(rules, "quay.io", "r.local", 1)},
		},
		"a mirror": {nil, "r.local:5000/m/", []string{
			"r.local:5000/m/library/busybox", "r.local:5000/m/plugin/agent:v1.2.3", strings.Replace(rules, "quay.io", "r.local:5000/m", 1),
		}},
		"a mirror for the rest": {[]string{"busybox=b"}, "r.local", []string{"b", "r.local/plugin/agent:v1.2.3", strings.Replace(rules, "quay.io", "r.local", 1)}},
	} {
		t.Run(name, func(t *testing.T) {
			bundle, err := loadManifest(t, func(o *install.Options) {
				for _, text := range c.overrides {
					override, err := install.ParseOverride(text)
					require.NoError(t, err)
					o.ImageOverrides = append(o.ImageOverrides, override)
				}
				o.Mirror = c.mirror
			})
			require.NoError(t, err)
			assert.Equal(t, c.want, bundle.Images())
			assert.NotEmpty(t, bundle.Changes)
			assert.Equal(t, "v1.2.3", bundle.Version, "of the vendor's image")
		})
	}
}

func TestOverrideThatFitsNoImageIsAnError(t *testing.T) {
	for _, from := range []string{"quay.io/plugin/agnet", "quay.io/plugin/agent:v1.2.4", "plugin/agent", "quay.io/plug/"} {
		_, err := loadManifest(t, func(o *install.Options) { o.ImageOverrides = []install.Override{{From: from, To: "x/"}} })
		if !strings.HasSuffix(from, "/") {
			_, err = loadManifest(t, func(o *install.Options) { o.ImageOverrides = []install.Override{{From: from, To: "x"}} })
		}
		assert.ErrorContains(t, err, "fits no image; there are busybox, quay.io/plugin/agent:v1.2.3", from)
	}
}

func TestOverridesThatAreNone(t *testing.T) {
	for text, want := range map[string]string{
		"quay.io/a":      "it is not FROM=TO",
		"=b":             "both sides are needed",
		"quay.io/a=":     "both sides are needed",
		"quay.io/a=b/":   "end both sides with a slash",
		"quay.io/A=b":    "image \"quay.io/A\"",
		"a@sha256:abc=b": "is not a sha256 digest",
	} {
		_, err := install.ParseOverride(text)
		assert.ErrorContains(t, err, want, text)
	}
}

func TestChartIsRenderedWithThePluginsValuesThenTheUsers(t *testing.T) {
	var told []string
	bundle, err := loadChart(t, chartFiles(), set("tag=v1.2.4,nested.deep=b", "extra.any=1"), func(o *install.Options) {
		o.Progress = func(text string) { told = append(told, text) }
		o.Kubernetes = "v1.34.5"
	})
	require.NoError(t, err)
	assert.Equal(t, []string{"CustomResourceDefinition", "DaemonSet"}, kinds(bundle), "no notes, no tests, nothing that is off")
	assert.Equal(t, "v1.2.4", bundle.Version)
	assert.Contains(t, agentOf(t, bundle), `["--level=IPv4","--port=1","--deep=b","--kubernetes=v1.34.5"]`)
	assert.Contains(t, agentOf(t, bundle), `"namespace":"kube-system"`)
	assert.Equal(t, []string{"value hidden=true", "value level=IPv4", "value tag=v1.2.4,nested.deep=b", "value extra.any=1"}, bundle.Changes)
	assert.Empty(t, told, "nothing to say about values that the chart lists, or that the plugin sets")
}

func TestUnknownValueOfTheUsersIsSaid(t *testing.T) {
	var told []string
	_, err := loadChart(t, chartFiles(), set("nested.depe=b,levell=x"), func(o *install.Options) {
		o.Progress = func(text string) { told = append(told, text) }
	})
	require.NoError(t, err)
	assert.Equal(t, []string{
		"the chart plugin lists no value levell: it may have no effect",
		"the chart plugin lists no value nested.depe: it may have no effect",
	}, told)
}

func TestChartsThatCannotBeInstalled(t *testing.T) {
	with := func(name, content string) func(map[string]string) {
		return func(files map[string]string) { files[name] = content }
	}
	for name, c := range map[string]struct {
		tweak func(map[string]string)
		want  string
	}{
		"a hook":                      {with("templates/job.yaml", "apiVersion: batch/v1\nkind: Job\nmetadata: {name: j, annotations: {helm.sh/hook: pre-install}}\n"), "Job j is a Helm hook (pre-install)"},
		"a template that ends":        {with("templates/a.yaml", `{{ fail "no such thing" }}`), "no such thing"},
		"a template that is not YAML": {with("templates/a.yaml", "a: [\n"), "read document 1 of plugin/templates/a.yaml"},
		"no object":                   {with("templates/a.yaml", "a: b\n"), "Object 'Kind' is missing"},
		"an object without a name":    {with("templates/a.yaml", "apiVersion: v1\nkind: Pod\n"), "a Pod has no name"},
		"another Kubernetes":          {with("Chart.yaml", "apiVersion: v2\nname: plugin\nversion: 1.2.3\nkubeVersion: <1.20.0\n"), "it is for Kubernetes <1.20.0"},
		"a missing part":              {with("Chart.yaml", "apiVersion: v2\nname: plugin\nversion: 1.2.3\ndependencies: [{name: other, version: 1.0.0, repository: https://x}]\n"), "it needs the chart other"},
		"values against its schema":   {with("values.schema.json", `{"properties": {"port": {"type": "string"}}}`), "port"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := loadChart(t, chartFiles(c.tweak))
			require.ErrorContains(t, err, c.want)
			require.ErrorContains(t, err, "load plugin: render chart plugin 1.2.3")
		})
	}
}

func TestChartComesFromFolderFileOrURL(t *testing.T) {
	files := chartFiles()
	content := packed(t, files)
	server := vendor(t, sends(string(content)))
	digests := map[string]bool{}
	for _, chart := range []string{
		unpacked(t, files), file(t, "plugin-1.2.3.tgz", content), server.Source.URL, server.Source.URL + "#sha256=" + digest(content)[len("sha256:"):],
	} {
		bundle, err := install.Load(t.Context(), server, options(t, func(o *install.Options) { o.Chart = chart }))
		require.NoError(t, err, chart)
		assert.Equal(t, chart, bundle.Source)
		digests[bundle.Digest] = true
	}
	assert.Len(t, digests, 1)
	for chart, want := range map[string]string{
		filepath.Join(t.TempDir(), "missing.tgz"):                     "no such file",
		file(t, "no.tgz", []byte("no chart")):                         "read chart",
		file(t, "half.tgz", content[:200]):                            "unexpected EOF",
		t.TempDir():                                                   "Chart.yaml file is missing",
		server.Source.URL + "#sha256=" + digest(nil)[len("sha256:"):]: "is not what it should be",
	} {
		_, err := install.Load(t.Context(), server, options(t, func(o *install.Options) { o.Chart = chart }))
		assert.ErrorContains(t, err, want, chart)
	}
}

func TestChartDigestDependsOnPathsAndContentOnly(t *testing.T) {
	one := unpacked(t, chartFiles())
	assert.Equal(t, chartDigest(t, one), chartDigest(t, unpacked(t, chartFiles())))
	for _, tweak := range []func(map[string]string){
		func(f map[string]string) { f["values.yaml"] += " " },
		func(f map[string]string) { f["new"] = "" },
		func(f map[string]string) { f["Values.yaml"] = f["values.yaml"]; delete(f, "values.yaml") },
	} {
		assert.NotEqual(t, chartDigest(t, one), chartDigest(t, unpacked(t, chartFiles(tweak))))
	}
}

func TestSubnetsAndFamiliesMustAgree(t *testing.T) {
	four, six := netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00::/56")
	for name, c := range map[string]struct {
		families []model.IPFamily
		subnets  []netip.Prefix
		want     string
	}{
		"none":               {nil, nil, "pod subnets are missing"},
		"two of a family":    {nil, []netip.Prefix{four, netip.MustParsePrefix("10.0.0.0/8")}, "are both IPv4"},
		"one missing":        {[]model.IPFamily{model.IPv4, model.IPv6}, []netip.Prefix{four}, "no pod subnet is IPv6"},
		"one too many":       {[]model.IPFamily{model.IPv4}, []netip.Prefix{four, six}, "not among the IP families [IPv4]"},
		"in the other order": {[]model.IPFamily{model.IPv6, model.IPv4}, []netip.Prefix{four, six}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			plugin := vendor(t, sends(manifest))
			var network install.Network
			plugin.Adapt = func(_ []*unstructured.Unstructured, n install.Network) ([]string, error) {
				network = n
				return nil, nil
			}
			_, err := install.Load(t.Context(), plugin, options(t, func(o *install.Options) { o.Families, o.PodSubnets = c.families, c.subnets }))
			if c.want != "" {
				require.ErrorContains(t, err, c.want)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, install.Network{Families: c.families, PodSubnets: []netip.Prefix{six, four}}, network)
		})
	}
}

func TestManifestAndChartTogetherAreRefused(t *testing.T) {
	_, err := loadManifest(t, func(o *install.Options) { o.Manifest, o.Chart = "a", "b" })
	require.ErrorContains(t, err, "choose one")
}

func TestManifestFileThatIsMissingOrEmptyIsNamed(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing.yaml")
	empty := file(t, "empty.yaml", []byte("# nothing\n"))
	for path, want := range map[string]string{missing: "no such file", empty: "holds no object"} {
		_, err := loadManifest(t, func(o *install.Options) { o.Manifest = path })
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, path)
	}
}
