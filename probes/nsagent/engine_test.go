//go:build linux

package nsagent

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
	"github.com/netproof/netproof/probes/inns"
	"github.com/netproof/netproof/probes/internal/netlab"
)

// openFiles lists the open files of this process, without those of the Go runtime's making.
func openFiles(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	var files []string
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			files = append(files, target)
		}
	}
	return files
}

// freeSockets are those that the bound on open sockets leaves.
func freeSockets(e *Engine) int {
	e.limiter.mu.Lock()
	defer e.limiter.mu.Unlock()
	return e.limiter.free
}

func threads(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/task")
	require.NoError(t, err)
	return len(entries)
}

func TestATableOfDeniedCellsTakesOneTimeOut(t *testing.T) {
	const hosts, timeout = 50, time.Second
	star := netlab.NewStar(t, hosts)
	engine := newEngine(t, Options{})
	var agents []*Agent
	for i, h := range star.Hosts {
		agents = append(agents, newAgent(t, engine, fmt.Sprintf("pod%d", i), h.NS, tcp(80)))
	}
	netlab.Filter(t, star.Router, netlab.Forward("meta l4proto { tcp, udp } drop"))
	threadsBefore, goroutinesBefore := threads(t), runtime.NumGoroutine()

	var wg sync.WaitGroup
	start := time.Now()
	for i, a := range agents {
		wg.Go(func() {
			var batch []probes.Request
			for j, to := range star.Hosts {
				if i != j {
					batch = append(batch, probes.Request{
						Protocol: model.TCP, Address: to.IPv4, Port: 80, TimeoutMs: timeout.Milliseconds(),
					})
				}
			}
			for _, r := range probe(t, a, batch...) {
				if r.Outcome != probes.Timeout {
					t.Errorf("not a time-out: %+v", r)
				}
			}
		})
	}
	// While they are in flight, they take no thread each.
	time.AfterFunc(timeout/2, func() {
		if n := threads(t); n > threadsBefore+20 {
			t.Errorf("%d threads, %d before", n, threadsBefore)
		}
	})
	wg.Wait()
	took := time.Since(start)
	t.Logf("%d denied cells in %s", hosts*(hosts-1), took)
	assert.GreaterOrEqual(t, took, timeout)
	assert.Less(t, took, 3*timeout)
	assert.LessOrEqual(t, runtime.NumGoroutine(), goroutinesBefore+1)
}

func TestATableOfAllowedCellsIsProven(t *testing.T) {
	const hosts = 20
	star := netlab.NewStar(t, hosts)
	engine := newEngine(t, Options{})
	var agents []*Agent
	for i, h := range star.Hosts {
		agents = append(agents, newAgent(t, engine, fmt.Sprintf("pod%d", i), h.NS, tcp(80), udp(80)))
	}
	var wg sync.WaitGroup
	for i, a := range agents {
		wg.Go(func() {
			var batch []probes.Request
			var to []*Agent
			for j, h := range star.Hosts {
				for _, p := range []model.Protocol{model.TCP, model.UDP} {
					for _, ipv6 := range bothFamilies {
						if i != j {
							batch = append(batch, probes.Request{Protocol: p, Address: h.Address(ipv6), Port: 80, TimeoutMs: 5000})
							to = append(to, agents[j])
						}
					}
				}
			}
			for i, r := range probe(t, a, batch...) {
				if r.Outcome != probes.Answered || r.By != to[i].Identity() {
					t.Errorf("not proven: %+v", r)
				}
			}
		})
	}
	wg.Wait()
}

