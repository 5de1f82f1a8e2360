package model

// Verdict says what somebody claims, or what was found, about a connection.
type Verdict string

// The verdicts. Allow and Deny are proven or expected; Inconclusive and Unsupported are only ever observed;
// Undefined is only ever expected.
const (
	// Allow: the server's answer echoed the probe's nonce and named the pod that answered.
	Allow Verdict = "allow"
	// Deny: the prober reports a recognised outcome, the server has no record of the nonce, and the controls held.
	Deny Verdict = "deny"
	// Inconclusive: neither could be proven; there is a reason.
	Inconclusive Verdict = "inconclusive"
	// Unsupported: the kernel or the network plugin cannot carry this probe; there is a reason.
	Unsupported Verdict = "unsupported"
	// Undefined: the specification leaves the case open.
	Undefined Verdict = "undefined"
)

// Manner tells how a connection was answered or refused. It is recorded, and never part of a verdict.
type Manner string

// The manners.
const (
	Answered Manner = "answered"
	Dropped  Manner = "dropped"
	Rejected Manner = "rejected"
)

// Side is the side of a connection that must refuse it.
type Side string

// The sides of a connection.
const (
	ByIngress Side = "ingress"
	ByEgress  Side = "egress"
	ByBoth    Side = "both"
)

// Result is the outcome of a cell, a scenario or a run.
type Result string

// The results. A run or a scenario is never Recorded, and Flaky ones count as Inconclusive there.
const (
	Passed             Result = "passed"
	Failed             Result = "failed"
	ResultInconclusive Result = "inconclusive"
	ResultUnsupported  Result = "unsupported"
	// Flaky: the cell was settled, and changed without a cause.
	Flaky Result = "flaky"
	// Recorded: the specification leaves the case open; observed, never pass or fail.
	Recorded Result = "recorded"
	// Vacuous: nothing was selected, or a policy selects no pod: nothing has been proven.
	Vacuous Result = "vacuous"
	// Interrupted: a signal or the overall time-out ended the run before its end.
	Interrupted Result = "interrupted"
)
