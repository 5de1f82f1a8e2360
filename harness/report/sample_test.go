package report_test

import (
	"fmt"

	"github.com/netproof/netproof/harness/model"
)

// The runs that the tests of all formats render.

func makeRun(scenarios ...model.Scenario) model.Run {
	run := model.Run{
		APIVersion: model.APIVersion,
		Kind:       model.ReportKind,
		Complete:   true,
		Tool:       model.Tool{Version: "v0.1.0"},
		Cluster: model.Cluster{
			Provider: "local", CNI: model.CNI{Name: "calico", Version: "v3.30.1"}, Kubernetes: "v1.36.3", Nodes: 2,
			IPFamilies: []model.IPFamily{model.IPv4},
		},
		Scenarios: scenarios,
	}
	run.Summary.DurationMs = 14_230
	model.Summarize(&run)
	return run
}

func makeStep(name string, cells ...model.Cell) model.Step {
	return model.Step{
		Name: name, EnforcedMs: 41, SettledMs: 350, Cells: cells,
		Controls: model.Controls{Servers: 6, ServersAlive: 6, CanaryDenied: true, CanaryAllowed: true, Held: true},
	}
}

// makeCells gives a cell for every pair of different pods on a port; what is expected is also observed.
func makeCells(scenario, step string, pods []model.Endpoint, port int, verdict func(from, to model.Endpoint) model.Verdict) []model.Cell {
	var cells []model.Cell
	for _, from := range pods {
		for _, to := range pods {
			if from != to {
				cells = append(cells, makeCell(scenario, step, from, to, port, verdict(from, to)))
			}
		}
	}
	return cells
}

func makeCell(scenario, step string, from, to model.Endpoint, port int, v model.Verdict) model.Cell {
	c := model.Cell{
		From: from, To: to, Port: port, Protocol: model.TCP, IPFamily: model.IPv4, Via: model.ViaPodIP,
		Expected: v, Observed: v, Result: model.Passed, Samples: 3,
	}
	c.ID = model.CellID(scenario, step, c.Connection())
	if v == model.Allow {
		c.Manner = model.Answered
		c.Evidence = &model.Evidence{Outcome: "answered", AnsweredBy: string(to), RTTMicros: 412, Seen: 3}
	} else {
		c.Manner = model.Dropped
		c.Evidence = &model.Evidence{Outcome: "timeout"}
	}
	return c
}

func always(v model.Verdict) func(_, _ model.Endpoint) model.Verdict {
	return func(_, _ model.Endpoint) model.Verdict { return v }
}

var threePods = []model.Endpoint{"x/a", "x/b", "y/a"}

// mismatchRun is two steps of a scenario in which one cell is not as expected.
func mismatchRun() model.Run {
	const name, step = "default-deny-ingress", "isolated"
	cells := makeCells(name, step, threePods, 80, func(_, to model.Endpoint) model.Verdict {
		if to == "y/a" {
			return model.Allow
		}
		return model.Deny
	})
	for i := range cells {
		c := &cells[i]
		if c.From != "y/a" || c.To != "x/b" {
			continue
		}
		c.Observed, c.Result, c.Manner = model.Allow, model.Failed, model.Answered
		c.Explain = "x/b is isolated for ingress by x/deny (deny.yaml:3) and no rule admits y/a"
		c.Evidence = &model.Evidence{Outcome: "answered", AnsweredBy: "x/b", RTTMicros: 412, Seen: 3, Series: []model.Sample{
			{AtMs: 120, Verdict: model.Allow, Outcome: "answered"}, {AtMs: 240, Verdict: model.Allow, Outcome: "answered"},
			{AtMs: 350, Verdict: model.Allow, Outcome: "answered"},
		}}
		c.Policies = []model.PolicyNote{{
			Policy: "NetworkPolicy x/deny", Source: "deny.yaml:3", Owner: "team-payments",
			Purpose: "only the gateway may reach the ledger", Review: "2027-03-31",
		}}
		c.Walk = []string{
			"egress of y/a: no policy selects it, so it may go out",
			"ingress of x/b: selected by x/deny (deny.yaml:3)",
			"  x/deny has no ingress rule",
			"so x/b refuses y/a on 80/TCP",
		}
	}
	open := makeStep("before any policy", makeCells(name, "before any policy", threePods, 80, always(model.Allow))...)
	open.EnforcedMs = 0
	return makeRun(model.Scenario{
		Name: name, File: "fixtures/default-deny-ingress/scenario.yaml", Labels: map[string]string{"feature": "ingress"},
		Steps: []model.Step{
			open,
			makeStep(step, cells...),
		},
		DurationMs: 2310,
	})
}

