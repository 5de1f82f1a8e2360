package semantics

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/netproof/netproof/harness/model"
)

// expectation maps connections to what must come out: allow, deny:SIDE, undefined, or needs-addresses.
type expectation map[string]string

func outcome(d Decision) string {
	switch {
	case d.NeedsAddresses:
		return "needs-addresses"
	case d.Verdict == model.Deny:
		return "deny:" + string(d.By)
	default:
		return string(d.Verdict)
	}
}

type decisionCase struct {
	name     string
	topology func(*model.Topology)
	policies []Policy
	want     expectation
}

func runCases(t *testing.T, cases []decisionCase) {
	t.Helper()
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			topology := testTopology()
			if tc.topology != nil {
				tc.topology(topology)
			}
			e := newEvaluator(t, topology, tc.policies...)
			for c, want := range tc.want {
				d := decide(t, e, c)
				assert.Equal(t, want, outcome(d), "%s\n%s", c, d.Walk())
			}
		})
	}
}

// The section "The two sorts of pod isolation" and "Default policies" of the concept page.
func TestIsolationIsByDirectionAndRulesAddUp(t *testing.T) {
	runCases(t, []decisionCase{
		{
			name: "without policies everything is allowed",
			want: expectation{
				"x/a -> x/b 80/TCP": "allow", "x/a -> z/c 53/UDP IPv6": "allow", "host:db -> x/a 80/TCP": "allow",
				"x/a -> host:db 5432/TCP": "allow", "node:1 -> x/a 80/TCP": "allow", "x/a -> node:1 22/TCP": "allow",
			},
		},
		{
			name:     "default deny ingress isolates every pod of the namespace and no other",
			policies: []Policy{makePolicy("deny", "x", typeIngress)},
			want: expectation{
				"x/b -> x/a 80/TCP": "deny:ingress", "y/a -> x/a 80/TCP": "deny:ingress", "host:db -> x/a 80/TCP": "deny:ingress",
				"x/a -> y/a 80/TCP": "allow", "x/a -> host:db 80/TCP": "allow", "y/a -> y/b 80/TCP": "allow",
			},
		},
		{
			name:     "allow all ingress wins over every other policy",
			policies: []Policy{makePolicy("deny", "x", typeBoth), makePolicy("open", "x", typeIngress, ingressRule())},
			want: expectation{
				"y/a -> x/a 80/TCP": "allow", "host:db -> x/a 90/SCTP": "allow", "x/b -> x/a 80/TCP": "deny:egress",
			},
		},
		{
			name:     "default deny egress does not change ingress",
			policies: []Policy{makePolicy("deny", "x", typeEgress)},
			want: expectation{
				"x/a -> x/b 80/TCP": "deny:egress", "x/a -> host:db 80/TCP": "deny:egress", "x/a -> node:1 80/TCP": "deny:egress",
				"y/a -> x/a 80/TCP": "allow",
			},
		},
		{
			name:     "allow all egress wins over every other policy",
			policies: []Policy{makePolicy("deny", "x", typeEgress), makePolicy("open", "x", typeEgress, egressRule())},
			want:     expectation{"x/a -> x/b 80/TCP": "allow", "x/a -> host:db 80/TCP": "allow"},
		},
		{
			name:     "default deny of both is refused by both sides",
			policies: []Policy{makePolicy("deny", "x", typeBoth)},
			want: expectation{
				"x/a -> x/b 80/TCP": "deny:both", "x/a -> y/a 80/TCP": "deny:egress", "y/a -> x/a 80/TCP": "deny:ingress",
			},
		},
		{
			name: "both sides must allow",
			policies: []Policy{
				makePolicy("out", "x", selecting("pod=a"), typeEgress, egressRule(podsIn("ns=y", "pod=b"))),
				makePolicy("in", "y", selecting("pod=b"), typeIngress, ingressRule(podsIn("ns=x", "pod=a"))),
			},
			want: expectation{
				"x/a -> y/b 80/TCP": "allow", "x/a -> y/a 80/TCP": "deny:egress", "x/b -> y/b 80/TCP": "deny:ingress",
				"y/b -> x/a 80/TCP": "allow",
			},
		},
		{
			name: "rules and policies are a union",
			policies: []Policy{
				makePolicy("a", "x", selecting("pod=b"), ingressRule(podsOf("pod=a"), on("80")), ingressRule(podsOf("pod=c"), on("81"))),
				makePolicy("b", "x", ingressRule(namespacesOf("ns=y"))),
			},
			want: expectation{
				"x/a -> x/b 80/TCP": "allow", "x/a -> x/b 81/TCP": "deny:ingress", "x/c -> x/b 81/TCP": "allow",
				"x/c -> x/b 80/TCP": "deny:ingress", "y/c -> x/b 53/UDP": "allow", "z/a -> x/b 80/TCP": "deny:ingress",
			},
		},
		{
			name:     "a pod cannot block access to itself",
			policies: []Policy{makePolicy("deny", "x", typeBoth)},
			want:     expectation{"x/a -> x/a 80/TCP": "allow"},
		},
		{
			name:     "a policy in a namespace without pods selects none",
			policies: []Policy{makePolicy("deny", "elsewhere", typeBoth)},
			want:     expectation{"x/a -> x/b 80/TCP": "allow"},
		},
		{
			name:     "connections without a pod are none of policy's business",
			policies: []Policy{makePolicy("deny", "x", typeBoth)},
			want:     expectation{"node:0 -> host:db 80/TCP": "allow", "host:db -> node:1 80/TCP": "allow"},
		},
	})
}

// "policyTypes" in the section "The NetworkPolicy resource".
func TestPolicyTypesDefaultAsTheAPIServerDoes(t *testing.T) {
	in, out := "y/a -> x/a 80/TCP", "x/a -> y/a 80/TCP"
	runCases(t, []decisionCase{
		{
			name: "absent without rules is ingress", policies: []Policy{makePolicy("p", "x")},
			want: expectation{in: "deny:ingress", out: "allow"},
		},
		{
			name: "absent with egress rules is both", policies: []Policy{makePolicy("p", "x", egressRule(podsOf("")))},
			want: expectation{in: "deny:ingress", out: "deny:egress"},
		},
		{
			name: "absent with an empty list of egress rules is ingress",
			policies: []Policy{makePolicy("p", "x", func(p *networkingv1.NetworkPolicy) {
				p.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{}
			})},
			want: expectation{in: "deny:ingress", out: "allow"},
		},
		{
			name: "an empty list is an absent one", policies: []Policy{makePolicy("p", "x", types())},
			want: expectation{in: "deny:ingress", out: "allow"},
		},
		{
			name:     "egress only leaves ingress open, whatever ingress rules say",
			policies: []Policy{makePolicy("p", "x", typeEgress, ingressRule(podsOf("no=such")))},
			want:     expectation{in: "allow", out: "deny:egress"},
		},
		{
			name:     "ingress only leaves egress open, whatever egress rules say",
			policies: []Policy{makePolicy("p", "x", typeIngress, egressRule(podsOf("no=such")))},
			want:     expectation{in: "deny:ingress", out: "allow"},
		},
	})
}

