package semantics

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/words"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestExplanationsReadAsTheyDid compares explanations with testdata/explain/*.golden; run with -update to accept new
// ones.
func TestExplanationsReadAsTheyDid(t *testing.T) {
	deny := makePolicy("deny", "x", typeBoth)
	web := makePolicy("web", "x", selecting("pod in (b,c)"),
		ingressRule(podsOf("pod=a,tier=front"), podsIn("ns=y,env", "pod=b"), on("80/TCP")),
		ingressRule(block("198.51.100.0/24", "198.51.100.0/28"), on("443/TCP"), on("8000-8080/TCP")))
	named := makePolicy("named", "x", selecting("pod=b"), ingressRule(namespacesOf("ns notin (x)"), on("metrics/TCP")),
		ingressRule(podsOf("!pod"), on("http/TCP")), ingressRule(on("/UDP")))
	out := makePolicy("out", "x", selecting("pod=a"), typeEgress, egressRule(podsOf(""), on("81/TCP")))
	for name, tc := range map[string]struct {
		topology    func(*model.Topology)
		policies    []Policy
		connections []string
	}{
		"open":        {nil, nil, []string{"x/a -> x/b 80/TCP", "node:0 -> x/a 80/TCP", "node:0 -> host:db 80/TCP"}},
		"not-for-you": {nil, []Policy{out, web}, []string{"y/a -> x/a 80/TCP"}},
		"default-deny": {nil, []Policy{deny}, []string{
			"x/a -> y/a 80/TCP", "y/a -> x/b 80/TCP", "x/a -> x/b 80/TCP", "x/a -> x/a 80/TCP", "node:0 -> x/a 80/TCP", "x/a -> node:0 80/TCP",
		}},
		"near-misses": {nil, []Policy{deny, web, named, out}, []string{
			"x/a -> x/b 80/TCP", "x/a -> x/b 81/TCP", "y/b -> x/b 80/TCP", "y/a -> x/b 53/UDP", "host:db -> x/b 444/TCP",
			"host:db -> x/c 8001/TCP", "z/a -> x/b 9090/TCP",
		}},
		"addresses": {func(topo *model.Topology) { topo.Hosts[0].Addresses = nil }, []Policy{web}, []string{
			"host:db -> x/b 443/TCP", "host:db -> x/b 444/TCP", "x/a -> x/b 8080/TCP IPv6",
		}},
		"host-network": {
			func(topo *model.Topology) {
				topo.Pods[2].HostNetwork, topo.Pods[2].Addresses = true, topo.Nodes[1].Addresses
			},
			[]Policy{web, makePolicy("from-c", "y", ingressRule(podsIn("", "pod=c")))},
			[]string{"y/a -> x/c 81/TCP", "x/c -> y/a 80/TCP", "x/c -> y/c 80/TCP"},
		},
		"service": {
			func(topo *model.Topology) {
				withService("80/TCP", "81")(topo)
				topo.Services[0].Selector = model.Labels{}
				for i := range topo.Pods {
					if topo.Pods[i].Namespace == "y" {
						topo.Services[0].Selector = model.Labels{"tier": "web"}
						topo.Pods[i].Labels = model.Labels{"pod": topo.Pods[i].Name, "tier": "web"}
					}
				}
			},
			[]Policy{
				makePolicy("only-a", "y", selecting("pod=a"), ingressRule(podsIn("ns=x", "pod=a"))),
				makePolicy("none", "y", selecting("pod=b")), makePolicy("none-c", "y", selecting("pod=c")),
				makePolicy("virtual", "z", typeEgress, egressRule(block("10.96.0.0/16"))),
			},
			[]string{"x/a -> y/web 80/TCP service", "x/b -> y/web 80/TCP service", "z/a -> y/web 80/TCP service", "y/b -> y/web 80/TCP nodePort"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			topology := testTopology()
			if tc.topology != nil {
				tc.topology(topology)
			}
			e := newEvaluator(t, topology, tc.policies...)
			var b strings.Builder
			for _, c := range tc.connections {
				d := decide(t, e, c)
				b.WriteString("# " + d.Summary() + "\n" + lines(d.Walk()) + "\n")
			}
			file := filepath.Join("testdata", "explain", name+".golden")
			if *update {
				require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
				require.NoError(t, os.WriteFile(file, []byte(b.String()), 0o644))
			}
			want, err := os.ReadFile(file)
			require.NoError(t, err)
			assert.Equal(t, string(want), b.String())
		})
	}
}

