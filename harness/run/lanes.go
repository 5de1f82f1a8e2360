package run

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/expect"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/policy"
	"github.com/netproof/netproof/harness/run/stage"
	"github.com/netproof/netproof/harness/scenario"
)

// Lanes prove scenarios side by side on one cluster. A lane has namespaces, pods, canaries and a barrier of its own,
// so that nothing is proven less than by a run with one lane: a NetworkPolicy acts on pods of its own namespace only,
// and a cell is a connection between pods of one lane. A scenario that reaches beyond its namespaces runs alone.
//
// With one lane namespaces have the names that scenarios give them.
//
// Its methods may be called from several goroutines.
type Lanes struct {
	cluster cluster.Cluster
	opts    Options
	began   time.Time
	shared  *sharedObserver
	// runID is the run's, which all lanes have.
	runID string
	// starting bounds the pods that start at once in all lanes.
	starting *semaphore.Weighted
	// alone runs what must not share the cluster, and asks the API server before anything is made. With one lane it
	// runs everything.
	alone *session
	// count is how many scenarios can run side by side.
	count int

	mu sync.Mutex
	// freed is closed, and made anew, when a lane becomes free.
	freed chan struct{}
	// lanes are those that were opened, nil while that goes on, and idle those that nobody has.
	lanes, idle []*session
	// exclusive is true while a scenario runs alone; wanted counts those that wait for it.
	exclusive bool
	wanted    int
	// broken is set once nothing can be proven any more on this cluster: a lane's trouble is everybody's.
	broken bool
	// results are the scenarios that have ended, by their place among all, and tables what was expected of them.
	results map[int]model.Scenario
	tables  Tables
	// total is how many scenarios there are, as far as that is known.
	total int
	// cut is true once a scenario was not proven to its end, or something of the run was left undone.
	cut bool
}

// Tables are those of the steps that a run has reached, by scenario. They have the addresses of the run in them.
type Tables map[*expect.Scenario][]*expect.Table

// OpenLanes prepares a cluster for proofs, side by side as far as the options want it. What goes wrong becomes a
// finding of the result.
func OpenLanes(ctx context.Context, c cluster.Cluster, opts Options) *Lanes {
	observer := opts.Observer
	if observer == nil {
		observer = Observers(nil)
	}
	l := &Lanes{
		cluster: c, began: time.Now(), shared: &sharedObserver{to: observer}, count: max(1, opts.Lanes), freed: make(chan struct{}),
		results: map[int]model.Scenario{}, tables: Tables{},
		runID: runIDOf(c), starting: semaphore.NewWeighted(int64(stage.StartingPods(c))),
	}
	if opts.BeforeSampling != nil || opts.AfterSampling != nil || len(opts.Namespaces) > 0 {
		l.count = 1 // a fault is everybody's, and what was lent is there once
	}
	opts.Observer = l.shared
	opts.died, opts.die = context.WithCancel(context.WithoutCancel(ctx))
	l.opts = opts
	l.alone = l.open(ctx, 0, opts.NamespacePrefix)
	l.broken = l.alone.broken
	return l
}

// open opens the lane with this number; 0 is the one that runs alone.
func (l *Lanes) open(ctx context.Context, number int, prefix string) *session {
	opts := l.opts
	opts.NamespacePrefix = prefix
	opts.lane = stage.Lane{Number: number, Of: l.count, RunID: l.runID, Starting: l.starting}
	return open(ctx, l.cluster, opts)
}

// lanePrefix begins the names of namespaces of the lane with this number, from 1. No scenario can mean such a name: the
// run's id is in it.
func (l *Lanes) lanePrefix(n int) string {
	return l.opts.NamespacePrefix + l.runID + "-" + strconv.Itoa(n) + "-"
}

