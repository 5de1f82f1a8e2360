package existing

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/lease"
	"github.com/netproof/netproof/harness/cni/install"
	"github.com/netproof/netproof/harness/model"
)

// The clusters of these tests are fakes: they have what no cluster of this machine can be made to have.

func podOn(node, namespace, name string, tweaks ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       corev1.PodSpec{NodeName: node},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		},
	}
	for _, tweak := range tweaks {
		tweak(p)
	}
	return p
}

func withIPs(ips ...string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		for _, ip := range ips {
			p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: ip})
		}
	}
}

func onHostNetwork(p *corev1.Pod) { p.Spec.HostNetwork = true }

func notReady(p *corev1.Pod) { p.Status.Conditions[0].Status = corev1.ConditionFalse }

func agent(p *corev1.Pod) { p.Labels = map[string]string{"k8s-app": "calico-node"} }

func makeNode(name string, tweaks ...func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Status: corev1.NodeStatus{
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
			Addresses:  []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: name}, {Type: corev1.NodeInternalIP, Address: "192.0.2.1"}},
		},
	}
	for _, tweak := range tweaks {
		tweak(n)
	}
	return n
}

func withPodCIDRs(cidrs ...string) func(*corev1.Node) {
	return func(n *corev1.Node) { n.Spec.PodCIDRs = cidrs }
}

func cordoned(n *corev1.Node) { n.Spec.Unschedulable = true }

func TestTheIPFamiliesAreThoseThatPodsHave(t *testing.T) {
	v4, v6 := model.IPv4, model.IPv6
	for _, tc := range []struct {
		name    string
		objects []runtime.Object
		want    []model.IPFamily
	}{
		{"those of a pod", []runtime.Object{podOn("n", "x", "a", withIPs("10.0.0.1"))}, []model.IPFamily{v4}},
		{"in the order of the pod", []runtime.Object{podOn("n", "x", "a", withIPs("fd00::1", "10.0.0.1"))}, []model.IPFamily{v6, v4}},
		{"of the pod that has most, since older ones have fewer", []runtime.Object{
			podOn("n", "x", "a", withIPs("10.0.0.1")), podOn("n", "x", "b", withIPs("10.0.0.2", "fd00::2")),
		}, []model.IPFamily{v4, v6}},
		{"not those of the host network", []runtime.Object{
			podOn("n", "x", "a", onHostNetwork, withIPs("192.0.2.1", "2001:db8::1")), podOn("n", "x", "b", withIPs("10.0.0.2")),
		}, []model.IPFamily{v4}},
		{"without pods, those of the nodes' pod networks", []runtime.Object{makeNode("n", withPodCIDRs("fd00::/64", "10.0.0.0/24"))}, []model.IPFamily{v6, v4}},
		{"without those, of the nodes", []runtime.Object{makeNode("n")}, []model.IPFamily{v4}},
		{"of nothing, none", nil, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := familiesOf(t.Context(), fake.NewClientset(tc.objects...), true)
			require.NoError(t, err)
			assert.Equal(t, tc.want, got)
		})
	}
}

func TestARunGetsTheFamiliesThatItWantsInTheClustersOrder(t *testing.T) {
	v4, v6 := model.IPv4, model.IPv6
	for _, tc := range []struct{ wanted, have, want []model.IPFamily }{
		{nil, []model.IPFamily{v6, v4}, []model.IPFamily{v6, v4}},
		{[]model.IPFamily{v4}, []model.IPFamily{v6, v4}, []model.IPFamily{v4}},
		{[]model.IPFamily{v4, v6}, []model.IPFamily{v6, v4}, []model.IPFamily{v6, v4}},
	} {
		got, err := choose(tc.wanted, tc.have)
		require.NoError(t, err)
		assert.Equal(t, tc.want, got)
	}
	_, err := choose([]model.IPFamily{v4, v6}, []model.IPFamily{v4})
	require.ErrorContains(t, err, "no IPv6 addresses, only IPv4")
	_, err = choose(nil, nil)
	require.Error(t, err)
}

var calico = install.Found{
	Name: "calico", Version: "v3.30.1", Enforces: true, DaemonSet: "kube-system/calico-node", Image: "quay.io/calico/node:v3.30.1",
	Agent: install.Agent{Selector: "k8s-app=calico-node", Container: "calico-node"},
}

func TestNodesWithoutAReadyAgentAreLeftOut(t *testing.T) {
	client := fake.NewClientset(
		makeNode("a"), makeNode("b"), makeNode("c"), makeNode("d", cordoned), makeNode("e"),
		podOn("a", "kube-system", "calico-a", agent),
		podOn("b", "kube-system", "calico-b", agent, notReady),
		podOn("c", "kube-system", "calico-c-old", agent, notReady), podOn("c", "kube-system", "calico-c", agent),
		podOn("d", "kube-system", "calico-d", agent),
		podOn("a", "x", "calico-elsewhere", agent, notReady),
	)
	names := func(nodes []model.Node) (out []string) {
		for i, n := range nodes {
			assert.Equal(t, i, n.Index)
			out = append(out, n.Name)
		}
		return out
	}
	nodes, leftOut, err := nodesFor(t.Context(), client, &calico, 0)
	require.NoError(t, err)
	assert.Equal(t, []string{"a", "c", "e"}, names(nodes), "whether policies hold on e, which has no agent, is what a run finds out")
	assert.Equal(t, []string{"node b: pod kube-system/calico-b of calico is not ready"}, leftOut)

	nodes, _, err = nodesFor(t.Context(), client, &calico, 2)
	require.NoError(t, err)
	assert.Equal(t, []string{"a", "c"}, names(nodes))
	nodes, _, err = nodesFor(t.Context(), client, nil, 0)
	require.NoError(t, err)
	assert.Equal(t, []string{"a", "b", "c", "e"}, names(nodes))

	_, _, err = nodesFor(t.Context(), client, &calico, 4)
	require.ErrorContains(t, err, "3 nodes take pods, and --nodes asks for 4 (node b: ")
	_, _, err = nodesFor(t.Context(), fake.NewClientset(makeNode("d", cordoned)), nil, 0)
	require.ErrorContains(t, err, "no node takes pods")
}

