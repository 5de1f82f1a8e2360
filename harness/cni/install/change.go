package install

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// poll bounds how long a change can stay unseen: a watch may break, and its server may not say so.
const poll = 2 * time.Second

// watcher opens a watch from the resource version of a list, so that nothing is missed between the two.
type watcher func(ctx context.Context, resourceVersion string) (watch.Interface, error)

// from makes the watcher of a client's Watch method.
func from(start func(context.Context, metav1.ListOptions) (watch.Interface, error), options metav1.ListOptions) watcher {
	return func(ctx context.Context, resourceVersion string) (watch.Interface, error) {
		options.ResourceVersion = resourceVersion
		return start(ctx, options)
	}
}

// awaitChange returns when anything has happened since the lists of these resource versions that one of the watches
// sees, or after [poll]. It does not say what; callers look again. Where a watch cannot be opened, breaks, or has no
// list to go on from, the poll decides.
func awaitChange(ctx context.Context, versions map[string]string, watchers map[string]watcher) {
	ctx, cancel := context.WithTimeout(ctx, poll)
	defer cancel()
	for name, version := range versions {
		w, err := watchers[name](ctx, version)
		if err != nil {
			continue
		}
		defer w.Stop()
		go func() {
			select {
			case event, ok := <-w.ResultChan():
				if ok && event.Type != watch.Error {
					cancel()
				}
			case <-ctx.Done():
			}
		}()
	}
	<-ctx.Done()
}
