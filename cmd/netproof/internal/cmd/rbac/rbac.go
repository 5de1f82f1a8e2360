// Package rbac is the command netproof rbac.
package rbac

import (
	"github.com/spf13/cobra"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
	"github.com/netproof/netproof/harness/cluster/existing"
)

// New returns the command.
func New(streams cli.Streams) *cobra.Command {
	var o existing.RBACOptions
	cmd := &cobra.Command{
		Use:   "rbac",
		Short: "print what a run may have to do on an existing cluster, as RBAC objects",
		Long: `Print a service account and the roles that a run on an existing cluster needs, and no more, as manifests.
Each rule says what it is for. netproof doctor --provider existing tells whether one has them.`,
		Example: `  netproof rbac | kubectl apply -f -`,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := o.Check(); err != nil {
				return &cli.UsageError{Err: err}
			}
			text, err := existing.Manifest(o)
			if err != nil {
				return err
			}
			_, err = streams.Out.Write(text)
			return err
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&o.ServiceAccount, "service-account", "", "name of the service account (default netproof)")
	fs.StringVar(&o.Namespace, "namespace", "", "its namespace (default "+existing.Namespace+")")
	fs.StringSliceVar(&o.Policies, "policies", nil, "families of policies beyond NetworkPolicy that scenarios apply")
	return cmd
}