// The example of the section "The NetworkPolicy resource": db pods, three kinds of sources, one block of destinations.
func TestTheResourceExample(t *testing.T) {
	runCases(t, []decisionCase{{
		name: "admits what the page lists and nothing else",
		topology: func(topo *model.Topology) {
			topo.Namespaces = []model.Namespace{
				{Name: "default"}, {Name: "mine", Labels: model.Labels{"project": "myproject"}}, {Name: "other"},
			}
			pod := func(ns, name, role, ip string) model.Pod {
				return model.Pod{Namespace: ns, Name: name, Labels: model.Labels{"role": role}, Addresses: addrs(ip)}
			}
			topo.Pods = []model.Pod{
				pod("default", "db", "db", "192.168.0.1"), pod("default", "web", "frontend", "192.168.0.2"),
				pod("default", "job", "batch", "192.168.0.3"), pod("mine", "any", "thing", "192.168.0.4"),
				pod("other", "web", "frontend", "192.168.0.5"),
			}
			topo.Hosts = []model.Host{
				{Name: "inside", Addresses: addrs("172.17.0.255")}, {Name: "excepted", Addresses: addrs("172.17.1.1")},
				{Name: "above", Addresses: addrs("172.17.2.0")}, {Name: "outside", Addresses: addrs("172.18.0.1")},
				{Name: "target", Addresses: addrs("10.0.0.9")}, {Name: "beside", Addresses: addrs("10.0.1.9")},
			}
		},
		policies: []Policy{makePolicy("example", "default", selecting("role=db"), typeBoth,
			ingressRule(block("172.17.0.0/16", "172.17.1.0/24"), namespacesOf("project=myproject"),
				podsOf("role=frontend"), on("6379/TCP")),
			egressRule(block("10.0.0.0/24"), on("5978/TCP")))},
		want: expectation{
			"default/web -> default/db 6379/TCP":   "allow",
			"mine/any -> default/db 6379/TCP":      "allow",
			"host:inside -> default/db 6379/TCP":   "allow",
			"host:above -> default/db 6379/TCP":    "allow",
			"default/web -> default/db 6380/TCP":   "deny:ingress",
			"default/web -> default/db 6379/UDP":   "deny:ingress",
			"default/job -> default/db 6379/TCP":   "deny:ingress",
			"other/web -> default/db 6379/TCP":     "deny:ingress",
			"host:excepted -> default/db 6379/TCP": "deny:ingress",
			"host:outside -> default/db 6379/TCP":  "deny:ingress",
			"default/db -> host:target 5978/TCP":   "allow",
			"default/db -> host:target 5979/TCP":   "deny:egress",
			"default/db -> host:beside 5978/TCP":   "deny:egress",
			"default/db -> default/web 80/TCP":     "deny:egress",
			"default/web -> default/job 80/TCP":    "allow",
		},
	}})
}

// The section "Behavior of to and from selectors".
func TestPeerSelectors(t *testing.T) {
	to := func(parts ...part) []Policy {
		return []Policy{makePolicy("p", "x", selecting("pod=a"), ingressRule(parts...))}
	}
	runCases(t, []decisionCase{
		{
			name: "podSelector alone means the policy's namespace", policies: to(podsOf("pod=b")),
			want: expectation{"x/b -> x/a 80/TCP": "allow", "y/b -> x/a 80/TCP": "deny:ingress", "x/c -> x/a 80/TCP": "deny:ingress"},
		},
		{
			name: "namespaceSelector alone means every pod there", policies: to(namespacesOf("ns=y")),
			want: expectation{"y/a -> x/a 80/TCP": "allow", "y/c -> x/a 80/TCP": "allow", "x/b -> x/a 80/TCP": "deny:ingress"},
		},
		{
			name: "both in one entry are a conjunction", policies: to(podsIn("ns=y", "pod=b")),
			want: expectation{"y/b -> x/a 80/TCP": "allow", "y/a -> x/a 80/TCP": "deny:ingress", "x/b -> x/a 80/TCP": "deny:ingress"},
		},
		{
			name: "in two entries they are a disjunction, and the pods are local", policies: to(namespacesOf("ns=y"), podsOf("pod=b")),
			want: expectation{
				"y/a -> x/a 80/TCP": "allow", "x/b -> x/a 80/TCP": "allow", "z/b -> x/a 80/TCP": "deny:ingress",
			},
		},
		{
			name: "an empty podSelector means every pod of the namespace", policies: to(podsOf("")),
			want: expectation{"x/c -> x/a 80/TCP": "allow", "y/a -> x/a 80/TCP": "deny:ingress", "host:db -> x/a 80/TCP": "deny:ingress"},
		},
		{
			name: "an empty namespaceSelector means every pod, but no node and no outside address", policies: to(namespacesOf("")),
			want: expectation{
				"x/c -> x/a 80/TCP": "allow", "z/b -> x/a 80/TCP": "allow",
				"host:db -> x/a 80/TCP": "deny:ingress", "node:1 -> x/a 80/TCP": "deny:ingress",
			},
		},
		{
			name: "an empty namespaceSelector with pods means these pods everywhere", policies: to(podsIn("", "pod=b")),
			want: expectation{"x/b -> x/a 80/TCP": "allow", "z/b -> x/a 80/TCP": "allow", "z/c -> x/a 80/TCP": "deny:ingress"},
		},
		{
			name: "a namespace can be named by the label the control plane sets", policies: to(namespacesOf("kubernetes.io/metadata.name=z")),
			want: expectation{"z/b -> x/a 80/TCP": "allow", "y/b -> x/a 80/TCP": "deny:ingress"},
		},
		{
			name: "several namespaces by expression", policies: to(namespacesOf("ns in (x,y)")),
			want: expectation{"x/b -> x/a 80/TCP": "allow", "y/b -> x/a 80/TCP": "allow", "z/b -> x/a 80/TCP": "deny:ingress"},
		},
		{
			name: "NotIn and DoesNotExist match pods without the label", policies: to(podsOf("pod notin (b),!tier")),
			want: expectation{"x/c -> x/a 80/TCP": "allow", "x/b -> x/a 80/TCP": "deny:ingress"},
		},
		{
			name: "Exists asks for the key only", policies: to(podsOf("pod")),
			want: expectation{"x/c -> x/a 80/TCP": "allow"},
		},
		{
			name: "a pod without the label is not in the set", policies: to(podsOf("tier in (a,b)")),
			want: expectation{"x/c -> x/a 80/TCP": "deny:ingress"},
		},
		{
			name: "an empty list of peers is an absent one", policies: to(noPeers, on("80")),
			want: expectation{"host:db -> x/a 80/TCP": "allow", "z/b -> x/a 81/TCP": "deny:ingress"},
		},
		{
			name:     "policies and pods select by expression too",
			policies: []Policy{makePolicy("p", "x", selecting("pod in (a,b),pod notin (b)"))},
			want:     expectation{"y/a -> x/a 80/TCP": "deny:ingress", "y/a -> x/b 80/TCP": "allow"},
		},
	})
}

