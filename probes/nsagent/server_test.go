//go:build linux

package nsagent

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
	"github.com/netproof/netproof/probes/inns"
	"github.com/netproof/netproof/probes/internal/netlab"
	"github.com/netproof/netproof/probes/message"
)

// listen makes a listener in a host's namespace, for servers and clients that are not ours.
func listen(t *testing.T, h *netlab.Host, port int) net.Listener {
	t.Helper()
	var ln net.Listener
	require.NoError(t, inns.Do(h.NS, func() (err error) {
		ln, err = net.Listen("tcp4", fmt.Sprintf("%s:%d", h.IPv4, port))
		return err
	}))
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}

// dial connects from a host's namespace.
func dial(t *testing.T, h *netlab.Host, network string, to netip.AddrPort) net.Conn {
	t.Helper()
	var conn net.Conn
	require.NoError(t, inns.Do(h.NS, func() (err error) {
		conn, err = net.Dial(network, to.String())
		return err
	}))
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestAnswersOfForeignServersAreWrong(t *testing.T) {
	client, server := netlab.NewPair(t)
	agent := newAgent(t, newEngine(t, Options{}), "client", client.NS)
	by := probes.Identity{Endpoint: "x/server", UID: "u"}
	answerTo := func(request []byte) []byte {
		_, nonce, err := message.ParseRequest(request)
		assert.NoError(t, err)
		return message.AppendAnswer(nil, nonce, by)
	}
	port := 9000
	for _, c := range []struct {
		name     string
		reply    func(request []byte) []byte
		outcome  probes.Outcome
		detail   string
		byteWise bool
		tcpOnly  bool
	}{
		{name: "echoes the request", reply: func(b []byte) []byte { return b }, detail: "not a netproof message"},
		{name: "another protocol", reply: func([]byte) []byte { return []byte("SSH-2.0-x\r\n") }, detail: "SSH-2.0-x"},
		{name: "nothing", reply: func([]byte) []byte { return nil }, detail: "closed after 0 bytes", tcpOnly: true},
		{name: "half an answer", reply: func(b []byte) []byte { return answerTo(b)[:9] }, detail: "9 bytes"},
		{name: "more than an answer", reply: func(b []byte) []byte { return append(answerTo(b), '!') }, detail: "not a netproof message"},
		{name: "another nonce", reply: func([]byte) []byte { return message.AppendAnswer(nil, []byte("stale"), by) }, detail: `"stale"`},
		{name: "another version", reply: func(b []byte) []byte { a := answerTo(b); a[2]++; return a }, detail: "version"},
		{name: "a refusal", reply: func([]byte) []byte { return message.AppendRefusal(nil) }, detail: "refused"},
		{name: "right, byte by byte", reply: answerTo, outcome: probes.Answered, byteWise: true, tcpOnly: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			port++
			if c.outcome == "" {
				c.outcome = probes.WrongAnswer
			}
			ln := listen(t, server, port)
			go func() {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				buf := make([]byte, 1024)
				n, _ := conn.Read(buf)
				reply := c.reply(buf[:n])
				if !c.byteWise {
					_, _ = conn.Write(reply)
					return
				}
				_ = conn.(*net.TCPConn).SetNoDelay(true)
				for i := range reply {
					_, _ = conn.Write(reply[i : i+1])
				}
			}()
			var udpServer net.PacketConn
			require.NoError(t, inns.Do(server.NS, func() (err error) {
				udpServer, err = net.ListenPacket("udp4", fmt.Sprintf("%s:%d", server.IPv4, port))
				return err
			}))
			defer udpServer.Close()
			go func() {
				buf := make([]byte, 1024)
				n, from, err := udpServer.ReadFrom(buf)
				if err == nil {
					_, _ = udpServer.WriteTo(c.reply(buf[:n]), from)
				}
			}()
			r := probe(t, agent, probes.Request{Protocol: model.TCP, Address: server.IPv4, Port: port})[0]
			want{outcome: c.outcome, detail: c.detail}.checkButBy(t, r)
			if c.tcpOnly {
				return
			}
			r = probe(t, agent, probes.Request{Protocol: model.UDP, Address: server.IPv4, Port: port})[0]
			want{outcome: c.outcome}.checkButBy(t, r)
		})
	}
}

// checkButBy is check for answers whose server is not ours.
func (w want) checkButBy(t *testing.T, r probes.Response) {
	t.Helper()
	r.By = probes.Identity{}
	w.check(t, r)
}

