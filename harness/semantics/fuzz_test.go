package semantics

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
)

// FuzzDecide takes a world from a seed and one policy from JSON. The evaluator must refuse the policy or decide every
// connection; it must never panic; and the order of things must not matter. Run it with -fuzzminimizetime 10x: by
// default Go spends a minute on making each new input smaller.
func FuzzDecide(f *testing.F) {
	for seed := range uint64(8) {
		p := newGenerator(seed, 0).policy("p")
		data, err := json.Marshal(p.Object)
		require.NoError(f, err)
		f.Add(seed, data)
	}
	for _, spec := range []string{
		`{}`, `{"ingress":[]}`, `{"ingress":[{}]}`, `{"egress":[{"to":[],"ports":[]}]}`, `{"policyTypes":[]}`,
		`{"ingress":[{"from":[{}]}]}`, `{"ingress":[{"from":[{"podSelector":{},"namespaceSelector":{}}]}]}`,
		`{"egress":[{"to":[{"ipBlock":{"cidr":"::ffff:10.0.0.0/97","except":["::ffff:10.0.0.0/104"]}}]}]}`,
		`{"ingress":[{"from":[{"ipBlock":{"cidr":"0.0.0.0/0","except":["10.0.0.0/8","10.0.0.0/7"]}}]}]}`,
		`{"ingress":[{"ports":[{"port":-1},{"port":"http","protocol":"SCTP"},{"port":1,"endPort":65535}]}]}`,
		`{"podSelector":{"matchExpressions":[{"key":"app","operator":"NotIn","values":["web"]}]}}`,
		`{"podSelector":{"matchExpressions":[{"key":"","operator":"Exists"}]}}`,
	} {
		f.Add(uint64(1), []byte(`{"metadata":{"name":"p","namespace":"x"},"spec":`+spec+`}`))
	}
	f.Fuzz(func(t *testing.T, seed uint64, data []byte) {
		var object networkingv1.NetworkPolicy
		if json.Unmarshal(data, &object) != nil {
			return
		}
		g := newGenerator(seed, 20)
		topology := g.topology()
		policies := append(g.policies(), Policy{Object: &object, Source: "fuzz.json:1"})
		e, err := New(topology, policies)
		if err != nil {
			var policyErr *PolicyError
			require.True(t, errors.As(err, &policyErr), err)
			require.NotEmpty(t, policyErr.Field)
			return
		}
		other, err := New(topology, shuffled(g, policies))
		require.NoError(t, err)
		conns := connections(topology)
		for range 40 {
			c := oneOf(g, conns...)
			d, err := e.Decide(c)
			require.NoError(t, err)
			requireExplained(t, c, d)
			again, err := other.Decide(c)
			require.NoError(t, err)
			require.Equal(t, outcome(d), outcome(again), c)
		}
	})
}
