package semantics

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/netproof/netproof/harness/model"
)

// everyWorld runs a property on many random worlds without hostNetwork pods, or with some.
func everyWorld(t *testing.T, shared int, property func(g *generator, topology *model.Topology, policies []Policy)) {
	t.Helper()
	worlds := uint64(100)
	if testing.Short() {
		worlds = 20
	}
	for seed := range worlds {
		func() {
			defer func() {
				if t.Failed() {
					t.Logf("the world is that of seed %d", seed)
				}
			}()
			g := newGenerator(seed, shared)
			property(g, g.topology(), g.policies())
		}()
	}
}

// verdicts decides every connection of a topology.
func verdicts(t testing.TB, topology *model.Topology, policies []Policy) map[model.Connection]Decision {
	t.Helper()
	e, err := New(topology, policies)
	require.NoError(t, err)
	out := map[model.Connection]Decision{}
	for _, c := range connections(topology) {
		out[c], err = e.Decide(c)
		require.NoError(t, err)
	}
	return out
}

func clone(policies []Policy) []Policy {
	out := slices.Clone(policies)
	for i := range out {
		out[i].Object = out[i].Object.DeepCopy()
	}
	return out
}

func shuffle[T any](g *generator, list []T) {
	g.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
}

// shuffled returns the same policies with every list in another order.
func shuffled(g *generator, policies []Policy) []Policy {
	out := clone(policies)
	shuffle(g, out)
	for _, p := range out {
		spec := &p.Object.Spec
		shuffle(g, spec.PolicyTypes)
		shuffle(g, spec.PodSelector.MatchExpressions)
		shuffle(g, spec.Ingress)
		shuffle(g, spec.Egress)
		for i := range spec.Ingress {
			shuffle(g, spec.Ingress[i].From)
			shuffle(g, spec.Ingress[i].Ports)
			shufflePeers(g, spec.Ingress[i].From)
		}
		for i := range spec.Egress {
			shuffle(g, spec.Egress[i].To)
			shuffle(g, spec.Egress[i].Ports)
			shufflePeers(g, spec.Egress[i].To)
		}
	}
	return out
}

func shufflePeers(g *generator, peers []networkingv1.NetworkPolicyPeer) {
	for _, p := range peers {
		if p.IPBlock != nil {
			shuffle(g, p.IPBlock.Except)
		}
		if p.PodSelector != nil {
			shuffle(g, p.PodSelector.MatchExpressions)
		}
		if p.NamespaceSelector != nil {
			shuffle(g, p.NamespaceSelector.MatchExpressions)
		}
	}
}

func TestOrderDoesNotMatter(t *testing.T) {
	everyWorld(t, 20, func(g *generator, topology *model.Topology, policies []Policy) {
		before := verdicts(t, topology, policies)
		again := *topology
		again.Pods, again.Namespaces = slices.Clone(topology.Pods), slices.Clone(topology.Namespaces)
		again.Services, again.Nodes = slices.Clone(topology.Services), slices.Clone(topology.Nodes)
		shuffle(g, again.Pods)
		shuffle(g, again.Namespaces)
		shuffle(g, again.Services)
		shuffle(g, again.Nodes)
		for c, d := range verdicts(t, &again, shuffled(g, policies)) {
			require.Equal(t, outcome(before[c]), outcome(d), "%s\n%s", c, dump(policies))
		}
	})
}

// rank orders verdicts by how much they let through.
func rank(v model.Verdict) int {
	return slices.Index([]model.Verdict{model.Deny, model.Undefined, model.Allow}, v)
}

func TestAFurtherRuleNeverDenies(t *testing.T) {
	everyWorld(t, 20, func(g *generator, topology *model.Topology, policies []Policy) {
		if len(policies) == 0 {
			return
		}
		before := verdicts(t, topology, policies)
		more := clone(policies)
		spec := &more[g.IntN(len(more))].Object.Spec
		// Written out, or a first egress rule would also make the policy one for egress, which is a further
		// restriction.
		if applies, _ := policyTypes(spec); len(spec.PolicyTypes) == 0 && !applies[egress] {
			spec.PolicyTypes = []networkingv1.PolicyType{"Ingress"}
		}
		spec.Ingress = append(spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: g.peers(), Ports: g.ports()})
		spec.Egress = append(spec.Egress, networkingv1.NetworkPolicyEgressRule{To: g.peers(), Ports: g.ports()})
		for c, d := range verdicts(t, topology, more) {
			require.GreaterOrEqual(t, rank(d.Verdict), rank(before[c].Verdict), "%s\n%s", c, dump(more))
		}
	})
}

