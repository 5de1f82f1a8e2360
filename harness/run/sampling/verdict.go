package sampling

import (
	"cmp"
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
			return model.Inconclusive, fmt.Sprintf("the prober says that %s is unsupported, which it cannot be on a cluster that runs: %s", protocol, cmp.Or(r.Detail, r.Errno))
		}
		return model.Unsupported, "this kernel cannot send such a probe: " + cmp.Or(r.Detail, r.Errno)
	case probes.WrongAnswer:
		return model.Inconclusive, "the answer does not echo the probe: " + r.Detail
	default:
		return model.Inconclusive, "prober error: " + cmp.Or(r.Detail, cmp.Or(r.Errno, fmt.Sprintf("outcome %q", r.Outcome)))
	}
}

// Manner says how the last denied sample was refused.
func Manner(r probes.Response) model.Manner {
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

// Doubts are the reasons, from the controls, why a cell's evidence proves nothing; empty when they held.
type Doubts struct {
	// All casts doubt on every verdict of the step: pods were replaced, policies changed behind the run's back.
	All string
	// Enforcement casts doubt on every denial, and on every mismatch: the canaries or the barrier failed.
	Enforcement string
	// Denial casts doubt on this cell's denial: no baseline, server not alive, prober not alive.
	Denial string
}

// VerdictOf makes a cell's verdict from its settled series and the controls.
func VerdictOf(st Settled, settledAs model.Verdict, last Sample, expected model.Verdict, d Doubts, deadline time.Duration) (observed model.Verdict, result model.Result, reason string) {
	switch {
	case st.Samples == 0:
		return model.Inconclusive, model.ResultInconclusive, cmp.Or(d.All, cmp.Or(d.Enforcement, "never probed"))
	case d.All != "":
		return model.Inconclusive, model.ResultInconclusive, d.All
	case st.Verdict == model.Unsupported:
		return model.Unsupported, model.ResultUnsupported, last.Reason
	case st.Verdict == model.Inconclusive:
		return model.Inconclusive, model.ResultInconclusive, last.Reason
	case st.Flips > 1:
		return st.Verdict, model.Flaky, fmt.Sprintf("changed %d times after every node had taken up the change", st.Flips)
	case settledAs != "" && settledAs != st.Verdict:
		return st.Verdict, model.Flaky, fmt.Sprintf("settled as %s, and then changed to %s without a cause", settledAs, st.Verdict)
	case !st.OK:
		return model.Inconclusive, model.ResultInconclusive, fmt.Sprintf("not settled within %s", deadline)
	case d.Enforcement != "" && (st.Verdict == model.Deny || expected != model.Allow):
		return model.Inconclusive, model.ResultInconclusive, d.Enforcement
	case d.Denial != "" && st.Verdict == model.Deny:
		return model.Inconclusive, model.ResultInconclusive, d.Denial
	case expected == model.Undefined:
		return st.Verdict, model.Recorded, "the specification leaves this case open"
	case st.Verdict == expected:
		return st.Verdict, model.Passed, ""
	default:
		return st.Verdict, model.Failed, fmt.Sprintf("expected %s, observed %s", expected, st.Verdict)
	}
}
