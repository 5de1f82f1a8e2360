//go:build linux

package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/local/controlplane"
	"github.com/netproof/netproof/harness/cluster/local/engine"
	"github.com/netproof/netproof/harness/cluster/local/node"
	"github.com/netproof/netproof/harness/cluster/local/nodeagent"
	"github.com/netproof/netproof/harness/cluster/local/process"
	"github.com/netproof/netproof/harness/cluster/local/sandbox"
	"github.com/netproof/netproof/harness/cni/calico"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
	"github.com/netproof/netproof/probes/nsagent"
)

// ErrNotInSandbox says that a cluster was asked for outside of a sandbox.
var ErrNotInSandbox = errors.New("a local cluster must be made inside a sandbox")

// closeTimeout bounds the end of the node agents.
const closeTimeout = 5 * time.Second

// Provider makes local clusters.
type Provider struct {
	engines   *engine.Engines
	dataplane calico.Dataplane
}

var _ cluster.Provider = (*Provider)(nil)

// Option changes how a provider makes clusters.
type Option func(*Provider)

// WithDataplane makes Calico use this part of the kernel instead of the least costly one that works.
func WithDataplane(d calico.Dataplane) Option { return func(p *Provider) { p.dataplane = d } }

// New makes a provider that runs these programs. They must include those of the network plugin that is asked of it.
func New(engines *engine.Engines, options ...Option) *Provider {
	p := &Provider{engines: engines}
	for _, option := range options {
		option(p)
	}
	return p
}

