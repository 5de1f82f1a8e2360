package e2eframework

import (
	"context"
	"flag"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/e2e-framework/pkg/env"
	"sigs.k8s.io/e2e-framework/pkg/envconf"
	"sigs.k8s.io/e2e-framework/pkg/envfuncs"
	"sigs.k8s.io/e2e-framework/pkg/features"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/kind"
	"github.com/netproof/netproof/harness/cni/install"
	"github.com/netproof/netproof/harness/e2eprovider"
)

var (
	testEnv = env.New()
	// wanted keeps go test ./... from making a cluster.
	wanted = flag.Bool("kind", false, "make a kind cluster, which takes a minute and a container engine")
	// provider is the cluster for those who want more of it than the framework knows.
	provider *e2eprovider.Provider
)

func TestMain(m *testing.M) {
	kind.Init() // a helper process of the cluster is this binary again
	flag.Parse()
	if !*wanted {
		os.Exit(m.Run())
	}
	provider = e2eprovider.Kind(
		kind.Options{CNI: install.Options{Manifest: os.Getenv("NETPROOF_CNI_MANIFEST")}}, // empty: the vendor's
		cluster.Options{CNI: "calico", Nodes: 2},
	)
	testEnv.Setup(envfuncs.CreateCluster(provider, "policies"))
	testEnv.Finish(envfuncs.DestroyCluster("policies"))
	os.Exit(testEnv.Run(m))
}

func TestAPolicyIsAccepted(t *testing.T) {
	if !*wanted {
		t.Skip("needs a container engine: go test ./docs/examples/e2eframework -args -kind")
	}
	policy := &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "default-deny", Namespace: "default"},
		Spec:       networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}},
	}
	testEnv.Test(t, features.New("default deny").
		Assess("is accepted", func(ctx context.Context, t *testing.T, cfg *envconf.Config) context.Context {
			require.NoError(t, cfg.Client().Resources().Create(ctx, policy))
			return ctx
		}).
		Assess("by a cluster that is healthy", func(ctx context.Context, t *testing.T, _ *envconf.Config) context.Context {
			assert.Equal(t, "calico", provider.Cluster().Info().CNI.Name)
			assert.NoError(t, provider.Cluster().Health(ctx))
			return ctx
		}).
		Feature())
}
