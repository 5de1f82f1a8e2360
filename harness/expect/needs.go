package expect

import (
	"fmt"
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/netproof/netproof/harness/cni"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/scenario"
	"github.com/netproof/netproof/harness/semantics"
)

// Need is a feature that a cell needs and that the network plugin says it does not have.
type Need struct {
	Feature cni.Feature
	// Alone is true when the verdict of this one cell tells whether the plugin has the feature: without it the
	// specification demands another verdict. Of SCTP and IP families only an allowed and a denied cell together tell.
	Alone bool
}

// need says for each cell what it needs that the network plugin does not have. To find out whether a cell needs a
// feature of policies, the specification is asked again as if the policies did not use it: a cell whose verdict stays
// the same can be proven on a plugin without the feature, whatever policies are in force.
func (t *Table) need(s *scenario.Scenario, live Live, in policySet) error {
	for i := range t.Cells {
		c := &t.Cells[i]
		for _, f := range trafficFeatures(c.Conn, live.Families) {
			if live.Lacks(f) {
				c.Needs = append(c.Needs, Need{Feature: f})
			}
		}
	}
	for _, without := range ablations(live.Topology) {
		if !live.Lacks(without.feature) {
			continue
		}
		reduced, used := without.from(in.policies)
		if !used {
			continue
		}
		if err := t.compare(s, live.Topology, reduced, without.feature); err != nil {
			return err
		}
	}
	for _, kind := range in.kinds {
		// The specification knows nothing of other kinds: what an author expects beside it comes from them.
		if f := cni.KindFeature(kind); live.Lacks(f) {
			if err := t.compare(s, live.Topology, in.policies, f); err != nil {
				return err
			}
		}
	}
	return nil
}

// compare adds the feature to the needs of those cells whose verdict the specification changes under other policies.
func (t *Table) compare(s *scenario.Scenario, topology *model.Topology, policies []semantics.Policy, f cni.Feature) error {
	evaluator, err := semantics.New(topology, policies)
	if err != nil {
		return fmt.Errorf("%s: step %q without %s: %w", s.File, t.Step, f, err)
	}
	for i := range t.Cells {
		c := &t.Cells[i]
		d, err := evaluator.Decide(c.Conn)
		if err != nil {
			return fmt.Errorf("%s: step %q without %s: %w", s.File, t.Step, f, err)
		}
		if d.Verdict != c.Verdict && !slices.ContainsFunc(c.Needs, func(n Need) bool { return n.Feature == f }) {
			c.Needs = append(c.Needs, Need{Feature: f, Alone: d.Verdict != model.Undefined && c.Verdict != model.Undefined})
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

// withoutPods is a block with an exception for each pod's address in it. One that is a pod's address only becomes one
// that nobody has: an exception must be smaller than its block.
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
