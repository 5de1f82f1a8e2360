package run

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/netproof/netproof/harness/cni"
	"github.com/netproof/netproof/harness/expect"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/plain"
	"github.com/netproof/netproof/harness/run/sampling"
	"github.com/netproof/netproof/harness/run/stage"
	"github.com/netproof/netproof/harness/scenario"
)

// proof is one scenario under way.
type proof struct {
	*session
	prepared *expect.Scenario
	out      model.Scenario
	// tables are those of the steps that were reached.
	tables []*expect.Table
	// initial is the topology before the first step.
	initial model.Topology
	// baseline has an entry for every connection between pods as they are now that was tried without policies: "" if it
	// worked, else why not. based are the ids of the cells that had one when they were judged.
	baseline map[model.Connection]string
	based    map[string]bool
	// previous is the verdict of each connection after the step before.
	previous map[model.Connection]model.Verdict
	// sound is true once the final control has shown that the next scenario can be played on the same pods.
	sound bool
}

// scenario proves one scenario. The returned scenario holds whatever was judged, also when an error ends it.
func (s *session) scenario(ctx context.Context, p *expect.Scenario) (out model.Scenario, tables []*expect.Table, err error) {
	began := time.Now()
	pr := &proof{session: s, prepared: p, baseline: map[model.Connection]string{}, based: map[string]bool{}, previous: map[model.Connection]model.Verdict{}}
	pr.out = model.Scenario{
		Name: p.Name(), File: p.Scenario().File, Description: p.Scenario().Spec.Description,
		Labels: p.Scenario().Metadata.Labels, Findings: p.Vacuous(),
		Files: p.Scenario().Files, Warnings: warningsOf(p.Scenario()),
		Strangers: p.Plan().Strangers, Classes: p.Scenario().Classes, Unasserted: p.Scenario().Unasserted(),
	}
	err = pr.prove(ctx)
	pr.out.Findings = append(pr.out.Findings, p.Violated(pr.tables)...)
	pr.out.Findings = append(pr.out.Findings, p.Unproven(pr.tables)...)
	if ctx.Err() != nil {
		pr.out.Result = model.Interrupted
	}
	pr.out.DurationMs = time.Since(began).Milliseconds()
	return pr.out, pr.tables, err
}

// warningsOf are the warnings about a scenario, each in a line.
func warningsOf(s *scenario.Scenario) (out []string) {
	for _, w := range s.Warnings {
		out = append(out, plain.Text(fmt.Sprintf("%s: %s", w.Position().Short(), w.Message)))
	}
	return out
}

// find notes something about the scenario that prevents a proof.
func (pr *proof) find(kind model.FindingKind, message string) {
	pr.out.Findings = append(pr.out.Findings, model.Finding{Kind: kind, Message: message, Result: model.ResultInconclusive})
}

