//go:build linux

package nsagent

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
	"github.com/netproof/netproof/probes/internal/netlab"
)

func TestLimiterSharesOutByAgent(t *testing.T) {
	l := newLimiter(grantSize)
	all := l.request("first", grantSize)
	require.Equal(t, grantSize, <-all.granted)

	// One agent asks three times before another asks once: the other does not wait for all three.
	var order []string
	waiting := map[string]*waiter{}
	for _, name := range []string{"greedy 1", "greedy 2", "greedy 3", "modest"} {
		key := name[:6]
		waiting[name] = l.request(key, grantSize)
	}
	for len(waiting) > 0 {
		l.release(grantSize)
		for name, w := range waiting {
			select {
			case n := <-w.granted:
				assert.Equal(t, grantSize, n)
				order = append(order, name)
				delete(waiting, name)
			default:
			}
		}
	}
	assert.Equal(t, []string{"greedy 1", "modest", "greedy 2", "greedy 3"}, order)
}

func TestLimiterGrantsPortionsAndNotSingleSockets(t *testing.T) {
	l := newLimiter(grantSize)
	require.Equal(t, grantSize, <-l.request("a", 10*grantSize).granted)
	w := l.request("a", 9*grantSize)
	for range grantSize - 1 {
		l.release(1)
		require.Empty(t, w.granted)
	}
	l.release(1)
	require.Equal(t, grantSize, <-w.granted)

	small := newLimiter(3)
	require.Equal(t, 3, <-small.request("a", 100).granted, "no more than there are")
	small.release(3)
	require.Equal(t, 2, <-small.request("a", 2).granted, "no more than asked for")
}

func TestLimiterTakesBackWhatIsCancelled(t *testing.T) {
	l := newLimiter(4)
	granted := l.request("a", 4)
	waiting, next := l.request("b", 4), l.request("b", 2)
	l.cancel(waiting)
	l.cancel(waiting)
	l.cancel(granted)
	assert.Equal(t, 2, <-next.granted)
	l.release(2)
	assert.Equal(t, 4, l.free)
	assert.Empty(t, l.turns)
}

func TestSourcePortsComeBackOnlyAfterTheirRest(t *testing.T) {
	now := time.Unix(0, 0)
	s := newSourcePorts(10000, 10000+4*blockSize-1, nil, func(p model.Protocol) time.Duration {
		if p == model.UDP {
			return 3 * time.Minute
		}
		return time.Second
	})
	s.now = func() time.Time { return now }
	a, b := netip.MustParseAddrPort("10.0.0.1:80"), netip.MustParseAddrPort("10.0.0.1:81")
	last := map[int]time.Time{}
	for range 4 * blockSize {
		now = now.Add(time.Millisecond)
		port, err := s.next(model.UDP, a)
		require.NoError(t, err)
		require.NotContains(t, last, port)
		require.GreaterOrEqual(t, port, 10000)
		require.Less(t, port, 10000+4*blockSize)
		last[port] = now
	}
	_, err := s.next(model.UDP, a)
	require.ErrorIs(t, err, errNoFreshPort)
	_, err = s.next(model.UDP, b)
	require.NoError(t, err, "another destination has its own")
	_, err = s.next(model.TCP, a)
	require.NoError(t, err, "another protocol has its own")

	now = now.Add(3 * time.Minute)
	for range 4 * blockSize {
		port, err := s.next(model.UDP, a)
		require.NoError(t, err)
		require.GreaterOrEqual(t, now.Sub(last[port]), 3*time.Minute)
		last[port] = now
	}
	_, err = s.next(model.UDP, a)
	require.ErrorIs(t, err, errNoFreshPort)
}

