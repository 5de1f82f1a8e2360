//go:build linux

package nsagent

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
	"github.com/netproof/netproof/probes/internal/netlab"
)

// want says how a response should be; empty fields are not looked at, except that Errno must then be empty too.
type want struct {
	outcome probes.Outcome
	errno   string
	detail  string
	notSent bool
}

func (w want) check(t *testing.T, r probes.Response) {
	t.Helper()
	assert.Equal(t, w.outcome, r.Outcome, "%+v", r)
	assert.Equal(t, w.errno, r.Errno, "%+v", r)
	assert.Contains(t, r.Detail, w.detail)
	assert.Equal(t, !w.notSent, r.Sent, "%+v", r)
	if w.outcome == probes.Timeout {
		assert.Zero(t, r.RTT)
	}
	if w.outcome != probes.Answered {
		assert.Zero(t, r.By)
	}
}

var bothFamilies = []bool{false, true}

func familyName(ipv6 bool) string {
	if ipv6 {
		return string(model.IPv6)
	}
	return string(model.IPv4)
}

func TestEachWayOfRefusingHasItsOutcome(t *testing.T) {
	star := netlab.NewStar(t, 2)
	// Linux sends few ICMP errors to one host in a short time.
	netlab.Sysctl(t, star.Router, "net/ipv4/icmp_ratelimit", "0")
	netlab.Sysctl(t, star.Router, "net/ipv6/icmp/ratelimit", "0")
	engine := newEngine(t, Options{})
	client := newAgent(t, engine, "client", star.Hosts[0].NS)
	server := newAgent(t, engine, "server", star.Hosts[1].NS, tcp(80), udp(80))

	prohibited4 := want{outcome: probes.Prohibited, errno: "EHOSTUNREACH", detail: "ICMP type 3 code 13 from 10.20.0.1"}
	prohibited6 := want{outcome: probes.Prohibited, errno: "EACCES", detail: "ICMPv6 type 1 code 1 from fd20::1"}
	for _, c := range []struct {
		rule     string
		v4, v6   *want
		protocol model.Protocol // empty: both
	}{
		{rule: "drop", v4: &want{outcome: probes.Timeout}, v6: &want{outcome: probes.Timeout}},
		{
			rule: "meta l4proto tcp reject with tcp reset", protocol: model.TCP,
			v4: &want{outcome: probes.Reset, errno: "ECONNREFUSED"}, v6: &want{outcome: probes.Reset, errno: "ECONNREFUSED"},
		},
		{rule: "reject with icmpx type admin-prohibited", v4: &prohibited4, v6: &prohibited6},
		{
			rule: "reject with icmpx type port-unreachable",
			v4:   &want{outcome: probes.Reset, errno: "ECONNREFUSED", detail: "ICMP type 3 code 3 from 10.20.0.1"},
			v6:   &want{outcome: probes.Reset, errno: "ECONNREFUSED", detail: "ICMPv6 type 1 code 4 from fd20::1"},
		},
		{
			rule: "reject with icmpx type host-unreachable",
			v4:   &want{outcome: probes.Unreachable, errno: "EHOSTUNREACH", detail: "ICMP type 3 code 1 from 10.20.0.1"},
			v6:   &want{outcome: probes.Unreachable, errno: "EHOSTUNREACH", detail: "ICMPv6 type 1 code 3 from fd20::1"},
		},
		{
			rule: "reject with icmpx type no-route",
			v4:   &want{outcome: probes.Unreachable, errno: "ENETUNREACH", detail: "ICMP type 3 code 0 from 10.20.0.1"},
			v6:   &want{outcome: probes.Unreachable, errno: "ENETUNREACH", detail: "ICMPv6 type 1 code 0 from fd20::1"},
		},
		{
			rule: "meta nfproto ipv4 reject with icmp type net-prohibited",
			v4:   &want{outcome: probes.Prohibited, errno: "ENETUNREACH", detail: "ICMP type 3 code 9 from 10.20.0.1"},
		},
		{
			rule: "meta nfproto ipv4 reject with icmp type host-prohibited",
			v4:   &want{outcome: probes.Prohibited, errno: "EHOSTUNREACH", detail: "ICMP type 3 code 10 from 10.20.0.1"},
		},
		{
			rule: "meta nfproto ipv6 reject with icmpv6 type policy-fail",
			v6:   &want{outcome: probes.Prohibited, errno: "EACCES", detail: "ICMPv6 type 1 code 5 from fd20::1"},
		},
		{
			rule: "meta nfproto ipv6 reject with icmpv6 type reject-route",
			v6:   &want{outcome: probes.Prohibited, errno: "EACCES", detail: "ICMPv6 type 1 code 6 from fd20::1"},
		},
	} {
		t.Run(c.rule, func(t *testing.T) {
			netlab.Filter(t, star.Router, netlab.Forward("meta l4proto { tcp, udp } th dport 80 "+c.rule))
			for _, ipv6 := range bothFamilies {
				w := c.v4
				if ipv6 {
					w = c.v6
				}
				for _, p := range []model.Protocol{model.TCP, model.UDP} {
					if w == nil || c.protocol != "" && p != c.protocol {
						continue
					}
					nonce := newNonce()
					r := probe(t, client, probes.Request{
						Nonce: nonce, Protocol: p, Address: star.Hosts[1].Address(ipv6), Port: 80, TimeoutMs: 300,
					})[0]
					t.Log(familyName(ipv6), p, r.Outcome, r.Errno, r.Detail, r.RTT)
					w.check(t, r)
					if w.outcome == probes.Timeout && p == model.UDP {
						assert.Equal(t, sends, r.Attempts)
					} else {
						assert.Equal(t, 1, r.Attempts)
						// A refusal that is only noticed when the kernel sends again comes a second late.
						assert.Less(t, r.RTT, 200*time.Millisecond)
					}
					seen, err := server.Records(t.Context(), []probes.Nonce{nonce})
					require.NoError(t, err)
					assert.Empty(t, seen)
				}
			}
		})
	}
}

