package scenario

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/netproof/netproof/harness/model"
)

// Reach is a way in which a scenario reaches beyond the namespaces that a run makes for it. On a cluster that others
// use it concerns them.
type Reach string

// The ways.
const (
	// ReachDefault is the namespace default.
	ReachDefault Reach = metav1.NamespaceDefault
	// ReachKubeSystem is the namespace kube-system.
	ReachKubeSystem Reach = metav1.NamespaceSystem
	// ReachClusterScoped are policies of kinds that are in no namespace.
	ReachClusterScoped Reach = "cluster-scoped"
	// ReachHostNetwork is the network of nodes: hostNetwork pods, and probes that begin at a node.
	ReachHostNetwork Reach = "host-network"
	// ReachNodePort are services of type NodePort, and probes of such ports.
	ReachNodePort Reach = "node-port"
)

// Reaches are all of them.
func Reaches() []Reach {
	return []Reach{ReachDefault, ReachKubeSystem, ReachClusterScoped, ReachHostNetwork, ReachNodePort}
}

// ParseReaches reads a list such as default,node-port. An empty text is an empty list.
func ParseReaches(text string) ([]Reach, error) {
	var names []string
	for _, r := range Reaches() {
		names = append(names, string(r))
	}
	var out []Reach
	for word := range strings.SplitSeq(text, ",") {
		word = strings.TrimSpace(word)
		switch {
		case word == "":
		case slices.Contains(names, word):
			out = append(out, Reach(word))
		default:
			near := ""
			if s := suggest(word, names); s != "" {
				near = fmt.Sprintf("; did you mean %s?", s)
			}
			return nil, fmt.Errorf("%q cannot be allowed: there is %s%s", shorten(word), strings.Join(names, ", "), near)
		}
	}
	return out, nil
}

// Beyond are the ways in which the scenario reaches beyond its own namespaces and which are not allowed, each at the
// first place that does.
func (s *Scenario) Beyond(allowed []Reach) Problems {
	b := beyond{allowed: allowed, said: map[Reach]bool{}}
	for _, ns := range s.Spec.Topology.Namespaces {
		b.namespace(ns.At, ns.Name)
	}
	for i := range s.Spec.Topology.Pods {
		b.pod(&s.Spec.Topology.Pods[i])
	}
	for _, svc := range s.Spec.Topology.Services {
		if svc.Type == "NodePort" {
			b.add(svc.At, ReachNodePort, "service %s opens a port on every node of the cluster", svc.Name)
		}
	}
	for i := range s.Spec.Probes {
		b.probe(&s.Spec.Probes[i])
	}
	for _, step := range s.Spec.Steps {
		for _, a := range step.Apply {
			for _, o := range a.objects {
				if o.namespace == "" {
					b.add(o.at, ReachClusterScoped, "%s is of the cluster's scope: it can act on all that runs there", o)
				}
				b.namespace(o.at, o.namespace)
			}
		}
		if step.Create != nil {
			for i := range step.Create.Pods {
				b.pod(&step.Create.Pods[i])
			}
		}
		for i := range step.Probes {
			b.probe(&step.Probes[i])
		}
	}
	return b.problems.sorted()
}

// beyond collects problems, one for each way.
type beyond struct {
	collector
	allowed []Reach
	said    map[Reach]bool
}

func (b *beyond) add(at Position, r Reach, format string, args ...any) {
	if slices.Contains(b.allowed, r) || b.said[r] {
		return
	}
	b.said[r] = true
	b.collector.add(at, fmt.Sprintf("leave it out, or permit it with --allow %s", r), "%s; this run did not make the cluster", fmt.Sprintf(format, args...))
}

func (b *beyond) namespace(at Position, name string) {
	if r := Reach(name); r == ReachDefault || r == ReachKubeSystem {
		b.add(at, r, "the namespace `%s` is not the scenario's own: what is done there concerns everybody", name)
	}
}

func (b *beyond) pod(p *Pod) {
	namespace, _, _ := p.endpoint().Split()
	b.namespace(p.At, namespace)
	if p.HostNetwork {
		b.add(p.At, ReachHostNetwork, "pod %s is on the network of its node (hostNetwork)", p.Name)
	}
}

func (b *beyond) probe(p *Probe) {
	if p.from.kind == nodePattern && !p.stranger {
		b.add(p.fromAt, ReachHostNetwork, "probes from %s are sent from the network of a node", p.From)
	}
	if model.Via(p.Via) == model.ViaNodePort {
		b.add(p.viaAt, ReachNodePort, "probes go to a port of a node")
	}
}

// PositionOf is where the scenario declares a pod or service, the beginning of the scenario where it declares none of
// the name.
func (s *Scenario) PositionOf(e model.Endpoint) Position {
	for _, svc := range s.Spec.Topology.Services {
		if svc.Name == string(e) {
			return svc.At
		}
	}
	pods := slices.Clone(s.Spec.Topology.Pods)
	for _, step := range s.Spec.Steps {
		if step.Create != nil {
			pods = append(pods, step.Create.Pods...)
		}
	}
	for _, p := range pods {
		if p.Name == string(e) {
			return p.At
		}
	}
	return Position{File: s.File, Line: max(s.At.Line, 1), Column: max(s.At.Column, 1)}
}
