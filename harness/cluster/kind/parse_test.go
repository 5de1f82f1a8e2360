package kind

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/netproof/netproof/harness/model"
)

func TestPhasesAreReadFromKindsLog(t *testing.T) {
	for line, want := range map[string]struct {
		phase string
		ended bool
	}{
		" • Preparing nodes 📦 📦 📦   ...\n":  {phaseNodes, false},
		" ✓ Preparing nodes 📦 📦 📦 \n":       {phaseNodes, true},
		" ✓ Starting control-plane 🕹️\n":    {phaseControlPlane, true},
		" • Joining worker nodes 🚜  ...\n":  {"Joining worker nodes", false},
		" ✗ Starting control-plane 🕹️\n":    {"", false},
		"Creating cluster \"c\" ...\n":      {"", false},
		"WARNING: Here be dragons!":         {"", false},
		" • Writing configuration 📜  ...\n": {"Writing configuration", false},
	} {
		phase, ended := phaseOf(line)
		assert.Equal(t, want.phase, phase, line)
		assert.Equal(t, want.ended, ended, line)
	}
}

func TestNodesAreInTheOrderOfTheirNumbers(t *testing.T) {
	names := []string{"c-worker10", "c-worker2", "c-worker", "c-control-plane", "c-worker3"}
	slices.SortFunc(names, compareNodes)
	assert.Equal(t, []string{"c-control-plane", "c-worker", "c-worker2", "c-worker3", "c-worker10"}, names)
}

func TestImagesOfANodeAreFoundUnderAllTheirNames(t *testing.T) {
	have, err := parseImages([]byte(`{"images":[
		{"id":"sha256:1","repoTags":["docker.io/calico/node:v3.30.1"],"repoDigests":[],"size":"1","username":""},
		{"id":"sha256:2","repoTags":["quay.io/cilium/cilium:v1.18.0"],"repoDigests":["quay.io/cilium/cilium@sha256:aa24d1b4d5d0e9c5f0f5c2c6a7d3b7a3b1b0b0d4b3a2c1d0e9f8a7b6c5d4e3f2"]}]}`))
	require.NoError(t, err)
	for ref, want := range map[string]bool{
		"calico/node:v3.30.1": true, "docker.io/calico/node:v3.30.1": true, "calico/node:v3.30.2": false, "quay.io/cilium/cilium:v1.18.0": true,
		"quay.io/cilium/cilium@sha256:aa24d1b4d5d0e9c5f0f5c2c6a7d3b7a3b1b0b0d4b3a2c1d0e9f8a7b6c5d4e3f2": true,
	} {
		assert.Equal(t, want, have[canonical(ref)], ref)
	}
}

func TestTheStateOfAClusterIsToldByItsContainers(t *testing.T) {
	node := func(running bool) container {
		var c container
		c.State.Running = running
		return c
	}
	for name, tc := range map[string]struct {
		nodes []container
		marks string
		want  State
	}{
		"all run, was ready":       {[]container{node(true), node(true)}, "v1.36.3\nready\n", Ready},
		"all run, never ready":     {[]container{node(true), node(true)}, "v1.36.3", Incomplete},
		"one was stopped":          {[]container{node(true), node(false)}, "v1.36.3\nready", Degraded},
		"one is missing":           {[]container{node(true)}, "v1.36.3\nready", Degraded},
		"half made":                {[]container{node(true)}, "v1.36.3", Incomplete},
		"all were stopped":         {[]container{node(false), node(false)}, "", Stopped},
		"the control plane is off": {[]container{node(false), node(true)}, "", Degraded},
	} {
		t.Run(name, func(t *testing.T) {
			got, _ := stateOf(tc.nodes, 2, tc.marks)
			assert.Equal(t, tc.want, got)
		})
	}
}

func TestOnlyContainersOnTheClustersNetworkAreItsOwn(t *testing.T) {
	var started, created, other container
	started.NetworkSettings.Networks = map[string]struct{ IPAddress, GlobalIPv6Address string }{"netproof-c": {}}
	created.HostConfig.NetworkMode = "netproof-c"
	other.NetworkSettings.Networks = map[string]struct{ IPAddress, GlobalIPv6Address string }{"kind": {}}
	other.HostConfig.NetworkMode = "kind"
	assert.True(t, started.on("netproof-c"))
	assert.True(t, created.on("netproof-c"), "one that was never started is on it as well")
	assert.False(t, other.on("netproof-c"))
}

func makeNode(name string, ready corev1.ConditionStatus) corev1.Node {
	return corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{
			{Type: corev1.NodeMemoryPressure, Status: corev1.ConditionFalse},
			{Type: corev1.NodeReady, Status: ready, Message: "container runtime network not ready:\n cni plugin not initialized"},
		}},
	}
}

func makeSystemPod(node string, labels map[string]string, ready corev1.ConditionStatus) corev1.Pod {
	return corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{NodeName: node},
		Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}},
	}
}

