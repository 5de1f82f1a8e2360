package existing

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/netproof/netproof/harness/cluster/remote"
	"github.com/netproof/netproof/harness/cni/install"
	"github.com/netproof/netproof/harness/model"
)

// unknownPlugin is what reports say where no network plugin is recognised.
const unknownPlugin = "unknown"

// pluginOf picks the network plugin that a run speaks about: the one that enforces policies, else the first. It is nil
// for none. wanted is the name that the user asked for, or "".
func pluginOf(found []install.Found, wanted string) (*install.Found, error) {
	if err := install.CheckOneEnforcer(found); err != nil {
		return nil, err
	}
	var plugin *install.Found
	for i := range found {
		if plugin == nil || found[i].Enforces {
			plugin = &found[i]
		}
	}
	if wanted == "" || plugin != nil && plugin.Name == wanted {
		return plugin, nil
	}
	if plugin == nil {
		return nil, fmt.Errorf("no network plugin was recognised on the cluster, and %s was asked for", wanted)
	}
	return nil, fmt.Errorf("the network plugin of the cluster is %s (DaemonSet %s), and %s was asked for", plugin.Name, plugin.DaemonSet, wanted)
}

// cniOf is how reports call a network plugin.
func cniOf(plugin *install.Found) model.CNI {
	if plugin == nil {
		return model.CNI{Name: unknownPlugin}
	}
	return model.CNI{Name: plugin.Name, Version: plugin.Version}
}

// podPage is how many pods are looked at, at once, for addresses.
const podPage = 200

// familiesOf are the IP families of pods, the primary one first: those of pods that run, else those of the nodes' pod
// networks, else those of the nodes. Pods know best, since a network plugin may leave the networks that Kubernetes
// gives to nodes aside; they are only asked where all of them may be looked at.
func familiesOf(ctx context.Context, client kubernetes.Interface, askPods bool) ([]model.IPFamily, error) {
	if askPods {
		families, err := podFamilies(ctx, client)
		if err != nil || len(families) > 0 {
			return families, err
		}
	}
	nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	return nodeFamilies(nodes.Items), nil
}

// podFamilies looks at pods with a network of their own, page by page until there is one.
func podFamilies(ctx context.Context, client kubernetes.Interface) ([]model.IPFamily, error) {
	opts := metav1.ListOptions{Limit: podPage, FieldSelector: "status.phase=" + string(corev1.PodRunning)}
	for {
		pods, err := client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, opts)
		if err != nil {
			return nil, fmt.Errorf("list pods: %w", err)
		}
		var most []model.IPFamily
		for i := range pods.Items {
			if p := &pods.Items[i]; !p.Spec.HostNetwork {
				// Pods from before a cluster became dual-stack have one address.
				most = longer(most, addressFamilies(p.Status.PodIPs, func(ip corev1.PodIP) string { return ip.IP }))
			}
		}
		if len(most) > 0 || pods.Continue == "" {
			return most, nil
		}
		opts.Continue = pods.Continue
	}
}

// nodeFamilies looks at what nodes say of their pods' networks, or of themselves.
func nodeFamilies(nodes []corev1.Node) []model.IPFamily {
	var networks, own []model.IPFamily
	for i := range nodes {
		networks = longer(networks, addressFamilies(nodes[i].Spec.PodCIDRs, func(cidr string) string {
			address, _, _ := strings.Cut(cidr, "/")
			return address
		}))
		own = longer(own, addressFamilies(nodes[i].Status.Addresses, func(a corev1.NodeAddress) string {
			if a.Type != corev1.NodeInternalIP {
				return ""
			}
			return a.Address
		}))
	}
	if len(networks) > 0 {
		return networks
	}
	return own
}

// addressFamilies are the families of addresses, in the order in which they occur.
func addressFamilies[T any](list []T, text func(T) string) []model.IPFamily {
	var out []model.IPFamily
	for _, item := range list {
		a, err := netip.ParseAddr(text(item))
		if err != nil {
			continue
		}
		if f := model.FamilyOf(a); !slices.Contains(out, f) {
			out = append(out, f)
		}
	}
	return out
}

func longer[T any](a, b []T) []T {
	if len(b) > len(a) {
		return b
	}
	return a
}

// choose picks the families that a run wants out of those that the cluster has, in the cluster's order. None wanted
// means all.
func choose(wanted, have []model.IPFamily) ([]model.IPFamily, error) {
	if len(have) == 0 {
		return nil, fmt.Errorf("the IP families of the cluster cannot be told: no pod runs, and no node has an address")
	}
	for _, f := range wanted {
		if !slices.Contains(have, f) {
			return nil, fmt.Errorf("pods of this cluster have no %s addresses, only %s: choose another --ip-family, or leave it out", f, list(have))
		}
	}
	if len(wanted) == 0 {
		return have, nil
	}
	return slices.DeleteFunc(slices.Clone(have), func(f model.IPFamily) bool { return !slices.Contains(wanted, f) }), nil
}

func list[T ~string](words []T) string {
	var out []string
	for _, w := range words {
		out = append(out, string(w))
	}
	return strings.Join(out, " and ")
}

// nodesFor are the nodes of a run: the first n that take pods, 0 for all. Those on which the agent of the network
// plugin is not ready are left out; why tells which.
func nodesFor(ctx context.Context, client kubernetes.Interface, plugin *install.Found, n int) (nodes []model.Node, why []string, err error) {
	all, err := remote.Nodes(ctx, client)
	if err != nil {
		return nil, nil, err
	}
	var ill map[string]string
	if plugin != nil {
		if ill, err = illAgents(ctx, client, *plugin); err != nil {
			return nil, nil, err
		}
	}
	for _, node := range all {
		if trouble, bad := ill[node.Name]; bad {
			why = append(why, fmt.Sprintf("node %s: %s", node.Name, trouble))
			continue
		}
		node.Index = len(nodes)
		nodes = append(nodes, node)
	}
	if len(nodes) == 0 {
		return nil, why, fmt.Errorf("no node takes pods: every one is not ready, cordoned, tainted, or lacks its network plugin%s", because(why))
	}
	if n > len(nodes) {
		return nil, why, fmt.Errorf("%d nodes take pods, and --nodes asks for %d%s", len(nodes), n, because(why))
	}
	if n > 0 {
		nodes = nodes[:n]
	}
	return nodes, why, nil
}

func because(why []string) string {
	if len(why) == 0 {
		return ""
	}
	return " (" + strings.Join(why, "; ") + ")"
}

// illAgents are the agents of a network plugin that are not ready, by node, with what is the matter. A node without any
// agent is not among them: whether policies hold there is what a run finds out.
func illAgents(ctx context.Context, client kubernetes.Interface, plugin install.Found) (map[string]string, error) {
	namespace, _, _ := strings.Cut(plugin.DaemonSet, "/")
	pods, err := client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: plugin.Agent.Selector})
	if err != nil {
		return nil, fmt.Errorf("list the agents of %s: %w", plugin.Name, err)
	}
	ill, well := map[string]string{}, map[string]bool{}
	for i := range pods.Items {
		p := &pods.Items[i]
		if isReady(p) {
			well[p.Spec.NodeName] = true
			continue
		}
		ill[p.Spec.NodeName] = fmt.Sprintf("pod %s/%s of %s is not ready", p.Namespace, p.Name, plugin.Name)
	}
	for node := range well { // the next one is there already
		delete(ill, node)
	}
	return ill, nil
}

func isReady(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}
