//go:build linux

package local

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/netproof/netproof/harness/cluster/local/controlplane"
	"github.com/netproof/netproof/harness/cluster/local/engine"
	"github.com/netproof/netproof/harness/cluster/local/hosttools"
	"github.com/netproof/netproof/harness/cluster/local/node"
	"github.com/netproof/netproof/harness/cluster/local/nodeagent"
	"github.com/netproof/netproof/harness/cluster/local/process"
	"github.com/netproof/netproof/probes/nsagent"
)

// start brings the cluster up. What takes long, the API server, goes first; everything that does not need it is done
// meanwhile, and what does not stand in the way of pods and policies starts last.
func (c *Cluster) start(ctx context.Context) error {
	c.hosts = map[string]nodeagent.Endpoint{}
	var err error
	if c.dir, err = os.MkdirTemp("", "cluster-"); err != nil {
		return fmt.Errorf("make cluster folder: %w", err)
	}
	if c.processes, err = process.NewGroup(c.path("logs")); err != nil {
		return err
	}
	plan := node.Plan{Families: c.opts.IPFamilies}
	if c.fabric, err = node.NewFabric(plan); err != nil {
		return err
	}
	c.opts.Progress("starting the control plane")
	if c.control, err = controlplane.Start(c.processes, c.fabric.Thread(), controlplane.Config{
		Etcd:              c.engines.Path("etcd"),
		APIServer:         c.engines.Path("kube-apiserver"),
		ControllerManager: c.engines.Path("kube-controller-manager"),
		Dir:               c.dir,
		Addresses:         plan.Gateway(),
		ServiceCIDRs:      plan.Services(),
		PodCIDRs:          plan.Pods(),
	}); err != nil {
		return err
	}
	if c.probing, err = nsagent.NewEngine(nsagent.Options{}); err != nil {
		return err
	}
	if err := c.addNodes(); err != nil {
		return err
	}
	if err := c.connect(); err != nil {
		return err
	}
	if err := c.network.prepare(c); err != nil {
		return err
	}
	if err := c.control.WaitReady(ctx); err != nil {
		return err
	}
	if err := c.control.StartControllers(); err != nil {
		return err
	}
	c.opts.Progress("installing the network plugin")
	work, wctx := errgroup.WithContext(ctx)
	work.Go(func() error { return c.network.install(wctx, c) })
	for _, n := range c.nodes {
		work.Go(func() error { return c.register(wctx, n) })
	}
	if err := work.Wait(); err != nil {
		return err
	}
	c.opts.Progress("starting the nodes")
	if err := c.startNodes(ctx); err != nil {
		return err
	}
	return nil
}

func (c *Cluster) addNodes() error {
	visible := []string{c.dir, os.TempDir()}
	for _, dir := range c.engines.Dirs() {
		visible = append(visible, dir)
	}
	for i := range c.opts.Nodes {
		n, err := c.fabric.AddNode(node.Config{Index: i, Visible: visible})
		if err != nil {
			return err
		}
		c.nodes = append(c.nodes, &localNode{Node: n})
	}
	return nil
}

func (c *Cluster) connect() error {
	config := c.control.RESTConfig()
	config.UserAgent = "netproof"
	config.WarningHandler = rest.NoWarnings{}
	var err error
	if c.objects, err = dynamic.NewForConfig(config); err != nil {
		return fmt.Errorf("make client for the API server: %w", err)
	}
	config.ContentType = apiruntime.ContentTypeProtobuf
	config.AcceptContentTypes = apiruntime.ContentTypeProtobuf + "," + apiruntime.ContentTypeJSON
	if c.client, err = kubernetes.NewForConfig(config); err != nil {
		return fmt.Errorf("make client for the API server: %w", err)
	}
	return nil
}

