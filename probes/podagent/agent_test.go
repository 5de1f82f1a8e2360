//go:build linux

package podagent

import (
	"bufio"
	"context"
	"crypto/rand"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
	"github.com/netproof/netproof/probes/stream"
	"github.com/netproof/netproof/probes/wire"
)

var loopback = netip.MustParseAddr("127.0.0.1")

// freePort is a port that nobody serves at the moment.
func freePort(t *testing.T) int {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func newKey(t *testing.T) []byte {
	key := make([]byte, 32)
	_, err := rand.Read(key)
	require.NoError(t, err)
	return key
}

// pod runs the agent of a pod, as its container does, and returns a dial of its bridge, as an exec is.
func pod(t *testing.T, s Settings) stream.Dial {
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, s) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-served)
	})
	return func(ctx context.Context) (io.ReadWriteCloser, error) {
		near, far := net.Pipe()
		go func() {
			_ = Bridge(ctx, s, far, far)
			_ = far.Close()
		}()
		return near, nil
	}
}

// connected is the near end of a pod's agent.
func connected(t *testing.T, s Settings, key []byte, dial stream.Dial, targets ...netip.Addr) *stream.Agent {
	a := stream.New(s.Identity, key, dial, stream.Options{Targets: func() (int64, []netip.Addr) { return 1, targets }})
	t.Cleanup(func() { assert.NoError(t, a.Close()) })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	require.NoError(t, a.Await(ctx))
	return a
}

func settings(name string, key []byte, ports ...int) Settings {
	s := Settings{Identity: probes.Identity{Endpoint: model.Endpoint("x/" + name), UID: rand.Text()}, Commitment: Commitment(key), Nonce: rand.Text()}
	for _, p := range ports {
		s.Ports = append(s.Ports, model.Port{Number: p, Protocol: model.TCP}, model.Port{Number: p, Protocol: model.UDP})
	}
	return s
}

func probe(t *testing.T, a probes.Agent, to netip.Addr, port int, p model.Protocol) probes.Response {
	var got []probes.Response
	nonce := probes.Nonce(rand.Text())
	err := a.Probe(t.Context(), []probes.Request{{ID: 1, Nonce: nonce, Protocol: p, Address: to, Port: port, TimeoutMs: 500}},
		func(r probes.Response) { got = append(got, r) })
	require.NoError(t, err)
	require.Len(t, got, 1)
	return got[0]
}

func TestPodsOfOneRunReachEachOther(t *testing.T) {
	key, port := newKey(t), freePort(t)
	server, client := settings("server", key, port), settings("client", key)
	to := connected(t, server, key, pod(t, server))
	from := connected(t, client, key, pod(t, client), loopback)
	for _, p := range []model.Protocol{model.TCP, model.UDP} {
		r := probe(t, from, loopback, port, p)
		assert.Equal(t, probes.Answered, r.Outcome, "%s: %s", p, r.Detail)
		assert.Equal(t, server.Identity, r.By)
		seen, err := to.Records(t.Context(), []probes.Nonce{r.Nonce, "never sent"})
		require.NoError(t, err)
		require.Len(t, seen, 1)
		assert.Equal(t, r.Nonce, seen[0].Nonce)
	}
	alive, err := to.Liveness(t.Context())
	require.NoError(t, err)
	require.Len(t, alive, 2)
	for _, s := range alive {
		assert.True(t, s.Alive, s.Detail)
	}
}

func TestAServerAnswersNobodyOfAnotherRun(t *testing.T) {
	ours, theirs, port := newKey(t), newKey(t), freePort(t)
	server, stranger := settings("server", ours, port), settings("stranger", theirs)
	to := connected(t, server, ours, pod(t, server))
	from := connected(t, stranger, theirs, pod(t, stranger), loopback)
	for _, p := range []model.Protocol{model.TCP, model.UDP} {
		r := probe(t, from, loopback, port, p)
		assert.NotEqual(t, probes.Answered, r.Outcome, p)
		seen, err := to.Records(t.Context(), []probes.Nonce{r.Nonce})
		require.NoError(t, err)
		assert.Empty(t, seen, "what is not of this run is not recorded: %s", p)
	}
}

func TestAServerAnswersNobodyBeforeItsRunnerHasCome(t *testing.T) {
	key, port := newKey(t), freePort(t)
	server, client := settings("server", key, port), settings("client", key)
	dial := pod(t, server)
	from := connected(t, client, key, pod(t, client), loopback)
	assert.NotEqual(t, probes.Answered, probe(t, from, loopback, port, model.UDP).Outcome)
	connected(t, server, key, dial)
	assert.Equal(t, probes.Answered, probe(t, from, loopback, port, model.UDP).Outcome)
}

