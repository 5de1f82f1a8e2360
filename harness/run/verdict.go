package run

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/netproof/netproof/harness/cni"
	"github.com/netproof/netproof/harness/expect"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/run/sampling"
	"github.com/netproof/netproof/harness/run/stage"
	"github.com/netproof/netproof/harness/scenario"
)

// cell is a connection of a step on its way from the plan to a verdict.
//
// A verdict is written here, in this order: the settled series and the controls of the same time make it
// ([sampling.VerdictOf]); the step's other cells may show that it needs what the plugin lacks ([session.judgeNeeds]);
// and when the scenario has come to its end the final control may take a denial back ([proof.takeBack]). Only then it
// is final: [Observer.ScenarioDone] hands out final cells, [Observer.StepDone] does not.
type cell struct {
	expect.Cell
	// target says how the connection is probed, and track is what came of it.
	target sampling.Target
	track  *sampling.Track
	// out is the cell of the report.
	out model.Cell
}

// cellOf is the cell of a report, without a verdict.
func cellOf(c expect.Cell) model.Cell {
	return model.Cell{
		ID: c.ID, From: c.Conn.From, To: c.Conn.To, Port: c.Conn.Port, Protocol: c.Conn.Protocol, IPFamily: c.Conn.IPFamily, Via: c.Conn.Via,
		Egress: c.Egress, Ingress: c.Ingress, OneSided: c.OneSided,
	}
}

// readyCells are those of a step, ready to be probed.
func readyCells(s *stage.Stage, table *expect.Table) []*cell {
	out := make([]*cell, len(table.Cells))
	for i, c := range table.Cells {
		out[i] = &cell{Cell: c, target: s.Target(c.Conn, c.Verdict), out: cellOf(c)}
	}
	return out
}

// judge makes the step of the report out of its cells, the window in which they were sampled, and what is wrong with
// all of it.
func (pr *proof) judge(step *scenario.PlannedStep, cells []*cell, w *sampling.Window, all string) model.Step {
	out := model.Step{Name: step.Name, Controls: w.Controls}
	if all != "" {
		out.Controls.Held = false
		pr.find(model.Control, fmt.Sprintf("step %q: %s", step.Name, all))
	}
	if w.Enforcement != "" && all != endedEarly { // the end of the run says nothing about a node
		pr.find(model.Control, fmt.Sprintf("step %q: %s", step.Name, w.Enforcement))
	}
	for _, c := range cells {
		st := pr.judgeCell(c, w, all)
		if len(step.Changes) == 0 {
			c.out.Evidence.EnforcedMs = 0 // nothing was to take effect
		}
		if st.Verdict == model.Deny {
			out.EnforcedMs = max(out.EnforcedMs, c.out.Evidence.EnforcedMs)
		} else {
			out.ReleasedMs = max(out.ReleasedMs, c.out.Evidence.EnforcedMs)
		}
		if st.OK {
			out.SettledMs = max(out.SettledMs, st.At.Sub(w.Start).Milliseconds())
			pr.previous[c.Conn] = st.Verdict
		}
	}
	pr.judgeNeeds(cells)
	for _, c := range cells {
		out.Cells = append(out.Cells, c.out)
	}
	return out
}

// judgeCell makes the verdict of one cell out of its series and the controls.
func (pr *proof) judgeCell(c *cell, w *sampling.Window, all string) sampling.Settled {
	series, _ := c.track.Series()
	st := pr.pace.Judge(series, w.Barrier, c.Verdict)
	var last sampling.Sample
	if some := sampling.Telling(series); len(some) > 0 {
		last = some[len(some)-1]
	} else if len(series) > 0 {
		last = series[len(series)-1]
	}
	d := sampling.Doubts{All: all, Enforcement: w.Enforcement, Denial: pr.denialDoubt(c.track, w)}
	out := &c.out
	out.Expected, out.Explain = c.Verdict, c.Summary()
	out.Observed, out.Result, out.Reason = sampling.VerdictOf(st, c.track.SettledAs, last, c.Verdict, d, w.Limit)
	out.Manner, out.Samples = sampling.Manner(last.Response), st.Samples
	_, pr.based[c.ID] = pr.baseline[c.Conn]
	out.Evidence = pr.evidence(c.Conn, series, st, w.Start)
	if out.Result != model.Passed && out.Result != model.Recorded {
		out.Walk, out.Policies, out.Cause = c.Walk(), c.Policies, c.Cause
		out.Evidence.Series = seriesOut(series, w.Start)
	}
	return st
}

