//go:build linux

package controlplane

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

const (
	// reapLimit is how many requests of one namespace are under way at a time.
	reapLimit = 8
	// reapInterval is how often what is left of a namespace is looked at.
	reapInterval = 10 * time.Millisecond
	// retryInterval is how long the reaper waits after an error.
	retryInterval = 200 * time.Millisecond
	// reapTimeout is how long the reaper stays with a namespace before it reports what keeps it.
	reapTimeout = time.Minute
	// metadataOnly asks for the names of objects without the rest.
	metadataOnly = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
)

// NamespaceReaper empties namespaces that are being deleted and lets them go. It does what the namespace controller of
// kube-controller-manager does, at once: that one waits five seconds for the sake of control planes with several API
// servers, longer than many a scenario runs. The upstream one is off: it goes by name, and while it was still emptying
// one namespace it emptied the next of that name, which was made as soon as ours had let the first one go.
type NamespaceReaper struct {
	client kubernetes.Interface
	rest   rest.Interface
	pods   listers.PodLister
	report func(error)

	mu sync.Mutex
	// begun has the UID of every namespace that was ever begun with. An event that comes late, of a namespace that is
	// gone, must not empty the next one of its name.
	begun map[types.UID]bool
	wg    sync.WaitGroup
}

// NewNamespaceReaper makes a reaper. Pods take the longest to go; the lister spares asking the API server for them
// meanwhile. report hears of errors that are not an object's own.
func NewNamespaceReaper(client kubernetes.Interface, pods listers.PodLister, report func(error)) *NamespaceReaper {
	return &NamespaceReaper{
		client: client, rest: client.Discovery().RESTClient(), pods: pods, report: report, begun: map[types.UID]bool{},
	}
}

// Watch reaps namespaces that the informer shows, until ctx ends.
func (r *NamespaceReaper) Watch(ctx context.Context, namespaces cache.SharedIndexInformer) error {
	see := func(obj any) {
		ns, ok := obj.(*corev1.Namespace)
		if !ok || ns.DeletionTimestamp == nil || !slices.Contains(ns.Spec.Finalizers, corev1.FinalizerKubernetes) {
			return
		}
		r.start(ctx, ns)
	}
	_, err := namespaces.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    see,
		UpdateFunc: func(_, obj any) { see(obj) },
	})
	if err != nil {
		return fmt.Errorf("watch namespaces to remove: %w", err)
	}
	return nil
}

// Wait returns when the reaper has stopped, after the context of Watch has ended.
func (r *NamespaceReaper) Wait() { r.wg.Wait() }

func (r *NamespaceReaper) start(ctx context.Context, ns *corev1.Namespace) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.begun[ns.UID] {
		return
	}
	r.begun[ns.UID] = true
	r.wg.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, reapTimeout)
		defer cancel()
		retry := time.NewTicker(retryInterval)
		defer retry.Stop()
		for {
			err := r.reap(ctx, ns)
			if err == nil || errors.Is(err, context.Canceled) {
				return
			}
			select {
			case <-retry.C:
			case <-ctx.Done():
				if errors.Is(ctx.Err(), context.DeadlineExceeded) {
					r.report(fmt.Errorf("remove namespace %s: %w", ns.Name, err))
				}
				return
			}
		}
	})
}

func (r *NamespaceReaper) reap(ctx context.Context, ns *corev1.Namespace) error {
	remaining, err := r.resources()
	if err != nil {
		return err
	}
	if still, err := r.current(ctx, ns); err != nil || still == nil {
		return err
	}
	if remaining, err = r.each(ctx, remaining, func(ctx context.Context, c collection) (bool, error) {
		return r.deleteAll(ctx, c, ns.Name)
	}); err != nil {
		return err
	}
	ticker := time.NewTicker(reapInterval)
	defer ticker.Stop()
	for len(remaining) > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		// Somebody else may have let it go, and the name be in use again.
		if still, err := r.current(ctx, ns); err != nil || still == nil {
			return err
		}
		if known, err := r.pods.Pods(ns.Name).List(labels.Everything()); err != nil || len(known) > 0 {
			continue
		}
		if remaining, err = r.each(ctx, remaining, func(ctx context.Context, c collection) (bool, error) {
			return r.hasAny(ctx, c, ns.Name)
		}); err != nil {
			return err
		}
	}
	return r.finalize(ctx, ns)
}