func TestTheSummaryReadsAsTheContractShowsIt(t *testing.T) {
	e := newEvaluator(t, testTopology(), Policy{Object: makePolicy("deny", "x").Object, Source: "deny.yaml:3"})
	assert.Equal(t, "x/b is isolated for ingress by x/deny (deny.yaml:3); no rule admits x/a",
		decide(t, e, "x/a -> x/b 80/TCP").Summary())
}

func TestTheNodePortIsOnlyBlamedWhereARuleCouldListIt(t *testing.T) {
	topology := testTopology()
	withService("80/TCP", "")(topology)
	for port, blamed := range map[string]bool{"80/TCP": false, "30080/TCP": true, "29000-30000/TCP": true, "1-65535/TCP": false} {
		e := newEvaluator(t, topology, makePolicy("p", "x", typeEgress, egressRule(block("172.18.0.0/16"), on(port))))
		scenes, _, err := e.scenes(conn("x/a -> y/web 80/TCP nodePort"))
		require.NoError(t, err)
		answers := map[wirePort]answer{}
		for i := range scenes {
			for j := range scenes[i].egress {
				if h := &scenes[i].egress[j]; h.exempt == notExempt && h.ports.kind != exactPort {
					answers[h.ports.kind], _ = e.judge(h)
				}
			}
		}
		require.Len(t, answers, 2)
		assert.Equal(t, blamed, answers[listedNodePort] != answers[unlistedNodePort], port)
	}
}

func TestManyPoliciesAreCounted(t *testing.T) {
	var policies []Policy
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		policies = append(policies, makePolicy(name, "x"))
	}
	text := func(n int) string {
		return decide(t, newEvaluator(t, testTopology(), policies[:n]...), "y/a -> x/b 80/TCP").Summary()
	}
	assert.Contains(t, text(4), "by x/a (a.yaml:1), x/b (b.yaml:1), x/c (c.yaml:1) and x/d (d.yaml:1);")
	assert.Contains(t, text(5), "by x/a (a.yaml:1), x/b (b.yaml:1), x/c (c.yaml:1) and 2 more;")
}

func TestWhatALabelLacksIsSaid(t *testing.T) {
	for sel, want := range map[string]string{
		"app=web":         "label app of it is api, not web",
		"tier=front":      "it has no label tier=front",
		"app in (a,b)":    "label app of it is api, none of a, b",
		"tier in (a,b)":   "it has no label tier, wanted is one of a, b",
		"app notin (api)": "label app of it is api, which is excluded",
		"tier":            "it has no label tier",
		"!app":            "it has the label app",
		"empty=x":         `label empty of it is "", not x`,
		"app=web,tier":    "label app of it is api, not web and it has no label tier",
		"app=api,empty=":  "",
	} {
		p := makePolicy("p", "x", selecting(sel))
		e := newEvaluator(t, testTopology(), p)
		got := labelMisses(e.policies[0].selector, model.Labels{"app": "api", "empty": ""}, "it")
		assert.Equal(t, want, words.And(got), sel)
	}
}

func TestNetworksAreToldAsTheyWereWritten(t *testing.T) {
	p := makePolicy("p", "x", ingressRule(block("192.0.2.0/24", "192.0.2.1/32")))
	p.Written = makePolicy("p", "x", ingressRule(block("$(cidr:x/b/24)", "$(cidr:x/b)"))).Object
	out, err := (&compiler{evaluator: &Evaluator{}, sets: map[setKey]podSet{}}).compile(p)
	require.NoError(t, err)
	peer := &out.rules[ingress][0].peers[0]
	assert.Equal(t, "ipBlock $(cidr:x/b/24) except $(cidr:x/b)", peerText(peer))
	assert.Equal(t, "$(cidr:x/b/24) is IPv4, the connection IPv6", blockMiss(peer, &party{}, model.IPv6))
	end := &party{at: "x/b", addr: netip.MustParseAddr("192.0.2.1")}
	assert.Equal(t, "address 192.0.2.1 of x/b is in the exception $(cidr:x/b)", blockMiss(peer, end, model.IPv4))
	end.addr = netip.MustParseAddr("198.51.100.1")
	assert.Equal(t, "address 198.51.100.1 of x/b is outside $(cidr:x/b/24)", blockMiss(peer, end, model.IPv4))
}
