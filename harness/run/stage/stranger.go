package stage

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/model"
)

// strangers are pods and services of others in a namespace that a run puts its own into.
type strangers struct {
	pods     []corev1.Pod
	services []corev1.Service
	slices   []discoveryv1.EndpointSlice
}

// lookForStrangers reads what others have in a namespace. One that does not exist has nobody.
func (s *Stage) lookForStrangers(ctx context.Context, namespace string) (strangers, error) {
	real := s.names.real(namespace)
	var out strangers
	pods, err := s.client.CoreV1().Pods(real).List(ctx, metav1.ListOptions{})
	if err != nil {
		return out, fmt.Errorf("list the pods of namespace %s: %w", real, err)
	}
	services, err := s.client.CoreV1().Services(real).List(ctx, metav1.ListOptions{})
	if err != nil {
		return out, fmt.Errorf("list the services of namespace %s: %w", real, err)
	}
	endpoints, err := s.client.DiscoveryV1().EndpointSlices(real).List(ctx, metav1.ListOptions{})
	if err != nil {
		return out, fmt.Errorf("list the endpoints of namespace %s: %w", real, err)
	}
	out.pods = slices.DeleteFunc(pods.Items, func(p corev1.Pod) bool {
		// What has ended gets no packets, and nothing can be done to it.
		return s.isOurs(p.Labels) || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
	})
	out.services = slices.DeleteFunc(services.Items, func(svc corev1.Service) bool { return s.isOurs(svc.Labels) })
	out.slices = endpoints.Items // a controller makes those of the run's own services
	return out, nil
}

func (s *Stage) isOurs(labels map[string]string) bool {
	return labels[cluster.RunLabel] == s.lane.RunID
}

// joins says in words how a topology in a namespace and what others have there would come to be connected: a service of
// the run with their pods behind it, or a pod of the run behind a service of theirs. about is what of the run is
// concerned.
func (s *Stage) joins(t *model.Topology, namespace string, others strangers) (about model.Endpoint, text string) {
	real := s.names.real(namespace)
	for _, svc := range t.Services {
		for _, p := range others.pods {
			if svc.Namespace == namespace && svc.Selector.Pick(p.Labels) {
				return svc.Endpoint(), fmt.Sprintf("service %s selects pod %s/%s, which is not of this run", svc.Endpoint(), real, p.Name)
			}
		}
	}
	for _, p := range t.Pods {
		for _, svc := range others.services {
			if p.Namespace == namespace && model.Labels(svc.Spec.Selector).Pick(s.ownLabels(p.Labels)) {
				return p.Endpoint(), fmt.Sprintf("pod %s would be behind service %s/%s, which is not of this run", p.Endpoint(), real, svc.Name)
			}
		}
	}
	return "", ""
}

// Joined says how the run is connected with what others have in its namespaces, or "". Only on a cluster that others
// use can they be.
func (s *Stage) Joined(ctx context.Context) (string, error) {
	if !s.shared {
		return "", nil
	}
	found, err := s.strangersOf(ctx, s.declared.Namespaces)
	if err != nil {
		return "", err
	}
	for _, ns := range s.declared.Namespaces {
		others := found[ns.Name]
		if _, text := s.joins(&s.declared, ns.Name, others); text != "" {
			return text, nil
		}
		for _, slice := range others.slices {
			if text := s.leadsAstray(slice, others.pods); text != "" {
				return text, nil
			}
		}
		if why := s.occupied(others); why != "" {
			return why, nil
		}
	}
	return "", nil
}

// strangersOf looks for strangers in each of the namespaces.
func (s *Stage) strangersOf(ctx context.Context, namespaces []model.Namespace) (map[string]strangers, error) {
	list := make([]strangers, len(namespaces))
	var calls []func() error
	for i, ns := range namespaces {
		calls = append(calls, func() (err error) {
			list[i], err = s.lookForStrangers(ctx, ns.Name)
			return err
		})
	}
	if err := sideBySide(APIConcurrency, calls...); err != nil {
		return nil, err
	}
	out := map[string]strangers{}
	for i, ns := range namespaces {
		out[ns.Name] = list[i]
	}
	return out, nil
}

