package stage

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/netproof/netproof/harness/model"
)

// Become turns the topology on the stage into another one. Making a pod takes longer than anything else of a scenario,
// so pods that both have stay and get the labels that they should have. Namespaces that only the old one has stay too,
// empty: nothing in them can be selected, and a real cluster takes seconds to delete one.
func (s *Stage) Become(ctx context.Context, t model.Topology) error {
	errs := []error{s.unapplyAll(ctx), s.awaitEnds(ctx), s.removeServices(ctx), s.removeHosts(ctx)}
	errs = append(errs, s.RemovePods(ctx, s.unwanted(t)))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := s.retireNamespaces(ctx, t); err != nil {
		return err
	}
	return s.setUp(ctx, t)
}

// unwanted are the pods that the topology does not have, or has in another form.
func (s *Stage) unwanted(t model.Topology) []model.Endpoint {
	known := s.watch.known()
	var out []model.Endpoint
	for _, e := range s.pods() {
		if ns, _, _ := e.Split(); ns == CanaryNamespace {
			continue
		}
		have, declared := s.declared.Pod(e)
		declared = declared && slices.Contains(known, e)
		i := slices.IndexFunc(t.Pods, func(p model.Pod) bool { return p.Endpoint() == e })
		if !declared || i < 0 || s.running[e] == nil || !sameForm(*have, t.Pods[i], s.nodeOf(t.Pods[i], i)) {
			out = append(out, e)
		}
	}
	return out
}

// pods are all that there are or should be: those of the run that the API server knows, and those that somebody may
// have deleted.
func (s *Stage) pods() []model.Endpoint {
	out := s.watch.known()
	for _, p := range s.declared.Pods {
		if !slices.Contains(out, p.Endpoint()) {
			out = append(out, p.Endpoint())
		}
	}
	return out
}

// sameForm tells whether a running pod can be another one by a change of its labels.
func sameForm(have, want model.Pod, node int) bool {
	return have.HostNetwork == want.HostNetwork && have.Node == node && slices.Equal(have.Ports, want.Ports)
}

// nodeOf is the index of the node that a pod is put on; those that do not say take turns.
func (s *Stage) nodeOf(p model.Pod, index int) int {
	node := p.Node
	if node < 0 {
		node = index
	}
	return node % len(s.cluster.Nodes())
}

// retireNamespaces takes namespaces out of the topology that the next one does not have. Those that were there before
// the run get their labels back.
func (s *Stage) retireNamespaces(ctx context.Context, t model.Topology) error {
	if err := s.giveBack(ctx); err != nil {
		return err
	}
	s.declared.Namespaces = slices.DeleteFunc(s.declared.Namespaces, func(n model.Namespace) bool {
		if n.Name == CanaryNamespace {
			return false
		}
		wanted := slices.ContainsFunc(t.Namespaces, func(w model.Namespace) bool { return w.Name == n.Name })
		if s.made[n.Name] != "" && !wanted {
			s.idle[n.Name] = n.Labels
		}
		return s.made[n.Name] == "" || !wanted
	})
	return nil
}

// wakeNamespace gives a namespace that the run made earlier the labels of a topology.
func (s *Stage) wakeNamespace(ctx context.Context, ns model.Namespace, level model.Labels) error {
	s.mu.Lock()
	labels, idle := s.idle[ns.Name]
	if idle {
		delete(s.idle, ns.Name)
		s.declared.Namespaces = append(s.declared.Namespaces, model.Namespace{Name: ns.Name, Labels: labels})
	}
	s.mu.Unlock()
	if err := s.LabelNamespace(ctx, ns.Name, ns.Labels); err != nil || len(level) == 0 {
		return err
	}
	return s.patchNamespace(ctx, ns.Name, labelPatch(nil, level, nil))
}

// removeServices deletes the services of the topology.
func (s *Stage) removeServices(ctx context.Context) error {
	var calls []func() error
	for _, svc := range s.declared.Services {
		calls = append(calls, func() error { return s.deleteService(ctx, svc) })
	}
	if err := sideBySide(APIConcurrency, calls...); err != nil {
		return err
	}
	clear(s.services)
	s.declared.Services = nil
	return nil
}

func (s *Stage) removeHosts(ctx context.Context) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(s.hosts)) {
		errs = append(errs, s.cluster.RemoveHost(ctx, name))
		delete(s.agents, model.HostEndpoint(name))
		delete(s.hosts, name)
	}
	for _, h := range s.declared.Hosts {
		delete(s.unsupported, h.Endpoint())
	}
	s.declared.Hosts = nil
	return errors.Join(errs...)
}
