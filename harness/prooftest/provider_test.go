package prooftest

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/model"
)

func TestAKeptClusterMustBeWhatTheFlagsAskFor(t *testing.T) {
	have := model.Cluster{Name: "lab", CNI: model.CNI{Name: "calico"}, Nodes: 2, IPFamilies: []model.IPFamily{model.IPv4}}
	wanted := cluster.Options{CNI: "calico", Nodes: 2, IPFamilies: []model.IPFamily{model.IPv4}}
	require.NoError(t, fits(have, wanted))
	for mend, change := range map[string]func(*cluster.Options){
		"give -cni calico":    func(o *cluster.Options) { o.CNI = "cilium" },
		"give -nodes 2":       func(o *cluster.Options) { o.Nodes = 3 },
		"give the -ip-family": func(o *cluster.Options) { o.IPFamilies = []model.IPFamily{model.IPv4, model.IPv6} },
	} {
		other := wanted
		change(&other)
		err := fits(have, other)
		require.ErrorContains(t, err, "cluster lab has")
		assert.ErrorContains(t, err, mend)
	}
}
