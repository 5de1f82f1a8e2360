package scenario

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	metavalidation "k8s.io/apimachinery/pkg/util/validation"

	"github.com/netproof/netproof/harness/plain"
)

// checkSpec holds a scenario's own words against each other, as far as that needs no state.
func (l *loader) checkSpec(s *Scenario, spec *value) {
	topology := spec.get("topology")
	if topology == nil || topology.kind == nullValue {
		l.add(spec.at, "add `topology: {namespaces: [...], pods: [...]}`", "the scenario has no topology")
		return
	}
	t := &s.Spec.Topology
	namespaces := l.checkNamespaces(t, topology.get("namespaces"))
	if len(t.Pods) == 0 {
		l.add(topology.at, "add `pods: [{name: x/a, ports: [80/TCP]}]`", "the topology has no pods")
	}
	pods := map[string]Position{}
	for i := range t.Pods {
		l.checkPod(&t.Pods[i], topology.get("pods").items[i], namespaces)
		l.checkTwice(pods, "pod", t.Pods[i].Name, placeOf(topology.get("pods").items[i]))
	}
	l.checkServices(t, topology.get("services"), namespaces)
	l.checkHosts(t.Hosts, topology.get("hosts"))
	l.checkSteps(s, spec, namespaces)
}

// placeOf is where the name of an item stands, or the item.
func placeOf(item *value) Position {
	if name := item.get("name"); name != nil {
		return name.at
	}
	return item.at
}

// unnamed tells whether an item has no name at all, other than one that was refused already.
func unnamed(item *value) bool {
	name := item.get("name")
	return item.kind == mappingValue && (name == nil || name.kind == scalarValue && name.text == "")
}

func (l *loader) checkTwice(seen map[string]Position, what, name string, at Position) {
	if name == "" {
		return
	}
	if first, twice := seen[name]; twice {
		l.add(at, "give one of them another name, or remove it", "duplicate %s `%s`: it is also on line %d", what, name, first.Line)
		return
	}
	seen[name] = at
}

func (l *loader) checkNamespaces(t *Topology, list *value) map[string]bool {
	declared := map[string]bool{}
	seen := map[string]Position{}
	for i := range t.Namespaces {
		ns, item := &t.Namespaces[i], list.items[i]
		// A name that was refused still counts as declared: its absence is no news.
		declared[item.get("name").str()] = true
		if ns.Name == "" {
			if unnamed(item) {
				l.add(item.at, "add `name: x`", "the namespace has no name")
			}
			continue
		}
		at := placeOf(item)
		checkNamespaceName(&l.collector, at, ns.Name)
		l.checkTwice(seen, "namespace", ns.Name, at)
		if labels := item.get("labels"); labels != nil {
			checkLabels(&l.collector, labels, withValues(ns.Labels))
			l.refusePodSecurity(labels)
			if text, ok := ns.Labels[nameLabel]; ok && text != ns.Name {
				l.add(labels.get(nameLabel).at, "remove it: Kubernetes sets it", "the label `%s` of namespace `%s` is `%s`", nameLabel, ns.Name, ns.Name)
			}
		}
	}
	return declared
}

// podSecurityLabels begin the labels that say what pods a namespace admits:
// https://kubernetes.io/docs/concepts/security/pod-security-admission/.
const podSecurityLabels = "pod-security.kubernetes.io/"

// refusePodSecurity reports labels of namespaces that would open a namespace of the cluster to privileged pods.
func (l *loader) refusePodSecurity(where *value) {
	for _, e := range where.entries {
		if strings.HasPrefix(e.key.text, podSecurityLabels) {
			l.add(e.key.at, "remove it: probe pods fit the level restricted", "the label `%s` decides what a namespace admits, which is not for a scenario", shorten(e.key.text))
		}
	}
}

// knowsNamespace reports a namespace that is not declared.
func (l *loader) knowsNamespace(at Position, namespace string, declared map[string]bool) {
	if declared[namespace] {
		return
	}
	fix := fmt.Sprintf("add `{name: %s}` to topology.namespaces", namespace)
	if _, isBoolean := yaml11Booleans[namespace]; isBoolean {
		fix = fmt.Sprintf("add `{name: %q}` to topology.namespaces", namespace)
	}
	if near := suggest(namespace, keys(declared)); near != "" {
		fix = fmt.Sprintf("did you mean `%s`? Otherwise %s", near, fix)
	}
	l.add(at, fix, "there is no namespace `%s`", namespace)
}

func (l *loader) checkPod(p *Pod, item *value, namespaces map[string]bool) {
	at := placeOf(item)
	if p.Name != "" || unnamed(item) {
		if namespace, ok := checkEndpointName(&l.collector, at, "pod", p.Name, metavalidation.IsDNS1123Subdomain); ok {
			l.knowsNamespace(at, namespace, namespaces)
		}
	}
	if labels := item.get("labels"); labels != nil {
		checkLabels(&l.collector, labels, withValues(p.Labels))
	}
	if p.Node != nil && (*p.Node < 0 || *p.Node > maxNodeIndex) {
		l.add(item.get("node").at, "write 0 for the first node, 1 for the second, ...", "there is no node %d", *p.Node)
	}
	l.checkPorts(p.Ports)
}