func TestANamespaceThatTheTopologyDoesNotListHasItsName(t *testing.T) {
	topology := testTopology()
	topology.Namespaces = nil
	e := newEvaluator(t, topology, makePolicy("p", "x", ingressRule(namespacesOf("kubernetes.io/metadata.name=y"))))
	assert.Equal(t, model.Allow, decide(t, e, "y/a -> x/a 80/TCP").Verdict)
	assert.Equal(t, model.Deny, decide(t, e, "z/a -> x/a 80/TCP").Verdict)
}

func TestAnAbsentListOfRulesAndAnEmptyRuleDiffer(t *testing.T) {
	empty := makePolicy("p", "x", func(p *networkingv1.NetworkPolicy) {
		p.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{}
	})
	runCases(t, []decisionCase{
		{name: "ingress: []", policies: []Policy{empty}, want: expectation{"y/a -> x/a 80/TCP": "deny:ingress"}},
		{
			name: "ingress: [{}]", policies: []Policy{makePolicy("p", "x", ingressRule())},
			want: expectation{"y/a -> x/a 80/TCP": "allow", "host:db -> x/a 53/UDP": "allow"},
		},
		{
			name: "ingress: [{from: [], ports: []}]", policies: []Policy{makePolicy("p", "x", ingressRule(noPeers, noPorts))},
			want: expectation{"y/a -> x/a 80/TCP": "allow", "host:db -> x/a 53/UDP": "allow"},
		},
	})
}

func TestPorts(t *testing.T) {
	in := func(parts ...part) []Policy {
		return []Policy{makePolicy("p", "x", selecting("pod=a"), ingressRule(parts...))}
	}
	out := func(parts ...part) []Policy {
		return []Policy{makePolicy("p", "x", selecting("pod=a"), typeEgress, egressRule(parts...))}
	}
	runCases(t, []decisionCase{
		{
			name: "the protocol defaults to TCP", policies: in(on("53")),
			want: expectation{"x/b -> x/a 53/TCP": "allow", "x/b -> x/a 53/UDP": "deny:ingress"},
		},
		{
			name: "without a port the protocol alone counts", policies: in(on("/UDP")),
			want: expectation{"x/b -> x/a 53/UDP": "allow", "x/b -> x/a 9999/UDP": "allow", "x/b -> x/a 53/TCP": "deny:ingress"},
		},
		{
			name: "without port and protocol every TCP port matches", policies: in(on("")),
			want: expectation{"x/b -> x/a 81/TCP": "allow", "x/b -> x/a 53/UDP": "deny:ingress"},
		},
		{
			name: "SCTP is a protocol like the others", policies: in(on("90/SCTP")),
			want: expectation{"x/b -> x/a 90/SCTP": "allow", "x/b -> x/a 90/TCP": "deny:ingress"},
		},
		{
			name: "a list of ports is a disjunction", policies: in(on("80"), on("53/UDP")),
			want: expectation{"x/b -> x/a 80/TCP": "allow", "x/b -> x/a 53/UDP": "allow", "x/b -> x/a 81/TCP": "deny:ingress"},
		},
		{
			name: "endPort makes an inclusive range", policies: in(on("80-81/TCP")),
			want: expectation{
				"x/b -> x/a 79/TCP": "deny:ingress", "x/b -> x/a 80/TCP": "allow", "x/b -> x/a 81/TCP": "allow",
				"x/b -> x/a 82/TCP": "deny:ingress", "x/b -> x/a 80/UDP": "deny:ingress",
			},
		},
		{
			name: "a range may hold one port", policies: in(on("80-80/TCP")),
			want: expectation{"x/b -> x/a 80/TCP": "allow", "x/b -> x/a 81/TCP": "deny:ingress"},
		},
		{
			name: "the page's example of a range: egress to a block", policies: out(block("198.51.100.0/24"), on("32000-32768/TCP")),
			want: expectation{
				"x/a -> host:db 32000/TCP": "allow", "x/a -> host:db 32768/TCP": "allow",
				"x/a -> host:db 31999/TCP": "deny:egress", "x/a -> host:db 32769/TCP": "deny:egress", "x/a -> y/a 32000/TCP": "deny:egress",
			},
		},
		{
			name: "a name is looked up on the destination pod, with its protocol", policies: in(on("http/TCP")),
			want: expectation{"x/b -> x/a 80/TCP": "allow", "x/b -> x/a 81/TCP": "deny:ingress", "x/b -> x/a 80/UDP": "deny:ingress"},
		},
		{
			name: "a name shared by two protocols counts for the one the rule names", policies: in(on("dns/UDP")),
			want: expectation{"x/b -> x/a 53/UDP": "allow", "x/b -> x/a 53/TCP": "deny:ingress"},
		},
		{
			name: "a name that two containers give to different ports counts for the one of the rule's protocol", policies: in(on("dns/TCP")),
			topology: func(topo *model.Topology) {
				topo.Pods[0].Ports = []model.Port{
					{Name: "dns", Number: 53, Protocol: model.UDP}, {Name: "dns", Number: 5353, Protocol: model.TCP},
				}
			},
			want: expectation{"x/b -> x/a 5353/TCP": "allow", "x/b -> x/a 53/TCP": "deny:ingress"},
		},
		{
			name: "a name that the pod does not have matches nothing", policies: in(on("metrics/TCP")),
			want: expectation{"x/b -> x/a 80/TCP": "deny:ingress"},
		},
		{
			name: "for egress the name is the destination's, not the source's", policies: out(on("http/TCP")),
			topology: func(topo *model.Topology) {
				y := &topo.Pods[3]
				y.Ports = []model.Port{{Name: "http", Number: 8080, Protocol: model.TCP}}
			},
			want: expectation{
				"x/a -> y/a 8080/TCP": "allow", "x/a -> y/a 80/TCP": "deny:egress", "x/a -> y/b 80/TCP": "allow",
				"x/a -> host:db 80/TCP": "deny:egress",
			},
		},
		{
			name: "a name works beside a block that holds the pod's address", policies: out(block("10.0.0.0/8"), on("http/TCP")),
			want: expectation{"x/a -> y/a 80/TCP": "allow", "x/a -> y/a 81/TCP": "deny:egress"},
		},
		{
			name: "a name works for ingress from a block", policies: in(block("198.51.100.0/24"), on("http/TCP")),
			want: expectation{"host:db -> x/a 80/TCP": "allow", "host:db -> x/a 81/TCP": "deny:ingress"},
		},
	})
}

