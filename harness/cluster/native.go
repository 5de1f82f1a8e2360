package cluster

import (
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/netproof/netproof/harness/model"
)

// Native is embedded by clusters on this machine whose pods are netproof's own, and have no image: there is nothing to
// prepare.
type Native struct{}

// PreparePod implements [Cluster].
func (Native) PreparePod(*corev1.Pod) {}

// NamespaceLabels implements [Cluster].
func (Native) NamespaceLabels([]model.Pod) model.Labels { return nil }

// Admit implements [Cluster].
func (Native) Admit(...netip.Addr) {}

// ProbeTimeout implements [Cluster]. A round trip takes less than a millisecond.
func (Native) ProbeTimeout() time.Duration { return 150 * time.Millisecond }
