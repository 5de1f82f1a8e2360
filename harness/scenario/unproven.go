package scenario

import (
	"fmt"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/policy"
)

// unproven says what a plan leaves out. In a folder of manifests every connection between two pods counts. A scenario
// file chooses its own pods and probes, so there each policy has to be met by a probe.
func (p *planner) unproven(plan *Plan) (out []string) {
	if len(plan.Steps) > 0 && !slices.ContainsFunc(plan.Steps, func(s PlannedStep) bool { return len(s.InForce) > 0 }) {
		return []string{"no step has a policy in force: nothing is proven about policies"}
	}
	if p.s.narrowed {
		if left, all := leftOut(plan.Steps[len(plan.Steps)-1]); left > 0 {
			message := fmt.Sprintf("the probes of netproof.yaml leave out %d of %d connections between pods", left, all)
			p.warn(p.s.Spec.Probes[0].At, "remove `probes`, to try every connection", "%s", message)
			out = append(out, message)
		}
	}
	for _, u := range p.s.LeftOut {
		out = append(out, fmt.Sprintf("%s is left out: nothing is proven about it", u))
	}
	met := map[policy.Ref]bool{}
	var order []ApplyObject
	for _, step := range plan.Steps {
		for _, a := range step.InForce {
			if a.Policy == nil {
				continue
			}
			key := a.Ref().Key()
			if _, seen := met[key]; !seen {
				order = append(order, a)
			}
			met[key] = met[key] || meets(step, a.Policy)
		}
	}
	for _, a := range order {
		key := a.Ref().Key()
		// One that selects no pod at all is vacuous, and said to be.
		if !met[key] && p.selected[key] {
			out = append(out, fmt.Sprintf("no probe meets a pod that %s (%s) isolates", a.Ref(), a.Source.Short()))
		}
	}
	return out
}

// leftOut counts the connections between two pods that a step does not probe, of all that there are, for one IP family.
func leftOut(step PlannedStep) (left, all int) {
	pods := step.Topology.Pods
	for i := range pods {
		for j := range pods {
			if i != j && model.Tells(&pods[i], &pods[j]) {
				all += len(pods[j].Ports)
			}
		}
	}
	left = all
	for _, c := range step.Cells {
		conn := c.Connection
		if conn.IPFamily == step.Cells[0].Connection.IPFamily && conn.Via == model.ViaPodIP && conn.From.IsPod() && conn.To.IsPod() && conn.From != conn.To {
			left--
		}
	}
	return left, all
}

// meets tells whether a cell of the step has an end that the policy isolates for that direction.
func meets(step PlannedStep, p *networkingv1.NetworkPolicy) bool {
	selector, err := metav1.LabelSelectorAsSelector(&p.Spec.PodSelector)
	if err != nil {
		return true // reported when it was read
	}
	selected := map[model.Endpoint]bool{}
	for i := range step.Topology.Pods {
		pod := &step.Topology.Pods[i]
		if pod.Namespace == p.Namespace && selector.Matches(labels.Set(pod.Labels)) {
			selected[pod.Endpoint()] = true
		}
	}
	behind := map[model.Endpoint]bool{}
	for i := range step.Topology.Services {
		s := &step.Topology.Services[i]
		behind[s.Endpoint()] = slices.ContainsFunc(backends(s, &step.Topology), func(pod *model.Pod) bool { return selected[pod.Endpoint()] })
	}
	ingress, egress := directions(p)
	return slices.ContainsFunc(step.Cells, func(c PlannedCell) bool {
		conn := c.Connection
		to := selected[conn.To]
		if conn.Via != model.ViaPodIP {
			to = behind[conn.To]
		}
		return ingress && to || egress && selected[conn.From]
	})
}

// directions are those for which a policy isolates. Without policyTypes it is ingress, and egress where there are
// egress rules: API reference of NetworkPolicySpec.
func directions(p *networkingv1.NetworkPolicy) (ingress, egress bool) {
	types := p.Spec.PolicyTypes
	if len(types) == 0 {
		return true, len(p.Spec.Egress) > 0
	}
	return slices.Contains(types, networkingv1.PolicyTypeIngress), slices.Contains(types, networkingv1.PolicyTypeEgress)
}
