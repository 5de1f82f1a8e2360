package existing

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/cluster"
)

const digest = "registry.example/netproof@sha256:0000000000000000000000000000000000000000000000000000000000000000"

func writeKubeconfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

const twoContexts = `apiVersion: v1
kind: Config
current-context: one
clusters:
- {name: a, cluster: {server: "https://a.example:6443"}}
- {name: b, cluster: {server: "https://b.example:6443"}}
contexts:
- {name: one, context: {cluster: a, user: u}}
- {name: two, context: {cluster: b, user: u}}
users:
- {name: u, user: {token: secret}}
`

func TestTheClusterIsTheOneThatTheKubeconfigMeans(t *testing.T) {
	path := writeKubeconfig(t, twoContexts)
	cfg, called, err := RESTConfig(Options{Kubeconfig: path})
	require.NoError(t, err)
	assert.Equal(t, "one", called)
	assert.Equal(t, "https://a.example:6443", cfg.Host)
	assert.True(t, strings.HasSuffix(cfg.UserAgent, "/netproof"), cfg.UserAgent)

	cfg, called, err = RESTConfig(Options{Kubeconfig: path, Context: "two"})
	require.NoError(t, err)
	assert.Equal(t, "two", called)
	assert.Equal(t, "b.example:6443", host(cfg))

	t.Setenv("KUBECONFIG", path)
	cfg, _, err = RESTConfig(Options{})
	require.NoError(t, err)
	assert.Equal(t, "https://a.example:6443", cfg.Host)

	_, _, err = RESTConfig(Options{Context: "three"})
	require.ErrorContains(t, err, "no context three: it has one, two")
}

func TestWithoutAClusterTheErrorSaysHowToNameOne(t *testing.T) {
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "missing"))
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	_, _, err := RESTConfig(Options{})
	require.ErrorIs(t, err, ErrNoConfig)
	require.ErrorContains(t, err, "--kubeconfig")
	_, _, err = RESTConfig(Options{Context: "one"})
	require.ErrorContains(t, err, "no context one")
	_, _, err = RESTConfig(Options{Kubeconfig: "/nowhere/config"})
	require.ErrorContains(t, err, "/nowhere/config")
	_, _, err = RESTConfig(Options{Kubeconfig: writeKubeconfig(t, "clusters: [")})
	require.ErrorContains(t, err, "read kubeconfig")
	checks := Doctor(t.Context(), Options{})
	require.Len(t, checks, 1)
	assert.NotEmpty(t, checks[0].Fix)
}

func TestWrongOptionsAreToldBeforeTheClusterIsAsked(t *testing.T) {
	for _, tc := range []struct {
		opts Options
		want string
	}{
		{Options{}, "--agent-image"},
		{Options{Image: "Not An Image"}, "image of the probe pods"},
		{Options{Image: digest, NamespacePrefix: "Team_"}, `namespace prefix "Team_"`},
		{Options{Image: digest, NamespacePrefix: strings.Repeat("a", 31)}, "at most 30"},
	} {
		_, err := New(tc.opts).Create(t.Context(), cluster.Options{})
		require.ErrorContains(t, err, tc.want)
	}
	require.NoError(t, Options{Image: digest, NamespacePrefix: "shard-0-"}.check())
	require.NoError(t, Options{Image: "registry.example/netproof:v1"}.check(), "a tag is only warned about")
	assert.True(t, byDigest(digest))
	assert.False(t, byDigest("registry.example/netproof:v1"))
	for image, want := range map[string]string{"": "missing", "x:y": "limited", digest: "ok", "No No": "missing"} {
		assert.Equal(t, want, string(checkImage(image).State), image)
	}
}