func TestFinishedTCPProbesLeaveNoConnectionBehindOnEitherSide(t *testing.T) {
	client, server := netlab.NewPair(t)
	engine := newEngine(t, Options{})
	agent := newAgent(t, engine, "client", client.NS)
	served := newAgent(t, engine, "server", server.NS, tcp(80))
	for _, ipv6 := range bothFamilies {
		probeMany(t, agent, served, server.Address(ipv6), 500)
	}
	// TIME_WAIT, orphans, what is not accepted: one line per connection, whatever its state, and one per listener.
	connections := func(ns netns.NsHandle) (lines []string) {
		require.NoError(t, inns.Do(ns, func() error {
			for _, file := range []string{"tcp", "tcp6"} {
				text, err := os.ReadFile("/proc/thread-self/net/" + file)
				if err != nil {
					return err
				}
				for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n")[1:] {
					if state := strings.Fields(line)[3]; state != "0A" {
						lines = append(lines, line)
					}
				}
			}
			return nil
		}))
		return lines
	}
	for _, ns := range []netns.NsHandle{client.NS, server.NS} {
		require.Eventually(t, func() bool { return len(connections(ns)) == 0 }, 10*time.Second, time.Millisecond,
			"%s", connections(ns))
	}
}

func TestCancellingAProbeLeavesNothingOpen(t *testing.T) {
	star := netlab.NewStar(t, 2)
	engine := newEngine(t, Options{})
	client := newAgent(t, engine, "client", star.Hosts[0].NS)
	newAgent(t, engine, "server", star.Hosts[1].NS, tcp(80))
	netlab.Filter(t, star.Router, netlab.Forward("th dport 81 drop"))
	probe(t, client, probes.Request{Protocol: model.TCP, Address: star.Hosts[1].IPv4, Port: 80})
	before := openFiles(t)

	var batch []probes.Request
	for i := range 500 {
		port := 81
		if i < 10 {
			port = 80
		}
		batch = append(batch, probes.Request{
			ID: int64(i), Nonce: newNonce(), Protocol: []model.Protocol{model.TCP, model.UDP}[i%2],
			Address: star.Hosts[1].IPv4, Port: port, TimeoutMs: 60000,
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	answered := 0
	err := client.Probe(ctx, batch, func(r probes.Response) {
		if r.Outcome == probes.Answered {
			if answered++; answered == 5 {
				assert.Greater(t, len(openFiles(t)), len(before))
				cancel()
			}
		}
	})
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorContains(t, err, "490 of 500 outcomes are unknown")
	assert.Equal(t, 5, answered)
	assert.ElementsMatch(t, before, openFiles(t))
	assert.Equal(t, engine.limiter.size, freeSockets(engine))
	err = client.Probe(ctx, batch[:1], func(probes.Response) { t.Error("delivered") })
	require.ErrorIs(t, err, context.Canceled)
}

func TestClosingAnAgentEndsItsProbesAndClosingTheEngineLeavesNothing(t *testing.T) {
	star := netlab.NewStar(t, 2)
	netlab.Filter(t, star.Router, netlab.Forward("th dport 81 drop"))
	files, goroutines := openFiles(t), runtime.NumGoroutine()
	for range 3 {
		engine, err := NewEngine(Options{})
		require.NoError(t, err)
		client := newAgent(t, engine, "client", star.Hosts[0].NS)
		other := newAgent(t, engine, "other", star.Hosts[0].NS)
		server := newAgent(t, engine, "server", star.Hosts[1].NS, tcp(80), udp(80))
		hanging := []probes.Request{{
			Nonce: newNonce(), Protocol: model.TCP, Address: star.Hosts[1].IPv4, Port: 81, TimeoutMs: 60000,
		}}
		errs := make(chan error, 2)
		for _, a := range []*Agent{client, other} {
			go func() { errs <- a.Probe(context.Background(), hanging, func(probes.Response) {}) }()
		}
		require.Eventually(t, func() bool { return freeSockets(engine) == engine.limiter.size-2 },
			10*time.Second, time.Millisecond)
		require.NoError(t, client.Close())
		require.ErrorIs(t, <-errs, ErrClosed)
		require.NoError(t, client.Close())
		require.ErrorIs(t, client.Probe(t.Context(), hanging, nil), ErrClosed)
		require.ErrorIs(t, client.Listen(tcp(80)), ErrClosed)
		_, err = client.Liveness(t.Context())
		require.ErrorIs(t, err, ErrClosed)
		_, err = client.Records(t.Context(), nil)
		require.ErrorIs(t, err, ErrClosed)
		require.NoError(t, engine.Close())
		require.ErrorIs(t, <-errs, ErrClosed)
		_, err = engine.NewAgent(Config{Namespace: netns.None()})
		require.ErrorIs(t, err, ErrClosed)
		_ = server
	}
	assert.ElementsMatch(t, files, openFiles(t))
	assert.Eventually(t, func() bool { return runtime.NumGoroutine() <= goroutines+1 }, 10*time.Second, time.Millisecond)
}

func TestThreadsDoNotGrowWithUse(t *testing.T) {
	star := netlab.NewStar(t, 4)
	engine := newEngine(t, Options{})
	var agents []*Agent
	for i, h := range star.Hosts {
		agents = append(agents, newAgent(t, engine, fmt.Sprintf("pod%d", i), h.NS, tcp(80)))
	}
	round := func() {
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				a, to := agents[i%4], star.Hosts[(i+1)%4]
				for range 5 {
					r := probe(t, a, probes.Request{Protocol: model.TCP, Address: to.IPv4, Port: 80})[0]
					if r.Outcome != probes.Answered {
						t.Errorf("%+v", r)
					}
				}
			})
		}
		wg.Wait()
	}
	round()
	before := threads(t)
	for range 5 {
		round()
	}
	assert.LessOrEqual(t, threads(t), before+5)
	assert.Less(t, before, 64)
}

