//go:build linux

package local_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/dynamic"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/local"
	"github.com/netproof/netproof/harness/cluster/local/nodeagent"
	"github.com/netproof/netproof/harness/cni/calico"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/semantics"
	"github.com/netproof/netproof/probes"
	"github.com/netproof/netproof/probes/nsagent"
)

// TestCalico is about one cluster with Calico, two nodes and both IP families, which its parts share.
func TestCalico(t *testing.T) {
	l := start(t, cluster.Options{CNI: "calico", IPFamilies: []model.IPFamily{model.IPv4, model.IPv6}})
	for _, part := range []struct {
		name string
		test func(*testing.T, *lab)
	}{
		{"the cluster says what it is", clusterSaysWhatItIs},
		{"pods serve what they declare, on both nodes and families", podsServeWhatTheyDeclare},
		{"a ready pod has a whole status", readyPodHasWholeStatus},
		{"a policy bites and lets go, on both families", policyBitesAndLetsGo},
		{"a policy can speak of named ports and port ranges", policySpeaksOfPorts},
		{"SCTP is served where the kernel can", sctp},
		{"labels change in place", labelsChangeInPlace},
		{"host network pods serve on the node", hostNetworkPods},
		{"a node sends to other nodes' pods from its tunnel", nodeSendsFromTunnel},
		{"a name can be used again at once", nameIsUsedAgain},
		{"a force-deleted pod leaves the node", forceDeletedPod},
		{"deleting a namespace finishes, whatever is in it", namespaceDeletion},
		{"pods without a node are spread, and told why not", podsAreBound},
		{"a pod that cannot start says why", podThatCannotStart},
		{"a cluster IP leads to a ready pod", clusterIP},
		{"a node port leads to a ready pod", nodePort},
		{"a deployment makes pods", deployment},
		{"a host outside is reached, and reaches in", hosts},
		{"one run at a time has the cluster, and nothing is left of it", runsTakeTurns},
		{"nothing leads out of the machine", nothingLeadsOut},
		{"stopped servers are seen", stoppedServersAreSeen},
		{"dropped traffic is dropped, but for loopback", droppedTraffic},
		{"Felix is started again when it asks for it", felixRestarts},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(t, l) })
		require.NoError(t, l.Health(t.Context()))
	}
}

func clusterSaysWhatItIs(t *testing.T, l *lab) {
	info := l.Info()
	assert.Equal(t, "local", info.Provider)
	assert.Equal(t, "calico", info.CNI.Name)
	assert.Regexp(t, `^v\d+\.\d+\.\d+`, info.CNI.Version)
	version, err := l.client.Discovery().ServerVersion()
	require.NoError(t, err)
	assert.Equal(t, version.GitVersion, info.Kubernetes)
	assert.Equal(t, 2, info.Nodes)
	assert.Equal(t, []model.IPFamily{model.IPv4, model.IPv6}, info.IPFamilies)

	nodes := l.Nodes()
	require.Len(t, nodes, 2)
	for i, n := range nodes {
		assert.Equal(t, i, n.Index)
		require.Len(t, n.Addresses, 4, "its own and those of its tunnels")
		assert.Equal(t, netip.MustParseAddr(fmt.Sprintf("10.244.%d.1", i)), n.Addresses[2])
		assert.Equal(t, netip.MustParseAddr(fmt.Sprintf("fd00:10:244:%d::1", i)), n.Addresses[3])
		for f, family := range info.IPFamilies {
			own, ok := model.AddressOf(n.Addresses, family)
			require.True(t, ok)
			assert.Equal(t, n.Addresses[f], own, "what $(ip:node:N) and node ports use is the node's own address")
		}
		object, err := l.client.CoreV1().Nodes().Get(t.Context(), n.Name, metav1.GetOptions{})
		require.NoError(t, err)
		assert.Equal(t, n.Addresses[0].String(), object.Status.Addresses[0].Address)
		for _, a := range object.Status.Addresses {
			assert.NotContains(t, []string{n.Addresses[2].String(), n.Addresses[3].String()}, a.Address, "a tunnel is no way to reach a node")
		}
		assert.Contains(t, fmt.Sprint(object.Status.Conditions), "NetworkPluginReady")
	}
}

