package prooftest

import (
	"flag"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/providers"
	"github.com/netproof/netproof/harness/model"
)

func TestAKeptClusterMustBeWhatTheFlagsAskFor(t *testing.T) {
	have := model.Cluster{Name: "lab", CNI: model.CNI{Name: "calico"}, Nodes: 2, IPFamilies: []model.IPFamily{model.IPv4}}
	wanted := cluster.Options{CNI: "calico", Nodes: 2, IPFamilies: []model.IPFamily{model.IPv4}}
	require.NoError(t, fits(have, wanted))
	for fix, change := range map[string]func(*cluster.Options){
		"give -cni calico":    func(o *cluster.Options) { o.CNI = "cilium" },
		"give -nodes 2":       func(o *cluster.Options) { o.Nodes = 3 },
		"give the -ip-family": func(o *cluster.Options) { o.IPFamilies = []model.IPFamily{model.IPv4, model.IPv6} },
	} {
		other := wanted
		change(&other)
		err := fits(have, other)
		require.ErrorContains(t, err, "cluster lab has")
		assert.ErrorContains(t, err, fix)
	}
}

func TestFlagsThatDoNothingWithTheProviderAreRefused(t *testing.T) {
	check := func(provider, cni string, given ...string) error {
		s := settings{provider: provider, cni: cni, family: "ipv4", nodes: "2", transport: "exec"}
		return s.check(given)
	}
	for _, provider := range providers.Names() {
		require.NoError(t, check(provider, "calico"), provider)
		for flag, with := range owners {
			err := check(provider, "calico", "nodes", flag)
			if slices.Contains(with, provider) {
				require.NoError(t, err, "%s %s", provider, flag)
				continue
			}
			require.ErrorContains(t, err, "-"+flag+" needs -provider "+with[0], provider)
		}
	}
	require.EqualError(t, check(providers.Local, "cilium"), "-cni cilium: the provider local has calico or none; the provider kind has cilium")
	require.EqualError(t, check("minikube", "calico"), `-provider "minikube": it is local, kind, existing`)
}

func TestEveryFlagSaysItsVariableAndWhatThereIs(t *testing.T) {
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	(&settings{}).register(fs, func(string) string { return "" })
	for name := range owners {
		assert.NotNil(t, fs.Lookup(name), name)
	}
	assert.Equal(t, "network plugin, by provider: local: calico, none; kind: calico, cilium, kindnet (NETPROOF_CNI)", fs.Lookup("cni").Usage)
}