func TestIPBlocks(t *testing.T) {
	in := func(parts ...part) []Policy {
		return []Policy{makePolicy("p", "x", selecting("pod=a"), ingressRule(parts...))}
	}
	out := func(parts ...part) []Policy {
		return []Policy{makePolicy("p", "x", selecting("pod=a"), typeEgress, egressRule(parts...))}
	}
	unplaced := func(topo *model.Topology) {
		for i := range topo.Pods {
			topo.Pods[i].Addresses = nil
		}
		topo.Nodes, topo.Hosts[0].Addresses = nil, nil
	}
	runCases(t, []decisionCase{
		{
			name: "a block matches the address of a pod, as the end-to-end tests require", policies: out(block("10.0.1.1/32")),
			want: expectation{"x/a -> y/a 80/TCP": "allow", "x/a -> y/b 80/TCP": "deny:egress"},
		},
		{
			name: "except takes out what it lists", policies: in(block("10.0.0.0/8", "10.0.1.0/24", "10.0.2.2/32")),
			want: expectation{
				"x/b -> x/a 80/TCP": "allow", "y/a -> x/a 80/TCP": "deny:ingress", "z/a -> x/a 80/TCP": "allow", "z/b -> x/a 80/TCP": "deny:ingress",
			},
		},
		{
			name:     "what one block excepts another may admit",
			policies: in(block("10.0.0.0/8", "10.0.1.0/24"), block("10.0.1.1/32")),
			want:     expectation{"y/a -> x/a 80/TCP": "allow", "y/b -> x/a 80/TCP": "deny:ingress"},
		},
		{
			name: "a block of one family does not match the other", policies: in(block("0.0.0.0/0")),
			want: expectation{"x/b -> x/a 80/TCP": "allow", "x/b -> x/a 80/TCP IPv6": "deny:ingress", "host:db -> x/a 80/TCP": "allow"},
		},
		{
			name: "IPv6 blocks", policies: in(block("fd00::/32", "fd00::1:0/112")),
			want: expectation{"x/b -> x/a 80/TCP IPv6": "allow", "y/b -> x/a 80/TCP IPv6": "deny:ingress", "x/b -> x/a 80/TCP": "deny:ingress"},
		},
		{
			name: "bits beyond the prefix do not matter", policies: in(block("10.0.1.77/24")),
			want: expectation{"y/b -> x/a 80/TCP": "allow", "x/b -> x/a 80/TCP": "deny:ingress"},
		},
		{
			name: "nodes are matched by address only", policies: in(block("172.18.0.11/32")),
			want: expectation{"node:1 -> x/a 80/TCP": "allow", "x/b -> x/a 80/TCP": "deny:ingress"},
		},
		{
			name: "egress to another node is matched by address", policies: out(block("172.18.0.11/32"), on("22")),
			want: expectation{"x/a -> node:1 22/TCP": "allow", "x/a -> node:1 23/TCP": "deny:egress"},
		},
		{
			name: "without addresses the verdict waits", topology: unplaced, policies: in(block("10.0.1.0/24")),
			want: expectation{
				"y/a -> x/a 80/TCP": "needs-addresses", "host:db -> x/a 80/TCP": "needs-addresses", "node:1 -> x/a 80/TCP": "needs-addresses",
				"x/a -> y/a 80/TCP": "allow",
			},
		},
		{
			name: "without addresses a rule that matches anyway decides", topology: unplaced,
			policies: in(block("10.0.1.0/24"), namespacesOf("ns=y")),
			want:     expectation{"y/a -> x/a 80/TCP": "allow", "z/a -> x/a 80/TCP": "needs-addresses"},
		},
		{
			name: "without addresses the port may decide", topology: unplaced, policies: in(block("10.0.1.0/24"), on("80")),
			want: expectation{"y/a -> x/a 81/TCP": "deny:ingress", "y/a -> x/a 80/TCP": "needs-addresses"},
		},
		{
			name: "without addresses a block of the whole family, or of the other, decides", topology: unplaced,
			policies: in(block("0.0.0.0/0")),
			want:     expectation{"y/a -> x/a 80/TCP": "allow", "y/a -> x/a 80/TCP IPv6": "deny:ingress"},
		},
		{
			name: "without addresses the other side may decide", topology: unplaced,
			policies: append(in(block("10.0.1.0/24")), makePolicy("deny", "y", typeEgress)),
			want:     expectation{"y/a -> x/a 80/TCP": "deny:egress"},
		},
	})
}

// The overview's exceptions, and where the page contradicts itself about them.
func TestThePodsOwnNode(t *testing.T) {
	deny := []Policy{makePolicy("deny", "x", typeBoth)}
	runCases(t, []decisionCase{
		{
			name: "a pod cannot block access from its own node", policies: deny,
			want: expectation{"node:0 -> x/a 80/TCP": "allow", "node:1 -> x/a 80/TCP": "deny:ingress", "node:1 -> x/c 80/TCP": "allow"},
		},
		{
			name: "access to its own node is open: the page says both", policies: deny,
			want: expectation{"x/a -> node:0 80/TCP": "undefined", "x/a -> node:1 80/TCP": "deny:egress", "x/c -> node:1 80/TCP": "undefined"},
		},
		{
			name:     "access to its own node by a rule is not open",
			policies: []Policy{makePolicy("p", "x", typeEgress, egressRule(block("172.18.0.0/16")))},
			want:     expectation{"x/a -> node:0 80/TCP": "allow"},
		},
		{
			name: "a node with several addresses may send from any of them",
			topology: func(topo *model.Topology) {
				topo.Nodes[1].Addresses = addrs("172.18.0.11", "10.9.9.9")
			},
			policies: []Policy{makePolicy("p", "x", selecting("pod=a"), ingressRule(block("172.18.0.0/16"), on("80")),
				ingressRule(block("0.0.0.0/0"), on("81")), ingressRule(block("192.0.2.0/24"), on("82")))},
			want: expectation{
				"node:1 -> x/a 80/TCP": "undefined", "node:1 -> x/a 81/TCP": "allow", "node:1 -> x/a 82/TCP": "deny:ingress",
			},
		},
		{
			name:     "nodes need no entry in the topology",
			topology: func(topo *model.Topology) { topo.Nodes = nil },
			policies: deny,
			want:     expectation{"node:0 -> x/a 80/TCP": "allow", "node:7 -> x/a 80/TCP": "deny:ingress"},
		},
	})
}