func (l *loader) checkPorts(ports []Port) {
	type number struct {
		port     int
		protocol string
	}
	numbers, names := map[number]bool{}, map[string]bool{}
	for _, p := range ports {
		n := number{p.Port, p.Protocol}
		if p.Port != 0 && numbers[n] {
			l.add(p.At, "remove one of them", "duplicate port %d/%s", p.Port, p.Protocol)
		}
		if p.Name != "" && names[p.Name] {
			l.add(p.At, "give one of them another name", "duplicate port name `%s`", p.Name)
		}
		numbers[n], names[p.Name] = true, true
	}
}

func (l *loader) checkServices(t *Topology, list *value, namespaces map[string]bool) {
	seen := map[string]Position{}
	for i := range t.Services {
		s, item := &t.Services[i], list.items[i]
		at := placeOf(item)
		if s.Name != "" || unnamed(item) {
			if namespace, ok := checkEndpointName(&l.collector, at, "service", s.Name, metavalidation.IsDNS1123Label); ok {
				l.knowsNamespace(at, namespace, namespaces)
			}
		}
		l.checkTwice(seen, "service", s.Name, at)
		if len(s.Selector) == 0 {
			l.add(item.keyAt("selector"), "add `selector: {app: web}`", "the service has no selector, and so no pods")
		} else {
			checkLabels(&l.collector, item.get("selector"), withValues(s.Selector))
		}
		if len(s.Ports) == 0 {
			l.add(item.keyAt("ports"), "add `ports: [80/TCP]`", "the service has no ports")
		}
		type number struct {
			port     int
			protocol string
		}
		numbers := map[number]bool{}
		for _, p := range s.Ports {
			if p.Port != 0 && numbers[number{p.Port, p.Protocol}] {
				l.add(p.At, "remove one of them", "duplicate port %d/%s", p.Port, p.Protocol)
			}
			numbers[number{p.Port, p.Protocol}] = true
		}
		if s.Type != "" && !slices.Contains(serviceTypes, s.Type) {
			l.add(item.get("type").at, didYouMean(s.Type, serviceTypes), "%q is not a type of a service that can be probed", shorten(s.Type))
		}
	}
}

var serviceTypes = []string{"ClusterIP", "NodePort"}

func (l *loader) checkHosts(hosts []Host, list *value) {
	seen := map[string]Position{}
	for i := range hosts {
		h, item := &hosts[i], list.items[i]
		at := placeOf(item)
		if messages := metavalidation.IsDNS1123Label(h.Name); len(messages) > 0 && (h.Name != "" || unnamed(item)) {
			l.add(at, "add a name of lower case letters, digits and `-`", "%q is not a valid name for a host: %s", shorten(h.Name), brief(messages))
		}
		l.checkTwice(seen, "host", h.Name, at)
		l.checkPorts(h.Ports)
		l.addressOf(h, item)
		for j := range hosts[:i] {
			if other := &hosts[j]; len(h.addresses) > 0 && slices.Equal(other.addresses, h.addresses) {
				l.add(item.get("address").at, "keep one of them", "host `%s` has the address of host `%s`", h.Name, other.Name)
			}
		}
	}
}

func (l *loader) checkSteps(s *Scenario, spec *value, namespaces map[string]bool) {
	if len(s.Spec.Steps) == 0 {
		l.add(spec.keyAt("steps"), "add `steps: [{name: ..., expect: {default: allow}}]`", "the scenario has no steps")
	}
	seen := map[string]Position{}
	for i := range s.Spec.Steps {
		step := &s.Spec.Steps[i]
		item := spec.get("steps").items[i]
		switch {
		case step.Name == "" && !unnamed(item):
		case step.Name == "":
			l.add(step.nameAt, "add `name: ...`", "the step has no name")
		case strings.ContainsAny(step.Name, "\n\r\t"):
			l.add(step.nameAt, "write it on one line", "the name of the step has several lines")
		case strings.ContainsFunc(step.Name, plain.Hidden):
			hidden, _ := utf8.DecodeRuneInString(step.Name[strings.IndexFunc(step.Name, plain.Hidden):])
			l.add(step.nameAt, "leave it out", "the name of the step has the character %U, which cannot be seen", hidden)
		case len(step.Name) > maxStepName:
			l.add(step.nameAt, "say the rest in a comment", "the name of the step has more than %d characters", maxStepName)
		}
		l.checkTwice(seen, "step", step.Name, step.nameAt)
		if step.Expect == nil {
			l.add(item.at, "add `expect: {default: allow}`, or `expect: computed` to leave it to the specification",
				"step `%s` does not say what is expected", step.Name)
		}
		if step.Create != nil {
			created := map[string]Position{}
			for j := range step.Create.Pods {
				pod := item.get("create").get("pods").items[j]
				l.checkPod(&step.Create.Pods[j], pod, namespaces)
				l.checkTwice(created, "pod", step.Create.Pods[j].Name, placeOf(pod))
			}
		}
		if step.Label != nil {
			for _, group := range []string{"pods", "namespaces"} {
				changes := step.Label.Pods
				if group == "namespaces" {
					changes = step.Label.Namespaces
				}
				where := step.Label.where.get(group)
				if where == nil {
					continue
				}
				for _, e := range where.entries {
					checkLabels(&l.collector, e.value, changes[e.key.text])
					if group == "namespaces" {
						l.refusePodSecurity(e.value)
					}
				}
			}
		}
	}
}

const maxStepName = 200
