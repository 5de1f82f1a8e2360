package run

import (
	"fmt"
	"slices"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/scenario"
)

// RequireProof makes the run strict: a scenario whose green result would prove less than a reader takes it for is vacuous, with the
// reasons. They are those of [scenario.Plan.Unproven], and cells that are left open for another reason than the specification.
func (p *Prepared) RequireProof() {
	for _, s := range p.list {
		s.strict = true
	}
}

// noteOpen remembers the cells of a step that nobody decides: beside an object that the specification does not know, and in a folder
// of manifests those of a workload that is on the host's network.
func (p *PreparedScenario) noteOpen(step scenario.PlannedStep, list []expectation, in policySet) {
	for i, cell := range step.Cells {
		id := model.CellID(p.scenario.Metadata.Name, step.Name, cell.Connection)
		delete(p.open, id)
		if list[i].verdict != model.Undefined || list[i].pending {
			continue
		}
		switch host, others := hostNetworkEnd(&step.Topology, cell.Connection), scenario.Undecided(in.unjudged, cell.Connection); {
		case len(others) > 0:
			p.open[id] = fmt.Sprintf("the specification of NetworkPolicy says nothing about %s", scenario.Names(others))
		case p.scenario.Plain && host != "":
			p.open[id] = fmt.Sprintf("%s is on the host's network", host)
		}
	}
}

// hostNetworkEnd is the end of a connection that is a hostNetwork pod, or a service with such a pod behind it; empty if none is.
func hostNetworkEnd(t *model.Topology, c model.Connection) model.Endpoint {
	for i := range t.Pods {
		pod := &t.Pods[i]
		if !pod.HostNetwork {
			continue
		}
		if c.From == pod.Endpoint() || c.Via == model.ViaPodIP && c.To == pod.Endpoint() {
			return pod.Endpoint()
		}
		if s, ok := t.Service(c.To); ok && c.Via != model.ViaPodIP && s.Namespace == pod.Namespace && selects(s.Selector, pod.Labels) {
			return pod.Endpoint()
		}
	}
	return ""
}

// strictFindings say what a strict run does not take for proven, each reason once.
func (p *PreparedScenario) strictFindings() (out []model.Finding) {
	if !p.strict {
		return nil
	}
	find := func(message string) {
		out = append(out, model.Finding{Kind: model.NothingProven, Message: message + " (--strict)", Result: model.Vacuous})
	}
	for _, reason := range p.plan.Unproven {
		find(reason)
	}
	count := map[string]int{}
	var reasons []string
	for _, reason := range p.open {
		if count[reason]++; count[reason] == 1 {
			reasons = append(reasons, reason)
		}
	}
	slices.Sort(reasons)
	for _, reason := range reasons {
		cells := "1 cell is"
		if n := count[reason]; n != 1 {
			cells = fmt.Sprintf("%d cells are", n)
		}
		find(fmt.Sprintf("%s left open: %s", cells, reason))
	}
	return out
}
