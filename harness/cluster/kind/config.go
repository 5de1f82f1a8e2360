package kind

import (
	"encoding/json"
	"fmt"
	"slices"

	"sigs.k8s.io/kind/pkg/apis/config/v1alpha4"

	"github.com/netproof/netproof/harness/model"
)

// kind's default networks, which have to be said when IPv6 comes first.
const (
	podSubnetsIPv6First     = "fd00:10:244::/56,10.244.0.0/16"
	serviceSubnetsIPv6First = "fd00:10:96::/112,10.96.0.0/16"
)

// ipFamily translates the families of a cluster.
func ipFamily(families []model.IPFamily) (v1alpha4.ClusterIPFamily, error) {
	switch {
	case slices.Equal(families, []model.IPFamily{model.IPv4}):
		return v1alpha4.IPv4Family, nil
	case slices.Equal(families, []model.IPFamily{model.IPv6}):
		return v1alpha4.IPv6Family, nil
	case len(families) == 2 && slices.Contains(families, model.IPv4) && slices.Contains(families, model.IPv6):
		return v1alpha4.DualStackFamily, nil
	}
	return "", fmt.Errorf("IP families %v: there are IPv4, IPv6, and both", families)
}

// kubeletOnCgroupV1 keeps the kubelet of Kubernetes 1.35 and later from refusing control groups of version 1. Older
// ones ignore it with a warning.
const kubeletOnCgroupV1 = `kind: KubeletConfiguration
apiVersion: kubelet.config.k8s.io/v1beta1
failCgroupV1: false
`

// etcdWithoutSync spares etcd the wait for the disk: a cluster that lives as long as a run has nothing to lose in a
// power cut. The arguments are a map in one version of kubeadm's configuration and a list in the next; kind applies the
// patch that fits.
var etcdWithoutSync = []string{`kind: ClusterConfiguration
apiVersion: kubeadm.k8s.io/v1beta3
etcd:
  local:
    extraArgs: {unsafe-no-fsync: "true"}
`, `kind: ClusterConfiguration
apiVersion: kubeadm.k8s.io/v1beta4
etcd:
  local:
    extraArgs: [{name: unsafe-no-fsync, value: "true"}]
`}

// kindConfig is kind's configuration of a cluster, as JSON, which is YAML too. cgroup is the version of the engine's
// control groups.
func kindConfig(s spec, cgroup int) ([]byte, error) {
	family, err := ipFamily(s.families)
	if err != nil {
		return nil, err
	}
	c := v1alpha4.Cluster{
		TypeMeta: v1alpha4.TypeMeta{Kind: "Cluster", APIVersion: "kind.x-k8s.io/v1alpha4"},
		Name:     s.name,
		Nodes:    []v1alpha4.Node{{Role: v1alpha4.ControlPlaneRole, Image: s.image}},
		Networking: v1alpha4.Networking{
			IPFamily:          family,
			DisableDefaultCNI: s.cni != cniKindnet,
		},
		KubeadmConfigPatches: slices.Clone(etcdWithoutSync),
	}
	for range s.workers {
		c.Nodes = append(c.Nodes, v1alpha4.Node{Role: v1alpha4.WorkerRole, Image: s.image})
	}
	if family == v1alpha4.DualStackFamily && s.families[0] == model.IPv6 {
		c.Networking.PodSubnet, c.Networking.ServiceSubnet = podSubnetsIPv6First, serviceSubnetsIPv6First
	}
	if cgroup == 1 {
		c.KubeadmConfigPatches = append(c.KubeadmConfigPatches, kubeletOnCgroupV1)
	}
	out, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("write kind configuration: %w", err)
	}
	return out, nil
}
