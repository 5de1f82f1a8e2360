package stream

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/probes"
	"github.com/netproof/netproof/probes/wire"
)

// fakeAgent stands for an agent at the other end; what it does with probes is up to the test.
type fakeAgent struct {
	boot string
	do   func(ctx context.Context, batch []probes.Request, deliver func(probes.Response)) error

	mu      sync.Mutex
	targets [][]netip.Addr
}

var (
	_ probes.Agent = (*fakeAgent)(nil)
	_ wire.Guard   = (*fakeAgent)(nil)
)

var id = probes.Identity{Endpoint: "x/a", UID: "1"}

func (f *fakeAgent) Identity() probes.Identity { return id }
func (f *fakeAgent) Boot() string              { return f.boot }

func (f *fakeAgent) Admit(key []byte) error {
	if string(key) != "key" {
		return errors.New("wrong key")
	}
	return nil
}

func (f *fakeAgent) SetTargets(list []netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.targets = append(f.targets, list)
}

func (f *fakeAgent) Probe(ctx context.Context, batch []probes.Request, deliver func(probes.Response)) error {
	if f.do != nil {
		return f.do(ctx, batch, deliver)
	}
	for _, r := range batch {
		deliver(probes.Response{ID: r.ID, Nonce: r.Nonce, Outcome: probes.Answered})
	}
	return nil
}

func (f *fakeAgent) Records(context.Context, []probes.Nonce) ([]probes.Record, error) {
	return nil, nil
}
func (f *fakeAgent) Liveness(context.Context) ([]probes.ServerStatus, error) { return nil, nil }

// line is the way to an agent, which a test can cut.
type line struct {
	mu    sync.Mutex
	agent *fakeAgent
	conns []net.Conn
	down  error
	dials atomic.Int64
}

func (l *line) dial(ctx context.Context) (io.ReadWriteCloser, error) {
	l.dials.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down != nil {
		return nil, l.down
	}
	near, far := net.Pipe()
	l.conns = append(l.conns, far)
	agent := l.agent
	go func() { _ = wire.Serve(context.WithoutCancel(ctx), far, agent) }()
	return near, nil
}

func (l *line) cut(down error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = down
	for _, c := range l.conns {
		_ = c.Close()
	}
	l.conns = nil
}

