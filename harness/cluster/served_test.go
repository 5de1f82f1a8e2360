package cluster

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"

	"github.com/netproof/netproof/harness/policy"
)

// lists is an API server that lists what it serves, and nothing else.
type lists struct {
	discovery.ServerResourcesInterface
	served []*metav1.APIResourceList
	err    error
}

func (l lists) ServerPreferredResources() ([]*metav1.APIResourceList, error) { return l.served, l.err }

func resources(version string, names ...string) *metav1.APIResourceList {
	list := &metav1.APIResourceList{GroupVersion: version}
	for _, name := range names {
		list.APIResources = append(list.APIResources, metav1.APIResource{Name: name, Verbs: metav1.Verbs{"list", "delete", "patch"}})
	}
	return list
}

func TestServedPoliciesAreThoseThatNetproofKnows(t *testing.T) {
	readOnly := resources(policy.CalicoAPIGroup+"/v3", "globalnetworkpolicies")
	readOnly.APIResources[0].Verbs = metav1.Verbs{"list"}
	served, silent, err := ServedPolicies(lists{served: []*metav1.APIResourceList{
		resources("v1", "pods"),
		resources("networking.k8s.io/v1", "ingresses", "networkpolicies"),
		resources("cilium.io/v3", "ciliumnodes", "ciliumnetworkpolicies", "ciliumnetworkpolicies/status"),
		resources("example.com/v1", "networkpolicies"),
		resources("no/version/at/all", "networkpolicies"),
		readOnly,
	}})
	require.NoError(t, err)
	assert.Empty(t, silent)
	require.Len(t, served, 2)
	assert.Equal(t, policy.NetworkPolicy.GroupKind(), served[0].GroupKind)
	assert.Equal(t, "CiliumNetworkPolicy", served[1].Kind.Kind)
	assert.Equal(t, schema.GroupVersionResource{Group: "cilium.io", Version: "v3", Resource: "ciliumnetworkpolicies"}, served[1].In,
		"the version is that of the API server")
}

func TestAnAPIThatDoesNotAnswerHidesNoOther(t *testing.T) {
	why := errors.New("no endpoints available")
	gv := schema.GroupVersion{Group: "projectcalico.org", Version: "v3"}
	served, silent, err := ServedPolicies(lists{
		served: []*metav1.APIResourceList{resources("networking.k8s.io/v1", "networkpolicies")},
		err:    &discovery.ErrGroupDiscoveryFailed{Groups: map[schema.GroupVersion]error{gv: why}},
	})
	require.NoError(t, err)
	assert.Len(t, served, 1)
	assert.Equal(t, map[schema.GroupVersion]error{gv: why}, silent)

	_, _, err = ServedPolicies(lists{err: why})
	require.ErrorIs(t, err, why)
}

func TestConnectingLeavesTheConfigurationAsItWas(t *testing.T) {
	cfg := &rest.Config{Host: "https://192.0.2.1", QPS: 3}
	_, err := Connect(cfg)
	require.NoError(t, err)
	_, err = ConnectMetadata(cfg)
	require.NoError(t, err)
	assert.InDelta(t, 3, cfg.QPS, 0)
	_, err = Connect(&rest.Config{Host: "https://192.0.2.1:port"})
	require.ErrorContains(t, err, "connect to the cluster")
}
