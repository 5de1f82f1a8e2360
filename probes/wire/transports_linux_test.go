package wire

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
	"github.com/netproof/netproof/probes/internal/netlab"
	"github.com/netproof/netproof/probes/nsagent"
)

func TestBothTransportsGiveEqualResults(t *testing.T) {
	star := netlab.NewStar(t, 2)
	netlab.Filter(t, star.Router, netlab.Forward("th dport 81 drop", "th dport 82 reject with icmpx type admin-prohibited"))
	engine, err := nsagent.NewEngine(nsagent.Options{})
	require.NoError(t, err)
	defer engine.Close()
	newAgent := func(name string, host *netlab.Host) *nsagent.Agent {
		a, err := engine.NewAgent(nsagent.Config{
			Identity: probes.Identity{Endpoint: model.PodEndpoint("x", name), UID: name}, Namespace: host.NS,
		})
		require.NoError(t, err)
		return a
	}
	client, server := newAgent("client", star.Hosts[0]), newAgent("server", star.Hosts[1])
	for port := 80; port <= 82; port++ {
		require.NoError(t, server.Listen(model.Port{Number: port, Protocol: model.TCP}, model.Port{Number: port, Protocol: model.UDP}))
	}
	type results struct {
		responses []probes.Response
		records   []probes.Record
		servers   []probes.ServerStatus
	}
	see := func(prefix string, client, server probes.Agent) results {
		var batch []probes.Request
		var nonces []probes.Nonce
		for _, address := range []netip.Addr{star.Hosts[1].IPv4, star.Hosts[1].IPv6, netip.MustParseAddr("192.0.2.1")} {
			for port := 80; port <= 83; port++ {
				for _, p := range []model.Protocol{model.TCP, model.UDP, "odd"} {
					r := probes.Request{
						ID: int64(len(batch)), Nonce: probes.Nonce(fmt.Sprintf("%s%d", prefix, len(batch))),
						Protocol: p, Address: address, Port: port, TimeoutMs: 400,
					}
					batch, nonces = append(batch, r), append(nonces, r.Nonce)
				}
			}
		}
		out := results{responses: make([]probes.Response, len(batch))}
		require.NoError(t, client.Probe(t.Context(), batch, func(r probes.Response) { out.responses[r.ID] = r }))
		out.records, err = server.Records(t.Context(), nonces)
		require.NoError(t, err)
		out.servers, err = server.Liveness(t.Context())
		require.NoError(t, err)
		// What differs from run to run by its nature.
		sources := map[probes.Nonce]netip.AddrPort{}
		for i := range out.responses {
			r := &out.responses[i]
			assert.Equal(t, r.Sent, !r.SentAt.IsZero() && r.Sent)
			sources[r.Nonce] = r.Source
			r.Nonce, r.SentAt, r.RTT, r.Source = r.Nonce[1:], time.Time{}, 0, netip.AddrPort{}
		}
		for i := range out.records {
			assert.Equal(t, sources[out.records[i].Nonce], out.records[i].Peer)
			out.records[i] = probes.Record{Nonce: out.records[i].Nonce[1:]}
		}
		return out
	}
	direct := see("d", client, server)
	remote := see("r", connect(t, client), connect(t, server))
	assert.Equal(t, direct, remote)
	assert.Len(t, direct.records, 4)
	assert.Len(t, direct.servers, 6)
	assert.Equal(t, client.Identity(), connect(t, client).Identity())
	outcomes := map[probes.Outcome]int{}
	for _, r := range direct.responses {
		outcomes[r.Outcome]++
	}
	assert.Equal(t, map[probes.Outcome]int{
		probes.Answered: 4, probes.Timeout: 4, probes.Prohibited: 4, probes.Reset: 4, probes.Error: 20,
	}, outcomes)
}
