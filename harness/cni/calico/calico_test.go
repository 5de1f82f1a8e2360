package calico_test

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/cni/calico"
)

func prefixes(text ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, t := range text {
		all = append(all, netip.MustParsePrefix(t))
	}
	return all
}

var dual = calico.Config{
	NodeName:    "node-1",
	Dataplane:   calico.IPTablesNFT,
	Addresses:   prefixes("198.18.0.11/24", "fd98:18::b/64"),
	PodNetworks: prefixes("10.244.1.0/24", "fd00:10:244:1::/64"),
	Kubeconfig:  "/k",
	MTU:         1500,
}

func TestNodeAnnotationsSayWhereNodeAndTunnelAre(t *testing.T) {
	assert.Equal(t, map[string]string{
		"projectcalico.org/IPv4Address":         "198.18.0.11/24",
		"projectcalico.org/IPv6Address":         "fd98:18::b/64",
		"projectcalico.org/IPv4VXLANTunnelAddr": "10.244.1.1",
		"projectcalico.org/IPv6VXLANTunnelAddr": "fd00:10:244:1::1",
	}, dual.NodeAnnotations())
	assert.Equal(t, []netip.Addr{netip.MustParseAddr("10.244.1.1"), netip.MustParseAddr("fd00:10:244:1::1")}, dual.TunnelAddresses())
}

func TestCNIConfigIsOneThatLibcniTakes(t *testing.T) {
	text, err := dual.CNIConfig()
	require.NoError(t, err)
	list, err := libcni.NetworkConfFromBytes(text)
	require.NoError(t, err)
	require.Len(t, list.Plugins, 1)
	assert.Equal(t, "calico", list.Plugins[0].Network.Type)
	assert.Equal(t, "host-local", list.Plugins[0].Network.IPAM.Type)
	var plugin struct {
		MTU  int `json:"mtu"`
		IPAM struct {
			Ranges [][]struct{ Subnet string } `json:"ranges"`
		} `json:"ipam"`
	}
	require.NoError(t, json.Unmarshal(list.Plugins[0].Bytes, &plugin))
	assert.Equal(t, 1430, plugin.MTU, "room for VXLAN over IPv6")
	require.Len(t, plugin.IPAM.Ranges, 2)
	assert.Equal(t, "10.244.1.0/24", plugin.IPAM.Ranges[0][0].Subnet)
}

func TestFelixIsToldTheDataplaneAndFamilies(t *testing.T) {
	four := dual
	four.PodNetworks = four.PodNetworks[:1]
	for want, config := range map[string]calico.Config{
		"FELIX_IPTABLESBACKEND=NFT":    dual,
		"FELIX_IPV6SUPPORT=true":       dual,
		"FELIX_IPV6SUPPORT=false":      four,
		"FELIX_FELIXHOSTNAME=node-1":   dual,
		"FELIX_NFTABLESMODE=Enabled":   {Dataplane: calico.NFTables},
		"FELIX_IPTABLESBACKEND=Legacy": {Dataplane: calico.IPTablesLegacy},
	} {
		assert.Contains(t, config.FelixEnvironment(), want)
	}
	seen := map[string]bool{}
	for _, kv := range dual.FelixEnvironment() {
		name, _, ok := strings.Cut(kv, "=")
		assert.True(t, ok, kv)
		assert.False(t, seen[strings.ToUpper(name)], "%s is there twice", name)
		seen[strings.ToUpper(name)] = true
	}
}

func TestObjectsHoldAPoolPerFamilyAndTheTiers(t *testing.T) {
	names := map[string][]string{}
	for _, o := range calico.Objects("v3.99.0", prefixes("10.244.0.0/16", "fd00:10:244::/48")) {
		names[o.GetKind()] = append(names[o.GetKind()], o.GetName())
		assert.Equal(t, "crd.projectcalico.org/v1", o.GetAPIVersion())
	}
	assert.Equal(t, map[string][]string{
		"ClusterInformation": {"default"},
		"Tier":               {"adminnetworkpolicy", "default", "baselineadminnetworkpolicy"},
		"IPPool":             {"default-ipv4-ippool", "default-ipv6-ippool"},
	}, names)
}

func TestCRDsAreReadFromAStream(t *testing.T) {
	crds, err := calico.CRDs([]byte("---\n# nothing\n---\nkind: CustomResourceDefinition\nmetadata: {name: a}\n---\nkind: CustomResourceDefinition\nmetadata: {name: b}\n"))
	require.NoError(t, err)
	require.Len(t, crds, 2)
	assert.Equal(t, "b", crds[1].GetName())
	_, err = calico.CRDs([]byte("kind: Pod\n"))
	require.ErrorContains(t, err, "it is a Pod")
	_, err = calico.CRDs([]byte("kind: [\n"))
	require.ErrorContains(t, err, "read custom resource definition 1")
}

func TestDataplaneThatWorksFirstIsTaken(t *testing.T) {
	dir := t.TempDir()
	program := func(name string, code string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\ncat >/dev/null\necho said $0 >&2\nexit "+code+"\n"), 0o755))
	}
	find := func(name string) string {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err != nil {
			return ""
		}
		return path
	}
	_, err := calico.DetectDataplane(false, find)
	require.ErrorIs(t, err, calico.ErrNoDataplane)
	for _, missing := range []string{"ipset: not found", "nft: not found"} {
		require.ErrorContains(t, err, missing)
	}

	program("nft", "0")
	got, err := calico.DetectDataplane(true, find)
	require.NoError(t, err)
	assert.Equal(t, calico.NFTables, got)

	program("ipset", "0")
	program("iptables-nft-restore", "0")
	program("iptables-legacy-restore", "1")
	got, err = calico.DetectDataplane(false, find)
	require.NoError(t, err)
	assert.Equal(t, calico.IPTablesNFT, got)
	got, err = calico.DetectDataplane(true, find)
	require.NoError(t, err)
	assert.Equal(t, calico.NFTables, got, "without ip6tables there is no IPv6")

	program("nft", "1")
	_, err = calico.DetectDataplane(true, find)
	require.ErrorContains(t, err, "said "+dir+"/nft", "the error holds what the program said")
}
