package install

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
)

// FieldManager is the name under which netproof owns the fields that it applies.
const FieldManager = "netproof"

// establishTime is how long an API server may take until it serves a new kind.
const establishTime = time.Minute

var crdResource = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// Apply puts the objects on the cluster by server-side apply: namespaces, then custom resource definitions, and when
// those are served the rest. Applying the same bundle again changes nothing. A field that somebody else has set
// otherwise is an error and stays as it is.
func (b *Bundle) Apply(ctx context.Context, config *rest.Config) error {
	if len(b.Objects) == 0 {
		return nil
	}
	a, err := newApplier(config)
	if err != nil {
		return fmt.Errorf("apply %s: %w", b.Plugin, err)
	}
	if err := a.all(ctx, b.Objects, b.progress); err != nil {
		return fmt.Errorf("apply %s: %w", b.Plugin, err)
	}
	return nil
}

type applier struct {
	client dynamic.Interface
	mapper meta.ResettableRESTMapper
}

func newApplier(config *rest.Config) (applier, error) {
	// A bundle is a few dozen requests, once: client-go's own limit would spread them over many seconds.
	config = rest.CopyConfig(config)
	config.QPS = -1
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return applier{}, err
	}
	finder, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return applier{}, err
	}
	return applier{client, restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(finder))}, nil
}

func (a applier) all(ctx context.Context, objects []*unstructured.Unstructured, progress func(string)) error {
	if progress != nil {
		progress(fmt.Sprintf("applying %d objects", len(objects)))
	}
	isCRD := func(o *unstructured.Unstructured) bool { return o.GetKind() == customResourceDefinition }
	first := slices.IndexFunc(objects, func(o *unstructured.Unstructured) bool {
		return standing(o.GetKind()) > standing(customResourceDefinition)
	})
	if first < 0 {
		first = len(objects)
	}
	for _, o := range objects[:first] {
		if err := a.one(ctx, o); err != nil {
			return err
		}
	}
	if slices.ContainsFunc(objects[:first], isCRD) {
		if err := a.awaitEstablished(ctx, objects[:first]); err != nil {
			return err
		}
		a.mapper.Reset()
	}
	for _, o := range objects[first:] {
		if err := a.one(ctx, o); err != nil {
			return err
		}
	}
	return nil
}

func (a applier) one(ctx context.Context, object *unstructured.Unstructured) error {
	kind := object.GroupVersionKind()
	mapping, err := a.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		return fmt.Errorf("apply %s: the cluster does not serve %s: %w", nameOf(object), kind, err)
	}
	var client dynamic.ResourceInterface = a.client.Resource(mapping.Resource)
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		if object.GetNamespace() == "" {
			object = object.DeepCopy()
			object.SetNamespace(chartNamespace)
		}
		client = a.client.Resource(mapping.Resource).Namespace(object.GetNamespace())
	}
	_, err = client.Apply(ctx, object.GetName(), object, metav1.ApplyOptions{FieldManager: FieldManager})
	if apierrors.IsConflict(err) {
		return fmt.Errorf("apply %s: somebody else has set it up already, and nothing of theirs is changed: %w", nameOf(object), err)
	}
	if err != nil {
		return fmt.Errorf("apply %s: %w", nameOf(object), err)
	}
	return nil
}

// awaitEstablished returns when the API server serves the kinds that these definitions define.
func (a applier) awaitEstablished(ctx context.Context, definitions []*unstructured.Unstructured) error {
	ctx, cancel := context.WithTimeoutCause(ctx, establishTime, fmt.Errorf("they are not served after %s", establishTime))
	defer cancel()
	pending := map[string]bool{}
	for _, o := range definitions {
		if o.GetKind() == customResourceDefinition {
			pending[o.GetName()] = true
		}
	}
	client := a.client.Resource(crdResource)
	for {
		list, err := client.List(ctx, metav1.ListOptions{})
		if ctx.Err() != nil {
			return fmt.Errorf("await custom resource definitions %s: %w",
				strings.Join(slices.Sorted(maps.Keys(pending)), ", "), context.Cause(ctx))
		}
		if err != nil {
			return fmt.Errorf("list custom resource definitions: %w", err)
		}
		if err := dropEstablished(list.Items, pending); err != nil {
			return err
		}
		if len(pending) == 0 {
			return nil
		}
		awaitChange(ctx, map[string]string{"": list.GetResourceVersion()}, map[string]watcher{"": from(client.Watch, metav1.ListOptions{})})
	}
}

// dropEstablished takes those out of pending that are served. Names that another definition has taken will never be.
func dropEstablished(definitions []unstructured.Unstructured, pending map[string]bool) error {
	for i := range definitions {
		d := &definitions[i]
		if !pending[d.GetName()] {
			continue
		}
		if status, message := condition(d, "NamesAccepted"); status == "False" {
			return fmt.Errorf("%s: its names are taken: %w", nameOf(d), errors.New(message))
		}
		if status, _ := condition(d, "Established"); status == "True" {
			delete(pending, d.GetName())
		}
	}
	return nil
}

// condition reads one of the conditions of an object's status.
func condition(object *unstructured.Unstructured, kind string) (status, message string) {
	conditions, _, err := unstructured.NestedSlice(object.Object, "status", "conditions")
	if err != nil {
		return "", ""
	}
	for _, c := range conditions {
		if c, ok := c.(map[string]any); ok && c["type"] == kind {
			status, _ = c["status"].(string)
			message, _ = c["message"].(string)
			return status, message
		}
	}
	return "", ""
}