func TestNoListenerIsAReset(t *testing.T) {
	star := netlab.NewStar(t, 2)
	client := newAgent(t, newEngine(t, Options{}), "client", star.Hosts[0].NS)
	for _, ipv6 := range bothFamilies {
		for _, p := range []model.Protocol{model.TCP, model.UDP} {
			r := probe(t, client, probes.Request{Protocol: p, Address: star.Hosts[1].Address(ipv6), Port: 80})[0]
			want{outcome: probes.Reset, errno: "ECONNREFUSED"}.check(t, r)
			assert.False(t, r.Connected)
			t.Log(familyName(ipv6), p, r.Detail, r.RTT)
		}
	}
}

func TestAStoppedServerRefusesAndAStartedOneAnswersAgain(t *testing.T) {
	star := netlab.NewStar(t, 2)
	engine := newEngine(t, Options{})
	client := newAgent(t, engine, "client", star.Hosts[0].NS)
	server := newAgent(t, engine, "server", star.Hosts[1].NS, tcp(80), udp(80))
	ask := func() []probes.Response {
		to := star.Hosts[1].IPv4
		return probe(t, client, probes.Request{Protocol: model.TCP, Address: to, Port: 80},
			probes.Request{Protocol: model.UDP, Address: to, Port: 80})
	}
	for range 3 {
		for _, r := range ask() {
			want{outcome: probes.Answered}.check(t, r)
		}
		server.Stop(tcp(80), udp(80))
		assert.Empty(t, server.Ports())
		for _, r := range ask() {
			want{outcome: probes.Reset, errno: "ECONNREFUSED"}.check(t, r)
		}
		require.NoError(t, server.Listen(tcp(80), udp(80)))
	}
}

func TestWhatNeverLeftTheHostIsAnErrorAndNotADenial(t *testing.T) {
	star := netlab.NewStar(t, 1)
	client := newAgent(t, newEngine(t, Options{}), "client", star.Hosts[0].NS)
	h, err := netlink.NewHandleAt(star.Hosts[0].NS)
	require.NoError(t, err)
	defer h.Close()
	for i, kind := range []int{unix.RTN_UNREACHABLE, unix.RTN_PROHIBIT, unix.RTN_BLACKHOLE} {
		for _, net := range []string{"10.66.%.0/24", "fd66:%::/32"} {
			dst, err := netlink.ParseIPNet(strings.Replace(net, "%", string(rune('0'+i)), 1))
			require.NoError(t, err)
			require.NoError(t, h.RouteAdd(&netlink.Route{Dst: dst, Type: kind}))
		}
	}
	for to, errno := range map[string]string{
		"192.0.2.1": "ENETUNREACH", "2001:db8::1": "ENETUNREACH",
		"10.66.0.1": "EHOSTUNREACH", "fd66:0::1": "EHOSTUNREACH",
		"10.66.1.1": "EACCES", "fd66:1::1": "EACCES",
		"10.66.2.1": "EINVAL", "fd66:2::1": "EINVAL",
	} {
		for _, p := range []model.Protocol{model.TCP, model.UDP} {
			t.Run(to+" "+string(p), func(t *testing.T) {
				r := probe(t, client, probes.Request{Protocol: p, Address: netip.MustParseAddr(to), Port: 80})[0]
				want{outcome: probes.Error, errno: errno, detail: netip.MustParseAddr(to).String(), notSent: true}.check(t, r)
				assert.Zero(t, r.Attempts)
			})
		}
	}
}

