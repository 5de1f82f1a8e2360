package attach

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/netproof/netproof/harness/cluster"
)

// sweepInterval is how often what is being removed is looked at.
const sweepInterval = 50 * time.Millisecond

// builtIn are the namespaces that a run puts objects in, and labels on, without having made them.
var builtIn = []string{metav1.NamespaceDefault, metav1.NamespaceSystem}

// policyKinds end the names of the kinds that a scenario applies, of whichever group. A label that stands on other kinds was
// copied there by a controller (such as that of endpoint slices), which takes it away again.
var policyKinds = []string{"NetworkPolicy", "NetworkSet", "Tier", "CIDRGroup"}

// api is the way to the objects in a cluster.
type api struct {
	client  kubernetes.Interface
	objects metadata.Interface
}

func newAPI(cfg *rest.Config) (api, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.QPS = -1 // the requests are few, and a run waits for them
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return api{}, fmt.Errorf("connect to the cluster: %w", err)
	}
	objects, err := metadata.NewForConfig(cfg)
	if err != nil {
		return api{}, fmt.Errorf("connect to the cluster: %w", err)
	}
	return api{client: client, objects: objects}, nil
}

// removeObjects returns when nothing is left of the objects that a run made.
func (a api) removeObjects(ctx context.Context) error {
	kinds, err := a.kinds()
	if err != nil {
		return err
	}
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		left, err := a.removeOnce(ctx, kinds)
		if err != nil || len(left) == 0 {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s still there: %w", strings.Join(left, ", "), context.Cause(ctx))
		}
	}
}

// kinds are those of which a run makes objects; namespaces come last. They are asked for each time: there may be new custom ones.
func (a api) kinds() ([]schema.GroupVersionResource, error) {
	core := corev1.SchemeGroupVersion
	kinds := []schema.GroupVersionResource{core.WithResource("pods"), core.WithResource("services")}
	lists, err := a.client.Discovery().ServerPreferredResources()
	// A group that an aggregated server does not answer for has no objects that could be removed.
	if _, partial := errors.AsType[*discovery.ErrGroupDiscoveryFailed](err); err != nil && !partial {
		return nil, fmt.Errorf("ask for the kinds of objects: %w", err)
	}
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			continue
		}
		for _, r := range list.APIResources {
			policy := slices.ContainsFunc(policyKinds, func(end string) bool { return strings.HasSuffix(r.Kind, end) })
			if policy && !strings.Contains(r.Name, "/") && slices.Contains(r.Verbs, "list") && slices.Contains(r.Verbs, "delete") {
				kinds = append(kinds, gv.WithResource(r.Name))
			}
		}
	}
	return append(kinds, core.WithResource("namespaces")), nil
}

// removeOnce deletes what a run made and returns what was there.
func (a api) removeOnce(ctx context.Context, kinds []schema.GroupVersionResource) (left []string, err error) {
	for _, kind := range kinds {
		list, err := a.objects.Resource(kind).List(ctx, metav1.ListOptions{LabelSelector: cluster.RunsSelector})
		if apierrors.IsNotFound(err) {
			continue // the kind itself is gone
		}
		if err != nil {
			return left, fmt.Errorf("list %s: %w", kind.Resource, err)
		}
		for _, obj := range list.Items {
			if kind.Resource == "namespaces" && slices.Contains(builtIn, obj.Name) {
				continue
			}
			name := strings.Trim(obj.Namespace+"/"+obj.Name, "/")
			left = append(left, kind.Resource+" "+name)
			if obj.DeletionTimestamp != nil {
				continue
			}
			uid := obj.UID
			err := a.objects.Resource(kind).Namespace(obj.Namespace).Delete(ctx, obj.Name, metav1.DeleteOptions{
				Preconditions: &metav1.Preconditions{UID: &uid},
			})
			if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
				return left, fmt.Errorf("delete %s %s: %w", kind.Resource, name, err)
			}
		}
	}
	return left, nil
}

// builtInLabels reads the labels of the namespaces that stay.
func (a api) builtInLabels(ctx context.Context) (map[string]map[string]string, error) {
	list, err := a.client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list namespaces: %w", err)
	}
	labels := map[string]map[string]string{}
	for _, ns := range list.Items {
		if slices.Contains(builtIn, ns.Name) {
			labels[ns.Name] = ns.Labels
		}
	}
	return labels, nil
}

// setLabels gives the namespaces that stay the labels that they had before the run.
func (a api) setLabels(ctx context.Context, before map[string]map[string]string) error {
	now, err := a.builtInLabels(ctx)
	if err != nil {
		return err
	}
	for ns, labels := range before {
		patch := map[string]*string{}
		for k := range now[ns] {
			if _, had := labels[k]; !had {
				patch[k] = nil
			}
		}
		for k, v := range labels {
			if have, ok := now[ns][k]; !ok || have != v {
				patch[k] = &v
			}
		}
		if len(patch) == 0 {
			continue
		}
		body, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": patch}})
		if err != nil {
			return err
		}
		if _, err := a.client.CoreV1().Namespaces().Patch(ctx, ns, types.MergePatchType, body, metav1.PatchOptions{}); err != nil {
			return fmt.Errorf("label namespace %s: %w", ns, err)
		}
	}
	return nil
}