// occupied says who is in a namespace that should hold nobody but the run: policies would act on them.
func (s *Stage) occupied(others strangers) string {
	if len(s.lent) == 0 || len(others.pods) == 0 {
		return ""
	}
	return fmt.Sprintf("pod %s/%s, which is not of this run, is in a namespace that was lent to it: policies would act on that pod",
		others.pods[0].Namespace, others.pods[0].Name)
}

// leadsAstray says that an EndpointSlice leads from a service of others to a pod of the run, or the other way round.
func (s *Stage) leadsAstray(slice discoveryv1.EndpointSlice, others []corev1.Pod) string {
	svc := s.names.endpoint(slice.Namespace, slice.Labels[discoveryv1.LabelServiceName])
	_, ours := s.services[svc]
	ours = ours || s.isOurs(slice.Labels) // a controller copies the labels of the service, and is late to remove what belonged to one
	for _, end := range slice.Endpoints {
		if ours && end.TargetRef != nil {
			i := slices.IndexFunc(others, func(p corev1.Pod) bool { return p.UID == end.TargetRef.UID })
			if i >= 0 {
				return fmt.Sprintf("service %s leads to pod %s/%s, which is not of this run", svc, others[i].Namespace, others[i].Name)
			}
		}
		if e, known := s.podBehind(end); known && !ours {
			return fmt.Sprintf("EndpointSlice %s/%s of service %s, which is not of this run, leads to pod %s", slice.Namespace, slice.Name, svc, e)
		}
	}
	return ""
}

// podBehind finds the pod of the run that an endpoint leads to.
func (s *Stage) podBehind(end discoveryv1.Endpoint) (model.Endpoint, bool) {
	for _, p := range s.declared.Pods {
		if p.HostNetwork {
			continue // its address is the node's
		}
		if end.TargetRef != nil && end.TargetRef.UID != "" { // an address may have been another pod's before
			if pod := s.running[p.Endpoint()]; pod != nil && end.TargetRef.UID == pod.UID {
				return p.Endpoint(), true
			}
			continue
		}
		for _, text := range end.Addresses {
			if a, err := netip.ParseAddr(text); err == nil && slices.Contains(p.Addresses, a) {
				return p.Endpoint(), true
			}
		}
	}
	return "", false
}

// Entering says why topologies must not come into being on a cluster that others use, or "". about is what of the run
// is concerned.
func (s *Stage) Entering(ctx context.Context, topologies ...*model.Topology) (about model.Endpoint, text string, err error) {
	if !s.shared {
		return "", "", nil
	}
	if len(s.lent) > 0 {
		ns, _ := canarySpec(1, true)
		topologies = append(topologies, &model.Topology{Namespaces: []model.Namespace{ns}})
	}
	var namespaces []model.Namespace
	for _, t := range topologies {
		for _, ns := range t.Namespaces {
			known := slices.ContainsFunc(namespaces, func(n model.Namespace) bool { return n.Name == ns.Name })
			// In one that the run is about to make is nobody yet.
			_, there := s.declared.Namespace(ns.Name)
			if !known && (there || isBuiltIn(ns.Name) || len(s.lent) > 0) {
				namespaces = append(namespaces, ns)
			}
		}
	}
	for _, t := range topologies {
		if text, err := s.notLentTo(ctx, t); err != nil || text != "" {
			return "", text, err
		}
	}
	found, err := s.strangersOf(ctx, namespaces)
	if err != nil {
		return "", "", err
	}
	for _, ns := range namespaces {
		for _, t := range topologies {
			if about, text := s.joins(t, ns.Name, found[ns.Name]); text != "" {
				return about, text, nil
			}
		}
		if why := s.occupied(found[ns.Name]); why != "" {
			return "", why, nil
		}
	}
	return "", "", nil
}

// notLentTo says why a topology cannot be in the namespaces that the run was lent, or "".
func (s *Stage) notLentTo(ctx context.Context, t *model.Topology) (string, error) {
	if len(s.lent) == 0 {
		return "", nil
	}
	have, err := s.namespaces(ctx)
	if err != nil {
		return "", err
	}
	for _, ns := range t.Namespaces {
		name := s.names.real(ns.Name)
		i := slices.IndexFunc(have, func(h corev1.Namespace) bool { return h.Name == name })
		if i < 0 {
			return fmt.Sprintf("namespace %s is not there, or not among those of --namespaces, and a run with that flag makes none", name), nil
		}
		if why := s.notLent(&have[i], ns); why != "" {
			return why, nil
		}
	}
	return "", nil
}
