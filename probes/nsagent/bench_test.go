//go:build linux

package nsagent

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
	"github.com/netproof/netproof/probes/inns"
	"github.com/netproof/netproof/probes/internal/netlab"
)

// BenchmarkTCP measures proven TCP probes per second between two namespaces of this process, and beside it what bare
// sockets reach that do no more than connect, send 16 bytes and read them back. The two take turns in slices, so that
// a noisy machine is as noisy for both.
//
//	go test ./probes/nsagent -run '^$' -bench TCP -benchtime 40000x
func BenchmarkTCP(b *testing.B) {
	for _, ipv6 := range []bool{false, true} {
		client, server := netlab.NewPair(b)
		family := model.FamilyOf(server.Address(ipv6))
		b.Run(string(family), func(b *testing.B) {
			engine := newEngine(b, Options{})
			prober := newAgent(b, engine, "client", client.NS)
			served := newAgent(b, engine, "server", server.NS, tcp(80))
			bare := newBareSockets(b, client, server, ipv6)

			const slice = 2000
			var proberTime, bareTime time.Duration
			done := 0
			b.ReportAllocs()
			b.ResetTimer()
			for done < b.N {
				n := min(slice, b.N-done)
				done += n
				start := time.Now()
				probeMany(b, prober, served, server.Address(ipv6), n)
				proberTime += time.Since(start)
				b.StopTimer()
				start = time.Now()
				bare.exchange(b, n)
				bareTime += time.Since(start)
				b.StartTimer()
			}
			b.ReportMetric(float64(done)/proberTime.Seconds(), "probes/s")
			b.ReportMetric(float64(done)/bareTime.Seconds(), "bare/s")
			b.ReportMetric(bareTime.Seconds()/proberTime.Seconds(), "probes/bare")
		})
	}
}

// probeMany sends n probes and requires that every one of them is answered by the server.
func probeMany(tb testing.TB, client, server *Agent, to netip.Addr, n int) {
	batch := make([]probes.Request, n)
	for i := range batch {
		batch[i] = probes.Request{
			ID: int64(i), Nonce: newNonce(), Protocol: model.TCP, Address: to, Port: 80, TimeoutMs: 5000,
		}
	}
	proven := 0
	err := client.Probe(context.Background(), batch, func(r probes.Response) {
		if r.Outcome != probes.Answered || r.By != server.identity {
			tb.Errorf("not proven: %+v", r)
			return
		}
		proven++
	})
	require.NoError(tb, err)
	require.Equal(tb, n, proven)
}

// bareSockets is the least that has to be done: blocking sockets, a few threads on either side.
type bareSockets struct {
	client  *netlab.Host
	to      sockaddr
	ipv6    bool
	workers int
}

func newBareSockets(tb testing.TB, client, server *netlab.Host, ipv6 bool) *bareSockets {
	s := &bareSockets{client: client, ipv6: ipv6, workers: 4}
	s.to.set(server.Address(ipv6), 7, 0)
	var listening int
	require.NoError(tb, inns.Do(server.NS, func() (err error) {
		listening, err = listenSocket(tcp(7), ipv6)
		return err
	}))
	require.NoError(tb, unix.SetNonblock(listening, false))
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			var buf [64]byte
			for {
				fd, _, errno := unix.Syscall6(unix.SYS_ACCEPT4, uintptr(listening), 0, 0, unix.SOCK_CLOEXEC, 0, 0)
				if stop.Load() || errno != 0 {
					return
				}
				if n, err := unix.Read(int(fd), buf[:]); err == nil && n > 0 {
					_, _ = unix.Write(int(fd), buf[:n])
				}
				_ = unix.Close(int(fd))
			}
		})
	}
	tb.Cleanup(func() {
		stop.Store(true)
		_ = unix.Shutdown(listening, unix.SHUT_RDWR)
		wg.Wait()
		_ = unix.Close(listening)
	})
	return s
}

func (s *bareSockets) exchange(tb testing.TB, n int) {
	sockets := make([]int, n)
	require.NoError(tb, inns.Do(s.client.NS, func() (err error) {
		for i := range sockets {
			if sockets[i], err = newSocket(model.TCP, s.ipv6); err != nil {
				return fmt.Errorf("make socket %d: %w", i, err)
			}
		}
		return nil
	}))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range s.workers {
		wg.Go(func() {
			buf := []byte("0123456789abcdef")
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				fd := sockets[i]
				_ = unix.SetNonblock(fd, false)
				if errno := connectTo(fd, &s.to); errno != 0 {
					tb.Errorf("connect: %v", errno)
				}
				if _, err := unix.Write(fd, buf); err != nil {
					tb.Errorf("write: %v", err)
				}
				if n, err := unix.Read(fd, buf); err != nil || n != len(buf) {
					tb.Errorf("read %d: %v", n, err)
				}
				resetOnClose(fd)
				_ = unix.Close(fd)
			}
		})
	}
	wg.Wait()
}

// BenchmarkTable probes every cell of a table of 50 pods to 50 pods, around a router, once per iteration. Denied cells
// take one time-out, however many there are.
func BenchmarkTable(b *testing.B) {
	const hosts, timeout = 50, 500 * time.Millisecond
	for _, c := range []struct {
		name    string
		rule    string
		outcome probes.Outcome
	}{
		{"allowed", "accept", probes.Answered},
		{"rejected", "reject with icmpx type admin-prohibited", probes.Prohibited},
		{"dropped", "drop", probes.Timeout},
	} {
		for _, protocol := range []model.Protocol{model.TCP, model.UDP} {
			b.Run(c.name+"/"+string(protocol), func(b *testing.B) {
				star := netlab.NewStar(b, hosts)
				netlab.Sysctl(b, star.Router, "net/ipv4/icmp_ratelimit", "0")
				netlab.Sysctl(b, star.Router, "net/ipv4/icmp_msgs_per_sec", "1000000")
				netlab.Sysctl(b, star.Router, "net/ipv4/icmp_msgs_burst", "1000000")
				netlab.Filter(b, star.Router, netlab.Forward("meta l4proto { tcp, udp } th dport 80 "+c.rule))
				engine := newEngine(b, Options{})
				var agents []*Agent
				for i, h := range star.Hosts {
					agents = append(agents, newAgent(b, engine, fmt.Sprint(i), h.NS, tcp(80), udp(80)))
				}
				b.ResetTimer()
				for range b.N {
					var wg sync.WaitGroup
					for i, a := range agents {
						wg.Go(func() {
							var batch []probes.Request
							for j, to := range star.Hosts {
								if i != j {
									batch = append(batch, probes.Request{
										ID: int64(j), Nonce: newNonce(), Protocol: protocol, Address: to.IPv4, Port: 80,
										TimeoutMs: timeout.Milliseconds(),
									})
								}
							}
							err := a.Probe(context.Background(), batch, func(r probes.Response) {
								if r.Outcome != c.outcome {
									b.Errorf("want %s: %+v", c.outcome, r)
								}
							})
							if err != nil {
								b.Error(err)
							}
						})
					}
					wg.Wait()
				}
				b.ReportMetric(float64(b.N*hosts*(hosts-1))/b.Elapsed().Seconds(), "cells/s")
			})
		}
	}
}
