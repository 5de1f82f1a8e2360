package cluster

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestWhatIsRestoredIsComparedWithAllThatWas(t *testing.T) {
	strict := "restricted"
	r := Restore{
		Run: "0badc0de", Labels: map[string]*string{"pod-security.kubernetes.io/enforce": &strict, "team": nil},
		Before: map[string]string{"pod-security.kubernetes.io/enforce": strict, "tier": "front", "owner": "us"},
	}
	text, ok := r.Annotation().(string)
	require.True(t, ok)
	read, ok, err := ReadRestore(map[string]string{RestoreAnnotation: text})
	require.NoError(t, err)
	require.True(t, ok)
	assert.Equal(t, r, read)

	var patch struct {
		Metadata struct{ Labels, Annotations map[string]*string }
	}
	require.NoError(t, json.Unmarshal(read.Patch(), &patch))
	assert.Equal(t, r.Labels, patch.Metadata.Labels, "labels of others are not touched")
	assert.Equal(t, map[string]*string{RestoreAnnotation: nil}, patch.Metadata.Annotations)

	assert.Empty(t, read.Differences(r.Before))
	assert.Equal(t, []string{
		`owner is gone, and was "us" before`,
		`pod-security.kubernetes.io/enforce is "privileged", and was "restricted" before`,
		`team is "red", and was not there before`,
	}, read.Differences(map[string]string{"pod-security.kubernetes.io/enforce": "privileged", "tier": "front", "team": "red"}))
	assert.Empty(t, Restore{Run: "0badc0de"}.Differences(map[string]string{"team": "red"}), "nothing is known of before")
	assert.Nil(t, Restore{Run: "0badc0de", Before: r.Before}.Annotation(), "nothing is changed")
}

func TestWhatHoldsAnObjectIsNamedWithTheWayToLetItGo(t *testing.T) {
	assert.Empty(t, Held("pods", "x", "a", nil))
	assert.Equal(t, "held by its finalizers example.com/a, example.com/b: if nobody is left who takes them away, "+
		`kubectl patch networkpolicies.networking.k8s.io deny -n x --type=merge -p '{"metadata":{"finalizers":null}}' does`,
		Held("networkpolicies.networking.k8s.io", "x", "deny", []string{"example.com/a", "example.com/b"}))
	assert.Contains(t, Held("namespaces", "", "x", []string{"example.com/a"}), "kubectl patch namespaces x --type=merge")
}
