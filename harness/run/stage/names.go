package stage

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/model"
)

// names turns the namespaces of scenarios into those of the cluster, and back. On a cluster that others use, a prefix
// keeps them apart from theirs; reports, cells and expectations always speak the scenario's names.
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

// object translates the names of namespaces in a policy: its own, and those by which it selects. What may hold such a
// name and cannot be translated is an error: a policy that still speaks of the scenario's name selects nothing in the
// cluster, and a denial that comes of that proves nothing.
func (n names) object(obj *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	obj = obj.DeepCopy()
	if n.prefix == "" {
		return obj, nil
	}
	obj.SetNamespace(n.real(obj.GetNamespace()))
	for field, value := range obj.Object {
		switch field {
		case "apiVersion", "kind", "metadata", "status":
			continue
		}
		got, err := n.value(field, value)
		if err != nil {
			return nil, fmt.Errorf("%s %s with a namespace prefix: %w", obj.GetKind(), obj.GetName(), err)
		}
		obj.Object[field] = got
	}
	return obj, nil
}

// CheckPrefix says why a policy cannot be where namespaces have this prefix; nil if it can.
func CheckPrefix(prefix string, obj *unstructured.Unstructured) error {
	_, err := names{prefix}.object(obj)
	return err
}

// nameLabels are the labels by which policies select namespaces, or pods of them, by name:
// https://kubernetes.io/docs/concepts/services-networking/network-policies/#targeting-a-namespace-by-its-name,
// https://docs.tigera.io/calico/latest/reference/resources/networkpolicy#selectors and
// https://docs.cilium.io/en/stable/security/policy/kubernetes/#namespaces.
var nameLabels = []string{
	corev1.LabelMetadataName,
	"io.kubernetes.pod.namespace", "io.cilium.k8s.namespace.labels." + corev1.LabelMetadataName,
	"projectcalico.org/name", "projectcalico.org/namespace", "pcns.projectcalico.org/name", "pcns." + corev1.LabelMetadataName,
}

// isNameLabel tells whether a key of a selector means the name of a namespace. Cilium's keys may say where the label
// comes from: https://docs.cilium.io/en/stable/gettingstarted/terminology/#label-source.
func isNameLabel(key string) bool {
	for _, source := range []string{"k8s:", "any:"} {
		key = strings.TrimPrefix(key, source)
	}
	return slices.Contains(nameLabels, key)
}

// value translates the value of a field, in place where it can.
func (n names) value(field string, value any) (any, error) {
	switch v := value.(type) {
	case []any:
		for i := range v {
			got, err := n.value(field, v[i])
			if err != nil {
				return nil, err
			}
			v[i] = got
		}
	case map[string]any:
		return v, n.fields(v)
	case string:
		return n.text(field, v)
	}
	return value, nil
}

// fields translates what is in an object, in place.
func (n names) fields(object map[string]any) error {
	if key, ok := object["key"].(string); ok && isNameLabel(key) {
		n.list(object["values"])
		return nil
	}
	// A service, or a selector of services, beside its namespace.
	_, service := object["serviceName"]
	_, named := object["name"]
	_, selector := object["selector"]
	for key, item := range object {
		name, isText := item.(string)
		switch {
		case isText && (isNameLabel(key) || key == "namespace" && (service || named || selector)):
			object[key] = n.real(name)
			continue
		case !isNameLabel(key) && speaksOfNames(key):
			return fmt.Errorf("the key %q speaks of namespaces by name in a way that cannot be rewritten: %w", key, errByName)
		}
		got, err := n.value(key, item)
		if err != nil {
			return err
		}
		object[key] = got
	}
	return nil
}

// list translates the values of a selector's expression.
func (n names) list(values any) {
	items, _ := values.([]any)
	for i, item := range items {
		if name, ok := item.(string); ok {
			items[i] = n.real(name)
		}
	}
}

// speaksOfNames tells whether a text has a label in it that means the name of a namespace, or the name of a service in
// DNS, in which its namespace stands.
func speaksOfNames(text string) bool {
	return slices.ContainsFunc(nameLabels, func(label string) bool { return strings.Contains(text, label) }) ||
		strings.Contains(text, ".svc.") || strings.HasSuffix(text, ".svc")
}

// errByName says what to do about a name that cannot be translated.
var errByName = errors.New("select namespaces by a label of their own")

// text translates a selector in Calico's language, and refuses any other text that speaks of namespaces by name.
func (n names) text(field, text string) (string, error) {
	if field == "serviceAccountSelector" { // the same labels mean names of accounts there
		return text, nil
	}
	if !speaksOfNames(text) {
		return text, nil
	}
	if strings.HasSuffix(strings.ToLower(field), "selector") {
		if out, ok := n.calico(text); ok {
			return out, nil
		}
	}
	return "", fmt.Errorf("%q speaks of namespaces by name in a way that cannot be rewritten: %w", text, errByName)
}

// calico translates the texts that labels of names are compared with in a selector of Calico's language. It is false
// for one that cannot be read, and for one that compares with a part of a name.
func (n names) calico(selector string) (string, bool) {
	if _, err := parseCalico(selector); err != nil {
		return "", false
	}
	var out strings.Builder
	key, whole, begins := "", false, true // begins: a label's name may come next
	for rest := selector; ; {
		trimmed := strings.TrimLeft(rest, " \t\r\n")
		out.WriteString(rest[:len(rest)-len(trimmed)])
		if trimmed == "" {
			return out.String(), true
		}
		token := calicoToken.FindString(trimmed)
		rest = trimmed[len(token):]
		switch {
		case begins && calicoWord.MatchString(token):
			if key = token; !isNameLabel(key) && speaksOfNames(key) {
				return "", false
			}
		case token == "==" || token == "!=" || token == "in":
			whole = true
		case token == "contains" || token == "starts" || token == "ends":
			whole = false
		case token[0] == '"' || token[0] == '\'':
			if isNameLabel(key) {
				if !whole {
					return "", false
				}
				token = token[:1] + n.real(token[1:len(token)-1]) + token[len(token)-1:]
			}
		}
		begins = slices.Contains([]string{"(", "!", "&&", "||"}, token)
		out.WriteString(token)
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

// notPodSecurity refuses such labels in a scenario, but for those that the namespace has anyway: they would change what
// it asks of everybody's pods.
func notPodSecurity(namespace string, labels, have model.Labels) error {
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		if v, has := have[k]; strings.HasPrefix(k, podSecurityPrefix) && (!has || v != labels[k]) {
			return fmt.Errorf("label namespace %s: %s says which pods it admits, and is not a scenario's to set", namespace, k)
		}
	}
	return nil
}
