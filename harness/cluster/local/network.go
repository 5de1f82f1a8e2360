package local

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/netproof/netproof/harness/cluster/local/engine"
	"github.com/netproof/netproof/harness/cluster/local/node"
	"github.com/netproof/netproof/harness/cluster/local/process"
	"github.com/netproof/netproof/harness/cni/calico"
	"github.com/netproof/netproof/harness/cni/none"
	"github.com/netproof/netproof/harness/model"
)

const (
	cniCalico = "calico"
	cniNone   = "none"
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
	// networkList is the configuration for libcni on a node.
	networkList(c *Cluster, n *node.Node) ([]byte, error)
	// start starts the plugin's program on a node, if it has one, and returns when it is ready.
	start(ctx context.Context, c *Cluster, n *node.Node) error
	// programmed tells whether the plugin has set up a pod that was attached.
	programmed(namespace, pod string, addresses []netip.Addr) (bool, error)
}

func newNetwork(name string, engines *engine.Engines) (network, error) {
	switch name {
	case cniCalico:
		return &calicoNetwork{version: engines.Version(engine.Calico), engines: engines}, nil
	case cniNone:
		return noNetwork{version: engines.Version(engine.CNIPlugins)}, nil
	}
	return nil, fmt.Errorf("unknown network plugin %q: the local provider has %s and %s", name, cniCalico, cniNone)
}

// calicoNetwork runs Calico.
type calicoNetwork struct {
	version string
	engines *engine.Engines
	crds    []*unstructured.Unstructured
}

func (k *calicoNetwork) info() model.CNI { return model.CNI{Name: cniCalico, Version: k.version} }

func (k *calicoNetwork) prepare(*Cluster) error {
	manifest, err := k.engines.CRDs()
	if err != nil {
		return err
	}
	k.crds, err = calico.CRDs(manifest)
	return err
}

func (k *calicoNetwork) install(ctx context.Context, c *Cluster) error {
	if err := createAll(ctx, c.objects, k.crds); err != nil {
		return err
	}
	if err := waitEstablished(ctx, c.objects, len(k.crds)); err != nil {
		return err
	}
	return createAll(ctx, c.objects, calico.Objects(k.version, c.fabric.Plan.Pods()))
}

func (k *calicoNetwork) config(c *Cluster, n *node.Node) calico.Config {
	return calico.Config{
		NodeName:    n.Name,
		Dataplane:   calico.NFTables,
		Addresses:   c.nodePrefixes(n),
		PodNetworks: n.PodNetworks,
		Kubeconfig:  c.Kubeconfig(),
		MTU:         node.MTU,
	}
}

func (k *calicoNetwork) annotations(c *Cluster, n *node.Node) map[string]string {
	return k.config(c, n).NodeAnnotations()
}

func (k *calicoNetwork) networkList(c *Cluster, n *node.Node) ([]byte, error) {
	return k.config(c, n).CNIConfig()
}

func (k *calicoNetwork) start(ctx context.Context, c *Cluster, n *node.Node) error {
	felix, err := c.processes.Start(n.Thread(), process.Command{
		Name:      n.Name + "/felix",
		Path:      k.engines.Path("calico-node"),
		Args:      calico.FelixArgs(),
		Env:       environment(k.config(c, n).FelixEnvironment()...),
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
	last := "no answer"
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
func (w noNetwork) info() model.CNI                                     { return model.CNI{Name: cniNone, Version: w.version} }
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

func createAll(ctx context.Context, client dynamic.Interface, objects []*unstructured.Unstructured) error {
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(applyLimit)
	for _, object := range objects {
		work.Go(func() error {
			_, err := client.Resource(resourceOf(object)).Create(ctx, object, metav1.CreateOptions{})
			if err != nil {
				return fmt.Errorf("create %s %s: %w", object.GetKind(), object.GetName(), err)
			}
			return nil
		})
	}
	return work.Wait()
}

// waitEstablished returns when every custom resource definition is served.
func waitEstablished(ctx context.Context, client dynamic.Interface, count int) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		list, err := client.Resource(crdResource).List(ctx, metav1.ListOptions{})
		if err != nil {
			return fmt.Errorf("list custom resource definitions: %w", err)
		}
		established := 0
		for i := range list.Items {
			if isEstablished(&list.Items[i]) {
				established++
			}
		}
		if established >= count {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for custom resource definitions: %d of %d are served: %w", established, count, context.Cause(ctx))
		case <-ticker.C:
		}
	}
}

func isEstablished(crd *unstructured.Unstructured) bool {
	conditions, _, _ := unstructured.NestedSlice(crd.Object, "status", "conditions")
	for _, c := range conditions {
		condition, ok := c.(map[string]any)
		if ok && condition["type"] == "Established" && condition["status"] == "True" {
			return true
		}
	}
	return false
}
