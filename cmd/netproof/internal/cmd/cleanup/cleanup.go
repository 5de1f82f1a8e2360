// Package cleanup is the command netproof cleanup.
package cleanup

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
	"github.com/netproof/netproof/harness/cluster/existing"
	"github.com/netproof/netproof/harness/cluster/sweep"
	"github.com/netproof/netproof/harness/plain"
)

// New returns the command.
func New(streams cli.Streams) *cobra.Command {
	var access existing.Options
	var o sweep.Options
	cmd := &cobra.Command{
		Use:   "cleanup",
		Short: "remove what a crashed run left in an existing cluster",
		Long: `Remove what runs left in a cluster that could not do it themselves. Only what carries netproof's two labels is
touched, and runs that are alive are left alone. Labels of namespaces that a run had changed are given back, and compared
with all that were there before it. What a finalizer holds is named, with the command that lets it go.`,
		Example: `  netproof cleanup --context staging --dry-run
  netproof cleanup --older-than 2h
  netproof cleanup --run 1a2b3c4d`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.OlderThan < 0 {
				return cli.Usage("--older-than %s: it must not be negative", o.OlderThan)
			}
			cfg, _, err := existing.RESTConfig(access)
			if err != nil {
				return &cli.UsageError{Err: err}
			}
			o.Progress = func(text string) { fmt.Fprintln(streams.Err, plain.Text(text)) }
			removed, err := sweep.Cleanup(cmd.Context(), cfg, o)
			what, restored := "removed", "restored"
			if o.DryRun {
				what, restored = "would remove", "would restore"
			}
			for _, object := range removed.Objects {
				fmt.Fprintf(streams.Out, "%s %s\n", what, plain.Text(object.String()))
			}
			for _, ns := range removed.Restored {
				fmt.Fprintf(streams.Out, "%s the labels of namespace %s\n", restored, plain.Text(ns))
			}
			for _, s := range removed.Stays {
				fmt.Fprintln(streams.Out, plain.Text(s.String()))
			}
			return err
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&access.Kubeconfig, "kubeconfig", "", "kubeconfig of the cluster")
	fs.StringVar(&access.Context, "context", "", "context in the kubeconfig")
	fs.StringSliceVar(&o.Namespaces, "namespaces", nil, "look only at these namespaces, for runs that were lent them")
	fs.StringVar(&o.NamespacePrefix, "namespace-prefix", "", "that of the runs, with --namespaces")
	fs.StringVar(&o.RunID, "run", "", "only what this run left; default all runs")
	fs.DurationVar(&o.OlderThan, "older-than", time.Duration(0), "leave runs alone that made something within this time, such as 2h")
	fs.BoolVar(&o.DryRun, "dry-run", false, "only tell what would be removed")
	_ = cmd.MarkFlagFilename("kubeconfig")
	return cmd
}