func podsServeWhatTheyDeclare(t *testing.T, l *lab) {
	ns := l.namespace(t, "serve")
	pods := l.create(t,
		newPod(ns, "client", onNode(0)),
		newPod(ns, "near", onNode(0), serving("80/TCP", "dns:53/UDP"), serving("metrics:9090/TCP")),
		newPod(ns, "far", onNode(1), serving("80/TCP", "dns:53/UDP"), serving("metrics:9090/TCP")),
	)
	client := l.agent(t, pods[0])
	for _, server := range pods[1:] {
		addrs := podIPs(t, server)
		require.Len(t, addrs, 2)
		for _, a := range addrs {
			by := ns + "/" + server.Name
			answers(t, client, a, 80, model.TCP, by)
			answers(t, client, a, 53, model.UDP, by)
			answers(t, client, a, 9090, model.TCP, by)
			assert.Equal(t, probes.Reset, probe(t, client, a, 81, model.TCP).Outcome, "an undeclared port is closed")
		}
	}
}

func readyPodHasWholeStatus(t *testing.T, l *lab) {
	ns := l.namespace(t, "status")
	pod := l.create(t, newPod(ns, "a", onNode(1), serving("80/TCP"), serving("81/TCP")))[0]
	assert.Equal(t, corev1.PodRunning, pod.Status.Phase)
	assert.NotNil(t, pod.Status.StartTime)
	assert.Equal(t, l.Nodes()[1].Addresses[0].String(), pod.Status.HostIP)
	assert.Len(t, pod.Status.HostIPs, 2)
	assert.Len(t, pod.Status.PodIPs, 2)
	require.Len(t, pod.Status.ContainerStatuses, 2)
	for _, c := range pod.Status.ContainerStatuses {
		assert.True(t, c.Ready)
		assert.NotNil(t, c.State.Running)
	}
	for _, kind := range []corev1.PodConditionType{corev1.PodScheduled, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
		require.NotNil(t, condition(pod, kind), kind)
		assert.Equal(t, corev1.ConditionTrue, condition(pod, kind).Status, kind)
	}
}

func denyIngress(name string, selector metav1.LabelSelector, rules ...networkingv1.NetworkPolicyIngressRule) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       networkingv1.NetworkPolicySpec{PodSelector: selector, Ingress: rules},
	}
}

func (l *lab) policy(t testing.TB, namespace string, p *networkingv1.NetworkPolicy) {
	t.Helper()
	_, err := l.client.NetworkingV1().NetworkPolicies(namespace).Create(deadline(t), p, metav1.CreateOptions{})
	require.NoError(t, err)
}

func policyBitesAndLetsGo(t *testing.T, l *lab) {
	ns := l.namespace(t, "bite")
	pods := l.create(t, newPod(ns, "client", onNode(0)), newPod(ns, "near", onNode(0)), newPod(ns, "far", onNode(1)))
	client := l.agent(t, pods[0])
	l.policy(t, ns, denyIngress("deny", metav1.LabelSelector{}))
	for _, server := range pods[1:] {
		for _, a := range podIPs(t, server) {
			silent(t, client, a, 80, model.TCP)
		}
	}
	require.NoError(t, l.client.NetworkingV1().NetworkPolicies(ns).Delete(deadline(t), "deny", metav1.DeleteOptions{}))
	for _, server := range pods[1:] {
		for _, a := range podIPs(t, server) {
			answers(t, client, a, 80, model.TCP, ns+"/"+server.Name)
		}
	}
}

func policySpeaksOfPorts(t *testing.T, l *lab) {
	ns := l.namespace(t, "ports")
	pods := l.create(t,
		newPod(ns, "client"),
		newPod(ns, "server", serving("web:80/TCP", "81/TCP", "90/TCP", "95/TCP", "53/UDP")),
	)
	client, server := l.agent(t, pods[0]), podIPs(t, pods[1])
	named, first, last := intstr.FromString("web"), intstr.FromInt32(90), int32(92)
	l.policy(t, ns, denyIngress("some", metav1.LabelSelector{}, networkingv1.NetworkPolicyIngressRule{
		Ports: []networkingv1.NetworkPolicyPort{{Port: &named}, {Port: &first, EndPort: &last}},
	}))
	for _, a := range server {
		silent(t, client, a, 81, model.TCP)
		silent(t, client, a, 95, model.TCP)
		silent(t, client, a, 53, model.UDP)
		answers(t, client, a, 80, model.TCP, ns+"/server")
		answers(t, client, a, 90, model.TCP, ns+"/server")
	}
}