func TestAFurtherPolicyForIsolatedPodsNeverDenies(t *testing.T) {
	everyWorld(t, 20, func(g *generator, topology *model.Topology, policies []Policy) {
		// With these every pod is isolated already, both ways.
		policies = append(policies, makePolicy("deny", "x", typeBoth), makePolicy("deny", "y", typeBoth))
		before := verdicts(t, topology, policies)
		for c, d := range verdicts(t, topology, append(clone(policies), g.policy("more"))) {
			require.GreaterOrEqual(t, rank(d.Verdict), rank(before[c].Verdict), "%s\n%s", c, dump(policies))
		}
	})
}

func TestDefaultDenyWithoutARuleDeniesAllButItselfAndTheNode(t *testing.T) {
	everyWorld(t, 0, func(_ *generator, topology *model.Topology, _ []Policy) {
		policies := []Policy{makePolicy("deny", "x", typeBoth), makePolicy("deny", "y", typeBoth)}
		for c, d := range verdicts(t, topology, policies) {
			if c.Via != model.ViaPodIP {
				continue
			}
			from, fromPod := topology.Pod(c.From)
			to, toPod := topology.Pod(c.To)
			want := model.Deny
			switch node, isNode := c.From.NodeIndex(); {
			case !fromPod && !toPod, c.From == c.To, isNode && node == to.Node:
				want = model.Allow
			case fromPod && c.To == model.NodeEndpoint(from.Node):
				want = model.Undefined
			}
			require.Equal(t, want, d.Verdict, c)
		}
	})
}

func TestWithoutPoliciesEverythingIsAllowed(t *testing.T) {
	everyWorld(t, 20, func(_ *generator, topology *model.Topology, _ []Policy) {
		for c, d := range verdicts(t, topology, nil) {
			if d.silent == "" {
				require.Equal(t, model.Allow, d.Verdict, c)
			}
		}
	})
}

func TestPodsWithTheSameLabelsNamespaceAndNodeAreTreatedAlike(t *testing.T) {
	everyWorld(t, 0, func(_ *generator, topology *model.Topology, policies []Policy) {
		for i := range policies {
			// Blocks tell pods apart by address.
			spec := &policies[i].Object.Spec
			for j := range spec.Ingress {
				spec.Ingress[j].From = slices.DeleteFunc(spec.Ingress[j].From, isBlockPeer)
			}
			for j := range spec.Egress {
				spec.Egress[j].To = slices.DeleteFunc(spec.Egress[j].To, isBlockPeer)
			}
		}
		twin := topology.Pods[0]
		twin.Name, twin.Addresses = "twin", addrs("10.0.9.9", "fd00::9:9")
		topology.Pods = append(topology.Pods, twin)
		e := newEvaluator(t, topology, policies...)
		for _, c := range connections(topology) {
			if c.From != twin.Endpoint() || c.To == twin.Endpoint() || c.To == "x/a" || c.Via != model.ViaPodIP {
				continue
			}
			d, err := e.Decide(c)
			require.NoError(t, err)
			original := c
			original.From = "x/a"
			want, err := e.Decide(original)
			require.NoError(t, err)
			require.Equal(t, want.Verdict, d.Verdict, c)
		}
	})
}

func isBlockPeer(p networkingv1.NetworkPolicyPeer) bool { return p.IPBlock != nil }

func TestARelabelledPodIsTreatedAsIfItHadAlwaysHadTheLabels(t *testing.T) {
	everyWorld(t, 20, func(g *generator, topology *model.Topology, policies []Policy) {
		first, second := topology.Pods[0].Labels, topology.Pods[1].Labels
		before := verdicts(t, topology, policies)
		topology.Pods[0].Labels = second
		swapped := verdicts(t, topology, policies)
		topology.Pods[0].Labels = first
		for c, d := range verdicts(t, topology, policies) {
			require.Equal(t, outcome(before[c]), outcome(d), c)
			if c.Via == model.ViaPodIP && c.From != "x/a" && c.To != "x/a" {
				require.Equal(t, outcome(d), outcome(swapped[c]), "labels of x/a cannot matter to %s", c)
			}
		}
	})
}

