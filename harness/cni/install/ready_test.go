package install_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/netproof/netproof/harness/cni/install"
)

var agentPlugin = install.Plugin{Name: "plugin", Agent: install.Agent{Selector: "app=agent", Container: "agent"}}

func makeNode(name string, tweaks ...func(*corev1.Node)) *corev1.Node {
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelOSStable: "linux"}},
		Status:     corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}},
	}
	for _, tweak := range tweaks {
		tweak(node)
	}
	return node
}

func makeSet(count int32, tweaks ...func(*appsv1.DaemonSet)) *appsv1.DaemonSet {
	set := &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "agent", Generation: 2},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "agent"}},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "agent"}}},
		},
		Status: appsv1.DaemonSetStatus{ObservedGeneration: 2, DesiredNumberScheduled: count, UpdatedNumberScheduled: count, NumberReady: count},
	}
	for _, tweak := range tweaks {
		tweak(set)
	}
	return set
}

func makeAgent(node string, tweaks ...func(*corev1.Pod)) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "agent-" + node, Labels: map[string]string{"app": "agent"}},
		Spec:       corev1.PodSpec{NodeName: node},
		Status: corev1.PodStatus{
			Phase:             corev1.PodRunning,
			Conditions:        []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
			ContainerStatuses: []corev1.ContainerStatus{{Name: "agent", Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}},
		},
	}
	for _, tweak := range tweaks {
		tweak(pod)
	}
	return pod
}

// unready is a pod with this first container that is not ready.
func unready(status corev1.ContainerStatus) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.Conditions[0].Status = corev1.ConditionFalse
		p.Status.ContainerStatuses = []corev1.ContainerStatus{status}
	}
}

func taint(key string, effect corev1.TaintEffect) func(*corev1.Node) {
	return func(n *corev1.Node) { n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: key, Effect: effect}) }
}

// await asks once: its context has no time for a second look.
func await(t *testing.T, objects ...runtime.Object) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	return install.AwaitReady(ctx, fake.NewClientset(objects...), agentPlugin)
}

func TestReadyWhenTheAgentIsReadyOnEveryNode(t *testing.T) {
	require.NoError(t, await(t, makeSet(2), makeNode("a"), makeNode("b"), makeAgent("a"), makeAgent("b")))
}

func TestNodesThatNeedNoAgent(t *testing.T) {
	windows := makeNode("w", func(n *corev1.Node) { n.Labels[corev1.LabelOSStable] = "windows" })
	virtual := makeNode("v", taint("virtual-kubelet.io/provider", corev1.TaintEffectNoSchedule))
	require.NoError(t, await(t, makeSet(1), makeNode("a"), makeAgent("a"), windows, virtual))
}