// The section "NetworkPolicy and hostNetwork pods": undefined exactly where the two possibilities differ.
func TestHostNetworkPods(t *testing.T) {
	// x/b is on node 0 with x/a; x/c and y/c are on node 1.
	shared := func(pods ...model.Endpoint) func(*model.Topology) {
		return func(topo *model.Topology) {
			for _, name := range pods {
				pod, _ := topo.Pod(name)
				pod.HostNetwork = true
				pod.Addresses = topo.Nodes[pod.Node].Addresses
			}
		}
	}
	runCases(t, []decisionCase{
		{
			name: "selected by a policy: open", topology: shared("x/c"), policies: []Policy{makePolicy("deny", "x", selecting("pod=c"), typeBoth)},
			want: expectation{"y/a -> x/c 80/TCP": "undefined", "x/c -> y/a 80/TCP": "undefined"},
		},
		{
			name: "selected, and admitted: both possibilities allow", topology: shared("x/c"),
			policies: []Policy{makePolicy("p", "x", selecting("pod=c"), ingressRule(namespacesOf("ns=y")))},
			want:     expectation{"y/a -> x/c 80/TCP": "allow", "z/a -> x/c 80/TCP": "undefined"},
		},
		{
			name: "as a peer by selector: open", topology: shared("x/c"),
			policies: []Policy{makePolicy("p", "y", ingressRule(podsIn("ns=x", "pod=c")))},
			want:     expectation{"x/c -> y/a 80/TCP": "undefined"},
		},
		{
			name: "as a peer that no rule admits: denied by both", topology: shared("x/c"),
			policies: []Policy{makePolicy("p", "y", ingressRule(podsIn("ns=x", "pod=a")))},
			want:     expectation{"x/c -> y/a 80/TCP": "deny:ingress"},
		},
		{
			name: "as a peer by address: allowed by both, like its node", topology: shared("x/c"),
			policies: []Policy{makePolicy("p", "y", ingressRule(block("172.18.0.11/32")))},
			want:     expectation{"x/c -> y/a 80/TCP": "allow", "node:1 -> y/a 80/TCP": "allow"},
		},
		{
			name: "on the pod's own node: its connections are node connections", topology: shared("x/b"),
			policies: []Policy{makePolicy("deny", "y", typeIngress)},
			want:     expectation{"x/b -> y/a 80/TCP": "allow", "x/b -> y/c 80/TCP": "deny:ingress"},
		},
		{
			name: "as the destination of an egress rule by selector: open", topology: shared("x/c"),
			policies: []Policy{makePolicy("p", "y", selecting("pod=a"), typeEgress, egressRule(podsIn("ns=x", "pod=c")))},
			want:     expectation{"y/a -> x/c 80/TCP": "undefined"},
		},
		{
			name: "as the destination of an egress rule with a port name: open", topology: shared("x/c"),
			policies: []Policy{makePolicy("p", "y", selecting("pod=a"), typeEgress, egressRule(on("http/TCP")))},
			want:     expectation{"y/a -> x/c 80/TCP": "undefined", "y/a -> x/a 80/TCP": "allow"},
		},
		{
			name: "without addresses of its own it has its node's",
			topology: func(topo *model.Topology) {
				topo.Pods[2].HostNetwork, topo.Pods[2].Addresses = true, nil
			},
			policies: []Policy{makePolicy("p", "y", typeEgress, egressRule(block("172.18.0.11/32")))},
			want:     expectation{"y/a -> x/c 80/TCP": "allow"},
		},
		{
			name: "to itself it is allowed", topology: shared("x/c"), policies: []Policy{makePolicy("deny", "x", typeBoth)},
			want: expectation{"x/c -> x/c 80/TCP": "allow"},
		},
	})
}

func withService(port, target string) func(*model.Topology) {
	return func(topo *model.Topology) {
		p := policyPort(port)
		topo.Services = []model.Service{{
			Namespace: "y", Name: "web", Selector: model.Labels{"pod": "b"}, Addresses: addrs("10.96.0.1", "fd96::1"),
			Ports: []model.ServicePort{{
				Port: model.Port{Number: p.Port.IntValue(), Protocol: model.Protocol(*p.Protocol)}, Target: target,
			}},
		}}
	}
}