func sctp(t *testing.T, l *lab) {
	ns := l.namespace(t, "sctp")
	pods := l.create(t, newPod(ns, "client"), newPod(ns, "server", serving("80/TCP", "9000/SCTP")))
	client, server := l.agent(t, pods[0]), podIPs(t, pods[1])[0]
	answers(t, client, server, 80, model.TCP, ns+"/server")
	if nsagent.HaveSCTP() == nil {
		answers(t, client, server, 9000, model.SCTP, ns+"/server")
		return
	}
	assert.Equal(t, probes.Unsupported, probe(t, client, server, 9000, model.SCTP).Outcome)
	eventually(t, "an event tells that the port is not served", func() (bool, string) {
		events, err := l.client.CoreV1().Events(ns).List(deadline(t), metav1.ListOptions{FieldSelector: "reason=UnsupportedPorts"})
		require.NoError(t, err)
		return len(events.Items) > 0 && strings.Contains(events.Items[0].Message, "9000/SCTP"), fmt.Sprint(events.Items)
	})
}

func labelsChangeInPlace(t *testing.T, l *lab) {
	ns := l.namespace(t, "labels")
	pods := l.create(t, newPod(ns, "client"), newPod(ns, "server"))
	client, server := l.agent(t, pods[0]), podIPs(t, pods[1])[0]
	before := l.agent(t, pods[1])
	l.policy(t, ns, denyIngress("deny", metav1.LabelSelector{MatchLabels: map[string]string{"shut": "yes"}}))
	answers(t, client, server, 80, model.TCP, ns+"/server")

	patch := func(body string) {
		_, err := l.client.CoreV1().Pods(ns).Patch(deadline(t), "server", types.MergePatchType, []byte(body), metav1.PatchOptions{})
		require.NoError(t, err)
	}
	patch(`{"metadata":{"labels":{"shut":"yes"}}}`)
	silent(t, client, server, 80, model.TCP)
	patch(`{"metadata":{"labels":{"shut":null}}}`)
	answers(t, client, server, 80, model.TCP, ns+"/server")

	after := l.awaitReady(t, pods[1])[0]
	assert.Equal(t, pods[1].UID, after.UID)
	assert.Equal(t, pods[1].Status.PodIPs, after.Status.PodIPs)
	assert.Equal(t, pods[1].Status.StartTime, after.Status.StartTime)
	assert.Same(t, before, l.agent(t, after), "the pod goes on with the servers it had")
}

func hostNetworkPods(t *testing.T, l *lab) {
	ns := l.namespace(t, "hostnet")
	pods := l.create(t, newPod(ns, "client", onNode(0)), newPod(ns, "server", onNode(1), hostNetwork, serving("8090/TCP")))
	node := l.Nodes()[1]
	own := node.Addresses[:2]
	assert.Equal(t, own, podIPs(t, pods[1]))
	for _, a := range own {
		answers(t, l.agent(t, pods[0]), a, 8090, model.TCP, ns+"/server")
	}
	other, err := l.NodeAgent(t.Context(), 0)
	require.NoError(t, err)
	answers(t, other, node.Addresses[0], 8090, model.TCP, ns+"/server")
	answers(t, l.agent(t, pods[1]), podIPs(t, pods[0])[0], 80, model.TCP, ns+"/client")
}

