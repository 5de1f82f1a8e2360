package expect

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/scenario"
)

func TestAChangedTableIsASummary(t *testing.T) {
	conn := func(from, to string) model.Connection {
		return model.Connection{From: model.Endpoint(from), To: model.Endpoint(to), Port: 80, Protocol: model.TCP, IPFamily: model.IPv4, Via: model.ViaPodIP}
	}
	e := &ReviewError{Scenario: "shop", File: "expected.txt"}
	for i := range 30 {
		e.Differences = append(e.Differences,
			scenario.Difference{Source: "expected.txt", Step: "policies", Connection: conn("kube-system/coredns", fmt.Sprintf("x/%d", i)), Computed: model.Allow})
	}
	e.Differences = append(e.Differences,
		scenario.Difference{Source: "expected.txt:7", Step: "policies", Connection: conn("x/a", "x/b"), Written: model.Deny, Computed: model.Allow},
		scenario.Difference{Source: "expected.txt:9", Step: "policies", Connection: conn("x/old", "x/b"), Written: model.Allow},
		scenario.Difference{Source: "expected.txt:9", Step: "policies", Connection: conn("x/a", "x/old"), Written: model.Allow},
		scenario.Difference{Source: "expected.txt:9", Step: "policies", Connection: conn("x/c", "x/d"), Written: model.Allow})
	assert.Equal(t, strings.Join([]string{
		`expected.txt:7: step "policies": x/a -> x/b 80/TCP IPv4: the file says deny, the specification says allow`,
		`expected.txt: 30 cells, which the file does not have: 30 from or to kube-system/coredns`,
		`expected.txt: 3 cells, which the file has and nothing probes any more: 2 from or to x/old, 1 from or to x/c`,
		`    fix: if the change is wanted, run once with --update-expected, and have the new table reviewed like code`,
	}, "\n"), e.Error())
}
