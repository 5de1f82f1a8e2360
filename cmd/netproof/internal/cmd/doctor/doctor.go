package doctor

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
	"github.com/netproof/netproof/cmd/netproof/internal/flags"
	"github.com/netproof/netproof/cmd/netproof/internal/provider"
	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/check"
	"github.com/netproof/netproof/harness/cluster/existing"
	"github.com/netproof/netproof/harness/cluster/kind"
	"github.com/netproof/netproof/harness/cluster/local/doctor"
	"github.com/netproof/netproof/harness/cluster/providers"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/plain"
)

type flagSet struct {
	flags.Cluster

	format string
}

// New returns the command.
func New(streams cli.Streams) *cobra.Command {
	f := flagSet{format: "text"}
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "tell what this machine can do, and how to fix what is missing",
		Long: `Look at the machine: kernel, namespaces, tools, Go, engines, disk, memory, IPv6, SCTP. With --provider kind, at
the container engine and what kind needs of the machine. With --provider existing, at the cluster and
what one may do on it.

Each line is ok, limited (clusters work, but something does not) or missing (no cluster can be made), with
the fix. The exit code is 0 if nothing is missing, 3 otherwise.`,
		Example: `  netproof doctor
  netproof doctor --provider kind --cni cilium --nodes 3
  netproof doctor --provider existing --context staging`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			checks, err := f.checks(cmd)
			if err != nil {
				return err
			}
			if err := write(streams.Out, checks, f.format); err != nil {
				return err
			}
			if check.Missed(checks) {
				return cli.Ended(model.ExitInconclusive)
			}
			return nil
		},
	}
	f.Add(cmd, flags.Offer{
		Providers: []string{flags.Local, flags.Kind, flags.Existing},
		Without:   []string{"engine-dir", "logs-dir", "cni-manifest", "cni-chart", "cni-set", "image-override", "image-mirror", "transport"},
		Only: map[string][]string{
			"nodes": {flags.Kind}, "ip-family": {flags.Local, flags.Kind}, "namespace-prefix": {flags.Existing},
		},
	})
	flags.Choice(cmd, &f.format, "format", "format", []string{"text", "json"}, "form of the output")
	cmd.AddCommand(&cobra.Command{
		Use:    "network",
		Short:  "try the kernel's network in this network namespace",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return doctor.WriteNetworkFacts(cmd.Context(), streams.Out)
		},
	})
	return cmd
}

// checks looks at what the provider needs.
func (f *flagSet) checks(cmd *cobra.Command) ([]check.Check, error) {
	if err := f.Check(cmd); err != nil {
		return nil, &cli.UsageError{Err: err}
	}
	switch f.Provider {
	case flags.Kind:
		opts, err := provider.KindOptions(f.Cluster)
		if err != nil {
			return nil, err
		}
		checks := kind.Doctor(cmd.Context(), opts, cluster.Options{CNI: f.CNI, Nodes: f.Nodes, IPFamilies: f.IPFamilies()})
		return append(checks, offered()), nil
	case flags.Existing:
		return existing.Doctor(cmd.Context(), provider.Existing(f.Cluster)), nil
	}
	checks := doctor.Judge(doctor.Gather(cmd.Context(), f.CNI, f.IPFamilies(), []string{"doctor", "network"}))
	return append(checks, offered()), nil
}

// offered tells which network plugins clusters can be made with.
func offered() check.Check {
	return check.Check{Name: "--cni", State: check.OK, Detail: providers.Offer()}
}

func write(w io.Writer, checks []check.Check, format string) error {
	if format == "json" {
		return plain.WriteJSON(w, map[string]any{"ok": !check.Missed(checks), "checks": checks})
	}
	width := 0
	for _, c := range checks {
		width = max(width, len(c.Name))
	}
	for _, c := range checks {
		if _, err := fmt.Fprintf(w, "%-7s  %-*s  %s\n", c.State, width, c.Name, plain.Text(c.Detail)); err != nil {
			return err
		}
		if c.Fix != "" {
			if _, err := fmt.Fprintf(w, "%-7s  %-*s    fix: %s\n", "", width, "", plain.Text(c.Fix)); err != nil {
				return err
			}
		}
	}
	return nil
}