// nodeSendsFromTunnel admits some of a node's addresses. The verdict that the specification gives must leave room for
// what the packets show, and be a certain one where a rule does not tell the node's addresses from one another. Each
// policy has a port of its own that it opens to all: while that answers, the policy is in force.
func nodeSendsFromTunnel(t *testing.T, l *lab) {
	ns := l.namespace(t, "tunnel")
	server := l.create(t, newPod(ns, "server", onNode(1), serving("80/TCP", "9000/TCP", "9001/TCP", "9002/TCP", "9003/TCP")))[0]
	agent, err := l.NodeAgent(t.Context(), 0)
	require.NoError(t, err)
	nodes := l.Nodes()
	sources := nodes[0].Addresses
	for _, to := range podIPs(t, server) {
		answers(t, agent, to, 80, model.TCP, ns+"/server")
	}
	l.policy(t, ns, denyIngress("deny", metav1.LabelSelector{}))
	for _, to := range podIPs(t, server) {
		silent(t, agent, to, 80, model.TCP)
	}
	for i, c := range []struct {
		name    string
		admits  []netip.Addr
		sent    bool
		verdict model.Verdict
	}{
		{"tunnel", sources[2:], true, model.Undefined},
		{"own", sources[:2], false, model.Undefined},
		{"both", sources, true, model.Allow},
		{"neither", []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}, false, model.Deny},
	} {
		var peers []networkingv1.NetworkPolicyPeer
		for _, a := range c.admits {
			peers = append(peers, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: netip.PrefixFrom(a, a.BitLen()).String()}})
		}
		own := intstr.FromInt(9000 + i)
		policy := denyIngress(c.name, metav1.LabelSelector{}, networkingv1.NetworkPolicyIngressRule{From: peers},
			networkingv1.NetworkPolicyIngressRule{Ports: []networkingv1.NetworkPolicyPort{{Port: &own}}})
		policy.Namespace = ns
		policy.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
		l.policy(t, ns, policy)
		evaluator, err := semantics.New(&model.Topology{
			Namespaces: []model.Namespace{{Name: ns}},
			Pods: []model.Pod{{
				Namespace: ns, Name: "server", Node: 1, Addresses: podIPs(t, server),
				Ports: []model.Port{{Number: 80, Protocol: model.TCP}},
			}},
			Nodes: nodes,
		}, []semantics.Policy{{Object: policy}})
		require.NoError(t, err)
		for _, to := range podIPs(t, server) {
			d, err := evaluator.Decide(model.Connection{
				From: model.NodeEndpoint(0), To: model.PodEndpoint(ns, "server"), Port: 80, Protocol: model.TCP,
				IPFamily: model.FamilyOf(to), Via: model.ViaPodIP,
			})
			require.NoError(t, err)
			assert.Equal(t, c.verdict, d.Verdict, "%s, to %s: %s", c.name, to, d.Summary())
			answers(t, agent, to, own.IntValue(), model.TCP, ns+"/server")
			seen := probe(t, agent, to, 80, model.TCP)
			if !c.sent {
				assert.Equal(t, probes.Timeout, seen.Outcome, "%s, to %s: %+v", c.name, to, seen)
				continue
			}
			require.Equal(t, probes.Answered, seen.Outcome, "%s, to %s: %+v", c.name, to, seen)
			records, err := l.agent(t, server).Records(t.Context(), []probes.Nonce{seen.Nonce})
			require.NoError(t, err)
			require.Len(t, records, 1)
			assert.Contains(t, sources[2:], records[0].Peer.Addr(), "policy %s", c.name)
		}
		require.NoError(t, l.client.NetworkingV1().NetworkPolicies(ns).Delete(deadline(t), c.name, metav1.DeleteOptions{}))
		for _, to := range podIPs(t, server) {
			silent(t, agent, to, own.IntValue(), model.TCP)
		}
	}
}

func nameIsUsedAgain(t *testing.T, l *lab) {
	ns := l.namespace(t, "again")
	client := l.agent(t, l.create(t, newPod(ns, "client"))[0])
	seen := map[types.UID]bool{}
	for range 4 {
		pod := l.create(t, newPod(ns, "a", onNode(0)))[0]
		assert.False(t, seen[pod.UID])
		seen[pod.UID] = true
		answers(t, client, podIPs(t, pod)[0], 80, model.TCP, ns+"/a")
		assert.Equal(t, string(pod.UID), l.agent(t, pod).Identity().UID)

		require.NoError(t, l.client.CoreV1().Pods(ns).Delete(deadline(t), "a", metav1.DeleteOptions{}))
		eventually(t, "the pod is gone", func() (bool, string) {
			_, err := l.client.CoreV1().Pods(ns).Get(deadline(t), "a", metav1.GetOptions{})
			return apierrors.IsNotFound(err), fmt.Sprint(err)
		})
		_, err := l.PodAgent(t.Context(), pod)
		require.ErrorContains(t, err, string(pod.UID), "the agent of a pod that is gone is an error")
	}
}

func forceDeletedPod(t *testing.T, l *lab) {
	ns := l.namespace(t, "force")
	client := l.agent(t, l.create(t, newPod(ns, "client"))[0])
	old := l.create(t, newPod(ns, "a", onNode(0)))[0]
	require.NoError(t, l.client.CoreV1().Pods(ns).Delete(deadline(t), "a", metav1.DeleteOptions{GracePeriodSeconds: new(int64)}))
	fresh := l.create(t, newPod(ns, "a", onNode(0)))[0]
	require.NotEqual(t, old.UID, fresh.UID)
	answers(t, client, podIPs(t, fresh)[0], 80, model.TCP, ns+"/a")
	eventually(t, "the old pod has left", func() (bool, string) {
		_, err := l.PodAgent(t.Context(), old)
		return err != nil, ""
	})
	if podIPs(t, old)[0] != podIPs(t, fresh)[0] {
		assert.NotEqual(t, probes.Answered, probe(t, client, podIPs(t, old)[0], 80, model.TCP).Outcome)
	}
}

