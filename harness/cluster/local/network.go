//go:build linux

package local

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"

	"github.com/netproof/netproof/harness/cluster/local/engine"
	"github.com/netproof/netproof/harness/cluster/local/hosttools"
	"github.com/netproof/netproof/harness/cluster/local/node"
	"github.com/netproof/netproof/harness/cluster/local/process"
	"github.com/netproof/netproof/harness/cni/calico"
	"github.com/netproof/netproof/harness/cni/none"
	"github.com/netproof/netproof/harness/model"
)

const (
	cniCalico = "calico"
	cniNone   = "none"
	// fieldManager is who owns what the provider writes.
	fieldManager = "netproof"
	// applyLimit is how many objects are sent to the API server at a time.
	applyLimit = 8
	// pollInterval is how often something that starts is asked whether it is ready.
	pollInterval = 10 * time.Millisecond
)

// network is a network plugin as the local provider runs it.
type network interface {
	info() model.CNI
	// prepare does what needs no API server.
	prepare(c *Cluster) error
	// install puts into the API server what the plugin needs there.
	install(ctx context.Context, c *Cluster) error
	// annotations belong on the Node object.
	annotations(c *Cluster, n *node.Node) map[string]string
	// tunnels are the addresses, besides the node's own, from which a node sends to pods of other nodes.
	tunnels(c *Cluster, n *node.Node) []netip.Addr
	// networkList is the configuration for libcni on a node.
	networkList(c *Cluster, n *node.Node) ([]byte, error)
	// start starts the plugin's program on a node, if it has one, and returns when it is ready.
	start(ctx context.Context, c *Cluster, n *node.Node) error
	// enforcer is the name of the plugin's program on a node; empty if it has none.
	enforcer(n *node.Node) string
	// programmed tells whether the plugin has set up a pod that was attached.
	programmed(namespace, pod string, addresses []netip.Addr) (bool, error)
}

func (p *Provider) newNetwork(name string) (network, error) {
	switch name {
	case cniCalico:
		return &calicoNetwork{version: p.engines.Version(engine.Calico), engines: p.engines, dataplane: p.dataplane}, nil
	case cniNone:
		return noNetwork{version: p.engines.Version(engine.CNIPlugins)}, nil
	}
	return nil, fmt.Errorf("unknown network plugin %q: the local provider has %s", name, strings.Join(engine.Plugins(), " and "))
}

// calicoNetwork runs Calico.
type calicoNetwork struct {
	version string
	engines *engine.Engines
	crds    []*unstructured.Unstructured
	// dataplane is the same on all nodes: they share a kernel.
	dataplane calico.Dataplane
}

func (k *calicoNetwork) info() model.CNI { return model.CNI{Name: cniCalico, Version: k.version} }

func (k *calicoNetwork) prepare(c *Cluster) error {
	if err := k.chooseDataplane(c); err != nil {
		return err
	}
	manifest, err := k.engines.CRDs()
	if err != nil {
		return err
	}
	k.crds, err = calico.CRDs(manifest)
	return err
}

func (k *calicoNetwork) chooseDataplane(c *Cluster) error {
	if k.dataplane != "" {
		return nil
	}
	scratch, err := c.nodes[0].NewNamespace()
	if err != nil {
		return err
	}
	detect := func() (err error) {
		k.dataplane, err = calico.DetectDataplane(slices.Contains(c.opts.IPFamilies, model.IPv6), hosttools.Find)
		return err
	}
	// The node's mount namespace has the lock files, so the thread is one of the node's.
	if err := c.nodes[0].DoIn(scratch, detect); err != nil {
		return errors.Join(err, scratch.Close())
	}
	return scratch.Close()
}

func (k *calicoNetwork) install(ctx context.Context, c *Cluster) error {
	if err := createAll(ctx, c.objects, k.crds); err != nil {
		return err
	}
	if err := waitServed(ctx, c.client.Discovery(), k.crds); err != nil {
		return err
	}
	return applyAll(ctx, c.objects, calico.Objects(k.version, c.fabric.Plan.Pods()))
}

func (k *calicoNetwork) config(c *Cluster, n *node.Node) calico.Config {
	return calico.Config{
		NodeName:    n.Name,
		Dataplane:   k.dataplane,
		Addresses:   c.nodePrefixes(n),
		PodNetworks: n.PodNetworks,
		Kubeconfig:  c.Kubeconfig(),
		MTU:         node.MTU,
	}
}

func (k *calicoNetwork) annotations(c *Cluster, n *node.Node) map[string]string {
	return k.config(c, n).NodeAnnotations()
}

func (k *calicoNetwork) tunnels(c *Cluster, n *node.Node) []netip.Addr {
	return k.config(c, n).TunnelAddresses()
}

func (k *calicoNetwork) networkList(c *Cluster, n *node.Node) ([]byte, error) {
	return k.config(c, n).CNIConfig()
}

