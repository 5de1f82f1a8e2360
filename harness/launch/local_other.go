//go:build !linux

package launch

import (
	"context"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/local/sandbox"
)

// makeLocal returns the error of [Prepare]: there is no inside.
func makeLocal(ctx context.Context, _ cluster.Options, _ string) (cluster.Cluster, error) {
	return nil, sandbox.Check(ctx)
}

// ServeNamed returns the error of [Prepare].
func ServeNamed(ctx context.Context, _ cluster.Options, _ string) error { return sandbox.Check(ctx) }

// Attach returns the error of [Prepare].
func Attach(ctx context.Context, _ string) (cluster.Cluster, error) { return nil, sandbox.Check(ctx) }
