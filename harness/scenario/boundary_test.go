package scenario

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestPortsAtTheEdgesOfRangesAreAsked(t *testing.T) {
	quiet := func(spec, assertions string) map[string]string {
		files := shopOf(spec)
		files["netproof.yaml"] = assertions1(assertions)
		return files
	}
	const db = "jobs/job shop/db "
	for name, c := range map[string]struct {
		spec, assertions string
		want             []string
	}{
		"a range": {
			"{podSelector: {}, ingress: [{ports: [{port: 5432, endPort: 6000}]}]}", "{strangers: []}",
			[]string{db + "5431/TCP", db + "5432/TCP", db + "6000/TCP", db + "6001/TCP"},
		},
		"of another protocol": {
			"{podSelector: {}, ingress: [{ports: [{port: 1, endPort: 65535, protocol: UDP}]}]}", "{strangers: []}",
			[]string{db + "5432/TCP", db + "1/UDP", db + "65535/UDP"},
		},
		"a number is no range": {
			"{podSelector: {}, ingress: [{ports: [{port: 5432}, {port: 80}]}]}", "{strangers: []}",
			[]string{db + "5432/TCP"},
		},
		"unless it is asked for": {
			"{podSelector: {}, ingress: [{ports: [{port: 5432}]}]}", "{strangers: [], probes: boundary}",
			[]string{db + "5431/TCP", db + "5432/TCP", db + "5433/TCP"},
		},
		"declared ports only": {
			"{podSelector: {}, ingress: [{ports: [{port: 5432, endPort: 6000}]}]}", "{strangers: [], probes: declared}",
			[]string{db + "5432/TCP"},
		},
		"a policy that selects nobody there": {
			"{podSelector: {matchLabels: {app: other}}, ingress: [{ports: [{port: 5432, endPort: 6000}]}]}", "{strangers: []}",
			[]string{db + "5432/TCP"},
		},
		"egress, to those that the rule leads to": {
			"{podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: 5000, endPort: 5432}]}]}", "{strangers: []}",
			[]string{db + "4999/TCP", db + "5000/TCP", db + "5432/TCP", db + "5433/TCP"},
		},
		"egress, to somebody else": {
			"{podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 5000, endPort: 5432}]}]}", "{strangers: []}",
			[]string{db + "5432/TCP"},
		},
		"connections that are named": {
			"{podSelector: {}, ingress: [{ports: [{port: 5432, endPort: 6000}]}]}", "{probes: [{from: jobs/job, to: shop/db}]}",
			[]string{db + "5432/TCP"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			assert.ElementsMatch(t, c.want, asked(t, quiet(c.spec, c.assertions)))
		})
	}
}

func TestThePortsThatAreAddedAreBounded(t *testing.T) {
	spec := "{podSelector: {}, ingress: [{ports: ["
	for first := 1000; first < 10_000; first += 1000 {
		spec += fmt.Sprintf("{port: %d, endPort: %d}, ", first, first+5)
	}
	files := shopOf(spec + "]}]}")
	files["netproof.yaml"] = assertions1("{strangers: []}")
	assert.Len(t, asked(t, files), 1+maxBoundaries)
	assert.Contains(t, mustLoad(t, files)[0].Notes[0], "policies' ranges not asked about: 32 are added to a pod at most")
}