func TestAnAgentProbesEndpointsOfItsRunOnly(t *testing.T) {
	key, port := newKey(t), freePort(t)
	server, client := settings("server", key, port), settings("client", key)
	connected(t, server, key, pod(t, server))
	from := connected(t, client, key, pod(t, client), netip.MustParseAddr("127.0.0.2"))
	r := probe(t, from, loopback, port, model.TCP)
	assert.Equal(t, probes.Error, r.Outcome)
	assert.False(t, r.Sent)
	assert.Equal(t, "127.0.0.1 is not an endpoint of this run", r.Detail)
}

func TestAnAgentWorksForNobodyWithoutTheKey(t *testing.T) {
	key := newKey(t)
	s := settings("guarded", key)
	dial := pod(t, s)
	for name, shown := range map[string][]byte{"another key": newKey(t), "none": nil} {
		a := stream.New(s.Identity, shown, dial, stream.Options{})
		err := a.Await(t.Context())
		assert.ErrorIs(t, err, wire.ErrRefused, name)
		assert.NoError(t, a.Close())
	}
}

func TestEachContainerHasASocketThatNobodyCanGuess(t *testing.T) {
	s := settings("x", newKey(t))
	s.Nonce = ""
	names := map[string]bool{}
	for range 2 {
		text, ok := strings.CutPrefix(s.Environment()[0], SettingsEnv+"=")
		require.True(t, ok)
		got, err := ReadSettings(func(name string) string { return map[string]string{SettingsEnv: text}[name] })
		require.NoError(t, err)
		assert.GreaterOrEqual(t, len(got.Nonce), 26, "128 bits")
		assert.NotContains(t, got.socketName(), s.Identity.UID, "others may know that")
		names[got.socketName()] = true
	}
	assert.Len(t, names, 2)
}

// another is a user that is not the one of the tests.
const another = 65534

var anotherUser = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: another, Gid: another}}

// peer starts a process that is somebody else at the socket of s, and gives the first line that it prints.
func peer(t *testing.T, s Settings, do string, attr *syscall.SysProcAttr) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be another user and in another PID namespace")
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env, cmd.Dir, cmd.SysProcAttr = append(os.Environ(), peerEnv+"="+do+" "+s.socketName()), "/", attr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	return strings.TrimSpace(line)
}

func TestTheKeyIsNotShownToAnotherUserWhoHoldsTheSocket(t *testing.T) {
	s := settings("held", newKey(t))
	require.Equal(t, "held", peer(t, s, "hold", anotherUser))
	near, far := net.Pipe()
	defer near.Close()
	err := Bridge(t.Context(), s, far, far)
	require.ErrorContains(t, err, "of user 65534 is at the other end, and is not of this container")
}

func TestAnotherUserIsNotServed(t *testing.T) {
	s := settings("asked", newKey(t))
	pod(t, s)
	assert.Equal(t, "closed after 0 bytes", peer(t, s, "ask", anotherUser))
}

func TestTheSameUserOfAnotherContainerIsNotTrusted(t *testing.T) {
	s := settings("asked", newKey(t))
	pod(t, s)
	// A process of a PID namespace below ours does not see us. Ours sees it, as the host does a container.
	said := peer(t, s, "bridge", &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID})
	assert.Contains(t, said, "process 0 of user 0 is at the other end, and is not of this container")
}

func TestSettingsAreReadFromTheEnvironment(t *testing.T) {
	want := Settings{Identity: probes.Identity{Endpoint: "x/a"}, Ports: []model.Port{{Number: 80, Protocol: model.TCP}}, Commitment: "c", Nonce: "n"}
	env := map[string]string{UIDEnv: "the-uid"}
	for _, e := range want.Environment() {
		name, value, _ := strings.Cut(e, "=")
		env[name] = value
	}
	got, err := ReadSettings(func(name string) string { return env[name] })
	require.NoError(t, err)
	want.Identity.UID = "the-uid"
	assert.Equal(t, want, got)

	for text, wrong := range map[string]string{"": "is not set", "{": "read NETPROOF_AGENT", "{}": "missing"} {
		_, err := ReadSettings(func(name string) string {
			if name == SettingsEnv {
				return text
			}
			return ""
		})
		assert.ErrorContains(t, err, wrong)
	}
}
