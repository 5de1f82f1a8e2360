//go:build linux

package local_test

import (
	"context"
	"io"
	"maps"
	"net"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/local/attach"
	"github.com/netproof/netproof/harness/model"
)

// attachTo serves the cluster to runs and returns where.
func attachTo(t *testing.T, l *lab) string {
	path := filepath.Join(t.TempDir(), "attach.sock")
	listener, err := net.Listen("unix", path)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- attach.Serve(ctx, listener, l.Cluster, l.Kubeconfig()) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-served)
	})
	return path
}

func runsTakeTurns(t *testing.T, l *lab) {
	path := attachTo(t, l)
	// What stays: it was there before, or is nobody's.
	kept := l.namespace(t, "kept")
	l.create(t, newPod(kept, "bystander"))
	label(t, l, metav1.NamespaceDefault, `{"before":"1","changed":"old"}`)
	t.Cleanup(func() { label(t, l, metav1.NamespaceDefault, `{"before":null,"changed":null}`) })

	first, err := attach.Dial(deadline(t), path)
	require.NoError(t, err)
	_, err = attach.Dial(deadline(t), path)
	require.ErrorIs(t, err, attach.ErrInUse)
	leave(t, l, func() error {
		_, err := first.AddHost(deadline(t), model.Host{Name: "ledger", Ports: []model.Port{{Number: 443, Protocol: model.TCP}}})
		return err
	})
	require.NoError(t, first.Close(deadline(t)))
	require.NoError(t, first.Close(deadline(t)), "closing again has no effect")
	_, err = first.AddHost(deadline(t), model.Host{Name: "late"})
	require.ErrorContains(t, err, "the run has ended")
	cleanOf(t, l)

	// One that dies says nothing: its connections end.
	lease := dialLease(t, path)
	leave(t, l, func() error { return nil })
	require.NoError(t, lease.Close())
	second, err := attach.Dial(deadline(t), path)
	require.NoError(t, err)
	cleanOf(t, l) // before the next has it
	_, err = second.AddHost(deadline(t), model.Host{Name: "ledger"})
	require.NoError(t, err)
	require.NoError(t, second.Close(deadline(t)))

	// What a finalizer holds is named to each run that asks for the cluster, until somebody lets it go.
	lease = dialLease(t, path)
	finalize := func(body string) error {
		policies := l.client.NetworkingV1().NetworkPolicies(metav1.NamespaceDefault)
		_, err := policies.Patch(deadline(t), "left", types.MergePatchType, []byte(body), metav1.PatchOptions{})
		return err
	}
	leave(t, l, func() error { return finalize(`{"metadata":{"finalizers":["example.com/stay"]}}`) })
	require.NoError(t, lease.Close())
	for range 2 {
		_, err = attach.Dial(deadline(t), path)
		require.ErrorContains(t, err, "networkpolicies.networking.k8s.io default/left is held by its finalizers example.com/stay")
		require.ErrorContains(t, err, "kubectl patch networkpolicies.networking.k8s.io left -n default")
	}
	require.NoError(t, finalize(`{"metadata":{"finalizers":null}}`))
	third, err := attach.Dial(deadline(t), path)
	require.NoError(t, err)
	cleanOf(t, l)
	require.NoError(t, third.Close(deadline(t)))

	_, err = l.client.CoreV1().Pods(kept).Get(deadline(t), "bystander", metav1.GetOptions{})
	require.NoError(t, err)
}

// dialLease takes the cluster without a client that would give it back.
func dialLease(t *testing.T, path string) net.Conn {
	conn, err := net.Dial("unix", path)
	require.NoError(t, err)
	_, err = io.WriteString(conn, `{"op":"lease"}`+"\n")
	require.NoError(t, err)
	answer := make([]byte, 256)
	n, err := conn.Read(answer)
	require.NoError(t, err)
	require.Contains(t, string(answer[:n]), `"lease":`)
	return conn
}

var globalPolicies = schema.GroupVersionResource{Group: "crd.projectcalico.org", Version: "v1", Resource: "globalnetworkpolicies"}

