package semantics

import (
	"fmt"
	"math/rand/v2"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/netproof/netproof/harness/model"
)

// generator makes worlds out of a small vocabulary, so that policies and pods meet often. One seed is one world: a
// failure is repeated, and shrunk by hand, from the seed it prints.
type generator struct {
	*rand.Rand
	// shared is the chance in percent that a pod uses its node's network.
	shared int
}

func newGenerator(seed uint64, shared int) *generator {
	return &generator{Rand: rand.New(rand.NewPCG(seed, 1)), shared: shared}
}

func oneOf[T any](g *generator, list ...T) T { return list[g.IntN(len(list))] }

func (g *generator) chance(percent int) bool { return g.IntN(100) < percent }

func (g *generator) labels(values map[string][]string) model.Labels {
	out := model.Labels{}
	for _, key := range []string{"app", "tier", "team"} {
		if list := values[key]; len(list) > 0 {
			if v := oneOf(g, list...); v != "" {
				out[key] = v
			}
		}
	}
	return out
}

func (g *generator) topology() *model.Topology {
	t := &model.Topology{
		Hosts: []model.Host{{Name: "db", Addresses: addrs("198.51.100.7", "2001:db8::7")}},
		Nodes: []model.Node{
			{Index: 0, Name: "n0", Addresses: addrs("172.18.0.10", "fd18::10")},
			{Index: 1, Name: "n1", Addresses: addrs("172.18.0.11", "fd18::11")},
		},
	}
	if g.chance(30) {
		t.Nodes[1].Addresses = append(t.Nodes[1].Addresses, addrs("10.0.1.250")...)
	}
	for i, ns := range []string{"x", "y"} {
		t.Namespaces = append(t.Namespaces, model.Namespace{
			Name: ns, Labels: g.labels(map[string][]string{"team": {"", "red", "blue"}}),
		})
		for j := range 2 + g.IntN(2) {
			pod := model.Pod{
				Namespace: ns, Name: string(rune('a' + j)), Node: g.IntN(2), HostNetwork: g.chance(g.shared),
				Labels:    g.labels(map[string][]string{"app": {"web", "api", ""}, "tier": {"", "front", "back"}}),
				Addresses: addrs(fmt.Sprintf("10.0.%d.%d", i, j+1), fmt.Sprintf("fd00::%d:%d", i, j+1)),
				Ports: []model.Port{
					{Name: "http", Number: oneOf(g, 80, 8080), Protocol: model.TCP},
					{Name: oneOf(g, "dns", ""), Number: 53, Protocol: model.UDP},
				},
			}
			if pod.HostNetwork {
				pod.Addresses = t.Nodes[pod.Node].Addresses[:2]
			}
			t.Pods = append(t.Pods, pod)
		}
	}
	for _, ns := range []string{"x", "y"} {
		t.Services = append(t.Services, model.Service{
			Namespace: ns, Name: "svc", Selector: model.Labels{"app": oneOf(g, "web", "api")},
			Addresses: addrs("10.96.0.1", "fd96::1"),
			Ports: []model.ServicePort{{
				Port: model.Port{Number: 80, Protocol: model.TCP}, Target: oneOf(g, "", "http", "8080"),
			}},
		})
	}
	return t
}

func (g *generator) selector() metav1.LabelSelector {
	var out metav1.LabelSelector
	values := map[string][]string{"app": {"web", "api"}, "tier": {"front", "back"}, "team": {"red", "blue"}}
	for range g.IntN(3) {
		key := oneOf(g, "app", "tier", "team")
		if g.chance(60) {
			if out.MatchLabels == nil {
				out.MatchLabels = map[string]string{}
			}
			out.MatchLabels[key] = oneOf(g, values[key]...)
			continue
		}
		r := metav1.LabelSelectorRequirement{Key: key, Operator: oneOf(g, metav1.LabelSelectorOpIn,
			metav1.LabelSelectorOpNotIn, metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist)}
		if r.Operator == metav1.LabelSelectorOpIn || r.Operator == metav1.LabelSelectorOpNotIn {
			r.Values = append(r.Values, values[key][:1+g.IntN(2)]...)
		}
		out.MatchExpressions = append(out.MatchExpressions, r)
	}
	return out
}

