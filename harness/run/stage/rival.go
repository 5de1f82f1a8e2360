package stage

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	corev1 "k8s.io/api/core/v1"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/policy"
)

// rivalKind is a kind of policies of a network plugin, or of the Network Policy API, that a cluster serves.
type rivalKind struct {
	resource   schema.GroupVersionResource
	kind       string
	namespaced bool
	// unseen is set where objects of the kind may not be listed.
	unseen atomic.Bool
}

// rivalKinds are asked for once.
type rivalKinds struct {
	once  sync.Once
	kinds []*rivalKind
	err   error
}

// isRivalKind tells whether objects of a kind act on pods as NetworkPolicies do. Kinds that this program does not know
// are taken for such by their name. What is staged is not enforced.
func isRivalKind(group, kind string) bool {
	return group != policy.KubernetesGroup && strings.HasSuffix(kind, "NetworkPolicy") && !strings.HasPrefix(kind, "Staged")
}

func (s *Stage) rivalKinds() ([]*rivalKind, error) {
	s.rival.once.Do(func() {
		lists, err := s.client.Discovery().ServerPreferredResources()
		if err != nil && len(lists) == 0 {
			s.rival.err = fmt.Errorf("ask for the kinds of policies: %w", err)
			return
		}
		// A group whose server does not answer has nothing that could be read.
		for _, list := range lists {
			gv, err := schema.ParseGroupVersion(list.GroupVersion)
			if err != nil {
				continue
			}
			for _, r := range list.APIResources {
				if isRivalKind(gv.Group, r.Kind) && !strings.Contains(r.Name, "/") && slices.Contains(r.Verbs, "list") {
					s.rival.kinds = append(s.rival.kinds, &rivalKind{resource: gv.WithResource(r.Name), kind: r.Kind, namespaced: r.Namespaced})
				}
			}
		}
	})
	return s.rival.kinds, s.rival.err
}

// Rivals names a policy of another kind than NetworkPolicy that is not of this run and selects a pod of it, or "". What
// may not be listed is not looked at. On a cluster that nobody else uses there is none.
func (s *Stage) Rivals(ctx context.Context) (string, error) {
	if !s.shared {
		return "", nil
	}
	kinds, err := s.rivalKinds()
	if err != nil {
		return "", err
	}
	found := make([]string, len(kinds))
	var calls []func() error
	for i, kind := range kinds {
		calls = append(calls, func() (err error) {
			found[i], err = s.rivalOf(ctx, kind)
			return err
		})
	}
	err = sideBySide(APIConcurrency, calls...)
	for _, text := range found {
		if text != "" {
			return text, nil
		}
	}
	return "", err
}