// register makes the Node object. Its status is true from the start, but for readiness.
func (c *Cluster) register(ctx context.Context, n *localNode) error {
	capacity := corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewQuantity(int64(runtime.NumCPU()), resource.DecimalSI),
		corev1.ResourceMemory: resource.MustParse("16Gi"),
		corev1.ResourcePods:   resource.MustParse("250"),
	}
	object := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: n.Name,
			Labels: map[string]string{
				corev1.LabelHostname:   n.Name,
				corev1.LabelOSStable:   "linux",
				corev1.LabelArchStable: runtime.GOARCH,
			},
			Annotations: c.network.annotations(c, n.Node),
		},
		Status: corev1.NodeStatus{
			Capacity:    capacity,
			Allocatable: capacity,
			NodeInfo: corev1.NodeSystemInfo{
				Architecture:            runtime.GOARCH,
				OperatingSystem:         "linux",
				OSImage:                 "netproof local cluster",
				ContainerRuntimeVersion: "netproof://1",
				KubeletVersion:          c.engines.Version(engine.Kubernetes),
			},
			Conditions: []corev1.NodeCondition{{
				Type: corev1.NodeReady, Status: corev1.ConditionFalse, Reason: "NetworkPluginStarting",
				LastTransitionTime: metav1.Now(), LastHeartbeatTime: metav1.Now(),
			}},
		},
	}
	for _, p := range n.PodNetworks {
		object.Spec.PodCIDRs = append(object.Spec.PodCIDRs, p.String())
	}
	object.Spec.PodCIDR = object.Spec.PodCIDRs[0]
	for _, a := range n.Addresses {
		object.Status.Addresses = append(object.Status.Addresses,
			corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a.String()})
	}
	object.Status.Addresses = append(object.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeHostName, Address: n.Name})
	if _, err := c.client.CoreV1().Nodes().Create(ctx, object, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("register node %s: %w", n.Name, err)
	}
	return nil
}

// startNodes starts what runs on the nodes and returns when pods can be made there.
func (c *Cluster) startNodes(ctx context.Context) error {
	life, stop := context.WithCancel(context.Background())
	c.stop = stop
	c.factory = informers.NewSharedInformerFactory(c.client, 0)
	pods := c.factory.Core().V1().Pods().Informer()
	for _, n := range c.nodes {
		list, err := c.network.networkList(c, n.Node)
		if err != nil {
			return err
		}
		n.agent, err = nodeagent.New(nodeagent.Config{
			Client:      c.client,
			Node:        n.Node,
			NetworkList: list,
			PluginDirs:  c.pluginDirs(),
			StateDir:    c.path("cni", n.Name),
			Serve:       c.serve,
			Programmed:  c.network.programmed,
		})
		if err != nil {
			return err
		}
		if _, err := pods.AddEventHandler(n.agent.Handler()); err != nil {
			return fmt.Errorf("watch pods for node %s: %w", n.Name, err)
		}
	}
	if err := c.startBinder(life); err != nil {
		return err
	}
	c.reaper = controlplane.NewNamespaceReaper(c.client, c.factory.Core().V1().Pods().Lister(), c.fault)
	if err := c.reaper.Watch(life, c.factory.Core().V1().Namespaces().Informer()); err != nil {
		return err
	}
	c.factory.Start(life.Done())

	work, wctx := errgroup.WithContext(ctx)
	for _, n := range c.nodes {
		work.Go(func() error {
			if err := c.network.start(wctx, c, n.Node); err != nil {
				return err
			}
			return c.markReady(wctx, n)
		})
	}
	if err := work.Wait(); err != nil {
		return err
	}
	for _, n := range c.nodes {
		if err := c.startProxy(n); err != nil {
			return err
		}
	}
	for kind, synced := range c.factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return fmt.Errorf("watch %v: %w", kind, context.Cause(ctx))
		}
	}
	return nil
}

func (c *Cluster) markReady(ctx context.Context, n *localNode) error {
	now := metav1.Now().UTC().Format("2006-01-02T15:04:05Z")
	patch := fmt.Appendf(nil, `{"status":{"conditions":[{"type":"Ready","status":"True","reason":"NetworkPluginReady",`+
		`"lastHeartbeatTime":%q,"lastTransitionTime":%q}]}}`, now, now)
	_, err := c.client.CoreV1().Nodes().PatchStatus(ctx, n.Name, patch)
	if err != nil {
		return fmt.Errorf("mark node %s ready: %w", n.Name, err)
	}
	return nil
}

func (c *Cluster) pluginDirs() []string {
	var dirs []string
	for _, name := range []string{engine.Calico, engine.CNIPlugins} {
		if dir := c.engines.Dirs()[name]; dir != "" && !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// environment is what a program on a node sees.
func environment(extra ...string) []string {
	return append([]string{"PATH=" + hosttools.SearchPath(os.Getenv("PATH")), "HOME=/", "TMPDIR=" + os.TempDir()}, extra...)
}

// nodePrefixes are a node's addresses with the length of the fabric's networks.
func (c *Cluster) nodePrefixes(n *node.Node) []netip.Prefix {
	var prefixes []netip.Prefix
	for i, a := range n.Addresses {
		prefixes = append(prefixes, netip.PrefixFrom(a, c.fabric.Plan.Fabric()[i].Bits()))
	}
	return prefixes
}