// leave leaves behind what a run does that is killed.
func leave(t *testing.T, l *lab, more func() error) {
	ours := map[string]string{"app.kubernetes.io/managed-by": "Helm"}
	maps.Copy(ours, cluster.RunLabels("0badc0de"))
	_, err := l.client.CoreV1().Namespaces().Create(deadline(t), &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{Name: "left", Labels: ours},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	for _, ns := range []string{"left", metav1.NamespaceDefault} {
		pod := newPod(ns, "left", onNode(1))
		pod.Labels = ours
		l.create(t, pod)
		l.service(t, ns, "left", func(s *corev1.Service) { s.Labels = ours })
		policy := denyIngress("left", metav1.LabelSelector{MatchLabels: ours})
		policy.Labels = ours
		l.policy(t, ns, policy)
	}
	objects, err := dynamic.NewForConfig(l.RESTConfig())
	require.NoError(t, err)
	global := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "crd.projectcalico.org/v1", "kind": "GlobalNetworkPolicy", "metadata": map[string]any{"name": "default.left"},
		"spec": map[string]any{"selector": "nothing == 'here'"},
	}}
	global.SetLabels(ours)
	_, err = objects.Resource(globalPolicies).Create(deadline(t), global, metav1.CreateOptions{})
	require.NoError(t, err)
	label(t, l, metav1.NamespaceDefault, `{"team":"blue","before":null,"changed":"new","pod-security.kubernetes.io/audit":"restricted"}`)
	note := []byte(`{"metadata":{"annotations":{"netproof.dev/restore-labels":"{\"run\":\"0badc0de\",\"labels\":{\"team\":null}}"}}}`)
	_, err = l.client.CoreV1().Namespaces().Patch(deadline(t), metav1.NamespaceDefault, types.MergePatchType, note, metav1.PatchOptions{})
	require.NoError(t, err)
	require.NoError(t, more())
}

// cleanOf requires that nothing is there of what leave left.
func cleanOf(t *testing.T, l *lab) {
	core := l.client.CoreV1()
	_, err := core.Namespaces().Get(deadline(t), "left", metav1.GetOptions{})
	assert.True(t, apierrors.IsNotFound(err), "namespace: %v", err)
	_, err = core.Pods(metav1.NamespaceDefault).Get(deadline(t), "left", metav1.GetOptions{})
	assert.True(t, apierrors.IsNotFound(err), "pod: %v", err)
	_, err = core.Services(metav1.NamespaceDefault).Get(deadline(t), "left", metav1.GetOptions{})
	assert.True(t, apierrors.IsNotFound(err), "service: %v", err)
	_, err = l.client.NetworkingV1().NetworkPolicies(metav1.NamespaceDefault).Get(deadline(t), "left", metav1.GetOptions{})
	assert.True(t, apierrors.IsNotFound(err), "policy: %v", err)
	objects, err := dynamic.NewForConfig(l.RESTConfig())
	require.NoError(t, err)
	_, err = objects.Resource(globalPolicies).Get(deadline(t), "default.left", metav1.GetOptions{})
	assert.True(t, apierrors.IsNotFound(err), "global policy: %v", err)
	ns, err := core.Namespaces().Get(deadline(t), metav1.NamespaceDefault, metav1.GetOptions{})
	require.NoError(t, err)
	assert.NotContains(t, ns.Labels, "team")
	assert.NotContains(t, ns.Labels, "pod-security.kubernetes.io/audit")
	assert.NotContains(t, ns.Annotations, cluster.RestoreAnnotation)
	assert.Equal(t, "1", ns.Labels["before"])
	assert.Equal(t, "old", ns.Labels["changed"])
	_, err = core.Services(metav1.NamespaceDefault).Get(deadline(t), "kubernetes", metav1.GetOptions{})
	assert.NoError(t, err, "what is not a run's stays")
}

// label patches the labels of a namespace.
func label(t *testing.T, l *lab, ns, labels string) {
	patch := []byte(`{"metadata":{"labels":` + labels + `}}`)
	_, err := l.client.CoreV1().Namespaces().Patch(context.Background(), ns, types.MergePatchType, patch, metav1.PatchOptions{})
	require.NoError(t, err)
}
