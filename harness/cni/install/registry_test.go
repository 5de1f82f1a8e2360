package install_test

import (
	"bytes"
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/cni/install"
)

// ociServer is a registry in memory. Its spoil, if any, changes what is sent for a path that contains spoilt.
type ociServer struct {
	host    string
	spoilt  string
	spoil   func([]byte) []byte
	handler http.Handler
	close   func()
}

func newRegistry(t *testing.T) *ociServer {
	t.Helper()
	s := &ociServer{handler: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	s.host, s.close = strings.TrimPrefix(server.URL, "http://"), server.Close
	return s
}

func (s *ociServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.spoil == nil || r.Method != http.MethodGet || !strings.Contains(r.URL.Path, s.spoilt) {
		s.handler.ServeHTTP(w, r)
		return
	}
	answer := httptest.NewRecorder()
	s.handler.ServeHTTP(answer, r)
	for key, values := range answer.Header() {
		w.Header()[key] = values
	}
	w.WriteHeader(answer.Code)
	_, _ = w.Write(s.spoil(answer.Body.Bytes()))
}

// push puts an image there and returns its digest.
func (s *ociServer) push(t *testing.T, reference string, image v1.Image) string {
	t.Helper()
	ref, err := name.ParseReference(s.host + "/" + reference)
	require.NoError(t, err)
	require.NoError(t, remote.Write(ref, image))
	d, err := image.Digest()
	require.NoError(t, err)
	return d.String()
}

func randomImage(t *testing.T) v1.Image {
	t.Helper()
	image, err := random.Image(1024, 1)
	require.NoError(t, err)
	return image
}

func half(content []byte) []byte { return content[:len(content)/2] }

func TestDigestOfAnImageIsResolved(t *testing.T) {
	server := newRegistry(t)
	want := server.push(t, "cilium/cilium:v1", randomImage(t))
	for reference, opts := range map[string]install.Options{
		server.host + "/cilium/cilium:v1":      {},
		server.host + "/cilium/cilium@" + want: {},
		"quay.io/cilium/cilium:v1":             {Mirror: server.host},
		"quay.io/cilium/cilium:v1@" + want:     {Mirror: server.host},
		"cilium/cilium:v1":                     {Mirror: server.host + "/"},
		"quay.io/somebody/cilium:v1":           {ImageOverrides: []install.Override{{From: "quay.io/somebody/", To: server.host + "/cilium/"}}},
		"quay.io/somebody/agent:v2":            {ImageOverrides: []install.Override{{From: "quay.io/somebody/agent", To: server.host + "/cilium/cilium:v1"}}, Mirror: "not.used"},
	} {
		got, err := install.ResolveDigest(t.Context(), reference, opts)
		require.NoError(t, err, reference)
		assert.Equal(t, want, got, reference)
	}
}

func TestDigestOfAnIndexIsThatOfAllPlatforms(t *testing.T) {
	server := newRegistry(t)
	index, err := random.Index(1024, 1, 2)
	require.NoError(t, err)
	ref, err := name.ParseReference(server.host + "/a/b:v1")
	require.NoError(t, err)
	require.NoError(t, remote.WriteIndex(ref, index))
	want, err := index.Digest()
	require.NoError(t, err)
	got, err := install.ResolveDigest(t.Context(), ref.String(), install.Options{})
	require.NoError(t, err)
	assert.Equal(t, want.String(), got)
}

func TestImageThatIsNotThereIsToldFromARegistryThatIsDown(t *testing.T) {
	server := newRegistry(t)
	_, err := install.ResolveDigest(t.Context(), "quay.io/a/b:v1", install.Options{Mirror: server.host})
	require.ErrorIs(t, err, install.ErrNoImage)
	require.ErrorContains(t, err, "resolve image quay.io/a/b:v1 ("+server.host+"/a/b:v1)")
	server.close()
	_, err = install.ResolveDigest(t.Context(), "quay.io/a/b:v1", install.Options{Mirror: server.host})
	require.Error(t, err)
	require.NotErrorIs(t, err, install.ErrNoImage)
	require.ErrorContains(t, err, "connection refused")
}

func TestManifestThatIsNotWhatItsDigestSaysIsRefused(t *testing.T) {
	server := newRegistry(t)
	want := server.push(t, "a/b:v1", randomImage(t))
	for name, spoil := range map[string]func([]byte) []byte{
		"changed": func(content []byte) []byte { return bytes.Replace(content, []byte("{"), []byte("{ "), 1) },
		"half":    half,
	} {
		server.spoilt, server.spoil = "/manifests/", spoil
		_, err := install.ResolveDigest(t.Context(), server.host+"/a/b@"+want, install.Options{})
		require.Error(t, err, name)
	}
}

func TestCancellationEndsAQuestionToARegistry(t *testing.T) {
	server := newRegistry(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := install.ResolveDigest(ctx, server.host+"/a/b:v1", install.Options{})
	require.ErrorIs(t, err, context.Canceled)
}

// pushChart puts a chart where helm push would put it.
func pushChart(t *testing.T, server *ociServer, reference string) string {
	t.Helper()
	image, err := mutate.Append(empty.Image, mutate.Addendum{
		Layer: static.NewLayer(packed(t, chartFiles()), "application/vnd.cncf.helm.chart.content.v1.tar+gzip"),
	})
	require.NoError(t, err)
	return server.push(t, reference, mutate.MediaType(image, types.OCIManifestSchema1))
}

func TestChartIsPulledFromARegistry(t *testing.T) {
	server := newRegistry(t)
	d := pushChart(t, server, "charts/plugin:1.2.3")
	local, err := loadChart(t, chartFiles())
	require.NoError(t, err)
	for _, reference := range []string{"charts/plugin:1.2.3", "charts/plugin@" + d} {
		reference = "oci://" + server.host + "/" + reference
		bundle, err := loadChart(t, chartFiles(), func(o *install.Options) { o.Chart = reference })
		require.NoError(t, err)
		assert.Equal(t, reference, bundle.Source)
		assert.Equal(t, local.Digest, bundle.Digest)
	}
}

func TestChartsThatDoNotComeWholeFromARegistry(t *testing.T) {
	for name, c := range map[string]struct {
		reference string
		spoilt    string
		spoil     func([]byte) []byte
		want      string
	}{
		"not there":      {"charts/other:1", "", nil, install.ErrNoImage.Error()},
		"not a chart":    {"charts/image:1", "", nil, "it is not a Helm chart"},
		"half a blob":    {"charts/plugin:1", "/blobs/", half, "unexpected EOF"},
		"a changed blob": {"charts/plugin:1", "/blobs/", func(b []byte) []byte { return append(bytes.Clone(b[:len(b)-1]), b[len(b)-1]+1) }, "error verifying sha256 checksum"},
		"no reference":   {"charts/plugin:1:2", "", nil, "pull chart oci://"},
	} {
		t.Run(name, func(t *testing.T) {
			server := newRegistry(t)
			pushChart(t, server, "charts/plugin:1")
			server.push(t, "charts/image:1", randomImage(t))
			server.spoilt, server.spoil = c.spoilt, c.spoil
			_, err := loadChart(t, chartFiles(), func(o *install.Options) { o.Chart = "oci://" + server.host + "/" + c.reference })
			require.ErrorContains(t, err, c.want)
			require.ErrorContains(t, err, c.reference)
		})
	}
}
