package images_test

import (
	"bytes"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
	"github.com/netproof/netproof/cmd/netproof/internal/cmd/images"
)

// manifest is what a plugin's DaemonSet names its images by.
const manifest = `apiVersion: apps/v1
kind: DaemonSet
metadata: {name: calico-node, namespace: kube-system}
spec:
  selector: {matchLabels: {k8s-app: calico-node}}
  template:
    metadata: {labels: {k8s-app: calico-node}}
    spec:
      containers:
        - {name: calico-node, image: "docker.io/calico/node:v3.30.1"}
`

func TestImagesAreListedWithTheDigestsOfTheirRegistry(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	push := func(repository string) (digest string) {
		img, err := random.Image(64, 1)
		require.NoError(t, err)
		ref, err := name.ParseReference(host + "/" + repository)
		require.NoError(t, err)
		require.NoError(t, remote.Write(ref, img))
		d, err := img.Digest()
		require.NoError(t, err)
		return d.String()
	}
	node, plugin := push("kind-node:v1.36.3"), push("calico/node:v3.30.1")
	file := filepath.Join(t.TempDir(), "calico.yaml")
	require.NoError(t, os.WriteFile(file, []byte(manifest), 0o600))

	list := func(args ...string) (string, error) {
		var out, progress bytes.Buffer
		cmd := images.New(cli.Streams{Out: &out, Err: &progress})
		cmd.SetArgs(append([]string{"--cni-manifest", file, "--kind-image", host + "/kind-node:v1.36.3", "--image-mirror", host}, args...))
		cmd.SetOut(&progress)
		cmd.SetErr(&progress)
		err := cmd.ExecuteContext(t.Context())
		return out.String(), err
	}
	out, err := list()
	require.NoError(t, err)
	assert.Equal(t, host+"/kind-node:v1.36.3\n"+host+"/calico/node:v3.30.1\n", out)

	out, err = list("--digests")
	require.NoError(t, err)
	assert.Equal(t, host+"/kind-node:v1.36.3 "+node+"\n"+host+"/calico/node:v3.30.1 "+plugin+"\n", out)

	server.Close()
	out, err = list("--digests")
	require.ErrorContains(t, err, "calico/node:v3.30.1")
	assert.Contains(t, out, "/calico/node:v3.30.1 ?", "what is known is listed all the same")
}
