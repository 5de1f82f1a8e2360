package existing

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	networkingv1 "k8s.io/client-go/applyconfigurations/networking/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/netproof/netproof/harness/cluster/lease"
)

func TestRequestsAreReadAsTheAPIServerReadsThem(t *testing.T) {
	for _, tc := range []struct {
		method, url string
		want        Access
	}{
		{"GET", "/version", Access{Verb: "get", Path: "/version"}},
		{"GET", "/api", Access{Verb: "get", Path: "/api"}},
		{"GET", "/api/v1", Access{Verb: "get", Path: "/api/v1"}},
		{"GET", "/apis/apps/v1", Access{Verb: "get", Path: "/apis/apps/v1"}},
		{"GET", "/api/v1/pods?limit=200", Access{Verb: "list", Resource: "pods"}},
		{"GET", "/api/v1/pods?watch=true", Access{Verb: "watch", Resource: "pods"}},
		{"GET", "/api/v1/pods?watch=false", Access{Verb: "list", Resource: "pods"}},
		{"GET", "/api/v1/namespaces", Access{Verb: "list", Resource: "namespaces"}},
		{"GET", "/api/v1/namespaces?watch=1&fieldSelector=metadata.name%3Dx", Access{Verb: "watch", Resource: "namespaces"}},
		{"DELETE", "/api/v1/namespaces/x", Access{Verb: "delete", Resource: "namespaces", Namespace: "x", Name: "x"}},
		{"PUT", "/api/v1/namespaces/x/finalize", Access{Verb: "update", Resource: "namespaces", Subresource: "finalize", Namespace: "x", Name: "x"}},
		{"POST", "/api/v1/namespaces/x/pods", Access{Verb: "create", Resource: "pods", Namespace: "x"}},
		{"DELETE", "/api/v1/namespaces/x/pods", Access{Verb: "deletecollection", Resource: "pods", Namespace: "x"}},
		{"GET", "/api/v1/namespaces/x/pods/a/exec?command=b", Access{Verb: "get", Resource: "pods", Subresource: "exec", Namespace: "x", Name: "a"}},
		{"POST", "/api/v1/namespaces/x/pods/a/exec", Access{Verb: "create", Resource: "pods", Subresource: "exec", Namespace: "x", Name: "a"}},
		{"PATCH", "/apis/cilium.io/v2/ciliumclusterwidenetworkpolicies/a", Access{Verb: "patch", Group: "cilium.io", Resource: "ciliumclusterwidenetworkpolicies", Name: "a"}},
		{"PUT", "/apis/coordination.k8s.io/v1/namespaces/x/leases/l", Access{Verb: "update", Group: "coordination.k8s.io", Resource: "leases", Namespace: "x", Name: "l"}},
	} {
		u, err := url.Parse(tc.url)
		require.NoError(t, err)
		assert.Equal(t, tc.want, accessOf(tc.method, u), "%s %s", tc.method, tc.url)
	}
}

func TestARecorderComparesWhatIsDoneWithWhatIsAllowed(t *testing.T) {
	// A fake API server that knows nothing: what is asked for is all that counts.
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusOK)
		_, _ = w.Write([]byte(`{}`))
	}))
	t.Cleanup(server.Close)
	var asked recorder
	cfg := &rest.Config{Host: server.URL}
	asked.Wrap(cfg)
	client, err := kubernetes.NewForConfig(cfg)
	require.NoError(t, err)

	_, err = client.CoreV1().ConfigMaps("kube-system").Get(t.Context(), "cilium-config", metav1.GetOptions{})
	require.NoError(t, err)
	_, err = client.CoreV1().Pods("x").List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	_, err = client.NetworkingV1().NetworkPolicies("x").Apply(t.Context(), networkingv1.NetworkPolicy("deny", "x"), metav1.ApplyOptions{FieldManager: "test"})
	require.NoError(t, err)
	_, err = client.CoordinationV1().Leases("elsewhere").Get(t.Context(), "netproof", metav1.GetOptions{})
	require.NoError(t, err)
	_, err = client.CoordinationV1().Leases(lease.Namespace).Get(t.Context(), "netproof", metav1.GetOptions{})
	require.NoError(t, err)
	_, _ = client.Discovery().ServerVersion() // {} is no version

	grants := []Grant{
		{Rule: rule("", []string{"pods"}, "list", "watch")},
		{Rule: named(rule("", []string{"configmaps"}, "get"), "cilium-config")},
		{Rule: rule("networking.k8s.io", []string{"networkpolicies"}, "patch")},
		{Rule: rule("coordination.k8s.io", []string{"leases"}, "get", "update"), Namespace: lease.Namespace},
		{Rule: rule("projectcalico.org", []string{"tier.networkpolicies"}, "get"), Implied: true},
	}
	assert.Equal(t, []string{
		"create networkpolicies.networking.k8s.io in x", // an apply may have to create
		"get /version",
		"get leases.coordination.k8s.io in elsewhere",
	}, asked.Uncovered(grants))
	assert.Equal(t, []string{"update leases.coordination.k8s.io", "watch pods"}, asked.Unused(grants))

	all := []Grant{{Rule: rule("*", []string{"*"}, "*")}}
	assert.Equal(t, []string{"get /version"}, asked.Uncovered(all))
	other := append(grants[:1:1], Grant{Rule: named(rule("", []string{"configmaps"}, "get"), "another")})
	assert.Contains(t, asked.Uncovered(other), "get configmaps in kube-system")
}
