package install_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/netproof/netproof/harness/cni/install"
)

// apiServer is as much of an API server as an installation meets: discovery, server-side apply, and custom resource
// definitions, which are served some time after they were applied. The kind lane applies the real bundles to a real
// one.
type apiServer struct {
	mu      sync.Mutex
	applied []string
	// defined tells whether the definition was applied, served whether its kind is.
	defined, served bool
	watched         chan struct{}
	// namesTaken makes the definition one that never can be served.
	namesTaken bool
	// refuse answers an apply of the path with this status.
	refuse map[string]metav1.Status
}

func newAPIServer(t *testing.T) (*apiServer, *rest.Config) {
	t.Helper()
	s := &apiServer{refuse: map[string]metav1.Status{}, watched: make(chan struct{}, 10)}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return s, &rest.Config{Host: server.URL}
}

func resources(groupVersion string, all ...metav1.APIResource) metav1.APIResourceList {
	return metav1.APIResourceList{
		TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: groupVersion, APIResources: all,
	}
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case r.Method == http.MethodPatch:
		s.apply(w, r)
	case r.URL.Query().Has("watch"):
		s.watch(w)
	case strings.HasSuffix(r.URL.Path, "/customresourcedefinitions"):
		answer(w, http.StatusOK, map[string]any{
			"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinitionList",
			"metadata": map[string]any{"resourceVersion": "7"}, "items": []any{s.definition()},
		})
	default:
		s.discover(w, r.URL.Path)
	}
}

func (s *apiServer) apply(w http.ResponseWriter, r *http.Request) {
	status, refused := s.refuse[r.URL.Path]
	if refused {
		answer(w, int(status.Code), status)
		return
	}
	s.applied = append(s.applied, fmt.Sprintf("%s manager=%s force=%s", r.URL.Path, r.URL.Query().Get("fieldManager"), r.URL.Query().Get("force")))
	s.defined = s.defined || path.Base(r.URL.Path) == "rules.example.com"
	var object map[string]any
	if err := json.NewDecoder(r.Body).Decode(&object); err != nil {
		panic(err)
	}
	answer(w, http.StatusOK, object)
}

// watch serves the kind from now on, and says so.
func (s *apiServer) watch(w http.ResponseWriter) {
	s.served = true
	s.watched <- struct{}{}
	answer(w, http.StatusOK, map[string]any{"type": "MODIFIED", "object": s.definition()})
	_ = http.NewResponseController(w).Flush()
}

func (s *apiServer) definition() map[string]any {
	status := func(yes bool) string { return map[bool]string{true: "True", false: "False"}[yes] }
	return map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": map[string]any{"name": "rules.example.com"},
		"status": map[string]any{"conditions": []any{
			map[string]any{"type": "NamesAccepted", "status": status(!s.namesTaken), "message": "rules is in use"},
			map[string]any{"type": "Established", "status": status(s.served && s.defined)},
		}},
	}
}

func (s *apiServer) discover(w http.ResponseWriter, where string) {
	groups := map[string]metav1.APIResourceList{
		"apps/v1":                      resources("apps/v1", metav1.APIResource{Name: "daemonsets", Kind: "DaemonSet", Namespaced: true}),
		"apiextensions.k8s.io/v1":      resources("apiextensions.k8s.io/v1", metav1.APIResource{Name: "customresourcedefinitions", Kind: "CustomResourceDefinition"}),
		"rbac.authorization.k8s.io/v1": resources("rbac.authorization.k8s.io/v1", metav1.APIResource{Name: "clusterroles", Kind: "ClusterRole"}),
	}
	if s.served {
		groups["example.com/v1"] = resources("example.com/v1", metav1.APIResource{Name: "rules", Kind: "Rule"})
	}
	switch where {
	case "/api":
		answer(w, http.StatusOK, metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"}})
	case "/apis":
		list := metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}}
		for version := range groups {
			v := metav1.GroupVersionForDiscovery{GroupVersion: version, Version: "v1"}
			list.Groups = append(list.Groups, metav1.APIGroup{Name: path.Dir(version), Versions: []metav1.GroupVersionForDiscovery{v}, PreferredVersion: v})
		}
		answer(w, http.StatusOK, list)
	case "/api/v1":
		answer(w, http.StatusOK, resources("v1",
			metav1.APIResource{Name: "namespaces", Kind: "Namespace"},
			metav1.APIResource{Name: "serviceaccounts", Kind: "ServiceAccount", Namespaced: true}))
	default:
		list, ok := groups[strings.TrimPrefix(where, "/apis/")]
		if !ok {
			answer(w, http.StatusNotFound, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound})
			return
		}
		answer(w, http.StatusOK, list)
	}
}

