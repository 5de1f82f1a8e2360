//go:build linux

package node

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"

	"github.com/netproof/netproof/harness/cluster/local/process"
	"github.com/netproof/netproof/harness/model"
)

const (
	bridgeName = "fabric0"
	// mtu of the fabric, in bytes; overlays subtract their headers from it.
	mtu = 1500
)

// MTU is that of the fabric, in bytes.
const MTU = mtu

// Fabric is the bridge that nodes and hosts hang on, in the network namespace of the sandbox.
type Fabric struct {
	Plan   Plan
	thread *process.Thread
	bridge netlink.Link

	mu    sync.Mutex
	nodes []*Node
	hosts map[string]*Host
	// taken are the numbers of the hosts that exist.
	taken map[int]bool
}

// NewFabric makes the bridge in the network namespace that the process is in. There is one fabric per namespace.
func NewFabric(plan Plan) (*Fabric, error) {
	if err := plan.Check(); err != nil {
		return nil, err
	}
	thread, err := process.NewThread(nil)
	if err != nil {
		return nil, err
	}
	f := &Fabric{Plan: plan, thread: thread, hosts: map[string]*Host{}, taken: map[int]bool{}}
	if err := thread.Do(f.setUp); err != nil {
		thread.Close()
		return nil, fmt.Errorf("make fabric: %w", err)
	}
	return f, nil
}

func (f *Fabric) setUp() error {
	if err := setUpNamespace(); err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = bridgeName
	attrs.MTU = mtu
	bridge := &netlink.Bridge{LinkAttrs: attrs}
	if err := netlink.LinkAdd(bridge); err != nil {
		return fmt.Errorf("add bridge: %w", err)
	}
	f.bridge = bridge
	// Bridged packets need no packet filter: without this the kernel takes each through one.
	for _, name := range []string{"bridge-nf-call-iptables", "bridge-nf-call-ip6tables", "bridge-nf-call-arptables"} {
		if err := writeSysctl("net/bridge/"+name, "0"); err != nil && !errors.Is(err, os.ErrNotExist) &&
			!errors.Is(err, os.ErrPermission) {
			return err
		}
	}
	for i, gw := range f.Plan.Gateway() {
		if err := addAddress(bridge, netip.PrefixFrom(gw, f.Plan.Fabric()[i].Bits())); err != nil {
			return err
		}
	}
	if err := netlink.LinkSetUp(bridge); err != nil {
		return fmt.Errorf("bring bridge up: %w", err)
	}
	return nil
}

// Thread is in the fabric's namespaces; the control plane's processes are its children.
func (f *Fabric) Thread() *process.Thread { return f.thread }

// Close removes the fabric with every node and host that is still on it.
func (f *Fabric) Close() error {
	f.mu.Lock()
	nodes := f.nodes
	f.nodes = nil
	var errs []error
	for name := range f.hosts {
		errs = append(errs, f.removeHostLocked(name))
	}
	f.mu.Unlock()
	for _, n := range nodes {
		errs = append(errs, n.Close())
	}
	errs = append(errs, f.thread.Do(func() error { return netlink.LinkDel(f.bridge) }))
	f.thread.Close()
	return errors.Join(errs...)
}

// Host is an endpoint on the fabric that is not part of the cluster.
type Host struct {
	Name      string
	Addresses []netip.Addr
	Namespace *Namespace
	number    int
}

var (
	// ErrHostExists says that there is a host of the name already.
	ErrHostExists = errors.New("it exists already")
	// ErrNoHost says that there is no host of the name.
	ErrNoHost = errors.New("it does not exist")
)

// maxHosts bounds the hosts of a fabric; the addresses of its plan would do for a few more.
const maxHosts = 201

// AddHost makes a host, which nodes and pods reach and which reaches them: at the addresses that are given, or at free
// ones of the plan. The error matches [errors.ErrUnsupported] if an address is one that the cluster itself uses.
func (f *Fabric) AddHost(name string, addresses ...netip.Addr) (*Host, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hosts[name] != nil {
		return nil, fmt.Errorf("add host %s: %w", name, ErrHostExists)
	}
	number := 0
	for f.taken[number] || len(addresses) == 0 && f.played(f.Plan.Host(number)) {
		number++
	}
	if number >= maxHosts {
		return nil, fmt.Errorf("add host %s: there are %d already, the most that a cluster can have", name, number)
	}
	h := &Host{Name: name, Addresses: addresses, number: number}
	if len(addresses) == 0 {
		h.Addresses = f.Plan.Host(number)
	}
	if err := f.checkFree(h); err != nil {
		return nil, fmt.Errorf("add host %s: %w", name, err)
	}
	if err := f.connect(h); err != nil {
		return nil, fmt.Errorf("add host %s: %w", name, err)
	}
	f.hosts[name] = h
	f.taken[number] = true
	return h, nil
}