func TestAClusterIsReadyWhenNodesControlPlaneAndProxiesAre(t *testing.T) {
	var pods []corev1.Pod
	for _, c := range controlPlanePods {
		pods = append(pods, makeSystemPod("cp", map[string]string{"component": c}, corev1.ConditionTrue))
	}
	for _, n := range []string{"cp", "w"} {
		pods = append(pods, makeSystemPod(n, map[string]string{"k8s-app": "kube-proxy"}, corev1.ConditionTrue))
	}
	pods = append(pods, makeSystemPod("w", map[string]string{"k8s-app": "kube-dns"}, corev1.ConditionFalse))
	nodes := []corev1.Node{makeNode("cp", corev1.ConditionTrue), makeNode("w", corev1.ConditionTrue)}
	assert.Empty(t, notReady(2, nodes, pods), "no probe asks CoreDNS")

	assert.Equal(t, []string{"2 of 3 nodes have joined"}, notReady(3, nodes, pods))
	nodes[1] = makeNode("w", corev1.ConditionFalse)
	assert.Equal(t, []string{"node w is not ready: container runtime network not ready: cni plugin not initialized"}, notReady(2, nodes, pods))
	nodes[1].Status.Conditions = nil
	assert.Equal(t, []string{"node w says nothing of itself"}, notReady(2, nodes, pods))
	nodes[1] = makeNode("w", corev1.ConditionTrue)
	pods[0].Status.Conditions[0].Status = corev1.ConditionFalse
	pods[5].Status.Conditions = nil
	assert.Equal(t, []string{"kube-proxy of node w is not ready", "etcd is not ready"}, notReady(2, nodes, pods))
}

func TestTheNetworkNamespaceOfAPodIsNamedByTheRuntime(t *testing.T) {
	path, err := parseSandbox([]byte(`{"status":{"id":"1"},"info":{"pid":812,"runtimeSpec":{"linux":{"namespaces":[
		{"type":"pid"},{"type":"ipc"},{"type":"uts"},{"type":"mount"},{"type":"network","path":"/var/run/netns/cni-5c4e"}]}}}}`))
	require.NoError(t, err)
	assert.Equal(t, "/var/run/netns/cni-5c4e", path)
	_, err = parseSandbox([]byte(`{"info":{"runtimeSpec":{"linux":{"namespaces":[{"type":"network"}]}}}}`))
	require.ErrorContains(t, err, "does not tell")
}

func TestHostsAreToldTheWayToPods(t *testing.T) {
	workers := []model.Node{
		{Name: "w", Addresses: []netip.Addr{netip.MustParseAddr("172.18.0.3"), netip.MustParseAddr("fd01::3")}},
		{Index: 1, Name: "w2", Addresses: []netip.Addr{netip.MustParseAddr("172.18.0.4")}},
	}
	networks := map[string][]string{
		"w": {"10.244.1.0/24", "fd00:10:244:1::/64", "10.244.231.192/26"}, "w2": {"10.244.2.0/24", "fd00:10:244:2::/64", "odd"}, "cp": {"10.244.0.0/24"},
	}
	assert.Equal(t, "ip route replace 10.244.1.0/24 via 172.18.0.3; ip route replace fd00:10:244:1::/64 via fd01::3; "+
		"ip route replace 10.244.231.192/26 via 172.18.0.3; ip route replace 10.244.2.0/24 via 172.18.0.4; ", routeCommands(networks, workers))
}

func TestAddressesAreThoseOfTheClustersFamilies(t *testing.T) {
	var c container
	c.Name = "h"
	c.NetworkSettings.Networks = map[string]struct{ IPAddress, GlobalIPv6Address string }{"n": {"172.18.0.9", "fd01::9"}, "bridge": {"172.17.0.2", ""}}
	got, err := addressesOf(c, "n", []model.IPFamily{model.IPv6, model.IPv4})
	require.NoError(t, err)
	assert.Equal(t, []netip.Addr{netip.MustParseAddr("fd01::9"), netip.MustParseAddr("172.18.0.9")}, got)
	_, err = addressesOf(c, "bridge", []model.IPFamily{model.IPv6})
	require.ErrorContains(t, err, "no IPv6 address")
}

func TestTablesOfALogShowWhatIsWrong(t *testing.T) {
	pod := makeSystemPod("w", nil, corev1.ConditionFalse)
	pod.Namespace, pod.Name = "kube-system", "calico-node-x"
	pod.Spec.Containers = make([]corev1.Container, 1)
	pod.Status.Phase = corev1.PodPending
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: "calico-node", RestartCount: 3, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull", Message: "not\nfound"}},
	}}
	assert.Contains(t, tableOfPods([]corev1.Pod{pod}), "kube-system  calico-node-x  0/1    Pending  3         w         calico-node: ErrImagePull not found")
	event := corev1.Event{Type: "Warning", Reason: "Failed", Message: "a\n b", InvolvedObject: corev1.ObjectReference{Kind: "Pod", Name: "p"}}
	assert.Contains(t, tableOfEvents([]corev1.Event{event}), "Failed  Pod/p   a b")
}