func (g *generator) peers() (out []networkingv1.NetworkPolicyPeer) {
	for range g.IntN(4) {
		var p networkingv1.NetworkPolicyPeer
		pods, namespaces := g.selector(), g.selector()
		switch g.IntN(4) {
		case 0:
			p.PodSelector = &pods
		case 1:
			p.NamespaceSelector = &namespaces
		case 2:
			p.PodSelector, p.NamespaceSelector = &pods, &namespaces
		default:
			p.IPBlock = oneOf(g,
				&networkingv1.IPBlock{CIDR: "0.0.0.0/0"}, &networkingv1.IPBlock{CIDR: "::/0", Except: []string{"fd00::/64"}},
				&networkingv1.IPBlock{CIDR: "10.0.0.0/16", Except: []string{"10.0.1.0/24"}},
				&networkingv1.IPBlock{CIDR: "10.0.1.0/24", Except: []string{"10.0.1.1/32", "10.0.1.128/25"}},
				&networkingv1.IPBlock{CIDR: "172.18.0.0/16"}, &networkingv1.IPBlock{CIDR: "172.18.0.11/32"},
				&networkingv1.IPBlock{CIDR: "10.96.0.0/16"}, &networkingv1.IPBlock{CIDR: "198.51.100.0/24"},
				&networkingv1.IPBlock{CIDR: "fd00::/112"},
			)
		}
		out = append(out, p)
	}
	return out
}

func (g *generator) ports() (out []networkingv1.NetworkPolicyPort) {
	for range max(0, g.IntN(5)-1) {
		out = append(out, policyPort(oneOf(g, "80", "8080/TCP", "53/UDP", "http", "http/TCP", "dns/UDP", "/UDP", "",
			"80-8080/TCP", "30000-32767/TCP", "31000/TCP", "30500-31500/TCP", "81/TCP")))
	}
	return out
}

func (g *generator) policy(name string) Policy {
	p := makePolicy(name, oneOf(g, "x", "y"))
	spec := &p.Object.Spec
	if g.chance(60) {
		spec.PodSelector = g.selector()
	}
	spec.PolicyTypes = oneOf(g, nil, []networkingv1.PolicyType{"Ingress"}, []networkingv1.PolicyType{"Egress"},
		[]networkingv1.PolicyType{"Egress", "Ingress"})
	for range g.IntN(3) {
		spec.Ingress = append(spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: g.peers(), Ports: g.ports()})
	}
	for range g.IntN(3) {
		spec.Egress = append(spec.Egress, networkingv1.NetworkPolicyEgressRule{To: g.peers(), Ports: g.ports()})
	}
	return p
}

func (g *generator) policies() (out []Policy) {
	for i := range g.IntN(5) {
		out = append(out, g.policy(fmt.Sprintf("p%d", i)))
	}
	return out
}

// connections lists every pair of ends on every port of interest, by every way.
func connections(t *model.Topology) (out []model.Connection) {
	ends := []model.Endpoint{"node:0", "node:1", "host:db"}
	for i := range t.Pods {
		ends = append(ends, t.Pods[i].Endpoint())
	}
	for _, family := range []model.IPFamily{model.IPv4, model.IPv6} {
		for _, from := range ends {
			for _, to := range ends {
				for _, port := range []model.Port{
					{Number: 80, Protocol: model.TCP}, {Number: 8080, Protocol: model.TCP}, {Number: 53, Protocol: model.UDP},
				} {
					out = append(out, model.Connection{
						From: from, To: to, Port: port.Number, Protocol: port.Protocol, IPFamily: family, Via: model.ViaPodIP,
					})
				}
			}
			for _, to := range []model.Endpoint{"x/svc", "y/svc"} {
				for _, via := range []model.Via{model.ViaService, model.ViaNodePort} {
					out = append(out, model.Connection{
						From: from, To: to, Port: 80, Protocol: model.TCP, IPFamily: family, Via: via,
					})
				}
			}
		}
	}
	return out
}

// dump renders the policies of a failing world.
func dump(policies []Policy) string {
	var out string
	for _, p := range policies {
		out += fmt.Sprintf("%s %+v\n", p, p.Object.Spec)
	}
	return out
}