// tiersRun is a scenario of nine pods in three namespaces, where each tier serves a port of its own.
func tiersRun() model.Run {
	const name, step = "quickstart", "everything open"
	var pods []model.Endpoint
	for _, ns := range []string{"dev", "test", "prod"} {
		for _, tier := range []string{"frontend", "app", "database"} {
			pods = append(pods, model.PodEndpoint(ns, tier))
		}
	}
	ports := map[string]int{"frontend": 80, "app": 8080, "database": 5432}
	var cells []model.Cell
	for _, from := range pods {
		for _, to := range pods {
			if _, tier, _ := to.Split(); from != to {
				cells = append(cells, makeCell(name, step, from, to, ports[tier], model.Allow))
			}
		}
	}
	return makeRun(model.Scenario{Name: name, Steps: []model.Step{makeStep(step, cells...)}, DurationMs: 900})
}

// allKindsRun has every result a cell can have, two families, a service, and findings.
func allKindsRun() model.Run {
	const name, step = "all kinds", "after"
	cells := makeCells(name, step, threePods, 80, always(model.Deny))
	cells[0].Observed, cells[0].Result, cells[0].Reason = model.Inconclusive, model.ResultInconclusive, "the server of x/b was not alive in this window"
	cells[2].Observed, cells[2].Result, cells[2].Reason = model.Inconclusive, model.ResultInconclusive, "no baseline: without policies x/a was not reached"
	cells[5].Observed, cells[5].Result, cells[5].Reason = model.Inconclusive, model.ResultInconclusive, "the server of x/b was not alive in this window"
	cells[1].Result, cells[1].Reason = model.Flaky, "settled as denied, then answered without a cause"
	cells[1].Evidence.Series = []model.Sample{
		{Verdict: model.Deny}, {Verdict: model.Deny}, {Verdict: model.Deny}, {Verdict: model.Allow}, {Verdict: model.Deny},
	}
	sctp := makeCell(name, step, "x/a", "y/a", 80, model.Allow)
	sctp.Protocol, sctp.Observed, sctp.Result, sctp.Reason = model.SCTP, model.Unsupported, model.ResultUnsupported, "this kernel has no SCTP sockets"
	sctp.ID = model.CellID(name, step, sctp.Connection())
	open := makeCell(name, step, "x/a", "x/a", 81, model.Allow)
	open.Expected, open.Result, open.Reason = model.Undefined, model.Recorded, "a pod to itself"
	six := makeCell(name, step, "y/a", "x/a", 80, model.Deny)
	six.IPFamily, six.Manner, six.Result, six.Expected = model.IPv6, model.Rejected, model.Failed, model.Allow
	six.Evidence = &model.Evidence{Outcome: "reset", Errno: "ECONNREFUSED"}
	six.ID = model.CellID(name, step, six.Connection())
	svc := makeCell(name, step, "y/a", "x/web", 80, model.Allow)
	svc.Via = model.ViaService
	svc.ID = model.CellID(name, step, svc.Connection())
	s := makeStep(step, append(cells, sctp, open, six, svc)...)
	s.ReleasedMs, s.EnforcedMs, s.SettledMs = 14, 0, 12_400
	s.Controls = model.Controls{Servers: 6, ServersAlive: 5, CanaryDenied: false, CanaryAllowed: true}
	run := makeRun(model.Scenario{
		Name: name, Steps: []model.Step{s}, DurationMs: 61_000,
		Findings: []model.Finding{{Kind: model.Control, Result: model.ResultInconclusive, Message: "the server of x/b stopped answering 1.2 s after the change"}},
	})
	run.Cluster.IPFamilies = []model.IPFamily{model.IPv4, model.IPv6}
	run.Complete, run.Summary.Signal = false, 2
	run.Findings = []model.Finding{{Kind: model.Cleanup, Result: model.ResultInconclusive, Message: "namespace x is still there after 30 s"}}
	model.Summarize(&run)
	return run
}

