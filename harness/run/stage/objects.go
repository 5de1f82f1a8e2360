package stage

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// fieldManager owns what this package applies.
const fieldManager = "netproof"

func jsonPatch(v any) ([]byte, error) { return json.Marshal(v) }

// applyObject applies a namespaced object through a typed REST client.
func applyObject(ctx context.Context, client rest.Interface, resource string, obj metav1.Object) error {
	body, err := json.Marshal(obj)
	if err != nil {
		return err
	}
	return client.Patch(types.ApplyPatchType).Namespace(obj.GetNamespace()).Resource(resource).Name(obj.GetName()).
		Param("fieldManager", fieldManager).Param("force", "true").Body(body).Do(ctx).Error()
}

// inNamespace calls create, which makes something in a namespace. Admission knows namespaces from a cache of its own:
// where one was deleted and made again, an API server refuses for a moment what is to be put into the new one, because
// it sees the old one end. Such a call is made once more for as long as the namespace itself says that it is not
// ending.
func inNamespace(ctx context.Context, client kubernetes.Interface, name string, create func() error) error {
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		err := create()
		if !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return err
		}
		ns, readErr := client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
		if readErr != nil || ns.DeletionTimestamp != nil {
			return err
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return err
		}
	}
}

// sideBySide runs the calls, at most limit at a time, and joins their errors.
func sideBySide(limit int, calls ...func() error) error {
	errs := make([]error, len(calls))
	slots := make(chan struct{}, max(limit, 1))
	var wg sync.WaitGroup
	for i, call := range calls {
		wg.Add(1)
		slots <- struct{}{}
		go func() {
			defer wg.Done()
			defer func() { <-slots }()
			errs[i] = call()
		}()
	}
	wg.Wait()
	return errors.Join(errs...)
}
