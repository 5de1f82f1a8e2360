package scenario

import (
	"fmt"
	"strings"
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
	assert.Len(t, asked(t, files), 1+maxEdges)
	assert.Contains(t, mustLoad(t, files)[0].Notes[0], "policies' ranges not asked about: 32 are added to a pod at most")
}

func TestHostsThatAreMadeForBlocksAreAskedAtEdgesToo(t *testing.T) {
	files := shopOf("{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 203.0.113.0/24}}], ports: [{port: 8000, endPort: 8100}, {port: 443}]}]}")
	files["netproof.yaml"] = assertions1("{strangers: [outside]}")
	var got []string
	for _, c := range asked(t, files) {
		if strings.HasPrefix(c, "shop/db host:203.0.113.1 ") {
			got = append(got, c)
		}
	}
	const host = "shop/db host:203.0.113.1 "
	assert.ElementsMatch(t, []string{host + "7999/TCP", host + "8000/TCP", host + "8100/TCP", host + "8101/TCP", host + "443/TCP"}, got)
}

func TestAPortThatSomebodyNamesIsNotOnlyAnEdge(t *testing.T) {
	edge := portRange{protocol: "TCP", first: 80, last: 90}.edges()
	ports := withPort(edge, Port{Port: 91, Protocol: "TCP"})
	assert.Len(t, ports, 4)
	assert.False(t, ports[3].edge)
	assert.True(t, ports[0].edge)
}
