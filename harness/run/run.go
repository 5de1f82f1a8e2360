package run

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cni"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/scenario"
)

// Options of a run.
type Options struct {
	// Observer is told what goes on; nil for nobody.
	Observer Observer
	// Disposable says that the cluster ends with the run: what is on it need not be taken down one by one, and nobody else is there to be
	// concerned.
	Disposable bool
	// Allow are the ways in which scenarios may reach beyond their own namespaces on a cluster that is not disposable. Any other is an error,
	// and nothing is run.
	Allow []scenario.Reach
	// Namespaces of the cluster that the run was lent, by an administrator who has given them [cluster.LentLabel]; that of the canaries comes
	// on top. With any, the run makes none, labels none, and asks nothing about all of the cluster: its account may have rights in these only.
	Namespaces []string
	// ToolVersion is written into the report.
	ToolVersion string
	// NamespacePrefix goes before the name of every namespace that the run makes, and before it in policies that select namespaces by name.
	// Built-in namespaces keep their names, and so do all in the report.
	NamespacePrefix string
	// Settle bounds the time from a change to the settling of the last cell; 0 means 15 seconds.
	Settle time.Duration
	// BeforeSampling and AfterSampling are called around the sampling of every step. Fault tests break things there.
	BeforeSampling func(scenario, step string)
	AfterSampling  func(scenario, step string)

	// tune changes how the run waits. Tests give up early on what never comes.
	tune func(*pace)
}

// Run proves the prepared scenarios on a cluster, one after the other.
//
// The returned run is complete in itself: it has a result also when something failed or ctx ended, and everything that
// was judged until then. An error means that the input is wrong, and that nothing was run: it is a [scenario.Problems], or
// a [Disagreement].
func Run(ctx context.Context, c cluster.Cluster, prepared *Prepared, opts Options) (model.Run, error) {
	s := Open(ctx, c, opts)
	list := grouped(prepared.list)
	var refused scenario.Problems
	for _, p := range list {
		refused = append(refused, s.beyond(p)...)
	}
	if len(refused) == 0 { // else nothing is asked
		for _, p := range list {
			refused = append(refused, s.preflight(ctx, p)...)
		}
	}
	if len(refused) > 0 {
		s.Close(ctx)
		return s.result, refused
	}
	s.observer.RunStarted(s.result)
	for i, p := range list {
		if ctx.Err() != nil || !s.raise(ctx) {
			break
		}
		s.observer.ScenarioStarted(p.scenario.Metadata.Name, i, len(list))
		if _, err := s.prove(ctx, p); err != nil {
			s.Close(ctx)
			return s.result, err
		}
	}
	s.result.Complete = s.result.Complete && ctx.Err() == nil && len(s.result.Scenarios) == len(list)
	s.Close(ctx)
	return s.Result(), nil
}

// grouped puts scenarios of equal topology behind the first of them, so that pods are deployed once for all. Apart from that the
// order stays.
func grouped(list []*PreparedScenario) []*PreparedScenario {
	first := map[string]int{}
	for i, p := range list {
		if _, known := first[p.plan.TopologyKey]; !known {
			first[p.plan.TopologyKey] = i
		}
	}
	out := slices.Clone(list)
	slices.SortStableFunc(out, func(a, b *PreparedScenario) int {
		return cmp.Compare(first[a.plan.TopologyKey], first[b.plan.TopologyKey])
	})
	return out
}

// newRunID makes a short id that is a valid label value and unlikely to meet another.
func newRunID() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // crypto/rand does not fail: it ends the program instead
	return hex.EncodeToString(b[:])
}

// Session is a cluster prepared for proofs: the canaries are up, and the topology of the last scenario stays for the next.
// It is for one goroutine.
type Session struct {
	cluster  cluster.Cluster
	opts     Options
	pace     pace
	observer Observer
	nonces   *nonces
	began    time.Time
	result   model.Run

	stage  *stage
	canary *canary
	// key tells which topology is on the stage, "" none that could be used again.
	key string
	// last is the final control of the scenario before.
	last lastControl
	// broken is set once nothing can be proven any more; a finding says why.
	broken bool
	// capabilities are what the network plugin says it can do; limited is true where anything is known about that.
	capabilities cni.Capabilities
	limited      bool
	// unconfirmed is true while some node has not been seen to take up the last change.
	unconfirmed bool
}

