package model

import (
	"fmt"
	"time"
)

// APIVersion is the version of the scenario file and of the report.
const APIVersion = "netproof.dev/v1alpha1"

// ReportKind is the kind of a saved report.
const ReportKind = "Report"

// Run is one run of netproof: what was asked, what was found, and the evidence. Its JSON form is the report
// described in docs/contract.md.
type Run struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	// Complete is false when the run ended before everything that was selected had been judged.
	Complete bool `json:"complete"`
	// StartedAt is when the run began.
	StartedAt time.Time `json:"startedAt,omitzero"`
	Tool      Tool      `json:"tool"`
	Cluster   Cluster   `json:"cluster"`
	Summary   Summary   `json:"summary"`
	// Findings are statements about the run as a whole: a plugin that enforces nothing, a failed set-up.
	Findings  []Finding  `json:"findings,omitempty"`
	Scenarios []Scenario `json:"scenarios"`
}

// Tool is the program that wrote a report.
type Tool struct {
	Version string `json:"version"`
	// Commit is that of the program's source, empty if it is not known; with + at its end the source was changed.
	Commit string `json:"commit,omitempty"`
}

// File is a file that a scenario was made of, as it was read.
type File struct {
	Path string `json:"path"`
	// SHA256 is the digest of its content, in hexadecimal.
	SHA256 string `json:"sha256"`
}

// Cluster says what the scenarios ran on.
type Cluster struct {
	Provider   string     `json:"provider"`
	Name       string     `json:"name,omitempty"`
	CNI        CNI        `json:"cni"`
	Kubernetes string     `json:"kubernetes"`
	Nodes      int        `json:"nodes"`
	IPFamilies []IPFamily `json:"ipFamilies"`
}

// CNI is a network plugin and its version.
type CNI struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// Summary counts the cells of a run.
type Summary struct {
	Scenarios    int `json:"scenarios"`
	Cells        int `json:"cells"`
	Passed       int `json:"passed"`
	Failed       int `json:"failed"`
	Inconclusive int `json:"inconclusive"`
	Unsupported  int `json:"unsupported"`
	Flaky        int `json:"flaky"`
	Recorded     int `json:"recorded"`
	// Result is passed, failed, inconclusive, vacuous or interrupted.
	Result Result `json:"result"`
	// Signal is the number of the signal that ended the run, 0 if none did.
	Signal int `json:"signal,omitempty"`
	// TimedOut is true when the overall time-out ended the run.
	TimedOut bool `json:"timedOut,omitempty"`
	// CleanupFailed is true when something that the run made could not be removed, or could not be shown to be removed.
	CleanupFailed bool  `json:"cleanupFailed,omitempty"`
	DurationMs    int64 `json:"durationMs"`
}

// FindingKind classifies a finding.
type FindingKind string

// The kinds of findings.
const (
	// NoEnforcement: the canary that must be denied was answered: the network plugin enforces nothing.
	NoEnforcement FindingKind = "no-enforcement"
	// NoConnectivity: the canary that must be allowed was not: everything is dropped.
	NoConnectivity FindingKind = "no-connectivity"
	// Infrastructure: the cluster or a part of it failed.
	Infrastructure FindingKind = "infrastructure"
	// Cleanup: something could not be removed or restored.
	Cleanup FindingKind = "cleanup"
	// NothingProven: a scenario selected nothing, or a policy selects no pod.
	NothingProven FindingKind = "vacuous"
	// Input: a scenario or a policy turned out to be wrong once addresses were known.
	Input FindingKind = "input"
	// IntentViolated: the policies do not do what a rule of netproof.yaml wants.
	IntentViolated FindingKind = "intent-violated"
	// Control: a control did not hold in some window.
	Control FindingKind = "control"
)

// Finding is one statement about a run or a scenario that is not about a single cell.
type Finding struct {
	Kind    FindingKind `json:"kind"`
	Message string      `json:"message"`
	// Result is failed for what was proven wrong, inconclusive for what prevents a proof, vacuous for what proves
	// nothing.
	Result Result `json:"result"`
}