// The section "Behavior of to and from selectors" on rewriting, and the tutorial "Using Source IP".
func TestServices(t *testing.T) {
	both := func(topo *model.Topology) {
		withService("80/TCP", "")(topo)
		topo.Services[0].Selector = model.Labels{"tier": "web"}
		for _, name := range []model.Endpoint{"y/a", "y/b"} {
			pod, _ := topo.Pod(name)
			pod.Labels = model.Labels{"pod": pod.Name, "tier": "web"}
		}
	}
	out := func(parts ...part) []Policy {
		return []Policy{makePolicy("p", "x", selecting("pod=a"), typeEgress, egressRule(parts...))}
	}
	svc, nodePort := "x/a -> y/web 80/TCP service", "x/a -> y/web 80/TCP nodePort"
	runCases(t, []decisionCase{
		{name: "without policies", topology: withService("80/TCP", ""), want: expectation{svc: "allow", nodePort: "allow"}},
		{
			name: "the pod behind the service decides", topology: withService("80/TCP", ""),
			policies: []Policy{makePolicy("deny", "y", selecting("pod=b"), ingressRule(podsIn("ns=x", "pod=a")))},
			want:     expectation{svc: "allow", "x/b -> y/web 80/TCP service": "deny:ingress"},
		},
		{
			name: "selectors match the pod behind the service", topology: withService("80/TCP", ""), policies: out(podsIn("ns=y", "pod=b"), on("80")),
			want: expectation{svc: "allow"},
		},
		{
			name: "a selector rule speaks of the pod's port", topology: withService("80/TCP", "81"), policies: out(podsIn("ns=y", "pod=b"), on("81")),
			want: expectation{svc: "allow"},
		},
		{
			name: "a selector rule does not speak of the service's port", topology: withService("80/TCP", "81"), policies: out(podsIn("ns=y", "pod=b"), on("80")),
			want: expectation{svc: "deny:egress"},
		},
		{
			name: "a rule for any peer may see either port", topology: withService("80/TCP", "81"), policies: out(on("80")),
			want: expectation{svc: "undefined"},
		},
		{
			name: "a block with the pod's address is open: before or after the rewriting", topology: withService("80/TCP", ""), policies: out(block("10.0.1.2/32")),
			want: expectation{svc: "undefined"},
		},
		{
			name: "a block with the service's address is open too", topology: withService("80/TCP", ""), policies: out(block("10.96.0.0/16")),
			want: expectation{svc: "undefined"},
		},
		{
			name: "a block with both addresses is not open", topology: withService("80/TCP", ""), policies: out(block("10.0.0.0/8")),
			want: expectation{svc: "allow"},
		},
		{
			name: "a block with neither is not open", topology: withService("80/TCP", ""), policies: out(block("192.0.2.0/24")),
			want: expectation{svc: "deny:egress"},
		},
		{
			name: "a service without an address yet makes a block wait",
			topology: func(topo *model.Topology) {
				withService("80/TCP", "")(topo)
				topo.Services[0].Addresses = nil
			},
			policies: out(block("10.0.0.0/8")),
			want:     expectation{svc: "needs-addresses"},
		},
		{
			name: "the target may be a name, resolved for each pod", topology: withService("443/TCP", "http"),
			policies: []Policy{makePolicy("p", "y", ingressRule(on("80")))},
			want:     expectation{"x/a -> y/web 443/TCP service": "allow"},
		},
		{
			name: "a pod without the target's name is not an endpoint", topology: withService("80/TCP", "metrics"),
			want: expectation{svc: "undefined"},
		},
		{
			name: "a service without pods is open",
			topology: func(topo *model.Topology) {
				withService("80/TCP", "")(topo)
				topo.Services[0].Selector = model.Labels{"no": "such"}
			},
			want: expectation{svc: "undefined"},
		},
		{
			name: "a service without a selector is open",
			topology: func(topo *model.Topology) {
				withService("80/TCP", "")(topo)
				topo.Services[0].Selector = nil
			},
			want: expectation{svc: "undefined"},
		},
		{
			name: "pods that agree decide", topology: both, policies: []Policy{makePolicy("deny", "y", typeIngress)},
			want: expectation{svc: "deny:ingress"},
		},
		{
			name: "pods that differ leave it open", topology: both, policies: []Policy{makePolicy("deny", "y", selecting("pod=a"))},
			want: expectation{svc: "undefined"},
		},
		{
			name: "a pod that reaches itself through a service is open", topology: withService("80/TCP", ""),
			policies: []Policy{makePolicy("deny", "y", typeBoth)},
			want:     expectation{"y/b -> y/web 80/TCP service": "undefined", "y/b -> y/b 80/TCP": "allow"},
		},
		{
			name: "a pod that reaches itself through a service by a rule is not open", topology: withService("80/TCP", ""),
			policies: []Policy{makePolicy("local", "y", typeBoth, ingressRule(podsOf("")), egressRule(podsOf("")))},
			want:     expectation{"y/b -> y/web 80/TCP service": "allow"},
		},
		{
			name: "an outside client's address may be rewritten", topology: withService("80/TCP", ""),
			policies: []Policy{makePolicy("p", "y", ingressRule(block("198.51.100.0/24")))},
			want:     expectation{"host:db -> y/web 80/TCP service": "undefined", "host:db -> y/b 80/TCP": "allow"},
		},
		{
			name: "a node port may hide the source: a pod's own node is always let in", topology: withService("80/TCP", ""),
			policies: []Policy{makePolicy("p", "y", selecting("pod=b"))},
			want:     expectation{nodePort: "undefined"},
		},
		{
			name: "a node port may hide a source that a rule admits", topology: withService("80/TCP", ""),
			policies: []Policy{makePolicy("p", "y", ingressRule(podsIn("ns=x", "pod=a")))},
			want:     expectation{nodePort: "undefined"},
		},
		{
			name: "a node port hides nothing from a rule for any peer", topology: withService("80/TCP", ""),
			policies: []Policy{makePolicy("p", "y", ingressRule(on("80")))},
			want:     expectation{nodePort: "allow"},
		},
		{
			name: "with one node a node port hides nothing from a rule that admits the source",
			topology: func(topo *model.Topology) {
				withService("80/TCP", "")(topo)
				topo.Nodes = topo.Nodes[:1]
				for i := range topo.Pods {
					topo.Pods[i].Node = 0
				}
			},
			policies: []Policy{makePolicy("p", "y", ingressRule(podsIn("ns=x", "pod=a")))},
			want:     expectation{nodePort: "allow"},
		},
		{
			name: "egress to a node port by block: the nodes' addresses or the pod's", topology: withService("80/TCP", ""),
			policies: out(block("0.0.0.0/0")),
			want:     expectation{nodePort: "allow"},
		},
		{
			name: "egress to a node port by port: the number is not known", topology: withService("80/TCP", ""),
			policies: out(block("0.0.0.0/0"), on("80")),
			want:     expectation{nodePort: "undefined"},
		},
		{
			name: "egress to every node port and to the pod's port", topology: withService("80/TCP", ""),
			policies: out(block("0.0.0.0/0"), on("80"), on("30000-32767/TCP")),
			want:     expectation{nodePort: "allow"},
		},
		{
			name: "egress to one node port may not be the one", topology: withService("80/TCP", ""),
			policies: out(block("0.0.0.0/0"), on("80"), on("30080/TCP")),
			want:     expectation{nodePort: "undefined"},
		},
		{
			name: "egress to ports that are no node ports", topology: withService("80/TCP", ""), policies: out(on("443")),
			want: expectation{nodePort: "undefined"}, // Through the pod's own node the contradiction about it counts.
		},
		{
			name: "a pod without an address of the family is not an endpoint",
			topology: func(topo *model.Topology) {
				both(topo)
				pod, _ := topo.Pod("y/a")
				pod.Addresses = pod.Addresses[:1]
			},
			policies: []Policy{makePolicy("deny", "y", selecting("pod=a"))},
			want:     expectation{svc + " IPv6": "allow", svc: "undefined"},
		},
		{
			name: "an entry node without an address of the family cannot be one",
			topology: func(topo *model.Topology) {
				withService("80/TCP", "")(topo)
				topo.Nodes[1].Addresses = topo.Nodes[1].Addresses[:1]
			},
			policies: []Policy{makePolicy("p", "y", selecting("pod=b"), ingressRule(podsIn("ns=x", "pod=a")))},
			want:     expectation{nodePort + " IPv6": "allow", nodePort: "undefined"},
		},
	})
}

