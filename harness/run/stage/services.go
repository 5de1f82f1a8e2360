package stage

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/netproof/netproof/harness/model"
)

func (s *Stage) createServices(ctx context.Context, list []model.Service) error {
	var calls []func() error
	for _, svc := range list {
		calls = append(calls, func() error {
			var got *corev1.Service
			ns := s.names.real(svc.Namespace)
			if err := inNamespace(ctx, s.client, ns, func() (err error) {
				got, err = s.client.CoreV1().Services(ns).Create(ctx, s.serviceObject(svc), metav1.CreateOptions{})
				return err
			}); err != nil {
				return fmt.Errorf("create service %s: %w", svc.Endpoint(), err)
			}
			svc.Addresses = clusterIPs(got)
			s.cluster.Admit(svc.Addresses...)
			svc.Ports = slices.Clone(svc.Ports)
			for i, p := range got.Spec.Ports {
				svc.Ports[i].NodePort = int(p.NodePort)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			s.services[svc.Endpoint()] = got
			s.declared.Services = append(s.declared.Services, svc)
			return nil
		})
	}
	return sideBySide(APIConcurrency, calls...)
}

// clusterIPs are the addresses of a service.
func clusterIPs(svc *corev1.Service) (out []netip.Addr) {
	for _, ip := range svc.Spec.ClusterIPs {
		if a, err := netip.ParseAddr(ip); err == nil {
			out = append(out, a)
		}
	}
	return out
}

// AwaitBackends returns when the endpoints of every service are the pods that it selects. Until then a connection
// through it fails without any policy.
func (s *Stage) AwaitBackends(ctx context.Context, limit time.Duration) error {
	if len(s.declared.Services) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for first := true; ; first = false {
		late, err := s.lateService(ctx)
		if err != nil || late == "" {
			return err
		}
		if first { // it is worth no wait where others are behind it
			if why, err := s.Joined(ctx); err != nil {
				return err
			} else if why != "" {
				return errors.New(why)
			}
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return fmt.Errorf("the endpoints of service %s are still not its pods: %w", late, context.Cause(ctx))
		}
	}
}

// lateService finds a service whose endpoints are not the pods that it selects.
func (s *Stage) lateService(ctx context.Context) (model.Endpoint, error) {
	have := map[model.Endpoint][]netip.Addr{}
	listed := map[string]bool{}
	for _, svc := range s.declared.Services {
		if listed[svc.Namespace] {
			continue
		}
		listed[svc.Namespace] = true
		found, err := s.client.DiscoveryV1().EndpointSlices(s.names.real(svc.Namespace)).List(ctx, metav1.ListOptions{})
		if err != nil {
			return "", fmt.Errorf("list the endpoints of services: %w", err)
		}
		for _, slice := range found.Items {
			e := s.names.endpoint(slice.Namespace, slice.Labels[discoveryv1.LabelServiceName])
			for _, end := range slice.Endpoints {
				for _, text := range end.Addresses {
					if a, err := netip.ParseAddr(text); err == nil {
						have[e] = append(have[e], a)
					}
				}
			}
		}
	}
	for _, svc := range s.declared.Services {
		var want []netip.Addr
		for _, p := range s.declared.Pods {
			if svc.Selects(&p) {
				want = append(want, p.Addresses...)
			}
		}
		if len(svc.Selector) > 0 && !sameAddresses(have[svc.Endpoint()], want) {
			return svc.Endpoint(), nil
		}
	}
	return "", nil
}

// sameAddresses tells whether two lists hold the same addresses, in any order and number.
func sameAddresses(a, b []netip.Addr) bool {
	sorted := func(list []netip.Addr) []netip.Addr {
		list = slices.Clone(list)
		slices.SortFunc(list, netip.Addr.Compare)
		return slices.Compact(list)
	}
	return slices.Equal(sorted(a), sorted(b))
}

func (s *Stage) serviceObject(svc model.Service) *corev1.Service {
	obj := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.names.real(svc.Namespace), Name: svc.Name, Labels: s.ownLabels(nil)},
		Spec:       corev1.ServiceSpec{Selector: svc.Selector, Type: corev1.ServiceType(svc.Type)},
	}
	policy := corev1.IPFamilyPolicySingleStack
	if len(s.families) > 1 {
		policy = corev1.IPFamilyPolicyRequireDualStack
	}
	obj.Spec.IPFamilyPolicy = &policy
	for _, f := range s.families { // of a cluster of both families a run may want one
		obj.Spec.IPFamilies = append(obj.Spec.IPFamilies, corev1.IPFamily(f))
	}
	for _, p := range svc.Ports {
		port := corev1.ServicePort{Name: p.Port.Name, Port: int32(p.Port.Number), Protocol: corev1.Protocol(p.Port.Protocol)}
		if port.Name == "" {
			port.Name = strings.ToLower(fmt.Sprintf("%s-%d", p.Port.Protocol, p.Port.Number))
		}
		if p.Target != "" {
			port.TargetPort = intstr.Parse(p.Target)
		}
		obj.Spec.Ports = append(obj.Spec.Ports, port)
	}
	return obj
}

func (s *Stage) servicesTampered(ctx context.Context) (string, error) {
	if len(s.services) == 0 {
		return "", nil
	}
	listed, err := gather(scopes(s.lent), func(ns string) ([]corev1.Service, error) {
		list, err := s.client.CoreV1().Services(ns).List(ctx, metav1.ListOptions{LabelSelector: s.mine})
		if err != nil {
			return nil, err
		}
		return list.Items, nil
	})
	if err != nil {
		return "", fmt.Errorf("list services: %w", err)
	}
	have := map[types.UID]*corev1.Service{}
	for i := range listed {
		have[listed[i].UID] = &listed[i]
	}
	for _, e := range slices.Sorted(maps.Keys(s.services)) {
		want := s.services[e]
		switch got := have[want.UID]; {
		case got == nil:
			return fmt.Sprintf("service %s was deleted during the run", e), nil
		case !equality.Semantic.DeepEqual(got.Spec, want.Spec):
			return fmt.Sprintf("service %s was changed behind the run's back", e), nil
		}
	}
	return "", nil
}

func (s *Stage) deleteService(ctx context.Context, svc model.Service) error {
	err := s.client.CoreV1().Services(s.names.real(svc.Namespace)).Delete(ctx, svc.Name, deletion(s.services[svc.Endpoint()].UID))
	if err != nil && !isGone(err) {
		return fmt.Errorf("delete service %s: %w", svc.Endpoint(), err)
	}
	return nil
}