// denialDoubt says why a denial of this cell would prove nothing, or "".
func (pr *proof) denialDoubt(t *sampling.Track, w *sampling.Window) string {
	for _, id := range t.Answerers {
		if why, dead := w.Dead[id.Endpoint]; dead {
			return fmt.Sprintf("the server of %s was not alive: %s", id.Endpoint, why)
		}
	}
	if why, dead := w.DeadProbers[t.Conn.From]; dead {
		return fmt.Sprintf("the prober of %s could not reach its own server: %s", t.Conn.From, why)
	}
	// Pods that came later have no baseline yet: the final control makes up for it.
	if why := pr.baseline[t.Conn]; why != "" {
		return "no baseline: before any policy the connection was not answered: " + why
	}
	return ""
}

func (pr *proof) evidence(c model.Connection, series []sampling.Sample, st sampling.Settled, start time.Time) *model.Evidence {
	e := &model.Evidence{}
	var rtts []time.Duration
	changed := false
	for _, s := range series {
		if s.Sent.Before(st.Since) {
			// From before the change took effect: it is in the series, but no evidence for the verdict.
			changed = changed || (s.Verdict != st.Verdict && !s.Void)
			continue
		}
		if s.Seen {
			e.Seen++
		}
		if s.Verdict == model.Allow {
			rtts = append(rtts, s.Response.RTT)
			e.AnsweredBy = string(s.Response.By.Endpoint)
		}
	}
	if n := len(series); n > 0 {
		e.Outcome, e.Errno = string(series[n-1].Response.Outcome), series[n-1].Response.Errno
	}
	if len(rtts) > 0 {
		slices.Sort(rtts)
		e.RTTMicros = rtts[len(rtts)/2].Microseconds()
	}
	before, known := pr.previous[c]
	if !known && pr.baseline[c] == "" {
		before = model.Allow
	}
	if st.OK && (changed || (before != "" && before != st.Verdict)) {
		e.EnforcedMs = max(1, st.Since.Sub(start).Milliseconds())
	}
	return e
}

func seriesOut(series []sampling.Sample, start time.Time) []model.Sample {
	out := make([]model.Sample, len(series))
	for i, s := range series {
		out[i] = model.Sample{AtMs: s.Sent.Sub(start).Milliseconds(), Verdict: s.Verdict, Outcome: string(s.Response.Outcome), Errno: s.Response.Errno}
	}
	return out
}

// takeBack makes denials inconclusive whose connection does not work without policies, and returns those connections.
// final has an entry for each connection that was tried.
func (pr *proof) takeBack(final map[model.Connection]string) (cut []string) {
	for i := range pr.out.Steps {
		step := &pr.out.Steps[i]
		for j := range step.Cells {
			c := &step.Cells[j]
			if c.Observed != model.Deny {
				continue
			}
			conn := c.Connection()
			after, tried := final[conn]
			switch {
			case tried && after != "":
				c.Reason = "after all policies were deleted the connection still did not work: " + after
				if s := conn.String(); !slices.Contains(cut, s) {
					cut = append(cut, s)
				}
			case !tried && !pr.based[c.ID]:
				c.Reason = "no baseline: this pair of pods was never seen to connect without policies"
			default:
				continue
			}
			c.Observed, c.Result = model.Inconclusive, model.ResultInconclusive
		}
	}
	return cut
}

// judgeNeeds allows for features that the plugin lacks: those cells of a step that need them are unsupported, unless
// they show that the plugin has the feature all the same. Then what was claimed hides real cells, and that fails.
func (s *session) judgeNeeds(cells []*cell) {
	shown := map[cni.Feature]bool{}
	// Of features of the traffic itself a cell that is allowed and one that is denied tell together.
	type both struct{ allowed, denied, wrong bool }
	together := map[cni.Feature]*both{}
	for _, c := range cells {
		for _, n := range c.Needs {
			if n.Alone {
				shown[n.Feature] = shown[n.Feature] || c.out.Result == model.Passed
				continue
			}
			b := together[n.Feature]
			if b == nil {
				b = &both{}
				together[n.Feature] = b
			}
			switch {
			case c.out.Result != model.Passed:
				b.wrong = true
			case c.out.Observed == model.Allow:
				b.allowed = true
			default:
				b.denied = true
			}
		}
	}
	for f, b := range together {
		shown[f] = shown[f] || b.allowed && b.denied && !b.wrong
	}
	for _, one := range cells {
		c := &one.out
		if len(one.Needs) == 0 || c.Result == model.ResultInconclusive || c.Result == model.ResultUnsupported {
			continue // what proves nothing shows nothing about a feature either
		}
		var worked []cni.Feature
		var reasons []string
		for _, n := range one.Needs {
			if shown[n.Feature] {
				worked = append(worked, n.Feature)
			}
			reasons = append(reasons, s.capabilities.Reason(n.Feature))
		}
		if err := s.capabilities.Stale(worked...); err != nil {
			c.Result, c.Reason = model.Failed, err.Error()
			continue
		}
		c.Reason = fmt.Sprintf("%s; observed %s", strings.Join(reasons, "; "), c.Observed)
		c.Observed, c.Result = model.Unsupported, model.ResultUnsupported
	}
}