// Open starts a session. What goes wrong becomes a finding of its result.
func Open(ctx context.Context, c cluster.Cluster, opts Options) *Session {
	if opts.Observer == nil {
		opts.Observer = Observers(nil)
	}
	id := newRunID()
	if known, ok := c.(cluster.Identified); ok {
		id = known.RunID()
	}
	s := &Session{cluster: c, opts: opts, pace: paceOf(c.ProbeTimeout()), observer: opts.Observer, nonces: &nonces{run: id}, began: time.Now()}
	if opts.Settle > 0 {
		s.pace.settle = opts.Settle
	}
	if opts.tune != nil {
		opts.tune(&s.pace)
	}
	s.result = model.Run{
		APIVersion: model.APIVersion, Kind: model.ReportKind, Complete: true, Tool: model.Tool{Version: opts.ToolVersion},
		Cluster: c.Info(), Scenarios: []model.Scenario{},
	}
	stage, err := newStage(ctx, c, id, opts)
	if err != nil {
		s.infrastructure(err)
		return s
	}
	s.stage = stage
	s.capabilities, s.limited = capabilitiesOf(c)
	return s
}

// Prove proves one scenario. An error means that the scenario or one of its policies is wrong, and that nothing of it was run.
func (s *Session) Prove(ctx context.Context, p *PreparedScenario) (model.Scenario, error) {
	if refused := s.beyond(p); len(refused) > 0 {
		return model.Scenario{}, refused
	}
	if refused := s.preflight(ctx, p); len(refused) > 0 {
		return model.Scenario{}, refused
	}
	if !s.raise(ctx) {
		s.result.Complete = false
		return model.Scenario{
			Name: p.scenario.Metadata.Name, Labels: p.scenario.Metadata.Labels, Result: model.ResultInconclusive, Findings: s.result.Findings,
		}, nil
	}
	return s.prove(ctx, p)
}

func (s *Session) prove(ctx context.Context, p *PreparedScenario) (model.Scenario, error) {
	out, err := s.scenario(ctx, p)
	if isInputError(err) {
		return out, err
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, errDied) {
		out.Findings = append(out.Findings, model.Finding{Kind: model.Infrastructure, Message: err.Error(), Result: model.ResultInconclusive})
	}
	if ill := s.cluster.Health(ctx); ill != nil && ctx.Err() == nil {
		s.infrastructure(ill)
	}
	s.result.Complete = s.result.Complete && len(out.Steps) == len(p.plan.Steps)
	s.result.Scenarios = append(s.result.Scenarios, out)
	one := model.Run{Complete: true, Scenarios: []model.Scenario{out}}
	model.Summarize(&one)
	s.observer.ScenarioDone(one.Scenarios[0])
	return one.Scenarios[0], nil
}

// Close removes what the session made, unless the cluster ends with it.
func (s *Session) Close(ctx context.Context) {
	if s.stage == nil {
		return
	}
	if s.opts.Disposable {
		s.stage.watch.stop()
	} else {
		detached, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.pace.cleanup)
		defer cancel()
		if err := s.stage.close(detached); err != nil {
			s.find(model.Finding{Kind: model.Cleanup, Message: "clean up: " + err.Error(), Result: model.ResultInconclusive})
		}
	}
	s.stage = nil
}

// Result is the run so far, summarized.
func (s *Session) Result() model.Run {
	s.result.Summary.DurationMs = time.Since(s.began).Milliseconds()
	model.Summarize(&s.result)
	return s.result
}

func (s *Session) find(f model.Finding) {
	s.result.Findings = append(s.result.Findings, f)
	s.observer.Found(f)
}

func (s *Session) infrastructure(err error) {
	s.broken = true
	s.find(model.Finding{Kind: model.Infrastructure, Message: err.Error(), Result: model.ResultInconclusive})
}

