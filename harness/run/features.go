package run

import (
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cni"
)

// capabilitiesOf is what the cluster's network plugin says it can do; ok is false where nothing is known about it.
func capabilitiesOf(c cluster.Cluster) (cni.Capabilities, bool) {
	if capable, can := c.(cluster.Capable); can {
		return capable.Capabilities()
	}
	info := c.Info()
	return cni.CapabilitiesOf(info.CNI.Name, info.CNI.Version)
}

// lacks tells whether the network plugin says that it does not have a feature.
func (s *session) lacks(f cni.Feature) bool { return len(s.capabilities.Missing(f)) > 0 }

// lacksKind tells whether the network plugin says that it does not enforce objects of this kind.
func (s *session) lacksKind(object *unstructured.Unstructured) bool {
	return s.limited && s.lacks(cni.KindFeature(object.GroupVersionKind().GroupKind()))
}
