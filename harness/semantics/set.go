package semantics

import (
	"iter"
	"math/bits"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	"github.com/netproof/netproof/harness/model"
)

// podSet tells for each pod of the topology, by index, whether it is a member: a bit for each pod, since a large
// cluster has many pods and many selectors.
type podSet []uint64

func newPodSet(pods int) podSet { return make(podSet, (pods+63)/64) }

func (s podSet) has(pod int) bool { return s[pod/64]&(1<<(pod%64)) != 0 }

func (s podSet) add(pod int) { s[pod/64] |= 1 << (pod % 64) }

// all gives the members in order.
func (s podSet) all() iter.Seq[int] {
	return func(yield func(int) bool) {
		for i, word := range s {
			for ; word != 0; word &= word - 1 {
				if !yield(i*64 + bits.TrailingZeros64(word)) {
					return
				}
			}
		}
	}
}

// podIndex finds pods by namespace and by label, so that a selector need not look at every pod.
type podIndex struct {
	byNamespace map[string][]int
	byLabel     map[label][]int
}

type label struct{ key, value string }

func indexPods(pods []model.Pod) *podIndex {
	x := &podIndex{byNamespace: map[string][]int{}, byLabel: map[label][]int{}}
	for i := range pods {
		x.byNamespace[pods[i].Namespace] = append(x.byNamespace[pods[i].Namespace], i)
		for key, value := range pods[i].Labels {
			x.byLabel[label{key, value}] = append(x.byLabel[label{key, value}], i)
		}
	}
	return x
}

// add puts the pods of the namespaces that a selector matches into a set; all of them if the selector is nil.
func (x *podIndex) add(set podSet, pods []model.Pod, namespaces []string, selector labels.Selector) {
	inNamespaces := 0
	wanted := make(map[string]bool, len(namespaces))
	for _, name := range namespaces {
		inNamespaces += len(x.byNamespace[name])
		wanted[name] = true
	}
	if candidates, ok := x.candidates(selector); ok && len(candidates) < inNamespaces {
		for _, i := range candidates {
			if wanted[pods[i].Namespace] && selector.Matches(labels.Set(pods[i].Labels)) {
				set.add(i)
			}
		}
		return
	}
	for _, name := range namespaces {
		for _, i := range x.byNamespace[name] {
			if selector == nil || selector.Matches(labels.Set(pods[i].Labels)) {
				set.add(i)
			}
		}
	}
}

// candidates gives pods among which all are that a selector matches: those of the label that the fewest pods have. It
// returns false if the selector asks for no certain label.
func (x *podIndex) candidates(selector labels.Selector) (out []int, ok bool) {
	if selector == nil {
		return nil, false
	}
	requirements, selectable := selector.Requirements()
	if !selectable {
		return nil, true
	}
	for _, r := range requirements {
		if op := r.Operator(); op != selection.Equals && op != selection.DoubleEquals && op != selection.In {
			continue
		}
		var list []int
		for value := range r.Values() {
			list = append(list, x.byLabel[label{r.Key(), value}]...)
		}
		if !ok || len(list) < len(out) {
			out, ok = list, true
		}
	}
	return out, ok
}
