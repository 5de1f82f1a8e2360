package scenario

import (
	"cmp"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/netproof/netproof/harness/model"
)

// The parts of services that matter here.
type (
	serviceSpec struct {
		Selector  map[string]string `json:"selector"`
		Ports     []servicePort     `json:"ports"`
		Type      string            `json:"type"`
		ClusterIP string            `json:"clusterIP"`
	}
	servicePort struct {
		Name       string             `json:"name"`
		Port       int                `json:"port"`
		TargetPort intstr.IntOrString `json:"targetPort"`
		Protocol   string             `json:"protocol"`
		At         Position           `json:"-"`
	}
)

// service takes over a service that leads to stand-ins. A number that it leads to is served by them: container ports
// are informational, and often left out.
func (f *plainFolder) service(o *object) {
	var spec serviceSpec
	where := o.tree.get("spec")
	if where == nil {
		f.add(o.at, "add `spec:` with selector and ports", "%s has no spec", o)
		return
	}
	(&decoder{c: &f.collector, lenient: true}).decode(where, &spec, "spec")
	ignore := func(why string) {
		if f.ignored == nil {
			f.ignored = map[string][]*object{}
		}
		f.ignored[why] = append(f.ignored[why], o)
	}
	var behind []*standIn
	for _, s := range f.stand {
		if s.object.namespace == o.namespace && f.selectedBy(s, labels.SelectorFromSet(spec.Selector)) {
			behind = append(behind, s)
		}
	}
	switch {
	case len(spec.Selector) == 0:
		ignore("without a selector")
		return
	case len(behind) == 0:
		ignore("without a workload of the folder behind it")
		return
	}
	out := Service{Name: o.namespace + "/" + o.name, Selector: spec.Selector, At: o.at}
	if spec.Type == "NodePort" {
		out.Type = spec.Type
	}
	for _, p := range spec.Ports {
		protocol := cmp.Or(p.Protocol, string(model.TCP))
		if !checkPortNumber(&f.collector, p.At, p.Port) || checkProtocol(&f.collector, p.At, protocol) == "" {
			continue
		}
		target := p.Port
		switch {
		case p.TargetPort.Type == intstr.String && p.TargetPort.StrVal != "":
			if !slices.ContainsFunc(behind, func(s *standIn) bool { return s.hasNamed(p.TargetPort.StrVal, protocol) }) {
				f.s.Warnings = append(f.s.Warnings, problemAt(p.At, "give a container a port of this name",
					"port %d of %s is ignored: no workload behind it has a port `%s`", p.Port, o, p.TargetPort.StrVal))
				continue
			}
			out.Ports = append(out.Ports, ServicePort{Name: p.Name, Port: p.Port, Protocol: protocol, TargetPort: IntOrName(p.TargetPort.StrVal), At: p.At})
			continue
		case p.TargetPort.IntVal != 0:
			target = int(p.TargetPort.IntVal)
			if !checkPortNumber(&f.collector, p.At, target) {
				continue
			}
		}
		for _, s := range behind {
			s.serve(Port{Port: target, Protocol: protocol, At: p.At})
		}
		out.Ports = append(out.Ports, ServicePort{Name: p.Name, Port: p.Port, Protocol: protocol, TargetPort: IntOrName(strconv.Itoa(target)), At: p.At})
	}
	switch {
	case spec.ClusterIP == corev1.ClusterIPNone:
		ignore("without an address (clusterIP: None), with its pods probed anyway")
	case len(out.Ports) > 0:
		f.s.Spec.Topology.Services = append(f.s.Spec.Topology.Services, out)
	}
}