func TestMoreProbesThanSocketsTakeTurns(t *testing.T) {
	star := netlab.NewStar(t, 2)
	engine := newEngine(t, Options{MaxSockets: 7})
	client := newAgent(t, engine, "client", star.Hosts[0].NS)
	newAgent(t, engine, "server", star.Hosts[1].NS, tcp(80))
	var batch []probes.Request
	for range 100 {
		batch = append(batch, probes.Request{Protocol: model.TCP, Address: star.Hosts[1].IPv4, Port: 80})
	}
	for _, r := range probe(t, client, batch...) {
		want{outcome: probes.Answered}.check(t, r)
	}
	// They are given back at the end of the loop's round.
	assert.Eventually(t, func() bool { return freeSockets(engine) == 7 }, 10*time.Second, time.Millisecond)
}

func TestEveryProbeHasASourcePortOfItsOwn(t *testing.T) {
	star := netlab.NewStar(t, 2)
	engine := newEngine(t, Options{})
	// Two agents in one namespace, as pods on the host network: they share its ports.
	clients := []*Agent{newAgent(t, engine, "a", star.Hosts[0].NS), newAgent(t, engine, "b", star.Hosts[0].NS)}
	newAgent(t, engine, "server", star.Hosts[1].NS, tcp(80), udp(80))
	seen := map[model.Protocol]map[netip.AddrPort]bool{model.TCP: {}, model.UDP: {}}
	for range 10 {
		for _, c := range clients {
			for p, used := range seen {
				var batch []probes.Request
				for range 50 {
					batch = append(batch, probes.Request{Protocol: p, Address: star.Hosts[1].IPv4, Port: 80})
				}
				for _, r := range probe(t, c, batch...) {
					want{outcome: probes.Answered}.check(t, r)
					assert.False(t, used[r.Source], "%s", r.Source)
					used[r.Source] = true
				}
			}
		}
	}
}

func TestNoFreshSourcePortIsAnErrorAndNeverAStaleAnswer(t *testing.T) {
	star := netlab.NewStar(t, 2)
	netlab.Sysctl(t, star.Hosts[0].NS, "net/ipv4/ip_local_port_range", "40000 40127")
	netlab.Sysctl(t, star.Hosts[0].NS, "net/ipv4/ip_local_reserved_ports", "40000-40009,40020")
	engine := newEngine(t, Options{})
	client := newAgent(t, engine, "client", star.Hosts[0].NS)
	newAgent(t, engine, "server", star.Hosts[1].NS, udp(80), udp(81))
	batch := func(port int) (batch []probes.Request) {
		for range 128 {
			batch = append(batch, probes.Request{Protocol: model.UDP, Address: star.Hosts[1].IPv4, Port: port})
		}
		return batch
	}
	for _, port := range []int{80, 81} { // each destination has its own
		answered := 0
		var used []int
		for _, r := range probe(t, client, batch(port)...) {
			if r.Outcome == probes.Answered {
				answered++
				used = append(used, int(r.Source.Port()))
				continue
			}
			want{outcome: probes.Error, detail: "no fresh source port", notSent: true}.check(t, r)
		}
		assert.Equal(t, 117, answered)
		assert.GreaterOrEqual(t, slices.Min(used), 40010)
		assert.NotContains(t, used, 40020)
	}
}

