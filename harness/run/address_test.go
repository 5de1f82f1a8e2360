//go:build linux

package run

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/expect"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/scenario"
)

// exceptB admits all of a network but x/b, whose address is not in every network.
func exceptB(cidr string) string {
	return scene("except-b", trio, "  steps:", `
    - name: by address
      apply:
        - apiVersion: networking.k8s.io/v1
          kind: NetworkPolicy
          metadata: {name: by-address, namespace: x}
          spec:
            podSelector: {matchLabels: {app: c}}
            policyTypes: [Ingress]
            ingress: [{from: [{ipBlock: {cidr: `+cidr+`, except: ["$(cidr:x/b)"]}}]}]
      expect:
        default: allow
        rules: [{from: x/b, to: x/c, verdict: deny}]`)
}

func TestAnExceptionIsNotJudgedBeforeItsAddressIsKnown(t *testing.T) {
	for _, cidr := range []string{"10.0.0.0/8", "198.51.100.0/24", `"$(cidr:x/a/24)"`} {
		_, err := expect.Prepare(load(t, exceptB(cidr)), expect.Options{Families: []model.IPFamily{model.IPv4}, Nodes: 2})
		assert.NoError(t, err, cidr)
	}
}

func TestAnExceptionOutsideOfItsNetworkIsWrongInput(t *testing.T) {
	l := sharedCluster(t)
	before := l.left(t)
	_, _, err := Run(t.Context(), l, prepare(t, exceptB("198.51.100.0/24")), Options{})
	var problems scenario.Problems
	require.ErrorAs(t, err, &problems)
	require.Len(t, problems, 1)
	assert.Equal(t, "0.scenario.yaml", problems[0].File)
	assert.Contains(t, problems[0].Message, "is not part of the cidr 198.51.100.0/24")
	assert.NotEmpty(t, problems[0].Fix)
	assert.Equal(t, before, l.left(t), "all is gone")

	r, _, err := Run(t.Context(), l, prepare(t, exceptB("0.0.0.0/0")), Options{})
	require.NoError(t, err)
	assert.Equal(t, passed, results(stepOf(t, r, "by address"))["x/b x/c"])
}
