//go:build linux

package node

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/netproof/netproof/harness/cluster/local/process"
)

// workers is how many threads of a node do what Do is given, CNI calls above all.
const workers = 4

// Node is a network and a mount namespace, a cable to the fabric, and threads that are inside.
type Node struct {
	Index       int
	Name        string
	Addresses   []netip.Addr
	PodNetworks []netip.Prefix

	fabric *Fabric
	net    *Namespace
	// main holds the namespaces and is the parent of the node's processes.
	main *process.Thread
	// idle holds the workers that have nothing to do.
	idle chan *process.Thread

	mu     sync.Mutex
	closed bool
	all    []*process.Thread
}

// Config says how to make a node.
type Config struct {
	Index int
	// Visible are folders that the node's processes must find where they are, though the node has a /run and a /var/lib
	// of its own: the programs' and the cluster's.
	Visible []string
}

// AddNode makes a node and plugs it in.
func (f *Fabric) AddNode(cfg Config) (*Node, error) {
	if cfg.Index < 0 || cfg.Index >= MaxNodes {
		return nil, fmt.Errorf("add node %d: the index must be from 0 to %d", cfg.Index, MaxNodes-1)
	}
	n := &Node{
		Index:       cfg.Index,
		Name:        fmt.Sprintf("node-%d", cfg.Index),
		Addresses:   f.Plan.Node(cfg.Index),
		PodNetworks: f.Plan.NodePods(cfg.Index),
		fabric:      f,
		idle:        make(chan *process.Thread, workers),
	}
	if err := n.setUp(cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("add node %s: %w", n.Name, err), n.release())
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.nodes = append(f.nodes, n)
	return n, nil
}

func (n *Node) setUp(cfg Config) error {
	mounts := -1
	main, err := process.NewThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("make namespaces: %w", err)
		}
		if err := setUpMounts(cfg.Visible); err != nil {
			return err
		}
		if err := setUpNamespace(); err != nil {
			return err
		}
		if err := enableForwarding(); err != nil {
			return err
		}
		file, err := currentNamespace()
		if err != nil {
			return err
		}
		n.net = &Namespace{file: file}
		mounts, err = unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open mount namespace: %w", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	n.main = main
	n.all = append(n.all, main)
	defer func() { _ = unix.Close(mounts) }()

	outer := "node" + fmt.Sprint(n.Index)
	if err := n.fabric.thread.Do(func() error { return cable(outer, n.fabric.bridge, n.net.file, nil) }); err != nil {
		return err
	}
	if err := main.Do(n.setUpNetwork); err != nil {
		return err
	}
	for range workers {
		worker, err := process.NewThread(func() error { return enterNode(int(n.net.file.Fd()), mounts) })
		if err != nil {
			return err
		}
		n.all = append(n.all, worker)
		n.idle <- worker
	}
	return nil
}

// enterNode moves the calling thread into a node.
func enterNode(network, mounts int) error {
	// A thread can change its mount namespace only while it shares its root and working folder with no other.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("leave the shared root folder: %w", err)
	}
	if err := unix.Setns(mounts, unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter mount namespace: %w", err)
	}
	return enterNetwork(network)
}

