package run

import (
	"context"
	"errors"
	"fmt"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
	"github.com/netproof/netproof/cmd/netproof/internal/flags"
	"github.com/netproof/netproof/cmd/netproof/internal/provider"
	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/kind"
	"github.com/netproof/netproof/harness/launch"
)

// runOutside runs on a cluster that needs no sandbox: one of kind's, or one that was there before. What is wrong with
// the input is found before the cluster is made.
func runOutside(ctx context.Context, streams cli.Streams, opts Options) error {
	prepared, warnings, err := load(ctx, streams.In, opts)
	if err == nil && (opts.Provider == flags.Existing || opts.Cluster != "") {
		err = beyond(opts, prepared)
	}
	if err != nil {
		return refused(ctx, streams, opts, err)
	}
	warn(streams, opts, prepared, warnings)
	show := newProgress(streams, opts)
	defer show.Close()
	c, disposable, err := provider.Open(ctx, opts.flags, launch.Wanted{
		Cluster: cluster.Options{Name: opts.Cluster, Progress: show.Note}, Attach: opts.Cluster != "",
		Kind: kind.Options{Keep: opts.Keep}, AnyFamily: opts.anyFamily, AnyNodes: opts.anyNodes,
	})
	if err != nil {
		show.Close()
		var usage *cli.UsageError
		if errors.As(err, &usage) {
			return err
		}
		return failed(ctx, streams, opts, err)
	}
	if opts.Provider == flags.Existing || opts.Cluster != "" {
		// The cluster is what it is: what is expected on it may be something else.
		opts.take(c.Info())
		if prepared, _, err = load(ctx, streams.In, opts); err != nil {
			show.Close()
			return errors.Join(refused(ctx, streams, opts, err), c.Close(context.WithoutCancel(ctx)))
		}
	}
	err = runOn(ctx, streams, opts, show, c, disposable, prepared)
	if made, ok := c.(*kind.Cluster); ok && opts.Keep {
		fmt.Fprintf(streams.Err, "cluster %[1]s keeps running: netproof cluster shell %[1]s looks into it, netproof cluster delete %[1]s ends it\n", made.Name())
	}
	return err
}
