package run

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/run/sampling"
)

// lastControl is what a final control leaves to the next scenario.
type lastControl struct {
	at time.Time
	// why has an entry for each connection that was tried: "" if it worked. topology and pods are what they were tried
	// on.
	why      map[model.Connection]string
	topology model.Topology
	pods     map[model.Endpoint]*corev1.Pod
}

// holds tells whether it says something about the stage as it is now.
func (l lastControl) holds(topology model.Topology, pods map[model.Endpoint]*corev1.Pod) bool {
	return time.Since(l.at) < baselineTTL && maps.Equal(l.pods, pods) && reflect.DeepEqual(l.topology, topology)
}

// baselineTTL is how long a final control also serves as the baseline of the next scenario on the same pods: the two
// are the same measurement.
const baselineTTL = 5 * time.Second

// takeBaseline tries every connection that can be tried before the first step, but for those that the final control of
// the scenario before has just seen to work.
func (pr *proof) takeBaseline(ctx context.Context) error {
	list := pr.connections()
	if last := pr.last; last.holds(pr.initial, pr.stage.RunningPods()) {
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
	c, err := pr.connect(ctx, list)
	maps.Copy(pr.baseline, c.Why)
	return err
}

// connect tries connections that nothing should cut, as far as they can be made on the stage as it is.
func (pr *proof) connect(ctx context.Context, list []model.Connection) (sampling.Connections, error) {
	var targets []sampling.Target
	for _, c := range list {
		if pr.stage.Exists(c) {
			targets = append(targets, pr.stage.Target(c, model.Allow))
		}
	}
	return sampling.Connect(ctx, targets, pr.pace.Rhythm, pr.nonces, pr.stage, pr.pace.connect)
}

// finalControl tries every connection again, once all nodes have taken up the end of the policies, or the time for that
// is over, and looks at every server that did not answer.
func (pr *proof) finalControl(ctx context.Context) (map[model.Connection]string, error) {
	limit, cancel := context.WithTimeout(ctx, pr.pace.settle)
	defer cancel()
	_, err := pr.canary.Barrier(limit, pr.pace.Rhythm)
	pr.unconfirmed = err != nil
	if err != nil && !errors.Is(err, sampling.ErrNotConfirmed) {
		return nil, err
	}
	if err := pr.awaitRoutes(limit, pr.connections()); err != nil && !errors.Is(err, sampling.ErrNotConfirmed) {
		return nil, err
	}
	c, err := pr.connect(ctx, pr.connections())
	final := c.Why
	if err != nil {
		return final, err
	}
	look := sampling.NewLiveness(pr.stage, pr.pace.Rhythm, pr.stage.DeclaredPods())
	look.Shown = func(time.Time) map[model.Endpoint]bool { return c.Shown }
	look.Round(ctx)
	_, _, dead := look.Finish()
	pr.sound = !pr.unconfirmed && !c.Cut && len(dead) == 0
	pr.last = lastControl{at: time.Now(), why: maps.Clone(final), topology: pr.stage.Topology(), pods: pr.stage.RunningPods()}
	return final, pr.laterBaseline(ctx, final)
}

// laterBaseline makes up for what pods that came and went under a standing policy could not show: it runs them once
// more, as they were, and tries without policies what was denied. The restoration takes them away again.
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
				p, planned := pr.prepared.Plan().Steps[i].Topology.Pod(e)
				if planned && !pr.stage.Has(e) && !slices.ContainsFunc(pods, func(p model.Pod) bool { return p.Endpoint() == e }) {
					pods = append(pods, *p)
				}
			}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if err := pr.stage.CreatePods(ctx, pods); err != nil {
		return fmt.Errorf("run pods once more for their baseline: %w", err)
	}
	c, err := pr.connect(ctx, missing)
	maps.Copy(final, c.Why)
	return err
}
