package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
	"github.com/netproof/netproof/cmd/netproof/internal/flags"
	"github.com/netproof/netproof/cmd/netproof/internal/progress"
	"github.com/netproof/netproof/cmd/netproof/internal/provider"
	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/kind"
	"github.com/netproof/netproof/harness/cluster/local/named"
	"github.com/netproof/netproof/harness/cluster/local/sandbox"
	"github.com/netproof/netproof/harness/launch"
	"github.com/netproof/netproof/harness/plain"
)

// New returns the command.
func New(streams cli.Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cluster",
		Short: "keep a cluster running in the background",
		Long: `Make a cluster that keeps running in the background, look around in it, prove scenarios on it
with 'netproof run --cluster NAME', and delete it.

No file says that a local cluster exists: when its process ends, whatever ended it, nothing of the
cluster is left. The kubeconfig that create names works outside the cluster too, for this user alone.
A kind cluster is known by the network of its containers; those that kind itself made are never deleted.`,
		Example: `  netproof cluster create lab --nodes 3
  netproof cluster shell lab
  netproof run --cluster lab fixtures/quickstart
  netproof cluster delete lab
  netproof cluster create --provider kind big --cni cilium
  netproof run --provider kind --cluster big fixtures/core`,
	}
	cmd.AddCommand(newCreate(streams), newShell(streams), newList(streams), newDelete(streams))
	return cmd
}

func newCreate(streams cli.Streams) *cobra.Command {
	var f flags.Cluster
	var quiet bool
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "make a cluster and leave it running",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if named.Serving() {
				return serve(cmd.Context(), streams, args[0], f)
			}
			if wrong := validation.IsDNS1123Label(args[0]); len(wrong) > 0 {
				return cli.Usage("cluster name %q: use lower case letters, digits and '-', at most 63 of them", args[0])
			}
			if err := f.Check(cmd); err != nil {
				return &cli.UsageError{Err: err}
			}
			if f.Provider == flags.Kind {
				return createKind(cmd.Context(), streams, args[0], f, quiet)
			}
			d, err := provider.Named(streams, f, args[0], quiet).Create(cmd.Context())
			if err != nil {
				return explain(args[0], err)
			}
			sayReady(streams.Out, args[0], flags.Local, d.Cluster, d.Outside)
			return nil
		},
	}
	f.Add(cmd, flags.Offer{Providers: []string{flags.Local, flags.Kind}, Without: []string{"namespace-prefix", "transport"}})
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "show no progress")
	return cmd
}

// serve is the background process, inside the sandbox.
func serve(ctx context.Context, streams cli.Streams, name string, f flags.Cluster) error {
	show := progress.New(streams.Err, progress.Options{})
	defer show.Close()
	return launch.ServeNamed(ctx, cluster.Options{
		Name: name, CNI: f.CNI, Nodes: f.Nodes, IPFamilies: f.IPFamilies(), Progress: show.Note,
	}, f.EngineDir)
}

// explain turns what is wrong with a name into a mistake of the command line.
func explain(name string, err error) error {
	var held *named.HeldError
	switch {
	case errors.Is(err, named.ErrExists):
		return cli.Usage("%w: netproof cluster delete %s removes it", err, name)
	case errors.Is(err, named.ErrNotFound):
		return cli.Usage("%w: to see the clusters: netproof cluster list", err)
	case errors.As(err, &held):
		return &cli.UsageError{Err: err}
	}
	return err
}