func (pr *proof) prove(ctx context.Context) (err error) {
	if err := pr.setTheStage(ctx); errors.Is(err, stage.ErrCannotHost) {
		pr.key = dirty
		pr.allUnsupported(err)
		return nil
	} else if err != nil {
		pr.key = ""
		return err
	}
	pr.initial = pr.stage.Topology()
	defer func() {
		if errors.Is(err, errDied) && pr.opts.Disposable {
			pr.key = ""
			return // there is nothing to restore that outlives the run, and nothing to restore it with
		}
		if restoreErr := pr.restore(ctx, err == nil); restoreErr != nil {
			pr.sound = false
			pr.find(model.Cleanup, "restore: "+restoreErr.Error())
		}
		if !pr.sound {
			pr.key, pr.last = "", lastControl{}
		}
	}()
	if err := pr.takeBaseline(ctx); err != nil {
		return err
	}
	for i := range pr.prepared.Plan().Steps {
		step := &pr.prepared.Plan().Steps[i]
		pr.observer.StepStarted(pr.out.Name, step.Name, i, len(pr.prepared.Plan().Steps))
		done, err := pr.step(ctx, i)
		if done.Name != "" {
			pr.out.Steps = append(pr.out.Steps, done)
			pr.observer.StepDone(pr.out.Name, done)
		}
		if err != nil {
			return fmt.Errorf("step %q: %w", step.Name, err)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if pr.cluster.Health(ctx) != nil {
			return errDied
		}
	}
	return nil
}

// errDied ends a scenario on a cluster that has lost a part. What died is said of the run.
var errDied = errors.New("a part of the cluster has died")

// setTheStage brings the scenario's topology up, unless the one before left the same.
func (pr *proof) setTheStage(ctx context.Context) error {
	pods := time.Duration(len(pr.prepared.Plan().Initial.Pods))
	ctx, cancel := context.WithTimeout(ctx, pr.pace.ready+pods*pr.pace.readyPod)
	defer cancel()
	if pr.opts.died != nil { // nobody waits for pods on a cluster that another lane has seen to lose a part
		defer context.AfterFunc(pr.opts.died, cancel)()
	}
	if err := pr.stage.ReachNodes(ctx, pr.nodes(), pr.opts.Disposable || slices.Contains(pr.opts.Allow, scenario.ReachHostNetwork)); err != nil {
		return err
	}
	key, before := pr.prepared.Plan().TopologyKey, pr.key
	if before == key {
		return pr.awaitRoutes(ctx, pr.connections())
	}
	pr.key = ""
	if before == "" {
		// What the scenario before left cannot be trusted.
		if err := pr.stage.Clear(ctx); err != nil {
			return fmt.Errorf("take down the topology before: %w", err)
		}
	}
	if _, why, err := pr.stage.Entering(ctx, &pr.prepared.Plan().Initial); err != nil {
		return err
	} else if why != "" {
		return errors.New(why)
	}
	pr.observer.Note("deploying " + pr.out.Name)
	if err := pr.stage.Become(ctx, pr.prepared.Plan().Initial); err != nil {
		return fmt.Errorf("deploy the topology: %w", err)
	}
	// No packet is sent before every service leads to the pods that it should, and to nobody else's.
	pr.rerouted = true
	err := pr.stage.AwaitBackends(ctx, pr.pace.ready)
	if err == nil {
		err = pr.awaitRoutes(ctx, pr.connections())
	}
	if err != nil {
		return fmt.Errorf("deploy the topology: %w", err)
	}
	if why, err := pr.stage.Joined(ctx); err != nil {
		return err
	} else if why != "" {
		return errors.New(why)
	}
	pr.key = key
	return nil
}

// awaitRoutes returns when every node leads connections through services to the pods that are behind them now, where
// any of these connections goes through one.
func (pr *proof) awaitRoutes(ctx context.Context, list []model.Connection) error {
	if !pr.rerouted || !slices.ContainsFunc(list, func(c model.Connection) bool { return c.Via != model.ViaPodIP }) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, pr.pace.ready)
	defer cancel()
	if err := pr.stage.AwaitRoutes(ctx, pr.canary, pr.pace.Rhythm); err != nil {
		return err
	}
	pr.rerouted = false
	return nil
}

// dirty marks a half-changed stage. It equals no topology's key, so the next scenario rebuilds it.
const dirty = "dirty"

// allUnsupported makes every cell unsupported, without a probe: what the scenario needs cannot be had here.
func (pr *proof) allUnsupported(why error) {
	for i, step := range pr.prepared.Plan().Steps {
		out := model.Step{Name: step.Name}
		for _, planned := range pr.prepared.Table(i).Cells {
			cell := cellOf(planned)
			// What is left to the specification may take addresses to tell.
			cell.Expected = cmp.Or(planned.Verdict, model.Undefined)
			cell.Observed, cell.Result, cell.Reason = model.Unsupported, model.ResultUnsupported, why.Error()
			out.Cells = append(out.Cells, cell)
		}
		pr.out.Steps = append(pr.out.Steps, out)
		pr.observer.StepDone(pr.out.Name, out)
	}
}

// nodes are those that connections begin at.
func (pr *proof) nodes() []model.Endpoint {
	var out []model.Endpoint
	for _, c := range pr.connections() {
		if c.From.IsNode() && !slices.Contains(out, c.From) {
			out = append(out, c.From)
		}
	}
	return out
}