// namespacesOf are those that a scenario uses in any step.
func namespacesOf(p *expect.Scenario) []string {
	seen := map[string]bool{}
	for _, ns := range p.Plan().Initial.Namespaces {
		seen[ns.Name] = true
	}
	for _, step := range p.Plan().Steps {
		for _, ns := range step.Topology.Namespaces {
			seen[ns.Name] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

// whyAlone says why a scenario cannot share the cluster with others, or "".
func (l *Lanes) whyAlone(p *expect.Scenario) string {
	if beyond := p.Scenario().Beyond(nil); len(beyond) > 0 {
		why, _, _ := strings.Cut(beyond[0].Message, ";")
		return why
	}
	topologies := []*model.Topology{&p.Plan().Initial}
	for i := range p.Plan().Steps {
		topologies = append(topologies, &p.Plan().Steps[i].Topology)
	}
	for _, t := range topologies {
		if len(t.Hosts) > 0 {
			return fmt.Sprintf("%s is outside of the cluster, where there is one network for all", t.Hosts[0].Endpoint())
		}
	}
	for _, step := range p.Plan().Steps {
		for _, cell := range step.Cells {
			if cell.Connection.From.IsNode() || cell.Connection.To.IsNode() {
				return fmt.Sprintf("%s has a node at one end, and the nodes are everybody's", cell.Connection)
			}
		}
	}
	prefix := l.lanePrefix(l.count)
	for _, ns := range namespacesOf(p) {
		if len(prefix)+len(ns) > validation.DNS1123LabelMaxLength {
			return fmt.Sprintf("the name of namespace %s leaves no room for a prefix", ns)
		}
	}
	for _, step := range p.Plan().Steps {
		for _, change := range step.Changes {
			apply, ok := change.(scenario.ApplyObject)
			if !ok {
				continue
			}
			if kind := apply.Object.GroupVersionKind().GroupKind(); kind != policy.NetworkPolicy.GroupKind() {
				return fmt.Sprintf("%s is of a plugin's own kind, whose rules may reach into other lanes", apply.Ref())
			}
			if err := stage.CheckPrefix(prefix, apply.Object); err != nil {
				return err.Error()
			}
		}
	}
	return ""
}

// take returns a lane that nobody has, which the caller gives back with [Lanes.free]. It waits for one, and for the end
// of a scenario that runs alone. Of several it prefers one on whose stage there is a topology with this key, and it
// opens another only when all are in use: each has canaries to deploy.
func (l *Lanes) take(ctx context.Context, key string) (*session, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.exclusive || l.wanted > 0 || len(l.idle) == 0 && len(l.lanes) == l.count {
		if err := l.wait(ctx); err != nil {
			return nil, err
		}
	}
	i := max(0, slices.IndexFunc(l.idle, func(s *session) bool { return s.key == key }))
	if len(l.idle) > 0 {
		s := l.idle[i]
		l.idle = slices.Delete(l.idle, i, i+1)
		return s, nil
	}
	l.lanes = append(l.lanes, nil)
	number := len(l.lanes)
	l.mu.Unlock()
	s := l.open(ctx, number, l.lanePrefix(number))
	l.mu.Lock()
	l.lanes[number-1] = s
	return s, nil
}

// takeAll waits until no lane is in use, and keeps all of them from being taken until [Lanes.free].
func (l *Lanes) takeAll(ctx context.Context) (*session, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wanted++
	defer func() { l.wanted-- }()
	for l.exclusive || len(l.idle) < len(l.lanes) {
		if err := l.wait(ctx); err != nil {
			return nil, err
		}
	}
	l.exclusive = true
	return l.alone, nil
}

// wait returns when a lane became free. Its caller holds the lock.
func (l *Lanes) wait(ctx context.Context) error {
	freed := l.freed
	l.mu.Unlock()
	defer l.mu.Lock()
	select {
	case <-freed:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// free gives a lane back.
func (l *Lanes) free(s *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken = l.broken || s.broken
	if s == l.alone {
		l.exclusive = false
	} else {
		l.idle = append(l.idle, s)
	}
	close(l.freed)
	l.freed = make(chan struct{})
}

// on proves a scenario on a lane that the caller has, unless nothing can be proven here any more.
func (l *Lanes) on(ctx context.Context, s *session, p *expect.Scenario, place int) (model.Scenario, error) {
	l.mu.Lock()
	broken, total := l.broken, l.total
	l.mu.Unlock()
	if broken || ctx.Err() != nil || !s.raise(ctx) {
		return model.Scenario{}, errNothingProven
	}
	l.shared.scenario(p.Name(), total)
	out, tables, err := s.prove(ctx, p)
	if err == nil {
		l.mu.Lock()
		l.results[place], l.tables[p] = out, tables
		l.cut = l.cut || len(out.Steps) < len(p.Plan().Steps) || out.Result == model.Interrupted
		l.mu.Unlock()
	}
	return out, err
}

// errNothingProven is matched by the error for a scenario that was not begun: nothing can be proven here any more.
var errNothingProven = errors.New("nothing can be proven here any more")

// Prove proves one scenario, as soon as a lane is free. An error means that the scenario or one of its policies is
// wrong, and that nothing of it was run.
func (l *Lanes) Prove(ctx context.Context, p *expect.Scenario) (model.Scenario, error) {
	l.mu.Lock()
	place := l.total
	l.total++
	l.mu.Unlock()
	lane, err := l.takeFor(ctx, p)
	if err != nil {
		return l.unproven(p), nil //nolint:nilerr // the end of ctx is in the result
	}
	defer l.free(lane)
	if refused := lane.refuse(ctx, p); len(refused) > 0 {
		return model.Scenario{}, refused
	}
	out, err := l.on(ctx, lane, p, place)
	if errors.Is(err, errNothingProven) {
		return l.unproven(p), nil
	}
	return out, err
}

// takeFor returns the lane that a scenario can run on.
func (l *Lanes) takeFor(ctx context.Context, p *expect.Scenario) (*session, error) {
	if l.count == 1 {
		return l.takeAll(ctx)
	}
	if why := l.whyAlone(p); why != "" {
		l.shared.Detail(aloneText(p, why))
		return l.takeAll(ctx)
	}
	return l.take(ctx, p.Plan().TopologyKey)
}

func aloneText(p *expect.Scenario, why string) string {
	return fmt.Sprintf("%s runs alone: %s", p.Name(), why)
}

// unproven is a scenario that was not begun. The findings of the run say why.
func (l *Lanes) unproven(p *expect.Scenario) model.Scenario {
	return model.Scenario{
		Name: p.Name(), Labels: p.Scenario().Metadata.Labels, Result: model.ResultInconclusive, Findings: l.shared.all(),
	}
}

// Run proves the prepared scenarios on a cluster, side by side as far as the options want it.
//
// The returned run is complete in itself: it has a result also when something failed or ctx ended, and everything that
// was judged until then. Its scenarios are in the order of the prepared ones. The tables are what was expected of each
// step that was reached. An error means that the input is wrong, and that nothing of that scenario was run: it is a
// [scenario.Problems], or an error of [expect.Scenario.Resolve].
func Run(ctx context.Context, c cluster.Cluster, prepared *expect.Prepared, opts Options) (model.Run, Tables, error) {
	list := prepared.Scenarios()
	opts.Lanes = min(opts.Lanes, len(list))
	l := OpenLanes(ctx, c, opts)
	l.total = len(list)
	if refused := l.alone.refuse(ctx, list...); len(refused) > 0 {
		l.Close(ctx)
		return l.Result(), nil, refused
	}
	l.broken = l.alone.broken
	l.shared.RunStarted(l.begun(list))

	var together, alone []int
	for _, place := range grouped(list) {
		p := list[place]
		why := ""
		if l.count > 1 {
			why = l.whyAlone(p)
		}
		switch {
		case why != "":
			l.shared.Detail(aloneText(p, why))
			alone = append(alone, place)
		case l.count == 1:
			alone = append(alone, place)
		default:
			together = append(together, place)
		}
	}
	err := errors.Join(l.together(ctx, list, together), l.oneByOne(ctx, list, alone))
	l.cut = l.cut || ctx.Err() != nil
	l.Close(ctx)
	return l.Result(), l.tables, err
}

// together proves scenarios side by side. It begins none after the first error.
func (l *Lanes) together(ctx context.Context, list []*expect.Scenario, places []int) error {
	q := newQueue(list, places)
	var wg sync.WaitGroup
	errs := make([]error, min(l.count, len(places)))
	for i := range errs {
		wg.Go(func() {
			key := ""
			for {
				place, ok := q.next(key)
				if !ok {
					return
				}
				key = list[place].Plan().TopologyKey
				lane, err := l.take(ctx, key)
				if err != nil {
					return
				}
				_, err = l.on(ctx, lane, list[place], place)
				l.free(lane)
				if err != nil {
					q.end()
					if !errors.Is(err, errNothingProven) {
						errs[i] = err
					}
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// oneByOne proves scenarios one after the other, while nothing else runs on the cluster. It ends at the first error.
func (l *Lanes) oneByOne(ctx context.Context, list []*expect.Scenario, places []int) error {
	if len(places) == 0 {
		return nil
	}
	lane, err := l.takeAll(ctx)
	if err != nil {
		return nil //nolint:nilerr // the end of ctx is in the result
	}
	defer l.free(lane)
	for _, place := range places {
		if _, err := l.on(ctx, lane, list[place], place); errors.Is(err, errNothingProven) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return nil
}

// Close removes what all lanes have made, unless the cluster ends with it.
func (l *Lanes) Close(ctx context.Context) {
	l.opts.die()
	var wg sync.WaitGroup
	for _, s := range append(slices.Clone(l.lanes), l.alone) {
		wg.Go(func() { s.close(ctx) })
	}
	wg.Wait()
}

// begun is the run before any of its scenarios, which have a name and no result.
func (l *Lanes) begun(list []*expect.Scenario) model.Run {
	out := model.Run{
		APIVersion: model.APIVersion, Kind: model.ReportKind, Tool: l.opts.Tool, StartedAt: l.began.UTC().Truncate(time.Second),
		Cluster: l.cluster.Info(), Scenarios: []model.Scenario{},
	}
	for _, p := range list {
		out.Scenarios = append(out.Scenarios, model.Scenario{Name: p.Name(), File: p.Scenario().File, Labels: p.Scenario().Metadata.Labels})
	}
	return out
}

// Result is the run so far, summarized. It is complete when every scenario was proven to its end.
func (l *Lanes) Result() model.Run {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.begun(nil)
	out.Findings = l.shared.all()
	for _, place := range slices.Sorted(maps.Keys(l.results)) {
		out.Scenarios = append(out.Scenarios, l.results[place])
	}
	out.Complete = !l.cut && len(l.results) == l.total
	out.Summary.DurationMs = time.Since(l.began).Milliseconds()
	model.Summarize(&out)
	return out
}

// grouped are the places of the scenarios in the order in which they run: those of equal topology stand behind the
// first of them, so that pods are deployed once for all. Apart from that the order stays.
func grouped(list []*expect.Scenario) []int {
	first := map[string]int{}
	out := make([]int, len(list))
	for i, p := range list {
		out[i] = i
		if _, known := first[p.Plan().TopologyKey]; !known {
			first[p.Plan().TopologyKey] = i
		}
	}
	slices.SortStableFunc(out, func(a, b int) int {
		return cmp.Compare(first[list[a].Plan().TopologyKey], first[list[b].Plan().TopologyKey])
	})
	return out
}

// queue hands scenarios out to lanes.
type queue struct {
	mu   sync.Mutex
	list []*expect.Scenario
	// left are the places of those that nobody has begun.
	left []int
	// lanes counts those that are at work on a topology, by its key.
	lanes map[string]int
}

func newQueue(list []*expect.Scenario, places []int) *queue {
	return &queue{list: list, left: slices.Clone(places), lanes: map[string]int{}}
}

// next is the place of the scenario that a lane is to prove after one with this topology: one that can be played on the
// same pods, else one of the topology that has most scenarios left for each lane at work on it.
func (q *queue) next(key string) (place int, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if key != "" {
		q.lanes[key]--
	}
	keyAt := func(i int) string { return q.list[q.left[i]].Plan().TopologyKey }
	count := map[string]int{}
	for i := range q.left {
		count[keyAt(i)]++
	}
	best, bestShare := -1, 0.0
	for i := range q.left {
		k := keyAt(i)
		if k == key {
			best = i
			break
		}
		if share := float64(count[k]) / float64(q.lanes[k]+1); share > bestShare {
			best, bestShare = i, share
		}
	}
	if best < 0 {
		return 0, false
	}
	place = q.left[best]
	q.lanes[keyAt(best)]++
	q.left = slices.Delete(q.left, best, best+1)
	return place, true
}

// end hands nothing out any more.
func (q *queue) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.left = nil
}

// sharedObserver passes on what the lanes say, one call at a time. What several lanes find is said once.
type sharedObserver struct {
	mu       sync.Mutex
	to       Observer
	started  int
	findings []model.Finding
}

// scenario begins one of so many scenarios; the lanes do not know its number.
func (o *sharedObserver) scenario(name string, total int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.to.ScenarioStarted(name, o.started, total)
	o.started++
}

// all are the findings so far.
func (o *sharedObserver) all() []model.Finding {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.findings)
}

// same tells whether two findings are one trouble: what a network plugin cannot do at all shows in every lane, each
// time at other pods.
func same(a, b model.Finding) bool {
	return a.Kind == b.Kind && (a.Message == b.Message || a.Kind == model.NoEnforcement || a.Kind == model.NoConnectivity)
}

// RunStarted implements [Observer].
func (o *sharedObserver) RunStarted(run model.Run) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.to.RunStarted(run)
}

// Note implements [Observer].
func (o *sharedObserver) Note(text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.to.Note(text)
}

// Detail implements [Observer].
func (o *sharedObserver) Detail(text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.to.Detail(text)
}

// ScenarioStarted implements [Observer].
func (o *sharedObserver) ScenarioStarted(name string, index, total int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.to.ScenarioStarted(name, index, total)
}

// StepStarted implements [Observer].
func (o *sharedObserver) StepStarted(scenario, step string, index, total int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.to.StepStarted(scenario, step, index, total)
}

// StepDone implements [Observer].
func (o *sharedObserver) StepDone(scenario string, step model.Step) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.to.StepDone(scenario, step)
}

// ScenarioDone implements [Observer].
func (o *sharedObserver) ScenarioDone(scenario model.Scenario) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.to.ScenarioDone(scenario)
}

// Found implements [Observer].
func (o *sharedObserver) Found(finding model.Finding) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if slices.ContainsFunc(o.findings, func(f model.Finding) bool { return same(f, finding) }) {
		return
	}
	o.findings = append(o.findings, finding)
	o.to.Found(finding)
}
