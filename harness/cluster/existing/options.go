package existing

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"k8s.io/apimachinery/pkg/util/validation"

	// People's kubeconfigs name the ways to log in that this package knows.
	_ "k8s.io/client-go/plugin/pkg/client/auth"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/lease"
	"github.com/netproof/netproof/harness/cluster/sweep"
)

// Options say which cluster is meant, and how a run behaves there.
type Options struct {
	// Kubeconfig is the path of a file. Empty means the usual places: $KUBECONFIG, then ~/.kube/config, and in a pod
	// without any of these the pod's service account.
	Kubeconfig string
	// Context in the kubeconfig; empty for its current one.
	Context string
	// Image of the probe pods, required. It should be a reference by digest: what a tag points at can differ from node
	// to node.
	Image string
	// NamespacePrefix goes before the names of all namespaces of the run. Runs with different prefixes can run side by
	// side.
	NamespacePrefix string
	// Namespaces of the cluster that an administrator lends to the run, by [cluster.LentLabel]; that of the canaries,
	// [cluster.CanaryNamespace] with the prefix, comes on top. With any, nothing is asked about all of the cluster but
	// its nodes: see [RBACOptions.Namespaces]. The network plugin and what it cannot do are not known then.
	Namespaces []string
	// Progress hears in plain words what goes on, until a call of Create brings its own; it may be nil.
	Progress func(string)

	// timing is that of the Lease; nil for the usual one.
	timing *lease.Timing
}

// Errors that are about what the user gave.
var (
	// ErrNoConfig is matched when nothing says which cluster is meant.
	ErrNoConfig = errors.New("no cluster is configured")
	// ErrNoImage is matched when the image of the probe pods is missing.
	ErrNoImage = errors.New("the image of the probe pods is missing")
)

// maxPrefix leaves room for the namespaces of a scenario: a name has at most 63 characters.
const maxPrefix = 30

// check tells what is wrong with the options themselves.
func (o Options) check() error {
	if o.Image == "" {
		return fmt.Errorf("%w: give a reference by digest with --agent-image; netproof images --agent FILE makes the image, for a registry "+
			"that the cluster's nodes can pull from", ErrNoImage)
	}
	if _, err := name.ParseReference(o.Image); err != nil {
		return fmt.Errorf("image of the probe pods: %w", err)
	}
	return errors.Join(CheckPrefix(o.NamespacePrefix), checkNamespaces(o.Namespaces))
}

// checkNamespaces tells whether namespaces can be lent to a run.
func checkNamespaces(list []string) error {
	for _, ns := range list {
		if problems := validation.IsDNS1123Label(ns); len(problems) > 0 {
			return fmt.Errorf("namespace %q: %s", ns, strings.Join(problems, "; "))
		}
		if sweep.IsBuiltIn(ns) {
			return fmt.Errorf("namespace %s is everybody's, and cannot be lent to a run", ns)
		}
	}
	return nil
}

// CheckPrefix tells whether namespaces can have a prefix.
func CheckPrefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	if len(prefix) > maxPrefix {
		return fmt.Errorf("namespace prefix %q: it has %d characters, and at most %d leave room for the names of scenarios", prefix, len(prefix), maxPrefix)
	}
	if problems := validation.IsDNS1123Label(prefix + "x"); len(problems) > 0 {
		return fmt.Errorf("namespace prefix %q: %s", prefix, strings.Join(problems, "; "))
	}
	return nil
}

// byDigest tells whether an image is named by its content.
func byDigest(image string) bool {
	_, err := name.NewDigest(image)
	return err == nil
}

// RESTConfig gives access to the cluster that the options mean, and what it is called: the name of the context, or
// in-cluster.
func RESTConfig(o Options) (*rest.Config, string, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = o.Kubeconfig
	rules.WarnIfAllMissing = false
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: o.Context})
	raw, err := loader.RawConfig()
	if err != nil {
		return nil, "", fmt.Errorf("read kubeconfig: %w", err)
	}
	called := raw.CurrentContext
	if o.Context != "" {
		if _, known := raw.Contexts[o.Context]; !known {
			return nil, "", fmt.Errorf("kubeconfig has no context %s: %s", o.Context, contexts(slices.Sorted(maps.Keys(raw.Contexts))))
		}
		called = o.Context
	}
	cfg, err := loader.ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		return nil, "", fmt.Errorf("%w: give --kubeconfig, or set KUBECONFIG; in a pod, let it have a service account's token", ErrNoConfig)
	}
	if err != nil {
		return nil, "", fmt.Errorf("read kubeconfig: %w", err)
	}
	if called == "" {
		called = "in-cluster"
	}
	rest.AddUserAgent(cfg, cluster.ManagedBy)
	return cfg, called, nil
}

// contexts says which contexts there are.
func contexts(names []string) string {
	if len(names) == 0 {
		return "it has none"
	}
	return "it has " + strings.Join(names, ", ")
}

// host is the name of the API server's machine.
func host(cfg *rest.Config) string {
	if u, err := url.Parse(cfg.Host); err == nil && u.Host != "" {
		return u.Host
	}
	return cfg.Host
}
