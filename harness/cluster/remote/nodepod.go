package remote

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	clientwatch "k8s.io/client-go/tools/watch"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes/podagent"
	"github.com/netproof/netproof/probes/stream"
)

// nodePodReady bounds the start of a pod that stands in for a node.
const nodePodReady = time.Minute

// nodePod runs an agent in a pod on the network of a node. It serves nothing.
func (c *Cluster) nodePod(ctx context.Context, node model.Node, settings podagent.Settings) (stream.Dial, error) {
	namespace, err := c.nodePodNamespace(ctx)
	if err != nil {
		return nil, err
	}
	no := false
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("node-%d", node.Index), Labels: c.labels()},
		Spec: corev1.PodSpec{
			NodeName: node.Name, HostNetwork: true, AutomountServiceAccountToken: &no, EnableServiceLinks: &no,
			Containers: []corev1.Container{{}},
		},
	}
	c.PreparePod(pod)
	pod.Spec.Containers[0].Env = envVars(settings.Environment()) // the identity is the node's, not the pod's
	pods := c.client.CoreV1().Pods(namespace)
	if _, err := pods.Create(ctx, pod, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return nil, fmt.Errorf("create pod %s/%s: %w", namespace, pod.Name, err)
	}
	limit, cancel := context.WithTimeout(ctx, nodePodReady)
	defer cancel()
	lw := cache.NewListWatchFromClient(c.client.CoreV1().RESTClient(), "pods", namespace, fields.OneTermEqualSelector("metadata.name", pod.Name))
	last, err := clientwatch.UntilWithSync(limit, lw, &corev1.Pod{}, nil, func(e watch.Event) (bool, error) {
		p, ok := e.Object.(*corev1.Pod)
		if ok && p.Status.Phase == corev1.PodFailed {
			return false, fmt.Errorf("it failed: %s %s", p.Status.Reason, p.Status.Message)
		}
		return ok && p.Status.Phase == corev1.PodRunning, nil
	})
	if err != nil {
		return nil, fmt.Errorf("start pod %s/%s: %w", namespace, pod.Name, err)
	}
	return execDial(c.rest, c.client, last.Object.(*corev1.Pod)), nil
}

func (c *Cluster) labels() map[string]string {
	return cluster.RunLabels(c.runID)
}

func (c *Cluster) nodePodNamespace(ctx context.Context) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.nodePods != "" {
		return c.nodePods, nil
	}
	labels := c.labels()
	labels[enforceLabel] = "privileged"
	name := "netproof-nodes-" + c.runID
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
	if _, err := c.client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil {
		return "", fmt.Errorf("create namespace %s: %w", name, err)
	}
	c.nodePods = name
	return name, nil
}

func (c *Cluster) removeNodePods(ctx context.Context) error {
	c.mu.Lock()
	name := c.nodePods
	c.mu.Unlock()
	if name == "" {
		return nil
	}
	pods := c.client.CoreV1().Pods(name).DeleteCollection(ctx, *metav1.NewDeleteOptions(0), metav1.ListOptions{})
	err := c.client.CoreV1().Namespaces().Delete(ctx, name, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		err = nil
	}
	if err != nil {
		err = fmt.Errorf("delete namespace %s: %w", name, err)
	}
	return errors.Join(pods, err)
}
