package semantics

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/model"
)

// counted decides every connection between two pods on the ports that the other declares, one at a time.
func counted(t *testing.T, e *Evaluator, topology *model.Topology, family model.IPFamily) (out Tally) {
	t.Helper()
	for i := range topology.Pods {
		for j := range topology.Pods {
			for _, p := range topology.Pods[j].Ports {
				if i == j {
					continue
				}
				d, err := e.Decide(model.Connection{
					From: topology.Pods[i].Endpoint(), To: topology.Pods[j].Endpoint(), Port: p.Number, Protocol: p.Protocol, IPFamily: family,
				})
				require.NoError(t, err)
				out.count(d, 1)
			}
		}
	}
	return out
}

func TestASummaryCountsWhatEachDecisionSays(t *testing.T) {
	var all Tally
	saved := 0
	everyWorld(t, 30, func(g *generator, topology *model.Topology, policies []Policy) {
		for i := range topology.Pods[:3] { // pods that something may treat alike, on the same and on other nodes
			for _, node := range []int{0, 1} {
				twin := topology.Pods[i]
				twin.Name += string(rune('p' + node))
				twin.Node = node
				twin.Addresses = addrs("10.0.1.250", "fd00::250")
				if twin.HostNetwork {
					twin.Addresses = topology.Nodes[node].Addresses[:2]
				}
				topology.Pods = append(topology.Pods, twin)
			}
		}
		for _, topo := range []*model.Topology{topology, unplaced(topology)} {
			e := newEvaluator(t, topo, policies...)
			for _, family := range []model.IPFamily{model.IPv4, model.IPv6} {
				s, err := e.Summarize(family)
				require.NoError(t, err)
				require.Equal(t, counted(t, e, topo, family), s.Connections, dump(policies))
				pods := 0
				for _, c := range s.Classes {
					pods += c.Pods
				}
				require.Equal(t, len(topo.Pods), pods)
				saved += pods - len(s.Classes)
				all.add(s.Connections)
			}
		}
	})
	// None of the verdicts is missing, or the property would say less than it seems to.
	assert.Positive(t, all.Allowed)
	assert.Positive(t, all.Denied)
	assert.Positive(t, all.Undefined)
	assert.Positive(t, all.NeedsAddresses)
	assert.Greater(t, saved, 100)
}

func TestASummaryOfTooManyClassesIsRefused(t *testing.T) {
	topology, _ := crowd(10_001, 0)
	for i := range topology.Pods {
		topology.Pods[i].Ports = []model.Port{{Number: 1 + i, Protocol: model.TCP}}
	}
	_, err := newEvaluator(t, topology).Summarize(model.IPv4)
	require.ErrorContains(t, err, "10001 classes of pods are too many to summarize: the most are 10000")
}

func TestPodsWithoutAnAddressOfTheFamilyHaveNoConnections(t *testing.T) {
	topology := testTopology()
	for i := range topology.Pods {
		topology.Pods[i].Addresses = addrs("10.0.0.1")
		topology.Pods[i].HostNetwork = false
	}
	s, err := newEvaluator(t, topology).Summarize(model.IPv6)
	require.NoError(t, err)
	assert.Zero(t, s.Connections.Total())
	assert.NotEmpty(t, s.Classes)
}
