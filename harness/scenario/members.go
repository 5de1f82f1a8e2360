package scenario

import (
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// members tells whom the selectors of policies mean among the workloads of a folder.
type members struct {
	pods       []Pod
	namespaces []Namespace
	// podsOf are the pods of each namespace, and labelsOf the labels.
	podsOf   map[string][]*Pod
	labelsOf map[string]labels.Set
	// selectors are those that were needed so far.
	selectors map[*metav1.LabelSelector]labels.Selector
}

// members are those of the topology as it is now.
func (f *plainFolder) members() *members {
	t := &f.s.Spec.Topology
	m := &members{
		pods: t.Pods, namespaces: t.Namespaces, podsOf: map[string][]*Pod{}, labelsOf: map[string]labels.Set{},
		selectors: map[*metav1.LabelSelector]labels.Selector{},
	}
	for i := range t.Namespaces {
		m.labelsOf[t.Namespaces[i].Name] = labels.Set(t.Namespaces[i].model().Labels)
	}
	for i := range t.Pods {
		namespace, _, _ := t.Pods[i].endpoint().Split()
		m.podsOf[namespace] = append(m.podsOf[namespace], &t.Pods[i])
	}
	return m
}

// selector is the form of a selector that matches. One that is wrong was reported, and matches nothing.
func (m *members) selector(s *metav1.LabelSelector) labels.Selector {
	if have, ok := m.selectors[s]; ok {
		return have
	}
	out, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		out = labels.Nothing()
	}
	m.selectors[s] = out
	return out
}

func (m *members) podMatches(s *metav1.LabelSelector, pod *Pod) bool {
	return m.selector(s).Matches(labels.Set(pod.Labels))
}

func (m *members) namespaceMatches(s *metav1.LabelSelector, name string) bool {
	return m.selector(s).Matches(m.labelsOf[name])
}

// subject is what a policy is for, in the form of a peer.
func subject(o *object) *networkingv1.NetworkPolicyPeer {
	return &networkingv1.NetworkPolicyPeer{PodSelector: &o.policy.Spec.PodSelector}
}

// selected are the pods that a policy is for.
func (m *members) selected(o *object) []*Pod { return m.peer(o, subject(o)) }

// peer are the pods that a peer of a policy means; none for an address block.
func (m *members) peer(o *object, p *networkingv1.NetworkPolicyPeer) (out []*Pod) {
	if p.IPBlock != nil {
		return nil
	}
	for i := range m.namespaces {
		name := m.namespaces[i].Name
		if p.NamespaceSelector == nil && name != o.namespace || p.NamespaceSelector != nil && !m.namespaceMatches(p.NamespaceSelector, name) {
			continue
		}
		for _, pod := range m.podsOf[name] {
			if p.PodSelector == nil || m.podMatches(p.PodSelector, pod) {
				out = append(out, pod)
			}
		}
	}
	return out
}

// peers are the pods that any peer of a rule means.
func (m *members) peers(o *object, r rule) (out []*Pod) {
	for i := range r.peers {
		out = append(out, m.peer(o, &r.peers[i])...)
	}
	return out
}
