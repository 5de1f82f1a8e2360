package flags

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/netproof/netproof/cmd/netproof/internal/suggest"
	"github.com/netproof/netproof/harness/cluster/existing"
	"github.com/netproof/netproof/harness/cluster/local/engine"
	"github.com/netproof/netproof/harness/cluster/providers"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/scenario"
)

// The providers.
const (
	Local    = providers.Local
	Kind     = providers.Kind
	Existing = providers.Existing
)

// The transports: how probes get to the pods of clusters that are not local.
const (
	Exec  = "exec"
	Netns = "netns"
)

// Cluster are the flags that say what cluster is wanted.
type Cluster struct {
	Provider string
	// CNI is the network plugin. On an existing cluster it is the one found there.
	CNI string
	// Nodes is at least 1.
	Nodes int
	// IPFamily is ipv4, ipv6 or dual; see IPFamilies.
	IPFamily string
	// EngineDir holds prebuilt engines; empty to build them.
	EngineDir string

	// KindImage, KubernetesVersion, Runtime, LogsDir and Executable are those of [kind.Options].
	KindImage, KubernetesVersion, Runtime, LogsDir, Executable string
	// Manifest, Chart, Set, ImageOverrides (FROM=TO) and Mirror are those of [install.Options].
	Manifest, Chart     string
	Set, ImageOverrides []string
	Mirror              string

	// Kubeconfig and Context choose an existing cluster.
	Kubeconfig, Context string
	// AgentImage is the image of the probe pods of an existing cluster.
	AgentImage string
	// Namespaces are those of an existing cluster that a run was lent.
	Namespaces []string
	// NamespacePrefix goes before the names of namespaces.
	NamespacePrefix string
	// Transport is exec or netns.
	Transport string
}

// MaxNodes is the greatest number of nodes: each is a set of processes on this machine.
const MaxNodes = 16

// Offer says what a command offers of the flags of clusters.
type Offer struct {
	// Providers that can be chosen, the default first. Where there is only one there is no flag for it.
	Providers []string
	// Without are flags that mean nothing to the command.
	Without []string
	// Only says with which providers a flag matters to the command, where these are fewer than to others.
	Only map[string][]string
}

// Annotations of flags: with which providers they matter, and that they are those of [Cluster].
const (
	providersAnnotation = "netproof_providers"
	clusterAnnotation   = "netproof_cluster"
)

// For says that a flag matters with these providers alone: [Cluster.Check] refuses it with others.
func For(cmd *cobra.Command, flag string, owners ...string) {
	// The only error is a flag that does not exist.
	_ = cmd.Flags().SetAnnotation(flag, providersAnnotation, owners)
}

// Owners are the providers with which a flag matters, nil for all.
func Owners(f *pflag.Flag) []string { return f.Annotations[providersAnnotation] }

