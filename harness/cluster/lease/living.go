package lease

import (
	"context"
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/netproof/netproof/harness/cluster"
)

// Life is a run that has a Lease and is alive.
type Life struct{ RunID, Host, Lease string }

// Living finds out which of the runs are alive: those that have a Lease and give signs of life. To tell takes up to a
// minute where a Lease has no living holder, which progress says; timing is nil for the usual one. The error may come
// with runs that are known to live.
func Living(ctx context.Context, client kubernetes.Interface, runs []string, progress func(string), timing *Timing) ([]Life, error) {
	t := timingOr(timing)
	watch := vigil{timing: t, first: map[string]sight{}}
	poll := time.NewTicker(t.Look)
	defer poll.Stop()
	var living []Life
	for {
		seen, undecided, err := watch.lookAt(ctx, client, runs, progress)
		if err != nil {
			return living, err
		}
		living = append(living, seen...)
		runs = slices.DeleteFunc(slices.Clone(runs), func(run string) bool {
			return slices.ContainsFunc(living, func(l Life) bool { return l.RunID == run })
		})
		if undecided == 0 || len(runs) == 0 {
			return living, nil
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return living, fmt.Errorf("tell living runs from dead ones: %w", context.Cause(ctx))
		}
	}
}

// lookAt returns the runs that are seen to live, and of how many it cannot be told yet.
func (v *vigil) lookAt(ctx context.Context, client kubernetes.Interface, runs []string, progress func(string)) (living []Life, undecided int, err error) {
	leases, err := client.CoordinationV1().Leases(Namespace).List(ctx, metav1.ListOptions{LabelSelector: cluster.RunsSelector})
	if err != nil {
		return nil, 0, fmt.Errorf("list the Leases of runs: %w", err)
	}
	for i := range leases.Items {
		l := &leases.Items[i]
		id, machine := Holder(l)
		if !slices.Contains(runs, id) {
			continue
		}
		switch v.look(l, time.Now()) {
		case alive:
			living = append(living, Life{id, machine, l.Name})
		case unknown:
			undecided++
			if v.told == "" {
				v.told = id
				progress(fmt.Sprintf("run %s on host %s has a Lease: waiting up to %s for a sign of life of it", id, machine, v.patience(l)))
			}
		case dead:
		}
	}
	return living, undecided, nil
}
