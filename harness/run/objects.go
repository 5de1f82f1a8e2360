package run

import (
	"context"
	"encoding/json"
	"errors"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
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
