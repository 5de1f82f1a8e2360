package remote

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
	"github.com/netproof/netproof/probes/podagent"
	"github.com/netproof/netproof/probes/stream"
)

// Cluster is a [cluster.Cluster] that is reached over its API server.
type Cluster struct {
	cfg    Config
	rest   *rest.Config
	client kubernetes.Interface
	runID  string
	// key authenticates probes and agents of this run.
	key []byte
	// calls counts what went over streams.
	calls atomic.Int64
	// connections counts the streams themselves.
	connections atomic.Int64

	mu     sync.Mutex
	closed bool
	pods   map[types.UID]*podAgent
	nodes  map[int]*stream.Agent
	hosts  map[string]*stream.Agent
	// nodePods is the namespace of the pods that stand in for nodes, "" as long as there is none.
	nodePods string

	targetsMu sync.Mutex
	targets   map[netip.Addr]bool
	version   int64

	healthMu sync.Mutex
	healthAt time.Time
	health   error
}

var _ cluster.Cluster = (*Cluster)(nil)

// podAgent is the agent of a pod, and what has to be closed with it.
type podAgent struct {
	// name of the pod in the cluster.
	name types.NamespacedName
	probes.Agent
	stream *stream.Agent
}

// keyLen is the length of a run's key in bytes.
const keyLen = 32

// New makes a cluster out of what its provider knows. It makes nothing on the cluster yet.
func New(_ context.Context, cfg Config) (*Cluster, error) {
	if len(cfg.Nodes) == 0 {
		return nil, errors.New("no node takes pods: every one is not ready, cordoned or tainted")
	}
	if cfg.PullPolicy == "" {
		cfg.PullPolicy = corev1.PullIfNotPresent
	}
	if cfg.Provider == nil {
		cfg.Provider = nobody{}
	}
	if cfg.Progress == nil {
		cfg.Progress = func(string) {}
	}
	c := &Cluster{
		cfg: cfg, rest: rest.CopyConfig(cfg.RESTConfig), runID: cluster.NewRunID(), key: make([]byte, keyLen),
		pods: map[types.UID]*podAgent{}, nodes: map[int]*stream.Agent{}, hosts: map[string]*stream.Agent{}, targets: map[netip.Addr]bool{},
	}
	_, _ = rand.Read(c.key) // it does not fail: it ends the program instead
	c.rest.QPS = -1
	c.rest.Wrap(new(outage).patiently)
	var err error
	if c.client, err = cluster.Connect(c.rest); err != nil {
		return nil, err
	}
	for _, n := range cfg.Nodes {
		c.Admit(n.Addresses...)
	}
	return c, nil
}

// RunID implements [cluster.Identified].
func (c *Cluster) RunID() string { return c.runID }

// Info implements [cluster.Cluster].
func (c *Cluster) Info() model.Cluster { return c.cfg.Info }

// RESTConfig implements [cluster.Cluster].
func (c *Cluster) RESTConfig() *rest.Config { return rest.CopyConfig(c.rest) }

// Nodes implements [cluster.Cluster].
func (c *Cluster) Nodes() []model.Node { return slices.Clone(c.cfg.Nodes) }

// ProbeTimeout implements [cluster.Cluster].
func (c *Cluster) ProbeTimeout() time.Duration { return cmp.Or(c.cfg.ProbeTimeout, ProbeTimeout) }

// Calls is the number of calls to agents so far: of round trips through exec streams.
func (c *Cluster) Calls() int64 { return c.calls.Load() }

// Connections is the number of streams that were opened so far. One that was cut and opened again counts twice.
func (c *Cluster) Connections() int64 { return c.connections.Load() }

// Admit adds endpoints of the run, which its agents may probe.
func (c *Cluster) Admit(list ...netip.Addr) {
	c.targetsMu.Lock()
	defer c.targetsMu.Unlock()
	for _, a := range list {
		if !c.targets[a] {
			c.targets[a] = true
			c.version++
		}
	}
}

