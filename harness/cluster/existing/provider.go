package existing

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/lease"
	"github.com/netproof/netproof/harness/cluster/remote"
	"github.com/netproof/netproof/harness/cluster/sweep"
	"github.com/netproof/netproof/harness/cni"
	"github.com/netproof/netproof/harness/cni/install"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
)

// Name is how reports and flags call this provider.
const Name = "existing"

// Provider gives clusters that are there already.
type Provider struct{ opts Options }

var _ cluster.Provider = (*Provider)(nil)

// New makes a provider. Nothing is looked at before Create.
func New(opts Options) *Provider { return &Provider{opts: opts} }

// Create implements [cluster.Provider]. Of its options, CNI says what the network plugin must be, and IPFamilies which
// of the cluster's are wanted; empty takes what there is. Nodes limits the run to the first ones, 0 takes all that take
// pods. The cluster is a [*Cluster].
//
// Nothing is made on the cluster but the Lease of the run. What a run left that died while it had the Lease is removed.
func (p *Provider) Create(ctx context.Context, opts cluster.Options) (cluster.Cluster, error) {
	c, err := p.Open(ctx, opts)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Cluster is an existing cluster that this run has the Lease of.
type Cluster struct {
	*remote.Cluster

	plugin *install.Found
	lease  *lease.Lease
}

// Plugin is the network plugin as it was found; ok is false where none was recognised.
func (c *Cluster) Plugin() (found install.Found, ok bool) {
	if c.plugin == nil {
		return install.Found{}, false
	}
	return *c.plugin, true
}

var _ cluster.Capable = (*Cluster)(nil)

// Capabilities implements [cluster.Capable].
func (c *Cluster) Capabilities() (capabilities cni.Capabilities, ok bool) {
	if c.plugin == nil {
		return cni.Capabilities{}, false
	}
	return c.plugin.Capabilities()
}

// Lease is the run's right to use the cluster.
func (c *Cluster) Lease() *lease.Lease { return c.lease }

// Open is Create with the concrete type as its result.
func (p *Provider) Open(ctx context.Context, opts cluster.Options) (*Cluster, error) {
	progress := opts.Progress
	if progress == nil {
		progress = p.opts.Progress
	}
	if progress == nil {
		progress = func(string) {}
	}
	if err := p.opts.check(); err != nil {
		return nil, err
	}
	cfg, called, err := RESTConfig(p.opts)
	if err != nil {
		return nil, err
	}
	c, err := open(ctx, cfg, called, p.opts, opts, progress)
	if err != nil {
		return nil, fmt.Errorf("use cluster %s: %w", called, err)
	}
	return c, nil
}

func open(ctx context.Context, cfg *rest.Config, called string, own Options, wanted cluster.Options, progress func(string)) (*Cluster, error) {
	if !byDigest(own.Image) {
		progress("the image of the probe pods, " + own.Image + ", is named by a tag: nodes may have different ones under that name; name it by its digest")
	}
	if own.NamespacePrefix != "" {
		progress("namespaces get the prefix " + own.NamespacePrefix + ", also where policies select them by name; policies of the cluster's scope " +
			"and changes of built-in namespaces still reach all that runs here")
	}
	client, err := cluster.Connect(cfg)
	if err != nil {
		return nil, err
	}
	seen, err := look(ctx, client, own.Namespaces, wanted, progress)
	if err != nil {
		return nil, err
	}
	seen.info.Name = called
	r := &running{plugin: seen.plugin, nodes: map[string]bool{}}
	for _, n := range seen.nodes {
		r.nodes[n.Name] = true
	}
	c, err := remote.New(ctx, remote.Config{
		RESTConfig: cfg, Info: seen.info, Nodes: seen.nodes, Image: own.Image, Provider: r, Progress: progress,
	})
	if err != nil {
		return nil, err
	}
	if r.client, err = cluster.Connect(c.RESTConfig()); err != nil { // it outlives an API server that is started again
		return nil, err
	}
	r.lease, err = sweep.Hold(ctx, cfg, own.Namespaces, lease.Options{
		RunID: c.RunID(), NamespacePrefix: own.NamespacePrefix, Progress: progress, Timing: own.timing,
	})
	if err != nil {
		return nil, err
	}
	return &Cluster{Cluster: c, plugin: seen.plugin, lease: r.lease}, nil
}

// sighting is what was found on a cluster, as a run takes it.
type sighting struct {
	info   model.Cluster
	plugin *install.Found
	nodes  []model.Node
}

// look finds out what the cluster is. It changes nothing.
func look(ctx context.Context, client kubernetes.Interface, lent []string, wanted cluster.Options, progress func(string)) (sighting, error) {
	version, err := client.Discovery().ServerVersion()
	if err != nil {
		return sighting{}, fmt.Errorf("reach the API server: %w", err)
	}
	var found []install.Found
	if len(lent) == 0 {
		if found, err = install.Detect(ctx, client); err != nil {
			return sighting{}, cluster.ExplainForbidden(err)
		}
	}
	plugin, err := pluginOf(found, wanted.CNI)
	if err != nil {
		return sighting{}, err
	}
	switch {
	case len(lent) > 0:
		progress("the network plugin is not looked for in a run that was lent namespaces: reports call it " + unknownPlugin)
	case plugin == nil:
		progress("no network plugin was recognised on the cluster: reports call it " + unknownPlugin)
	}
	have, err := familiesOf(ctx, client, len(lent) == 0)
	if err != nil {
		return sighting{}, cluster.ExplainForbidden(err)
	}
	families, err := choose(wanted.IPFamilies, have)
	if err != nil {
		return sighting{}, err
	}
	nodes, leftOut, err := nodesFor(ctx, client, plugin, wanted.Nodes)
	if err != nil {
		return sighting{}, cluster.ExplainForbidden(err)
	}
	for _, why := range leftOut {
		progress("left out " + why)
	}
	return sighting{
		info:   model.Cluster{Provider: Name, CNI: cniOf(plugin), Kubernetes: version.GitVersion, Nodes: len(nodes), IPFamilies: families},
		plugin: plugin, nodes: nodes,
	}, nil
}

// running is what is known of an existing cluster beyond its API.
type running struct {
	client kubernetes.Interface
	plugin *install.Found
	// nodes are the names of those that the run uses.
	nodes map[string]bool
	lease *lease.Lease
}

var _ remote.Provider = (*running)(nil)

// NodeCommand implements [remote.Provider]: a pod on the node's network stands in.
func (*running) NodeCommand(context.Context, model.Node, []string) (remote.Command, error) {
	return remote.Command{}, errors.ErrUnsupported
}

// HostCommand implements [remote.Provider]. What is outside of somebody's cluster is not known.
func (*running) HostCommand(context.Context, string, []string) (remote.Command, error) {
	return remote.Command{}, fmt.Errorf("the surroundings of an existing cluster are not known: %w", errors.ErrUnsupported)
}

// RemoveHost implements [remote.Provider].
func (*running) RemoveHost(context.Context, string) error { return nil }

// Direct implements [remote.Provider].
func (*running) Direct(context.Context, *corev1.Pod, []byte) (probes.Agent, error) {
	return nil, errors.ErrUnsupported
}

// Health implements [remote.Provider]. A lost Lease is for good: another run may be at work.
func (r *running) Health(ctx context.Context) error {
	if err := r.lease.Err(); err != nil {
		return err
	}
	return r.pluginHealth(ctx)
}

// pluginHealth finds agents of the network plugin that are not ready on nodes of the run, and a plugin that was
// replaced by another version. What the DaemonSet says of itself is one small object, so the agents are only looked at
// where that tells of trouble.
func (r *running) pluginHealth(ctx context.Context) error {
	if r.plugin == nil {
		return nil
	}
	namespace, name, _ := strings.Cut(r.plugin.DaemonSet, "/")
	set, err := r.client.AppsV1().DaemonSets(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("the network plugin %s was removed during the run: there is no DaemonSet %s", r.plugin.Name, r.plugin.DaemonSet)
	}
	if err != nil {
		return fmt.Errorf("look at the network plugin: read DaemonSet %s: %w", r.plugin.DaemonSet, err)
	}
	for _, c := range set.Spec.Template.Spec.Containers {
		if c.Name == r.plugin.Agent.Container && c.Image != r.plugin.Image {
			return fmt.Errorf("the network plugin %s was changed during the run: DaemonSet %s has the image %s now, not %s",
				r.plugin.Name, r.plugin.DaemonSet, c.Image, r.plugin.Image)
		}
	}
	if s := set.Status; s.NumberReady >= s.DesiredNumberScheduled {
		return nil
	}
	ill, err := illAgents(ctx, r.client, *r.plugin)
	if err != nil {
		return fmt.Errorf("look at the network plugin: %w", err)
	}
	var errs []error
	for node, trouble := range ill {
		if r.nodes[node] {
			errs = append(errs, fmt.Errorf("node %s: %s", node, trouble))
		}
	}
	return errors.Join(errs...)
}

// Close implements [remote.Provider]: it lets go of the cluster.
func (r *running) Close(ctx context.Context) error {
	if r.lease == nil {
		return nil
	}
	return r.lease.Release(ctx)
}
