package stage

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sort"
	"strings"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/policy"
)

// inForce is an applied object as the API server took it.
type inForce struct {
	uid        types.UID
	generation int64
}

// ErrUnknownKind is matched by the error for an object of a kind that the API server does not serve.
var ErrUnknownKind = errors.New("this cluster does not know the kind")

// resource finds how the API server serves a kind.
func (s *Stage) resource(gvk schema.GroupVersionKind, namespace string) (dynamic.ResourceInterface, error) {
	var gvr schema.GroupVersionResource
	namespaced := true
	if gvk.GroupKind() == policy.NetworkPolicy.GroupKind() {
		gvr = gvk.GroupVersion().WithResource("networkpolicies") // saves the discovery of everything else
	} else {
		m, err := s.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
		if meta.IsNoMatchError(err) {
			return nil, fmt.Errorf("%w %s of %s", ErrUnknownKind, gvk.Kind, gvk.GroupVersion())
		}
		if err != nil {
			return nil, fmt.Errorf("look up kind %s: %w", gvk.Kind, err)
		}
		gvr, namespaced = m.Resource, m.Scope.Name() == meta.RESTScopeNameNamespace
	}
	if namespaced {
		return s.dynamic.Resource(gvr).Namespace(s.names.real(namespace)), nil
	}
	return s.dynamic.Resource(gvr), nil
}

// resourceName is what kubectl calls a kind.
func resourceName(kind schema.GroupVersionKind) string {
	return strings.TrimSuffix(strings.ToLower(kind.Kind)+"."+kind.Group, ".")
}

// Apply creates or updates an object.
func (s *Stage) Apply(ctx context.Context, obj *unstructured.Unstructured) error {
	key := policy.RefOf(obj)
	obj, err := s.names.object(obj)
	if err != nil {
		return err
	}
	if err := fit(obj); err != nil {
		return fmt.Errorf("apply %s: %w", key, err)
	}
	obj.SetLabels(s.ownLabels(obj.GetLabels()))
	res, err := s.resource(key.Kind, key.Namespace)
	if err != nil {
		return err
	}
	var got *unstructured.Unstructured
	if err := inNamespace(ctx, s.client, obj.GetNamespace(), func() (err error) {
		got, err = res.Apply(ctx, key.Name, obj, metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
		return err
	}); err != nil {
		return fmt.Errorf("apply %s: %w", key, err)
	}
	s.policies[key] = inForce{uid: got.GetUID(), generation: got.GetGeneration()}
	return nil
}

// fit refuses what would let an object outlive the run, or end with something else.
func fit(obj *unstructured.Unstructured) error {
	if len(obj.GetFinalizers())+len(obj.GetOwnerReferences()) > 0 {
		return &RefusedError{Err: errors.New("it has finalizers or ownerReferences, so a run could not undo it"), Fix: "remove them"}
	}
	return nil
}

// RefusedError says that the API server will not take an object, and what can be done about it.
type RefusedError struct {
	Err error
	Fix string
}

func (e *RefusedError) Error() string { return e.Err.Error() }

func (e *RefusedError) Unwrap() error { return e.Err }

// DryRun asks the API server whether it would take an object. The object's namespace need not exist yet. Its error is a
// [refusedError] if the server would not; any other error means that it could not be asked.
func (s *Stage) DryRun(ctx context.Context, obj *unstructured.Unstructured) error {
	key := policy.RefOf(obj)
	if err := fit(obj); err != nil {
		return err
	}
	obj, err := s.names.object(obj)
	if err != nil {
		return &RefusedError{Err: err, Fix: "change the selector, or run without --namespace-prefix"}
	}
	where := key.Namespace
	if where != "" && len(s.lent) == 0 {
		if !isBuiltIn(where) {
			where = metav1.NamespaceDefault
		}
		obj.SetNamespace(where)
	}
	res, err := s.resource(key.Kind, where)
	if errors.Is(err, ErrUnknownKind) {
		return &RefusedError{Err: err, Fix: "leave it out, or run on a cluster whose network plugin has this kind"}
	}
	if err != nil {
		return err
	}
	_, err = res.Create(ctx, obj, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}, FieldValidation: metav1.FieldValidationStrict})
	var status apierrors.APIStatus
	switch {
	case err == nil:
		return nil
	case apierrors.IsAlreadyExists(err) && obj.GetNamespace() != s.names.real(key.Namespace):
		return nil // in another namespace, after it was validated
	case apierrors.IsAlreadyExists(err):
		return &RefusedError{
			Err: errors.New("the cluster has one of this name already, which a run must not touch"),
			Fix: "give it another name; if a run that crashed left it behind, netproof cleanup removes it",
		}
	case errors.As(err, &status) && refuses(status.Status().Code):
		return &RefusedError{Err: err, Fix: "correct what the message names; kubectl apply --dry-run=server says the same"}
	}
	return err
}

// refuses tells whether a status code of the API server speaks about the object that it was sent, and not about the
// server.
func refuses(code int32) bool {
	switch code {
	case http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusRequestEntityTooLarge,
		http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		return true
	}
	return false
}