// admitted are the addresses that agents may probe.
func (c *Cluster) admitted() (version int64, list []netip.Addr) {
	c.targetsMu.Lock()
	defer c.targetsMu.Unlock()
	for a := range c.targets {
		list = append(list, a)
	}
	return c.version, list
}

// connect makes an agent and returns when it can be asked.
func (c *Cluster) connect(ctx context.Context, id probes.Identity, dial stream.Dial) (*stream.Agent, error) {
	a := stream.New(id, c.key, dial, stream.Options{Targets: c.admitted, Calls: &c.calls, Connections: &c.connections})
	if err := a.Await(ctx); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

// PodAgent implements [cluster.Cluster].
func (c *Cluster) PodAgent(ctx context.Context, pod *corev1.Pod) (probes.Agent, error) {
	c.mu.Lock()
	known := c.pods[pod.UID]
	c.mu.Unlock()
	if known != nil {
		return known, nil
	}
	for _, ip := range pod.Status.PodIPs {
		if a, err := netip.ParseAddr(ip.IP); err == nil {
			c.Admit(a)
		}
	}
	id := probes.Identity{Endpoint: cluster.EndpointOf(pod), UID: string(pod.UID)}
	overAPI, err := c.connect(ctx, id, execDial(c.rest, c.client, pod))
	if err != nil {
		return nil, err
	}
	p := &podAgent{Agent: overAPI, stream: overAPI, name: types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}}
	if c.cfg.Direct {
		direct, err := c.cfg.Provider.Direct(ctx, pod, c.key)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("enter the network namespace of pod %s: %w", id.Endpoint, err), overAPI.Close())
		}
		p.Agent = &directAgent{Agent: overAPI, prober: direct}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errors.Join(errClosed, p.close())
	}
	for uid, old := range c.pods {
		if old.name == p.name { // the pod that had this name before is gone
			go func() { _ = old.close() }()
			delete(c.pods, uid)
		}
	}
	c.pods[pod.UID] = p
	return p, nil
}

func (p *podAgent) close() error {
	err := p.stream.Close()
	if d, ok := p.Agent.(*directAgent); ok {
		err = errors.Join(err, d.close())
	}
	return err
}

// errClosed says that the cluster was closed in the meantime.
var errClosed = errors.New("the cluster is closed")

// directAgent probes from the network namespace itself. What the pod's servers saw is still asked of the pod.
type directAgent struct {
	probes.Agent
	prober probes.Agent
}

// Probe implements [probes.Agent].
func (d *directAgent) Probe(ctx context.Context, batch []probes.Request, deliver func(probes.Response)) error {
	return d.prober.Probe(ctx, batch, deliver)
}

func (d *directAgent) close() error {
	if c, ok := d.prober.(interface{ Close() error }); ok {
		return c.Close()
	}
	return nil
}

// NodeAgent implements [cluster.Cluster]. Where the provider cannot enter its nodes, a pod on the node's network stands
// in.
func (c *Cluster) NodeAgent(ctx context.Context, index int) (probes.Agent, error) {
	c.mu.Lock()
	known := c.nodes[index]
	c.mu.Unlock()
	if known != nil {
		return known, nil
	}
	node := c.cfg.Nodes[index]
	id := probes.Identity{Endpoint: model.NodeEndpoint(index)}
	settings := podagent.Settings{Identity: id, Commitment: podagent.Commitment(c.key)}
	command, err := c.cfg.Provider.NodeCommand(ctx, node, settings.Environment())
	dial := command.Dial
	if errors.Is(err, errors.ErrUnsupported) {
		dial, err = c.nodePod(ctx, node, settings)
	}
	if err != nil {
		return nil, fmt.Errorf("run an agent on node %s: %w", node.Name, err)
	}
	a, err := c.connect(ctx, id, dial)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes[index] = a
	return a, nil
}

