package semantics

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/netproof/netproof/harness/model"
)

// A tweak changes a policy, a part one of its rules.
type (
	tweak func(*networkingv1.NetworkPolicy)
	part  func(*[]networkingv1.NetworkPolicyPeer, *[]networkingv1.NetworkPolicyPort)
)

// makePolicy makes a policy that selects every pod of its namespace, in the file NAME.yaml.
func makePolicy(name, namespace string, tweaks ...tweak) Policy {
	p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace}}
	for _, t := range tweaks {
		t(p)
	}
	return Policy{Object: p, Source: name + ".yaml:1"}
}

// selector parses what kubectl would take: "app=web,tier in (a,b)". The empty string is the empty selector.
func selector(s string) *metav1.LabelSelector {
	out, err := metav1.ParseToLabelSelector(s)
	if err != nil {
		panic(err)
	}
	return out
}

func selecting(s string) tweak {
	return func(p *networkingv1.NetworkPolicy) { p.Spec.PodSelector = *selector(s) }
}

func types(t ...networkingv1.PolicyType) tweak {
	return func(p *networkingv1.NetworkPolicy) { p.Spec.PolicyTypes = t }
}

var (
	typeIngress = types(networkingv1.PolicyTypeIngress)
	typeEgress  = types(networkingv1.PolicyTypeEgress)
	typeBoth    = types(networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress)
)

func ingressRule(parts ...part) tweak {
	return func(p *networkingv1.NetworkPolicy) {
		var r networkingv1.NetworkPolicyIngressRule
		for _, t := range parts {
			t(&r.From, &r.Ports)
		}
		p.Spec.Ingress = append(p.Spec.Ingress, r)
	}
}

func egressRule(parts ...part) tweak {
	return func(p *networkingv1.NetworkPolicy) {
		var r networkingv1.NetworkPolicyEgressRule
		for _, t := range parts {
			t(&r.To, &r.Ports)
		}
		p.Spec.Egress = append(p.Spec.Egress, r)
	}
}

func withPeer(peer networkingv1.NetworkPolicyPeer) part {
	return func(peers *[]networkingv1.NetworkPolicyPeer, _ *[]networkingv1.NetworkPolicyPort) {
		*peers = append(*peers, peer)
	}
}

func podsOf(s string) part {
	return withPeer(networkingv1.NetworkPolicyPeer{PodSelector: selector(s)})
}

func namespacesOf(s string) part {
	return withPeer(networkingv1.NetworkPolicyPeer{NamespaceSelector: selector(s)})
}

func podsIn(namespaces, pods string) part {
	return withPeer(networkingv1.NetworkPolicyPeer{NamespaceSelector: selector(namespaces), PodSelector: selector(pods)})
}

func block(cidr string, except ...string) part {
	return withPeer(networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: cidr, Except: except}})
}

// noPeers and noPorts make the lists empty rather than absent.
func noPeers(peers *[]networkingv1.NetworkPolicyPeer, _ *[]networkingv1.NetworkPolicyPort) {
	*peers = []networkingv1.NetworkPolicyPeer{}
}

func noPorts(_ *[]networkingv1.NetworkPolicyPeer, ports *[]networkingv1.NetworkPolicyPort) {
	*ports = []networkingv1.NetworkPolicyPort{}
}

// on adds a port: "80/TCP", "80" (no protocol), "/UDP" (no port), "http/TCP" (named), "8000-8010/TCP" (range).
func on(s string) part {
	return func(_ *[]networkingv1.NetworkPolicyPeer, ports *[]networkingv1.NetworkPolicyPort) {
		*ports = append(*ports, policyPort(s))
	}
}

func policyPort(s string) (out networkingv1.NetworkPolicyPort) {
	number, protocol, hasProtocol := strings.Cut(s, "/")
	if hasProtocol {
		p := corev1.Protocol(protocol)
		out.Protocol = &p
	}
	first, last, isRange := strings.Cut(number, "-")
	if isRange {
		n, err := strconv.ParseInt(last, 10, 32)
		if err != nil {
			panic(err)
		}
		end := int32(n)
		out.EndPort = &end
	}
	if first != "" {
		v := intstr.Parse(first)
		out.Port = &v
	}
	return out
}

// testPorts are the ports of every test pod.
var testPorts = []model.Port{
	{Name: "http", Number: 80, Protocol: model.TCP},
	{Name: "dns", Number: 53, Protocol: model.UDP},
	{Name: "dns", Number: 53, Protocol: model.TCP},
	{Number: 81, Protocol: model.TCP},
	{Name: "signal", Number: 90, Protocol: model.SCTP},
}

// testTopology has the namespaces x, y and z (label ns), in each the pods a, b and c (label pod), a and b on node 0, c
// on node 1, two nodes, and an outside host. Addresses: x/a is 10.0.0.1 and fd00::1, z/c is 10.0.2.3; node 0 is
// 172.18.0.10.
func testTopology() *model.Topology {
	t := &model.Topology{
		Nodes: []model.Node{
			{Index: 0, Name: "n0", Addresses: addrs("172.18.0.10", "fd18::10")},
			{Index: 1, Name: "n1", Addresses: addrs("172.18.0.11", "fd18::11")},
		},
		Hosts: []model.Host{{Name: "db", Addresses: addrs("198.51.100.7", "2001:db8::7")}},
	}
	for i, ns := range []string{"x", "y", "z"} {
		t.Namespaces = append(t.Namespaces, model.Namespace{Name: ns, Labels: model.Labels{"ns": ns}})
		for j, pod := range []string{"a", "b", "c"} {
			t.Pods = append(t.Pods, model.Pod{
				Namespace: ns, Name: pod, Labels: model.Labels{"pod": pod}, Node: j / 2, Ports: testPorts,
				Addresses: addrs(fmt.Sprintf("10.0.%d.%d", i, j+1), fmt.Sprintf("fd00::%d:%d", i, j+1)),
			})
		}
	}
	return t
}

func addrs(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// conn parses "x/a -> x/b 80/TCP", with an optional family and way: "x/a -> x/web 80/TCP IPv6 service".
func conn(s string) model.Connection {
	f := strings.Fields(s)
	number, protocol, _ := strings.Cut(f[3], "/")
	n, err := strconv.Atoi(number)
	if err != nil {
		panic(err)
	}
	c := model.Connection{
		From: model.Endpoint(f[0]), To: model.Endpoint(f[2]), Port: n, Protocol: model.Protocol(protocol),
		IPFamily: model.IPv4, Via: model.ViaPodIP,
	}
	for _, more := range f[4:] {
		if strings.HasPrefix(more, "IPv") {
			c.IPFamily = model.IPFamily(more)
		} else {
			c.Via = model.Via(more)
		}
	}
	return c
}

func newEvaluator(t testing.TB, topology *model.Topology, policies ...Policy) *Evaluator {
	t.Helper()
	e, err := New(topology, policies)
	require.NoError(t, err)
	return e
}

func decide(t testing.TB, e *Evaluator, connection string) Decision {
	t.Helper()
	d, err := e.Decide(conn(connection))
	require.NoError(t, err)
	return d
}
