package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
)

// scripted is an agent whose answers the test writes.
type scripted struct {
	identity probes.Identity
	probe    func(context.Context, []probes.Request, func(probes.Response)) error
	records  func([]probes.Nonce) ([]probes.Record, error)
	servers  []probes.ServerStatus
	err      error
	forgot   int
}

func (s *scripted) Identity() probes.Identity { return s.identity }

func (s *scripted) Probe(ctx context.Context, batch []probes.Request, deliver func(probes.Response)) error {
	return s.probe(ctx, batch, deliver)
}

func (s *scripted) Records(_ context.Context, nonces []probes.Nonce) ([]probes.Record, error) {
	return s.records(nonces)
}

func (s *scripted) Liveness(context.Context) ([]probes.ServerStatus, error) { return s.servers, s.err }

func (s *scripted) Forget(context.Context) error { s.forgot++; return s.err }

// answering returns an agent that answers every probe, and has seen every nonce that begins with s.
func answering() *scripted {
	by := probes.Identity{Endpoint: "y/b", UID: "uid-b"}
	return &scripted{
		identity: probes.Identity{Endpoint: "x/a", UID: "uid-a"},
		probe: func(_ context.Context, batch []probes.Request, deliver func(probes.Response)) error {
			for _, r := range batch {
				deliver(probes.Response{ID: r.ID, Nonce: r.Nonce, Outcome: probes.Answered, Sent: true, Attempts: 1, By: by})
			}
			return nil
		},
		records: func(nonces []probes.Nonce) (seen []probes.Record, _ error) {
			for _, n := range nonces {
				if strings.HasPrefix(string(n), "s") {
					seen = append(seen, probes.Record{Nonce: n, Peer: netip.MustParseAddrPort("10.0.0.1:1234")})
				}
			}
			return seen, nil
		},
		servers: []probes.ServerStatus{{Port: model.Port{Name: "web", Number: 80, Protocol: model.TCP}, Alive: true}},
	}
}

// connect serves an agent over a pipe and dials it. Both ends are gone at the end of the test.
func connect(t *testing.T, agent probes.Agent) *Client {
	t.Helper()
	near, far := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- Serve(context.Background(), far, agent) }()
	c, err := Dial(t.Context(), near)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, c.Close())
		require.NoError(t, <-served)
	})
	return c
}

func requests(n int) []probes.Request {
	batch := make([]probes.Request, n)
	for i := range batch {
		batch[i] = probes.Request{
			ID: int64(i), Nonce: probes.Nonce(fmt.Sprintf("s%d", i)), Protocol: model.TCP,
			Address: netip.MustParseAddr("10.0.0.2"), Port: 80, TimeoutMs: 1000,
		}
	}
	return batch
}

func TestLongBatchesAndListsGoThroughWhole(t *testing.T) {
	c := connect(t, answering())
	batch := requests(3*maxBatch + 7)
	seen := map[int64]bool{}
	require.NoError(t, c.Probe(t.Context(), batch, func(r probes.Response) { seen[r.ID] = true }))
	assert.Len(t, seen, len(batch))
	nonces := make([]probes.Nonce, 2*maxNonces+3)
	for i := range nonces {
		nonces[i] = probes.Nonce(fmt.Sprintf("%c%d", "sx"[i%2], i))
	}
	records, err := c.Records(t.Context(), nonces)
	require.NoError(t, err)
	assert.Len(t, records, maxNonces+2)
	records, err = c.Records(t.Context(), nil)
	require.NoError(t, err)
	assert.Empty(t, records)
	require.NoError(t, c.Probe(t.Context(), nil, nil))
}

func TestCallsRunAtTheSameTime(t *testing.T) {
	agent := answering()
	var both sync.WaitGroup
	both.Add(2)
	inner := agent.probe
	agent.probe = func(ctx context.Context, batch []probes.Request, deliver func(probes.Response)) error {
		both.Done()
		both.Wait() // hangs unless two calls are at work
		return inner(ctx, batch, deliver)
	}
	c := connect(t, agent)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { assert.NoError(t, c.Probe(t.Context(), requests(3), func(probes.Response) {})) })
	}
	wg.Wait()
	require.NoError(t, c.Forget(t.Context()))
	assert.Equal(t, 1, agent.forgot)
}