func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body)
}

func failure(code int32, reason metav1.StatusReason, message string) metav1.Status {
	return metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: code, Reason: reason, Message: message,
	}
}

func bundleOf(t *testing.T) *install.Bundle {
	t.Helper()
	bundle, err := loadManifest(t)
	require.NoError(t, err)
	return bundle
}

func TestObjectsAreAppliedWhenWhatTheyNeedIsThere(t *testing.T) {
	server, config := newAPIServer(t)
	require.NoError(t, bundleOf(t).Apply(t.Context(), config))
	const how = " manager=netproof force=false"
	assert.Equal(t, []string{
		"/api/v1/namespaces/plugin" + how,
		"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/rules.example.com" + how,
		"/api/v1/namespaces/kube-system/serviceaccounts/agent" + how,
		"/apis/rbac.authorization.k8s.io/v1/clusterroles/agent" + how,
		"/apis/example.com/v1/rules/first" + how,
		"/apis/apps/v1/namespaces/kube-system/daemonsets/agent" + how,
	}, server.applied)
	assert.Len(t, server.watched, 1, "it was waited for the definition once")
}

func TestApplyingAgainWaitsForNothing(t *testing.T) {
	server, config := newAPIServer(t)
	server.served, server.defined = true, true
	bundle := bundleOf(t)
	for range 2 {
		require.NoError(t, bundle.Apply(t.Context(), config))
	}
	assert.Empty(t, server.watched)
}

func TestErrorOfTheAPIServerNamesTheObject(t *testing.T) {
	const agent = "/apis/apps/v1/namespaces/kube-system/daemonsets/agent"
	for want, status := range map[string]metav1.Status{
		"apply DaemonSet kube-system/agent: privileged is not allowed":                                                                    failure(http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, "privileged is not allowed"),
		"apply DaemonSet kube-system/agent: somebody else has set it up already, and nothing of theirs is changed: conflict with kubectl": failure(http.StatusConflict, metav1.StatusReasonConflict, "conflict with kubectl"),
	} {
		server, config := newAPIServer(t)
		server.refuse[agent] = status
		assert.ErrorContains(t, bundleOf(t).Apply(t.Context(), config), want)
	}
}

func TestKindThatTheClusterDoesNotServeIsNamed(t *testing.T) {
	_, config := newAPIServer(t)
	bundle, err := loadManifest(t, func(o *install.Options) {
		o.Manifest = file(t, "m.yaml", []byte("apiVersion: example.com/v1\nkind: Rule\nmetadata: {name: first}\n"))
	})
	require.NoError(t, err)
	require.ErrorContains(t, bundle.Apply(t.Context(), config), "apply Rule first: the cluster does not serve example.com/v1, Kind=Rule")
}

func TestDefinitionWhoseNamesAreTakenEndsTheWait(t *testing.T) {
	server, config := newAPIServer(t)
	server.namesTaken = true
	require.ErrorContains(t, bundleOf(t).Apply(t.Context(), config), "CustomResourceDefinition rules.example.com: its names are taken: rules is in use")
}
