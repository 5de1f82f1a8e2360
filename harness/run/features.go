package run

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cni"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/scenario"
	"github.com/netproof/netproof/harness/semantics"
)

// need is a feature that a cell needs and that the network plugin says it does not have.
type need struct {
	feature cni.Feature
	// alone is true when the verdict of this one cell tells whether the plugin has the feature: without it the specification demands
	// another verdict. Of SCTP and IP families only an allowed and a denied cell together tell.
	alone bool
}

// capabilitiesOf is what the cluster's network plugin says it can do; ok is false where nothing is known about it.
func capabilitiesOf(c cluster.Cluster) (cni.Capabilities, bool) {
	if capable, can := c.(cluster.Capable); can {
		return capable.Capabilities()
	}
	info := c.Info()
	return cni.CapabilitiesOf(info.CNI.Name, info.CNI.Version)
}

// lacks tells whether the network plugin says that it does not have a feature.
func (s *Session) lacks(f cni.Feature) bool { return len(s.capabilities.Missing(f)) > 0 }

// lacksKind tells whether the network plugin says that it does not enforce objects of this kind.
func (s *Session) lacksKind(object *unstructured.Unstructured) bool {
	return s.limited && s.lacks(cni.KindFeature(object.GroupVersionKind().GroupKind()))
}