func TestErrorsOfTheAgentArriveAndTheStreamLivesOn(t *testing.T) {
	agent := answering()
	agent.err = errors.New("namespace is gone")
	agent.probe = func(_ context.Context, batch []probes.Request, deliver func(probes.Response)) error {
		deliver(probes.Response{ID: batch[0].ID, Nonce: batch[0].Nonce, Outcome: probes.Timeout})
		return agent.err
	}
	agent.records = func(n []probes.Nonce) ([]probes.Record, error) {
		return []probes.Record{{Nonce: n[0]}}, fmt.Errorf("%w: one of them", probes.ErrForgotten)
	}
	c := connect(t, agent)
	delivered := 0
	err := c.Probe(t.Context(), requests(3), func(probes.Response) { delivered++ })
	require.ErrorContains(t, err, "probe from x/a: 2 of 3 outcomes are unknown: agent of x/a: namespace is gone")
	require.NotErrorIs(t, err, ErrStream)
	assert.Equal(t, 1, delivered)
	_, err = c.Liveness(t.Context())
	require.ErrorContains(t, err, "liveness of x/a: agent of x/a: namespace is gone")
	records, err := c.Records(t.Context(), []probes.Nonce{"a", "b"})
	require.ErrorIs(t, err, probes.ErrForgotten)
	assert.Len(t, records, 1)
	require.ErrorContains(t, c.Forget(t.Context()), "namespace is gone")
}

func TestAnAgentThatCallsAnIncompleteBatchCompleteIsNotBelieved(t *testing.T) {
	agent := answering()
	agent.probe = func(_ context.Context, batch []probes.Request, deliver func(probes.Response)) error {
		deliver(probes.Response{ID: batch[0].ID, Nonce: batch[0].Nonce, Outcome: probes.Timeout})
		return nil
	}
	err := connect(t, agent).Probe(t.Context(), requests(2), func(probes.Response) {})
	require.ErrorIs(t, err, ErrStream)
	require.ErrorContains(t, err, "1 of 2 outcomes are unknown")
}

func TestCancellingAProbeReachesTheAgent(t *testing.T) {
	agent := answering()
	begun, ended := make(chan struct{}), make(chan error, 1)
	agent.probe = func(ctx context.Context, _ []probes.Request, _ func(probes.Response)) error {
		close(begun)
		<-ctx.Done()
		ended <- ctx.Err()
		return ctx.Err()
	}
	c := connect(t, agent)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-begun; cancel() }()
	err := c.Probe(ctx, requests(3), func(probes.Response) { t.Error("delivered") })
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, <-ended, context.Canceled)
	servers, err := c.Liveness(t.Context())
	require.NoError(t, err, "the stream lives on")
	assert.Equal(t, agent.servers, servers)
}

func TestTwoRequestsOfOneIDAreRefused(t *testing.T) {
	batch := requests(2)
	batch[1].ID = 0
	require.ErrorContains(t, connect(t, answering()).Probe(t.Context(), batch, nil), "two requests have the id 0")
}

// tape is a stream that plays what the agent's side said once, up to some byte, and then ends or goes on as told. What
// is written to it is thrown away.
type tape struct {
	io.Reader
	closed chan struct{}
	once   sync.Once
}

func newTape(b []byte) *tape { return &tape{Reader: bytes.NewReader(b), closed: make(chan struct{})} }

func (*tape) Write(b []byte) (int, error) { return len(b), nil }

func (p *tape) Close() error { p.once.Do(func() { close(p.closed) }); return nil }

// whole is all an agent's side says to a client that makes one call of Probe with three requests.
func whole(t *testing.T) []byte {
	t.Helper()
	near, far := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- Serve(context.Background(), far, answering()) }()
	var said bytes.Buffer
	c, err := Dial(t.Context(), struct {
		io.Reader
		io.WriteCloser
	}{io.TeeReader(near, &said), near})
	require.NoError(t, err)
	require.NoError(t, c.Probe(t.Context(), requests(3), func(probes.Response) {}))
	require.NoError(t, c.Close())
	require.NoError(t, <-served)
	return said.Bytes()
}