func TestRetiredSourcePortsRestLonger(t *testing.T) {
	now := time.Unix(0, 0)
	s := newSourcePorts(10000, 10000+blockSize-1, nil, func(model.Protocol) time.Duration { return time.Second })
	s.now = func() time.Time { return now }
	to := netip.MustParseAddrPort("10.0.0.1:80")
	for range blockSize {
		_, err := s.next(model.TCP, to)
		require.NoError(t, err)
	}
	s.retire(model.TCP, to, 10007, time.Minute)
	s.retire(model.TCP, netip.MustParseAddrPort("10.0.0.2:80"), 10008, time.Minute) // never used: ignored
	round := func() map[int]bool {
		ports := map[int]bool{}
		for {
			port, err := s.next(model.TCP, to)
			if err != nil {
				require.ErrorIs(t, err, errNoFreshPort)
				return ports
			}
			ports[port] = true
		}
	}
	now = now.Add(2 * time.Second)
	assert.NotContains(t, round(), 10007)
	now = now.Add(time.Minute)
	assert.Contains(t, round(), 10007)
}

func TestIdleDestinationsAreForgotten(t *testing.T) {
	now := time.Unix(0, 0)
	s := newSourcePorts(defaultFirstPort, defaultLastPort, nil, func(model.Protocol) time.Duration { return time.Second })
	s.now = func() time.Time { return now }
	for i := range 100000 {
		now = now.Add(time.Millisecond)
		_, err := s.next(model.TCP, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 80))
		require.NoError(t, err)
	}
	assert.Less(t, len(s.rotations), 5000)
}

func TestARecordThatMadeRoomIsNeverReportedAsNotSeen(t *testing.T) {
	const limit, total = 100, 20000
	r := newRecords(limit)
	peer := netip.MustParseAddrPort("10.0.0.1:1")
	nonce := func(i int) probes.Nonce { return probes.Nonce(fmt.Sprintf("nonce-%d", i)) }
	for i := range total {
		r.add([]byte(nonce(i)), peer)
		r.add([]byte(nonce(i)), netip.MustParseAddrPort("10.0.0.2:2")) // a resend
	}
	assert.LessOrEqual(t, len(r.young)+len(r.old), limit)
	for i := range total {
		seen, forgotten := r.find([]probes.Nonce{nonce(i)})
		require.Equal(t, 1, len(seen)+len(forgotten), "nonce %d", i)
		if i >= total-limit/2 {
			require.Equal(t, []probes.Record{{Nonce: nonce(i), Peer: peer}}, seen)
		}
	}
	// What was never seen is still told so, with few exceptions.
	doubtful := 0
	for i := range 10000 {
		seen, forgotten := r.find([]probes.Nonce{nonce(-i - 1)})
		require.Empty(t, seen)
		doubtful += len(forgotten)
	}
	assert.Less(t, doubtful, 10)
	r.forget()
	seen, forgotten := r.find([]probes.Nonce{nonce(0), nonce(total - 1)})
	assert.Empty(t, seen)
	assert.Empty(t, forgotten)
}

func TestForgottenRecordsAreAnError(t *testing.T) {
	client, host := netlab.NewPair(t)
	engine := newEngine(t, Options{MaxRecords: 4})
	agent := newAgent(t, engine, "client", client.NS)
	server := newAgent(t, engine, "server", host.NS, tcp(80))
	var nonces []probes.Nonce
	for range 10 {
		n := newNonce()
		nonces = append(nonces, n)
		want{outcome: probes.Answered}.check(t, probe(t, agent, probes.Request{Nonce: n, Protocol: model.TCP, Address: host.IPv4, Port: 80})[0])
	}
	_, err := server.Records(t.Context(), nonces[9:])
	require.NoError(t, err)
	seen, err := server.Records(t.Context(), nonces)
	require.ErrorIs(t, err, probes.ErrForgotten)
	require.ErrorContains(t, err, "x/server may have seen 6 of 10 nonces")
	assert.Len(t, seen, 4)
	require.NoError(t, server.Forget(t.Context()))
	seen, err = server.Records(t.Context(), nonces)
	require.NoError(t, err)
	assert.Empty(t, seen)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = server.Records(ctx, nonces)
	require.ErrorIs(t, err, context.Canceled)
}

func TestNoCallOfALoopIsLost(t *testing.T) {
	l, err := newLoop(func() bool { return false })
	require.NoError(t, err)
	go l.run()
	defer l.stop()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50_000 {
				l.call(func() {})
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		l.wake() // the others end
		require.Fail(t, "a call was not noticed: nobody woke up the loop for it")
	}
}
