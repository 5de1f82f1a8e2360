//go:build linux

package nodeagent

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// component is what events name as their source.
const component = "netproof-node-agent"

// reportRunning writes the status of a pod whose servers answer.
func (w *worker) reportRunning(ctx context.Context, addresses []netip.Addr) error {
	now := metav1.Now()
	status := corev1.PodStatus{
		Phase:      corev1.PodRunning,
		StartTime:  &now,
		Conditions: conditions(now, corev1.ConditionTrue, "", ""),
		PodIP:      addresses[0].String(),
	}
	for _, a := range addresses {
		status.PodIPs = append(status.PodIPs, corev1.PodIP{IP: a.String()})
	}
	w.hostAddresses(&status)
	for _, c := range w.pod.Spec.Containers {
		started := true
		status.ContainerStatuses = append(status.ContainerStatuses, corev1.ContainerStatus{
			Name:        c.Name,
			Image:       c.Image,
			ContainerID: "netproof://" + string(w.pod.UID) + "/" + c.Name,
			Ready:       true,
			Started:     &started,
			State:       corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
		})
	}
	return w.patch(ctx, status)
}

// report writes why a pod does not start into its conditions, its container statuses, and an event.
func (w *worker) report(ctx context.Context, cause *startError) {
	now := metav1.Now()
	message := cause.Error()
	status := corev1.PodStatus{
		Phase:      corev1.PodPending,
		Conditions: conditions(now, corev1.ConditionFalse, cause.reason, message),
	}
	w.hostAddresses(&status)
	for _, c := range w.pod.Spec.Containers {
		status.ContainerStatuses = append(status.ContainerStatuses, corev1.ContainerStatus{
			Name:  c.Name,
			Image: c.Image,
			State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: cause.reason, Message: message}},
		})
	}
	// A pod that is gone, or another one of the same name, needs no status any more.
	if err := w.patch(ctx, status); err != nil && ctx.Err() == nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		w.agent.fault(err)
	}
	w.event(ctx, cause.reason, message)
}

// event writes a warning about the pod.
func (w *worker) event(ctx context.Context, reason, message string) {
	now := metav1.Now()
	event := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{GenerateName: w.pod.Name + ".", Namespace: w.pod.Namespace},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: "v1", Kind: "Pod", Namespace: w.pod.Namespace, Name: w.pod.Name, UID: w.pod.UID,
		},
		Type:           corev1.EventTypeWarning,
		Reason:         reason,
		Message:        message,
		Count:          1,
		FirstTimestamp: now,
		LastTimestamp:  now,
		Source:         corev1.EventSource{Component: component, Host: w.agent.cfg.Node.Name},
	}
	_, err := w.agent.cfg.Client.CoreV1().Events(w.pod.Namespace).Create(ctx, event, metav1.CreateOptions{})
	// A namespace that is being deleted takes no events.
	if err != nil && ctx.Err() == nil && !apierrors.IsForbidden(err) && !apierrors.IsNotFound(err) {
		w.agent.fault(fmt.Errorf("write event about pod %s/%s: %w", w.pod.Namespace, w.pod.Name, err))
	}
}

func (w *worker) hostAddresses(status *corev1.PodStatus) {
	for i, a := range w.agent.cfg.Node.Addresses {
		if i == 0 {
			status.HostIP = a.String()
		}
		status.HostIPs = append(status.HostIPs, corev1.HostIP{IP: a.String()})
	}
}

func conditions(now metav1.Time, ready corev1.ConditionStatus, reason, message string) []corev1.PodCondition {
	var all []corev1.PodCondition
	for _, c := range []struct {
		kind   corev1.PodConditionType
		status corev1.ConditionStatus
	}{
		{corev1.PodScheduled, corev1.ConditionTrue},
		{corev1.PodInitialized, corev1.ConditionTrue},
		{corev1.PodReadyToStartContainers, ready},
		{corev1.ContainersReady, ready},
		{corev1.PodReady, ready},
	} {
		condition := corev1.PodCondition{Type: c.kind, Status: c.status, LastTransitionTime: now}
		if c.status != corev1.ConditionTrue {
			condition.Reason, condition.Message = reason, message
		}
		all = append(all, condition)
	}
	return all
}

// patch replaces the pod's status. It never reaches another pod of the same name: the UID is part of the patch, and a
// different one is a conflict.
func (w *worker) patch(ctx context.Context, status corev1.PodStatus) error {
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": w.pod.UID}, "status": status})
	if err != nil {
		return fmt.Errorf("write status of pod %s/%s: %w", w.pod.Namespace, w.pod.Name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err = w.agent.cfg.Client.CoreV1().Pods(w.pod.Namespace).
		Patch(ctx, w.pod.Name, types.MergePatchType, body, metav1.PatchOptions{}, "status")
	if err != nil {
		return fmt.Errorf("write status of pod %s/%s: %w", w.pod.Namespace, w.pod.Name, err)
	}
	return nil
}