// played tells whether a host has one of the addresses.
func (f *Fabric) played(addresses []netip.Addr) bool {
	for _, h := range f.hosts {
		if slices.ContainsFunc(h.Addresses, func(a netip.Addr) bool { return slices.Contains(addresses, a) }) {
			return true
		}
	}
	return false
}

// checkFree says why a host cannot have its addresses.
func (f *Fabric) checkFree(h *Host) error {
	for _, a := range h.Addresses {
		if !slices.Contains(f.Plan.Families, model.FamilyOf(a)) {
			continue // nobody asks
		}
		for _, own := range slices.Concat(f.Plan.Fabric(), f.Plan.Pods(), f.Plan.Services()) {
			if own.Contains(a) {
				return fmt.Errorf("%s is in %s, which the local cluster uses itself: %w", a, own, errors.ErrUnsupported)
			}
		}
	}
	if f.played(h.Addresses) {
		return fmt.Errorf("another host has one of the addresses %v", h.Addresses)
	}
	return nil
}

// connect puts a host on the wire. Its addresses may be any that the cluster has no use for: the nodes learn the way to
// each of them.
func (f *Fabric) connect(h *Host) error {
	var file *os.File
	maker, err := process.NewThread(nil)
	if err != nil {
		return err
	}
	defer maker.Close()
	if err := maker.Do(func() (err error) { file, err = makeNamespace(setUpNamespace); return err }); err != nil {
		return err
	}
	h.Namespace = &Namespace{file: file}
	outer := fmt.Sprintf("host%d", h.number)
	// The next host with this number has the same addresses: with the same hardware address too, what the nodes
	// remember of this one stays true.
	hardware := net.HardwareAddr{0x02, 'h', 'o', 's', 't', byte(h.number)}
	if err := f.thread.Do(func() error { return cable(outer, f.bridge, file, hardware) }); err != nil {
		return errors.Join(err, h.Namespace.Close())
	}
	nodes := f.nodes
	err = h.Namespace.Do(func() error {
		var own []netip.Prefix
		for _, a := range h.Addresses {
			own = append(own, netip.PrefixFrom(a, a.BitLen()))
		}
		eth0, err := address(h.Addresses, own)
		if err != nil {
			return err
		}
		for _, others := range f.Plan.Hosts() {
			if err := addRoute(eth0, others, netip.Addr{}); err != nil {
				return err
			}
		}
		// Hosts and nodes share the wire, so neither needs a router to the other; a pod is behind its node.
		for _, p := range f.Plan.Fabric() {
			if err := addRoute(eth0, p, netip.Addr{}); err != nil {
				return err
			}
		}
		for _, n := range nodes {
			for i, pods := range n.PodNetworks {
				if err := addRoute(eth0, pods, n.Addresses[i]); err != nil {
					return err
				}
			}
		}
		return nil
	})
	for _, n := range nodes {
		if err == nil {
			err = n.Do(func() error { return f.route(h, addRoute) })
		}
	}
	if err != nil {
		return errors.Join(err, f.unplug(outer), h.Namespace.Close())
	}
	return nil
}

// route calls a function for each address of a host to which a node has no way yet.
func (f *Fabric) route(h *Host, change func(link netlink.Link, to netip.Prefix, via netip.Addr) error) error {
	eth0, err := eth0()
	if err != nil {
		return err
	}
	for _, a := range h.Addresses {
		known := slices.ContainsFunc(f.Plan.Hosts(), func(p netip.Prefix) bool { return p.Contains(a) })
		if known || !slices.Contains(f.Plan.Families, model.FamilyOf(a)) {
			continue
		}
		if err := change(eth0, netip.PrefixFrom(a, a.BitLen()), netip.Addr{}); err != nil {
			return err
		}
	}
	return nil
}

// RemoveHost undoes AddHost.
func (f *Fabric) RemoveHost(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.removeHostLocked(name)
}

func (f *Fabric) removeHostLocked(name string) error {
	h := f.hosts[name]
	if h == nil {
		return fmt.Errorf("remove host %s: %w", name, ErrNoHost)
	}
	delete(f.hosts, name)
	delete(f.taken, h.number)
	var routes []error
	for _, n := range f.nodes {
		routes = append(routes, n.Do(func() error { return f.route(h, removeRoute) }))
	}
	return errors.Join(errors.Join(routes...), f.unplug(fmt.Sprintf("host%d", h.number)), h.Namespace.Close())
}

// unplug removes a cable; its other end goes with it.
func (f *Fabric) unplug(outer string) error {
	return f.thread.Do(func() error {
		link, err := netlink.LinkByName(outer)
		if err != nil {
			if _, gone := errors.AsType[netlink.LinkNotFoundError](err); gone {
				return nil
			}
			return fmt.Errorf("find cable %s: %w", outer, err)
		}
		if err := netlink.LinkDel(link); err != nil {
			return fmt.Errorf("remove cable %s: %w", outer, err)
		}
		return nil
	})
}
