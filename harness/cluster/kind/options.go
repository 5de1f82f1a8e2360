package kind

import (
	"crypto/rand"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/kind/pkg/apis/config/defaults"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cni/install"
	"github.com/netproof/netproof/harness/model"
)

// The network plugins that can be asked for.
const (
	cniCalico  = "calico"
	cniCilium  = "cilium"
	cniKindnet = "kindnet"
)

// Plugins are the network plugins that kind clusters can have, the default first.
func Plugins() []string { return []string{cniCalico, cniCilium, cniKindnet} }

const (
	// DefaultNodes is the number of workers of a cluster that does not say.
	DefaultNodes = 2
	// ImageEnv names the node image where no option does.
	ImageEnv = "NETPROOF_KIND_IMAGE"
	// nodeRepository is where node images of kind's project are.
	nodeRepository = "kindest/node"
	// maxName is the length of the longest name: -control-plane is appended for a host name, which has 63 bytes.
	maxName = 63 - len("-control-plane")
)

// Options say how a provider makes clusters. The zero value makes them with the engine that kind would use and kind's
// default image.
type Options struct {
	// Runtime is docker, podman or empty for the one that kind would take.
	Runtime string
	// NodeImage is the image of the nodes. Empty means that of [ImageEnv], then that of KubernetesVersion, then kind's
	// default.
	NodeImage string
	// KubernetesVersion, such as v1.35.1, picks the image of kind's project.
	KubernetesVersion string
	// Name of clusters; empty for one that is made up. That in [cluster.Options] goes first.
	Name string
	// Keep leaves the cluster in place when it is closed.
	Keep bool
	// CNI says what is installed, and where from.
	CNI install.Options
	// Executable is the static netproof that probe pods run; empty means the one that is running.
	Executable string
	// Direct probes from the network namespaces of pods instead of over the API server. It takes root on the engine's
	// machine.
	Direct bool
	// LogsDir is where logs go when a cluster does not get ready; empty means a folder netproof-logs-NAME among the
	// temporary files.
	LogsDir string
	// Progress hears in plain words what goes on, if that in [cluster.Options] is nil; it may be nil too.
	Progress func(string)
}

// spec is a cluster that is to be made, with all choices taken.
type spec struct {
	name     string
	cni      string
	workers  int
	families []model.IPFamily
	image    string
	logs     string
	progress func(string)
}

// plan takes the choices, without looking at the machine.
func (o Options) plan(opts cluster.Options) (spec, error) {
	s := spec{name: opts.Name, cni: opts.CNI, workers: opts.Nodes, families: slices.Clone(opts.IPFamilies), logs: o.LogsDir, progress: opts.Progress}
	if s.name == "" {
		s.name = o.Name
	}
	if s.name == "" {
		s.name = "netproof-" + strings.ToLower(rand.Text()[:6])
	}
	if s.cni == "" {
		s.cni = cniCalico
	}
	if s.workers == 0 {
		s.workers = DefaultNodes
	}
	if len(s.families) == 0 {
		s.families = []model.IPFamily{model.IPv4}
	}
	if s.progress == nil {
		s.progress = o.Progress
	}
	if s.progress == nil {
		s.progress = func(string) {}
	}
	if s.logs == "" {
		s.logs = defaultLogs(s.name)
	}
	var err error
	if s.image, err = o.image(os.Getenv); err != nil {
		return s, err
	}
	return s, s.check()
}

func (s spec) check() error {
	if err := checkName(s.name); err != nil {
		return err
	}
	have := strings.Join(Plugins(), ", ")
	switch {
	case slices.Contains(Plugins(), s.cni):
	case s.cni == "none":
		return fmt.Errorf("a kind cluster without a network plugin has no pod network: choose one of %s, "+
			"or --provider local, which has a cluster that enforces nothing", have)
	default:
		return fmt.Errorf("network plugin %q: there is %s", s.cni, have)
	}
	if s.workers < 1 {
		return fmt.Errorf("a kind cluster has at least 1 node that takes pods, not %d", s.workers)
	}
	if _, err := ipFamily(s.families); err != nil {
		return err
	}
	return nil
}

// checkName makes sure that a name can be used as the host name of nodes and as a label.
func checkName(name string) error {
	if problems := validation.IsDNS1123Label(name); len(problems) > 0 {
		return fmt.Errorf("cluster name %q: %s", name, strings.Join(problems, "; "))
	}
	if len(name) > maxName {
		return fmt.Errorf("cluster name %q: at most %d characters, for the nodes' host names are made of it", name, maxName)
	}
	return nil
}

var versionPattern = regexp.MustCompile(`^v?(\d+\.\d+\.\d+([-+.].*)?)$`)

// image chooses the node image.
func (o Options) image(getenv func(string) string) (string, error) {
	if o.NodeImage != "" && o.KubernetesVersion != "" {
		return "", fmt.Errorf("node image %s and Kubernetes version %s: give one of the two, the image decides the version", o.NodeImage, o.KubernetesVersion)
	}
	if o.NodeImage != "" {
		return o.NodeImage, nil
	}
	if o.KubernetesVersion != "" {
		m := versionPattern.FindStringSubmatch(o.KubernetesVersion)
		if m == nil {
			return "", fmt.Errorf("version %q of Kubernetes: node images have three numbers, such as v1.35.1; https://github.com/kubernetes-sigs/kind/releases lists them",
				o.KubernetesVersion)
		}
		return nodeRepository + ":v" + m[1], nil
	}
	if image := getenv(ImageEnv); image != "" {
		return image, nil
	}
	return defaults.Image, nil
}