// AddHost implements [cluster.Cluster].
func (c *Cluster) AddHost(ctx context.Context, host model.Host) (cluster.Host, error) {
	name := host.Name
	if len(host.Addresses) > 0 {
		// Whoever has the address in truth is not ours to probe.
		return cluster.Host{}, fmt.Errorf("only a local cluster can play the address %s: %w", host.Addresses[0], errors.ErrUnsupported)
	}
	id := probes.Identity{Endpoint: host.Endpoint()}
	settings := podagent.Settings{Identity: id, Ports: host.Ports, Commitment: podagent.Commitment(c.key)}
	command, err := c.cfg.Provider.HostCommand(ctx, name, settings.Environment())
	if err != nil {
		return cluster.Host{}, fmt.Errorf("make a host outside of the cluster: %w", err)
	}
	c.Admit(command.Addresses...)
	a, err := c.connect(ctx, id, command.Dial)
	if err != nil {
		return cluster.Host{}, errors.Join(err, c.cfg.Provider.RemoveHost(context.WithoutCancel(ctx), name))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hosts[name] = a
	return cluster.Host{Name: name, Addresses: command.Addresses, Agent: a}, nil
}

// RemoveHost implements [cluster.Cluster].
func (c *Cluster) RemoveHost(ctx context.Context, name string) error {
	c.mu.Lock()
	a := c.hosts[name]
	delete(c.hosts, name)
	c.mu.Unlock()
	var err error
	if a != nil {
		err = a.Close()
	}
	return errors.Join(err, c.cfg.Provider.RemoveHost(ctx, name))
}

const (
	// healthEvery is how old an answer about health may be.
	healthEvery = time.Second
	// healthPatience is how long the cluster may take to say how it is.
	healthPatience = 10 * time.Second
)

// Health implements [cluster.Cluster].
func (c *Cluster) Health(ctx context.Context) error {
	c.healthMu.Lock()
	defer c.healthMu.Unlock()
	if time.Since(c.healthAt) < healthEvery {
		return c.health
	}
	limit, cancel := context.WithTimeout(ctx, healthPatience)
	defer cancel()
	err := c.cfg.Provider.Health(limit)
	if _, apiErr := c.client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(limit); apiErr != nil {
		err = errors.Join(fmt.Errorf("the API server is not ready: %w", apiErr), err)
	}
	if ctx.Err() != nil {
		return nil // that the caller gave up says nothing about the cluster
	}
	c.health, c.healthAt = err, time.Now()
	return err
}

// Close implements [cluster.Cluster].
func (c *Cluster) Close(ctx context.Context) error {
	c.mu.Lock()
	c.closed = true
	var closers []func() error
	for _, p := range c.pods {
		closers = append(closers, p.close)
	}
	for _, a := range c.nodes {
		closers = append(closers, a.Close)
	}
	for _, a := range c.hosts {
		closers = append(closers, a.Close)
	}
	c.mu.Unlock()
	errs := make([]error, len(closers))
	var closing sync.WaitGroup
	for i, f := range closers {
		closing.Go(func() { errs[i] = f() })
	}
	closing.Wait()
	return errors.Join(append(errs, c.removeNodePods(ctx), c.cfg.Provider.Close(ctx))...)
}

// nobody is the provider of a cluster about which nothing is known beyond its API.
type nobody struct{}

var _ Provider = nobody{}

func (nobody) NodeCommand(context.Context, model.Node, []string) (Command, error) {
	return Command{}, errors.ErrUnsupported
}

func (nobody) HostCommand(context.Context, string, []string) (Command, error) {
	return Command{}, fmt.Errorf("this provider has none: %w", errors.ErrUnsupported)
}

func (nobody) RemoveHost(context.Context, string) error { return nil }

func (nobody) Direct(context.Context, *corev1.Pod, []byte) (probes.Agent, error) {
	return nil, errors.ErrUnsupported
}

func (nobody) Health(context.Context) error { return nil }
func (nobody) Close(context.Context) error  { return nil }
