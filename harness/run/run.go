package run

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cni"
	"github.com/netproof/netproof/harness/expect"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/run/sampling"
	"github.com/netproof/netproof/harness/run/stage"
	"github.com/netproof/netproof/harness/scenario"
)

// Options of a run.
type Options struct {
	// Observer hears what goes on; nil for nobody.
	Observer Observer
	// Disposable says that the cluster ends with the run: what is on it need not be taken down one by one, and nobody
	// else is there to be concerned.
	Disposable bool
	// Allow are the ways in which scenarios may reach beyond their own namespaces on a cluster that is not disposable.
	// Any other is an error, and nothing is run.
	Allow []scenario.Reach
	// Namespaces of the cluster that the run was lent, by an administrator who has given them [cluster.LentLabel]; that
	// of the canaries comes on top. With any, the run makes none, labels none, and asks nothing about all of the
	// cluster: its account may have rights in these only.
	Namespaces []string
	// Tool is written into the report.
	Tool model.Tool
	// NamespacePrefix goes before the name of every namespace that the run makes, and before it in policies that select
	// namespaces by name. Built-in namespaces keep their names, and so do all in the report.
	NamespacePrefix string
	// Lanes is how many scenarios run side by side; 0 and 1 run one after the other. Where the namespaces are lent, and
	// where BeforeSampling or AfterSampling break things, there is one lane.
	Lanes int
	// Settle bounds the time from a change to the settling of the last cell; 0 means 15 seconds.
	Settle time.Duration
	// BeforeSampling and AfterSampling are called around the sampling of every step. Fault tests break things there.
	BeforeSampling func(scenario, step string)
	AfterSampling  func(scenario, step string)

	// died ends when some lane finds that a part of the cluster has died, and die ends it. Both are nil without lanes.
	died context.Context
	die  context.CancelFunc
	// lane is which of those that share a cluster this is.
	lane stage.Lane
	// tune changes how the run waits. Tests give up early on what never comes.
	tune func(*pace)
}

// session is a cluster prepared for proofs: the canaries are up, and the topology of the last scenario stays for the
// next. It is for one goroutine. What goes wrong outside of scenarios is said to the observer, once.
type session struct {
	cluster  cluster.Cluster
	opts     Options
	pace     pace
	observer Observer
	nonces   *sampling.Nonces

	stage  *stage.Stage
	canary *stage.Canary
	// key tells which topology is on the stage, "" none that could be used again.
	key string
	// last is the final control of the scenario before.
	last lastControl
	// broken is set once nothing can be proven any more; a finding says why.
	broken bool
	// capabilities are what the network plugin says it can do; limited is true where anything is known about that.
	capabilities cni.Capabilities
	limited      bool
	// rerouted is true while some node has not been seen to lead services to the pods that are behind them now.
	rerouted bool
	// unconfirmed is true while some node has not been seen to take up the last change.
	unconfirmed bool
}

// runIDOf is the id of a run on a cluster.
func runIDOf(c cluster.Cluster) string {
	if known, ok := c.(cluster.Identified); ok {
		return known.RunID()
	}
	return cluster.NewRunID()
}

// open starts a session.
func open(ctx context.Context, c cluster.Cluster, opts Options) *session {
	s := &session{
		cluster: c, opts: opts, pace: paceOf(c.ProbeTimeout()), observer: opts.Observer, nonces: &sampling.Nonces{Run: opts.lane.RunID},
	}
	if opts.lane.Number > 0 {
		s.nonces.Run += "." + strconv.Itoa(opts.lane.Number)
		s.pace = s.pace.among(opts.lane.Of)
	}
	if opts.Settle > 0 {
		s.pace.settle = opts.Settle
	}
	if opts.tune != nil {
		opts.tune(&s.pace)
	}
	stage, err := stage.New(ctx, c, stage.Options{
		Lane: opts.lane, Shared: !opts.Disposable, Namespaces: opts.Namespaces, NamespacePrefix: opts.NamespacePrefix,
	})
	if err != nil {
		s.infrastructure(err)
		return s
	}
	s.stage = stage
	s.capabilities, s.limited = capabilitiesOf(c)
	return s
}

