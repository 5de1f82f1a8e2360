//go:build linux

package attach

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/netproof/netproof/harness/cluster"
)

const (
	// sweepInterval is how often what is being removed is looked at.
	sweepInterval = 50 * time.Millisecond
	// heldAfter is for how long nothing may go before what is held by finalizers counts as held for good: controllers
	// that take finalizers away do so in moments. A run that asks for the cluster waits for no longer.
	heldAfter = 5 * time.Second
)

// builtIn are the namespaces that a run puts objects in, and labels on, without having made them.
var builtIn = []string{metav1.NamespaceDefault, metav1.NamespaceSystem}

// api is the way to the objects in a cluster.
type api struct {
	client  kubernetes.Interface
	objects metadata.Interface
}

func newAPI(cfg *rest.Config) (api, error) {
	client, err := cluster.Connect(cfg)
	if err != nil {
		return api{}, err
	}
	objects, err := cluster.ConnectMetadata(cfg)
	if err != nil {
		return api{}, err
	}
	return api{client: client, objects: objects}, nil
}

// remain is an object that is still there.
type remain struct {
	// what it is, such as pods x/a, and how it is held; "" where no finalizer does.
	what, held string
}

// heldError names the objects that finalizers keep from going.
func heldError(left []remain) error {
	var errs []error
	for _, r := range left {
		if r.held != "" {
			errs = append(errs, fmt.Errorf("%s is %s", r.what, r.held))
		}
	}
	return errors.Join(errs...)
}

// removeObjects returns when nothing is left of the objects that a run made, or when finalizers hold some of it: the
// error names those.
func (a api) removeObjects(ctx context.Context) error {
	kinds, err := a.kinds()
	if err != nil {
		return err
	}
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	var before []remain
	moved := time.Now()
	for {
		left, err := a.removeOnce(ctx, kinds)
		if err != nil || len(left) == 0 {
			return err
		}
		if !slices.Equal(left, before) {
			before, moved = left, time.Now()
		}
		if held := heldError(left); held != nil && time.Since(moved) > heldAfter {
			return held
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			var names []string
			for _, r := range left {
				names = append(names, r.what)
			}
			return fmt.Errorf("%s still there: %w", strings.Join(names, ", "), errors.Join(context.Cause(ctx), heldError(left)))
		}
	}
}

// kinds are those that a run makes objects of; namespaces come last. They are asked for each time: there may be new
// custom ones. A label that stands on other kinds was copied there by a controller (such as that of endpoint slices),
// which takes it away again.
func (a api) kinds() ([]schema.GroupVersionResource, error) {
	core := corev1.SchemeGroupVersion
	kinds := []schema.GroupVersionResource{core.WithResource("pods"), core.WithResource("services")}
	// An API whose server does not answer has no objects that could be removed.
	policies, _, err := cluster.ServedPolicies(a.client.Discovery())
	if err != nil {
		return nil, err
	}
	for _, kind := range policies {
		kinds = append(kinds, kind.In)
	}
	return append(kinds, core.WithResource("namespaces")), nil
}

// removeOnce deletes what a run made and returns what was there.
func (a api) removeOnce(ctx context.Context, kinds []schema.GroupVersionResource) (left []remain, err error) {
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
			r := remain{what: kind.GroupResource().String() + " " + name}
			if obj.DeletionTimestamp != nil {
				r.held = cluster.Held(kind.GroupResource().String(), obj.Namespace, obj.Name, obj.Finalizers)
			}
			left = append(left, r)
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

// setLabels gives the namespaces that stay all labels that they had before the run, takes away what the run noted on
// them, and shows that they are as they were.
func (a api) setLabels(ctx context.Context, before map[string]map[string]string) error {
	namespaces := a.client.CoreV1().Namespaces()
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(before)) {
		labels := before[name]
		if labels == nil {
			labels = map[string]string{}
		}
		ns, err := namespaces.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			errs = append(errs, fmt.Errorf("read namespace %s: %w", name, err))
			continue
		}
		r := cluster.Restore{Labels: map[string]*string{}, Before: labels}
		for k := range ns.Labels {
			if _, had := labels[k]; !had {
				r.Labels[k] = nil
			}
		}
		for k, v := range labels {
			if have, ok := ns.Labels[k]; !ok || have != v {
				r.Labels[k] = &v
			}
		}
		if _, noted := ns.Annotations[cluster.RestoreAnnotation]; len(r.Labels) == 0 && !noted {
			continue
		}
		if ns, err = namespaces.Patch(ctx, name, types.MergePatchType, r.Patch(), metav1.PatchOptions{}); err != nil {
			errs = append(errs, fmt.Errorf("label namespace %s: %w", name, err))
			continue
		}
		if differ := r.Differences(ns.Labels); len(differ) > 0 {
			errs = append(errs, fmt.Errorf("the labels of namespace %s are not as they were: %s", name, strings.Join(differ, "; ")))
		}
	}
	return errors.Join(errs...)
}