func TestANeighbourThatDoesNotResolveIsAnError(t *testing.T) {
	client, _ := netlab.NewPair(t)
	for _, family := range []string{"ipv4", "ipv6"} {
		netlab.Sysctl(t, client.NS, "net/"+family+"/neigh/eth0/retrans_time_ms", "50")
	}
	agent := newAgent(t, newEngine(t, Options{}), "client", client.NS)
	for _, to := range []string{"10.10.0.99", "fd10::99"} {
		for _, p := range []model.Protocol{model.TCP, model.UDP} {
			t.Run(to+" "+string(p), func(t *testing.T) {
				r := probe(t, agent, probes.Request{Protocol: p, Address: netip.MustParseAddr(to), Port: 80, TimeoutMs: 5000})[0]
				want{outcome: probes.Error, errno: "EHOSTUNREACH", detail: "own host found no way", notSent: true}.check(t, r)
			})
		}
	}
}

func TestAPacketFilterInTheProbersOwnNamespaceIsADenial(t *testing.T) {
	star := netlab.NewStar(t, 2)
	engine := newEngine(t, Options{})
	client := newAgent(t, engine, "client", star.Hosts[0].NS)
	newAgent(t, engine, "server", star.Hosts[1].NS, tcp(80), udp(80))
	for _, c := range []struct {
		name, rules string
		tcp, udp    want
	}{
		{
			name:  "output hook drops",
			rules: "table inet lab { chain out { type filter hook output priority 0; th dport 80 drop;\n}\n}\n",
			tcp:   want{outcome: probes.Timeout},
			udp:   want{outcome: probes.Prohibited, errno: "EPERM", detail: "own network namespace"},
		},
		{
			name:  "output hook rejects",
			rules: "table inet lab { chain out { type filter hook output priority 0; th dport 80 reject with icmpx type admin-prohibited;\n}\n}\n",
			tcp:   want{outcome: probes.Prohibited, errno: "EHOSTUNREACH", detail: "code 13"},
			udp:   want{outcome: probes.Prohibited, errno: "EHOSTUNREACH", detail: "code 13"},
		},
		{
			name:  "egress of the interface drops",
			rules: "table netdev lab { chain out { type filter hook egress device eth0 priority 0; ip protocol { tcp, udp } drop;\n}\n}\n",
			tcp:   want{outcome: probes.Timeout},
			udp:   want{outcome: probes.Timeout, errno: "ENOBUFS"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			netlab.Filter(t, star.Hosts[0].NS, c.rules)
			to := star.Hosts[1].IPv4
			r := probe(t, client, probes.Request{Protocol: model.TCP, Address: to, Port: 80, TimeoutMs: 300},
				probes.Request{Protocol: model.UDP, Address: to, Port: 80, TimeoutMs: 300})
			c.tcp.check(t, r[0])
			c.udp.check(t, r[1])
		})
	}
}

func TestARequestThatArrivesWithoutItsReplyIsATimeoutWithARecord(t *testing.T) {
	star := netlab.NewStar(t, 2)
	engine := newEngine(t, Options{})
	client := newAgent(t, engine, "client", star.Hosts[0].NS)
	server := newAgent(t, engine, "server", star.Hosts[1].NS, udp(80))
	netlab.Filter(t, star.Router, netlab.Forward("udp sport 80 drop"))
	for _, ipv6 := range bothFamilies {
		nonce := newNonce()
		r := probe(t, client, probes.Request{
			Nonce: nonce, Protocol: model.UDP, Address: star.Hosts[1].Address(ipv6), Port: 80, TimeoutMs: 300,
		})[0]
		want{outcome: probes.Timeout}.check(t, r)
		seen, err := server.Records(t.Context(), []probes.Nonce{nonce})
		require.NoError(t, err)
		assert.Equal(t, []probes.Record{{Nonce: nonce, Peer: r.Source}}, seen)
	}
}

