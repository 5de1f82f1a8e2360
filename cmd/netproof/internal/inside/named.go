package inside

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
	"github.com/netproof/netproof/cmd/netproof/internal/flags"
	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/local"
	"github.com/netproof/netproof/harness/cluster/local/attach"
	"github.com/netproof/netproof/harness/cluster/local/named"
	"github.com/netproof/netproof/harness/cluster/local/sandbox"
	"github.com/netproof/netproof/harness/model"
)

// Detail is what a named cluster says about itself.
type Detail struct {
	Cluster    model.Cluster `json:"cluster"`
	Kubeconfig string        `json:"kubeconfig"`
}

// DetailOf reads what a named cluster said about itself.
func DetailOf(info named.Info) (Detail, error) {
	var d Detail
	if err := json.Unmarshal(info.Detail, &d); err != nil {
		return d, fmt.Errorf("cluster %s was made by another version of netproof: %w", info.Name, err)
	}
	return d, nil
}

// CreateNamed makes a cluster that keeps running in the background, and returns when it is ready.
func CreateNamed(ctx context.Context, streams cli.Streams, name string, f flags.Cluster, quiet bool) (Detail, error) {
	if err := Prepare(ctx, streams, f.CNI, f.EngineDir, quiet); err != nil {
		return Detail{}, err
	}
	args := []string{
		os.Args[0], "cluster", "create", name, "--cni", f.CNI, "--nodes", fmt.Sprint(f.Nodes), "--ip-family", f.IPFamily,
	}
	if f.EngineDir != "" {
		dir, err := filepath.Abs(f.EngineDir)
		if err != nil {
			return Detail{}, fmt.Errorf("find engines: %w", err)
		}
		args = append(args, "--engine-dir", dir)
	}
	opts := named.Options{Args: args, Progress: streams.Err}
	if quiet {
		opts.Progress = io.Discard
	}
	info, err := named.Create(ctx, name, opts)
	if err != nil {
		return Detail{}, err
	}
	return DetailOf(info)
}

// ServeNamed is the work of a named cluster's process: it makes the cluster and serves it until it is told to end.
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
		if err == nil {
			err = ready(Detail{Cluster: c.Info(), Kubeconfig: c.Kubeconfig()})
		}
		if err == nil {
			err = attach.Serve(ctx, listener, c, c.Kubeconfig())
		}
		return errors.Join(err, c.Close(context.WithoutCancel(ctx)))
	})
}

// RerunIn is [Rerun] on a named cluster, with other arguments if they are not nil.
func RerunIn(ctx context.Context, name string, args []string, deadline time.Time) (code int, done bool, err error) {
	return rerun(func(c sandbox.Command) (int, error) {
		return named.Enter(context.WithoutCancel(ctx), name, c, sandbox.EnterOptions{})
	}, sandbox.Command{Args: args, Env: environ(deadline)})
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