// raise deploys the canaries before the first proof. It is false when nothing can be proven here; one finding says why.
func (s *Session) raise(ctx context.Context) bool {
	if s.broken || s.canary != nil {
		return !s.broken
	}
	ok, err := s.raiseCanary(ctx)
	if err != nil {
		s.canary = nil
		if ctx.Err() == nil {
			s.infrastructure(errors.Join(s.cluster.Health(ctx), fmt.Errorf("canary: %w", err)))
		}
	}
	s.broken = s.broken || !ok
	return !s.broken
}

// beyond are the ways of a scenario that reach beyond its own namespaces, and are not allowed here.
func (s *Session) beyond(p *PreparedScenario) scenario.Problems {
	if s.opts.Disposable {
		return nil
	}
	return p.scenario.Beyond(s.opts.Allow)
}

// Beyond are the ways of all scenarios that reach beyond their own namespaces and are not allowed, as a run on a cluster that is not
// disposable finds them: for those who want to know before there is a cluster.
func (p *Prepared) Beyond(allow []scenario.Reach) scenario.Problems {
	var out scenario.Problems
	for _, one := range p.list {
		out = append(out, one.scenario.Beyond(allow)...)
	}
	return out
}

// preflight asks the API server about every object of a scenario before any is created, and returns those that it refuses. When
// it cannot be asked, the session is broken.
func (s *Session) preflight(ctx context.Context, p *PreparedScenario) scenario.Problems {
	if s.broken {
		return nil
	}
	if ill := s.cluster.Health(ctx); ill != nil {
		s.infrastructure(ill)
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, s.pace.ready)
	defer cancel()
	if problem, err := s.entering(bounded, p); err != nil {
		if ctx.Err() == nil {
			s.infrastructure(err)
		}
		return nil
	} else if problem != nil {
		return scenario.Problems{*problem}
	}
	var calls []func() error
	var applied []scenario.ApplyObject
	seen := map[string]bool{}
	for _, step := range p.plan.Steps {
		for _, change := range step.Changes {
			if apply, ok := change.(scenario.ApplyObject); ok && !seen[apply.Source.String()] {
				seen[apply.Source.String()] = true
				applied = append(applied, apply)
			}
		}
	}
	refused := make(scenario.Problems, len(applied))
	for i, apply := range applied {
		calls = append(calls, func() error {
			object, err := apply.Example(s.stage.families)
			if err != nil {
				err = &refusedError{err: err, mend: "correct the placeholder"}
			} else {
				err = s.stage.dryRun(bounded, object)
			}
			if errors.Is(err, errUnknownKind) && s.lacksKind(apply.Object) {
				return nil // its cells are unsupported
			}
			var refusal *refusedError
			if err != nil && !errors.As(err, &refusal) {
				return fmt.Errorf("%s: ask the API server about %s: %w", apply.Source, keyOf(apply.Object), err)
			}
			if err != nil {
				refused[i] = scenario.Problem{
					File: apply.Source.File, Line: apply.Source.Line, Column: apply.Source.Column,
					Message: fmt.Sprintf("the API server refuses %s: %v", keyOf(apply.Object), refusal.err),
					Mend:    refusal.mend,
				}
			}
			return nil
		})
	}
	if err := sideBySide(apiConcurrency, calls...); err != nil && ctx.Err() == nil {
		s.infrastructure(err)
	}
	return slices.DeleteFunc(refused, func(p scenario.Problem) bool { return p.Message == "" })
}

// entering finds what others have on the cluster that some step of a scenario would be connected with, or what keeps the scenario out of the
// namespaces that the run was lent.
func (s *Session) entering(ctx context.Context, p *PreparedScenario) (*scenario.Problem, error) {
	topologies := []*model.Topology{&p.plan.Initial}
	for i := range p.plan.Steps {
		topologies = append(topologies, &p.plan.Steps[i].Topology)
	}
	if len(s.stage.lent) > 0 {
		ns, _ := canarySpec(1, true)
		topologies = append(topologies, &model.Topology{Namespaces: []model.Namespace{ns}})
	}
	about, why, err := s.stage.entering(ctx, topologies...)
	if err != nil || why == "" {
		return nil, err
	}
	at := p.scenario.PositionOf(about)
	return &scenario.Problem{
		File: at.File, Line: at.Line, Column: at.Column, Message: why,
		Mend: "use another namespace, other labels, or another cluster; on a cluster of its own a run meets nobody",
	}, nil
}