// connections are all connections of the scenario's cells, each once.
func (pr *proof) connections() []model.Connection {
	var out []model.Connection
	seen := map[model.Connection]bool{}
	for _, step := range pr.prepared.Plan().Steps {
		for _, cell := range step.Cells {
			if !seen[cell.Connection] {
				seen[cell.Connection] = true
				out = append(out, cell.Connection)
			}
		}
	}
	return out
}

// step plays one step: change, sample, judge.
func (pr *proof) step(ctx context.Context, index int) (model.Step, error) {
	step := &pr.prepared.Plan().Steps[index]
	if slices.ContainsFunc(step.Changes, changesPods) {
		if _, why, err := pr.stage.Entering(ctx, &step.Topology); err != nil {
			return model.Step{}, err
		} else if why != "" {
			return model.Step{}, errors.New(why)
		}
	}
	for _, change := range step.Changes {
		if err := pr.change(ctx, change); err != nil {
			return model.Step{}, err
		}
	}
	if len(step.Changes) > 0 {
		if err := pr.stage.AwaitBackends(ctx, pr.pace.ready); err != nil {
			return model.Step{}, err
		}
	}
	pr.rerouted = pr.rerouted || slices.ContainsFunc(step.Changes, changesBackends)
	var list []model.Connection
	for _, c := range step.Cells {
		list = append(list, c.Connection)
	}
	if err := pr.awaitRoutes(ctx, list); err != nil {
		return model.Step{}, err
	}
	start := time.Now()
	topology := pr.stage.Topology()
	table, err := pr.prepared.Resolve(index, pr.live(&topology))
	if err != nil {
		return model.Step{}, err
	}
	pr.tables = append(pr.tables, table)
	cells := readyCells(pr.stage, table)
	if pr.opts.BeforeSampling != nil {
		pr.opts.BeforeSampling(pr.out.Name, step.Name)
	}
	// A change that was not confirmed is still on its way, also when this step adds none.
	w := pr.observe(ctx, cells, start, len(step.Changes) > 0 || pr.unconfirmed)
	pr.unconfirmed = !w.Confirmed
	if pr.opts.AfterSampling != nil {
		pr.opts.AfterSampling(pr.out.Name, step.Name)
	}
	return pr.judge(step, cells, &w, pr.groundChanged(ctx)), nil
}

// observe samples cells until every one of them is settled. changed says whether there is a change that a barrier must
// confirm.
func (pr *proof) observe(ctx context.Context, cells []*cell, start time.Time, changed bool) sampling.Window {
	targets := make([]sampling.Target, len(cells))
	for i, c := range cells {
		targets[i] = c.target
	}
	watch := pr.watch(pr.canary, targets, start)
	if changed {
		watch.Barrier = func(ctx context.Context) (time.Time, error) { return pr.canary.Barrier(ctx, pr.pace.Rhythm) }
	}
	w := watch.Observe(ctx)
	for i, c := range cells {
		c.track = w.Tracks[i]
	}
	return w
}

// changesBackends tells whether services may have other pods behind them after a change.
func changesBackends(change scenario.Change) bool {
	_, removes := change.(scenario.RemovePods)
	return removes || changesPods(change)
}

// changesPods tells whether services may select other pods after a change.
func changesPods(change scenario.Change) bool {
	switch change.(type) {
	case scenario.CreatePods, scenario.SetPodLabels:
		return true
	}
	return false
}

// groundChanged says why nothing that was sampled until now proves anything, or "": the run was ended, a part of the
// cluster has died, or somebody else changed what the run had made.
func (pr *proof) groundChanged(ctx context.Context) string {
	if ctx.Err() != nil {
		return endedEarly
	}
	if ill := pr.cluster.Health(ctx); ill != nil {
		first, _, _ := strings.Cut(ill.Error(), "\n")
		return "a part of the cluster has died: " + first
	}
	bounded, cancel := context.WithTimeout(ctx, pr.pace.ready)
	defer cancel()
	difference, err := pr.stage.Tampered(bounded)
	switch {
	case ctx.Err() != nil:
		return endedEarly
	case err != nil:
		return "what is in force could not be read: " + err.Error()
	}
	return difference
}