func enableForwarding() error {
	for name, value := range map[string]string{
		"net/ipv4/ip_forward":                  "1",
		"net/ipv4/conf/all/send_redirects":     "0",
		"net/ipv4/conf/default/send_redirects": "0",
	} {
		if err := writeSysctl(name, value); err != nil {
			return err
		}
	}
	// Absent where the kernel was started without IPv6.
	if err := writeSysctl("net/ipv6/conf/all/forwarding", "1"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (n *Node) setUpNetwork() error {
	plan := n.fabric.Plan
	eth0, err := address(n.Addresses, plan.Fabric())
	if err != nil {
		return err
	}
	for i, gw := range plan.Gateway() {
		if err := addRoute(eth0, netip.PrefixFrom(unspecified(gw), 0), gw); err != nil {
			return err
		}
		if err := addRoute(eth0, plan.Hosts()[i], netip.Addr{}); err != nil {
			return err
		}
	}
	return nil
}

func unspecified(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// AddRoute sends packets for a network to another address of the fabric.
func (n *Node) AddRoute(to netip.Prefix, via netip.Addr) error {
	return n.main.Do(func() error {
		eth0, err := eth0()
		if err != nil {
			return err
		}
		return addRoute(eth0, to, via)
	})
}

// Thread is in the node's namespaces and lives as long as the node; the node's processes are its children. It must not
// be kept busy: Do is for work.
func (n *Node) Thread() *process.Thread { return n.main }

// Network is the node's network namespace. It belongs to the node: do not close it.
func (n *Node) Network() *Namespace { return n.net }

// Do runs fn on a thread that is in the node's namespaces, when one is free.
func (n *Node) Do(fn func() error) error {
	worker, ok := <-n.idle
	if !ok {
		return fmt.Errorf("run in node %s: %w", n.Name, process.ErrThreadClosed)
	}
	defer n.giveBack(worker)
	return worker.Do(fn)
}

// DoIn runs fn on a thread that is in the node's mount namespace and in another network namespace.
func (n *Node) DoIn(network *Namespace, fn func() error) error {
	return n.Do(func() error {
		if err := enterNetwork(int(network.File().Fd())); err != nil {
			return err
		}
		err := fn()
		if backErr := enterNetwork(int(n.net.File().Fd())); backErr != nil {
			// Whatever this thread did next would happen in the wrong namespace.
			panic(fmt.Sprintf("return to the network namespace of %s: %v", n.Name, backErr))
		}
		return err
	})
}

func (n *Node) giveBack(worker *process.Thread) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.closed {
		n.idle <- worker
	}
}

// NewNamespace makes the network namespace of a pod: empty but for a loopback interface that is up.
func (n *Node) NewNamespace() (*Namespace, error) {
	var file *os.File
	err := n.Do(func() (err error) {
		file, err = makeNamespace(setUpNamespace)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &Namespace{file: file}, nil
}

// Close ends the node's threads, which ends its processes, and unplugs it.
func (n *Node) Close() error { return n.release() }

func (n *Node) release() error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return nil
	}
	n.closed = true
	threads := n.all
	close(n.idle)
	n.mu.Unlock()
	for _, t := range threads {
		t.Close()
	}
	err := n.fabric.unplug("node" + fmt.Sprint(n.Index))
	if n.net != nil {
		err = errors.Join(err, n.net.Close())
	}
	return err
}

// setUpMounts gives the calling thread, which has a mount namespace of its own, a private /run and /var/lib.
func setUpMounts(visible []string) error {
	// Slave, not private: what the sandbox mounts later appears here too, and nothing from here appears there.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("detach mounts: %w", err)
	}
	for _, cover := range []string{"/run", "/var/lib"} {
		if err := coverFolder(cover, visible); err != nil {
			return err
		}
	}
	for _, dir := range []string{"/run/calico", "/run/netns", "/var/lib/calico", "/var/lib/cni", "/var/lib/kube-proxy"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make %s: %w", dir, err)
		}
	}
	// sysfs shows the network interfaces of the namespace it was mounted from. Nothing here depends on it, and a system
	// that hides parts of /sys does not let an unprivileged user mount another.
	_ = unix.Mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	return nil
}

// coverFolder mounts an empty tmpfs over a folder and keeps those of the visible folders that are beneath it in place.
func coverFolder(folder string, visible []string) error {
	real, err := filepath.EvalSymlinks(folder)
	if err != nil {
		return fmt.Errorf("resolve %s: %w", folder, err)
	}
	type kept struct {
		path string
		fd   int
	}
	var keep []kept
	for _, v := range visible {
		v, err := filepath.EvalSymlinks(v)
		if err != nil {
			return fmt.Errorf("resolve %s: %w", v, err)
		}
		rel, err := filepath.Rel(real, v)
		if err != nil || rel == "." || !filepath.IsLocal(rel) {
			continue
		}
		fd, err := unix.Open(v, unix.O_PATH|unix.O_CLOEXEC|unix.O_DIRECTORY, 0)
		if err != nil {
			return fmt.Errorf("open %s: %w", v, err)
		}
		defer func() { _ = unix.Close(fd) }()
		keep = append(keep, kept{path: v, fd: fd})
	}
	if err := unix.Mount("tmpfs", real, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return fmt.Errorf("mount tmpfs on %s: %w", real, err)
	}
	for _, k := range keep {
		if err := os.MkdirAll(k.path, 0o755); err != nil {
			return fmt.Errorf("make %s: %w", k.path, err)
		}
		source := fmt.Sprintf("/proc/thread-self/fd/%d", k.fd)
		if err := unix.Mount(source, k.path, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("bind %s: %w", k.path, err)
		}
	}
	return nil
}
