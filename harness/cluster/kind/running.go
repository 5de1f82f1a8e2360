package kind

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/netproof/netproof/harness/cluster/kind/engine"
	"github.com/netproof/netproof/harness/cluster/lease"
	"github.com/netproof/netproof/harness/cluster/remote"
	"github.com/netproof/netproof/harness/cluster/sweep"
	"github.com/netproof/netproof/harness/cni/install"
	"github.com/netproof/netproof/harness/image"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/policy"
)

// nodeAgentPath is where a node has the agent's executable, once it is needed there.
const nodeAgentPath = "/usr/local/bin/netproof-agent"

// labelHost is on the containers that are hosts outside of the cluster, with the name of the host.
const labelHost = "netproof.dev/host"

// running is what netproof can do on a running cluster beyond its API.
type running struct {
	engine     *engine.Engine
	name       string
	executable string
	nodeImage  string
	plugin     install.Found
	rest       *rest.Config
	client     kubernetes.Interface
	// nodes are the names of all nodes, workers the addresses of those that take pods.
	nodes    []string
	workers  []model.Node
	families []model.IPFamily
	// end removes the cluster, or lets go of it.
	end func(ctx context.Context) error
	// lease is the run's right to use a cluster that outlives it; nil for one that does not.
	lease *lease.Lease

	mu sync.Mutex
	// equipped are the nodes that have the agent's executable.
	equipped map[string]bool
	// direct is what [running.Direct] keeps.
	direct directProbing
	// hosts are the containers by the name of the host.
	hosts map[string]string
}

var _ remote.Provider = (*running)(nil)

// NodeCommand implements [remote.Provider].
func (r *running) NodeCommand(ctx context.Context, node model.Node, environment []string) (remote.Command, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.equipped[node.Name] {
		if err := r.copyAgent(ctx, node.Name, nodeAgentPath); err != nil {
			return remote.Command{}, err
		}
		r.equipped[node.Name] = true
	}
	return remote.Command{Dial: r.dial(node.Name, environment, nodeAgentPath, "agent", "stdio"), Addresses: node.Addresses}, nil
}

// copyAgent puts the executable into a container, running or not.
func (r *running) copyAgent(ctx context.Context, container, path string) error {
	archive, err := image.Archive(r.executable, path)
	if err != nil {
		return err
	}
	defer archive.Close()
	if _, err := r.engine.Change(ctx, archive, "cp", "-", container+":/"); err != nil {
		return fmt.Errorf("copy the agent into container %s: %w", container, engine.Explain(r.engine.Name, err))
	}
	return nil
}

// dial connects to the standard input and output of a program that it starts in a container.
func (r *running) dial(container string, environment []string, command ...string) func(ctx context.Context) (io.ReadWriteCloser, error) {
	return func(ctx context.Context) (io.ReadWriteCloser, error) {
		args := []string{"exec", "-i"}
		for _, variable := range environment {
			// The value comes from the program's own environment, and so is not in the list of processes.
			name, _, _ := strings.Cut(variable, "=")
			args = append(args, "-e", name)
		}
		cmd := r.engine.Command(ctx, append(append(args, container), command...)...)
		cmd.Env = append(os.Environ(), environment...)
		return startSession(cmd)
	}
}

// session is the standard input and output of a running program.
type session struct {
	io.Reader
	in    io.WriteCloser
	cmd   *exec.Cmd
	ended chan struct{}
	close sync.Once
}

// sessionGrace is how long a program may take to end after its input has.
const sessionGrace = 2 * time.Second

func startSession(cmd *exec.Cmd) (*session, error) {
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	outR, outW := io.Pipe()
	said := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = outW, &limited{b: said}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &session{Reader: outR, in: in, cmd: cmd, ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		err := cmd.Wait()
		if err == nil {
			err = errors.New("the program ended")
		}
		if text := oneLine(said.String()); text != "" {
			err = fmt.Errorf("%w: %s", err, text)
		}
		outW.CloseWithError(err)
	}()
	return s, nil
}

func (s *session) Write(p []byte) (int, error) { return s.in.Write(p) }

// Close ends the program.
func (s *session) Close() error {
	s.close.Do(func() {
		_ = s.in.Close() // it may have ended
		// What it still writes is not read any more, and must not keep it.
		go func() { _, _ = io.Copy(io.Discard, s.Reader) }()
		grace := time.NewTimer(sessionGrace)
		defer grace.Stop()
		select {
		case <-s.ended:
		case <-grace.C:
			_ = s.cmd.Process.Kill()
			<-s.ended
		}
	})
	return nil
}

