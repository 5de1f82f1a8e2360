//go:build linux

package node_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/netproof/netproof/harness/cluster/local/node"
	"github.com/netproof/netproof/harness/cluster/local/sandbox"
	"github.com/netproof/netproof/harness/model"
)

func TestMain(m *testing.M) { sandbox.Main(m) }

var dual = node.Plan{Families: []model.IPFamily{model.IPv4, model.IPv6}}

func newFabric(t *testing.T) *node.Fabric {
	t.Helper()
	f, err := node.NewFabric(dual)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	return f
}

func addNode(t *testing.T, f *node.Fabric, index int, visible ...string) *node.Node {
	t.Helper()
	n, err := f.AddNode(node.Config{Index: index, Visible: visible})
	require.NoError(t, err)
	return n
}

// do runs functions in some namespace.
type do func(func() error) error

// listen opens a listener that greets, and returns its port.
func listen(t *testing.T, inside do, greeting string) int {
	t.Helper()
	var l net.Listener
	require.NoError(t, inside(func() (err error) {
		l, err = net.Listen("tcp", "[::]:0")
		return err
	}))
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, greeting)
			_ = conn.Close()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

// greeting connects and returns what the other side says.
func greeting(t *testing.T, inside do, to netip.Addr, port int) string {
	t.Helper()
	var conn net.Conn
	require.NoError(t, inside(func() (err error) {
		conn, err = net.DialTimeout("tcp", netip.AddrPortFrom(to, uint16(port)).String(), 5*time.Second)
		return err
	}))
	defer func() { _ = conn.Close() }()
	said, err := io.ReadAll(conn)
	require.NoError(t, err)
	return string(said)
}

func TestNodesReachEachOtherAndTheFabric(t *testing.T) {
	f := newFabric(t)
	a, b := addNode(t, f, 0), addNode(t, f, 1)
	port := listen(t, b.Do, "I am b")
	here := listen(t, f.Thread().Do, "I am the fabric")
	for i := range dual.Families {
		assert.Equal(t, "I am b", greeting(t, a.Do, b.Addresses[i], port))
		assert.Equal(t, "I am the fabric", greeting(t, a.Do, dual.Gateway()[i], here))
	}
}

func TestHostsComeAndGo(t *testing.T) {
	f := newFabric(t)
	n := addNode(t, f, 0)
	for range 3 { // each time at the same address, as soon as it is free
		h, err := f.AddHost("h")
		require.NoError(t, err)
		_, err = f.AddHost("h")
		require.ErrorIs(t, err, node.ErrHostExists)
		other, err := f.AddHost("other")
		require.NoError(t, err)
		assert.NotEqual(t, h.Addresses, other.Addresses)
		port := listen(t, h.Namespace.Do, "I am h")
		back := listen(t, n.Do, "I am the node")
		for i := range dual.Families {
			assert.Equal(t, "I am h", greeting(t, n.Do, h.Addresses[i], port))
			assert.Equal(t, "I am the node", greeting(t, h.Namespace.Do, n.Addresses[i], back))
		}
		require.NoError(t, f.RemoveHost("h"))
		require.NoError(t, f.RemoveHost("other"))
		require.ErrorIs(t, f.RemoveHost("h"), node.ErrNoHost)
	}
}

func TestPodNamespaceIsEmptyButForLoopback(t *testing.T) {
	f := newFabric(t)
	n := addNode(t, f, 0)
	ns, err := n.NewNamespace()
	require.NoError(t, err)
	require.NoError(t, ns.Do(func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		require.Len(t, links, 1)
		assert.Equal(t, "lo", links[0].Attrs().Name)
		assert.NotZero(t, links[0].Attrs().Flags&net.FlagUp)
		return nil
	}))
	byPath, err := os.Stat(ns.Path())
	require.NoError(t, err)
	byFile, err := ns.File().Stat()
	require.NoError(t, err)
	assert.True(t, os.SameFile(byFile, byPath), "the path leads to the namespace")
	require.NoError(t, ns.Close())
	require.NoError(t, ns.Close())
	require.ErrorIs(t, ns.Do(func() error { return nil }), node.ErrNamespaceClosed)
	require.NoError(t, n.Do(func() error {
		_, err := netlink.LinkByName("eth0")
		return err
	}), "the node's threads are back in the node")
}

func TestNodeHasFoldersOfItsOwnAndSeesTheVisibleOnes(t *testing.T) {
	f := newFabric(t)
	shared := t.TempDir() // beneath /run, which a node covers
	require.NoError(t, os.WriteFile(filepath.Join(shared, "from-outside"), []byte("hello"), 0o644))
	a, b := addNode(t, f, 0, shared), addNode(t, f, 1)
	require.NoError(t, a.Do(func() error { return os.WriteFile("/run/mine", []byte("a"), 0o644) }))
	require.NoError(t, a.Do(func() error { return os.WriteFile("/var/lib/calico/mine", []byte("a"), 0o644) }))
	require.NoError(t, a.Do(func() error { return os.WriteFile(filepath.Join(shared, "from-inside"), nil, 0o644) }))
	require.ErrorIs(t, b.Do(func() error { _, err := os.Stat("/run/mine"); return err }), os.ErrNotExist)
	require.ErrorIs(t, b.Do(func() error { _, err := os.Stat("/var/lib/calico/mine"); return err }), os.ErrNotExist)
	require.ErrorIs(t, b.Do(func() error { _, err := os.Stat(shared); return err }), os.ErrNotExist)
	assert.NoFileExists(t, "/run/mine")
	assert.FileExists(t, filepath.Join(shared, "from-inside"))
	require.NoError(t, a.Do(func() error { _, err := os.Stat(filepath.Join(shared, "from-outside")); return err }))
}

