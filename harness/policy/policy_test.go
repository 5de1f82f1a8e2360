package policy

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestEveryKindIsFoundByBothOfItsNames(t *testing.T) {
	families := append(Families(), Kubernetes)
	require.NotEmpty(t, Kinds())
	for _, k := range Kinds() {
		byKind, ok := Lookup(k.GroupKind)
		assert.True(t, ok)
		assert.Equal(t, k, byKind, "no other kind has the name")
		byResource, ok := LookupResource(k.GroupResource())
		assert.True(t, ok)
		assert.Equal(t, k, byResource, "no other kind has the resource")
		assert.Contains(t, families, k.Family)
		assert.Contains(t, OfFamily(k.Family), k)
		assert.Contains(t, OfGroup(k.Group), k)
		assert.True(t, strings.HasPrefix(k.Resource, strings.TrimSuffix(strings.ToLower(k.Kind), "y")), "%s is the plural of %s", k.Resource, k.Kind)
		assert.Equal(t, strings.HasPrefix(k.Kind, "Staged"), k.Role == Staged, k.Kind)
	}
	_, ok := Lookup(schema.GroupKind{Group: CiliumGroup, Kind: "CiliumNode"})
	assert.False(t, ok, "what configures a plugin is not applied")
	_, ok = LookupResource(schema.GroupResource{Group: CiliumGroup, Resource: "networkpolicies"})
	assert.False(t, ok, "the group counts")
	assert.Empty(t, OfGroup("example.com"))
}

func TestTheTableCannotBeChangedThroughWhatItGives(t *testing.T) {
	Kinds()[0].Resource = "changed"
	assert.Equal(t, "networkpolicies", Kinds()[0].Resource)
}

func TestAnObjectHasOneNameInTextsAndOneInFiles(t *testing.T) {
	for _, tc := range []struct{ version, kind, namespace, text, path string }{
		{"networking.k8s.io/v1", "NetworkPolicy", "x", "NetworkPolicy x/deny", "NetworkPolicy/x/deny"},
		{"crd.projectcalico.org/v1", "Tier", "", "Tier deny", "Tier/deny"},
	} {
		o := &unstructured.Unstructured{}
		o.SetAPIVersion(tc.version)
		o.SetKind(tc.kind)
		o.SetNamespace(tc.namespace)
		o.SetName("deny")
		ref := RefOf(o)
		assert.Equal(t, tc.text, ref.String())
		assert.Equal(t, tc.path, ref.Path())
		o.SetAPIVersion(o.GroupVersionKind().Group + "/v9")
		assert.NotEqual(t, ref, RefOf(o))
		assert.Equal(t, ref.Key(), RefOf(o).Key(), "versions of an API show the same object")
	}
}
