package expect

import (
	"fmt"
	"slices"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/scenario"
)

// whyOpen says why nobody decides a cell without a verdict: it is beside an object that the specification does not
// know, or, in a folder of manifests, that of a workload on the host's network. It is empty where the specification
// leaves the cell open.
func whyOpen(s *scenario.Scenario, topology *model.Topology, c model.Connection, unjudged []scenario.Unjudged) string {
	if len(unjudged) > 0 {
		return "the specification of NetworkPolicy says nothing about " + scenario.Names(unjudged)
	}
	if host := hostNetworkEnd(topology, c); s.Plain && host != "" {
		return fmt.Sprintf("%s is on the host's network", host)
	}
	return ""
}

// hostNetworkEnd is the end of a connection that is a hostNetwork pod, or a service with such a pod behind it; empty if
// none is.
func hostNetworkEnd(t *model.Topology, c model.Connection) model.Endpoint {
	for i := range t.Pods {
		pod := &t.Pods[i]
		if !pod.HostNetwork {
			continue
		}
		if c.From == pod.Endpoint() || c.Via == model.ViaPodIP && c.To == pod.Endpoint() {
			return pod.Endpoint()
		}
		if s, ok := t.Service(c.To); ok && c.Via != model.ViaPodIP && s.Selects(pod) {
			return pod.Endpoint()
		}
	}
	return ""
}

// Unproven has, in strict runs, a finding for each reason why a green result would prove less than a reader takes it
// for: those of [scenario.Plan.Unproven], and cells that are left open for another reason than the specification. The
// tables are those of the steps that a run has reached, nil for others.
func (p *Scenario) Unproven(tables []*Table) (out []model.Finding) {
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
	for i := range p.tables {
		for _, c := range p.latest(i, tables).Cells {
			if c.Open == "" {
				continue
			}
			if count[c.Open]++; count[c.Open] == 1 {
				reasons = append(reasons, c.Open)
			}
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

// latest is the table of a step that a run has made, or the one from before the run.
func (p *Scenario) latest(step int, tables []*Table) *Table {
	if step < len(tables) && tables[step] != nil {
		return tables[step]
	}
	return p.tables[step]
}