// limited keeps the beginning of what a program says.
type limited struct{ b *bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	const most = 2048
	if room := most - l.b.Len(); room > 0 {
		l.b.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// HostCommand implements [remote.Provider]: the host is a container of the node image, which is there and has the tools
// to set routes, on the cluster's network. Its agent is the container's program, and each connection a bridge to it.
func (r *running) HostCommand(ctx context.Context, name string, environment []string) (remote.Command, error) {
	if err := r.RemoveHost(ctx, name); err != nil { // one that a run left which was killed
		return remote.Command{}, err
	}
	routes, err := r.routes(ctx)
	if err != nil {
		return remote.Command{}, err
	}
	args := []string{
		"create", "--name", fmt.Sprintf("%s-host-%s", r.name, name), "--hostname", name, "--label", LabelCluster + "=" + r.name, "--label", labelHost + "=" + name,
		"--network", networkOf(r.name), "--cap-drop", "ALL", "--cap-add", "NET_ADMIN", "--cap-add", "NET_BIND_SERVICE", "--stop-signal", "SIGKILL",
	}
	for _, variable := range environment {
		args = append(args, "-e", variable)
	}
	args = append(args, "--entrypoint", "/bin/sh", r.nodeImage, "-c", routes+"exec "+nodeAgentPath+" agent serve")
	out, err := r.engine.Change(ctx, nil, args...)
	if err != nil {
		return remote.Command{}, fmt.Errorf("make host %s: %w", name, engine.Explain(r.engine.Name, err))
	}
	id := strings.TrimSpace(out)
	r.mu.Lock()
	r.hosts[name] = id
	r.mu.Unlock()
	addresses, err := r.startHost(ctx, id)
	if err != nil {
		return remote.Command{}, errors.Join(fmt.Errorf("start host %s: %w", name, engine.Explain(r.engine.Name, err)), r.RemoveHost(context.WithoutCancel(ctx), name))
	}
	return remote.Command{Dial: r.dial(id, environment, nodeAgentPath, "agent", "connect"), Addresses: addresses}, nil
}

func (r *running) startHost(ctx context.Context, id string) ([]netip.Addr, error) {
	if err := r.copyAgent(ctx, id, nodeAgentPath); err != nil {
		return nil, err
	}
	if _, err := r.engine.Change(ctx, nil, "start", id); err != nil {
		return nil, err
	}
	all, err := inspectContainers(ctx, r.engine, id)
	if err != nil {
		return nil, err
	}
	if len(all) != 1 || !all[0].State.Running {
		said, _ := r.engine.Output(ctx, "logs", id)
		return nil, fmt.Errorf("it ended: %s", oneLine(said))
	}
	return addressesOf(all[0], networkOf(r.name), r.families)
}

// addressesOf are a container's on a network, one per family, in the order of the families.
func addressesOf(c container, network string, families []model.IPFamily) ([]netip.Addr, error) {
	on := c.NetworkSettings.Networks[network]
	var out []netip.Addr
	for _, f := range families {
		text := on.IPAddress
		if f == model.IPv6 {
			text = on.GlobalIPv6Address
		}
		address, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("container %s has no %s address on network %s", c.Name, f, network)
		}
		out = append(out, address)
	}
	return out, nil
}

// routes are commands that tell a host the way to pods: through the node that has them. A detour through another node
// is no way: the packet would come out of the overlay with a source that its node expects on the wire, and be dropped.
func (r *running) routes(ctx context.Context) (string, error) {
	list, err := r.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", fmt.Errorf("list nodes: %w", err)
	}
	networks := map[string][]string{}
	for _, n := range list.Items {
		networks[n.Name] = n.Spec.PodCIDRs
	}
	if r.plugin.Name == cniCalico {
		if err := r.calicoBlocks(ctx, networks); err != nil {
			return "", err
		}
	}
	return routeCommands(networks, r.workers), nil
}

// blockAffinities say which blocks of addresses Calico has given to which node. Each node has one as soon as it is
// ready, for the address of its tunnel.
var blockAffinities = schema.GroupVersionResource{Group: policy.CalicoGroup, Version: "v1", Resource: "blockaffinities"}

// calicoBlocks adds the networks that Calico's own address management has given to nodes, where that is in use.
func (r *running) calicoBlocks(ctx context.Context, networks map[string][]string) error {
	client, err := dynamic.NewForConfig(r.rest)
	if err != nil {
		return fmt.Errorf("list Calico's blocks: %w", err)
	}
	list, err := client.Resource(blockAffinities).List(ctx, metav1.ListOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list Calico's blocks: %w", err)
	}
	for _, item := range list.Items {
		// What is not a string is not of a version that is known here, and gives no route.
		node, _, _ := unstructured.NestedString(item.Object, "spec", "node")
		cidr, _, _ := unstructured.NestedString(item.Object, "spec", "cidr")
		networks[node] = append(networks[node], cidr)
	}
	return nil
}

// routeCommands set the routes to the networks of the workers. A later one is never about addresses of an earlier one
// on another node, unless it is more specific.
func routeCommands(networks map[string][]string, workers []model.Node) string {
	var b strings.Builder
	for _, w := range workers {
		for _, cidr := range networks[w.Name] {
			network, err := netip.ParsePrefix(cidr)
			if err != nil {
				continue
			}
			for _, a := range w.Addresses {
				if a.Is4() == network.Addr().Is4() { // the first of the family is the node's own
					fmt.Fprintf(&b, "ip route replace %s via %s; ", network.Masked(), a)
					break
				}
			}
		}
	}
	return b.String()
}

