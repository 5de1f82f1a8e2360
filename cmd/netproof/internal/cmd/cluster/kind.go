package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
	"github.com/netproof/netproof/cmd/netproof/internal/flags"
	"github.com/netproof/netproof/cmd/netproof/internal/progress"
	"github.com/netproof/netproof/cmd/netproof/internal/provider"
	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/kind"
	"github.com/netproof/netproof/harness/cluster/kind/engine"
	"github.com/netproof/netproof/harness/launch"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/words"
)

// sayReady says that a cluster is there, and what can be done with it. kubeconfig is a file that gives access to it, or
// empty where there is none that stays.
func sayReady(w io.Writer, name, provider string, c model.Cluster, kubeconfig string) {
	fmt.Fprintf(w, "cluster %s is ready: %s %s, Kubernetes %s, %s\n", name, c.CNI.Name, c.CNI.Version, c.Kubernetes, words.Count(c.Nodes, "node", "nodes"))
	of := "--cluster " + name
	if provider != flags.Local {
		of = "--provider " + provider + " " + of
	}
	fmt.Fprintf(w, "  prove policies:  netproof run %s PATH ...\n  look inside:     netproof cluster shell %s\n", of, name)
	if kubeconfig != "" {
		fmt.Fprintf(w, "  use kubectl:     export KUBECONFIG=%s\n", kubeconfig)
	}
	fmt.Fprintf(w, "  remove it:       netproof cluster delete %s\n", name)
}

// createKind makes a kind cluster that stays.
func createKind(ctx context.Context, streams cli.Streams, name string, f flags.Cluster, quiet bool) error {
	show := progress.New(streams.Err, progress.Options{Terminal: streams.ErrTerminal.Is, Columns: streams.ErrTerminal.Columns, Quiet: quiet})
	defer show.Close()
	c, _, err := provider.Open(ctx, f, launch.Wanted{
		Cluster: cluster.Options{Name: name, Progress: show.Note}, Kind: kind.Options{Keep: true},
	})
	show.Close()
	if errors.Is(err, kind.ErrExists) {
		return cli.Usage("%w: netproof cluster delete %s removes it", err, name)
	}
	if err != nil {
		return err
	}
	if err := c.Close(context.WithoutCancel(ctx)); err != nil { // it lets go
		return err
	}
	sayReady(streams.Out, name, flags.Kind, c.Info(), "")
	return nil
}

// listKind gives the kind clusters, none where there is no container engine.
func listKind(ctx context.Context) ([]kind.Info, error) {
	list, err := kind.List(ctx, "")
	if engine.IsSilent(err) {
		return nil, nil
	}
	return list, err
}

// deleteKind deletes a kind cluster. notFound is the error where there is no container engine, hence no such cluster
// either.
func deleteKind(ctx context.Context, name string, notFound error) error {
	err := kind.Delete(ctx, "", name)
	switch {
	case engine.IsSilent(err):
		return notFound
	case errors.Is(err, kind.ErrNotFound), errors.Is(err, kind.ErrNotOurs):
		return &cli.UsageError{Err: err}
	}
	return err
}

// shellKind runs a program with access to a kind cluster. notFound is the error where there is no container engine.
func shellKind(ctx context.Context, streams cli.Streams, name string, program []string, notFound error) error {
	kubeconfig, err := kind.Kubeconfig(ctx, "", name)
	switch {
	case engine.IsSilent(err):
		return explain(name, notFound)
	case errors.Is(err, kind.ErrNotFound), errors.Is(err, kind.ErrNotOurs):
		return &cli.UsageError{Err: err}
	}
	if err != nil {
		return err
	}
	file, err := os.CreateTemp("", "netproof-kubeconfig-*")
	if err != nil {
		return fmt.Errorf("write kubeconfig: %w", err)
	}
	defer func() { _ = os.Remove(file.Name()) }()
	_, err = file.Write(kubeconfig)
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("write kubeconfig: %w", err)
	}
	if len(program) == 0 {
		program = []string{shell(streams.Getenv)}
	}
	cmd := exec.CommandContext(ctx, program[0], program[1:]...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+file.Name(), "NETPROOF_CLUSTER="+name)
	raw := streams.Raw() // the program draws what it likes, and wants a terminal where there is one
	cmd.Stdin, cmd.Stdout, cmd.Stderr = raw.In, raw.Direct(), raw.Err
	err = cmd.Run()
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		return cli.Ended(ended.ExitCode())
	}
	return err
}