// use makes the call again, on a stream that says b. Since b is there before the call is made, the client's reader is
// held back until the call is on its way.
func use(t *testing.T, b []byte) (delivered []probes.Response, err error) {
	t.Helper()
	head := bytes.IndexByte(b, '\n') + 1
	rest, hold := newTape(b[head:]), make(chan struct{})
	stream := &struct {
		io.Reader
		io.Writer
		io.Closer
	}{io.MultiReader(bytes.NewReader(b[:head]), readerFunc(func(p []byte) (int, error) {
		<-hold
		return rest.Read(p)
	})), writerFunc(func(p []byte) (int, error) {
		if bytes.Contains(p, []byte(`"probe":`)) {
			close(hold)
		}
		return len(p), nil
	}), rest}
	c, err := Dial(t.Context(), stream)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err = c.Probe(ctx, requests(3), func(r probes.Response) { delivered = append(delivered, r) })
	require.NotErrorIs(t, err, context.DeadlineExceeded)
	return delivered, err
}

type (
	readerFunc func([]byte) (int, error)
	writerFunc func([]byte) (int, error)
)

func (f readerFunc) Read(p []byte) (int, error)  { return f(p) }
func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestAStreamCutAtAnyByteIsAnErrorAndNeverAResult(t *testing.T) {
	all := whole(t)
	head := bytes.IndexByte(all, '\n') + 1
	delivered, err := use(t, all)
	require.NoError(t, err)
	require.Len(t, delivered, 3)
	for n := range all {
		if n < head {
			_, err := Dial(t.Context(), newTape(all[:n]))
			require.ErrorIs(t, err, ErrStream, "cut after %d bytes", n)
			continue
		}
		cut, err := use(t, all[:n])
		if len(cut) == 3 {
			// All outcomes came, only the end is missing.
			require.NoError(t, err)
			continue
		}
		require.ErrorIs(t, err, ErrStream, "cut after %d of %d bytes", n, len(all))
		require.ErrorContains(t, err, "outcomes are unknown")
		for _, r := range cut {
			assert.True(t, slices.Contains(delivered, r))
		}
	}
}

func TestGarbledLinesBreakTheStream(t *testing.T) {
	all := whole(t)
	head := bytes.IndexByte(all, '\n') + 1
	for name, garble := range map[string]func([]byte) []byte{
		"noise before the line":     func(b []byte) []byte { return append([]byte("warning: x\n"), b...) },
		"two lines run together":    func(b []byte) []byte { return bytes.Replace(b, []byte("}\n"), []byte("}"), 1) },
		"an unknown outcome":        func(b []byte) []byte { return bytes.Replace(b, []byte("answered"), []byte("answereD"), 1) },
		"an unknown field":          func(b []byte) []byte { return bytes.Replace(b, []byte(`"outcome"`), []byte(`"outcom3"`), 1) },
		"another nonce":             func(b []byte) []byte { return bytes.Replace(b, []byte(`"s1"`), []byte(`"s7"`), 1) },
		"another id":                func(b []byte) []byte { return bytes.Replace(b, []byte(`"id":1`), []byte(`"id":7`), 1) },
		"the same id twice":         func(b []byte) []byte { return bytes.Replace(b, []byte(`"id":1`), []byte(`"id":0`), 1) },
		"a call that was not made":  func(b []byte) []byte { return bytes.ReplaceAll(b, []byte(`"call":1`), []byte(`"call":2`)) },
		"a wrong count":             func(b []byte) []byte { return bytes.Replace(b, []byte(`"count":3`), []byte(`"count":2`), 1) },
		"a line that has no end":    func([]byte) []byte { return bytes.Repeat([]byte(" "), maxLine+2) },
		"an end without outcomes":   func([]byte) []byte { return []byte(`{"call":1,"end":{"count":0}}` + "\n") },
		"results of another kind":   func([]byte) []byte { return []byte(`{"call":1,"records":[{"nonce":"s1","peer":""}]}` + "\n") },
		"results after the end":     func(b []byte) []byte { return []byte(`{"call":1,"end":{"count":0}}` + "\n" + string(b)) },
		"binary":                    func([]byte) []byte { return []byte("\x00\x01\xff\xfe\n") },
		"a terminal's line endings": func(b []byte) []byte { return bytes.ReplaceAll(b, []byte(`,"`), []byte(",\r\x1b[K\"")) },
	} {
		t.Run(name, func(t *testing.T) {
			garbled := append(slices.Clone(all[:head]), garble(slices.Clone(all[head:]))...)
			require.NotEqual(t, all, garbled)
			delivered, err := use(t, garbled)
			if name == "a wrong count" && err == nil {
				require.Len(t, delivered, 3, "the outcomes were whole by then")
				return
			}
			require.ErrorIs(t, err, ErrStream)
			assert.Less(t, len(delivered), 3)
		})
	}
}

