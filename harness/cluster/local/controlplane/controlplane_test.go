package controlplane_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/netproof/netproof/harness/cluster/local/controlplane"
	"github.com/netproof/netproof/harness/cluster/local/engine"
	"github.com/netproof/netproof/harness/cluster/local/node"
	"github.com/netproof/netproof/harness/cluster/local/process"
	"github.com/netproof/netproof/harness/cluster/local/sandbox"
	"github.com/netproof/netproof/harness/model"
)

func TestMain(m *testing.M) { sandbox.Main(m) }

func TestAPIServerAnswersOnceItIsReady(t *testing.T) {
	engines, err := engine.Ensure(t.Context(), engine.Options{CNI: "none"})
	require.NoError(t, err)
	t.Cleanup(func() { _ = engines.Close() })
	plan := node.Plan{Families: []model.IPFamily{model.IPv4}}
	fabric, err := node.NewFabric(plan)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, fabric.Close()) })
	group, err := process.NewGroup(t.TempDir())
	require.NoError(t, err)
	t.Cleanup(group.Kill)

	began := time.Now()
	cp, err := controlplane.Start(group, fabric.Thread(), controlplane.Config{
		Etcd:              engines.Path("etcd"),
		APIServer:         engines.Path("kube-apiserver"),
		ControllerManager: engines.Path("kube-controller-manager"),
		Dir:               t.TempDir(),
		Addresses:         plan.Gateway(),
		ServiceCIDRs:      plan.Services(),
		PodCIDRs:          plan.Pods(),
	})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	require.NoError(t, cp.WaitReady(ctx))
	t.Logf("ready after %v", time.Since(began))

	client, err := kubernetes.NewForConfig(cp.RESTConfig())
	require.NoError(t, err)
	namespaces, err := client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	require.NoError(t, err)
	for _, p := range group.Processes() {
		t.Logf("%s: %s", p.Name(), p.Tail(30))
	}
	t.Logf("%d namespaces", len(namespaces.Items))
}
