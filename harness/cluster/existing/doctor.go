package existing

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"

	"github.com/netproof/netproof/harness/cluster/local/doctor"
	"github.com/netproof/netproof/harness/cni/install"
)

// doctorTime bounds the whole look at a cluster.
const doctorTime = time.Minute

// Doctor looks at the cluster that the options mean, and at what one may do there, and says how to mend what is missing. It changes
// nothing.
func Doctor(ctx context.Context, o Options) []Check {
	ctx, cancel := context.WithTimeout(ctx, doctorTime)
	defer cancel()
	cfg, called, err := RESTConfig(o)
	if err != nil {
		return []Check{{Name: "kubeconfig", State: doctor.Missing, Detail: err.Error(), Mend: "choose a cluster with --kubeconfig and --context"}}
	}
	checks := []Check{{Name: "kubeconfig", State: doctor.OK, Detail: fmt.Sprintf("%s at %s", called, host(cfg))}}
	client, err := connect(cfg)
	if err == nil {
		var version string
		if version, err = serverVersion(client); err == nil {
			checks = append(checks, Check{Name: "API server", State: doctor.OK, Detail: "Kubernetes " + version})
		}
	}
	if err != nil {
		return append(checks, Check{Name: "API server", State: doctor.Missing, Detail: err.Error(), Mend: "kubectl version must work with the same kubeconfig and context"})
	}
	var plugin *install.Found
	rights := RBACOptions{Policies: servedFamilies(client)}
	if len(o.Namespaces) == 0 {
		var check Check
		plugin, check = checkPlugin(ctx, client)
		checks = append(checks, check)
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

func checkPlugin(ctx context.Context, client kubernetes.Interface) (*install.Found, Check) {
	c := Check{Name: "network plugin", State: doctor.OK}
	found, err := install.Detect(ctx, client)
	if err != nil {
		c.State, c.Detail = doctor.Missing, err.Error()
		return nil, c
	}
	plugin, err := pluginOf(found, "")
	switch {
	case err != nil:
		c.State, c.Detail = doctor.Missing, err.Error()
	case plugin == nil:
		c.State, c.Detail = doctor.Limited, "none was recognised; a run finds out whether policies are enforced, and reports call the plugin "+unknownPlugin
	case !plugin.Enforces:
		c.State = doctor.Limited
		c.Detail = fmt.Sprintf("%s %s (DaemonSet %s), which enforces no policies", plugin.Name, plugin.Version, plugin.DaemonSet)
		c.Mend = "install a network plugin that does, such as Calico or Cilium"
	default:
		c.Detail = fmt.Sprintf("%s %s (DaemonSet %s)", plugin.Name, plugin.Version, plugin.DaemonSet)
	}
	return plugin, c
}

func checkNodes(ctx context.Context, client kubernetes.Interface, plugin *install.Found) Check {
	c := Check{Name: "nodes", State: doctor.OK}
	nodes, leftOut, err := nodesFor(ctx, client, plugin, 0)
	switch {
	case err != nil:
		c.State, c.Detail = doctor.Missing, err.Error()
		c.Mend = "kubectl get nodes, kubectl describe node: a node must be ready, and neither cordoned nor tainted"
	case len(nodes) == 1:
		c.State, c.Detail = doctor.Limited, "1 takes pods, so nothing is proven between nodes"+because(leftOut)
	default:
		c.Detail = fmt.Sprintf("%d take pods%s", len(nodes), because(leftOut))
	}
	return c
}

func checkFamilies(ctx context.Context, client kubernetes.Interface, askPods bool) Check {
	have, err := familiesOf(ctx, client, askPods)
	if err == nil {
		have, err = choose(nil, have)
	}
	if err != nil {
		return Check{Name: "IP families", State: doctor.Missing, Detail: err.Error()}
	}
	return Check{Name: "IP families", State: doctor.OK, Detail: "pods have " + list(have)}
}

func checkImage(image string) Check {
	c := Check{Name: "agent image", State: doctor.OK, Detail: image + "; whether nodes can pull it shows when a run starts"}
	err := (Options{Image: image}).check()
	switch {
	case image == "":
		c.State, c.Detail = doctor.Missing, "none is given"
		c.Mend = "netproof images --agent FILE makes it: push it to a registry that the nodes can pull from, and name it with --agent-image"
	case err != nil:
		c.State, c.Detail = doctor.Missing, err.Error()
	case !byDigest(image):
		c.State, c.Detail, c.Mend = doctor.Limited, image+" is a tag, under which nodes may have different images", "name it by its digest: IMAGE@sha256:..."
	}
	return c
}

func checkLease(ctx context.Context, client kubernetes.Interface, prefix string) Check {
	name := LeaseName(prefix)
	c := Check{Name: "lease", State: doctor.OK, Detail: "nobody has " + Namespace + "/" + name}
	got, err := client.CoordinationV1().Leases(Namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return c
	}
	if err != nil {
		c.State, c.Detail = doctor.Limited, "cannot be read: "+err.Error()
		return c
	}
	if id, machine := holder(got); id != "" {
		c.State = doctor.Limited
		c.Detail = fmt.Sprintf("run %s on host %s has %s/%s; its last sign of life was %s", id, machine, Namespace, name, lastSign(got))
		c.Mend = "wait for its end, or use a --namespace-prefix; if it has died, the next run takes the Lease over"
	}
	return c
}

func lastSign(l *coordinationv1.Lease) string {
	if l.Spec.RenewTime == nil {
		return "never"
	}
	return max(0, time.Since(l.Spec.RenewTime.Time)).Round(time.Second).String() + " ago"
}

// servedFamilies are the families of policies of which the cluster serves any kind. What cannot be asked is not served.
func servedFamilies(client kubernetes.Interface) []string {
	lists, _ := client.Discovery().ServerPreferredResources() // what it knows comes with the error
	served := map[schema.GroupResource]bool{}
	for _, l := range lists {
		gv, err := schema.ParseGroupVersion(l.GroupVersion)
		if err != nil {
			continue
		}
		for _, r := range l.APIResources {
			served[gv.WithResource(strings.ToLower(r.Name)).GroupResource()] = true
		}
	}
	return slices.DeleteFunc(PolicyFamilies(), func(family string) bool {
		return !slices.ContainsFunc(policyKinds[family], func(gr schema.GroupResource) bool { return served[gr] })
	})
}