// needs says for each cell of a step what it needs that the network plugin does not have. To find out whether a cell needs a feature of
// policies, the specification is asked again as if the policies did not use it: a cell whose verdict stays the same can be proven on
// a plugin without the feature, whatever policies are in force.
func (s *Session) needs(sc *scenario.Scenario, step scenario.PlannedStep, topology *model.Topology, in policySet, expected []expectation) ([][]need, error) {
	out := make([][]need, len(step.Cells))
	if !s.limited {
		return out, nil
	}
	for i, cell := range step.Cells {
		for _, f := range trafficFeatures(cell.Connection, s.stage.families) {
			if s.lacks(f) {
				out[i] = append(out[i], need{feature: f})
			}
		}
	}
	for _, without := range ablations(topology) {
		if !s.lacks(without.feature) {
			continue
		}
		reduced, used := without.from(in.policies)
		if !used {
			continue
		}
		if err := compare(sc, step, topology, reduced, expected, without.feature, out); err != nil {
			return nil, err
		}
	}
	for _, kind := range in.kinds {
		// The specification knows nothing of other kinds: what an author expects beside it comes from them.
		if f := cni.KindFeature(kind); s.lacks(f) {
			if err := compare(sc, step, topology, in.policies, expected, f, out); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// compare adds the feature to the needs of those cells of which the specification demands another verdict under other policies.
func compare(sc *scenario.Scenario, step scenario.PlannedStep, topology *model.Topology, policies []semantics.Policy, expected []expectation,
	f cni.Feature, out [][]need) error {
	evaluator, err := semantics.New(topology, policies)
	if err != nil {
		return fmt.Errorf("%s: step %q without %s: %w", sc.File, step.Name, f, err)
	}
	for i, cell := range step.Cells {
		d, err := evaluator.Decide(cell.Connection)
		if err != nil {
			return fmt.Errorf("%s: step %q without %s: %w", sc.File, step.Name, f, err)
		}
		if d.Verdict != expected[i].verdict && !slices.ContainsFunc(out[i], func(n need) bool { return n.feature == f }) {
			out[i] = append(out[i], need{feature: f, alone: d.Verdict != model.Undefined && expected[i].verdict != model.Undefined})
		}
	}
	return nil
}

// trafficFeatures are those that a connection needs whatever the policies are.
func trafficFeatures(c model.Connection, families []model.IPFamily) []cni.Feature {
	var out []cni.Feature
	if c.Protocol == model.SCTP {
		out = append(out, cni.SCTP)
	}
	if c.IPFamily == model.IPv6 {
		out = append(out, cni.IPv6)
	}
	if len(families) > 1 {
		out = append(out, cni.DualStack)
	}
	return out
}

// ablation takes a feature out of policies: they become what a plugin without it enforces at best.
type ablation struct {
	feature cni.Feature
	// change does it to one policy, and tells whether there was anything to do.
	change func(*networkingv1.NetworkPolicySpec) bool
}

func ablations(topology *model.Topology) []ablation {
	return []ablation{
		{cni.EndPort, func(spec *networkingv1.NetworkPolicySpec) (used bool) {
			for _, ports := range rulePorts(spec) {
				for i := range ports {
					used = used || ports[i].EndPort != nil
					ports[i].EndPort = nil
				}
			}
			return used
		}},
		{cni.PodIPBlock, func(spec *networkingv1.NetworkPolicySpec) (used bool) {
			for _, peers := range rulePeers(spec) {
				for i, peer := range peers {
					if peer.IPBlock != nil && coversPod(topology, peer.IPBlock.CIDR) {
						// Such a plugin takes the block for the world outside: no address of these pods is in it.
						used = true
						peers[i].IPBlock = withoutPods(topology, peer.IPBlock)
					}
				}
			}
			return used
		}},
	}
}

// from returns copies of policies without the feature; used tells whether any of them has it.
func (a ablation) from(policies []semantics.Policy) (out []semantics.Policy, used bool) {
	for _, p := range policies {
		p.Object = p.Object.DeepCopy()
		used = a.change(&p.Object.Spec) || used
		out = append(out, p)
	}
	return out, used
}

func rulePorts(spec *networkingv1.NetworkPolicySpec) (out [][]networkingv1.NetworkPolicyPort) {
	for _, r := range spec.Ingress {
		out = append(out, r.Ports)
	}
	for _, r := range spec.Egress {
		out = append(out, r.Ports)
	}
	return out
}

func rulePeers(spec *networkingv1.NetworkPolicySpec) (out [][]networkingv1.NetworkPolicyPeer) {
	for _, r := range spec.Ingress {
		out = append(out, r.From)
	}
	for _, r := range spec.Egress {
		out = append(out, r.To)
	}
	return out
}

func coversPod(topology *model.Topology, cidr string) bool {
	block, err := netip.ParsePrefix(cidr)
	return err == nil && slices.ContainsFunc(topology.Pods, func(p model.Pod) bool {
		return !p.HostNetwork && slices.ContainsFunc(p.Addresses, block.Contains)
	})
}

// withoutPods is a block with an exception for each pod's address in it. One that is a pod's address only becomes one that nobody has:
// an exception must be smaller than its block.
func withoutPods(topology *model.Topology, in *networkingv1.IPBlock) *networkingv1.IPBlock {
	out := in.DeepCopy()
	block, err := netip.ParsePrefix(in.CIDR)
	if err != nil {
		return out
	}
	if block.IsSingleIP() {
		out.CIDR = netip.PrefixFrom(unspecified(block.Addr()), block.Bits()).String()
		return out
	}
	for _, p := range topology.Pods {
		for _, a := range p.Addresses {
			if block.Contains(a) && !p.HostNetwork {
				out.Except = append(out.Except, netip.PrefixFrom(a, a.BitLen()).String())
			}
		}
	}
	return out
}

func unspecified(of netip.Addr) netip.Addr {
	if of.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// judgeNeeds allows for features that the plugin lacks: those cells of a step that need them are unsupported, unless they show that the
// plugin has the feature all the same. Then what was claimed hides real cells, and that fails.
func (s *Session) judgeNeeds(cells []model.Cell, needs [][]need) {
	shown := map[cni.Feature]bool{}
	// Of features of the traffic itself a cell that is allowed and one that is denied tell together.
	type both struct{ allowed, denied, wrong bool }
	together := map[cni.Feature]*both{}
	for i, c := range cells {
		for _, n := range needs[i] {
			if n.alone {
				shown[n.feature] = shown[n.feature] || c.Result == model.Passed
				continue
			}
			b := together[n.feature]
			if b == nil {
				b = &both{}
				together[n.feature] = b
			}
			switch {
			case c.Result != model.Passed:
				b.wrong = true
			case c.Observed == model.Allow:
				b.allowed = true
			default:
				b.denied = true
			}
		}
	}
	for f, b := range together {
		shown[f] = shown[f] || b.allowed && b.denied && !b.wrong
	}
	for i := range cells {
		c := &cells[i]
		if len(needs[i]) == 0 || c.Result == model.ResultInconclusive || c.Result == model.ResultUnsupported {
			continue // what proves nothing shows nothing about a feature either
		}
		var worked []cni.Feature
		var reasons []string
		for _, n := range needs[i] {
			if shown[n.feature] {
				worked = append(worked, n.feature)
			}
			reasons = append(reasons, s.capabilities.Reason(n.feature))
		}
		if err := s.capabilities.Stale(worked...); err != nil {
			c.Result, c.Reason = model.Failed, err.Error()
			continue
		}
		c.Reason = fmt.Sprintf("%s; observed %s", strings.Join(reasons, "; "), c.Observed)
		c.Observed, c.Result = model.Unsupported, model.ResultUnsupported
	}
}