// RemoveHost implements [remote.Provider].
func (r *running) RemoveHost(ctx context.Context, name string) error {
	r.mu.Lock()
	delete(r.hosts, name)
	r.mu.Unlock()
	ids, err := r.engine.Lines(ctx, "ps", "-a", "-q", "--no-trunc", "--filter", "label="+LabelCluster+"="+r.name, "--filter", "label="+labelHost+"="+name)
	if err != nil {
		return fmt.Errorf("remove host %s: %w", name, engine.Explain(r.engine.Name, err))
	}
	if len(ids) == 0 {
		return nil
	}
	if _, err := r.engine.Change(ctx, nil, append([]string{"rm", "-f", "-v"}, ids...)...); err != nil && !engine.IsGone(err) {
		return fmt.Errorf("remove host %s: %w", name, engine.Explain(r.engine.Name, err))
	}
	return nil
}

// parseSandbox finds the path of the network namespace in the output of crictl inspectp.
func parseSandbox(text []byte) (string, error) {
	var sandbox struct {
		Info struct {
			RuntimeSpec struct {
				Linux struct {
					Namespaces []struct{ Type, Path string }
				}
			}
		}
	}
	if err := json.Unmarshal(text, &sandbox); err != nil {
		return "", fmt.Errorf("read sandbox: %w", err)
	}
	for _, ns := range sandbox.Info.RuntimeSpec.Linux.Namespaces {
		if ns.Type == "network" && ns.Path != "" {
			return ns.Path, nil
		}
	}
	return "", errors.New("the container runtime does not tell its path")
}

// hold takes the cluster for a run, and removes what one left that was killed.
func (r *running) hold(ctx context.Context, runID string, progress func(string)) (err error) {
	if r.lease, err = sweep.Hold(ctx, r.rest, nil, lease.Options{RunID: runID, Progress: progress}); err != nil {
		return err
	}
	left, err := r.engine.Lines(ctx, "ps", "-aq", "--filter", "label="+LabelCluster+"="+r.name, "--filter", "label="+labelHost)
	if err == nil && len(left) > 0 {
		_, err = r.engine.Change(ctx, nil, append([]string{"rm", "-f"}, left...)...)
	}
	if err != nil {
		err = fmt.Errorf("remove hosts that a run left: %w", engine.Explain(r.engine.Name, err))
		return errors.Join(err, r.lease.Release(context.WithoutCancel(ctx)))
	}
	return nil
}

// Health implements [remote.Provider]. A lost Lease is for good: another run may be at work.
func (r *running) Health(ctx context.Context) error {
	if r.lease != nil {
		if err := r.lease.Err(); err != nil {
			return err
		}
	}
	return errors.Join(r.containersRun(ctx), r.nodesReady(ctx), agentsReady(ctx, r.client, r.plugin.Plugin()))
}

func (r *running) containersRun(ctx context.Context) error {
	all, err := inspectContainers(ctx, r.engine, r.nodes...)
	if err != nil {
		return fmt.Errorf("look at the nodes' containers: %w", err)
	}
	var errs []error
	for _, name := range r.nodes {
		i := slices.IndexFunc(all, func(c container) bool { return c.Name == name })
		switch {
		case i < 0:
			errs = append(errs, fmt.Errorf("the container of node %s is gone", name))
		case !all[i].State.Running:
			why := ""
			if all[i].State.OOMKilled {
				why = ", the kernel killed it for its use of memory"
			}
			errs = append(errs, fmt.Errorf("the container of node %s is %s with exit code %d%s", name, all[i].State.Status, all[i].State.ExitCode, why))
		}
	}
	return errors.Join(errs...)
}

func (r *running) nodesReady(ctx context.Context) error {
	list, err := r.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list nodes: %w", err)
	}
	var errs []error
	for _, n := range list.Items {
		for _, c := range n.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status != corev1.ConditionTrue {
				errs = append(errs, fmt.Errorf("node %s is not ready: %s", n.Name, oneLine(c.Message)))
			}
		}
	}
	if len(list.Items) < len(r.nodes) {
		errs = append(errs, fmt.Errorf("%d of %d nodes are there", len(list.Items), len(r.nodes)))
	}
	return errors.Join(errs...)
}

// Close implements [remote.Provider].
func (r *running) Close(ctx context.Context) error {
	r.mu.Lock()
	hosts := make([]string, 0, len(r.hosts))
	for name := range r.hosts {
		hosts = append(hosts, name)
	}
	direct := r.direct
	r.direct = directProbing{}
	r.mu.Unlock()
	var errs []error
	for _, name := range hosts {
		errs = append(errs, r.RemoveHost(ctx, name))
	}
	errs = append(errs, direct.close())
	if r.lease != nil {
		errs = append(errs, r.lease.Release(ctx))
	}
	return errors.Join(append(errs, r.end(ctx))...)
}