// Add defines the flags that a command offers.
func (c *Cluster) Add(cmd *cobra.Command, offer Offer) {
	c.Provider, c.CNI, c.Nodes, c.IPFamily, c.Transport = offer.Providers[0], providers.Plugins(offer.Providers[0])[0], 2, "ipv4", Exec
	all := providers.Names()
	text := func(value *string) func(string, string) {
		return func(name, usage string) { cmd.Flags().StringVar(value, name, "", usage) }
	}
	list := func(value *[]string) func(string, string) {
		return func(name, usage string) { cmd.Flags().StringArrayVar(value, name, nil, usage) }
	}
	word := func(value *string, what string, allowed ...string) func(string, string) {
		return func(name, usage string) { Choice(cmd, value, name, what, allowed, usage) }
	}
	for _, f := range []struct {
		name   string
		owners []string
		usage  string
		define func(name, usage string)
	}{
		{"provider", all, "where the cluster comes from", word(&c.Provider, "provider", offer.Providers...)},
		{"cni", []string{Local, Kind}, "network plugin", func(name, usage string) { c.addCNI(cmd, name, usage, offer.Providers) }},
		{"ip-family", all, "addresses of pods and services", word(&c.IPFamily, "IP family", providers.IPFamilyNames()...)},
		{"nodes", all, "number of nodes that take pods", func(name, usage string) { Number(cmd, &c.Nodes, name, 1, MaxNodes, usage) }},
		{"engine-dir", []string{Local}, "folder with prebuilt engines, instead of building them", text(&c.EngineDir)},
		{"kind-image", []string{Kind}, "image of the nodes", text(&c.KindImage)},
		{"kubernetes-version", []string{Kind}, "version that picks an image of kind's project, such as v1.35.1", text(&c.KubernetesVersion)},
		{"runtime", []string{Kind}, "container engine, instead of the one kind would take", word(&c.Runtime, "container engine", "docker", "podman")},
		{"logs-dir", []string{Kind}, "folder for the logs of a cluster that does not get ready", text(&c.LogsDir)},
		{"executable", []string{Kind}, "static netproof for Linux that probe pods run, such as one for another processor, instead of this one", text(&c.Executable)},
		{"cni-manifest", []string{Kind}, "manifest of the network plugin, a file or URL, instead of the vendor's", text(&c.Manifest)},
		{"cni-chart", []string{Kind}, "chart of the network plugin, a folder, file, URL or oci:// reference, instead of the vendor's", text(&c.Chart)},
		{"cni-set", []string{Kind}, "a value of the chart, or CONTAINER/NAME=VALUE in the manifest; repeatable", list(&c.Set)},
		{"image-override", []string{Kind}, "FROM=TO: another image for one of the network plugin's; repeatable", list(&c.ImageOverrides)},
		{"image-mirror", []string{Kind}, "registry that stands in for that of every image of the network plugin", text(&c.Mirror)},
		{"kubeconfig", []string{Existing}, "kubeconfig of an existing cluster; in a pod of it none is needed", text(&c.Kubeconfig)},
		{"context", []string{Existing}, "context in the kubeconfig", text(&c.Context)},
		{"agent-image", []string{Existing}, "image of the probe pods, by digest: netproof images --agent FILE makes it", text(&c.AgentImage)},
		{"namespace-prefix", []string{Kind, Existing}, "what goes before the names of all namespaces that the run makes", text(&c.NamespacePrefix)},
		{
			"namespaces", []string{Existing}, "make no namespaces, and use these, which an administrator has lent by the label netproof.dev/lent=true",
			func(name, usage string) { cmd.Flags().StringSliceVar(&c.Namespaces, name, nil, usage) },
		},
		{
			"transport", []string{Kind}, "how probes are sent from a pod: through an exec, or by entering its network namespace on this machine",
			word(&c.Transport, "transport", Exec, Netns),
		},
	} {
		if only, ok := offer.Only[f.name]; ok {
			f.owners = only
		}
		owners := slices.DeleteFunc(slices.Clone(f.owners), func(p string) bool { return !slices.Contains(offer.Providers, p) })
		if len(owners) == 0 || slices.Contains(offer.Without, f.name) || f.name == "provider" && len(offer.Providers) == 1 {
			continue
		}
		if len(owners) < len(offer.Providers) {
			f.usage += " (" + strings.Join(owners, ", ") + ")"
		}
		f.define(f.name, f.usage)
		For(cmd, f.name, owners...)
		_ = cmd.Flags().SetAnnotation(f.name, clusterAnnotation, nil)
	}
	for _, name := range []string{"engine-dir", "logs-dir"} {
		_ = cmd.MarkFlagDirname(name) // the only error is that the command has no such flag
	}
	for _, name := range []string{"kubeconfig", "executable"} {
		_ = cmd.MarkFlagFilename(name)
	}
}

// addCNI defines the flag of the network plugin. What can be chosen depends on the provider, which may stand behind it:
// [Cluster.Check] knows.
func (c *Cluster) addCNI(cmd *cobra.Command, name, usage string, offered []string) {
	var parts []string
	for _, p := range offered {
		plugins := strings.Join(providers.Plugins(p), ", ")
		if len(offered) > 1 && plugins != "" {
			plugins = p + " has " + plugins
		}
		if plugins != "" {
			parts = append(parts, plugins)
		}
	}
	cmd.Flags().Var((*plugin)(&c.CNI), name, usage+": "+strings.Join(parts, "; "))
	_ = cmd.RegisterFlagCompletionFunc(name, func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return providers.Plugins(c.Provider), cobra.ShellCompDirectiveNoFileComp
	})
}

