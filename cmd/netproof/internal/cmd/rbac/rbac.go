// Package rbac is the command netproof rbac.
package rbac

import (
	"github.com/spf13/cobra"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
	"github.com/netproof/netproof/harness/cluster/existing"
	"github.com/netproof/netproof/harness/cluster/lease"
)

// New returns the command.
func New(streams cli.Streams) *cobra.Command {
	var o existing.RBACOptions
	cmd := &cobra.Command{
		Use:   "rbac",
		Short: "print the RBAC manifests that a run on an existing cluster needs",
		Long: `Print a service account and the roles that a run on an existing cluster needs, and no more, as manifests.
Each rule says what it is for. netproof doctor --provider existing tells whether one has them.

The rights are as good as cluster-admin: whoever may use the account can make pods in every namespace and run
commands in every pod. With --namespaces they end at namespaces that are there already, and that an administrator
lends to runs by the label netproof.dev/lent=true; 'netproof run --namespaces' uses those.`,
		Example: `  netproof rbac | kubectl apply -f -
  netproof rbac --namespaces shop,bank | kubectl apply -f -`,
		Args: cobra.NoArgs,
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
	fs.StringVar(&o.Namespace, "namespace", "", "its namespace (default "+lease.Namespace+")")
	fs.StringSliceVar(&o.Namespaces, "namespaces", nil, "only rights in these namespaces, which are there already and are lent to runs")
	fs.StringVar(&o.NamespacePrefix, "namespace-prefix", "", "that of the runs, with --namespaces")
	fs.StringSliceVar(&o.Policies, "policies", nil, "families of policies beyond NetworkPolicy that scenarios apply")
	return cmd
}