func namespaceDeletion(t *testing.T, l *lab) {
	name := "full"
	_, err := l.client.CoreV1().Namespaces().Create(deadline(t), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	require.NoError(t, err)
	var pods []*corev1.Pod
	for i := range 6 {
		pods = append(pods, newPod(name, fmt.Sprintf("p%d", i), labelled("app", "web")))
	}
	l.create(t, pods...)
	l.service(t, name, "web", nil)
	l.policy(t, name, denyIngress("deny", metav1.LabelSelector{}))
	objects, err := dynamic.NewForConfig(l.RESTConfig())
	require.NoError(t, err)
	networkSets := schema.GroupVersionResource{Group: "crd.projectcalico.org", Version: "v1", Resource: "networksets"}
	_, err = objects.Resource(networkSets).Namespace(name).Create(deadline(t), &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "crd.projectcalico.org/v1", "kind": "NetworkSet", "metadata": map[string]any{"name": "s"}, "spec": map[string]any{},
	}}, metav1.CreateOptions{})
	require.NoError(t, err)

	l.removeNamespace(t, name)

	// Made again, it is empty: nothing of the old one was left behind in the datastore.
	l.namespace(t, name)
	left, err := l.client.CoreV1().Pods(name).List(deadline(t), metav1.ListOptions{})
	require.NoError(t, err)
	assert.Empty(t, left.Items)
	sets, err := objects.Resource(networkSets).Namespace(name).List(deadline(t), metav1.ListOptions{})
	require.NoError(t, err)
	assert.Empty(t, sets.Items)
	policies, err := l.client.NetworkingV1().NetworkPolicies(name).List(deadline(t), metav1.ListOptions{})
	require.NoError(t, err)
	assert.Empty(t, policies.Items)
}

func podsAreBound(t *testing.T, l *lab) {
	ns := l.namespace(t, "bind")
	pinned := newPod(ns, "pinned")
	pinned.Spec.NodeSelector = map[string]string{corev1.LabelHostname: "node-1"}
	pods := l.create(t, newPod(ns, "a"), newPod(ns, "b"), pinned)
	assert.NotEqual(t, pods[0].Spec.NodeName, pods[1].Spec.NodeName)
	assert.Equal(t, "node-1", pods[2].Spec.NodeName)

	nowhere := newPod(ns, "nowhere")
	nowhere.Spec.NodeSelector = map[string]string{"moon": "far-side"}
	_, err := l.client.CoreV1().Pods(ns).Create(deadline(t), nowhere, metav1.CreateOptions{})
	require.NoError(t, err)
	eventually(t, "the pod is told that no node matches", func() (bool, string) {
		pod, err := l.client.CoreV1().Pods(ns).Get(deadline(t), "nowhere", metav1.GetOptions{})
		require.NoError(t, err)
		c := condition(pod, corev1.PodScheduled)
		return c != nil && c.Reason == corev1.PodReasonUnschedulable && c.Message != "", fmt.Sprint(pod.Status)
	})
}

func podThatCannotStart(t *testing.T, l *lab) {
	ns := l.namespace(t, "cannot")
	for name, pod := range map[string]*corev1.Pod{
		"c1 cannot listen too": newPod(ns, "twice", serving("80/TCP"), serving("80/TCP")),
		"address already in use": func() *corev1.Pod {
			l.create(t, newPod(ns, "first", onNode(0), hostNetwork, serving("8091/TCP")))
			// Admission does not refuse it, since nothing here counts host ports.
			return newPod(ns, "second", onNode(0), hostNetwork, serving("8091/TCP"))
		}(),
	} {
		_, err := l.client.CoreV1().Pods(ns).Create(deadline(t), pod, metav1.CreateOptions{})
		require.NoError(t, err, name)
		eventually(t, "the pod says why it does not start: "+name, func() (bool, string) {
			pod, err := l.client.CoreV1().Pods(ns).Get(deadline(t), pod.Name, metav1.GetOptions{})
			require.NoError(t, err)
			c := condition(pod, corev1.PodReady)
			return c != nil && c.Status == corev1.ConditionFalse && c.Reason != "" && c.Message != "" &&
				pod.Status.ContainerStatuses[0].State.Waiting != nil, fmt.Sprint(pod.Status)
		})
		eventually(t, "there is an event: "+name, func() (bool, string) {
			events, err := l.client.CoreV1().Events(ns).List(deadline(t), metav1.ListOptions{FieldSelector: "involvedObject.name=" + pod.Name})
			require.NoError(t, err)
			return len(events.Items) > 0 && events.Items[0].Type == corev1.EventTypeWarning, fmt.Sprint(events.Items)
		})
	}
}