// raiseCanary deploys the canaries and shows that the network plugin allows and denies at all. When it does not, ok is false
// and one finding says so.
func (s *Session) raiseCanary(ctx context.Context) (ok bool, err error) {
	s.observer.Note("deploying the canaries")
	ctx, cancel := context.WithTimeout(ctx, s.pace.ready)
	defer cancel()
	if _, err := s.stage.rivals(ctx); err != nil {
		return false, err
	}
	if unseen := s.stage.unseen(); len(unseen) > 0 {
		s.observer.Note("may not list " + strings.Join(unseen, ", ") + ": policies of others of these kinds would not be seen")
	}
	ns, pods := canarySpec(s.cluster.Info().Nodes, len(s.stage.lent) > 0)
	if err := s.stage.createNamespaces(ctx, []model.Namespace{ns}, pods); err != nil {
		return false, err
	}
	if err := s.stage.createPods(ctx, pods); err != nil {
		return false, err
	}
	c := &canary{
		client: s.stage.client, namespace: s.stage.names.real(canaryNamespace), labels: s.stage.ownLabels(nil), lent: len(s.stage.lent) > 0,
		nonces: s.nonces, pods: map[model.Endpoint]*corev1.Pod{},
	}
	for _, p := range pods {
		c.pods[p.Endpoint()] = s.stage.running[p.Endpoint()]
	}
	if err := c.link(ctx, pods, s.stage.agent, s.stage.families); err != nil {
		return false, err
	}
	s.canary = c

	connect, cancel := context.WithTimeout(ctx, s.pace.connect)
	defer cancel()
	for _, port := range []int{canaryAllowed, canaryDenied} {
		if _, err := c.await(connect, s.pace.rhythm, port); errors.Is(err, errNotConfirmed) {
			s.find(model.Finding{
				Kind: model.NoConnectivity, Result: model.ResultInconclusive,
				Message: "before any policy the canaries cannot reach each other: " + err.Error() + ": nothing can be proven on this cluster" + s.rivalNote(ctx),
			})
			return false, nil
		} else if err != nil {
			return false, err
		}
	}
	c.ports = []int{canaryTurn}
	for _, p := range c.policies(0, canaryTurn) {
		if err := applyObject(ctx, s.stage.client.NetworkingV1().RESTClient(), "networkpolicies", p); err != nil {
			return false, fmt.Errorf("apply policy %s: %w", p.Name, err)
		}
	}
	start := time.Now()
	patient := s.pace
	patient.mismatchWindow = 8 * time.Second // a plugin's first policy may be slow; to say that it enforces nothing is a grave word
	patient.settle = max(patient.settle, 2*patient.mismatchWindow)
	w := observe(ctx, patient, c, s.nonces, s.stage, c.to(canaryDenied, model.Deny), start, false)
	for _, t := range w.tracks {
		series, _ := t.series()
		st := patient.judge(series, start, model.Deny)
		switch {
		case ctx.Err() != nil:
			return false, context.Cause(ctx)
		case st.verdict == model.Allow && st.ok:
			s.find(model.Finding{
				Kind: model.NoEnforcement, Result: model.Failed,
				Message: fmt.Sprintf("the network plugin %s enforces no policy: %s -> %s was still answered %s after a policy that denies it; no cell was judged",
					s.result.Cluster.CNI.Name, t.conn.From, t.conn.To, time.Since(start).Round(100*time.Millisecond)),
			})
			return false, nil
		case st.verdict != model.Deny || !st.ok:
			s.find(model.Finding{
				Kind: model.Control, Result: model.ResultInconclusive,
				Message: fmt.Sprintf("the canary %s -> %s did not settle: nothing can be proven on this cluster%s", t.conn.From, t.conn.To, s.rivalNote(ctx)),
			})
			return false, nil
		}
	}
	return true, nil
}

// rivalNote names a policy of others that acts on the canaries, for the end of a sentence.
func (s *Session) rivalNote(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.pace.connect)
	defer cancel()
	if rival, err := s.stage.rivals(ctx); err == nil && rival != "" {
		return "; " + rival
	}
	return ""
}