func TestAHelloOfAnotherVersionOrProtocolIsRefused(t *testing.T) {
	for line, want := range map[string]error{
		`{"netproof":"probes","version":2,"identity":{"endpoint":"x/a"},"new":true}`: ErrVersion,
		`{"netproof":"other","version":1}`:                                           ErrStream,
		`{"netproof":"probes","version":1}`:                                          ErrStream,
		`OCI runtime exec failed`:                                                    ErrStream,
		``:                                                                           ErrStream,
	} {
		_, err := Dial(t.Context(), newTape([]byte(line+"\n")))
		require.ErrorIs(t, err, want, line)
		if line == `{"netproof":"probes","version":1}` {
			continue // a client's hello has no identity
		}
		err = Serve(t.Context(), newTape([]byte(line+"\n")), answering())
		require.ErrorIs(t, err, want, line)
	}
}

func TestTheAgentsSideRefusesWhatIsNotOfTheProtocol(t *testing.T) {
	greeting := `{"netproof":"probes","version":1}` + "\n"
	for _, lines := range []string{
		`nonsense`, `{"call":1}`, `{"call":0,"liveness":true}`, `{"call":-1,"liveness":true}`,
		`{"call":1,"liveness":true,"forget":true}`, `{"call":1,"liveness":true,"extra":1}`, `{"call":1,"liveness":true}{`,
		`{"call":1,"probe":[{"id":0,"address":"nowhere"}]}`,
	} {
		require.ErrorIs(t, Serve(t.Context(), newTape([]byte(greeting+lines+"\n")), answering()), ErrStream, lines)
	}
	require.ErrorIs(t, Serve(t.Context(), newTape([]byte(greeting+`{"call":1,"live`)), answering()), io.ErrUnexpectedEOF)
	require.NoError(t, Serve(t.Context(), newTape([]byte(greeting+`{"cancel":9}`+"\n")), answering()))
	require.NoError(t, Serve(t.Context(), newTape([]byte(greeting)), answering()))
}

func TestServingEndsWithItsContextAndWithTheStreamAndLeavesNoGoroutine(t *testing.T) {
	before := runtime.NumGoroutine()
	hanging := answering()
	hanging.probe = func(ctx context.Context, _ []probes.Request, _ func(probes.Response)) error {
		<-ctx.Done()
		return ctx.Err()
	}
	for _, end := range []string{"context", "stream"} {
		near, far := net.Pipe()
		ctx, cancel := context.WithCancel(context.Background())
		served := make(chan error, 1)
		go func() { served <- Serve(ctx, far, hanging) }()
		c, err := Dial(t.Context(), near)
		require.NoError(t, err)
		probed := make(chan error, 1)
		go func() { probed <- c.Probe(t.Context(), requests(1), func(probes.Response) {}) }()
		_, err = c.Liveness(t.Context())
		require.NoError(t, err)
		if end == "context" {
			cancel()
			require.ErrorIs(t, <-served, context.Canceled)
		} else {
			require.NoError(t, near.Close())
			require.NoError(t, <-served)
		}
		// Serving that ends in order may still say that it cancelled the call.
		require.ErrorContains(t, <-probed, "1 of 1 outcomes are unknown")
		<-c.Broken()
		_, err = c.Liveness(t.Context())
		require.ErrorIs(t, err, ErrStream)
		require.NoError(t, c.Close())
		cancel()
	}
	// Eventually itself looks from a goroutine of its own.
	assert.Eventually(t, func() bool { return runtime.NumGoroutine() <= before+1 }, 10*time.Second, time.Millisecond)
}

func TestDialEndsWithItsContext(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := Dial(ctx, near)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}