// refuse says what is wrong with scenarios, before anything is made. Where some reach too far nothing is asked.
func (s *session) refuse(ctx context.Context, list ...*expect.Scenario) scenario.Problems {
	var refused scenario.Problems
	for _, p := range list {
		refused = append(refused, s.beyond(p)...)
	}
	if len(refused) > 0 {
		return refused
	}
	for _, p := range list {
		refused = append(refused, s.preflight(ctx, p)...)
	}
	return refused
}

// prove proves one scenario, and also returns what was expected in each step that was reached. An error means that the
// scenario is wrong.
func (s *session) prove(ctx context.Context, p *expect.Scenario) (model.Scenario, []*expect.Table, error) {
	out, tables, err := s.scenario(ctx, p)
	if isInputError(err) {
		return out, nil, err
	}
	ill := s.cluster.Health(ctx)
	if ill != nil && ctx.Err() == nil {
		s.infrastructure(ill)
	} else if err != nil && ctx.Err() == nil { // what fails on a cluster that has lost a part is no finding of its own
		out.Findings = append(out.Findings, model.Finding{Kind: model.Infrastructure, Message: err.Error(), Result: model.ResultInconclusive})
	}
	one := model.Run{Complete: true, Scenarios: []model.Scenario{out}}
	model.Summarize(&one)
	s.observer.ScenarioDone(one.Scenarios[0])
	return one.Scenarios[0], tables, nil
}

// isInputError tells whether an error is about what the user wrote, rather than about the cluster.
func isInputError(err error) bool {
	var problems scenario.Problems
	return errors.As(err, &problems) || expect.IsInputError(err)
}

// close removes what the session made, unless the cluster ends with it.
func (s *session) close(ctx context.Context) {
	if s.stage == nil {
		return
	}
	if s.opts.Disposable {
		s.stage.Leave()
	} else {
		detached, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.pace.cleanup)
		defer cancel()
		if err := s.stage.Close(detached); err != nil {
			s.observer.Found(model.Finding{Kind: model.Cleanup, Message: "clean up: " + err.Error(), Result: model.ResultInconclusive})
		}
	}
	s.stage = nil
}

func (s *session) infrastructure(err error) {
	s.broken = true
	if s.opts.die != nil {
		s.opts.die()
	}
	s.observer.Found(model.Finding{Kind: model.Infrastructure, Message: err.Error(), Result: model.ResultInconclusive})
}

