package flags

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/netproof/netproof/harness/model"
)

// Cluster are the flags that say what cluster is wanted.
type Cluster struct {
	Provider string
	CNI      string
	// Nodes is at least 1.
	Nodes int
	// IPFamily is ipv4, ipv6 or dual; see IPFamilies.
	IPFamily string
	// EngineDir holds prebuilt engines; empty to build them.
	EngineDir string
}

// MaxNodes is the greatest number of nodes: each is a set of processes on this machine.
const MaxNodes = 16

// Add defines the flags.
func (c *Cluster) Add(cmd *cobra.Command) {
	c.Provider, c.CNI, c.Nodes, c.IPFamily = "local", "calico", 2, "ipv4"
	Choice(cmd, &c.Provider, "provider", "provider", []string{"local"}, []string{"kind", "existing"}, "where the cluster comes from")
	Choice(cmd, &c.CNI, "cni", "network plugin", []string{"calico", "none"}, []string{"cilium"}, "network plugin")
	Choice(cmd, &c.IPFamily, "ip-family", "IP family", IPFamilyNames(), nil, "addresses of pods and services")
	cmd.Flags().Var(&number{&c.Nodes, 1, MaxNodes}, "nodes", "number of nodes that take pods")
	cmd.Flags().StringVar(&c.EngineDir, "engine-dir", "", "folder with prebuilt engines, instead of building them")
	_ = cmd.MarkFlagDirname("engine-dir")
}

// IPFamilies gives the families that were asked for, the primary one first.
func (c *Cluster) IPFamilies() []model.IPFamily { return IPFamilies(c.IPFamily) }

// IPFamilyNames are the values of --ip-family.
func IPFamilyNames() []string { return []string{"ipv4", "ipv6", "dual"} }

// IPFamilies gives the families behind a value of --ip-family, the primary one first.
func IPFamilies(name string) []model.IPFamily {
	switch name {
	case "ipv6":
		return []model.IPFamily{model.IPv6}
	case "dual":
		return []model.IPFamily{model.IPv4, model.IPv6}
	default:
		return []model.IPFamily{model.IPv4}
	}
}

// number is a whole number within limits.
type number struct {
	value    *int
	min, max int
}

func (n *number) String() string { return strconv.Itoa(*n.value) }

// Type is what help texts show for the value.
func (n *number) Type() string { return "number" }

func (n *number) Set(text string) error {
	v, err := strconv.Atoi(text)
	if err != nil || v < n.min || v > n.max {
		return fmt.Errorf("it must be a whole number from %d to %d", n.min, n.max)
	}
	*n.value = v
	return nil
}

// Number defines a flag that takes a whole number from low to high; *value holds the default.
func Number(cmd *cobra.Command, value *int, name string, low, high int, usage string) {
	cmd.Flags().Var(&number{value, low, high}, name, usage)
}