// current reads the namespace again; nil when it is gone, or when there is another one of its name.
func (r *NamespaceReaper) current(ctx context.Context, ns *corev1.Namespace) (*corev1.Namespace, error) {
	now, err := r.client.CoreV1().Namespaces().Get(ctx, ns.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	if now.UID != ns.UID {
		return nil, nil
	}
	return now, nil
}

// collection is a kind of namespaced object that can be listed and deleted.
type collection struct {
	schema.GroupVersionResource
	// together is true when one request deletes all of them.
	together bool
}

func (c collection) path(namespace string, name ...string) []string {
	path := []string{"/apis", c.Group, c.Version}
	if c.Group == "" {
		path = []string{"/api", c.Version}
	}
	return append(append(path, "namespaces", namespace, c.Resource), name...)
}

// resources are asked for each time: there may be new custom ones.
func (r *NamespaceReaper) resources() ([]collection, error) {
	lists, err := r.client.Discovery().ServerPreferredResources()
	// Groups that an aggregated server does not answer for must not keep the namespace.
	if _, partial := errors.AsType[*discovery.ErrGroupDiscoveryFailed](err); err != nil && !partial {
		return nil, fmt.Errorf("ask for the kinds of objects: %w", err)
	}
	var all []collection
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil || gv.Group == "events.k8s.io" { // the same objects as the core group's events
			continue
		}
		for _, resource := range list.APIResources {
			if resource.Namespaced && slices.Contains(resource.Verbs, "list") && slices.Contains(resource.Verbs, "delete") &&
				!strings.Contains(resource.Name, "/") {
				all = append(all, collection{
					GroupVersionResource: gv.WithResource(resource.Name),
					together:             slices.Contains(resource.Verbs, "deletecollection"),
				})
			}
		}
	}
	return all, nil
}

// each calls check for every collection and returns those for which it said true.
func (r *NamespaceReaper) each(ctx context.Context, all []collection,
	check func(context.Context, collection) (bool, error),
) ([]collection, error) {
	kept := make([]bool, len(all))
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(reapLimit)
	for i, c := range all {
		work.Go(func() (err error) {
			kept[i], err = check(ctx, c)
			return err
		})
	}
	if err := work.Wait(); err != nil {
		return nil, err
	}
	var some []collection
	for i, c := range all {
		if kept[i] {
			some = append(some, c)
		}
	}
	return some, nil
}

// deleteAll asks for the deletion of a namespace's objects of one kind and tells whether there were any.
func (r *NamespaceReaper) deleteAll(ctx context.Context, c collection, namespace string) (bool, error) {
	if !c.together {
		names, err := r.names(ctx, c, namespace)
		for _, name := range names {
			del := r.rest.Delete().AbsPath(c.path(namespace, name)...).Do(ctx).Error()
			if del != nil && !apierrors.IsNotFound(del) {
				err = errors.Join(err, fmt.Errorf("delete %s %s: %w", c.Resource, name, del))
			}
		}
		return len(names) > 0, err
	}
	body, err := r.rest.Delete().AbsPath(c.path(namespace)...).SetHeader("Accept", metadataOnly).
		Param("propagationPolicy", string(metav1.DeletePropagationBackground)).Do(ctx).Raw()
	if gone(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("delete %s: %w", c.Resource, err)
	}
	names, err := namesIn(body)
	return len(names) > 0, err
}

func (r *NamespaceReaper) hasAny(ctx context.Context, c collection, namespace string) (bool, error) {
	names, err := r.names(ctx, c, namespace)
	return len(names) > 0, err
}

func (r *NamespaceReaper) names(ctx context.Context, c collection, namespace string) ([]string, error) {
	body, err := r.rest.Get().AbsPath(c.path(namespace)...).SetHeader("Accept", metadataOnly).Do(ctx).Raw()
	if gone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", c.Resource, err)
	}
	return namesIn(body)
}

// gone tells that the kind of object exists no longer, or takes no such request.
func gone(err error) bool {
	status := apierrors.APIStatus(nil)
	return errors.As(err, &status) &&
		(status.Status().Code == http.StatusNotFound || status.Status().Code == http.StatusMethodNotAllowed)
}

func namesIn(body []byte) ([]string, error) {
	var list struct {
		Items []struct {
			Metadata struct {
				Name string `json:"name"`
			} `json:"metadata"`
		} `json:"items"`
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, fmt.Errorf("read list: %w", err)
	}
	var names []string
	for _, item := range list.Items {
		names = append(names, item.Metadata.Name)
	}
	return names, nil
}

// finalize lets the namespace go.
func (r *NamespaceReaper) finalize(ctx context.Context, ns *corev1.Namespace) error {
	for {
		now, err := r.current(ctx, ns)
		if err != nil || now == nil {
			return err
		}
		now.Spec.Finalizers = slices.DeleteFunc(now.Spec.Finalizers, func(f corev1.FinalizerName) bool {
			return f == corev1.FinalizerKubernetes
		})
		_, err = r.client.CoreV1().Namespaces().Finalize(ctx, now, metav1.UpdateOptions{})
		switch {
		case err == nil || apierrors.IsNotFound(err):
			return nil
		case !apierrors.IsConflict(err):
			return fmt.Errorf("finalize: %w", err)
		}
	}
}
