package kind

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cni/calico"
	"github.com/netproof/netproof/harness/cni/cilium"
	"github.com/netproof/netproof/harness/cni/install"
	"github.com/netproof/netproof/harness/cni/kindnet"
	"github.com/netproof/netproof/harness/model"
)

// plugins are the network plugins of kind clusters.
var plugins = map[string]func() install.Plugin{
	cniCalico:  calico.Plugin,
	cniCilium:  cilium.Plugin,
	cniKindnet: kindnet.Plugin,
}

// podSubnets are those that kind gives pods.
var podSubnets = map[model.IPFamily]netip.Prefix{
	model.IPv4: netip.MustParsePrefix("10.244.0.0/16"),
	model.IPv6: netip.MustParsePrefix("fd00:10:244::/56"),
}

// versionInTag finds the version of Kubernetes in the name of a node image.
var versionInTag = regexp.MustCompile(`:(v\d+\.\d+\.\d+)`)

// Images are those that a cluster would be made of: that of its nodes, and then those of the network plugin, sorted. It
// may take a download.
func Images(ctx context.Context, opts Options, wanted cluster.Options) ([]string, error) {
	s, err := opts.plan(wanted)
	if err != nil {
		return nil, err
	}
	list := []string{s.image}
	b, err := loadBundle(ctx, s, opts.CNI)
	if err != nil || b == nil {
		return list, err
	}
	return append(list, b.Images()...), nil
}

// loadBundle reads the network plugin that is asked for, which may take a download.
func loadBundle(ctx context.Context, s spec, o install.Options) (*install.Bundle, error) {
	o.Families, o.PodSubnets = s.families, nil
	for _, f := range s.families {
		o.PodSubnets = append(o.PodSubnets, podSubnets[f])
	}
	if m := versionInTag.FindStringSubmatch(s.image); m != nil && o.Kubernetes == "" {
		o.Kubernetes = m[1]
	}
	if o.Progress == nil {
		o.Progress = s.progress
	}
	return install.Load(ctx, plugins[s.cni](), o)
}

// awaitPlugin waits until the agents of the network plugin are ready on every node, and refuses a cluster on which two
// plugins enforce policies. It returns the one that does.
func awaitPlugin(ctx context.Context, client kubernetes.Interface, plugin install.Plugin) (install.Found, error) {
	limit, cancel := context.WithTimeout(ctx, readyWait)
	defer cancel()
	if err := install.AwaitReady(limit, client, plugin); err != nil {
		return install.Found{}, err
	}
	return enforcer(ctx, client, plugin.Name)
}

// enforcer finds the network plugin of that name among those of the cluster.
func enforcer(ctx context.Context, client kubernetes.Interface, name string) (install.Found, error) {
	found, err := install.Detect(ctx, client)
	if err != nil {
		return install.Found{}, err
	}
	if err := install.CheckOneEnforcer(found); err != nil {
		return install.Found{}, err
	}
	i := slices.IndexFunc(found, func(f install.Found) bool { return f.Name == name })
	if i < 0 {
		return install.Found{}, fmt.Errorf("network plugin %s was installed, and cannot be found: there are %v", name, found)
	}
	return found[i], nil
}

// agentPatience is how long an agent of the network plugin may look ill before the cluster does.
const agentPatience = 2 * time.Second

// agentsReady returns an error that names an agent of the network plugin that is not ready.
func agentsReady(ctx context.Context, client kubernetes.Interface, plugin install.Plugin) error {
	limit, cancel := context.WithTimeoutCause(ctx, agentPatience, fmt.Errorf("it has not been for %s", agentPatience))
	defer cancel()
	return install.AwaitReady(limit, client, plugin)
}
