package flags

import (
	"github.com/spf13/cobra"

	"github.com/netproof/netproof/harness/cluster/providers"
	"github.com/netproof/netproof/harness/model"
)

// Question are the flags of commands that ask the specification, without a cluster.
type Question struct {
	// Input says what is read.
	Input
	// Scenario and Step restrict the question to those of a name; empty for no restriction.
	Scenario, Step string
	// Nodes is the number of nodes that are assumed, and Format text or json.
	Nodes  int
	Format string

	ipFamily string
}

// Families are the IP families that are asked about.
func (f *Question) Families() []model.IPFamily { return IPFamilies(f.ipFamily) }

// AddTo defines the flags. step says what --step does.
func (f *Question) AddTo(cmd *cobra.Command, step string) {
	f.ipFamily, f.Nodes, f.Format = "ipv4", 2, "text"
	fs := cmd.Flags()
	fs.StringVar(&f.Scenario, "scenario", "", "only the scenario of this name")
	fs.StringVar(&f.Step, "step", "", step)
	Choice(cmd, &f.ipFamily, "ip-family", "IP family", providers.IPFamilyNames(), "addresses of pods and services")
	Number(cmd, &f.Nodes, "nodes", 1, MaxNodes, "number of nodes that are assumed")
	f.AddRendered(cmd)
	f.AddLimits(cmd)
	Choice(cmd, &f.Format, "format", "format", []string{"text", "json"}, "form of the output")
}