func clusterIP(t *testing.T, l *lab) {
	ns := l.namespace(t, "svc")
	pods := l.create(t,
		newPod(ns, "near", onNode(0)), newPod(ns, "far", onNode(1)),
		newPod(ns, "server", onNode(1), labelled("app", "web")),
	)
	empty := l.service(t, ns, "nobody", nil)
	addrs := l.service(t, ns, "web", nil)
	require.Len(t, addrs, 2)
	for _, a := range addrs {
		for _, client := range pods[:2] {
			answers(t, l.agent(t, client), a, 8080, model.TCP, ns+"/server")
		}
		node, err := l.NodeAgent(t.Context(), 0)
		require.NoError(t, err)
		answers(t, node, a, 8080, model.TCP, ns+"/server")
	}
	for _, a := range empty {
		silent(t, l.agent(t, pods[0]), a, 8080, model.TCP)
	}
}

func nodePort(t *testing.T, l *lab) {
	ns := l.namespace(t, "nodeport")
	pods := l.create(t, newPod(ns, "client", onNode(0)), newPod(ns, "server", onNode(1), labelled("app", "web")))
	l.service(t, ns, "web", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeNodePort })
	s, err := l.client.CoreV1().Services(ns).Get(deadline(t), "web", metav1.GetOptions{})
	require.NoError(t, err)
	port := int(s.Spec.Ports[0].NodePort)
	host, err := l.AddHost(t.Context(), model.Host{Name: "visitor"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.RemoveHost(t.Context(), "visitor")) })
	for _, n := range l.Nodes() {
		for _, a := range n.Addresses[:2] {
			answers(t, l.agent(t, pods[0]), a, port, model.TCP, ns+"/server")
			answers(t, host.Agent, a, port, model.TCP, ns+"/server")
		}
	}
}

func deployment(t *testing.T, l *lab) {
	ns := l.namespace(t, "deploy")
	replicas := int32(3)
	labels := map[string]string{"app": "web"}
	_, err := l.client.AppsV1().Deployments(ns).Create(deadline(t), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       newPod(ns, "", serving("80/TCP")).Spec,
			},
		},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	eventually(t, "three replicas are ready", func() (bool, string) {
		d, err := l.client.AppsV1().Deployments(ns).Get(deadline(t), "web", metav1.GetOptions{})
		require.NoError(t, err)
		return d.Status.ReadyReplicas == 3, fmt.Sprint(d.Status)
	})
}

func hosts(t *testing.T, l *lab) {
	ns := l.namespace(t, "hosts")
	pods := l.create(t, newPod(ns, "a", onNode(0)), newPod(ns, "b", onNode(1)))
	host, err := l.AddHost(t.Context(), model.Host{Name: "bank", Ports: []model.Port{{Number: 443, Protocol: model.TCP}, {Number: 53, Protocol: model.UDP}}})
	require.NoError(t, err)
	_, err = l.AddHost(t.Context(), model.Host{Name: "bank"})
	require.Error(t, err, "there is one host of a name")
	require.Len(t, host.Addresses, 2)
	assert.True(t, netip.MustParsePrefix("203.0.113.0/24").Contains(host.Addresses[0]))
	for _, a := range host.Addresses {
		for _, pod := range pods {
			answers(t, l.agent(t, pod), a, 443, model.TCP, "host:bank")
			answers(t, l.agent(t, pod), a, 53, model.UDP, "host:bank")
		}
		node, err := l.NodeAgent(t.Context(), 0)
		require.NoError(t, err)
		answers(t, node, a, 443, model.TCP, "host:bank")
	}
	for _, pod := range pods {
		for _, a := range podIPs(t, pod) {
			answers(t, host.Agent, a, 80, model.TCP, ns+"/"+pod.Name)
		}
	}
	seen := probe(t, host.Agent, podIPs(t, pods[0])[0], 80, model.TCP)
	records, err := l.agent(t, pods[0]).Records(t.Context(), []probes.Nonce{seen.Nonce})
	require.NoError(t, err)
	require.Len(t, records, 1)
	assert.Equal(t, host.Addresses[0], records[0].Peer.Addr(), "the address is not translated on the way")

	require.NoError(t, l.RemoveHost(t.Context(), "bank"))
	assert.NotEqual(t, probes.Answered, probe(t, l.agent(t, pods[0]), host.Addresses[0], 443, model.TCP).Outcome)
	require.Error(t, l.RemoveHost(t.Context(), "bank"))
}