func TestDecisionsNameThePoliciesAndRulesThatCount(t *testing.T) {
	deny := makePolicy("deny", "x", typeBoth)
	out := makePolicy("out", "x", typeEgress, egressRule(podsOf("pod=z")), egressRule(podsOf("pod=b")))
	in := makePolicy("in", "x", selecting("pod=b"), ingressRule(podsOf("pod=a")))
	e := newEvaluator(t, testTopology(), out, in, deny)

	d := decide(t, e, "x/a -> x/b 80/TCP")
	assert.Equal(t, model.Allow, d.Verdict)
	assert.Equal(t, []Policy{deny, out}, d.Egress.Isolating)
	assert.Equal(t, []Rule{{out, "egress[1]"}}, d.Egress.Admitting)
	assert.Equal(t, []Policy{deny, in}, d.Ingress.Isolating)
	assert.Equal(t, []Rule{{in, "ingress[0]"}}, d.Ingress.Admitting)
	assert.Equal(t, []Policy{in, out}, d.DecidingPolicies())
	assert.Empty(t, d.NearMisses())

	d = decide(t, e, "x/c -> x/b 80/TCP")
	assert.Equal(t, model.ByIngress, d.By)
	assert.Equal(t, model.Allow, d.Egress.Verdict)
	assert.Equal(t, model.Deny, d.Ingress.Verdict)
	assert.Equal(t, []Policy{deny, in}, d.DecidingPolicies())
	assert.Equal(t, []NearMiss{{
		Side: model.ByIngress, Rule: Rule{in, "ingress[0]"}, Peer: "from[0]", But: []string{"label pod of x/c is c, not a"},
	}}, d.NearMisses())

	d = decide(t, e, "y/a -> y/b 80/TCP")
	assert.Empty(t, d.DecidingPolicies())

	d = decide(t, e, "x/a -> node:0 80/TCP")
	assert.Equal(t, model.Undefined, d.Verdict)
	assert.Equal(t, []Policy{deny, out}, d.DecidingPolicies())
}

func TestTheRefusingSideMayDependOnTheBackend(t *testing.T) {
	topology := testTopology()
	topology.Services = []model.Service{{
		Namespace: "y", Name: "web", Selector: model.Labels{"tier": "web"},
		Ports: []model.ServicePort{{Port: model.Port{Number: 80, Protocol: model.TCP}}},
	}}
	topology.Pods[3].Labels = model.Labels{"pod": "a", "tier": "web"}
	topology.Pods[4].Labels = model.Labels{"pod": "b", "tier": "web"}
	in := makePolicy("in", "y", selecting("pod=a"))
	in2 := makePolicy("in2", "y", selecting("pod=b"), ingressRule(namespacesOf("")))
	out := makePolicy("out", "x", typeEgress, egressRule(podsIn("ns=y", "pod=a")))
	d := decide(t, newEvaluator(t, topology, in, in2, out), "x/a -> y/web 80/TCP service")
	assert.Equal(t, model.Deny, d.Verdict)
	assert.Equal(t, model.Undefined, d.Egress.Verdict)
	assert.Equal(t, model.Undefined, d.Ingress.Verdict)
	assert.Empty(t, d.By)
	assert.Equal(t, []Policy{in, in2}, d.Ingress.Isolating)
	assert.Equal(t, []Policy{out, in, in2}, d.DecidingPolicies())
}

func TestConnectionsThatCannotBeAreErrors(t *testing.T) {
	topology := testTopology()
	withService("80/TCP", "")(topology)
	topology.Pods[0].Addresses = topology.Pods[0].Addresses[:1]
	topology.Hosts[0].Addresses = topology.Hosts[0].Addresses[:1]
	topology.Nodes[1].Addresses = topology.Nodes[1].Addresses[:1]
	topology.Services[0].Addresses = topology.Services[0].Addresses[:1]
	e := newEvaluator(t, topology)
	for c, want := range map[string]string{
		"x/nobody -> x/a 80/TCP":           "there is no pod x/nobody",
		"x/a -> x/nobody 80/TCP":           "there is no pod x/nobody",
		"host:nobody -> x/a 80/TCP":        "there is no host host:nobody",
		"node:9 -> x/a 80/TCP":             "there is no node node:9",
		"node:one -> x/a 80/TCP":           "there is no node node:one",
		"x/a -> x/web 80/TCP service":      "there is no service x/web",
		"x/b -> y/web 443/TCP service":     "service y/web has no port 443/TCP",
		"x/b -> y/web 80/UDP service":      "service y/web has no port 80/UDP",
		"x/a -> x/b 80/TCP IPv6":           "x/a has no IPv6 address",
		"x/b -> x/a 80/TCP IPv6":           "x/a has no IPv6 address",
		"x/b -> host:db 80/TCP IPv6":       "host:db has no IPv6 address",
		"node:1 -> x/b 80/TCP IPv6":        "node:1 has no IPv6 address",
		"x/b -> y/web 80/TCP IPv6 service": "y/web has no IPv6 address",
		"x/a -> x/b 80/ICMP":               `"ICMP" is none of TCP, UDP, SCTP`,
		"x/a -> x/b 80/TCP IPv5":           `"IPv5" is neither IPv4 nor IPv6`,
		"x/a -> x/b 0/TCP":                 "port 0 is not between 1 and 65535",
		"x/a -> x/b 65536/TCP":             "port 65536 is not between 1 and 65535",
		"x/a -> x/b 80/TCP pigeon":         `"pigeon" is no way to a destination`,
	} {
		_, err := e.Decide(conn(c))
		require.Error(t, err, c)
		assert.ErrorContains(t, err, want)
		assert.ErrorContains(t, err, "decide ")
	}
}

