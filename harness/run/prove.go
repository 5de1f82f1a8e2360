package run

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/netproof/netproof/harness/cni"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/scenario"
	"github.com/netproof/netproof/probes"
)

// proof is one scenario under way.
type proof struct {
	*Session
	prepared *PreparedScenario
	out      model.Scenario
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
func (s *Session) scenario(ctx context.Context, p *PreparedScenario) (out model.Scenario, err error) {
	began := time.Now()
	pr := &proof{Session: s, prepared: p, baseline: map[model.Connection]string{}, based: map[string]bool{}, previous: map[model.Connection]model.Verdict{}}
	pr.out = model.Scenario{
		Name: p.scenario.Metadata.Name, File: p.scenario.File, Description: p.scenario.Spec.Description,
		Labels: p.scenario.Metadata.Labels, Findings: slices.Clone(p.findings),
	}
	err = pr.prove(ctx)
	pr.out.Findings = append(pr.out.Findings, p.strictFindings()...)
	if ctx.Err() != nil {
		pr.out.Result = model.Interrupted
	}
	pr.out.DurationMs = time.Since(began).Milliseconds()
	return pr.out, err
}

// find notes something about the scenario that prevents a proof.
func (pr *proof) find(kind model.FindingKind, message string) {
	pr.out.Findings = append(pr.out.Findings, model.Finding{Kind: kind, Message: message, Result: model.ResultInconclusive})
}

func (pr *proof) prove(ctx context.Context) (err error) {
	if err := pr.setTheStage(ctx); errors.Is(err, errCannotHost) {
		pr.key = halfway
		pr.allUnsupported(err)
		return nil
	} else if err != nil {
		pr.key = ""
		return err
	}
	pr.initial = pr.stage.topology()
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
	for i, step := range pr.prepared.plan.Steps {
		pr.observer.StepStarted(pr.out.Name, step.Name, i, len(pr.prepared.plan.Steps))
		done, err := pr.step(ctx, step)
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

// errDied ends a scenario on a cluster of which a part has died. What died is said of the run.
var errDied = errors.New("a part of the cluster has died")

// setTheStage brings the scenario's topology up, unless the one before left the same.
func (pr *proof) setTheStage(ctx context.Context) error {
	pods := time.Duration(len(pr.prepared.plan.Initial.Pods))
	ctx, cancel := context.WithTimeout(ctx, pr.pace.ready+pods*pr.pace.readyPod)
	defer cancel()
	if err := pr.stage.reachNodes(ctx, pr.nodes()); err != nil {
		return err
	}
	key, before := pr.prepared.plan.TopologyKey, pr.key
	if before == key {
		return nil
	}
	pr.key = ""
	if before == "" {
		// What the scenario before left cannot be trusted.
		if err := pr.stage.clear(ctx); err != nil {
			return fmt.Errorf("take down the topology before: %w", err)
		}
	}
	if _, why, err := pr.stage.entering(ctx, &pr.prepared.plan.Initial); err != nil {
		return err
	} else if why != "" {
		return errors.New(why)
	}
	pr.observer.Note("deploying " + pr.out.Name)
	if err := pr.stage.become(ctx, pr.prepared.plan.Initial); err != nil {
		return fmt.Errorf("deploy the topology: %w", err)
	}
	// No packet is sent before every service leads to the pods that it should, and to nobody else's.
	if err := pr.stage.awaitBackends(ctx, pr.pace.ready); err != nil {
		return fmt.Errorf("deploy the topology: %w", err)
	}
	if why, err := pr.stage.joined(ctx); err != nil {
		return err
	} else if why != "" {
		return errors.New(why)
	}
	pr.key = key
	return nil
}

// halfway is the key of a stage that has nothing of a scenario that could not be played, and still some of the one before.
const halfway = "halfway"

// allUnsupported makes every cell unsupported, without a probe: what the scenario needs cannot be had here.
func (pr *proof) allUnsupported(why error) {
	for _, step := range pr.prepared.plan.Steps {
		out := model.Step{Name: step.Name}
		for _, planned := range step.Cells {
			cell := pr.cell(step.Name, planned.Connection)
			// What is left to the specification may take addresses to tell.
			cell.Expected = cmp.Or(planned.Expected, pr.prepared.computed[cell.ID], model.Undefined)
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
	for _, step := range pr.prepared.plan.Steps {
		for _, cell := range step.Cells {
			if !seen[cell.Connection] {
				seen[cell.Connection] = true
				out = append(out, cell.Connection)
			}
		}
	}
	return out
}

// lastControl is what a final control leaves to the next scenario.
type lastControl struct {
	at time.Time
	// why has an entry for each connection that was tried: "" if it worked. topology and pods are what they were tried on.
	why      map[model.Connection]string
	topology model.Topology
	pods     map[model.Endpoint]*corev1.Pod
}

// holds tells whether it says something about the stage as it is now.
func (l lastControl) holds(topology model.Topology, pods map[model.Endpoint]*corev1.Pod) bool {
	return time.Since(l.at) < freshness && maps.Equal(l.pods, pods) && reflect.DeepEqual(l.topology, topology)
}

// freshness is for how long a final control is a baseline for what comes next: of one scenario after the other on the same pods, the two
// are the same measurement.
const freshness = 5 * time.Second

// takeBaseline tries every connection that can be tried before the first step, but for those that the final control of the scenario before
// has just seen to work.
func (pr *proof) takeBaseline(ctx context.Context) error {
	list := pr.connections()
	if last := pr.last; last.holds(pr.initial, pr.stage.running) {
		list = slices.DeleteFunc(list, func(c model.Connection) bool {
			why, tried := last.why[c]
			worked := tried && why == ""
			if worked {
				pr.baseline[c] = ""
			}
			return worked
		})
	}
	pr.last = lastControl{}
	c, err := pr.connectAll(ctx, list)
	maps.Copy(pr.baseline, c.why)
	return err
}

// control is what came of connections that nothing should cut.
type control struct {
	// why has an entry for each connection that there can be: "" if it was answered, else what happened instead.
	why map[model.Connection]string
	// cut tells whether there is one that was not answered although this kernel supports it.
	cut bool
	// shown are the endpoints all of whose servers answered.
	shown map[model.Endpoint]bool
}

// connectAll tries connections that nothing should cut until each was answered once, or the time for it is over.
func (pr *proof) connectAll(ctx context.Context, list []model.Connection) (control, error) {
	began := time.Now()
	var targets []target
	for _, c := range list {
		if pr.stage.exists(c) {
			targets = append(targets, pr.stage.target(c, model.Allow))
		}
	}
	out := control{why: map[model.Connection]string{}}
	s := newSampler(targets, pr.pace.rhythm, pr.nonces)
	limit, cancel := context.WithTimeout(ctx, pr.pace.connect+s.rhythm.late)
	defer cancel()
	for {
		began := time.Now()
		n := s.round(ctx, func(t *track) bool {
			return t.answeredAt().IsZero() && (len(t.samples) == 0 || t.unreachable == "" && t.samples[len(t.samples)-1].verdict != model.Unsupported)
		})
		s.flights.Wait()
		if n == 0 {
			break
		}
		if missing, _ := s.unanswered(); len(missing) == 0 {
			break
		}
		next := time.NewTimer(pr.pace.spaced - time.Since(began))
		select {
		case <-next.C:
		case <-limit.Done():
		}
		next.Stop()
		if limit.Err() != nil {
			break
		}
	}
	s.each(func(t *track, series []sample, _ bool) {
		if !t.answeredAt().IsZero() {
			out.why[t.conn] = ""
			return
		}
		last := series[len(series)-1]
		out.cut = out.cut || last.verdict != model.Unsupported
		out.why[t.conn] = or(last.reason, fmt.Sprintf("%s after %d tries", last.response.Outcome, len(series)))
	})
	out.shown = s.shown(began, pr.stage.ports)
	return out, ctx.Err()
}

// step plays one step: change, sample, judge.
func (pr *proof) step(ctx context.Context, step scenario.PlannedStep) (model.Step, error) {
	if slices.ContainsFunc(step.Changes, changesPods) {
		if _, why, err := pr.stage.entering(ctx, &step.Topology); err != nil {
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
		if err := pr.stage.awaitBackends(ctx, pr.pace.ready); err != nil {
			return model.Step{}, err
		}
	}
	start := time.Now()
	topology := pr.stage.topology()
	expected, needs, err := pr.expectations(step, &topology)
	if err != nil {
		return model.Step{}, err
	}
	targets := make([]target, len(step.Cells))
	for i, cell := range step.Cells {
		targets[i] = pr.stage.target(cell.Connection, expected[i].verdict)
	}
	if pr.opts.BeforeSampling != nil {
		pr.opts.BeforeSampling(pr.out.Name, step.Name)
	}
	// A change that was not confirmed is still on its way, also when this step adds none.
	w := observe(ctx, pr.pace, pr.canary, pr.nonces, pr.stage, targets, start, len(step.Changes) > 0 || pr.unconfirmed)
	pr.unconfirmed = !w.confirmed
	if pr.opts.AfterSampling != nil {
		pr.opts.AfterSampling(pr.out.Name, step.Name)
	}
	out := pr.judge(step, w, expected, pr.groundChanged(ctx))
	pr.judgeNeeds(out.Cells, needs)
	return out, nil
}

// changesPods tells whether services may select other pods after a change.
func changesPods(change scenario.Change) bool {
	switch change.(type) {
	case scenario.CreatePods, scenario.SetPodLabels:
		return true
	}
	return false
}

// groundChanged says why nothing that was sampled until now proves anything, or "": the run was ended, a part of the cluster has
// died, or somebody else changed what the run had made.
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
	difference, err := pr.stage.tampered(bounded)
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
		object, err := c.Resolve(pr.stage.address, pr.stage.families)
		if err != nil {
			return err
		}
		err = pr.stage.apply(ctx, object)
		if errors.Is(err, errUnknownKind) && pr.lacksKind(object) {
			return nil // its cells are unsupported
		}
		if err != nil {
			return fmt.Errorf("%s: %w", c.Source, err)
		}
		return nil
	case scenario.DeleteObject:
		key := objectKey{kind: c.GroupVersionKind, namespace: c.Namespace, name: c.Name}
		err := pr.stage.delete(ctx, key)
		if errors.Is(err, errUnknownKind) && pr.lacks(cni.KindFeature(key.kind.GroupKind())) {
			return nil
		}
		return err
	case scenario.SetPodLabels:
		return pr.stage.labelPod(ctx, c.Pod, c.Labels)
	case scenario.SetNamespaceLabels:
		return pr.stage.labelNamespace(ctx, c.Namespace, c.Labels)
	case scenario.CreatePods:
		// What an earlier pod of the name could do says nothing about this one.
		for _, p := range c.Pods {
			maps.DeleteFunc(pr.baseline, func(c model.Connection, _ string) bool { return c.From == p.Endpoint() || c.To == p.Endpoint() })
		}
		return pr.stage.createPods(ctx, c.Pods)
	case scenario.RemovePods:
		return pr.stage.removePods(ctx, c.Pods)
	default:
		return fmt.Errorf("unknown change %T", change)
	}
}

// expectations computes what the specification says of every cell, now that all addresses are known, and compares it with
// the table. needs has for each cell what it needs that the network plugin does not have.
func (pr *proof) expectations(step scenario.PlannedStep, topology *model.Topology) (list []expectation, needs [][]need, err error) {
	policies, err := resolvedPolicies(step, pr.stage.address, pr.stage.families)
	if err != nil {
		return nil, nil, err
	}
	list, open, err := expect(pr.prepared.scenario, step, topology, policies)
	if err == nil && len(open) > 0 {
		unjudged := &UnjudgedError{Scenario: pr.prepared.scenario}
		unjudged.add(step, policies.unjudged, open)
		err = unjudged
	}
	if err != nil {
		return nil, nil, err
	}
	pr.prepared.noteOpen(step, list, policies)
	if err := pr.prepared.keepComputed(step, list); err != nil {
		return nil, nil, err
	}
	needs, err = pr.needs(pr.prepared.scenario, step, topology, policies, list)
	return list, needs, err
}

// cell is the cell of a connection in a step, without a verdict.
func (pr *proof) cell(step string, c model.Connection) model.Cell {
	return model.Cell{
		ID: model.CellID(pr.out.Name, step, c), From: c.From, To: c.To, Port: c.Port, Protocol: c.Protocol, IPFamily: c.IPFamily, Via: c.Via,
	}
}

// judge makes the step's cells out of the window and the controls.
func (pr *proof) judge(step scenario.PlannedStep, w window, expected []expectation, all string) model.Step {
	out := model.Step{Name: step.Name, Controls: w.controls}
	if all != "" {
		out.Controls.Held = false
		pr.find(model.Control, fmt.Sprintf("step %q: %s", step.Name, all))
	}
	if w.enforcement != "" && all != endedEarly { // the end of the run says nothing about a node
		pr.find(model.Control, fmt.Sprintf("step %q: %s", step.Name, w.enforcement))
	}
	for i, t := range w.tracks {
		series, _ := t.series()
		st := pr.pace.judge(series, w.barrier, t.expected)
		var last sample
		if some := telling(series); len(some) > 0 {
			last = some[len(some)-1]
		} else if len(series) > 0 {
			last = series[len(series)-1]
		}
		d := doubts{all: all, enforcement: w.enforcement, denial: pr.denialDoubt(t, &w)}
		observed, result, reason := verdictOf(st, t.settledAs, last, t.expected, d, w.limit)
		cell := pr.cell(step.Name, t.conn)
		cell.Expected, cell.Observed, cell.Result, cell.Manner = expected[i].verdict, observed, result, manner(last.response)
		cell.Samples, cell.Reason, cell.Explain = st.samples, reason, expected[i].summary
		_, pr.based[cell.ID] = pr.baseline[t.conn]
		cell.Evidence = pr.evidence(t.conn, series, st, w.start)
		if len(step.Changes) == 0 {
			cell.Evidence.EnforcedMs = 0 // nothing was to take effect
		}
		if cell.Evidence.EnforcedMs > 0 {
			if st.verdict == model.Deny {
				out.EnforcedMs = max(out.EnforcedMs, cell.Evidence.EnforcedMs)
			} else {
				out.ReleasedMs = max(out.ReleasedMs, cell.Evidence.EnforcedMs)
			}
		}
		if result != model.Passed && result != model.Recorded {
			cell.Walk, cell.Policies = expected[i].walk, expected[i].policies
			cell.Evidence.Series = seriesOut(series, w.start)
		}
		if st.ok {
			out.SettledMs = max(out.SettledMs, st.at.Sub(w.start).Milliseconds())
			pr.previous[t.conn] = st.verdict
		}
		out.Cells = append(out.Cells, cell)
	}
	return out
}

// denialDoubt says why a denial of this cell would prove nothing, or "".
func (pr *proof) denialDoubt(t *track, w *window) string {
	for _, id := range t.answerers {
		if why, dead := w.dead[id.Endpoint]; dead {
			return fmt.Sprintf("the server of %s was not alive: %s", id.Endpoint, why)
		}
	}
	if why, dead := w.deadProbers[t.conn.From]; dead {
		return fmt.Sprintf("the prober of %s could not reach its own server: %s", t.conn.From, why)
	}
	// Pods that came later have no baseline yet: the final control makes up for it.
	if why := pr.baseline[t.conn]; why != "" {
		return "no baseline: before any policy the connection was not answered: " + why
	}
	return ""
}

func (pr *proof) evidence(c model.Connection, series []sample, st settled, start time.Time) *model.Evidence {
	e := &model.Evidence{}
	var rtts []time.Duration
	changed := false
	for _, s := range series {
		if s.sent.Before(st.since) {
			// From before the change took effect: it is in the series, but no evidence for the verdict.
			changed = changed || (s.verdict != st.verdict && !s.void)
			continue
		}
		if s.seen {
			e.Seen++
		}
		if s.verdict == model.Allow {
			rtts = append(rtts, s.response.RTT)
			e.AnsweredBy = string(s.response.By.Endpoint)
		}
	}
	if n := len(series); n > 0 {
		e.Outcome, e.Errno = string(series[n-1].response.Outcome), series[n-1].response.Errno
	}
	if len(rtts) > 0 {
		slices.Sort(rtts)
		e.RTTMicros = rtts[len(rtts)/2].Microseconds()
	}
	before, known := pr.previous[c]
	if !known && pr.baseline[c] == "" {
		before = model.Allow
	}
	if st.ok && (changed || (before != "" && before != st.verdict)) {
		e.EnforcedMs = max(1, st.since.Sub(start).Milliseconds())
	}
	return e
}

func seriesOut(series []sample, start time.Time) []model.Sample {
	out := make([]model.Sample, len(series))
	for i, s := range series {
		out[i] = model.Sample{AtMs: s.sent.Sub(start).Milliseconds(), Verdict: s.verdict, Outcome: string(s.response.Outcome), Errno: s.response.Errno}
	}
	return out
}

// restore undoes the steps. In between, when the scenario came to its end, it runs the final control: without policies every
// connection works again. A denial that has no working connection on both sides of it, in time, is taken back. Whatever fails,
// the rest is restored all the same.
func (pr *proof) restore(ctx context.Context, wanted bool) error {
	detached := context.WithoutCancel(ctx)
	deletion, cancel := context.WithTimeout(detached, pr.pace.cleanup)
	defer cancel()
	errs := []error{pr.stage.deletePolicies(deletion)}

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
	errs = append(errs, pr.stage.restore(rest, pr.initial))
	if difference, err := pr.stage.tampered(rest); err != nil {
		errs = append(errs, fmt.Errorf("verify: %w", err))
	} else if difference != "" {
		errs = append(errs, errors.New(difference))
	}
	return errors.Join(errs...)
}

// finalControl tries every connection again, once all nodes have taken up the end of the policies, or the time for that is over,
// and looks at every server that did not answer.
func (pr *proof) finalControl(ctx context.Context) (map[model.Connection]string, error) {
	limit, cancel := context.WithTimeout(ctx, pr.pace.settle)
	defer cancel()
	_, err := pr.canary.barrier(limit, pr.pace.rhythm)
	pr.unconfirmed = err != nil
	if err != nil && !errors.Is(err, errNotConfirmed) {
		return nil, err
	}
	c, err := pr.connectAll(ctx, pr.connections())
	final := c.why
	if err != nil {
		return final, err
	}
	var pods []model.Endpoint
	for _, p := range pr.stage.declared.Pods {
		pods = append(pods, p.Endpoint())
	}
	look := newLiveness(pr.stage, pr.pace.rhythm, pods)
	look.shown = func(time.Time) map[model.Endpoint]bool { return c.shown }
	look.round(ctx)
	_, _, dead := look.finish()
	pr.sound = !pr.unconfirmed && !c.cut && len(dead) == 0
	pr.last = lastControl{at: time.Now(), why: maps.Clone(final), topology: pr.stage.topology(), pods: maps.Clone(pr.stage.running)}
	return final, pr.laterBaseline(ctx, final)
}

// laterBaseline makes up for what pods that came and went under a standing policy could not show: it runs them once more, as they
// were, and tries without policies what was denied. The restoration takes them away again.
func (pr *proof) laterBaseline(ctx context.Context, final map[model.Connection]string) error {
	var pods []model.Pod
	var missing []model.Connection
	for i, step := range pr.out.Steps {
		for _, c := range step.Cells {
			conn := c.Connection()
			if _, tried := final[conn]; tried || c.Observed != model.Deny || pr.based[c.ID] || slices.Contains(missing, conn) {
				continue
			}
			missing = append(missing, conn)
			for _, e := range []model.Endpoint{conn.From, conn.To} {
				p, planned := pr.prepared.plan.Steps[i].Topology.Pod(e)
				if planned && pr.stage.agents[e] == nil && !slices.ContainsFunc(pods, func(p model.Pod) bool { return p.Endpoint() == e }) {
					pods = append(pods, *p)
				}
			}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if err := pr.stage.createPods(ctx, pods); err != nil {
		return fmt.Errorf("run pods once more for their baseline: %w", err)
	}
	c, err := pr.connectAll(ctx, missing)
	maps.Copy(final, c.why)
	return err
}

// takeBack makes denials inconclusive whose connection does not work without policies, and returns those connections. final
// has an entry for each connection that was tried.
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

// exists tells whether a connection can be made on the stage as it is now: its source is there, and somebody serves its port. A pod
// that was replaced may serve other ports than the one before.
func (s *stage) exists(c model.Connection) bool {
	if _, unsupported := s.unsupported[c.From]; s.agents[c.From] == nil && !unsupported {
		return false
	}
	if c.Via != model.ViaPodIP {
		return len(s.target(c, model.Allow).answerers) > 0
	}
	return slices.ContainsFunc(s.ports(c.To), func(p model.Port) bool { return p.Number == c.Port && p.Protocol == c.Protocol })
}

// address looks up the live address of an endpoint, for the placeholders in policies.
func (s *stage) address(e model.Endpoint, family model.IPFamily) (netip.Addr, bool) {
	if p, ok := s.declared.Pod(e); ok {
		return model.AddressOf(p.Addresses, family)
	}
	if h, ok := s.declared.Host(e); ok {
		return model.AddressOf(h.Addresses, family)
	}
	if i, ok := e.NodeIndex(); ok && i < len(s.declared.Nodes) {
		return model.AddressOf(s.declared.Nodes[i].Addresses, family)
	}
	return netip.Addr{}, false
}

// target says how a connection is probed.
func (s *stage) target(c model.Connection, expected model.Verdict) target {
	t := target{conn: c, expected: expected, from: s.agents[c.From], port: c.Port}
	if why, known := s.unsupported[c.From]; known {
		t.unsupported = why
		return t
	}
	if t.from == nil {
		t.unreachable = fmt.Sprintf("there is no prober at %s", c.From)
		return t
	}
	var ok bool
	if c.Via == model.ViaPodIP {
		agent := s.agents[c.To]
		if agent == nil {
			t.unreachable = fmt.Sprintf("%s does not run", c.To)
			return t
		}
		t.answerers, t.recorders = []probes.Identity{agent.Identity()}, []probes.Agent{agent}
		t.address, ok = s.address(c.To, c.IPFamily)
	} else {
		svc, known := s.declared.Service(c.To)
		if !known {
			t.unreachable = fmt.Sprintf("there is no service %s", c.To)
			return t
		}
		for _, p := range s.declared.Pods {
			if p.Namespace == svc.Namespace && selects(svc.Selector, p.Labels) {
				agent := s.agents[p.Endpoint()]
				t.answerers = append(t.answerers, agent.Identity())
				t.recorders = append(t.recorders, agent)
			}
		}
		t.address, ok = model.AddressOf(svc.Addresses, c.IPFamily)
		if c.Via == model.ViaNodePort {
			t.address, ok = model.AddressOf(s.declared.Nodes[0].Addresses, c.IPFamily)
			t.port = 0
			for _, p := range svc.Ports {
				if p.Port.Number == c.Port && p.Port.Protocol == c.Protocol {
					t.port = p.NodePort
				}
			}
			ok = ok && t.port != 0
		}
	}
	if !ok {
		t.unreachable = fmt.Sprintf("%s has no %s address", c.To, c.IPFamily)
	}
	return t
}

// selects tells whether a service's selector picks a pod. A service without selector picks none.
func selects(selector, labels model.Labels) bool {
	for k, v := range selector {
		if have, ok := labels[k]; !ok || have != v {
			return false
		}
	}
	return len(selector) > 0
}