func nothingLeadsOut(t *testing.T, l *lab) {
	ns := l.namespace(t, "out")
	pod := l.create(t, newPod(ns, "a"))[0]
	node, err := l.NodeAgent(t.Context(), 0)
	require.NoError(t, err)
	for _, from := range []probes.Agent{l.agent(t, pod), node} {
		for _, outside := range []string{"192.0.2.1", "1.1.1.1", "2001:db8:ffff::1", "2606:4700:4700::1111"} {
			for _, protocol := range []model.Protocol{model.TCP, model.UDP} {
				r := probe(t, from, netip.MustParseAddr(outside), 53, protocol)
				assert.NotEqual(t, probes.Answered, r.Outcome, "%s to %s: %+v", from.Identity().Endpoint, outside, r)
			}
		}
	}
	assertOnlyFabric(t)
}

func stoppedServersAreSeen(t *testing.T, l *lab) {
	ns := l.namespace(t, "stopped")
	pods := l.create(t, newPod(ns, "client"), newPod(ns, "server"))
	require.NoError(t, l.StopServers(pods[1]))
	server := l.agent(t, pods[1])
	statuses, err := server.Liveness(t.Context())
	require.NoError(t, err)
	for _, s := range statuses {
		assert.False(t, s.Alive, s.Port)
	}
	assert.Equal(t, probes.Reset, probe(t, l.agent(t, pods[0]), podIPs(t, pods[1])[0], 80, model.TCP).Outcome)
	assert.True(t, isReady(l.awaitReady(t, pods[1])[0]), "the status still says ready: that is the fault")
	answers(t, server, podIPs(t, pods[0])[0], 80, model.TCP, ns+"/client")
}

func droppedTraffic(t *testing.T, l *lab) {
	ns := l.namespace(t, "dropped")
	pods := l.create(t, newPod(ns, "client"), newPod(ns, "server"))
	answers(t, l.agent(t, pods[0]), podIPs(t, pods[1])[0], 80, model.TCP, ns+"/server")
	require.NoError(t, l.DropTraffic(pods[1]))
	for _, a := range podIPs(t, pods[1]) {
		assert.Equal(t, probes.Timeout, probe(t, l.agent(t, pods[0]), a, 80, model.TCP).Outcome)
	}
	statuses, err := l.agent(t, pods[1]).Liveness(t.Context())
	require.NoError(t, err)
	require.Len(t, statuses, 1)
	assert.True(t, statuses[0].Alive, statuses[0].Detail)
}

func felixRestarts(t *testing.T, l *lab) {
	objects, err := dynamic.NewForConfig(l.RESTConfig())
	require.NoError(t, err)
	config := schema.GroupVersionResource{Group: "crd.projectcalico.org", Version: "v1", Resource: "felixconfigurations"}
	_, err = objects.Resource(config).Create(deadline(t), &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "crd.projectcalico.org/v1", "kind": "FelixConfiguration", "metadata": map[string]any{"name": "default"},
		"spec": map[string]any{"vxlanPort": int64(4790)},
	}}, metav1.CreateOptions{})
	require.NoError(t, err)
	eventually(t, "Felix was started again on both nodes", func() (bool, string) {
		restarts := map[string]bool{}
		for _, e := range l.Events() {
			if e.What == "restarted" {
				restarts[e.Process] = true
			}
		}
		return restarts["node-0/felix"] && restarts["node-1/felix"], fmt.Sprint(l.Events())
	})
	ns := l.namespace(t, "restarted")
	pods := l.create(t, newPod(ns, "client", onNode(0)), newPod(ns, "far", onNode(1)))
	answers(t, l.agent(t, pods[0]), podIPs(t, pods[1])[0], 80, model.TCP, ns+"/far")
	l.policy(t, ns, denyIngress("deny", metav1.LabelSelector{}))
	silent(t, l.agent(t, pods[0]), podIPs(t, pods[1])[0], 80, model.TCP)
}

func TestEveryDataplaneEnforces(t *testing.T) {
	for _, dataplane := range []calico.Dataplane{calico.IPTablesLegacy, calico.IPTablesNFT, calico.NFTables} {
		t.Run(string(dataplane), func(t *testing.T) {
			l := start(t, cluster.Options{CNI: "calico"}, local.WithDataplane(dataplane))
			ns := l.namespace(t, "plane")
			pods := l.create(t, newPod(ns, "client", onNode(0)), newPod(ns, "server", onNode(1), labelled("app", "web")))
			client, server := l.agent(t, pods[0]), podIPs(t, pods[1])[0]
			address := l.service(t, ns, "web", nil)[0]
			answers(t, client, server, 80, model.TCP, ns+"/server")
			answers(t, client, address, 8080, model.TCP, ns+"/server")
			l.policy(t, ns, denyIngress("deny", metav1.LabelSelector{}))
			silent(t, client, server, 80, model.TCP)
			silent(t, client, address, 8080, model.TCP)
			require.NoError(t, l.Health(t.Context()))
		})
	}
}

