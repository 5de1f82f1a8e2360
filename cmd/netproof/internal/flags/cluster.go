package flags

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/scenario"
)

// The providers.
const (
	Local    = "local"
	Kind     = "kind"
	Existing = "existing"
)

// The transports: how probes get to the pods of clusters that are not local.
const (
	Exec  = "exec"
	Netns = "netns"
)

// Cluster are the flags that say what cluster is wanted.
type Cluster struct {
	Provider string
	// CNI is the network plugin. On an existing cluster it is what is found there.
	CNI string
	// Nodes is at least 1.
	Nodes int
	// IPFamily is ipv4, ipv6 or dual; see IPFamilies.
	IPFamily string
	// EngineDir holds prebuilt engines; empty to build them.
	EngineDir string

	// KindImage, KubernetesVersion, Runtime and LogsDir are those of [kind.Options].
	KindImage, KubernetesVersion, Runtime, LogsDir string
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

// plugins are the network plugins that a provider can make clusters with, the default first.
var plugins = map[string][]string{
	Local: {"calico", "none"},
	Kind:  {"calico", "cilium", "kindnet"},
}

// owners are the flags that not every provider has.
var owners = map[string][]string{
	"engine-dir": {Local}, "cni": {Local, Kind}, "cluster": {Local, Kind}, "keep": {Local, Kind},
	"kind-image": {Kind}, "kubernetes-version": {Kind}, "runtime": {Kind}, "logs-dir": {Kind},
	"cni-manifest": {Kind}, "cni-chart": {Kind}, "cni-set": {Kind}, "image-override": {Kind}, "image-mirror": {Kind},
	"kubeconfig": {Existing}, "context": {Existing}, "agent-image": {Existing}, "namespaces": {Existing},
	"namespace-prefix": {Kind, Existing}, "transport": {Kind},
}

// Add defines the flags of clusters that netproof makes.
func (c *Cluster) Add(cmd *cobra.Command) {
	c.Provider, c.CNI, c.Nodes, c.IPFamily, c.Transport = Local, "calico", 2, "ipv4", Exec
	Choice(cmd, &c.Provider, "provider", "provider", []string{Local, Kind}, "where the cluster comes from")
	Choice(cmd, &c.CNI, "cni", "network plugin", []string{"calico", "cilium", "kindnet", "none"}, "network plugin")
	Choice(cmd, &c.IPFamily, "ip-family", "IP family", IPFamilyNames(), "addresses of pods and services")
	fs := cmd.Flags()
	fs.Var(&number{&c.Nodes, 1, MaxNodes}, "nodes", "number of nodes that take pods")
	fs.StringVar(&c.EngineDir, "engine-dir", "", "folder with prebuilt engines, instead of building them (local)")
	fs.StringVar(&c.KindImage, "kind-image", "", "image of the nodes (kind)")
	fs.StringVar(&c.KubernetesVersion, "kubernetes-version", "", "version that picks an image of kind's project, such as v1.35.1 (kind)")
	Choice(cmd, &c.Runtime, "runtime", "container engine", []string{"docker", "podman"}, "container engine, instead of the one kind would take (kind)")
	fs.StringVar(&c.LogsDir, "logs-dir", "", "folder for the logs of a cluster that does not get ready (kind)")
	fs.StringVar(&c.Manifest, "cni-manifest", "", "manifest of the network plugin, a file or URL, instead of the vendor's (kind)")
	fs.StringVar(&c.Chart, "cni-chart", "", "chart of the network plugin, a folder, file, URL or oci:// reference, instead of the vendor's (kind)")
	fs.StringArrayVar(&c.Set, "cni-set", nil, "a value of the chart, or CONTAINER/NAME=VALUE in the manifest; repeatable (kind)")
	fs.StringArrayVar(&c.ImageOverrides, "image-override", nil, "FROM=TO: another image for one of the network plugin's; repeatable (kind)")
	fs.StringVar(&c.Mirror, "image-mirror", "", "registry that stands in for that of every image (kind)")
	_ = cmd.MarkFlagDirname("engine-dir")
	_ = cmd.MarkFlagDirname("logs-dir")
}

// AddExisting adds existing clusters, and what only a run can choose.
func (c *Cluster) AddExisting(cmd *cobra.Command) {
	Widen(cmd, "provider", Existing)
	fs := cmd.Flags()
	fs.StringVar(&c.Kubeconfig, "kubeconfig", "", "kubeconfig of an existing cluster; in a pod of it none is needed (existing)")
	fs.StringVar(&c.Context, "context", "", "context in the kubeconfig (existing)")
	fs.StringVar(&c.AgentImage, "agent-image", "", "image of the probe pods, by digest: netproof images --agent FILE makes it (existing)")
	fs.StringVar(&c.NamespacePrefix, "namespace-prefix", "", "what goes before the names of all namespaces that the run makes (kind, existing)")
	fs.StringSliceVar(&c.Namespaces, "namespaces", nil, "make no namespaces, and use these, which an administrator has lent by the label netproof.dev/lent=true (existing)")
	Choice(cmd, &c.Transport, "transport", "transport", []string{Exec, Netns}, "how probes are sent from a pod: through an exec, or by entering its network namespace on this machine (netns with kind)")
	_ = cmd.MarkFlagFilename("kubeconfig")
}

// Check tells what does not go together. changed tells whether a flag was given.
func (c *Cluster) Check(changed func(name string) bool) error {
	for _, name := range slices.Sorted(maps.Keys(owners)) {
		if changed(name) && !slices.Contains(owners[name], c.Provider) {
			return fmt.Errorf("--%s needs --provider %s", name, strings.Join(owners[name], " or "))
		}
	}
	if known := plugins[c.Provider]; known != nil && !slices.Contains(known, c.CNI) {
		return fmt.Errorf("--cni %s: clusters of --provider %s have %s", c.CNI, c.Provider, strings.Join(known, " or "))
	}
	if c.Manifest != "" && c.Chart != "" {
		return errors.New("--cni-manifest and --cni-chart exclude each other")
	}
	return nil
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
