//go:build linux

package node

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/netproof/netproof/harness/cluster/local/process"
)

// Namespace is a network namespace that lives as long as its file, and what has sockets or threads in it.
type Namespace struct {
	mu   sync.Mutex
	file *os.File
}

// ErrNamespaceClosed says that a network namespace is used after Close.
var ErrNamespaceClosed = errors.New("network namespace is closed")

// currentNamespace opens the network namespace of the calling thread, which must be locked.
func currentNamespace() (*os.File, error) {
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	return f, nil
}

// File is the open namespace. It must not be used after Close.
func (n *Namespace) File() *os.File { return n.file }

// Path names the namespace for programs that run in the same PID namespace, such as CNI plugins.
func (n *Namespace) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.file.Fd()) }

// Close lets the namespace go. The kernel removes it with its interfaces when its last socket is closed.
func (n *Namespace) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.file == nil {
		return nil
	}
	err := n.file.Close()
	n.file = nil
	return err
}

// Do runs fn on a thread that is in the namespace, one that is thrown away afterwards.
func (n *Namespace) Do(fn func() error) error {
	n.mu.Lock()
	if n.file == nil {
		n.mu.Unlock()
		return ErrNamespaceClosed
	}
	fd, err := unix.FcntlInt(n.file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	n.mu.Unlock()
	if err != nil {
		return fmt.Errorf("duplicate namespace: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	thread, err := process.NewThread(func() error { return enterNetwork(fd) })
	if err != nil {
		return err
	}
	defer thread.Close()
	return thread.Do(fn)
}

func enterNetwork(fd int) error {
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	return nil
}

// sysctls are what a new namespace would otherwise take over from the machine.
var sysctls = []struct{ name, value string }{
	// Distributions differ, and Felix refuses to start where all interfaces are set to loose mode (2). It makes the
	// check strict for the interfaces of pods itself.
	{"net/ipv4/conf/%s/rp_filter", "0"},
	{"net/ipv6/conf/%s/disable_ipv6", "0"},
	// Nobody else is on these links, so duplicate address detection would only keep an address unusable for a second.
	{"net/ipv6/conf/%s/accept_dad", "0"},
	{"net/ipv6/conf/%s/accept_ra", "0"},
}

// setUpNamespace prepares the network namespace of the calling thread: loopback up, and addresses usable at once.
func setUpNamespace() error {
	for _, s := range sysctls {
		for _, which := range []string{"all", "default"} {
			// A kernel that was started without IPv6 has none of its settings.
			if err := writeSysctl(fmt.Sprintf(s.name, which), s.value); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find loopback: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bring loopback up: %w", err)
	}
	return nil
}

// writeSysctl sets a value of the network namespace of the calling thread, which must be locked.
func writeSysctl(name, value string) error {
	if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0o644); err != nil {
		return fmt.Errorf("set %s: %w", name, err)
	}
	return nil
}

// makeNamespace makes a network namespace from the calling thread and comes back. If it cannot come back, it ends the
// thread together with its goroutine, so it must run on a thread of its own.
func makeNamespace(setup func() error) (*os.File, error) {
	home, err := currentNamespace()
	if err != nil {
		return nil, err
	}
	defer func() { _ = home.Close() }()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("make network namespace: %w", err)
	}
	file, err := currentNamespace()
	if err == nil {
		err = setup()
	}
	if backErr := enterNetwork(int(home.Fd())); backErr != nil {
		// Whatever this thread did next would happen in the wrong namespace.
		panic(fmt.Sprintf("return to the node's network namespace: %v", backErr))
	}
	if err != nil {
		if file != nil {
			_ = file.Close()
		}
		return nil, err
	}
	runtime.KeepAlive(home)
	return file, nil
}

// cable makes a pair of virtual interfaces: outer on the bridge in the calling thread's namespace, eth0 inside target.
// The hardware address of eth0 may be nil for one that the kernel makes up.
func cable(outer string, bridge netlink.Link, target *os.File, hardware net.HardwareAddr) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = outer
	attrs.MasterIndex = bridge.Attrs().Index
	attrs.MTU = mtu
	veth := &netlink.Veth{
		LinkAttrs:        attrs,
		PeerName:         "eth0",
		PeerNamespace:    netlink.NsFd(int(target.Fd())),
		PeerMTU:          mtu,
		PeerHardwareAddr: hardware,
	}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("make cable %s: %w", outer, err)
	}
	if err := netlink.LinkSetUp(veth); err != nil {
		return fmt.Errorf("bring cable %s up: %w", outer, err)
	}
	return nil
}

// address gives eth0 its addresses and brings it up. It runs in the namespace of the interface.
func address(addrs []netip.Addr, networks []netip.Prefix) (netlink.Link, error) {
	eth0, err := eth0()
	if err != nil {
		return nil, err
	}
	for i, a := range addrs {
		if err := addAddress(eth0, netip.PrefixFrom(a, networks[i].Bits())); err != nil {
			return nil, err
		}
	}
	if err := netlink.LinkSetUp(eth0); err != nil {
		return nil, fmt.Errorf("bring eth0 up: %w", err)
	}
	return eth0, nil
}

func eth0() (netlink.Link, error) {
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return nil, fmt.Errorf("find eth0: %w", err)
	}
	return link, nil
}

func addAddress(link netlink.Link, p netip.Prefix) error {
	a := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	if err := netlink.AddrAdd(link, a); err != nil {
		return fmt.Errorf("add address %s to %s: %w", p, link.Attrs().Name, err)
	}
	return nil
}

func addRoute(link netlink.Link, to netip.Prefix, via netip.Addr) error {
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(to)}
	if via.IsValid() {
		route.Gw = net.IP(via.AsSlice())
	} else {
		route.Scope = netlink.SCOPE_LINK
	}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("add route to %s: %w", to, err)
	}
	return nil
}

// removeRoute undoes addRoute.
func removeRoute(link netlink.Link, to netip.Prefix, _ netip.Addr) error {
	err := netlink.RouteDel(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(to), Scope: netlink.SCOPE_LINK})
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("remove route to %s: %w", to, err)
	}
	return nil
}

// ipNet keeps the host bits: an interface address needs them.
func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: net.IP(p.Addr().AsSlice()), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