func TestPoliciesThatTheAPIServerRefusesAreErrors(t *testing.T) {
	spec := func(change func(*networkingv1.NetworkPolicySpec)) tweak {
		return func(p *networkingv1.NetworkPolicy) { change(&p.Spec) }
	}
	badSelector := &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Near"}}}
	for _, tc := range []struct {
		name   string
		policy Policy
		field  string
		want   string
	}{
		{"CIDR", makePolicy("p", "x", ingressRule(podsOf(""), block("10.0.0.0/33"))), "spec.ingress[0].from[1].ipBlock.cidr", `"10.0.0.0/33" is not a CIDR`},
		{"CIDR without a length", makePolicy("p", "x", egressRule(block("10.0.0.1"))), "spec.egress[0].to[0].ipBlock.cidr", "is not a CIDR"},
		{"exception", makePolicy("p", "x", ingressRule(block("10.0.0.0/8", "ten"))), "spec.ingress[0].from[0].ipBlock.except[0]", "is not a CIDR"},
		{"exception outside", makePolicy("p", "x", ingressRule(block("10.0.0.0/8", "11.0.0.0/16"))), "spec.ingress[0].from[0].ipBlock.except[0]", "is not a part of"},
		{"exception of everything", makePolicy("p", "x", ingressRule(block("10.0.0.0/8", "10.0.0.0/8"))), "spec.ingress[0].from[0].ipBlock.except[0]", "is not a part of"},
		{"exception of the other family", makePolicy("p", "x", ingressRule(block("10.0.0.0/8", "fd00::/64"))), "spec.ingress[0].from[0].ipBlock.except[0]", "is not a part of"},
		{"peer of nothing", makePolicy("p", "x", ingressRule(withPeer(networkingv1.NetworkPolicyPeer{}))), "spec.ingress[0].from[0]", "neither podSelector"},
		{"peer of too much", makePolicy("p", "x", ingressRule(withPeer(networkingv1.NetworkPolicyPeer{
			PodSelector: selector(""), IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/8"},
		}))), "spec.ingress[0].from[0]", "beside a selector"},
		{"selector of pods", makePolicy("p", "x", spec(func(s *networkingv1.NetworkPolicySpec) { s.PodSelector = *badSelector })), "spec.podSelector", "Near"},
		{"selector of a peer's pods", makePolicy("p", "x", ingressRule(withPeer(networkingv1.NetworkPolicyPeer{PodSelector: badSelector}))), "spec.ingress[0].from[0].podSelector", "Near"},
		{"selector of a peer's namespaces", makePolicy("p", "x", egressRule(withPeer(networkingv1.NetworkPolicyPeer{NamespaceSelector: badSelector}))), "spec.egress[0].to[0].namespaceSelector", "Near"},
		{"policy type", makePolicy("p", "x", types("Sideways")), "spec.policyTypes", `"Sideways" is neither`},
		{"protocol", makePolicy("p", "x", ingressRule(on("80"), on("80/ICMP"))), "spec.ingress[0].ports[1].protocol", `"ICMP" is none of`},
		{"port 0", makePolicy("p", "x", ingressRule(on("0/TCP"))), "spec.ingress[0].ports[0].port", "0 is not between"},
		{"port too high", makePolicy("p", "x", ingressRule(on("65536/TCP"))), "spec.ingress[0].ports[0].port", "65536 is not between"},
		{"range backwards", makePolicy("p", "x", ingressRule(on("81-80/TCP"))), "spec.ingress[0].ports[0].endPort", "80 is not between port 81"},
		{"range too high", makePolicy("p", "x", ingressRule(on("81-65536/TCP"))), "spec.ingress[0].ports[0].endPort", "65536 is not between"},
		{"range of a name", makePolicy("p", "x", ingressRule(on("http-80/TCP"))), "spec.ingress[0].ports[0].endPort", "set for a named port"},
		{"range without a start", makePolicy("p", "x", ingressRule(on("-80/TCP"))), "spec.ingress[0].ports[0].endPort", "set without port"},
		{"rules that do not apply are checked too", makePolicy("p", "x", typeIngress, egressRule(block("?"))), "spec.egress[0].to[0].ipBlock.cidr", "is not a CIDR"},
		{"no name", makePolicy("", "x"), "metadata.name", "empty"},
		{"no namespace", makePolicy("p", ""), "metadata.namespace", "empty"},
		{"no object", Policy{Source: "void.yaml:1"}, "policy", "no object"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := New(testTopology(), []Policy{makePolicy("fine", "x"), tc.policy})
			var policyErr *PolicyError
			require.ErrorAs(t, err, &policyErr)
			assert.Equal(t, tc.field, policyErr.Field)
			assert.Equal(t, tc.policy, policyErr.Policy)
			assert.ErrorContains(t, err, tc.want)
			assert.ErrorContains(t, err, tc.policy.Source)
		})
	}
}

func TestAnEmptyPortNameIsAnError(t *testing.T) {
	p := makePolicy("p", "x", ingressRule(on("http/TCP")))
	p.Object.Spec.Ingress[0].Ports[0].Port.StrVal = ""
	_, err := New(testTopology(), []Policy{p})
	assert.ErrorContains(t, err, "spec.ingress[0].ports[0].port: empty name")
}

func TestEveryPolicyThatIsWrongIsNamed(t *testing.T) {
	_, err := New(testTopology(), []Policy{makePolicy("p", "x", types("A")), makePolicy("q", "x", types("B"))})
	assert.ErrorContains(t, err, "x/p (p.yaml:1)")
	assert.ErrorContains(t, err, "x/q (q.yaml:1)")
}

func TestTwoPoliciesOfOneNameAreAnError(t *testing.T) {
	a, b := makePolicy("p", "x"), makePolicy("p", "x")
	b.Source = "other.yaml:9"
	_, err := New(testTopology(), []Policy{a, b, makePolicy("p", "y")})
	require.Error(t, err)
	assert.Equal(t, "evaluate policy x/p (other.yaml:9): metadata.name: x/p (p.yaml:1) has the same namespace and name", err.Error())
}

func TestTopologiesThatCannotBeAreErrors(t *testing.T) {
	_, err := New(nil, nil)
	assert.ErrorContains(t, err, "no topology")
	topology := testTopology()
	topology.Pods = append(topology.Pods, topology.Pods[0])
	_, err = New(topology, nil)
	assert.ErrorContains(t, err, "two pods are named x/a")
}

func TestAnIPv4BlockWrittenAsIPv6IsTheIPv4Block(t *testing.T) {
	e := newEvaluator(t, testTopology(), makePolicy("p", "x", ingressRule(block("::ffff:10.0.1.0/120"))))
	assert.Equal(t, model.Allow, decide(t, e, "y/a -> x/a 80/TCP").Verdict)
	assert.Equal(t, model.Deny, decide(t, e, "z/a -> x/a 80/TCP").Verdict)
}

func TestTheWayDefaultsToThePodsAddress(t *testing.T) {
	e := newEvaluator(t, testTopology())
	c := conn("x/a -> x/b 80/TCP")
	c.Via = ""
	d, err := e.Decide(c)
	require.NoError(t, err)
	assert.Equal(t, model.ViaPodIP, d.Connection.Via)
}

func TestAZeroDecisionExplainsNothing(t *testing.T) {
	var d Decision
	assert.Empty(t, d.Summary())
	assert.Empty(t, d.Walk())
	assert.Empty(t, d.NearMisses())
	assert.Empty(t, d.DecidingPolicies())
}
