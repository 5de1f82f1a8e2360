package expect

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const disagrees = `apiVersion: netproof.dev/v1alpha1
kind: Scenario
metadata: {name: disagrees}
spec:
  topology:
    namespaces: [{name: x}]
    pods:
      - {name: x/a, labels: {app: a}, ports: [80]}
      - {name: x/b, labels: {app: b}, ports: [80]}
      - {name: x/c, labels: {app: c}, ports: [80]}
      - {name: x/d, labels: {app: d}, ports: [80]}
  steps:
    - name: isolated
      apply:
        - apiVersion: networking.k8s.io/v1
          kind: NetworkPolicy
          metadata: {name: b, namespace: x}
          spec: {podSelector: {matchLabels: {app: b}}, policyTypes: [Ingress]}
        - apiVersion: networking.k8s.io/v1
          kind: NetworkPolicy
          metadata: {name: c, namespace: x}
          spec: {podSelector: {matchLabels: {app: c}}, policyTypes: [Ingress]}
      expect: {default: allow}
`

func TestCellsThatDisagreeForOneReasonAreSaidOnce(t *testing.T) {
	_, err := Prepare(load(t, disagrees), two)
	var d *Disagreement
	require.ErrorAs(t, err, &d)
	assert.Equal(t, "x/a->x/b:80/TCP/IPv4/podIP", d.Connection.String())
	assert.Len(t, d.Others, 2)
	// One for each of the two policies.
	assert.Equal(t, 2, strings.Count(err.Error(), "the specification says deny by ingress"))
	assert.Contains(t, err.Error(), "x/a->x/b:80/TCP/IPv4/podIP, and 2 more: x/c->x/b:80/TCP/IPv4/podIP and x/d->x/b:80/TCP/IPv4/podIP: the table says allow")
	assert.Contains(t, err.Error(), "x/a->x/c:80/TCP/IPv4/podIP, and 2 more")
}
