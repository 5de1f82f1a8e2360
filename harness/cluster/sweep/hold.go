package sweep

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/client-go/rest"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/lease"
)

// Hold takes the Lease of a cluster for a run, as [lease.Acquire] does, and removes what runs before it left. When the
// Lease is given back, it names the runs of which something is left. Namespaces are those that were lent to the run;
// empty for a run that makes its own.
func Hold(ctx context.Context, cfg *rest.Config, namespaces []string, opts lease.Options) (*lease.Lease, error) {
	if opts.Progress == nil {
		opts.Progress = func(string) {}
	}
	client, err := cluster.Connect(cfg)
	if err != nil {
		return nil, err
	}
	lent := cluster.LentTo(namespaces, opts.NamespacePrefix)
	opts.Remains = func(ctx context.Context, runs []string) []string { return remaining(ctx, cfg, runs, lent) }
	held, err := lease.Acquire(ctx, client, opts)
	if err != nil {
		return nil, err
	}
	if err := removeRemains(ctx, cfg, held.Previous(), lent, opts.Progress); err != nil {
		return nil, errors.Join(err, held.Release(context.WithoutCancel(ctx)))
	}
	return held, nil
}

// removeRemains removes what earlier runs left. It would be in the way, or in force.
func removeRemains(ctx context.Context, cfg *rest.Config, runs, namespaces []string, progress func(string)) error {
	if len(runs) == 0 {
		return nil
	}
	progress("removing what run " + strings.Join(runs, ", ") + " left")
	removed, err := removeRuns(ctx, cfg, runs, namespaces, progress)
	for _, s := range removed.Stays {
		progress(s.String())
	}
	if err != nil {
		return fmt.Errorf("remove what run %s left (netproof cleanup tries it again): %w", strings.Join(runs, ", "), err)
	}
	return nil
}

// removeRuns removes everything of runs that are known to be dead.
func removeRuns(ctx context.Context, cfg *rest.Config, runs, namespaces []string, progress func(string)) (Removed, error) {
	c, err := newCleaner(cfg, namespaces, progress)
	if err != nil {
		return Removed{}, err
	}
	if _, err := c.find(ctx); err != nil {
		return c.removed, err
	}
	err = c.remove(ctx, runs)
	return c.removed, err
}

// remaining are those of the runs that left anything but a Lease, and all of them where nobody can tell.
func remaining(ctx context.Context, cfg *rest.Config, runs, namespaces []string) []string {
	c, err := newCleaner(cfg, namespaces, func(string) {})
	if err != nil {
		return runs
	}
	found, err := c.find(ctx)
	if err != nil {
		return runs
	}
	return slices.DeleteFunc(runs, func(run string) bool {
		return len(c.changedBy([]string{run})) == 0 && !slices.ContainsFunc(found, func(r remain) bool {
			return r.Run == run && r.Resource != leaseKind.GroupResource().String()
		})
	})
}