func open(t *testing.T, l *line, o Options) *Agent {
	a := New(id, []byte("key"), l.dial, o)
	t.Cleanup(func() { assert.NoError(t, a.Close()) })
	require.NoError(t, a.Await(soon(t)))
	return a
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

var one = []probes.Request{{ID: 7, Nonce: "n"}}

// disconnected returns when the agent has noticed that its connection is gone.
func disconnected(t *testing.T, a *Agent) {
	t.Helper()
	require.Eventually(t, func() bool { return errors.Is(a.Probe(soon(t), one, func(probes.Response) {}), ErrLost) }, 5*time.Second, time.Millisecond)
}

func TestALostConnectionIsMadeAgain(t *testing.T) {
	l := &line{agent: &fakeAgent{boot: "1"}}
	a := open(t, l, Options{})
	l.cut(errors.New("no route"))
	disconnected(t, a)
	_, err := a.Records(soon(t), []probes.Nonce{"n"})
	require.ErrorIs(t, err, ErrLost)
	assert.ErrorContains(t, err, "x/a")
	l.cut(nil)
	require.NoError(t, a.Await(soon(t)))
	got := 0
	require.NoError(t, a.Probe(soon(t), one, func(probes.Response) { got++ }))
	assert.Equal(t, 1, got)
}

func TestWhatWasInFlightOnALostConnectionIsUnknown(t *testing.T) {
	began := make(chan struct{})
	l := &line{agent: &fakeAgent{boot: "1", do: func(ctx context.Context, batch []probes.Request, deliver func(probes.Response)) error {
		deliver(probes.Response{ID: batch[0].ID, Nonce: batch[0].Nonce, Outcome: probes.Timeout})
		close(began)
		<-ctx.Done()
		return ctx.Err()
	}}}
	a := open(t, l, Options{})
	batch := []probes.Request{{ID: 1, Nonce: "a"}, {ID: 2, Nonce: "b"}}
	go func() {
		<-began
		l.cut(nil)
	}()
	var got []int64
	err := a.Probe(soon(t), batch, func(r probes.Response) { got = append(got, r.ID) })
	require.ErrorIs(t, err, ErrLost)
	assert.NotContains(t, got, int64(2), "the second has no outcome")
}

func TestAnAgentThatWasStartedAgainIsNotTheSame(t *testing.T) {
	l := &line{agent: &fakeAgent{boot: "1"}}
	a := open(t, l, Options{})
	l.mu.Lock()
	l.agent = &fakeAgent{boot: "2"}
	l.mu.Unlock()
	l.cut(nil)
	require.Eventually(t, func() bool { return errors.Is(a.Await(soon(t)), ErrRestarted) }, 5*time.Second, time.Millisecond)
	assert.ErrorIs(t, a.Probe(soon(t), one, nil), ErrRestarted)
}

func TestARefusalIsFinal(t *testing.T) {
	l := &line{agent: &fakeAgent{boot: "1"}}
	a := New(id, []byte("another key"), l.dial, Options{Backoff: time.Millisecond})
	defer a.Close()
	require.ErrorIs(t, a.Await(soon(t)), wire.ErrRefused)
	<-a.ended
	assert.EqualValues(t, 1, l.dials.Load())

	other := New(probes.Identity{Endpoint: "x/b"}, []byte("key"), l.dial, Options{})
	defer other.Close()
	assert.ErrorContains(t, other.Await(soon(t)), "it is that of x/a")
}

func TestAnAgentThatFallsSilentIsGone(t *testing.T) {
	near, far := net.Pipe() // greets, and never reads again
	l := &line{agent: &fakeAgent{boot: "1"}}
	first := true
	dial := func(ctx context.Context) (io.ReadWriteCloser, error) {
		if !first {
			return l.dial(ctx)
		}
		first = false
		go func() {
			_, _ = far.Read(make([]byte, 4096))
			_, _ = far.Write([]byte(`{"netproof":"probes","version":1,"identity":{"endpoint":"x/a","uid":"1"},"boot":"1"}` + "\n"))
		}()
		return near, nil
	}
	a := New(id, []byte("key"), dial, Options{Patience: 20 * time.Millisecond})
	defer a.Close()
	require.NoError(t, a.Await(soon(t)))
	require.Eventually(t, func() bool { return a.Probe(soon(t), one, func(probes.Response) {}) == nil }, 5*time.Second, 5*time.Millisecond)
}

func TestTargetsAreToldWhenTheyChange(t *testing.T) {
	f := &fakeAgent{boot: "1"}
	var version atomic.Int64
	version.Store(1)
	list := []netip.Addr{netip.MustParseAddr("10.0.0.1")}
	a := open(t, &line{agent: f}, Options{Targets: func() (int64, []netip.Addr) { return version.Load(), list }})
	for range 3 {
		require.NoError(t, a.Probe(soon(t), one, func(probes.Response) {}))
	}
	version.Store(2)
	require.NoError(t, a.Probe(soon(t), one, func(probes.Response) {}))
	f.mu.Lock()
	defer f.mu.Unlock()
	assert.Equal(t, [][]netip.Addr{list, list}, f.targets)
}

func TestAClosedAgentSaysSo(t *testing.T) {
	a := open(t, &line{agent: &fakeAgent{}}, Options{})
	require.NoError(t, a.Close())
	assert.ErrorIs(t, a.Await(soon(t)), errClosed)
	assert.ErrorIs(t, a.Probe(soon(t), one, nil), ErrLost)
}
