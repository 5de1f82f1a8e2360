// Package inside takes a command that needs a local cluster into a sandbox: outside it checks the machine and builds the
// engines, inside it makes the cluster.
package inside

import (
	"context"
	"fmt"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/local"
	"github.com/netproof/netproof/harness/cluster/local/engine"
	"github.com/netproof/netproof/harness/cluster/local/hosttools"
	"github.com/netproof/netproof/harness/cluster/local/sandbox"
)

// Prepare checks that this machine can run a local cluster and builds the engines that are missing, with progress on the
// error stream unless quiet. What it needs of the network it needs here: inside there is none.
func Prepare(ctx context.Context, streams cli.Streams, cni, engineDir string, quiet bool) error {
	if err := hosttools.Check(cni); err != nil {
		return err
	}
	if obstacles := sandbox.ReadFacts().Obstacles(); len(obstacles) > 0 {
		return fmt.Errorf("%w: %s", sandbox.ErrUnavailable, obstacles[0])
	}
	engines, err := ensure(ctx, streams, cni, engineDir, quiet)
	if err != nil {
		return err
	}
	return engines.Close()
}

func ensure(ctx context.Context, streams cli.Streams, cni, engineDir string, quiet bool) (*engine.Engines, error) {
	opts := engine.Options{CNI: cni, EngineDir: engineDir}
	if !quiet {
		opts.Progress = engine.NewProgress(streams.Err, streams.ErrTerminal.Is)
	}
	return engine.Ensure(ctx, opts)
}

// Rerun runs this command line again in a sandbox and returns its exit code.
func Rerun(ctx context.Context) (int, error) { return sandbox.Run(ctx, sandbox.Command{}) }

// Cluster makes a local cluster; the caller is inside.
func Cluster(ctx context.Context, streams cli.Streams, opts cluster.Options, engineDir string) (*local.Cluster, error) {
	engines, err := ensure(ctx, streams, opts.CNI, engineDir, true)
	if err != nil {
		return nil, err
	}
	return local.New(engines).Start(ctx, opts)
}
