package run

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/model"
)

// names turns the namespaces of scenarios into those of the cluster, and back. On a cluster that others use, a prefix keeps
// them apart from theirs; reports, cells and expectations always speak the scenario's names.
type names struct{ prefix string }

// real is what a scenario's namespace is called in the cluster. Those that every cluster has are nobody's own.
func (n names) real(ns string) string {
	if ns == "" || isBuiltIn(ns) {
		return ns
	}
	return n.prefix + ns
}

// scenario is what a namespace of the cluster is called in a scenario.
func (n names) scenario(ns string) string {
	if isBuiltIn(ns) {
		return ns
	}
	return strings.TrimPrefix(ns, n.prefix)
}

func (n names) endpoint(namespace, name string) model.Endpoint {
	return model.PodEndpoint(n.scenario(namespace), name)
}

// split is the namespace in the cluster, and the name, of a pod or service.
func (n names) split(e model.Endpoint) (namespace, name string) {
	ns, name, _ := e.Split()
	return n.real(ns), name
}

// object turns the names in a policy: its own namespace, and the label kubernetes.io/metadata.name in its selectors, by which policies
// select namespaces by name.
func (n names) object(obj *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	obj = obj.DeepCopy()
	if n.prefix == "" {
		return obj, nil
	}
	obj.SetNamespace(n.real(obj.GetNamespace()))
	spec, ok := obj.Object["spec"]
	if !ok {
		return obj, nil
	}
	if err := n.selectors(spec); err != nil {
		return nil, fmt.Errorf("%s %s with a namespace prefix: %w", obj.GetKind(), obj.GetName(), err)
	}
	return obj, nil
}

// foreignNameLabels are how plugins call a namespace's name in selectors that are text.
var foreignNameLabels = []string{corev1.LabelMetadataName, "projectcalico.org/name", "io.kubernetes.pod.namespace", "namespace.labels." + corev1.LabelMetadataName}

// selectors turns the names below a value, in place.
func (n names) selectors(value any) error {
	switch v := value.(type) {
	case []any:
		for _, item := range v {
			if err := n.selectors(item); err != nil {
				return err
			}
		}
	case map[string]any:
		if v["key"] == corev1.LabelMetadataName {
			n.values(v["values"])
			return nil
		}
		for key, item := range v {
			if name, ok := item.(string); ok && key == corev1.LabelMetadataName {
				v[key] = n.real(name)
				continue
			}
			if err := n.selectors(item); err != nil {
				return err
			}
		}
	case string:
		for _, label := range foreignNameLabels {
			if strings.Contains(v, label) {
				return fmt.Errorf("the selector %q speaks of namespaces by name, and is of a kind in which names cannot be rewritten: select them by a label of their own", v)
			}
		}
	}
	return nil
}

// values turns the values of a selector's expression.
func (n names) values(list any) {
	items, _ := list.([]any)
	for i, item := range items {
		if name, ok := item.(string); ok {
			items[i] = n.real(name)
		}
	}
}

// labels drops what the run or the cluster puts on a namespace that the run made: what is left is the scenario's.
func (n names) labels(have map[string]string) model.Labels {
	out := n.allLabels(have)
	maps.DeleteFunc(out, func(k, _ string) bool {
		return cluster.IsRunLabel(k) || strings.HasPrefix(k, podSecurityPrefix)
	})
	return out
}

// allLabels are those of a namespace that the run found, under the name that scenarios give it.
func (n names) allLabels(have map[string]string) model.Labels {
	out := model.Labels(maps.Clone(have))
	if name, ok := out[corev1.LabelMetadataName]; ok {
		out[corev1.LabelMetadataName] = n.scenario(name)
	}
	return out
}

// podSecurityPrefix begins the labels that say which pods a namespace admits.
const podSecurityPrefix = "pod-security.kubernetes.io/"

// notPodSecurity refuses such labels in a scenario, but for those that the namespace has anyway: they would change what it asks of everybody's
// pods.
func notPodSecurity(namespace string, labels, have model.Labels) error {
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		if v, has := have[k]; strings.HasPrefix(k, podSecurityPrefix) && (!has || v != labels[k]) {
			return fmt.Errorf("label namespace %s: %s says which pods it admits, and is not a scenario's to set", namespace, k)
		}
	}
	return nil
}