// unplaced returns the topology as it is before anything runs.
func unplaced(topology *model.Topology) *model.Topology {
	out := *topology
	out.Pods, out.Nodes = slices.Clone(topology.Pods), slices.Clone(topology.Nodes)
	out.Hosts, out.Services = slices.Clone(topology.Hosts), slices.Clone(topology.Services)
	for i := range out.Pods {
		out.Pods[i].Addresses = nil
	}
	for i := range out.Nodes {
		out.Nodes[i].Addresses = nil
	}
	for i := range out.Hosts {
		out.Hosts[i].Addresses = nil
	}
	for i := range out.Services {
		out.Services[i].Addresses = nil
	}
	return &out
}

func TestWhatIsDecidedWithoutAddressesStaysDecided(t *testing.T) {
	waited := 0
	everyWorld(t, 20, func(_ *generator, topology *model.Topology, policies []Policy) {
		after := verdicts(t, topology, policies)
		for c, d := range verdicts(t, unplaced(topology), policies) {
			if d.NeedsAddresses {
				require.Equal(t, model.Undefined, d.Verdict)
				require.Contains(t, d.Summary(), "not known yet")
				waited++
				continue
			}
			require.Equal(t, d.Verdict, after[c].Verdict, "%s\n%s", c, dump(policies))
		}
		for _, d := range after {
			require.False(t, d.NeedsAddresses)
		}
	})
	assert.Greater(t, waited, 100)
}

// The explanations are made of other code than the verdicts, so they are held against them.
func TestExplanationsAgreeWithVerdicts(t *testing.T) {
	everyWorld(t, 20, func(g *generator, topology *model.Topology, policies []Policy) {
		conns := connections(topology)
		for _, topo := range []*model.Topology{topology, unplaced(topology)} {
			e := newEvaluator(t, topo, policies...)
			for range 60 {
				c := oneOf(g, conns...)
				d, err := e.Decide(c)
				require.NoError(t, err)
				requireExplained(t, c, d)
			}
		}
	})
}

// unfinished matches a line that breaks off where a list was empty.
var unfinished = regexp.MustCompile(`(?m)(:|for|by|and|if) $|(for|by|and|if)$`)

func requireExplained(t testing.TB, c model.Connection, d Decision) {
	t.Helper()
	summary, walk := d.Summary(), d.Walk()
	require.NotEmpty(t, summary, c)
	require.NotContains(t, summary, "\n")
	require.NotContains(t, summary, "if ;", c)
	require.NotEmpty(t, walk, c)
	all := lines(append(walk, summary))
	if strings.Contains(all, "%!") || unfinished.MatchString(all) {
		require.Fail(t, "unfinished sentence", "%s\n%s", c, all)
	}
	switch {
	case d.NeedsAddresses, d.silent != "":
	case d.Verdict == model.Undefined:
		require.Contains(t, summary, "allowed if ", c)
		require.NotContains(t, summary, "allowed if ;", c)
		require.Contains(t, summary, "; denied if ", c)
	case d.Verdict == model.Deny:
		require.Contains(t, summary, "no rule admits", c)
		require.NotEmpty(t, d.DecidingPolicies(), c)
		for _, miss := range d.NearMisses() {
			require.NotEmpty(t, miss.But, c)
			require.NotEmpty(t, miss.String())
		}
	case d.Verdict == model.Allow:
		require.NotContains(t, summary, "no rule admits", c)
		require.Empty(t, d.By)
	}
}

func TestTheEvaluatorLeavesItsInputAlone(t *testing.T) {
	everyWorld(t, 20, func(_ *generator, topology *model.Topology, policies []Policy) {
		before, err := json.Marshal([]any{topology, policies})
		require.NoError(t, err)
		for _, d := range verdicts(t, topology, policies) {
			_, _ = d.Walk(), d.DecidingPolicies()
		}
		after, err := json.Marshal([]any{topology, policies})
		require.NoError(t, err)
		require.Equal(t, string(before), string(after))
	})
}

func TestAnEvaluatorMayBeSharedByGoroutines(t *testing.T) {
	g := newGenerator(3, 20)
	topology := g.topology()
	e := newEvaluator(t, topology, g.policies()...)
	for i := range 4 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			for _, c := range connections(topology) {
				d, err := e.Decide(c)
				require.NoError(t, err)
				_, _ = d.Summary(), d.DecidingPolicies()
			}
		})
	}
}