func TestATimeoutAfterTheHandshakeSaysThatItWasConnected(t *testing.T) {
	star := netlab.NewStar(t, 2)
	engine := newEngine(t, Options{})
	client := newAgent(t, engine, "client", star.Hosts[0].NS)
	newAgent(t, engine, "server", star.Hosts[1].NS, tcp(80))
	netlab.Filter(t, star.Router, netlab.Forward("tcp flags & psh == psh drop"))
	r := probe(t, client, probes.Request{Protocol: model.TCP, Address: star.Hosts[1].IPv4, Port: 80, TimeoutMs: 300})[0]
	want{outcome: probes.Timeout, detail: "connected"}.check(t, r)
	assert.True(t, r.Connected)
}

func TestADatagramLostOnTheWayIsSentAgain(t *testing.T) {
	star := netlab.NewStar(t, 2)
	engine := newEngine(t, Options{})
	client := newAgent(t, engine, "client", star.Hosts[0].NS)
	newAgent(t, engine, "server", star.Hosts[1].NS, udp(80))
	netlab.Filter(t, star.Router, "table inet lab {\n quota first { 60 bytes }\n"+
		"chain forward { type filter hook forward priority 0;\n udp dport 80 quota name first drop\n }\n}\n")
	r := probe(t, client, probes.Request{Protocol: model.UDP, Address: star.Hosts[1].IPv4, Port: 80, TimeoutMs: 900})[0]
	want{outcome: probes.Answered}.check(t, r)
	assert.Equal(t, 2, r.Attempts)
	assert.GreaterOrEqual(t, r.RTT, 290*time.Millisecond)
}

func TestBadRequestsAreErrorsAndTheRestOfTheBatchGoesOn(t *testing.T) {
	star := netlab.NewStar(t, 2)
	engine := newEngine(t, Options{})
	client := newAgent(t, engine, "client", star.Hosts[0].NS)
	newAgent(t, engine, "server", star.Hosts[1].NS, tcp(80))
	to := star.Hosts[1].IPv4
	r := probe(t, client,
		probes.Request{Protocol: "ICMP", Address: to, Port: 80},
		probes.Request{Protocol: model.TCP, Port: 80},
		probes.Request{Protocol: model.TCP, Address: netip.IPv4Unspecified(), Port: 80},
		probes.Request{Protocol: model.TCP, Address: to, Port: 65536},
		probes.Request{Protocol: model.TCP, Address: to, Port: 80, TimeoutMs: -1},
		probes.Request{Protocol: model.TCP, Address: to, Port: 80, Nonce: probes.Nonce(strings.Repeat("n", 256))},
		probes.Request{Protocol: model.TCP, Address: netip.MustParseAddr("fe80::1%nosuch"), Port: 80},
		probes.Request{Protocol: model.TCP, Address: to, Port: 80, Nonce: probes.Nonce(strings.Repeat("n", 255))},
	)
	for i, detail := range []string{"protocol", "address", "address", "port", "time-out", "nonce", "nosuch"} {
		want{outcome: probes.Error, errno: r[i].Errno, detail: detail, notSent: true}.check(t, r[i])
	}
	want{outcome: probes.Answered}.check(t, r[7])
}

func TestSCTPIsProbedOrSaidToBeUnsupported(t *testing.T) {
	star := netlab.NewStar(t, 2)
	engine := newEngine(t, Options{})
	client := newAgent(t, engine, "client", star.Hosts[0].NS)
	server := newAgent(t, engine, "server", star.Hosts[1].NS)
	port := model.Port{Number: 80, Protocol: model.SCTP}
	listening := server.Listen(tcp(80), port)
	r := probe(t, client, probes.Request{Protocol: model.SCTP, Address: star.Hosts[1].IPv4, Port: 80},
		probes.Request{Protocol: model.TCP, Address: star.Hosts[1].IPv4, Port: 80})
	want{outcome: probes.Answered}.check(t, r[1])
	statuses, err := server.Liveness(t.Context())
	require.NoError(t, err)
	require.Len(t, statuses, 2)
	err = HaveSCTP()
	if err == nil {
		require.NoError(t, listening)
		want{outcome: probes.Answered}.check(t, r[0])
		return
	}
	require.ErrorIs(t, err, ErrNotSupported)
	require.ErrorIs(t, listening, ErrNotSupported)
	want{outcome: probes.Unsupported, errno: "EPROTONOSUPPORT", notSent: true}.check(t, r[0])
	assert.Equal(t, port, statuses[0].Port)
	assert.False(t, statuses[0].Alive)
	assert.Contains(t, statuses[0].Detail, "not supported")
	assert.True(t, statuses[1].Alive)
}
