//go:build linux

package controlplane_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/netproof/netproof/harness/cluster/local/controlplane"
	"github.com/netproof/netproof/harness/cluster/local/engine"
	"github.com/netproof/netproof/harness/cluster/local/node"
	"github.com/netproof/netproof/harness/cluster/local/process"
	"github.com/netproof/netproof/harness/cluster/local/sandbox"
	"github.com/netproof/netproof/harness/model"
)

func TestMain(m *testing.M) { sandbox.Main(m) }

const testTimeout = 60 * time.Second

// start starts etcd and the API server, without controllers.
func start(t *testing.T, change func(*controlplane.Config)) (*controlplane.ControlPlane, error) {
	t.Helper()
	engines, err := engine.Ensure(t.Context(), engine.Options{CNI: "none"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, engines.Close()) })
	plan := node.Plan{Families: []model.IPFamily{model.IPv4}}
	fabric, err := node.NewFabric(plan)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, fabric.Close()) })
	group, err := process.NewGroup(t.TempDir())
	require.NoError(t, err)
	t.Cleanup(group.Kill)
	cfg := controlplane.Config{
		Etcd:              engines.Path("etcd"),
		APIServer:         engines.Path("kube-apiserver"),
		ControllerManager: engines.Path("kube-controller-manager"),
		Dir:               t.TempDir(),
		Addresses:         plan.Gateway(),
		ServiceCIDRs:      plan.Services(),
		PodCIDRs:          plan.Pods(),
	}
	if change != nil {
		change(&cfg)
	}
	cp, err := controlplane.Start(group, fabric.Thread(), cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	return cp, cp.WaitReady(ctx)
}

func eventually(t *testing.T, what string, check func() (bool, string)) {
	t.Helper()
	end := time.Now().Add(testTimeout)
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		ok, said := check()
		if ok {
			return
		}
		require.Less(t, time.Now(), end, "not in time: %s: %s", what, said)
		<-ticker.C
	}
}

func TestControlPlaneServesItsUserAloneAndEmptiesNamespaces(t *testing.T) {
	cp, err := start(t, nil)
	require.NoError(t, err)

	config, err := clientcmd.BuildConfigFromFlags("", cp.Kubeconfig())
	require.NoError(t, err)
	config.WarningHandler = rest.NoWarnings{}
	client, err := kubernetes.NewForConfig(config)
	require.NoError(t, err)
	version, err := client.Discovery().ServerVersion()
	require.NoError(t, err)
	assert.Equal(t, engine.KubernetesVersion, version.GitVersion)

	t.Run("without the token nobody gets in", func(t *testing.T) {
		stranger := cp.RESTConfig()
		stranger.BearerToken = "guess"
		other, err := kubernetes.NewForConfig(stranger)
		require.NoError(t, err)
		_, err = other.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{})
		assert.True(t, apierrors.IsUnauthorized(err), "%v", err)
	})
	t.Run("a pod needs no service account", func(t *testing.T) {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "a"},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
		}
		_, err := client.CoreV1().Pods("default").Create(t.Context(), pod, metav1.CreateOptions{})
		require.NoError(t, err)
	})
	t.Run("a namespace goes once it is empty, and not before", func(t *testing.T) { namespaceGoesOnceEmpty(t, client) })
	t.Run("an event of a namespace that is gone spares the next one of its name", func(t *testing.T) { lateEventSparesNamesake(t, client) })
}

// handed is an informer whose events come from the test.
type handed struct {
	cache.SharedIndexInformer
	handler cache.ResourceEventHandler
}

func (h *handed) AddEventHandler(handler cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	h.handler = handler
	return nil, nil
}

