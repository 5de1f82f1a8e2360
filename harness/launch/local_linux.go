package launch

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/local"
	"github.com/netproof/netproof/harness/cluster/local/attach"
	"github.com/netproof/netproof/harness/cluster/local/engine"
	"github.com/netproof/netproof/harness/cluster/local/named"
)

// prepared gives the engines inside, which [Prepare] has verified outside.
func prepared(ctx context.Context, cni, engineDir string) (*engine.Engines, error) {
	return engine.Ensure(ctx, engine.Options{CNI: cni, EngineDir: engineDir, Verified: true})
}

// makeLocal makes a local cluster that ends with this process; the caller is inside.
func makeLocal(ctx context.Context, opts cluster.Options, engineDir string) (cluster.Cluster, error) {
	engines, err := prepared(ctx, opts.CNI, engineDir)
	if err != nil {
		return nil, err
	}
	return local.New(engines).Create(ctx, opts)
}

// ServeNamed is the work of a named cluster's process: it makes the cluster and serves it until somebody ends it.
func ServeNamed(ctx context.Context, opts cluster.Options, engineDir string) error {
	return named.Serve(ctx, func(ctx context.Context, ready func(any) error) error {
		engines, err := prepared(ctx, opts.CNI, engineDir)
		if err != nil {
			return err
		}
		defer engines.Close()
		c, err := local.New(engines).Start(ctx, opts)
		if err != nil {
			return err
		}
		listener, err := net.Listen("unix", attach.SocketPath)
		var outside string
		if err == nil {
			outside, err = c.KubeconfigFor(named.Door().Addr().String())
		}
		if err == nil {
			go c.ServeAPI(ctx, named.Door())
			err = ready(Detail{Cluster: c.Info(), Kubeconfig: c.Kubeconfig(), Outside: outside})
		}
		if err == nil {
			err = attach.Serve(ctx, listener, c, c.Kubeconfig())
		}
		return errors.Join(err, c.Close(context.WithoutCancel(ctx)))
	})
}

// Attach gives the cluster of this name, in whose sandbox this process was brought, for as long as no other run has it.
func Attach(ctx context.Context, name string) (cluster.Cluster, error) {
	c, err := attach.Dial(ctx, attach.SocketPath)
	if errors.Is(err, attach.ErrInUse) {
		return nil, fmt.Errorf("cluster %s is %w: wait for that one to end, or make another cluster", name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("attach to cluster %s: %w", name, err)
	}
	return c, nil
}
