package doctor

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
	"github.com/netproof/netproof/cmd/netproof/internal/flags"
	"github.com/netproof/netproof/harness/cluster/local/doctor"
	"github.com/netproof/netproof/harness/model"
)

type flagSet struct {
	cni    string
	format string
}

// New returns the command.
func New(streams cli.Streams) *cobra.Command {
	f := flagSet{cni: "calico", format: "text"}
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "tell what this machine can do, and how to mend what is missing",
		Long: `Look at the machine: kernel, namespaces, tools, Go, engines, disk, memory, IPv6, SCTP.

Each line is ok, limited (clusters work, but something does not) or missing (no cluster can be made), with
the mend. The exit code is 0 if nothing is missing, 3 otherwise.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			facts := doctor.Gather(cmd.Context(), f.cni, []string{"doctor", "network"})
			checks := doctor.Judge(facts)
			if err := write(streams.Out, checks, f.format); err != nil {
				return err
			}
			if doctor.Missed(checks) {
				return cli.Ended(model.ExitInconclusive)
			}
			return nil
		},
	}
	flags.Choice(cmd, &f.cni, "cni", "network plugin", []string{"calico", "none"}, []string{"cilium"}, "network plugin to look for")
	flags.Choice(cmd, &f.format, "format", "format", []string{"text", "json"}, nil, "form of the output")
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

func write(w io.Writer, checks []doctor.Check, format string) error {
	if format == "json" {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		return enc.Encode(map[string]any{"ok": !doctor.Missed(checks), "checks": checks})
	}
	width := 0
	for _, c := range checks {
		width = max(width, len(c.Name))
	}
	for _, c := range checks {
		if _, err := fmt.Fprintf(w, "%-7s  %-*s  %s\n", c.State, width, c.Name, c.Detail); err != nil {
			return err
		}
		if c.Mend != "" {
			if _, err := fmt.Fprintf(w, "%-7s  %-*s    mend: %s\n", "", width, "", c.Mend); err != nil {
				return err
			}
		}
	}
	return nil
}