func TestSettingsOfTheMachineDoNotReachANode(t *testing.T) {
	f := newFabric(t)
	n := addNode(t, f, 0)
	require.NoError(t, n.Do(func() error {
		for name, want := range map[string]string{
			"ipv4/ip_forward": "1", "ipv4/conf/all/rp_filter": "0", "ipv6/conf/all/forwarding": "1", "ipv6/conf/all/disable_ipv6": "0",
		} {
			got, err := os.ReadFile("/proc/sys/net/" + name)
			if err != nil {
				return err
			}
			assert.Equal(t, want+"\n", string(got), name)
		}
		return nil
	}))
	forward, err := os.ReadFile("/proc/sys/net/ipv6/conf/all/forwarding")
	require.NoError(t, err)
	assert.Equal(t, "0\n", string(forward), "the fabric forwards nothing")
}

func TestClosedNodeRefusesWork(t *testing.T) {
	f := newFabric(t)
	n := addNode(t, f, 0)
	require.NoError(t, n.Close())
	require.NoError(t, n.Close())
	require.Error(t, n.Do(func() error { return nil }))
	_, err := netlink.LinkByName("node0")
	require.Error(t, err, "its cable is gone")
	_, err = f.AddNode(node.Config{Index: node.MaxNodes})
	require.ErrorContains(t, err, "the index must be from 0")
}

func TestPlanGivesEveryoneDifferentAddresses(t *testing.T) {
	seen := map[netip.Addr]string{}
	take := func(who string, addrs ...netip.Addr) {
		require.Len(t, addrs, 2, who)
		for _, a := range addrs {
			require.Empty(t, seen[a], "%s and %s share %s", who, seen[a], a)
			seen[a] = who
		}
	}
	take("gateway", dual.Gateway()...)
	var networks []netip.Prefix
	networks = append(networks, dual.Services()...)
	networks = append(networks, dual.Fabric()...)
	networks = append(networks, dual.Hosts()...)
	for i := range node.MaxNodes {
		take(fmt.Sprint("node ", i), dual.Node(i)...)
		for j, p := range dual.NodePods(i) {
			assert.True(t, dual.Pods()[j].Overlaps(p))
			assert.Equal(t, p, p.Masked())
			networks = append(networks, p)
		}
	}
	for i := range 200 {
		take(fmt.Sprint("host ", i), dual.Host(i)...)
	}
	for i, p := range networks {
		for _, q := range networks[i+1:] {
			require.False(t, p.Overlaps(q), "%s overlaps %s", p, q)
		}
	}
}

func TestPlanKeepsTheOrderOfFamilies(t *testing.T) {
	six := node.Plan{Families: []model.IPFamily{model.IPv6, model.IPv4}}
	require.NoError(t, six.Check())
	assert.True(t, six.Node(0)[0].Is6())
	assert.True(t, six.Services()[1].Addr().Is4())
	assert.Equal(t, "10.244.7.0/24", six.NodePods(7)[1].String())
	assert.Equal(t, "fd00:10:244:7::/64", six.NodePods(7)[0].String())
}

func TestHostsHaveTheAddressesThatAreAskedFor(t *testing.T) {
	f := newFabric(t)
	n := addNode(t, f, 0)
	wanted := []netip.Addr{netip.MustParseAddr("8.8.4.4"), netip.MustParseAddr("2620:fe::9")}
	for range 2 { // the second time the way of the first is gone
		h, err := f.AddHost("names", wanted...)
		require.NoError(t, err)
		_, err = f.AddHost("again", wanted[0])
		require.ErrorContains(t, err, "another host has one of the addresses")
		port := listen(t, h.Namespace.Do, "I am outside")
		back := listen(t, n.Do, "I am the node")
		for i := range dual.Families {
			assert.Equal(t, "I am outside", greeting(t, n.Do, wanted[i], port))
			assert.Equal(t, "I am the node", greeting(t, h.Namespace.Do, n.Addresses[i], back))
		}
		require.NoError(t, f.RemoveHost("names"))
		require.NoError(t, n.Do(func() error {
			routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
			require.NoError(t, err)
			for _, r := range routes {
				assert.NotContains(t, r.String(), "8.8.4.4")
				assert.NotContains(t, r.String(), "2620:fe::9")
			}
			return nil
		}))
	}
	for _, own := range []string{"10.244.3.4", "10.96.0.1", "198.18.0.1", "fd00:10:96::1"} {
		_, err := f.AddHost("own", netip.MustParseAddr(own))
		require.ErrorIs(t, err, errors.ErrUnsupported, own)
	}
	// A host without an address of its own goes around one that somebody has.
	_, err := f.AddHost("first", f.Plan.Host(0)...)
	require.NoError(t, err)
	next, err := f.AddHost("next")
	require.NoError(t, err)
	assert.Equal(t, f.Plan.Host(1), next.Addresses)
}