// raise deploys the canaries before the first proof. It is false when nothing can be proven here; one finding says why.
func (s *session) raise(ctx context.Context) bool {
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
func (s *session) beyond(p *expect.Scenario) scenario.Problems {
	if s.opts.Disposable {
		return nil
	}
	return p.Scenario().Beyond(s.opts.Allow)
}

// preflight asks the API server about every object of a scenario before any is created, and returns those that it
// refuses. When it cannot be asked, the session is broken.
func (s *session) preflight(ctx context.Context, p *expect.Scenario) scenario.Problems {
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
	var applied []scenario.ApplyObject
	seen := map[string]bool{}
	for _, step := range p.Plan().Steps {
		for _, change := range step.Changes {
			if apply, ok := change.(scenario.ApplyObject); ok && !seen[apply.Source.String()] {
				seen[apply.Source.String()] = true
				applied = append(applied, apply)
			}
		}
	}
	refused := make(scenario.Problems, len(applied))
	var calls errgroup.Group
	calls.SetLimit(stage.APIConcurrency)
	for i, apply := range applied {
		calls.Go(func() error {
			object, err := apply.Example(s.cluster.Info().IPFamilies)
			if err != nil {
				err = &stage.RefusedError{Err: err, Fix: "correct the placeholder"}
			} else {
				err = s.stage.DryRun(bounded, object)
			}
			if errors.Is(err, stage.ErrUnknownKind) && s.lacksKind(apply.Object) {
				return nil // its cells are unsupported
			}
			var refusal *stage.RefusedError
			if err != nil && !errors.As(err, &refusal) {
				return fmt.Errorf("%s: ask the API server about %s: %w", apply.Source, apply.Ref(), err)
			}
			if err != nil {
				refused[i] = scenario.Problem{
					File: apply.Source.File, Line: apply.Source.Line, Column: apply.Source.Column,
					Message: fmt.Sprintf("the API server refuses %s: %v", apply.Ref(), refusal.Err),
					Fix:     refusal.Fix,
				}
			}
			return nil
		})
	}
	if err := calls.Wait(); err != nil && ctx.Err() == nil {
		s.infrastructure(err)
	}
	return slices.DeleteFunc(refused, func(p scenario.Problem) bool { return p.Message == "" })
}

// entering finds what others have on the cluster that some step of a scenario would be connected with, or what keeps
// the scenario out of the namespaces that the run was lent.
func (s *session) entering(ctx context.Context, p *expect.Scenario) (*scenario.Problem, error) {
	topologies := []*model.Topology{&p.Plan().Initial}
	for i := range p.Plan().Steps {
		topologies = append(topologies, &p.Plan().Steps[i].Topology)
	}
	about, why, err := s.stage.Entering(ctx, topologies...)
	if err != nil || why == "" {
		return nil, err
	}
	at := p.Scenario().PositionOf(about)
	return &scenario.Problem{
		File: at.File, Line: at.Line, Column: at.Column, Message: why,
		Fix: "use another namespace, other labels, or another cluster; on a cluster of its own a run meets nobody",
	}, nil
}

// raiseCanary deploys the canaries and shows that the network plugin allows and denies at all. When it does not, ok is
// false and one finding says so.
func (s *session) raiseCanary(ctx context.Context) (ok bool, err error) {
	s.observer.Note("deploying the canaries")
	ctx, cancel := context.WithTimeout(ctx, s.pace.ready)
	defer cancel()
	if _, err := s.stage.Rivals(ctx); err != nil {
		return false, err
	}
	if unseen := s.stage.Unseen(); len(unseen) > 0 {
		s.observer.Note("may not list " + strings.Join(unseen, ", ") + ": policies of others of these kinds would not be seen")
	}
	c, err := s.stage.RaiseCanary(ctx, s.nonces)
	if err != nil {
		return false, err
	}
	s.canary = c

	connect, cancel := context.WithTimeout(ctx, s.pace.connect)
	defer cancel()
	for _, port := range []int{stage.CanaryAllowed, stage.CanaryDenied} {
		if _, err := sampling.Await(connect, c.To(port, model.Allow), s.pace.Rhythm, s.nonces); errors.Is(err, sampling.ErrNotConfirmed) {
			s.observer.Found(model.Finding{
				Kind: model.NoConnectivity, Result: model.ResultInconclusive,
				Message: "before any policy the canaries cannot reach each other: " + err.Error() + ": nothing can be proven on this cluster" + s.rivalNote(ctx),
			})
			return false, nil
		} else if err != nil {
			return false, err
		}
	}
	if err := c.Guard(ctx); err != nil {
		return false, err
	}
	start := time.Now()
	patient := s.watch(c, c.To(stage.CanaryDenied, model.Deny), start)
	patient.MismatchWindow = 8 * time.Second // a plugin's first policy may be slow; to say that it enforces nothing is a grave word
	patient.Settle = max(patient.Settle, 2*patient.MismatchWindow)
	w := patient.Observe(ctx)
	for _, t := range w.Tracks {
		series, _ := t.Series()
		st := patient.Judge(series, start, model.Deny)
		switch {
		case ctx.Err() != nil:
			return false, context.Cause(ctx)
		case st.Verdict == model.Allow && st.OK:
			s.observer.Found(model.Finding{
				Kind: model.NoEnforcement, Result: model.Failed,
				Message: fmt.Sprintf("the network plugin %s enforces no policy: %s -> %s was still answered %s after a policy that denies it; no cell was judged",
					s.cluster.Info().CNI.Name, t.Conn.From, t.Conn.To, time.Since(start).Round(100*time.Millisecond)),
			})
			return false, nil
		case st.Verdict != model.Deny || !st.OK:
			s.observer.Found(model.Finding{
				Kind: model.Control, Result: model.ResultInconclusive,
				Message: fmt.Sprintf("the canary %s -> %s did not settle: nothing can be proven on this cluster%s", t.Conn.From, t.Conn.To, s.rivalNote(ctx)),
			})
			return false, nil
		}
	}
	return true, nil
}

// rivalNote names a policy of others that acts on the canaries, for the end of a sentence.
func (s *session) rivalNote(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.pace.connect)
	defer cancel()
	if rival, err := s.stage.Rivals(ctx); err == nil && rival != "" {
		return "; " + rival
	}
	return ""
}
