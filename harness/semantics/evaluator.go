package semantics

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/netproof/netproof/harness/model"
)

// metadataName is the label that the control plane sets on every namespace and lets nobody change: concept page,
// "Targeting a Namespace by its name".
const metadataName = "kubernetes.io/metadata.name"

// none stands for no pod and for no node where an index is wanted.
const none = -1

// Evaluator decides connections of one topology under one set of policies. It is immutable, and safe for concurrent
// use.
type Evaluator struct {
	pods       []model.Pod
	podIndex   map[model.Endpoint]int
	namespaces map[string]model.Labels
	services   map[model.Endpoint]*model.Service
	hosts      map[model.Endpoint]*model.Host
	nodes      map[int]*model.Node
	// nodeIndexes are the indexes of all nodes that the topology mentions, in order.
	nodeIndexes []int

	// policies are ordered by namespace and name, so that no answer depends on the order they came in.
	policies []*compiled
	// isolating are, by direction and pod, the policies that isolate it; isolatingPolicies are the same for callers.
	isolating         [2][][]*compiled
	isolatingPolicies [2][][]Policy
}

// New prepares the decisions for a topology under a set of policies. Neither may change while the evaluator is in use:
// a step that relabels a pod or learns addresses makes a new one.
//
// The error joins one [PolicyError] for each policy that cannot be evaluated, which are those that the API server would
// refuse. Two policies of the same namespace and name are an error: in a cluster they would be one object.
func New(topology *model.Topology, policies []Policy) (*Evaluator, error) {
	if topology == nil {
		return nil, errors.New("evaluate policies: no topology")
	}
	e := &Evaluator{
		pods:       topology.Pods,
		podIndex:   make(map[model.Endpoint]int, len(topology.Pods)),
		namespaces: make(map[string]model.Labels, len(topology.Namespaces)),
		services:   make(map[model.Endpoint]*model.Service, len(topology.Services)),
		hosts:      make(map[model.Endpoint]*model.Host, len(topology.Hosts)),
		nodes:      make(map[int]*model.Node, len(topology.Nodes)),
	}
	for i := range topology.Namespaces {
		ns := &topology.Namespaces[i]
		e.namespaces[ns.Name] = namespaceLabels(ns.Name, ns.Labels)
	}
	nodes := map[int]bool{}
	for i := range topology.Pods {
		pod := &topology.Pods[i]
		if _, ok := e.podIndex[pod.Endpoint()]; ok {
			return nil, fmt.Errorf("evaluate policies: two pods are named %s", pod.Endpoint())
		}
		e.podIndex[pod.Endpoint()] = i
		nodes[pod.Node] = true
		if _, ok := e.namespaces[pod.Namespace]; !ok {
			e.namespaces[pod.Namespace] = namespaceLabels(pod.Namespace, nil)
		}
	}
	for i := range topology.Services {
		e.services[topology.Services[i].Endpoint()] = &topology.Services[i]
	}
	for i := range topology.Hosts {
		e.hosts[topology.Hosts[i].Endpoint()] = &topology.Hosts[i]
	}
	for i := range topology.Nodes {
		e.nodes[topology.Nodes[i].Index] = &topology.Nodes[i]
		nodes[topology.Nodes[i].Index] = true
	}
	e.nodeIndexes = slices.Sorted(maps.Keys(nodes))
	if err := e.compile(policies); err != nil {
		return nil, err
	}
	return e, nil
}

func namespaceLabels(name string, in model.Labels) model.Labels {
	out := make(model.Labels, len(in)+1)
	maps.Copy(out, in)
	out[metadataName] = name
	return out
}

func (e *Evaluator) compile(policies []Policy) error {
	c := &compiler{evaluator: e, sets: map[setKey]podSet{}}
	var errs []error
	seen := make(map[string]Policy, len(policies))
	for _, p := range policies {
		out, err := c.compile(p)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if first, ok := seen[p.key()]; ok {
			err := fmt.Errorf("%s has the same namespace and name", first)
			errs = append(errs, &PolicyError{Policy: p, Field: "metadata.name", Err: err})
			continue
		}
		seen[p.key()] = p
		e.policies = append(e.policies, out)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	slices.SortFunc(e.policies, func(a, b *compiled) int { return comparePolicies(a.Policy, b.Policy) })
	for _, d := range []direction{ingress, egress} {
		e.isolating[d] = make([][]*compiled, len(e.pods))
		e.isolatingPolicies[d] = make([][]Policy, len(e.pods))
		for _, p := range e.policies {
			if !p.applies[d] {
				continue
			}
			for pod := range p.selects.all() {
				e.isolating[d][pod] = append(e.isolating[d][pod], p)
				e.isolatingPolicies[d][pod] = append(e.isolatingPolicies[d][pod], p.Policy)
			}
		}
	}
	return nil
}

// comparePolicies orders by namespace and name.
func comparePolicies(a, b Policy) int {
	return cmp.Or(cmp.Compare(a.Object.Namespace, b.Object.Namespace), cmp.Compare(a.Object.Name, b.Object.Name))
}

// subjectPolicies are the policies that isolate a pod in a direction.
func (e *Evaluator) subjectPolicies(d direction, pod int) []*compiled {
	if pod == none {
		return nil
	}
	return e.isolating[d][pod]
}

// nodeAddresses returns the addresses of a node in a family; known is false as long as the node has no address at all.
func (e *Evaluator) nodeAddresses(index int, family model.IPFamily) (addrs []netip.Addr, known bool) {
	node, ok := e.nodes[index]
	if !ok || len(node.Addresses) == 0 {
		return nil, false
	}
	for _, a := range node.Addresses {
		if model.FamilyOf(a) == family {
			addrs = append(addrs, a.Unmap())
		}
	}
	return addrs, true
}