// Delete removes an object that the scenario applied.
func (s *Stage) Delete(ctx context.Context, key policy.Ref) error {
	if err := s.unapply(ctx, key); err != nil {
		return err
	}
	delete(s.policies, key)
	return nil
}

// unapply removes an object from the API server only.
func (s *Stage) unapply(ctx context.Context, key policy.Ref) error {
	res, err := s.resource(key.Kind, key.Namespace)
	if err != nil {
		return err
	}
	if err := res.Delete(ctx, key.Name, deletion(s.policies[key].uid)); err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	return nil
}

func (s *Stage) policiesTampered(ctx context.Context) (string, error) {
	listed, err := gather(scopes(s.lent), func(ns string) ([]networkingv1.NetworkPolicy, error) {
		list, err := s.client.NetworkingV1().NetworkPolicies(ns).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		return list.Items, nil
	})
	if err != nil {
		return "", fmt.Errorf("list policies: %w", err)
	}
	have := map[types.UID]int64{}
	for _, p := range listed {
		have[p.UID] = p.Generation
	}
	ours := map[types.UID]bool{}
	for _, key := range s.keys() {
		want := s.policies[key]
		ours[want.uid] = true
		generation, there := have[want.uid]
		if key.Kind.Group != policy.KubernetesGroup {
			res, err := s.resource(key.Kind, key.Namespace)
			if err != nil {
				return "", err
			}
			got, err := res.Get(ctx, key.Name, metav1.GetOptions{})
			if err != nil && !apierrors.IsNotFound(err) {
				return "", fmt.Errorf("read %s: %w", key, err)
			}
			if there = err == nil && got.GetUID() == want.uid; there {
				generation = got.GetGeneration()
			}
		}
		if !there {
			return fmt.Sprintf("%s was removed behind the run's back", key), nil
		}
		if generation != want.generation {
			return fmt.Sprintf("%s was changed behind the run's back", key), nil
		}
	}
	for i := range listed {
		p := &listed[i]
		ns := s.names.scenario(p.Namespace)
		if ns == CanaryNamespace && p.Labels[cluster.RunLabel] == s.lane.RunID {
			continue
		}
		if _, mine := s.declared.Namespace(ns); !mine || s.names.real(ns) != p.Namespace || ours[p.UID] {
			continue
		}
		if s.made[ns] != "" {
			return fmt.Sprintf("%s appeared behind the run's back", refOf(p)), nil
		}
		// Whoever has the namespace may have policies in it.
		if pod := s.selectedBy(networkPolicySubject(p)); pod != "" {
			return fmt.Sprintf("%s, which is not of this run, selects pod %s", refOf(p), pod), nil
		}
	}
	return s.Rivals(ctx)
}

// refOf names a NetworkPolicy, whose kind is not in the typed object.
func refOf(p *networkingv1.NetworkPolicy) policy.Ref {
	return policy.Ref{Kind: policy.NetworkPolicy, Namespace: p.Namespace, Name: p.Name}
}

// keys returns the applied objects in a fixed order.
func (s *Stage) keys() []policy.Ref {
	keys := slices.Collect(maps.Keys(s.policies))
	sort.Slice(keys, func(i, j int) bool { return keys[i].String() < keys[j].String() })
	return keys
}

// DeletePolicies removes every object that the steps applied, and returns when they are gone.
func (s *Stage) DeletePolicies(ctx context.Context) error {
	return errors.Join(s.unapplyAll(ctx), s.awaitEnds(ctx))
}

func (s *Stage) unapplyAll(ctx context.Context) error {
	var errs []error
	for _, key := range s.keys() {
		if err := s.unapply(ctx, key); err != nil && !isGone(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// awaitEnds returns when all deleted objects are gone. Those that stay are not forgotten: they may be in force.
func (s *Stage) awaitEnds(ctx context.Context) error {
	var errs []error
	for _, key := range s.keys() {
		if err := s.awaitEnd(ctx, key); err != nil {
			errs = append(errs, err)
			continue
		}
		delete(s.policies, key)
	}
	return errors.Join(errs...)
}

// awaitEnd returns when a deleted object is gone, which takes no time unless it has finalizers.
func (s *Stage) awaitEnd(ctx context.Context, key policy.Ref) error {
	res, err := s.resource(key.Kind, key.Namespace)
	if err != nil {
		return err
	}
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	var last *unstructured.Unstructured // as it was seen last: the time may end in the middle of a look
	for {
		got, err := res.Get(ctx, key.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) || err == nil && got.GetDeletionTimestamp() == nil {
			return nil // gone, or another one
		}
		if err != nil && (last == nil || ctx.Err() == nil) {
			return fmt.Errorf("read %s: %w", key, err)
		}
		if err == nil {
			last = got
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			why := ""
			if held := cluster.Held(resourceName(key.Kind), s.names.real(key.Namespace), key.Name, last.GetFinalizers()); held != "" {
				why = ", " + held
			}
			return fmt.Errorf("%s is still there%s: %w", key, why, context.Cause(ctx))
		}
	}
}