// endedEarly is why cells have no verdict that were sampled when the run ended.
const endedEarly = "the run was ended before this step was settled"

// change does one change of a step.
func (pr *proof) change(ctx context.Context, change scenario.Change) error {
	ctx, cancel := context.WithTimeout(ctx, pr.pace.ready)
	defer cancel()
	switch c := change.(type) {
	case scenario.ApplyObject:
		object, err := c.Resolve(pr.stage.Address, pr.cluster.Info().IPFamilies)
		if err != nil {
			return err
		}
		err = pr.stage.Apply(ctx, object)
		if errors.Is(err, stage.ErrUnknownKind) && pr.lacksKind(object) {
			return nil // its cells are unsupported
		}
		if err != nil {
			return fmt.Errorf("%s: %w", c.Source, err)
		}
		return nil
	case scenario.DeleteObject:
		err := pr.stage.Delete(ctx, c.Ref)
		if errors.Is(err, stage.ErrUnknownKind) && pr.lacks(cni.KindFeature(c.Ref.Kind.GroupKind())) {
			return nil
		}
		return err
	case scenario.SetPodLabels:
		return pr.stage.LabelPod(ctx, c.Pod, c.Labels)
	case scenario.SetNamespaceLabels:
		return pr.stage.LabelNamespace(ctx, c.Namespace, c.Labels)
	case scenario.CreatePods:
		// What an earlier pod of the name could do says nothing about this one.
		for _, p := range c.Pods {
			maps.DeleteFunc(pr.baseline, func(c model.Connection, _ string) bool { return c.From == p.Endpoint() || c.To == p.Endpoint() })
		}
		return pr.stage.CreatePods(ctx, c.Pods)
	case scenario.RemovePods:
		return pr.stage.RemovePods(ctx, c.Pods)
	default:
		return fmt.Errorf("unknown change %T", change)
	}
}

// live is what is known of the cluster, now that all addresses of a topology are known.
func (pr *proof) live(topology *model.Topology) expect.Live {
	live := expect.Live{Address: pr.stage.Address, Families: pr.cluster.Info().IPFamilies, Topology: topology}
	if pr.limited {
		live.Lacks = pr.lacks
	}
	if n := len(pr.tables); n > 0 {
		live.Previous = pr.tables[n-1]
	}
	return live
}

// restore undoes the steps. In between, when the scenario came to its end, it runs the final control: without policies
// every connection works again. A denial that has no working connection on both sides of it, in time, is taken back.
// Whatever fails, the rest is restored all the same.
func (pr *proof) restore(ctx context.Context, wanted bool) error {
	detached := context.WithoutCancel(ctx)
	deletion, cancel := context.WithTimeout(detached, pr.pace.cleanup)
	defer cancel()
	errs := []error{pr.stage.DeletePolicies(deletion)}

	var final map[model.Connection]string
	if wanted && ctx.Err() == nil {
		var err error
		if final, err = pr.finalControl(ctx); err != nil && ctx.Err() == nil {
			pr.find(model.Control, "final control: it could not be made: "+err.Error())
		}
	}
	if cut := pr.takeBack(final); len(cut) > 0 {
		pr.find(model.Control, "final control: with all policies deleted there is still no connection: "+strings.Join(cut, ", "))
	}

	rest, cancel := context.WithTimeout(detached, pr.pace.cleanup)
	defer cancel()
	for _, step := range pr.prepared.Plan().Steps {
		pr.rerouted = pr.rerouted || slices.ContainsFunc(step.Changes, changesBackends)
	}
	errs = append(errs, pr.stage.Restore(rest, pr.initial))
	if difference, err := pr.stage.Tampered(rest); err != nil {
		errs = append(errs, fmt.Errorf("verify: %w", err))
	} else if difference != "" {
		errs = append(errs, errors.New(difference))
	}
	return errors.Join(errs...)
}
