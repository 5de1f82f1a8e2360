package cluster

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/cluster/kind"
	"github.com/netproof/netproof/harness/cluster/local/named"
)

func TestAClusterThatSaysNothingHasNoAge(t *testing.T) {
	var out bytes.Buffer
	detail := json.RawMessage(`{"cluster": {"cni": {"name": "calico"}, "kubernetes": "v1.36.3", "nodes": 2}}`)
	require.NoError(t, writeList(&out, []named.Info{
		{Name: "lab", State: named.Ready, Created: time.Now().Add(-time.Minute), PID: 7, Detail: detail},
		{Name: "stopped", State: named.Unresponsive, Daemon: 8},
	}, []kind.Info{{Name: "big", State: "unknown", Nodes: 3}}))
	var rows [][]string
	for line := range strings.Lines(out.String()) {
		rows = append(rows, strings.Fields(line))
	}
	require.Len(t, rows, 4)
	assert.Equal(t, []string{"lab", "local", "ready", "calico", "v1.36.3", "2", "1m0s", "7"}, rows[1])
	assert.Equal(t, []string{"stopped", "local", "unresponsive", "-", "-", "-", "-", "-"}, rows[2])
	assert.Equal(t, []string{"big", "kind", "unknown", "3", "-"}, rows[3])
}