// Create implements [cluster.Provider]. The cluster is a [*Cluster].
func (p *Provider) Create(ctx context.Context, opts cluster.Options) (cluster.Cluster, error) {
	c, err := p.Start(ctx, opts)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Start is Create with the concrete type as its result.
func (p *Provider) Start(ctx context.Context, opts cluster.Options) (*Cluster, error) {
	if !sandbox.Inside() {
		return nil, ErrNotInSandbox
	}
	opts, err := withDefaults(opts)
	if err != nil {
		return nil, err
	}
	c := &Cluster{opts: opts, engines: p.engines, started: time.Now()}
	if c.network, err = p.newNetwork(opts.CNI); err != nil {
		return nil, err
	}
	if err := c.start(ctx); err != nil {
		err = fmt.Errorf("start local cluster: %w", err)
		// Another program's death may be the cause of what this one waited for.
		var died error
		if _, told := errors.AsType[*process.DeathError](err); !told {
			died = c.Health(ctx)
		}
		return nil, errors.Join(err, died, c.Close(context.WithoutCancel(ctx)))
	}
	return c, nil
}

func withDefaults(opts cluster.Options) (cluster.Options, error) {
	if opts.CNI == "" {
		opts.CNI = cniCalico
	}
	if opts.Nodes == 0 {
		opts.Nodes = DefaultNodes
	}
	if opts.Nodes < 1 || opts.Nodes > node.MaxNodes {
		return opts, fmt.Errorf("a local cluster has from 1 to %d nodes, not %d", node.MaxNodes, opts.Nodes)
	}
	if len(opts.IPFamilies) == 0 {
		opts.IPFamilies = []model.IPFamily{model.IPv4}
	}
	if opts.Progress == nil {
		opts.Progress = func(string) {}
	}
	plan := node.Plan{Families: opts.IPFamilies}
	return opts, plan.Check()
}

// Cluster is a running local cluster.
type Cluster struct {
	cluster.Native

	opts    cluster.Options
	engines *engine.Engines
	network network
	started time.Time
	dir     string

	processes *process.Group
	fabric    *node.Fabric
	control   *controlplane.ControlPlane
	probing   *nsagent.Engine
	nodes     []*localNode

	client  kubernetes.Interface
	objects dynamic.Interface
	// stop ends the informers and what hangs on them.
	stop    context.CancelFunc
	factory informers.SharedInformerFactory
	reaper  *controlplane.NamespaceReaper
	helpers sync.WaitGroup

	mu     sync.Mutex
	hosts  map[string]nodeagent.Endpoint
	faults []error
	closed bool
}

var _ cluster.Cluster = (*Cluster)(nil)

// localNode is a node and what runs on it.
type localNode struct {
	*node.Node
	agent *nodeagent.Agent

	mu     sync.Mutex
	prober nodeagent.Endpoint
}

// Info implements [cluster.Cluster].
func (c *Cluster) Info() model.Cluster {
	return model.Cluster{
		Provider:   "local",
		Name:       c.opts.Name,
		CNI:        c.network.info(),
		Kubernetes: c.engines.Version(engine.Kubernetes),
		Nodes:      c.opts.Nodes,
		IPFamilies: slices.Clone(c.opts.IPFamilies),
	}
}

// RESTConfig implements [cluster.Cluster].
func (c *Cluster) RESTConfig() *rest.Config { return c.control.RESTConfig() }

// Kubeconfig is the path of a file that gives other programs inside the sandbox access to the API server.
func (c *Cluster) Kubeconfig() string { return c.control.Kubeconfig() }

// KubeconfigFor writes a file with access to the API server by an address of [Cluster.ServeAPI], and gives its path.
func (c *Cluster) KubeconfigFor(address string) (string, error) {
	file := c.path("kubeconfig-outside") // without ":", which separates the files of KUBECONFIG
	return file, c.control.WriteKubeconfig(file, "https://"+address)
}

// Dir is the folder of the cluster's data and, under logs, of the logs of its processes.
func (c *Cluster) Dir() string { return c.dir }

// Nodes implements [cluster.Cluster]. After a node's own addresses, one per family, come those of its tunnels, from
// which it sends to the pods of other nodes: a policy may see either.
func (c *Cluster) Nodes() []model.Node {
	nodes := make([]model.Node, len(c.nodes))
	for i, n := range c.nodes {
		nodes[i] = model.Node{Index: n.Index, Name: n.Name, Addresses: slices.Concat(n.Addresses, c.network.tunnels(c, n.Node))}
	}
	return nodes
}

// Health implements [cluster.Cluster]: it returns what went wrong since the cluster came up, or nil. That is programs
// that ended unasked, with the end of their logs, and pods that could not be removed. Once it is set it stays.
func (c *Cluster) Health(context.Context) error {
	var errs []error
	if c.processes != nil {
		errs = append(errs, c.processes.Err())
	}
	for _, n := range c.nodes {
		if n.agent != nil {
			errs = append(errs, n.agent.Err())
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(append(errs, c.faults...)...)
}

// Failed is closed when the first program of the cluster ends unasked.
func (c *Cluster) Failed() <-chan struct{} { return c.processes.Failed() }

// Events tells what has happened to the cluster's programs so far.
func (c *Cluster) Events() []process.Event { return c.processes.Events() }

// Processes are the cluster's programs, in the order of their start.
func (c *Cluster) Processes() []*process.Process { return c.processes.Processes() }

func (c *Cluster) fault(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = append(c.faults, err)
}

// PodAgent implements [cluster.Cluster].
func (c *Cluster) PodAgent(_ context.Context, pod *corev1.Pod) (probes.Agent, error) {
	n, err := c.nodeOf(pod)
	if err != nil {
		return nil, err
	}
	endpoint, err := n.agent.Endpoint(pod.UID)
	if err != nil {
		return nil, podError("find agent of", pod, err)
	}
	return endpoint, nil
}

func podError(what string, pod *corev1.Pod, err error) error {
	return fmt.Errorf("%s pod %s/%s (%s): %w", what, pod.Namespace, pod.Name, pod.UID, err)
}

func (c *Cluster) nodeOf(pod *corev1.Pod) (*localNode, error) {
	for _, n := range c.nodes {
		if n.Name == pod.Spec.NodeName {
			return n, nil
		}
	}
	return nil, podError("find node of", pod, fmt.Errorf("no node %q", pod.Spec.NodeName))
}

func (c *Cluster) node(index int) (*localNode, error) {
	if index < 0 || index >= len(c.nodes) {
		return nil, fmt.Errorf("find node %d: the cluster has nodes 0 to %d", index, len(c.nodes)-1)
	}
	return c.nodes[index], nil
}

// NodeAgent implements [cluster.Cluster].
func (c *Cluster) NodeAgent(_ context.Context, index int) (probes.Agent, error) {
	n, err := c.node(index)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.prober == nil {
		identity := probes.Identity{Endpoint: model.NodeEndpoint(index)}
		if n.prober, err = c.serve(n.Network().File(), identity, nil); err != nil {
			return nil, fmt.Errorf("make agent of node %d: %w", index, err)
		}
	}
	return n.prober, nil
}

// AddHost implements [cluster.Cluster].
func (c *Cluster) AddHost(_ context.Context, host model.Host) (cluster.Host, error) {
	name := host.Name
	h, err := c.fabric.AddHost(name, host.Addresses...)
	if err != nil {
		return cluster.Host{}, err
	}
	endpoint, err := c.serve(h.Namespace.File(), probes.Identity{Endpoint: host.Endpoint()}, host.Ports)
	if err != nil {
		return cluster.Host{}, errors.Join(fmt.Errorf("serve host %s: %w", name, err), c.fabric.RemoveHost(name))
	}
	c.mu.Lock()
	c.hosts[name] = endpoint
	c.mu.Unlock()
	return cluster.Host{Name: name, Addresses: slices.Clone(h.Addresses), Agent: endpoint}, nil
}

// RemoveHost implements [cluster.Cluster].
func (c *Cluster) RemoveHost(_ context.Context, name string) error {
	c.mu.Lock()
	endpoint := c.hosts[name]
	delete(c.hosts, name)
	c.mu.Unlock()
	var err error
	if endpoint != nil {
		err = endpoint.Close()
	}
	return errors.Join(err, c.fabric.RemoveHost(name))
}

// Close implements [cluster.Cluster]. It does not wait for ctx: it takes a fraction of a second, and what it could
// leave behind goes with the sandbox.
func (c *Cluster) Close(context.Context) error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	hosts := c.hosts
	c.hosts = nil
	c.mu.Unlock()

	var errs []error
	if c.stop != nil {
		c.stop()
	}
	for _, n := range c.nodes {
		if n.agent != nil {
			errs = append(errs, n.agent.Close(closeTimeout))
		}
		if n.prober != nil {
			errs = append(errs, n.prober.Close())
		}
	}
	for _, h := range hosts {
		errs = append(errs, h.Close())
	}
	if c.probing != nil {
		errs = append(errs, c.probing.Close())
	}
	// Their data end here too, so there is nothing to be gained from letting them finish.
	if c.processes != nil {
		c.processes.Kill()
	}
	if c.factory != nil {
		c.factory.Shutdown()
	}
	c.helpers.Wait()
	if c.reaper != nil {
		c.reaper.Wait()
	}
	if c.fabric != nil {
		errs = append(errs, c.fabric.Close())
	}
	if c.dir != "" {
		errs = append(errs, os.RemoveAll(c.dir))
	}
	return errors.Join(errs...)
}

func (c *Cluster) path(elements ...string) string {
	return filepath.Join(append([]string{c.dir}, elements...)...)
}