// plugin is the name of a network plugin.
type plugin string

var _ pflag.Value = (*plugin)(nil)

func (p *plugin) String() string { return string(*p) }

// Type is what help texts show for the value.
func (p *plugin) Type() string { return "name" }

func (p *plugin) Set(word string) error {
	*p = plugin(word)
	return nil
}

// Check tells what of a command line does not go together.
func (c *Cluster) Check(cmd *cobra.Command) error {
	if err := c.checkOwners(cmd); err != nil {
		return err
	}
	if err := providers.CheckPlugin(c.Provider, c.CNI); err != nil {
		return fmt.Errorf("--cni %s: %w%s", c.CNI, err, suggest.DidYouMean(c.CNI, providers.Plugins(c.Provider)))
	}
	if c.Manifest != "" && c.Chart != "" {
		return errors.New("--cni-manifest and --cni-chart exclude each other")
	}
	if c.KindImage != "" && c.KubernetesVersion != "" {
		return errors.New("--kind-image and --kubernetes-version exclude each other: the image has a version of its own")
	}
	for _, set := range c.Set {
		if name, _, ok := strings.Cut(set, "="); !ok || name == "" {
			return fmt.Errorf("--cni-set %q: write NAME=VALUE, or CONTAINER/NAME=VALUE for a manifest", set)
		}
	}
	if err := existing.CheckPrefix(c.NamespacePrefix); err != nil {
		return fmt.Errorf("--namespace-prefix: %w", err)
	}
	if c.EngineDir != "" {
		if err := engine.CheckDir(c.EngineDir); err != nil {
			return fmt.Errorf("--engine-dir: %w", err)
		}
	}
	if c.Provider == Kind && c.CNI == "kindnet" {
		for _, name := range []string{"cni-manifest", "cni-chart", "cni-set", "image-override", "image-mirror"} {
			if cmd.Flags().Changed(name) {
				return fmt.Errorf("--%s needs another --cni: kindnet comes with the image of the nodes", name)
			}
		}
	}
	return nil
}

// checkOwners refuses flags that do not matter with the provider.
func (c *Cluster) checkOwners(cmd *cobra.Command) (err error) {
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if owners := Owners(f); err == nil && len(owners) > 0 && !slices.Contains(owners, c.Provider) {
			err = fmt.Errorf("--%s needs --provider %s", f.Name, strings.Join(owners, " or "))
		}
	})
	return err
}

// ofUse are the flags that say how a cluster is used that is there already. All others say what a new one is made as.
var ofUse = []string{"provider", "runtime", "kubeconfig", "context", "agent-image", "executable", "namespace-prefix", "transport"}

// CheckAttached refuses flags that choose what a cluster is made as, for one that is there already.
func (c *Cluster) CheckAttached(cmd *cobra.Command, name string) (err error) {
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if _, ours := f.Annotations[clusterAnnotation]; err == nil && ours && !slices.Contains(ofUse, f.Name) {
			err = fmt.Errorf("--%s cannot be chosen for --cluster %s: it is fixed when the cluster is created", f.Name, name)
		}
	})
	return err
}

// CheckNone refuses all flags of clusters, for what takes none of them.
func (c *Cluster) CheckNone(cmd *cobra.Command, beside string) (err error) {
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if _, ours := f.Annotations[clusterAnnotation]; err == nil && ours {
			err = fmt.Errorf("--%s does not go with %s", f.Name, beside)
		}
	})
	return err
}

// IPFamilies gives the families that were asked for, the primary one first.
func (c *Cluster) IPFamilies() []model.IPFamily { return IPFamilies(c.IPFamily) }

// IPFamilies gives the families behind a value of --ip-family, the primary one first.
func IPFamilies(name string) []model.IPFamily {
	families, _ := providers.IPFamilies(name) // the flag takes no other word
	return families
}

// Reaches are the values of --allow, with commas between them.
func Reaches() string {
	var names []string
	for _, r := range scenario.Reaches() {
		names = append(names, string(r))
	}
	return strings.Join(names, ",")
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