func (k *calicoNetwork) start(ctx context.Context, c *Cluster, n *node.Node) error {
	felix, err := c.processes.Start(n.Thread(), process.Command{
		Name:      k.enforcer(n),
		Path:      k.engines.Path("calico-node"),
		Args:      calico.FelixArgs(),
		Env:       environment(append(k.config(c, n).FelixEnvironment(), "GOMAXPROCS=2")...),
		RestartOn: []int{calico.RestartCode},
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		if err := felix.Watch(ctx); err != nil {
			cancel(err)
		}
	}()
	return awaitHealthy(ctx, n, calico.HealthPort, "/readiness", felix.Name())
}

func (*calicoNetwork) enforcer(n *node.Node) string { return n.Name + "/felix" }

func (k *calicoNetwork) programmed(namespace, pod string, addresses []netip.Addr) (bool, error) {
	return calico.Programmed(namespace, pod, addresses)
}

// awaitHealthy returns when a program answers on the node's loopback address that it is ready.
func awaitHealthy(ctx context.Context, n *node.Node, port int, path, name string) error {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(_ context.Context, network, address string) (net.Conn, error) {
			var conn net.Conn
			err := n.Do(func() (err error) {
				// The address is a literal one, so the socket is made by this goroutine, on the node's thread.
				conn, err = net.DialTimeout(network, address, time.Second)
				return err
			})
			return conn, err
		},
	}
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	url := fmt.Sprintf("http://127.0.0.1:%d%s", port, path)
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	var last string
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return fmt.Errorf("ask %s whether it is ready: %w", name, err)
		}
		resp, err := client.Do(req)
		switch {
		case err != nil:
			last = err.Error()
		default:
			_ = resp.Body.Close()
			if resp.StatusCode >= 200 && resp.StatusCode < 300 {
				return nil
			}
			last = resp.Status
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w; it last answered: %s", name, context.Cause(ctx), last)
		case <-ticker.C:
		}
	}
}

// noNetwork connects pods and enforces nothing.
type noNetwork struct{ version string }

func (noNetwork) prepare(*Cluster) error                                { return nil }
func (noNetwork) install(context.Context, *Cluster) error               { return nil }
func (noNetwork) annotations(*Cluster, *node.Node) map[string]string    { return nil }
func (noNetwork) tunnels(*Cluster, *node.Node) []netip.Addr             { return nil }
func (w noNetwork) info() model.CNI                                     { return model.CNI{Name: cniNone, Version: w.version} }
func (noNetwork) enforcer(*node.Node) string                            { return "" }
func (noNetwork) programmed(string, string, []netip.Addr) (bool, error) { return true, nil }

func (noNetwork) networkList(_ *Cluster, n *node.Node) ([]byte, error) {
	return none.CNIConfig(n.PodNetworks, node.MTU)
}

func (noNetwork) start(_ context.Context, c *Cluster, n *node.Node) error {
	for _, other := range c.nodes {
		if other.Index == n.Index {
			continue
		}
		for i, pods := range other.PodNetworks {
			if err := n.AddRoute(pods, other.Addresses[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

var crdResource = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// resourceOf names the resources of the kinds that plugins install.
func resourceOf(object *unstructured.Unstructured) schema.GroupVersionResource {
	gv := schema.FromAPIVersionAndKind(object.GetAPIVersion(), object.GetKind()).GroupVersion()
	switch object.GetKind() {
	case "CustomResourceDefinition":
		return crdResource
	case "ClusterInformation":
		return gv.WithResource("clusterinformations")
	case "Tier":
		return gv.WithResource("tiers")
	case "IPPool":
		return gv.WithResource("ippools")
	}
	panic("no resource is known for " + object.GetKind())
}

// createAll writes objects that are known not to exist, several at a time.
func createAll(ctx context.Context, client dynamic.Interface, objects []*unstructured.Unstructured) error {
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(applyLimit)
	for _, object := range objects {
		work.Go(func() error {
			_, err := client.Resource(resourceOf(object)).Create(ctx, object, metav1.CreateOptions{FieldManager: fieldManager})
			if err != nil {
				return fmt.Errorf("create %s %s: %w", object.GetKind(), object.GetName(), err)
			}
			return nil
		})
	}
	return work.Wait()
}

// applyAll writes objects, several at a time. They are applied, not created: the API server holds every create of a
// custom resource back for two seconds after its definition is established.
func applyAll(ctx context.Context, client dynamic.Interface, objects []*unstructured.Unstructured) error {
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(applyLimit)
	for _, object := range objects {
		work.Go(func() error {
			_, err := client.Resource(resourceOf(object)).
				Apply(ctx, object.GetName(), object, metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
			if err != nil {
				return fmt.Errorf("apply %s %s: %w", object.GetKind(), object.GetName(), err)
			}
			return nil
		})
	}
	return work.Wait()
}

// waitServed returns when the API server offers the resources of every custom resource definition. The definitions
// themselves are large, and asking for them again and again would keep the API server from serving them; its list of
// resources is small.
func waitServed(ctx context.Context, client discovery.DiscoveryInterface, crds []*unstructured.Unstructured) error {
	wanted := map[schema.GroupVersion]map[string]bool{}
	for _, crd := range crds {
		gv, plural := served(crd)
		if wanted[gv] == nil {
			wanted[gv] = map[string]bool{}
		}
		wanted[gv][plural] = true
	}
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for gv, plurals := range wanted {
		for len(plurals) > 0 {
			list, err := client.ServerResourcesForGroupVersion(gv.String())
			if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsServiceUnavailable(err) {
				return fmt.Errorf("ask for the resources of %s: %w", gv, err)
			}
			if err == nil {
				for _, r := range list.APIResources {
					delete(plurals, r.Name)
				}
			}
			if len(plurals) == 0 {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("wait for the API server to serve %v of %s: %w", slices.Sorted(maps.Keys(plurals)), gv, context.Cause(ctx))
			case <-ticker.C:
			}
		}
	}
	return nil
}

// served tells under which version and name a custom resource definition's objects are stored.
func served(crd *unstructured.Unstructured) (schema.GroupVersion, string) {
	gv := schema.GroupVersion{}
	gv.Group, _, _ = unstructured.NestedString(crd.Object, "spec", "group")
	plural, _, _ := unstructured.NestedString(crd.Object, "spec", "names", "plural")
	versions, _, _ := unstructured.NestedSlice(crd.Object, "spec", "versions")
	for _, v := range versions {
		if version, ok := v.(map[string]any); ok && version["storage"] == true {
			gv.Version, _ = version["name"].(string)
		}
	}
	return gv, plural
}