// Unseen are the kinds of policies that may not be listed, once it was tried.
func (s *Stage) Unseen() (out []string) {
	for _, kind := range s.rival.kinds {
		if kind.unseen.Load() {
			out = append(out, kind.resource.GroupResource().String())
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// rivalOf names one of a kind.
func (s *Stage) rivalOf(ctx context.Context, kind *rivalKind) (string, error) {
	where := []string{metav1.NamespaceAll}
	if kind.namespaced {
		where = scopes(s.lent)
	}
	list, err := gather(where, func(ns string) ([]unstructured.Unstructured, error) {
		list, err := s.dynamic.Resource(kind.resource).Namespace(ns).List(ctx, metav1.ListOptions{})
		if apierrors.IsForbidden(err) || apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err) {
			kind.unseen.Store(kind.unseen.Load() || apierrors.IsForbidden(err))
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		return list.Items, nil
	})
	if err != nil {
		return "", fmt.Errorf("list %s: %w", kind.resource.GroupResource(), err)
	}
	for i := range list {
		o := &list[i]
		if s.isOurs(o.GetLabels()) || isMirrored(o) {
			continue
		}
		subject, sure := subjectOf(kind, o)
		if pod := s.selectedBy(subject); pod != "" {
			verb := "selects"
			if !sure {
				verb = "may select"
			}
			ref := policy.Ref{Kind: kind.resource.GroupVersion().WithKind(kind.kind), Namespace: o.GetNamespace(), Name: o.GetName()}
			return fmt.Sprintf("%s, which is not of this run, %s pod %s", ref, verb, pod), nil
		}
	}
	return "", nil
}

// isMirrored tells whether an object is how Calico's API server shows a policy of Kubernetes, which is looked at
// itself.
func isMirrored(o *unstructured.Unstructured) bool {
	group := o.GroupVersionKind().Group
	return (group == policy.CalicoGroup || group == policy.CalicoAPIGroup) && slices.ContainsFunc([]string{"knp.", "kanp.", "kbanp.", "kcnp."},
		func(prefix string) bool { return strings.HasPrefix(o.GetName(), prefix) })
}

// candidate is a pod of the run, as the selectors of policies see it.
type candidate struct {
	namespace       string
	namespaceLabels labels.Set
	labels          labels.Set
}

// subject tells whether a policy acts on a pod.
type subject func(candidate) bool

func everyPod(candidate) bool { return true }

// in restricts a subject to a namespace, "" for none.
func (s subject) in(namespace string) subject {
	if namespace == "" {
		return s
	}
	return func(c candidate) bool { return c.namespace == namespace && s(c) }
}

// selectedBy is the first pod of the run, canaries included, that a policy acts on, or "".
func (s *Stage) selectedBy(is subject) model.Endpoint {
	for _, p := range s.declared.Pods {
		ns, ok := s.declared.Namespace(p.Namespace)
		if !ok || p.HostNetwork {
			continue
		}
		c := candidate{namespace: s.names.real(p.Namespace), labels: s.ownLabels(p.Labels), namespaceLabels: labels.Set(maps.Clone(ns.Labels))}
		if c.namespaceLabels == nil {
			c.namespaceLabels = labels.Set{}
		}
		c.namespaceLabels[corev1.LabelMetadataName] = c.namespace
		if is(c) {
			return p.Endpoint()
		}
	}
	return ""
}

func networkPolicySubject(p *networkingv1.NetworkPolicy) subject {
	selector, err := metav1.LabelSelectorAsSelector(&p.Spec.PodSelector)
	if err != nil {
		return subject(everyPod).in(p.Namespace)
	}
	return subject(func(c candidate) bool { return selector.Matches(c.labels) }).in(p.Namespace)
}

// subjectOf reads which pods a policy acts on. Where that cannot be told for certain, sure is false, and the subject
// has too many pods rather than too few.
func subjectOf(kind *rivalKind, o *unstructured.Unstructured) (is subject, sure bool) {
	spec, _, _ := unstructured.NestedMap(o.Object, "spec")
	switch kind.resource.Group {
	case policy.AdminGroup:
		is, sure = adminSubject(spec)
	case policy.CalicoGroup, policy.CalicoAPIGroup:
		is, sure = calicoSubject(spec)
	case policy.CiliumGroup:
		is, sure = ciliumSubjects(o.Object)
	}
	if is == nil {
		is, sure = everyPod, false
	}
	return is.in(o.GetNamespace()), sure
}

// selectorAt reads a label selector; one that is missing selects everything, as an empty one does.
func selectorAt(from map[string]any, fields ...string) (labels.Selector, bool) {
	content, _, err := unstructured.NestedMap(from, fields...)
	if err != nil {
		return nil, false
	}
	var selector metav1.LabelSelector
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(content, &selector); err != nil {
		return nil, false
	}
	out, err := metav1.LabelSelectorAsSelector(&selector)
	return out, err == nil
}

// adminSubject reads spec.subject of the Network Policy API: https://network-policy-api.sigs.k8s.io/reference/spec/.
func adminSubject(spec map[string]any) (subject, bool) {
	if _, whole, _ := unstructured.NestedMap(spec, "subject", "namespaces"); whole {
		namespaces, ok := selectorAt(spec, "subject", "namespaces")
		return func(c candidate) bool { return !ok || namespaces.Matches(c.namespaceLabels) }, ok
	}
	if _, some, _ := unstructured.NestedMap(spec, "subject", "pods"); !some {
		return nil, false
	}
	namespaces, okNamespaces := selectorAt(spec, "subject", "pods", "namespaceSelector")
	pods, okPods := selectorAt(spec, "subject", "pods", "podSelector")
	return func(c candidate) bool {
		return (!okNamespaces || namespaces.Matches(c.namespaceLabels)) && (!okPods || pods.Matches(c.labels))
	}, okNamespaces && okPods
}

// ciliumSubjects reads spec and specs of Cilium's policies:
// https://docs.cilium.io/en/stable/security/policy/intro/#rule-basics.
func ciliumSubjects(object map[string]any) (subject, bool) {
	var specs []any
	if spec, ok := object["spec"]; ok {
		specs = append(specs, spec)
	}
	more, _, _ := unstructured.NestedSlice(object, "specs")
	var list []subject
	sure := true
	for _, spec := range append(specs, more...) {
		rule, ok := spec.(map[string]any)
		if !ok {
			return nil, false
		}
		if _, pods := rule["endpointSelector"]; !pods {
			continue // a policy of hosts
		}
		selector, known, ok := ciliumSelector(rule)
		if !ok {
			return nil, false
		}
		sure = sure && known
		list = append(list, func(c candidate) bool { return selector.Matches(ciliumLabels(c)) })
	}
	return func(c candidate) bool {
		return slices.ContainsFunc(list, func(is subject) bool { return is(c) })
	}, sure
}

// ciliumSelector reads the selector of a rule. A key of it may name where a label comes from, such as k8s:app or
// any:app; known is false where one comes from elsewhere, and was left out.
func ciliumSelector(rule map[string]any) (selector labels.Selector, known, ok bool) {
	content, _, err := unstructured.NestedMap(rule, "endpointSelector")
	if err != nil {
		return nil, false, false
	}
	var written, own metav1.LabelSelector
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(content, &written); err != nil {
		return nil, false, false
	}
	known = true
	name := func(key string) string {
		source, name, has := strings.Cut(key, ":")
		switch {
		case !has:
			return key
		case source == "any" || source == "k8s":
			return name
		}
		known = false
		return ""
	}
	own.MatchLabels = map[string]string{}
	for key, value := range written.MatchLabels {
		if key = name(key); key != "" {
			own.MatchLabels[key] = value
		}
	}
	for _, e := range written.MatchExpressions {
		if e.Key = name(e.Key); e.Key != "" {
			own.MatchExpressions = append(own.MatchExpressions, e)
		}
	}
	selector, err = metav1.LabelSelectorAsSelector(&own)
	return selector, known, err == nil
}

// ciliumLabels are those that Cilium gives a pod: https://docs.cilium.io/en/stable/gettingstarted/terminology/#labels.
func ciliumLabels(c candidate) labels.Set {
	out := maps.Clone(c.labels)
	out["io.kubernetes.pod.namespace"], out["io.cilium.k8s.policy.serviceaccount"] = c.namespace, "default"
	for k, v := range c.namespaceLabels {
		out["io.cilium.k8s.namespace.labels."+k] = v
	}
	return out
}

// calicoSubject reads the selectors of Calico's policies:
// https://docs.tigera.io/calico/latest/reference/resources/globalnetworkpolicy.
func calicoSubject(spec map[string]any) (subject, bool) {
	for _, hosts := range []string{"doNotTrack", "preDNAT"} {
		if only, _, _ := unstructured.NestedBool(spec, hosts); only {
			return func(candidate) bool { return false }, true // such a policy acts on interfaces of hosts
		}
	}
	read := func(field string) (calicoSelector, bool) {
		text, _, err := unstructured.NestedString(spec, field)
		if err != nil {
			return nil, false
		}
		selector, err := parseCalico(text)
		return selector, err == nil
	}
	pods, okPods := read("selector")
	namespaces, okNamespaces := read("namespaceSelector")
	accounts, _, _ := unstructured.NestedString(spec, "serviceAccountSelector")
	return func(c candidate) bool {
		own, of := maps.Clone(c.labels), maps.Clone(c.namespaceLabels)
		own["projectcalico.org/namespace"], own["projectcalico.org/orchestrator"] = c.namespace, "k8s"
		own["projectcalico.org/serviceaccount"] = "default"
		of["projectcalico.org/name"] = c.namespace
		return (!okPods || pods(own)) && (!okNamespaces || namespaces(of))
	}, okPods && okNamespaces && accounts == ""
}
