package kind

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLinksOfANodeDoNotLeadOutOfIt(t *testing.T) {
	root := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(root, "run/netns"), 0o755))
	require.NoError(t, os.MkdirAll(filepath.Join(root, "var"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(root, "run/netns/cni-1"), nil, 0o644))
	require.NoError(t, os.Symlink("/run", filepath.Join(root, "var/run"))) // as in a node image
	ns, err := openIn(root, "/var/run/netns/cni-1")
	require.NoError(t, err)
	require.NoError(t, ns.Close())
	_, err = openIn(root, "/var/run/netns/cni-2")
	require.ErrorIs(t, err, os.ErrNotExist)
}
