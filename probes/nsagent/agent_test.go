//go:build linux

package nsagent

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netns"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
	"github.com/netproof/netproof/probes/internal/netlab"
)

var lastNonce atomic.Int64

func newNonce() probes.Nonce { return probes.Nonce("n" + strconv.FormatInt(lastNonce.Add(1), 10)) }

func newEngine(tb testing.TB, o Options) *Engine {
	tb.Helper()
	e, err := NewEngine(o)
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, e.Close()) })
	return e
}

func newAgent(tb testing.TB, e *Engine, name string, ns netns.NsHandle, ports ...model.Port) *Agent {
	tb.Helper()
	a, err := e.NewAgent(Config{
		Identity:  probes.Identity{Endpoint: model.PodEndpoint("x", name), UID: "uid-" + name},
		Namespace: ns,
	})
	require.NoError(tb, err)
	require.NoError(tb, a.Listen(ports...))
	return a
}

// probe sends one batch and returns the outcomes by the requests' place in it. IDs and nonces are filled in.
func probe(tb testing.TB, a *Agent, batch ...probes.Request) []probes.Response {
	tb.Helper()
	for i := range batch {
		batch[i].ID = int64(i)
		if batch[i].Nonce == "" {
			batch[i].Nonce = newNonce()
		}
		if batch[i].TimeoutMs == 0 {
			batch[i].TimeoutMs = 2000
		}
	}
	out := make([]probes.Response, len(batch))
	count := 0
	err := a.Probe(context.Background(), batch, func(r probes.Response) {
		out[r.ID] = r
		count++
	})
	require.NoError(tb, err)
	require.Equal(tb, len(batch), count)
	return out
}

func tcp(n int) model.Port { return model.Port{Number: n, Protocol: model.TCP} }
func udp(n int) model.Port { return model.Port{Number: n, Protocol: model.UDP} }

func TestProbeIsAnsweredByTheServerAndRecorded(t *testing.T) {
	star := netlab.NewStar(t, 2)
	engine := newEngine(t, Options{})
	client := newAgent(t, engine, "client", star.Hosts[0].NS)
	server := newAgent(t, engine, "server", star.Hosts[1].NS, tcp(80), udp(81))
	for _, ipv6 := range []bool{false, true} {
		for _, port := range []model.Port{tcp(80), udp(81)} {
			t.Run(port.String()+" "+string(model.FamilyOf(star.Hosts[1].Address(ipv6))), func(t *testing.T) {
				before := time.Now()
				request := probes.Request{
					Nonce: newNonce(), Protocol: port.Protocol, Address: star.Hosts[1].Address(ipv6), Port: port.Number,
				}
				r := probe(t, client, request)[0]
				assert.Equal(t, probes.Answered, r.Outcome, "%+v", r)
				assert.Equal(t, request.Nonce, r.Nonce)
				assert.Equal(t, server.Identity(), r.By)
				assert.True(t, r.Sent)
				assert.Equal(t, 1, r.Attempts)
				assert.Empty(t, r.Errno)
				assert.Empty(t, r.Detail)
				assert.Equal(t, port.Protocol == model.TCP, r.Connected)
				assert.Equal(t, star.Hosts[0].Address(ipv6), r.Source.Addr())
				assert.WithinRange(t, r.SentAt, before, time.Now())
				assert.Positive(t, r.RTT)
				assert.Less(t, r.RTT, time.Since(before))

				records, err := server.Records(t.Context(), []probes.Nonce{"other", request.Nonce})
				require.NoError(t, err)
				assert.Equal(t, []probes.Record{{Nonce: request.Nonce, Peer: r.Source}}, records)
			})
		}
	}
	statuses, err := server.Liveness(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []probes.ServerStatus{{Port: tcp(80), Alive: true}, {Port: udp(81), Alive: true}}, statuses)
}
