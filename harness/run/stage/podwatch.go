package stage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/netproof/netproof/harness/model"
)

// podWatch keeps what the API server says of this run's pods, and wakes those who wait for a change.
type podWatch struct {
	mu      sync.Mutex
	pods    map[model.Endpoint]*corev1.Pod
	changed chan struct{}
	stop    func()
}

// watchPods starts watching the pods with this label selector, in all of the scopes.
func watchPods(ctx context.Context, client kubernetes.Interface, scopes []string, selector string, n names) (*podWatch, error) {
	w := &podWatch{pods: map[model.Endpoint]*corev1.Pod{}, changed: make(chan struct{})}
	update := func(obj any, gone bool) {
		if d, ok := obj.(cache.DeletedFinalStateUnknown); ok {
			obj = d.Obj
		}
		pod, ok := obj.(*corev1.Pod)
		if !ok {
			return
		}
		key := n.endpoint(pod.Namespace, pod.Name)
		w.mu.Lock()
		defer w.mu.Unlock()
		if gone {
			if old := w.pods[key]; old != nil && old.UID == pod.UID {
				delete(w.pods, key)
			}
		} else {
			w.pods[key] = pod
		}
		close(w.changed)
		w.changed = make(chan struct{})
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var factories []informers.SharedInformerFactory
	w.stop = func() {
		cancel()
		for _, factory := range factories {
			factory.Shutdown()
		}
	}
	for _, namespace := range scopes {
		factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(namespace),
			informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = selector }))
		if _, err := factory.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { update(o, false) },
			UpdateFunc: func(_, o any) { update(o, false) },
			DeleteFunc: func(o any) { update(o, true) },
		}); err != nil {
			w.stop()
			return nil, fmt.Errorf("watch pods: %w", err)
		}
		factories = append(factories, factory)
		factory.Start(ctx.Done())
	}
	return w, nil
}

// known are the endpoints of all pods that there are, in order.
func (w *podWatch) known() []model.Endpoint {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Sorted(maps.Keys(w.pods))
}

// get returns a pod as it was last seen, nil if there is none.
func (w *podWatch) get(e model.Endpoint) *corev1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pods[e]
}

// until waits for a condition on the pods; describe says what is missing when ctx ends first.
func (w *podWatch) until(ctx context.Context, cond func(map[model.Endpoint]*corev1.Pod) (missing []string, err error)) error {
	for {
		w.mu.Lock()
		missing, err := cond(w.pods)
		changed := w.changed
		w.mu.Unlock()
		if err != nil {
			return err
		}
		if len(missing) == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("still waiting for %s: %w", strings.Join(missing, ", "), context.Cause(ctx))
		}
	}
}

// errPodFailed is matched by errors of pods that will never be ready.
var errPodFailed = errors.New("pod failed")

// ready waits until every pod of the set runs and is ready, and returns them.
func (w *podWatch) ready(ctx context.Context, pods []model.Endpoint, families []model.IPFamily) (map[model.Endpoint]*corev1.Pod, error) {
	out := map[model.Endpoint]*corev1.Pod{}
	err := w.until(ctx, func(have map[model.Endpoint]*corev1.Pod) (missing []string, err error) {
		for _, e := range pods {
			p := have[e]
			switch {
			case p == nil:
				missing = append(missing, string(e)+" (not seen yet)")
			case p.DeletionTimestamp != nil:
				missing = append(missing, string(e)+" (one that is being deleted has its name)")
			case p.Status.Phase == corev1.PodFailed:
				return nil, fmt.Errorf("pod %s: %w: %s %s", e, errPodFailed, p.Status.Reason, p.Status.Message)
			case !isReady(p) || !hasFamilies(p, families):
				missing = append(missing, string(e)+podTrouble(p))
			default:
				out[e] = p
			}
		}
		return missing, nil
	})
	return out, err
}

// gone waits until none of the pods exists.
func (w *podWatch) gone(ctx context.Context, pods []model.Endpoint) error {
	return w.until(ctx, func(have map[model.Endpoint]*corev1.Pod) (missing []string, err error) {
		for _, e := range pods {
			if have[e] != nil {
				missing = append(missing, "the end of "+string(e))
			}
		}
		return missing, nil
	})
}

func isReady(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

func hasFamilies(p *corev1.Pod, families []model.IPFamily) bool {
	addrs := podAddresses(p)
	for _, f := range families {
		if _, ok := model.AddressOf(addrs, f); !ok {
			return false
		}
	}
	return true
}

// podTrouble quotes what the pod's conditions say of why it is not ready, or how far it came.
func podTrouble(p *corev1.Pod) string {
	for _, c := range p.Status.Conditions {
		if c.Status == corev1.ConditionFalse && c.Message != "" {
			return " (" + c.Message + ")"
		}
	}
	return fmt.Sprintf(" (%s)", cmp.Or(string(p.Status.Phase), "without a status"))
}

func podAddresses(p *corev1.Pod) []netip.Addr {
	var out []netip.Addr
	for _, ip := range p.Status.PodIPs {
		if a, err := netip.ParseAddr(ip.IP); err == nil {
			out = append(out, a)
		}
	}
	return out
}
