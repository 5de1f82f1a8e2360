package remote

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/netproof/netproof/harness/model"
)

// Nodes are those of a cluster that take probe pods: of Linux, ready, and without taints or a cordon that would keep
// pods away. They are in the order of their names.
func Nodes(ctx context.Context, client kubernetes.Interface) ([]model.Node, error) {
	list, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	slices.SortFunc(list.Items, func(a, b corev1.Node) int { return strings.Compare(a.Name, b.Name) })
	var out []model.Node
	for i := range list.Items {
		if n := &list.Items[i]; takesPods(n) {
			out = append(out, model.Node{Index: len(out), Name: n.Name, Addresses: nodeAddresses(n)})
		}
	}
	return out, nil
}

func takesPods(n *corev1.Node) bool {
	ready := slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
	tainted := slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool {
		return t.Effect == corev1.TaintEffectNoSchedule || t.Effect == corev1.TaintEffectNoExecute
	})
	system := n.Labels[corev1.LabelOSStable]
	return ready && !tainted && !n.Spec.Unschedulable && (system == "" || system == string(corev1.Linux))
}

// tunnelAnnotations hold the addresses from which a node itself sends to pods of other nodes through the plugin's
// overlay: Calico's tunnel addresses, and those of Cilium's router.
var tunnelAnnotations = []string{
	"projectcalico.org/IPv4VXLANTunnelAddr", "projectcalico.org/IPv6VXLANTunnelAddr", "projectcalico.org/IPv4IPIPTunnelAddr",
	"network.cilium.io/ipv4-cilium-host", "network.cilium.io/ipv6-cilium-host",
	"io.cilium.network.ipv4-cilium-host", "io.cilium.network.ipv6-cilium-host",
}

// nodeAddresses are the internal ones of the Node object, one per family, and then those of tunnels.
func nodeAddresses(n *corev1.Node) []netip.Addr {
	var out []netip.Addr
	add := func(text string) {
		if a, err := netip.ParseAddr(text); err == nil && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			add(a.Address)
		}
	}
	for _, name := range tunnelAnnotations {
		add(n.Annotations[name])
	}
	return out
}