// Scenario is one scenario of a run.
type Scenario struct {
	Name        string            `json:"name"`
	File        string            `json:"file,omitempty"`
	Description string            `json:"description,omitempty"`
	Result      Result            `json:"result"`
	Labels      map[string]string `json:"labels"`
	Findings    []Finding         `json:"findings,omitempty"`
	// Files are what the scenario was made of, and Warnings what looks like a mistake in them.
	Files    []File   `json:"files,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
	// Strangers are the endpoints that a folder of manifests does not mention, and was asked about all the same.
	Strangers []Endpoint `json:"strangers,omitempty"`
	// Classes are the workloads of a large folder that were asked about for others like them.
	Classes []Class `json:"classes,omitempty"`
	// Unasserted is true where nobody said what a folder of manifests is to do: no rule speaks of it, and no reviewed
	// table was there. As expected means no more then than that the network plugin does what the policies say.
	Unasserted bool   `json:"unasserted,omitempty"`
	Steps      []Step `json:"steps"`
	DurationMs int64  `json:"durationMs"`
}

// Class is a set of workloads that nothing tells apart: no selector of a policy, no port, no intent. What is proven of
// one of them holds for the others.
type Class struct {
	// Of is the workload that is asked about, and Like are the others. The first of them is there too, where the pods
	// of the class serve ports: it stands for all others as those whom Of asks.
	Of   Endpoint   `json:"of"`
	Like []Endpoint `json:"like"`
}

// Step is one step of a scenario: a change, and the truth table after it.
type Step struct {
	Name string `json:"name"`
	// EnforcedMs is the time from the change's acceptance by the API server to the first sample of the last cell that
	// came to agree with its settled verdict, when connections were to be cut; 0 when nothing had to change.
	EnforcedMs int64 `json:"enforcedMs"`
	// ReleasedMs is the same for connections that were to be opened.
	ReleasedMs int64 `json:"releasedMs,omitempty"`
	// SettledMs is the time from the change's acceptance to the moment the last cell was settled.
	SettledMs int64    `json:"settledMs"`
	Controls  Controls `json:"controls"`
	Cells     []Cell   `json:"cells"`
}

// Controls are the results of the checks that make a denial a proof.
type Controls struct {
	// ServersAlive of Servers answered from inside their own namespace, in the window of the samples.
	Servers      int `json:"servers"`
	ServersAlive int `json:"serversAlive"`
	// CanaryDenied: the connection that must be denied was.
	CanaryDenied bool `json:"canaryDenied"`
	// CanaryAllowed: the connection that must be allowed was.
	CanaryAllowed bool `json:"canaryAllowed"`
	// Held is true when every control held.
	Held bool `json:"held"`
}

// Cell is one entry of a truth table: one connection, what was expected, what was found, and the evidence.
type Cell struct {
	ID       string   `json:"id"`
	From     Endpoint `json:"from"`
	To       Endpoint `json:"to"`
	Port     int      `json:"port"`
	Protocol Protocol `json:"protocol"`
	IPFamily IPFamily `json:"ipFamily"`
	Via      Via      `json:"via"`
	Expected Verdict  `json:"expected"`
	// Egress and Ingress are what the specification says of the source's and of the destination's side alone; empty
	// where it says nothing.
	Egress  Verdict `json:"egress,omitempty"`
	Ingress Verdict `json:"ingress,omitempty"`
	// OneSided is true for a denial that rests on one side only: a rule of the other side admits the connection.
	OneSided bool `json:"oneSided,omitempty"`
	// Observed is empty when the cell was never probed.
	Observed Verdict `json:"observed"`
	Result   Result  `json:"result"`
	Manner   Manner  `json:"manner,omitempty"`
	// Samples is the number of samples that agree with the verdict, at the end of the series.
	Samples int `json:"samples"`
	// Reason says why the cell is not a plain pass.
	Reason string `json:"reason"`
	// Explain is the one-line explanation of the expected verdict.
	Explain string `json:"explain"`
	// Cause names the rules, or the policies without one, that make the expected verdict: cells that share it have one
	// reason. Kept for cells that did not pass.
	Cause string `json:"cause,omitempty"`
	// Walk is the explanation rule by rule; kept for cells that did not pass.
	Walk []string `json:"walk,omitempty"`
	// Policies are the annotations of the policies that decide this cell; kept for cells that did not pass.
	Policies []PolicyNote `json:"policies,omitempty"`
	// Evidence is kept for every cell; its series only for cells that did not pass or changed on the way.
	Evidence *Evidence `json:"evidence,omitempty"`
}

// PolicyNote is what a policy says about itself in its annotations.
type PolicyNote struct {
	// Policy is kind namespace/name, Source the file and line it was read from.
	Policy  string `json:"policy"`
	Source  string `json:"source,omitempty"`
	Owner   string `json:"owner,omitempty"`
	Purpose string `json:"purpose,omitempty"`
	Review  string `json:"review,omitempty"`
}

// Evidence is what happened on the wire for one cell.
type Evidence struct {
	// Outcome of the last sample, and the errno behind it, if any.
	Outcome string `json:"outcome"`
	Errno   string `json:"errno,omitempty"`
	// AnsweredBy is the pod that answered, as namespace/name.
	AnsweredBy string `json:"answeredBy,omitempty"`
	// RTTMicros is the median round-trip time of the agreeing samples that were answered.
	RTTMicros int64 `json:"rttUs,omitempty"`
	// Seen is the number of the agreeing samples whose nonce the server recorded: 0 for a proven denial.
	Seen int `json:"seen"`
	// EnforcedMs is the time from the step's change to the first sample of the agreeing run at the end, if the cell
	// changed.
	EnforcedMs int64    `json:"enforcedMs,omitempty"`
	Series     []Sample `json:"series,omitempty"`
}

// Sample is one probe of a cell.
type Sample struct {
	// AtMs is when the probe was sent, counted from the acceptance of the step's change.
	AtMs    int64   `json:"atMs"`
	Verdict Verdict `json:"verdict"`
	Outcome string  `json:"outcome"`
	Errno   string  `json:"errno,omitempty"`
}

// Connection returns what the cell asks about.
func (c Cell) Connection() Connection {
	return Connection{From: c.From, To: c.To, Port: c.Port, Protocol: c.Protocol, IPFamily: c.IPFamily, Via: c.Via}
}

// CellID builds the id of a cell, stable across runs and network plugins.
func CellID(scenario, step string, c Connection) string {
	return fmt.Sprintf("%s/%s/%s", scenario, step, c)
}