// wideRun has fifty pods that are all denied, but for one mismatch.
func wideRun() model.Run {
	const name, step = "wide", "all denied"
	var pods []model.Endpoint
	for i := range 50 {
		pods = append(pods, model.PodEndpoint("x", fmt.Sprintf("p-%02d", i)))
	}
	cells := makeCells(name, step, pods, 80, always(model.Deny))
	for i := range cells {
		if cells[i].From == "x/p-07" && cells[i].To == "x/p-30" {
			cells[i].Observed, cells[i].Result = model.Allow, model.Failed
		}
	}
	return makeRun(model.Scenario{Name: name, Steps: []model.Step{makeStep(step, cells...)}, DurationMs: 900})
}

// manyRun has many scenarios. One failed.
func manyRun() model.Run {
	var scenarios []model.Scenario
	for i := range 5 {
		name := fmt.Sprintf("scenario-%d", i)
		scenarios = append(scenarios, model.Scenario{
			Name: name, DurationMs: int64(400 + 100*i),
			Steps: []model.Step{makeStep("open", makeCells(name, "open", threePods, 80, always(model.Allow))...)},
		})
	}
	bad := mismatchRun().Scenarios[0]
	return makeRun(append(scenarios[:3:3], append([]model.Scenario{bad}, scenarios[3:]...)...)...)
}

// setupFailedRun ended before its first scenario.
func setupFailedRun() model.Run {
	run := makeRun()
	run.Complete = false
	run.Findings = []model.Finding{{
		Kind: model.Infrastructure, Result: model.ResultInconclusive,
		Message: "node 1: calico-node did not become ready within 60 s: its last words were \"dial tcp 198.18.0.2:6443: connect: no route to host\"",
	}}
	model.Summarize(&run)
	return run
}

// noEnforcementRun is what a network plugin that enforces nothing gives: four hundred mismatches and one finding.
func noEnforcementRun() model.Run {
	const name, step = "nothing-enforced", "deny all"
	var pods []model.Endpoint
	for i := range 21 {
		pods = append(pods, model.PodEndpoint("x", fmt.Sprintf("p-%d", i)))
	}
	cells := makeCells(name, step, pods, 80, always(model.Deny))
	for i := range cells {
		cells[i].Observed, cells[i].Result = model.Inconclusive, model.ResultInconclusive
		cells[i].Reason = "the canary that must be denied was answered"
	}
	s := makeStep(step, cells...)
	s.Controls = model.Controls{Servers: 21, ServersAlive: 21, CanaryAllowed: true}
	run := makeRun(model.Scenario{Name: name, Steps: []model.Step{s}, DurationMs: 4100})
	run.Findings = []model.Finding{{Kind: model.NoEnforcement, Result: model.Failed, Message: "none enforces no network policy: the canary in namespace netproof-canary was answered 5 s after its policy was accepted"}}
	model.Summarize(&run)
	return run
}

var sampleRuns = map[string]func() model.Run{
	"mismatch":       mismatchRun,
	"tiers":          tiersRun,
	"all-kinds":      allKindsRun,
	"wide":           wideRun,
	"many":           manyRun,
	"setup-failed":   setupFailedRun,
	"no-enforcement": noEnforcementRun,
}
