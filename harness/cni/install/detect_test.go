package install_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/netproof/netproof/harness/cni"
	"github.com/netproof/netproof/harness/cni/install"
)

// runs is a DaemonSet with these containers, each as name and image.
func runs(name string, containers ...[2]string) *appsv1.DaemonSet {
	return makeSet(1, func(s *appsv1.DaemonSet) {
		s.Name = name
		for _, c := range containers {
			s.Spec.Template.Spec.Containers = append(s.Spec.Template.Spec.Containers, corev1.Container{Name: c[0], Image: c[1]})
		}
	})
}

func withArgs(set *appsv1.DaemonSet, args ...string) *appsv1.DaemonSet {
	set.Spec.Template.Spec.Containers[0].Args = args
	return set
}

func detect(t *testing.T, objects ...runtime.Object) []install.Found {
	t.Helper()
	found, err := install.Detect(t.Context(), fake.NewClientset(objects...))
	require.NoError(t, err)
	return found
}

func TestPluginsAreRecognised(t *testing.T) {
	aws := [][2]string{{"aws-node", "602401143452.dkr.ecr.us-west-2.amazonaws.com/amazon-k8s-cni:v1.19.0"}, {"aws-eks-nodeagent", "x/aws-network-policy-agent:v1.1.5"}}
	for name, c := range map[string]struct {
		set      *appsv1.DaemonSet
		plugin   string
		version  string
		enforces bool
	}{
		"calico":                         {runs("calico-node", [2]string{"calico-node", "docker.io/calico/node:v3.30.1"}), "calico", "v3.30.1", true},
		"calico by digest":               {runs("calico-node", [2]string{"calico-node", "calico/node:v3.30.1@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}), "calico", "v3.30.1", true},
		"a digest alone":                 {runs("calico-node", [2]string{"calico-node", "calico/node@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}), "calico", "", true},
		"canal":                          {runs("canal", [2]string{"calico-node", "calico/node:v3.30.1"}, [2]string{"kube-flannel", "flannel:v1"}), "canal", "v3.30.1", true},
		"cilium":                         {runs("cilium", [2]string{"cilium-agent", "mirror.local:5000/cilium/cilium:v1.15.19"}), "cilium", "v1.15.19", true},
		"old kindnet":                    {runs("kindnet", [2]string{"kindnet-cni", "docker.io/kindest/kindnetd:v20240202-8f1494ea"}), "kindnet", "v20240202-8f1494ea", false},
		"new kindnet":                    {runs("kindnet", [2]string{"kindnet-cni", "docker.io/kindest/kindnetd:v20240813-c6f155d6"}), "kindnet", "v20240813-c6f155d6", true},
		"kindnet of an unknown age":      {runs("kindnet", [2]string{"kindnet-cni", "docker.io/kindest/kindnetd:main"}), "kindnet", "main", true},
		"kindnet in another container":   {runs("net", [2]string{"net", "docker.io/kindest/kindnetd:v20240813-c6f155d6"}), "kindnet", "v20240813-c6f155d6", true},
		"kube-router":                    {runs("kube-router", [2]string{"kube-router", "cloudnativelabs/kube-router:v2.4.0"}), "kube-router", "v2.4.0", true},
		"kube-router without a firewall": {withArgs(runs("kube-router", [2]string{"kube-router", "cloudnativelabs/kube-router:v2.4.0"}), "--run-firewall=false"), "kube-router", "v2.4.0", false},
		"antrea":                         {runs("antrea-agent", [2]string{"antrea-agent", "antrea/antrea-agent-ubuntu:v2.3.0"}), "antrea", "v2.3.0", true},
		"weave":                          {runs("weave-net", [2]string{"weave", "weaveworks/weave-kube:2.8.1"}, [2]string{"weave-npc", "weaveworks/weave-npc:2.8.1"}), "weave", "2.8.1", true},
		"weave without a controller":     {runs("weave-net", [2]string{"weave", "weaveworks/weave-kube:2.8.1"}), "weave", "2.8.1", false},
		"flannel":                        {runs("kube-flannel-ds", [2]string{"kube-flannel", "ghcr.io/flannel-io/flannel:v0.26.0"}), "flannel", "v0.26.0", false},
		"ovn-kubernetes":                 {runs("ovnkube-node", [2]string{"ovnkube-controller", "ghcr.io/ovn-kubernetes/ovn-kubernetes/ovn-kube-ubuntu:master"}), "ovn-kubernetes", "master", true},
		"aws":                            {runs("aws-node", aws...), "aws-vpc-cni", "v1.19.0", false},
		"aws with its agent":             {withArgs(runs("aws-node", aws...), "--enable-network-policy=true"), "aws-vpc-cni", "v1.19.0", true},
	} {
		t.Run(name, func(t *testing.T) {
			found := detect(t, c.set)
			require.Len(t, found, 1)
			assert.Equal(t, c.plugin, found[0].Name)
			assert.Equal(t, c.version, found[0].Version)
			assert.Equal(t, c.enforces, found[0].Enforces)
			assert.Equal(t, "kube-system/"+c.set.Name, found[0].DaemonSet)
			assert.Equal(t, "app=agent", found[0].Plugin().Agent.Selector)
		})
	}
}

func TestOtherDaemonSetsAreNoPlugins(t *testing.T) {
	windows := runs("calico-node-windows", [2]string{"calico-node", "calico/node-windows:v3.30.1"})
	windows.Spec.Template.Spec.NodeSelector = map[string]string{corev1.LabelOSStable: "windows"}
	assert.Empty(t, detect(t, windows,
		runs("kube-proxy", [2]string{"kube-proxy", "registry.k8s.io/kube-proxy:v1.36.3"}),
		runs("node", [2]string{"exporter", "somebody/node:v1"})))
}

func TestTwoEnforcersAreRefusedWithBothNamesAndTheFix(t *testing.T) {
	calico := runs("calico-node", [2]string{"calico-node", "docker.io/calico/node:v3.30.1"})
	kindnet := runs("kindnet", [2]string{"kindnet-cni", "docker.io/kindest/kindnetd:v20260820-69b56db7"})
	oldKindnet := runs("kindnet", [2]string{"kindnet-cni", "docker.io/kindest/kindnetd:v20240202-8f1494ea"})
	cilium := runs("cilium", [2]string{"cilium-agent", "quay.io/cilium/cilium:v1.15.19"})
	flannel := runs("kube-flannel-ds", [2]string{"kube-flannel", "flannel:v0.26.0"})

	require.NoError(t, install.CheckOneEnforcer(nil))
	require.NoError(t, install.CheckOneEnforcer(detect(t, calico, oldKindnet, flannel)))
	err := install.CheckOneEnforcer(detect(t, calico, kindnet))
	require.EqualError(t, err, "more than one network plugin enforces policies here: calico v3.30.1 (DaemonSet kube-system/calico-node) and "+
		"kindnet v20260820-69b56db7 (DaemonSet kube-system/kindnet); make the kind cluster with networking.disableDefaultCNI: true, "+
		"since its default CNI enforces policies from kind v0.24.0 on")
	require.ErrorContains(t, install.CheckOneEnforcer(detect(t, calico, cilium)), "uninstall all but one")
	var two *install.TwoEnforcersError
	require.ErrorAs(t, err, &two)
	assert.Len(t, two.Enforcers, 2)
}

func TestCiliumsConfigurationIsRead(t *testing.T) {
	cilium := runs("cilium", [2]string{"cilium-agent", "quay.io/cilium/cilium:v1.15.19"})
	config := func(data map[string]string) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "cilium-config"}, Data: data}
	}
	missing := func(objects ...runtime.Object) []cni.Feature {
		found := detect(t, objects...)
		require.Len(t, found, 1)
		capabilities, ok := found[0].Capabilities()
		require.True(t, ok)
		return capabilities.Missing(cni.SCTP)
	}
	assert.Equal(t, []cni.Feature{cni.SCTP}, missing(cilium, config(map[string]string{"enable-sctp": "false"})))
	assert.Equal(t, []cni.Feature{cni.SCTP}, missing(cilium, config(nil)))
	assert.Empty(t, missing(cilium, config(map[string]string{"enable-sctp": "true"})))
	assert.Empty(t, missing(cilium), "without its configuration the table decides")
	assert.False(t, detect(t, cilium, config(map[string]string{"enable-policy": "never"}))[0].Enforces)
}