func TestIPv6AloneCarriesPodsPoliciesAndServices(t *testing.T) {
	l := start(t, cluster.Options{CNI: "calico", IPFamilies: []model.IPFamily{model.IPv6}})
	ns := l.namespace(t, "six")
	pods := l.create(t, newPod(ns, "client", onNode(0)), newPod(ns, "server", onNode(1), labelled("app", "web")))
	require.Len(t, podIPs(t, pods[1]), 1)
	assert.True(t, podIPs(t, pods[1])[0].Is6())
	answers(t, l.agent(t, pods[0]), podIPs(t, pods[1])[0], 80, model.TCP, ns+"/server")
	for _, a := range l.service(t, ns, "web", nil) {
		answers(t, l.agent(t, pods[0]), a, 8080, model.TCP, ns+"/server")
	}
	l.policy(t, ns, denyIngress("deny", metav1.LabelSelector{}))
	silent(t, l.agent(t, pods[0]), podIPs(t, pods[1])[0], 80, model.TCP)
	require.NoError(t, l.Health(t.Context()))
}

func TestWithoutPluginPodsAreConnectedAndPoliciesIgnored(t *testing.T) {
	l := start(t, cluster.Options{CNI: "none", Nodes: 3, IPFamilies: []model.IPFamily{model.IPv6, model.IPv4}})
	ns := l.namespace(t, "open")
	l.policy(t, ns, denyIngress("deny", metav1.LabelSelector{}))
	pods := l.create(t,
		newPod(ns, "client", onNode(0)), newPod(ns, "near", onNode(0)), newPod(ns, "far", onNode(2), labelled("app", "web")))
	for _, server := range pods[1:] {
		addrs := podIPs(t, server)
		require.Len(t, addrs, 2)
		assert.True(t, addrs[0].Is6(), "the first family is the primary one")
		for _, a := range addrs {
			answers(t, l.agent(t, pods[0]), a, 80, model.TCP, ns+"/"+server.Name)
		}
	}
	for _, a := range l.service(t, ns, "web", nil) {
		answers(t, l.agent(t, pods[0]), a, 8080, model.TCP, ns+"/far")
	}
	assert.Equal(t, "none", l.Info().CNI.Name)
	require.Error(t, l.StopEnforcement(0))
	require.NoError(t, l.Health(t.Context()))
}

func TestBrokenPartsAreTold(t *testing.T) {
	l := start(t, cluster.Options{CNI: "calico"})
	const ns = metav1.NamespaceDefault // goes with the cluster
	l.create(t, newPod(ns, "a", onNode(0)))

	require.NoError(t, l.StopEnforcement(1))
	require.NoError(t, l.Health(t.Context()), "a stop that was asked for is no failure")

	require.NoError(t, l.HaltNodeAgent(1))
	_, err := l.client.CoreV1().Pods(ns).Create(deadline(t), newPod(ns, "b", onNode(1)), metav1.CreateOptions{})
	require.NoError(t, err)
	l.create(t, newPod(ns, "c", onNode(0)))
	pod, err := l.client.CoreV1().Pods(ns).Get(deadline(t), "b", metav1.GetOptions{})
	require.NoError(t, err)
	assert.False(t, isReady(pod), "nobody looks after the pods of a node without an agent")
	_, err = l.PodAgent(t.Context(), pod)
	require.ErrorIs(t, err, nodeagent.ErrNoPod)
	require.NoError(t, l.client.CoreV1().Pods(ns).Delete(deadline(t), "b", metav1.DeleteOptions{GracePeriodSeconds: new(int64)}))

	require.NoError(t, l.KillEnforcement(deadline(t), 0))
	<-l.Failed()
	require.ErrorContains(t, l.Health(t.Context()), "node-0/felix ended unexpectedly")
	require.ErrorContains(t, l.Health(t.Context()), "killed")

	require.NoError(t, l.KillProgram(deadline(t), "kube-controller-manager"))
	eventually(t, "the second death is told as well", func() (bool, string) {
		err := l.Health(t.Context())
		return err != nil && strings.Contains(err.Error(), "node-0/felix") && strings.Contains(err.Error(), "kube-controller-manager"), fmt.Sprint(err)
	})
	require.Error(t, l.KillProgram(deadline(t), "kubelet"))

	require.NoError(t, l.KillProgram(deadline(t), "etcd"))
	began := time.Now()
	require.NoError(t, l.Close(t.Context()))
	assert.Less(t, time.Since(began), 5*time.Second, "a broken cluster is removed as fast as any")
}
