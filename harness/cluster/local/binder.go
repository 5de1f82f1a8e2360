//go:build linux

package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// binder gives pods that name no node to the nodes in turn. It stands in the place of kube-scheduler and knows node
// selectors and required node affinity, and nothing of resources, taints or priorities: no pod here uses any.
type binder struct {
	cluster *Cluster
	nodes   listers.NodeLister
	next    int
	queue   chan *corev1.Pod
}

// startBinder binds pods until ctx ends.
func (c *Cluster) startBinder(ctx context.Context) error {
	b := &binder{cluster: c, nodes: c.factory.Core().V1().Nodes().Lister(), queue: make(chan *corev1.Pod, 1024)}
	offer := func(obj any) {
		pod, ok := obj.(*corev1.Pod)
		if !ok || !wantsNode(pod) {
			return
		}
		select {
		case b.queue <- pod:
		case <-ctx.Done():
		}
	}
	_, err := c.factory.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    offer,
		UpdateFunc: func(_, obj any) { offer(obj) },
	})
	if err != nil {
		return fmt.Errorf("watch pods to bind: %w", err)
	}
	c.helpers.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case pod := <-b.queue:
				b.bind(ctx, pod)
			}
		}
	})
	return nil
}

func wantsNode(pod *corev1.Pod) bool {
	return pod.Spec.NodeName == "" && pod.DeletionTimestamp == nil && len(pod.Spec.SchedulingGates) == 0 &&
		pod.Spec.SchedulerName == corev1.DefaultSchedulerName
}

func (b *binder) bind(ctx context.Context, pod *corev1.Pod) {
	name, err := b.choose(pod)
	if errors.Is(err, errUnschedulable) {
		err = b.refuse(ctx, pod, err)
	} else if err == nil {
		binding := &corev1.Binding{
			ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
			Target:     corev1.ObjectReference{Kind: "Node", Name: name},
		}
		err = b.cluster.client.CoreV1().Pods(pod.Namespace).Bind(ctx, binding, metav1.CreateOptions{})
	}
	// Gone, or bound by an earlier event: nothing is left to do.
	if err == nil || ctx.Err() != nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return
	}
	b.cluster.fault(fmt.Errorf("bind pod %s/%s: %w", pod.Namespace, pod.Name, err))
}

// errUnschedulable says that no node will do for a pod.
var errUnschedulable = errors.New("no node matches the pod's node selector and node affinity")

// choose picks the next node that the pod accepts.
func (b *binder) choose(pod *corev1.Pod) (string, error) {
	required := nodeaffinity.GetRequiredNodeAffinity(pod)
	for range b.cluster.nodes {
		n := b.cluster.nodes[b.next%len(b.cluster.nodes)]
		b.next++
		object, err := b.nodes.Get(n.Name)
		if err != nil {
			return "", fmt.Errorf("look up node %s: %w", n.Name, err)
		}
		if ok, err := required.Match(object); err == nil && ok {
			return n.Name, nil
		}
	}
	return "", errUnschedulable
}

// refuse writes into the pod's status why it gets no node, once. A change of the pod brings it here again.
func (b *binder) refuse(ctx context.Context, pod *corev1.Pod, cause error) error {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Reason == corev1.PodReasonUnschedulable {
			return nil
		}
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": pod.UID},
		"status": map[string]any{"conditions": []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable,
			Message: cause.Error(), LastTransitionTime: metav1.Now(),
		}}},
	})
	if err != nil {
		return fmt.Errorf("write condition: %w", err)
	}
	_, err = b.cluster.client.CoreV1().Pods(pod.Namespace).
		Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}