func TestWhatIsNotReadyIsNamed(t *testing.T) {
	waiting := func(reason, message string) corev1.ContainerState {
		return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
	}
	crashed := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 137, Reason: "OOMKilled"}}
	for name, c := range map[string]struct {
		objects []runtime.Object
		want    string
	}{
		"no node":       {[]runtime.Object{makeSet(0)}, "the cluster has no node"},
		"no DaemonSet":  {[]runtime.Object{makeNode("a")}, "there is no DaemonSet whose pods have the labels app=agent"},
		"no controller": {[]runtime.Object{makeNode("a"), makeSet(0, func(s *appsv1.DaemonSet) { s.Status = appsv1.DaemonSetStatus{} })}, "its controller has not seen its newest version"},
		"a node that the DaemonSet leaves out": {
			[]runtime.Object{makeSet(1), makeNode("a"), makeNode("b"), makeAgent("a")},
			"node b: no pod with the labels app=agent is there",
		},
		"a node that is being made ready": {
			[]runtime.Object{makeSet(1), makeNode("a"), makeNode("b", taint("node.kubernetes.io/not-ready", corev1.TaintEffectNoSchedule)), makeAgent("a")},
			"node b: no pod with the labels app=agent is there",
		},
		"an old pod": {
			[]runtime.Object{makeSet(1, func(s *appsv1.DaemonSet) { s.Status.UpdatedNumberScheduled = 0 }), makeNode("a"), makeAgent("a")},
			"DaemonSet kube-system/agent: 0 of 1 pods are of its newest version",
		},
		"an image that does not come": {
			[]runtime.Object{makeSet(1), makeNode("a"), makeAgent("a", unready(corev1.ContainerStatus{Name: "agent", State: waiting("ImagePullBackOff", "Back-off pulling image")}))},
			"node a, pod kube-system/agent-a, container agent: it waits: ImagePullBackOff: Back-off pulling image\n      | fake logs",
		},
		"an agent that crashes": {
			[]runtime.Object{makeSet(1), makeNode("a"), makeAgent("a", unready(corev1.ContainerStatus{
				Name: "agent", RestartCount: 3, State: waiting("CrashLoopBackOff", ""), LastTerminationState: crashed,
			}))},
			"it waits: CrashLoopBackOff (started again 3 times, last ended with code 137)",
		},
		"an init container that failed": {
			[]runtime.Object{makeSet(1), makeNode("a"), makeAgent("a", unready(corev1.ContainerStatus{Name: "agent"}), func(p *corev1.Pod) {
				p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "setup", State: crashed}}
			})},
			"container setup: it ended with code 137: OOMKilled",
		},
		"an agent that does not get ready": {
			[]runtime.Object{makeSet(1), makeNode("a"), makeAgent("a", unready(corev1.ContainerStatus{
				Name: "agent", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
			}))},
			"container agent: it runs and is not ready",
		},
		"a pod that has not begun": {
			[]runtime.Object{makeSet(1), makeNode("a"), makeAgent("a", func(p *corev1.Pod) {
				p.Status = corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{
					{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "insufficient cpu"},
				}}
			})},
			"pod kube-system/agent-a: it is Pending: insufficient cpu",
		},
		"a node that is not ready": {
			[]runtime.Object{makeSet(1), makeAgent("a"), makeNode("a", func(n *corev1.Node) {
				n.Status.Conditions[0] = corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionFalse, Message: "cni plugin not initialized"}
			})},
			"node a: the node's condition Ready is False: cni plugin not initialized",
		},
		"a node without a network": {
			[]runtime.Object{makeSet(1), makeAgent("a"), makeNode("a", func(n *corev1.Node) {
				n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{Type: corev1.NodeNetworkUnavailable, Status: corev1.ConditionTrue, Reason: "NoRoute"})
			})},
			"node a: the node's condition NetworkUnavailable is True: NoRoute",
		},
		"a node that says nothing": {
			[]runtime.Object{makeSet(1), makeAgent("a"), makeNode("a", func(n *corev1.Node) { n.Status.Conditions = nil })},
			"the node has not said yet whether it is ready",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := await(t, c.objects...)
			var missing *install.NotReadyError
			require.ErrorAs(t, err, &missing)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			assert.ErrorContains(t, err, c.want)
		})
	}
}

func TestWhatCanNeverComeEndsTheWaitAtOnce(t *testing.T) {
	pod := makeAgent("a", unready(corev1.ContainerStatus{
		Name: "agent", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImageNeverPull"}},
	}))
	err := install.AwaitReady(t.Context(), fake.NewClientset(makeSet(1), makeNode("a"), pod), agentPlugin)
	require.ErrorContains(t, err, "plugin is not ready: it can never be")
}

func TestWaitEndsWhenTheLastAgentGetsReady(t *testing.T) {
	client := fake.NewClientset(makeSet(1), makeNode("a"), makeAgent("a", unready(corev1.ContainerStatus{Name: "agent"})))
	watched := make(chan struct{}, 10)
	client.PrependWatchReactor("pods", func(clienttesting.Action) (bool, watch.Interface, error) {
		watched <- struct{}{}
		return false, nil, nil
	})
	done := make(chan error)
	go func() { done <- install.AwaitReady(t.Context(), client, agentPlugin) }()
	<-watched
	_, err := client.CoreV1().Pods("kube-system").UpdateStatus(t.Context(), makeAgent("a"), metav1.UpdateOptions{})
	require.NoError(t, err)
	require.NoError(t, <-done)
}

func TestCancellationEndsTheWait(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("the user has had enough"))
	require.ErrorContains(t, install.AwaitReady(ctx, fake.NewClientset(makeNode("a")), agentPlugin), "the user has had enough")
}

func TestAPIServerThatStartsAgainIsWaitedFor(t *testing.T) {
	client := fake.NewClientset(makeSet(1), makeNode("a"), makeAgent("a"))
	failed := false
	client.PrependReactor("list", "nodes", func(clienttesting.Action) (bool, runtime.Object, error) {
		if failed {
			return false, nil, nil
		}
		failed = true
		return true, nil, errors.New("connection refused")
	})
	require.NoError(t, install.AwaitReady(t.Context(), client, agentPlugin))
}

func TestRefusalOfTheAPIServerEndsTheWait(t *testing.T) {
	client := fake.NewClientset()
	client.PrependReactor("list", "daemonsets", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "daemonsets"}, "", nil)
	})
	err := install.AwaitReady(t.Context(), client, agentPlugin)
	require.True(t, apierrors.IsForbidden(err), "%v", err)
}
