package kind

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

const (
	// readyWait bounds the time from the end of kind's work until everything is ready. Images may have to be pulled in
	// it.
	readyWait = 5 * time.Minute
	readyPoll = 200 * time.Millisecond
)

// controlPlanePods are the pods that kubeadm makes of the control plane, by their label component.
var controlPlanePods = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"}

// notReady says what a cluster of so many nodes lacks, beside its network plugin; nothing means that it is ready.
// CoreDNS is not looked for: no probe asks for a name, and it takes seconds longer than the rest.
func notReady(want int, nodes []corev1.Node, system []corev1.Pod) []string {
	var lacks []string
	if len(nodes) != want {
		lacks = append(lacks, fmt.Sprintf("%d of %d nodes have joined", len(nodes), want))
	}
	proxies := map[string]bool{}
	components := map[string]bool{}
	for _, pod := range system {
		if !podReady(pod) {
			continue
		}
		if pod.Labels["k8s-app"] == "kube-proxy" {
			proxies[pod.Spec.NodeName] = true
		}
		components[pod.Labels["component"]] = true
	}
	for _, n := range nodes {
		i := slices.IndexFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool { return c.Type == corev1.NodeReady })
		switch {
		case i < 0:
			lacks = append(lacks, fmt.Sprintf("node %s says nothing of itself", n.Name))
		case n.Status.Conditions[i].Status != corev1.ConditionTrue:
			lacks = append(lacks, fmt.Sprintf("node %s is not ready: %s", n.Name, oneLine(n.Status.Conditions[i].Message)))
		}
		if !proxies[n.Name] {
			lacks = append(lacks, fmt.Sprintf("kube-proxy of node %s is not ready", n.Name))
		}
	}
	for _, c := range controlPlanePods {
		if !components[c] {
			lacks = append(lacks, c+" is not ready")
		}
	}
	return lacks
}

func podReady(pod corev1.Pod) bool {
	return pod.DeletionTimestamp == nil && slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// awaitNodes waits until the cluster is ready but for its network plugin's own parts.
func awaitNodes(ctx context.Context, client kubernetes.Interface, want int) error {
	limit, cancel := context.WithTimeout(ctx, readyWait)
	defer cancel()
	for {
		lacks, err := looks(limit, client, want)
		if err == nil && len(lacks) == 0 {
			return nil
		}
		if wait(limit, readyPoll); limit.Err() == nil {
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil {
			err = errors.New(strings.Join(lacks, "; "))
		}
		return fmt.Errorf("cluster is not ready after %s: %w", readyWait, err)
	}
}

// looks asks the API server once.
func looks(ctx context.Context, client kubernetes.Interface, want int) ([]string, error) {
	nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	pods, err := client.CoreV1().Pods(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list pods of %s: %w", metav1.NamespaceSystem, err)
	}
	return notReady(want, nodes.Items, pods.Items), nil
}
