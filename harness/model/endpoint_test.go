package model

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestAServiceSelectsPodsOfItsNamespaceThatHaveAllLabels(t *testing.T) {
	service := Service{Namespace: "x", Selector: Labels{"app": "a", "tier": ""}}
	for name, tc := range map[string]struct {
		pod  Pod
		want bool
	}{
		"with them and more":   {Pod{Namespace: "x", Labels: Labels{"app": "a", "tier": "", "more": "1"}}, true},
		"with another value":   {Pod{Namespace: "x", Labels: Labels{"app": "b", "tier": ""}}, false},
		"without an empty one": {Pod{Namespace: "x", Labels: Labels{"app": "a"}}, false},
		"elsewhere":            {Pod{Namespace: "y", Labels: Labels{"app": "a", "tier": ""}}, false},
	} {
		assert.Equal(t, tc.want, service.Selects(&tc.pod), name)
	}
	assert.False(t, Service{Namespace: "x"}.Selects(&Pod{Namespace: "x"}), "without a selector it has no pods")
}

func TestAServicePortLeadsToANumberOrANameOnThePod(t *testing.T) {
	pod := &Pod{Ports: []Port{{Name: "web", Number: 8080, Protocol: TCP}, {Name: "web", Number: 5353, Protocol: UDP}}}
	for name, tc := range map[string]struct {
		target string
		want   int
		ok     bool
	}{
		"the same number":                      {"", 80, true},
		"another":                              {"9000", 9000, true},
		"a name, of the port's protocol":       {"web", 8080, true},
		"a name that no port of the pod has":   {"db", 0, false},
		"a number that the pod does not serve": {"1", 1, true},
	} {
		number, ok := ServicePort{Port: Port{Number: 80, Protocol: TCP}, Target: tc.target}.On(pod)
		assert.Equal(t, tc.want, number, name)
		assert.Equal(t, tc.ok, ok, name)
	}
}