func lateEventSparesNamesake(t *testing.T, client kubernetes.Interface) {
	newReaper := func() (*controlplane.NamespaceReaper, cache.ResourceEventHandler) {
		pods := informers.NewSharedInformerFactory(client, 0).Core().V1().Pods().Lister() // there are none
		reaper := controlplane.NewNamespaceReaper(client, pods, func(err error) { t.Error(err) })
		informer := &handed{}
		require.NoError(t, reaper.Watch(t.Context(), informer))
		return reaper, informer.handler
	}
	namespaces := client.CoreV1().Namespaces()
	_, err := namespaces.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "late"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	require.NoError(t, namespaces.Delete(t.Context(), "late", metav1.DeleteOptions{}))
	ending, err := namespaces.Get(t.Context(), "late", metav1.GetOptions{})
	require.NoError(t, err)
	first, events := newReaper()
	events.OnAdd(ending, false)
	first.Wait()
	_, err = namespaces.Get(t.Context(), "late", metav1.GetOptions{})
	require.True(t, apierrors.IsNotFound(err), "%v", err)

	_, err = namespaces.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "late"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
	_, err = client.CoreV1().Services("late").Create(t.Context(), service, metav1.CreateOptions{})
	require.NoError(t, err)
	spared := func(by string) {
		_, err := client.CoreV1().Services("late").Get(t.Context(), "s", metav1.GetOptions{})
		require.NoError(t, err, by)
		now, err := namespaces.Get(t.Context(), "late", metav1.GetOptions{})
		require.NoError(t, err, by)
		assert.NotEqual(t, ending.UID, now.UID)
		assert.Contains(t, now.Spec.Finalizers, corev1.FinalizerKubernetes, by)
	}
	events.OnUpdate(ending, ending)
	first.Wait()
	spared("the reaper that has removed the one before")
	second, events := newReaper()
	events.OnAdd(ending, false)
	second.Wait()
	spared("a reaper that has not seen the one before")
}

func namespaceGoesOnceEmpty(t *testing.T, client kubernetes.Interface) {
	ctx, cancel := context.WithCancel(t.Context())
	factory := informers.NewSharedInformerFactory(client, 0)
	reaper := controlplane.NewNamespaceReaper(client, factory.Core().V1().Pods().Lister(), func(err error) { t.Error(err) })
	require.NoError(t, reaper.Watch(ctx, factory.Core().V1().Namespaces().Informer()))
	factory.Core().V1().Pods().Informer()
	factory.Start(ctx.Done())
	t.Cleanup(func() {
		cancel()
		factory.Shutdown()
		reaper.Wait()
	})

	_, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "x"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	for name, finalizers := range map[string][]string{"free": nil, "held": {"netproof.dev/test"}} {
		m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Finalizers: finalizers}}
		_, err := client.CoreV1().ConfigMaps("x").Create(t.Context(), m, metav1.CreateOptions{})
		require.NoError(t, err)
	}
	require.NoError(t, client.CoreV1().Namespaces().Delete(t.Context(), "x", metav1.DeleteOptions{}))
	eventually(t, "what is free is gone", func() (bool, string) {
		_, err := client.CoreV1().ConfigMaps("x").Get(t.Context(), "free", metav1.GetOptions{})
		return apierrors.IsNotFound(err), fmt.Sprint(err)
	})
	ns, err := client.CoreV1().Namespaces().Get(t.Context(), "x", metav1.GetOptions{})
	require.NoError(t, err, "the namespace waits for what is held")
	assert.Equal(t, corev1.NamespaceTerminating, ns.Status.Phase)

	_, err = client.CoreV1().ConfigMaps("x").
		Patch(t.Context(), "held", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
	require.NoError(t, err)
	eventually(t, "the namespace is gone", func() (bool, string) {
		_, err := client.CoreV1().Namespaces().Get(t.Context(), "x", metav1.GetOptions{})
		return apierrors.IsNotFound(err), fmt.Sprint(err)
	})
}

func TestProgramThatDoesNotStartIsNamedWithItsWords(t *testing.T) {
	_, err := start(t, func(c *controlplane.Config) { c.APIServer = c.Etcd })
	require.ErrorContains(t, err, "kube-apiserver ended unexpectedly")
	require.ErrorContains(t, err, "etcd gateway", "the end of its log, etcd's usage here, is in the error")
}