func TestTheNetworkPluginIsTheOneThatEnforces(t *testing.T) {
	flannel := install.Found{Name: "flannel", DaemonSet: "kube-system/flannel"}
	got, err := pluginOf([]install.Found{flannel, calico}, "")
	require.NoError(t, err)
	assert.Equal(t, model.CNI{Name: "calico", Version: "v3.30.1"}, cniOf(got))
	got, err = pluginOf([]install.Found{flannel}, "")
	require.NoError(t, err)
	assert.Equal(t, "flannel", got.Name)
	got, err = pluginOf(nil, "")
	require.NoError(t, err)
	assert.Equal(t, model.CNI{Name: "unknown"}, cniOf(got))

	_, err = pluginOf([]install.Found{calico}, "cilium")
	require.ErrorContains(t, err, "is calico (DaemonSet kube-system/calico-node), and cilium was asked for")
	_, err = pluginOf(nil, "cilium")
	require.ErrorContains(t, err, "cilium was asked for")
	var two *install.TwoEnforcersError
	_, err = pluginOf([]install.Found{calico, {Name: "kindnet", Enforces: true}}, "")
	require.ErrorAs(t, err, &two)
}

func TestTheHealthOfTheNetworkPluginIsThatOfItsAgentsOnTheNodesOfTheRun(t *testing.T) {
	set := &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "calico-node"},
		Spec: appsv1.DaemonSetSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "calico-node", Image: calico.Image}},
		}}},
		Status: appsv1.DaemonSetStatus{DesiredNumberScheduled: 2, NumberReady: 2},
	}
	a, b := podOn("a", "kube-system", "calico-a", agent), podOn("b", "kube-system", "calico-b", agent, notReady)
	health := func(change func(*appsv1.DaemonSet), nodes ...string) error {
		set := set.DeepCopy()
		change(set)
		r := &running{client: fake.NewClientset(set, a, b), plugin: &calico, nodes: map[string]bool{}, lease: &lease.Lease{}}
		for _, n := range nodes {
			r.nodes[n] = true
		}
		return r.Health(t.Context())
	}
	fewer := func(s *appsv1.DaemonSet) { s.Status.NumberReady = 1 }
	require.NoError(t, health(func(*appsv1.DaemonSet) {}, "a", "b"))
	require.NoError(t, health(fewer, "a"), "the node with the trouble is none of the run's")
	require.ErrorContains(t, health(fewer, "a", "b"), "node b: pod kube-system/calico-b of calico is not ready")
	require.ErrorContains(t, health(func(s *appsv1.DaemonSet) { s.Spec.Template.Spec.Containers[0].Image = "quay.io/calico/node:v3.31.0" }, "a"),
		"was changed during the run")
	require.ErrorContains(t, health(func(s *appsv1.DaemonSet) { s.Name = "another" }, "a"), "was removed during the run")

	client := fake.NewClientset()
	held, err := lease.Acquire(t.Context(), client, lease.Options{RunID: "one", Timing: &quick})
	require.NoError(t, err)
	lost := &running{client: client, lease: held}
	require.NoError(t, lost.Health(t.Context()))
	require.NoError(t, client.CoordinationV1().Leases(lease.Namespace).Delete(t.Context(), held.Name(), metav1.DeleteOptions{}))
	eventually(t, "the loss is noticed", func() bool { return held.Err() != nil })
	require.ErrorIs(t, lost.Health(t.Context()), lease.ErrLost)
	require.ErrorIs(t, lost.Health(t.Context()), lease.ErrLost)
}

func TestALookAtAClusterTellsReportsWhatItIs(t *testing.T) {
	set := &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "calico-node"},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"k8s-app": "calico-node"}},
			Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "calico-node", Image: calico.Image}}}},
		},
	}
	client := fake.NewClientset(set, makeNode("a"), makeNode("b"), podOn("a", "x", "p", withIPs("10.0.0.1", "fd00::1")))
	seen, err := look(t.Context(), client, nil, cluster.Options{IPFamilies: []model.IPFamily{model.IPv4}}, func(string) {})
	require.NoError(t, err)
	seen.info.Kubernetes = ""
	assert.Equal(t, model.Cluster{
		Provider: "existing", CNI: model.CNI{Name: "calico", Version: "v3.30.1"}, Nodes: 2, IPFamilies: []model.IPFamily{model.IPv4},
	}, seen.info)
}

// quick is a timing for tests in real time.
var quick = lease.Timing{
	Duration: 6 * time.Second, RenewEvery: 250 * time.Millisecond, RenewWithin: 5 * time.Second, EndedDuration: time.Second,
	Look: 50 * time.Millisecond, Call: 2 * time.Second,
}