func TestHostileInputDoesNotKeepTheServerFromAnswering(t *testing.T) {
	client, server := netlab.NewPair(t)
	engine := newEngine(t, Options{})
	agent := newAgent(t, engine, "client", client.NS)
	served := newAgent(t, engine, "server", server.NS, tcp(80), udp(80))
	to := netip.AddrPortFrom(server.IPv4, 80)
	answers := func() {
		t.Helper()
		for _, r := range probe(t, agent, probes.Request{Protocol: model.TCP, Address: to.Addr(), Port: 80},
			probes.Request{Protocol: model.UDP, Address: to.Addr(), Port: 80}) {
			want{outcome: probes.Answered}.check(t, r)
		}
	}
	good := message.AppendRequest(nil, message.Probe, "hostile-good")
	read := func(c net.Conn) string {
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		buf := make([]byte, 2048)
		n, _ := c.Read(buf)
		return string(buf[:n])
	}
	for name, bytes := range map[string]string{
		"garbage":           "GET / HTTP/1.1\r\n\r\n",
		"oversized":         strings.Repeat("np\x01q\xff", 1<<14),
		"zeros":             strings.Repeat("\x00", 4096),
		"empty nonce":       "np\x01q\x00",
		"trailing bytes":    string(good) + "x",
		"an answer":         string(message.AppendAnswer(nil, []byte("hostile-answer"), served.identity)),
		"a refusal":         string(message.AppendRefusal(nil)),
		"a foreign version": "np\x02q",
	} {
		t.Run(name, func(t *testing.T) {
			for _, network := range []string{"tcp", "udp"} {
				c := dial(t, client, network, to)
				_, err := c.Write([]byte(bytes))
				if network == "udp" && len(bytes) > 60000 {
					require.ErrorIs(t, err, unix.EMSGSIZE)
					continue
				}
				switch {
				case name == "a foreign version":
					assert.Equal(t, string(message.AppendRefusal(nil)), read(c))
				case network == "tcp":
					assert.Empty(t, read(c))
				default:
					// Silence: the next thing to be answered is a good request, on the same socket.
					_, err := c.Write(good)
					require.NoError(t, err)
					assert.Equal(t, string(message.AppendAnswer(nil, []byte("hostile-good"), served.identity)), read(c))
				}
			}
			answers()
		})
	}
	t.Run("slow clients", func(t *testing.T) {
		var slow []net.Conn
		for range 300 {
			c := dial(t, client, "tcp", to)
			_, err := c.Write(good[:3])
			require.NoError(t, err)
			slow = append(slow, c)
		}
		answers()
		_, err := slow[0].Write(good[3:])
		require.NoError(t, err)
		assert.Equal(t, string(message.AppendAnswer(nil, []byte("hostile-good"), served.identity)), read(slow[0]))
		served.Stop(tcp(80))
		assert.Empty(t, read(slow[1]), "stopping the server ends its connections")
	})
	seen, err := served.Records(t.Context(), []probes.Nonce{"hostile-good", "hostile-answer", ""})
	require.NoError(t, err)
	assert.Len(t, seen, 1)
}

func TestClientsThatNeverSpeakMakeRoomForOthers(t *testing.T) {
	client, server := netlab.NewPair(t)
	engine := newEngine(t, Options{})
	agent := newAgent(t, engine, "client", client.NS)
	newAgent(t, engine, "server", server.NS, tcp(80))
	mute := make([]int, maxSlowClients+10)
	require.NoError(t, inns.Do(client.NS, func() (err error) {
		for i := range mute {
			if mute[i], err = newSocket(model.TCP, false); err != nil {
				return err
			}
		}
		return nil
	}))
	defer func() {
		for _, fd := range mute {
			_ = unix.Close(fd)
		}
	}()
	var to sockaddr
	to.set(server.IPv4, 80, 0)
	for _, fd := range mute {
		require.NoError(t, unix.SetNonblock(fd, false))
		require.Zero(t, connectTo(fd, &to))
	}
	r := probe(t, agent, probes.Request{Protocol: model.TCP, Address: server.IPv4, Port: 80})[0]
	want{outcome: probes.Answered}.check(t, r)
	// The oldest were closed, the newest are still there.
	_, errno := recvBytes(mute[len(mute)-1], make([]byte, 1))
	assert.Equal(t, unix.EAGAIN, errno)
	n, errno := recvBytes(mute[0], make([]byte, 1))
	assert.Zero(t, n)
	assert.Zero(t, errno)
}

