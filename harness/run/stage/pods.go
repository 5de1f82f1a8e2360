package stage

import (
	"context"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
)

// podObject is a probe pod. On the local cluster the node agent serves the declared ports; elsewhere the agent in the
// image does.
func (s *Stage) podObject(p model.Pod, index int) *corev1.Pod {
	no, zero := false, int64(0)
	obj := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.names.real(p.Namespace), Name: p.Name, Labels: s.ownLabels(p.Labels),
			Annotations: map[string]string{cluster.EndpointAnnotation: string(p.Endpoint())},
		},
		Spec: corev1.PodSpec{
			NodeName:                      s.cluster.Nodes()[s.nodeOf(p, index)].Name,
			HostNetwork:                   p.HostNetwork,
			AutomountServiceAccountToken:  &no,
			EnableServiceLinks:            &no,
			TerminationGracePeriodSeconds: &zero,
			Containers:                    []corev1.Container{{Name: "probe", Image: "netproof.dev/agent"}},
		},
	}
	for _, port := range p.Ports {
		cp := corev1.ContainerPort{Name: port.Name, ContainerPort: int32(port.Number), Protocol: corev1.Protocol(port.Protocol)}
		if p.HostNetwork {
			cp.HostPort = cp.ContainerPort
		}
		obj.Spec.Containers[0].Ports = append(obj.Spec.Containers[0].Ports, cp)
	}
	s.cluster.PreparePod(obj)
	return obj
}

// podsPerNode is how many pods a node is given to start at once. A node of one processor takes about a second for each,
// and one that is given a hundred fails to start some in time.
const podsPerNode = 8

// StartingPods is how many pods may start at once on a cluster, whoever makes them.
func StartingPods(c cluster.Cluster) int { return max(APIConcurrency, podsPerNode*len(c.Nodes())) }

// CreatePods makes pods and returns when they are ready and their agents reachable.
func (s *Stage) CreatePods(ctx context.Context, list []model.Pod) error {
	nodes := map[string]int{}
	for _, n := range s.cluster.Nodes() {
		nodes[n.Name] = n.Index
	}
	agents, running := make([]probes.Agent, len(list)), make([]*corev1.Pod, len(list))
	var calls []func() error
	for i, p := range list {
		e := p.Endpoint()
		calls = append(calls, func() error {
			if s.lane.Starting != nil {
				if err := s.lane.Starting.Acquire(ctx, 1); err != nil {
					return fmt.Errorf("wait for the pods of other lanes: %w", context.Cause(ctx))
				}
				defer s.lane.Starting.Release(1)
			}
			ns := s.names.real(p.Namespace)
			if err := inNamespace(ctx, s.client, ns, func() error {
				_, err := s.client.CoreV1().Pods(ns).Create(ctx, s.podObject(p, i), metav1.CreateOptions{})
				return err
			}); err != nil {
				return fmt.Errorf("create pod %s: %w", e, err)
			}
			ready, err := s.watch.ready(ctx, []model.Endpoint{e}, s.families)
			if err != nil {
				return err
			}
			running[i] = ready[e]
			if agents[i], err = s.cluster.PodAgent(ctx, ready[e]); err != nil {
				return fmt.Errorf("reach pod %s: %w", e, err)
			}
			return nil
		})
	}
	if err := sideBySide(StartingPods(s.cluster), calls...); err != nil {
		return err
	}
	for i, p := range list {
		e, pod := p.Endpoint(), running[i]
		p.Addresses = podAddresses(pod)
		p.Node = nodes[pod.Spec.NodeName]
		s.running[e], s.agents[e] = pod, agents[i]
		s.declared.Pods = append(s.declared.Pods, p)
	}
	return nil
}

// RemovePods deletes pods and returns when they are gone.
func (s *Stage) RemovePods(ctx context.Context, list []model.Endpoint) error {
	var calls []func() error
	for _, e := range list {
		calls = append(calls, func() error {
			ns, name := s.names.split(e)
			pod := s.watch.get(e)
			if pod == nil {
				pod = s.running[e] // the watch is late, or somebody has deleted it
			}
			if pod == nil {
				return nil
			}
			options := deletion(pod.UID)
			zero := int64(0)
			options.GracePeriodSeconds = &zero
			err := s.client.CoreV1().Pods(ns).Delete(ctx, name, options)
			if err != nil && !isGone(err) {
				return fmt.Errorf("delete pod %s: %w", e, err)
			}
			return nil
		})
	}
	if err := sideBySide(APIConcurrency, calls...); err != nil {
		return err
	}
	for _, e := range list {
		delete(s.running, e)
		delete(s.agents, e)
	}
	s.declared.Pods = slices.DeleteFunc(s.declared.Pods, func(p model.Pod) bool { return slices.Contains(list, p.Endpoint()) })
	return s.watch.gone(ctx, list)
}

// LabelPod replaces a pod's labels.
func (s *Stage) LabelPod(ctx context.Context, e model.Endpoint, to model.Labels) error {
	p, ok := s.declared.Pod(e)
	if !ok {
		return fmt.Errorf("label pod %s: it does not exist", e)
	}
	_, err := s.client.CoreV1().Pods(s.names.real(p.Namespace)).Patch(ctx, p.Name, types.MergePatchType, labelPatch(p.Labels, to, nil), metav1.PatchOptions{})
	if err != nil {
		return fmt.Errorf("label pod %s: %w", e, err)
	}
	p.Labels = maps.Clone(to)
	return nil
}
