package run

import (
	"fmt"
	"slices"
	"time"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
)

// classify turns a prober's response, and what the destination remembers of it, into the verdict of one sample.
// allowed are the endpoints that may answer, with their UIDs ("" matches any).
func classify(r probes.Response, protocol model.Protocol, seen bool, allowed []probes.Identity) (model.Verdict, string) {
	switch r.Outcome {
	case probes.Answered:
		if slices.ContainsFunc(allowed, func(id probes.Identity) bool {
			return id.Endpoint == r.By.Endpoint && (id.UID == "" || id.UID == r.By.UID)
		}) {
			return model.Allow, ""
		}
		return model.Inconclusive, fmt.Sprintf("answered by %s (UID %s), which is not the destination", r.By.Endpoint, r.By.UID)
	case probes.Timeout, probes.Reset, probes.Prohibited, probes.Unreachable:
		switch {
		case !r.Sent:
			return model.Inconclusive, fmt.Sprintf("the probe was not sent: %s %s", r.Outcome, r.Errno)
		case seen:
			return model.Inconclusive, fmt.Sprintf("the server saw the probe, but its answer did not come back (%s)", r.Outcome)
		case r.Connected:
			return model.Inconclusive, fmt.Sprintf("the connection was established, but the server did not answer (%s)", r.Outcome)
		}
		return model.Deny, ""
	case probes.Unsupported:
		if protocol != model.SCTP {
			return model.Inconclusive, fmt.Sprintf("the prober says that %s is unsupported, which it cannot be on a cluster that runs: %s", protocol, or(r.Detail, r.Errno))
		}
		return model.Unsupported, "this kernel cannot send such a probe: " + or(r.Detail, r.Errno)
	case probes.WrongAnswer:
		return model.Inconclusive, "the answer does not echo the probe: " + r.Detail
	default:
		return model.Inconclusive, "prober error: " + or(r.Detail, or(r.Errno, fmt.Sprintf("outcome %q", r.Outcome)))
	}
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// manner says how the last denied sample was refused.
func manner(r probes.Response) model.Manner {
	switch r.Outcome {
	case probes.Answered:
		return model.Answered
	case probes.Timeout:
		return model.Dropped
	case probes.Reset, probes.Prohibited, probes.Unreachable:
		return model.Rejected
	default:
		return ""
	}
}

// doubts are the reasons, from the controls, why a cell's evidence proves nothing; empty when they held.
type doubts struct {
	// all casts doubt on every verdict of the step: pods were replaced, policies changed behind the run's back.
	all string
	// enforcement casts doubt on every denial, and on every mismatch: the canaries or the barrier failed.
	enforcement string
	// denial casts doubt on this cell's denial: no baseline, server not alive, prober not alive.
	denial string
}

// verdictOf makes a cell's verdict from its settled series and the controls.
func verdictOf(st settled, settledAs model.Verdict, last sample, expected model.Verdict, d doubts, deadline time.Duration) (observed model.Verdict, result model.Result, reason string) {
	switch {
	case st.samples == 0:
		return model.Inconclusive, model.ResultInconclusive, or(d.all, or(d.enforcement, "never probed"))
	case d.all != "":
		return model.Inconclusive, model.ResultInconclusive, d.all
	case st.verdict == model.Unsupported:
		return model.Unsupported, model.ResultUnsupported, last.reason
	case st.verdict == model.Inconclusive:
		return model.Inconclusive, model.ResultInconclusive, last.reason
	case st.flips > 1:
		return st.verdict, model.Flaky, fmt.Sprintf("changed %d times after every node had taken up the change", st.flips)
	case settledAs != "" && settledAs != st.verdict:
		return st.verdict, model.Flaky, fmt.Sprintf("settled as %s, and then changed to %s without a cause", settledAs, st.verdict)
	case !st.ok:
		return model.Inconclusive, model.ResultInconclusive, fmt.Sprintf("not settled within %s", deadline)
	case d.enforcement != "" && (st.verdict == model.Deny || expected != model.Allow):
		return model.Inconclusive, model.ResultInconclusive, d.enforcement
	case d.denial != "" && st.verdict == model.Deny:
		return model.Inconclusive, model.ResultInconclusive, d.denial
	case expected == model.Undefined:
		return st.verdict, model.Recorded, "the specification leaves this case open"
	case st.verdict == expected:
		return st.verdict, model.Passed, ""
	default:
		return st.verdict, model.Failed, fmt.Sprintf("expected %s, observed %s", expected, st.verdict)
	}
}