func TestADatagramIsAnsweredFromTheAddressItCameTo(t *testing.T) {
	client, server := netlab.NewPair(t)
	for _, extra := range []string{"10.10.0.77/24", "fd10::77/64"} {
		netlab.Address(t, server.NS, "eth0", netip.MustParsePrefix(extra))
	}
	engine := newEngine(t, Options{})
	agent := newAgent(t, engine, "client", client.NS)
	newAgent(t, engine, "server", server.NS, udp(80))
	for _, to := range []string{"10.10.0.2", "10.10.0.77", "fd10::2", "fd10::77"} {
		r := probe(t, agent, probes.Request{Protocol: model.UDP, Address: netip.MustParseAddr(to), Port: 80})[0]
		want{outcome: probes.Answered}.check(t, r)
	}
}

func TestLinkLocalAddressesAreProbedByZone(t *testing.T) {
	client, server := netlab.NewPair(t)
	engine := newEngine(t, Options{})
	agent := newAgent(t, engine, "client", client.NS)
	newAgent(t, engine, "server", server.NS, udp(80), tcp(80))
	netlab.Address(t, server.NS, "eth0", netip.MustParsePrefix("fe80::77/64"))
	for _, p := range []model.Protocol{model.TCP, model.UDP} {
		r := probe(t, agent, probes.Request{Protocol: p, Address: netip.MustParseAddr("fe80::77%eth0"), Port: 80})[0]
		want{outcome: probes.Answered}.check(t, r)
	}
}

func TestOneAgentServesManyPorts(t *testing.T) {
	client, server := netlab.NewPair(t)
	engine := newEngine(t, Options{})
	agent := newAgent(t, engine, "client", client.NS)
	var ports []model.Port
	for i := range 200 {
		ports = append(ports, tcp(1000+i), udp(1000+i))
	}
	served := newAgent(t, engine, "server", server.NS, ports...)
	assert.Equal(t, ports, served.Ports())
	var batch []probes.Request
	for _, p := range ports {
		for _, ipv6 := range bothFamilies {
			batch = append(batch, probes.Request{Protocol: p.Protocol, Address: server.Address(ipv6), Port: p.Number})
		}
	}
	for _, r := range probe(t, agent, batch...) {
		want{outcome: probes.Answered}.check(t, r)
	}
	statuses, err := served.Liveness(t.Context())
	require.NoError(t, err)
	require.Len(t, statuses, len(ports))
	for _, s := range statuses {
		assert.True(t, s.Alive, "%+v", s)
	}
}

func TestAPortThatIsTakenIsSaidAndTheOthersAreServed(t *testing.T) {
	client, server := netlab.NewPair(t)
	listen(t, server, 80)
	engine := newEngine(t, Options{})
	agent := newAgent(t, engine, "client", client.NS)
	served := newAgent(t, engine, "server", server.NS)
	err := served.Listen(tcp(80), tcp(81), tcp(0))
	require.ErrorIs(t, err, unix.EADDRINUSE)
	require.ErrorContains(t, err, "serve 80/TCP for x/server")
	require.ErrorContains(t, err, "serve 0/TCP for x/server")
	r := probe(t, agent, probes.Request{Protocol: model.TCP, Address: server.IPv4, Port: 81})[0]
	want{outcome: probes.Answered}.check(t, r)
	statuses, err := served.Liveness(t.Context())
	require.NoError(t, err)
	require.Len(t, statuses, 3)
	assert.False(t, statuses[0].Alive)
	assert.False(t, statuses[1].Alive)
	assert.Contains(t, statuses[1].Detail, "address already in use")
	assert.True(t, statuses[2].Alive)
}

func TestLivenessPassesUnderAPolicyThatCutsEverythingElse(t *testing.T) {
	client, server := netlab.NewPair(t)
	netlab.Filter(t, server.NS, `table inet lab {
 chain in { type filter hook input priority 0; policy drop;
  iif lo accept
 }
 chain out { type filter hook output priority 0; policy drop;
  oif lo accept
 }
}
`)
	engine := newEngine(t, Options{})
	agent := newAgent(t, engine, "client", client.NS)
	served := newAgent(t, engine, "server", server.NS, tcp(80), udp(80))
	for _, r := range probe(t, agent, probes.Request{Protocol: model.TCP, Address: server.IPv4, Port: 80, TimeoutMs: 200},
		probes.Request{Protocol: model.UDP, Address: server.IPv4, Port: 80, TimeoutMs: 200}) {
		want{outcome: probes.Timeout}.check(t, r)
	}
	statuses, err := served.Liveness(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []probes.ServerStatus{{Port: tcp(80), Alive: true}, {Port: udp(80), Alive: true}}, statuses)
}

