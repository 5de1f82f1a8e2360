//go:build linux

package netlab

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/netproof/netproof/probes/inns"
)

// Host is a namespace with an interface eth0.
type Host struct {
	NS   netns.NsHandle
	IPv4 netip.Addr
	IPv6 netip.Addr
}

// Address returns the host's address in a family.
func (h *Host) Address(ipv6 bool) netip.Addr {
	if ipv6 {
		return h.IPv6
	}
	return h.IPv4
}

// Star is hosts around a router, each on a link of its own as pods are.
type Star struct {
	Router netns.NsHandle
	Hosts  []*Host
}

// NewNamespace makes a namespace whose loopback interface is up.
func NewNamespace(tb testing.TB) netns.NsHandle {
	tb.Helper()
	ns, err := inns.New()
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = ns.Close() })
	// Else IPv6 addresses, link-local ones too, are of no use for the first two seconds.
	Sysctl(tb, ns, "net/ipv6/conf/all/accept_dad", "0")
	Sysctl(tb, ns, "net/ipv6/conf/default/accept_dad", "0")
	h := handle(tb, ns)
	lo, err := h.LinkByName("lo")
	require.NoError(tb, err)
	require.NoError(tb, h.LinkSetUp(lo))
	return ns
}

func handle(tb testing.TB, ns netns.NsHandle) *netlink.Handle {
	tb.Helper()
	h, err := netlink.NewHandleAt(ns)
	require.NoError(tb, err)
	tb.Cleanup(h.Close)
	return h
}

// NewPair makes two hosts joined by a veth pair.
func NewPair(tb testing.TB) (a, b *Host) {
	tb.Helper()
	a = &Host{NS: NewNamespace(tb), IPv4: netip.MustParseAddr("10.10.0.1"), IPv6: netip.MustParseAddr("fd10::1")}
	b = &Host{NS: NewNamespace(tb), IPv4: netip.MustParseAddr("10.10.0.2"), IPv6: netip.MustParseAddr("fd10::2")}
	join(tb, a.NS, "eth0", b.NS, "eth0")
	for _, h := range []*Host{a, b} {
		Address(tb, h.NS, "eth0", netip.PrefixFrom(h.IPv4, 24))
		Address(tb, h.NS, "eth0", netip.PrefixFrom(h.IPv6, 64))
	}
	return a, b
}

// NewStar makes a router and n hosts around it.
func NewStar(tb testing.TB, n int) *Star {
	tb.Helper()
	s := &Star{Router: NewNamespace(tb)}
	Sysctl(tb, s.Router, "net/ipv4/ip_forward", "1")
	Sysctl(tb, s.Router, "net/ipv6/conf/all/forwarding", "1")
	for i := range n {
		h := &Host{
			NS:   NewNamespace(tb),
			IPv4: netip.AddrFrom4([4]byte{10, 20, byte(i), 2}),
			IPv6: netip.AddrFrom16([16]byte{0xfd, 0x20, 3: byte(i), 15: 2}),
		}
		port := fmt.Sprintf("host%d", i)
		join(tb, s.Router, port, h.NS, "eth0")
		Address(tb, s.Router, port, netip.PrefixFrom(h.IPv4.Prev(), 24))
		Address(tb, s.Router, port, netip.PrefixFrom(h.IPv6.Prev(), 64))
		Address(tb, h.NS, "eth0", netip.PrefixFrom(h.IPv4, 24))
		Address(tb, h.NS, "eth0", netip.PrefixFrom(h.IPv6, 64))
		Route(tb, h.NS, netip.MustParsePrefix("10.20.0.0/16"), h.IPv4.Prev())
		Route(tb, h.NS, netip.MustParsePrefix("fd20::/24"), h.IPv6.Prev())
		s.Hosts = append(s.Hosts, h)
	}
	return s
}

// join makes a veth pair between two namespaces, and sets both ends up.
func join(tb testing.TB, a netns.NsHandle, nameA string, b netns.NsHandle, nameB string) {
	tb.Helper()
	ha, hb := handle(tb, a), handle(tb, b)
	require.NoError(tb, ha.LinkAdd(&netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: nameA},
		PeerName:      nameB,
		PeerNamespace: netlink.NsFd(b),
	}))
	for h, name := range map[*netlink.Handle]string{ha: nameA, hb: nameB} {
		link, err := h.LinkByName(name)
		require.NoError(tb, err)
		require.NoError(tb, h.LinkSetUp(link))
	}
	awaitLink(tb, ha, nameA)
	awaitLink(tb, hb, nameB)
}

// awaitLink waits until the kernel has noticed that an interface has a carrier: as long as it has not, IPv6 loses the
// first packets.
func awaitLink(tb testing.TB, h *netlink.Handle, name string) {
	tb.Helper()
	require.Eventually(tb, func() bool {
		link, err := h.LinkByName(name)
		return err == nil && link.Attrs().OperState == netlink.OperUp
	}, 10*time.Second, time.Millisecond)
}

// Address adds an address to an interface, usable at once.
func Address(tb testing.TB, ns netns.NsHandle, name string, prefix netip.Prefix) {
	tb.Helper()
	h := handle(tb, ns)
	link, err := h.LinkByName(name)
	require.NoError(tb, err)
	address := &netlink.Addr{IPNet: ipNet(prefix)}
	if prefix.Addr().Is6() {
		address.Flags = syscall.IFA_F_NODAD
	}
	require.NoError(tb, h.AddrAdd(link, address))
}

// Route adds a route by way of a neighbour.
func Route(tb testing.TB, ns netns.NsHandle, to netip.Prefix, via netip.Addr) {
	tb.Helper()
	require.NoError(tb, handle(tb, ns).RouteAdd(&netlink.Route{Dst: ipNet(to), Gw: via.AsSlice()}))
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// Sysctl sets a kernel setting of a namespace, named by its path below /proc/sys.
func Sysctl(tb testing.TB, ns netns.NsHandle, name, value string) {
	tb.Helper()
	require.NoError(tb, inns.Do(ns, func() error {
		return os.WriteFile("/proc/sys/"+name, []byte(value), 0o644)
	}))
}

// Filter loads nftables rules into a namespace, replacing those that are there. Without nft the test is skipped.
func Filter(tb testing.TB, ns netns.NsHandle, rules string) {
	tb.Helper()
	nft, err := exec.LookPath("nft")
	if err != nil {
		tb.Skip("needs nft (apt-get install nftables): ", err)
	}
	require.NoError(tb, inns.Do(ns, func() error {
		cmd := exec.Command(nft, "-f", "-")
		cmd.Stdin = strings.NewReader("flush ruleset\n" + rules)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("nft: %w: %s", err, out)
		}
		return nil
	}))
}

// Forward returns rules for the packets that a router forwards.
func Forward(rules ...string) string {
	return "table inet lab {\n chain forward {\n type filter hook forward priority 0; policy accept;\n" +
		strings.Join(rules, "\n") + "\n }\n}\n"
}
