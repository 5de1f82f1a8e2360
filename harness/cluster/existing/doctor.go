package existing

import (
	"context"
	"fmt"
	"slices"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/check"
	"github.com/netproof/netproof/harness/cluster/lease"
	"github.com/netproof/netproof/harness/cni/install"
	"github.com/netproof/netproof/harness/policy"
)

// doctorTime bounds the whole look at a cluster.
const doctorTime = time.Minute

// Doctor looks at the cluster that the options mean, and at what one may do there, and says how to fix what is missing.
// It changes nothing.
func Doctor(ctx context.Context, o Options) []check.Check {
	ctx, cancel := context.WithTimeout(ctx, doctorTime)
	defer cancel()
	cfg, called, err := RESTConfig(o)
	if err != nil {
		return []check.Check{{Name: "kubeconfig", State: check.Missing, Detail: err.Error(), Fix: "choose a cluster with --kubeconfig and --context"}}
	}
	checks := []check.Check{{Name: "kubeconfig", State: check.OK, Detail: fmt.Sprintf("%s at %s", called, host(cfg))}}
	client, err := cluster.Connect(cfg)
	if err == nil {
		var version string
		if version, err = serverVersion(client); err == nil {
			checks = append(checks, check.Check{Name: "API server", State: check.OK, Detail: "Kubernetes " + version})
		}
	}
	if err != nil {
		return append(checks, check.Check{Name: "API server", State: check.Missing, Detail: err.Error(), Fix: "kubectl version must work with the same kubeconfig and context"})
	}
	var plugin *install.Found
	rights := RBACOptions{Policies: servedFamilies(client)}
	if len(o.Namespaces) == 0 {
		var seen check.Check
		plugin, seen = checkPlugin(ctx, client)
		checks = append(checks, seen)
	} else {
		rights = RBACOptions{Namespaces: o.Namespaces, NamespacePrefix: o.NamespacePrefix}
	}
	checks = append(checks, checkNodes(ctx, client, plugin), checkFamilies(ctx, client, len(o.Namespaces) == 0), checkImage(o.Image), checkLease(ctx, client, o.NamespacePrefix))
	return append(checks, Review(ctx, client, Grants(rights))...)
}

func serverVersion(client kubernetes.Interface) (string, error) {
	version, err := client.Discovery().ServerVersion()
	if err != nil {
		return "", err
	}
	return version.GitVersion, nil
}

func checkPlugin(ctx context.Context, client kubernetes.Interface) (*install.Found, check.Check) {
	c := check.Check{Name: "network plugin", State: check.OK}
	found, err := install.Detect(ctx, client)
	if err != nil {
		c.State, c.Detail = check.Missing, err.Error()
		return nil, c
	}
	plugin, err := pluginOf(found, "")
	switch {
	case err != nil:
		c.State, c.Detail = check.Missing, err.Error()
	case plugin == nil:
		c.State, c.Detail = check.Limited, "none was recognised; a run finds out whether policies are enforced, and reports call the plugin "+unknownPlugin
	case !plugin.Enforces:
		c.State = check.Limited
		c.Detail = fmt.Sprintf("%s %s (DaemonSet %s), which enforces no policies", plugin.Name, plugin.Version, plugin.DaemonSet)
		c.Fix = "install a network plugin that does, such as Calico or Cilium"
	default:
		c.Detail = fmt.Sprintf("%s %s (DaemonSet %s)", plugin.Name, plugin.Version, plugin.DaemonSet)
	}
	return plugin, c
}

func checkNodes(ctx context.Context, client kubernetes.Interface, plugin *install.Found) check.Check {
	c := check.Check{Name: "nodes", State: check.OK}
	nodes, leftOut, err := nodesFor(ctx, client, plugin, 0)
	switch {
	case err != nil:
		c.State, c.Detail = check.Missing, err.Error()
		c.Fix = "kubectl get nodes, kubectl describe node: a node must be ready, and neither cordoned nor tainted"
	case len(nodes) == 1:
		c.State, c.Detail = check.Limited, "1 takes pods, so nothing is proven between nodes"+because(leftOut)
	default:
		c.Detail = fmt.Sprintf("%d take pods%s", len(nodes), because(leftOut))
	}
	return c
}

func checkFamilies(ctx context.Context, client kubernetes.Interface, askPods bool) check.Check {
	have, err := familiesOf(ctx, client, askPods)
	if err == nil {
		have, err = choose(nil, have)
	}
	if err != nil {
		return check.Check{Name: "IP families", State: check.Missing, Detail: err.Error()}
	}
	return check.Check{Name: "IP families", State: check.OK, Detail: "pods have " + list(have)}
}

func checkImage(image string) check.Check {
	c := check.Check{Name: "agent image", State: check.OK, Detail: image + "; whether nodes can pull it shows when a run starts"}
	err := (Options{Image: image}).check()
	switch {
	case image == "":
		c.State, c.Detail = check.Missing, "none is given"
		c.Fix = "netproof images --agent FILE makes it: push it to a registry that the nodes can pull from, and name it with --agent-image"
	case err != nil:
		c.State, c.Detail = check.Missing, err.Error()
	case !byDigest(image):
		c.State, c.Detail, c.Fix = check.Limited, image+" is a tag, under which nodes may have different images", "name it by its digest: IMAGE@sha256:..."
	}
	return c
}

func checkLease(ctx context.Context, client kubernetes.Interface, prefix string) check.Check {
	name := lease.NameFor(prefix)
	c := check.Check{Name: "lease", State: check.OK, Detail: "nobody has " + lease.Namespace + "/" + name}
	got, err := client.CoordinationV1().Leases(lease.Namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return c
	}
	if err != nil {
		c.State, c.Detail = check.Limited, "cannot be read: "+err.Error()
		return c
	}
	if id, machine := lease.Holder(got); id != "" {
		c.State = check.Limited
		c.Detail = fmt.Sprintf("run %s on host %s has %s/%s; its last sign of life was %s", id, machine, lease.Namespace, name, lastSign(got))
		c.Fix = "wait for its end, or use a --namespace-prefix; if it has died, the next run takes the Lease over"
	}
	return c
}

func lastSign(l *coordinationv1.Lease) string {
	if l.Spec.RenewTime == nil {
		return "never"
	}
	return max(0, time.Since(l.Spec.RenewTime.Time)).Round(time.Second).String() + " ago"
}

// servedFamilies are the families of policies with a kind that the cluster serves. What cannot be asked is not served.
func servedFamilies(client kubernetes.Interface) []string {
	served, _, _ := cluster.ServedPolicies(client.Discovery())
	return slices.DeleteFunc(policy.Families(), func(family string) bool {
		return !slices.ContainsFunc(served, func(k cluster.ServedPolicy) bool { return k.Family == family })
	})
}