func TestLivenessNeedsNoIPv6(t *testing.T) {
	ns := netlab.NewNamespace(t)
	netlab.Sysctl(t, ns, "net/ipv6/conf/all/disable_ipv6", "1")
	served := newAgent(t, newEngine(t, Options{}), "server", ns, tcp(80), udp(80))
	statuses, err := served.Liveness(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []probes.ServerStatus{{Port: tcp(80), Alive: true}, {Port: udp(80), Alive: true}}, statuses)
}

func TestLivenessIsNotProvenByAnotherServer(t *testing.T) {
	_, host := netlab.NewPair(t)
	// Two engines, as two processes: each with a part of the port.
	first := newAgent(t, newEngine(t, Options{}), "first", host.NS)
	newAgent(t, newEngine(t, Options{}), "second", host.NS, tcp(80))
	first.mu.Lock()
	first.servers[tcp(80)] = &server{port: tcp(80), loop: first.serving}
	first.mu.Unlock()
	statuses, err := first.Liveness(t.Context())
	require.NoError(t, err)
	require.Len(t, statuses, 1)
	assert.False(t, statuses[0].Alive)
	assert.Contains(t, statuses[0].Detail, "answered by x/second uid-second")
}

func TestAServerOutOfFileDescriptorsAnswersWhenThereAreSomeAgain(t *testing.T) {
	client, server := netlab.NewPair(t)
	engine := newEngine(t, Options{})
	agent := newAgent(t, engine, "client", client.NS)
	newAgent(t, engine, "server", server.NS, tcp(80))
	to := netip.AddrPortFrom(server.IPv4, 80)
	conn := dial(t, client, "tcp", to) // accepted or not, it has its file descriptor
	want{outcome: probes.Answered}.check(t, probe(t, agent, probes.Request{Protocol: model.TCP, Address: to.Addr(), Port: 80})[0])

	var before unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &before))
	second := dial(t, client, "tcp", to)
	// From here on no file descriptor is left.
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: before.Max}))
	r := probe(t, agent, probes.Request{Protocol: model.TCP, Address: to.Addr(), Port: 80})[0]
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &before))
	assert.Equal(t, probes.Error, r.Outcome, "%+v", r)
	assert.Contains(t, r.Detail, "too many open files")
	assert.False(t, r.Sent)
	for _, c := range []net.Conn{conn, second} {
		_, err := c.Write(message.AppendRequest(nil, message.Probe, "late"))
		require.NoError(t, err)
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		buf := make([]byte, 64)
		n, err := c.Read(buf)
		require.NoError(t, err)
		assert.Equal(t, "np\x01a\x04late", string(buf[:min(n, 9)]))
	}
}

func TestAListenerThatMayNotOpenAnotherFileWaits(t *testing.T) {
	client, server := netlab.NewPair(t)
	engine := newEngine(t, Options{})
	served := newAgent(t, engine, "server", server.NS, tcp(80))
	var fd int
	require.NoError(t, inns.Do(client.NS, func() (err error) {
		fd, err = newSocket(model.TCP, false)
		return err
	}))
	defer func() { _ = unix.Close(fd) }()
	var before unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &before))
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: before.Max}))
	var to sockaddr
	to.set(server.IPv4, 80, 0)
	errno := connectTo(fd, &to)
	// It waits for its timer, instead of trying without end.
	waits := assert.Eventually(t, func() bool {
		timers := 0
		return served.serving.call(func() { timers = len(served.serving.timers) }) && timers == 1
	}, 5*time.Second, time.Millisecond)
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &before))
	require.Equal(t, unix.EINPROGRESS, errno)
	require.True(t, waits)
	request := message.AppendRequest(nil, message.Probe, "patient")
	require.Eventually(t, func() bool {
		n, errno := sendBytes(fd, request, 0)
		return n == len(request) && errno == 0
	}, 5*time.Second, time.Millisecond)
	buf := make([]byte, 256)
	require.Eventually(t, func() bool {
		n, _ := recvBytes(fd, buf)
		return n > 0
	}, 5*time.Second, time.Millisecond)
}
