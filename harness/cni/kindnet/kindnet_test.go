package kindnet_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/cni"
	"github.com/netproof/netproof/harness/cni/install"
	"github.com/netproof/netproof/harness/cni/kindnet"
)

func TestPinnedVersionIsTheOneOfTheKindInUse(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kind").Output()
	if err != nil || strings.TrimSpace(string(out)) == "" {
		t.Skipf("the module cache has no kind: %v", err)
	}
	source, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), "pkg", "build", "nodeimage", "const_cni.go"))
	require.NoError(t, err)
	assert.Contains(t, string(source), `"docker.io/kindest/kindnetd:`+kindnet.Version+`"`)
}

func TestPinnedVersionHasCapabilities(t *testing.T) {
	_, ok := cni.CapabilitiesOf("kindnet", kindnet.Version)
	assert.True(t, ok, "a pinned version without an entry in the table")
}

func TestThereIsNothingToInstall(t *testing.T) {
	bundle, err := install.Load(t.Context(), kindnet.Plugin(), install.Options{})
	require.NoError(t, err)
	assert.Empty(t, bundle.Images())
	assert.Equal(t, "kind", bundle.Source)
	require.NoError(t, bundle.Apply(t.Context(), nil), "nothing is asked of the cluster")
	_, err = install.Load(t.Context(), kindnet.Plugin(), install.Options{Manifest: "kindnet.yaml"})
	require.ErrorContains(t, err, "kindnet comes with kind")
}