func newShell(streams cli.Streams) *cobra.Command {
	return &cobra.Command{
		Use:   "shell NAME [-- COMMAND ARGUMENT ...]",
		Short: "open a shell inside a cluster, or run a command there",
		Long: `Open a shell inside the cluster's namespaces, with KUBECONFIG set: kubectl, if it is installed, speaks to
the cluster; ip, nft and the like show its network. With a command after --, run that instead.`,
		Example: `  netproof cluster shell lab
  netproof cluster shell lab -- kubectl get pods --all-namespaces`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			info, err := named.Find(cmd.Context(), args[0])
			if errors.Is(err, named.ErrNotFound) {
				return shellKind(cmd.Context(), streams, args[0], args[1:], err)
			}
			if err != nil {
				return explain(args[0], err)
			}
			d, err := launch.DetailOf(info)
			if err != nil {
				return err
			}
			program := args[1:]
			if len(program) == 0 {
				program = []string{shell(streams.Getenv)}
			}
			env := append(os.Environ(), "KUBECONFIG="+d.Kubeconfig, "NETPROOF_CLUSTER="+args[0])
			code, err := named.Enter(cmd.Context(), args[0], sandbox.Command{Env: env}, sandbox.EnterOptions{Program: program, Terminal: true})
			if err != nil {
				return explain(args[0], err)
			}
			return cli.Ended(code)
		},
	}
}

func shell(getenv func(string) string) string {
	if s := getenv("SHELL"); s != "" {
		return s
	}
	return "/bin/sh"
}

func newList(streams cli.Streams) *cobra.Command {
	format := "table"
	cmd := &cobra.Command{
		Use:   "list",
		Short: "show the clusters that run in the background",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, held, incomplete := named.List(cmd.Context())
			for _, h := range held {
				fmt.Fprintf(streams.Err, "netproof: %v\n", h)
			}
			kinds, err := listKind(cmd.Context())
			if err != nil {
				fmt.Fprintf(streams.Err, "netproof: kind clusters are not shown: %v\n", err)
			}
			if format == "json" {
				all := []any{}
				for _, info := range list {
					if d, err := launch.DetailOf(info); err == nil {
						if info.Detail, err = json.Marshal(d); err != nil {
							return err
						}
					}
					all = append(all, info)
				}
				for _, info := range kinds {
					all = append(all, info)
				}
				return errors.Join(incomplete, plain.WriteJSON(streams.Out, all))
			}
			return errors.Join(incomplete, writeList(streams.Out, list, kinds))
		},
	}
	flags.Choice(cmd, &format, "format", "format", []string{"table", "json"}, "form of the output")
	return cmd
}

func writeList(w io.Writer, list []named.Info, kinds []kind.Info) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tPROVIDER\tSTATE\tCNI\tKUBERNETES\tNODES\tAGE\tPID")
	for _, info := range list {
		d, err := launch.DetailOf(info)
		if err != nil {
			d = launch.Detail{}
		}
		if info.State == named.Unresponsive {
			// It said nothing about itself.
			fmt.Fprintf(t, "%s\tlocal\t%s\t-\t-\t-\t-\t-\n", plain.Text(info.Name), plain.Text(string(info.State)))
			continue
		}
		fmt.Fprintf(t, "%s\tlocal\t%s\t%s\t%s\t%d\t%s\t%d\n", plain.Text(info.Name), plain.Text(string(info.State)), plain.Text(d.Cluster.CNI.Name), plain.Text(d.Cluster.Kubernetes), d.Cluster.Nodes,
			age(info.Created), info.PID)
	}
	for _, info := range kinds {
		fmt.Fprintf(t, "%s\tkind\t%s\t%s\t%s\t%d\t%s\t\n", plain.Text(info.Name), plain.Text(string(info.State)), plain.Text(info.CNI), plain.Text(info.Kubernetes), info.Nodes,
			age(info.Created))
	}
	return t.Flush()
}

// age is how long ago something was made, where that is known.
func age(created time.Time) string {
	if created.IsZero() {
		return "-"
	}
	return time.Since(created).Round(time.Second).String()
}

func newDelete(streams cli.Streams) *cobra.Command {
	return &cobra.Command{
		Use:   "delete NAME ...",
		Short: "end a cluster; nothing of it is left",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, name := range args {
				err := named.Delete(cmd.Context(), name)
				if errors.Is(err, named.ErrNotFound) {
					err = deleteKind(cmd.Context(), name, err)
				}
				if err != nil {
					return explain(name, err)
				}
				fmt.Fprintf(streams.Out, "cluster %s is gone\n", name)
			}
			return nil
		},
	}
}