func TestSourcePortsInUseArePassedOver(t *testing.T) {
	star := netlab.NewStar(t, 2)
	netlab.Sysctl(t, star.Hosts[0].NS, "net/ipv4/ip_local_port_range", "40000 40063")
	engine := newEngine(t, Options{})
	client := newAgent(t, engine, "client", star.Hosts[0].NS)
	newAgent(t, engine, "server", star.Hosts[1].NS, tcp(80))
	for i := range 32 {
		listen(t, star.Hosts[0], 40000+2*i)
	}
	var batch []probes.Request
	for range 32 {
		batch = append(batch, probes.Request{Protocol: model.TCP, Address: star.Hosts[1].IPv4, Port: 80})
	}
	for _, r := range probe(t, client, batch...) {
		want{outcome: probes.Answered}.check(t, r)
		assert.Equal(t, uint16(1), r.Source.Port()%2)
	}
}

func TestAnswersThatCameWhileTheLoopWasStuckCount(t *testing.T) {
	star := netlab.NewStar(t, 2)
	engine := newEngine(t, Options{})
	client := newAgent(t, engine, "client", star.Hosts[0].NS)
	server := newAgent(t, engine, "server", star.Hosts[1].NS, tcp(80), udp(80))
	for _, stuck := range [][]*loop{{client.probing}, {server.serving}, {client.probing, server.serving}} {
		for _, p := range []model.Protocol{model.TCP, model.UDP} {
			release := make(chan struct{})
			for _, l := range stuck {
				held := make(chan struct{})
				require.True(t, l.do(func() { close(held); <-release }))
				<-held
			}
			time.AfterFunc(300*time.Millisecond, func() { close(release) })
			r := probe(t, client, probes.Request{Protocol: p, Address: star.Hosts[1].IPv4, Port: 80, TimeoutMs: 150})[0]
			want{outcome: probes.Answered}.check(t, r)
		}
	}
}

func TestAProcessThatStaysStarvedReportsAnErrorAndNoTimeout(t *testing.T) {
	star := netlab.NewStar(t, 2)
	engine := newEngine(t, Options{})
	client := newAgent(t, engine, "client", star.Hosts[0].NS)
	netlab.Filter(t, star.Router, netlab.Forward("th dport 80 drop"))
	stop := make(chan struct{})
	var hog func()
	hog = func() {
		<-time.After(300 * time.Millisecond)
		select {
		case <-stop:
		default:
			go client.probing.do(hog)
		}
	}
	client.probing.do(hog)
	r := probe(t, client, probes.Request{Protocol: model.TCP, Address: star.Hosts[1].IPv4, Port: 80, TimeoutMs: 200})[0]
	close(stop)
	assert.Equal(t, probes.Error, r.Outcome, "%+v", r)
	assert.Contains(t, r.Detail, "starved")
	assert.True(t, r.Sent)
}

func TestAnAgentOfTheProcessesOwnNamespaceNeedsNoHandle(t *testing.T) {
	engine := newEngine(t, Options{})
	a := newAgent(t, engine, "own", netns.None(), tcp(0x7e57))
	statuses, err := a.Liveness(t.Context())
	require.NoError(t, err)
	require.Len(t, statuses, 1)
	// The tests' own namespace has its loopback interface down.
	assert.False(t, statuses[0].Alive)
	assert.Contains(t, statuses[0].Detail, "is its lo up?")
}

func TestAHandleThatIsNoNamespaceIsRefused(t *testing.T) {
	engine := newEngine(t, Options{})
	files := openFiles(t)
	fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	_, err = engine.NewAgent(Config{Identity: probes.Identity{Endpoint: "x/a"}, Namespace: netns.NsHandle(fd)})
	require.ErrorContains(t, err, "enter network namespace of x/a")
	require.NoError(t, unix.Close(fd))
	assert.ElementsMatch(t, files, openFiles(t))
}
