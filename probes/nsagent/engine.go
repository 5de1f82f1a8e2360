//go:build linux

package nsagent

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
	"github.com/netproof/netproof/probes/inns"
	"github.com/netproof/netproof/probes/message"
)

// ErrClosed is returned by what an agent or its engine was doing, or is asked to do, when it is closed.
var ErrClosed = errors.New("agent is closed")

// Options are the settings of an [Engine]. The zero value is good.
type Options struct {
	// MaxSockets bounds the probes in flight in the whole process. Default: a third of what the limit on open files
	// leaves, since the servers' ends are in this process too, at most 16384.
	MaxSockets int
	// MaxRecords is the number of nonces that the servers of one endpoint remember. Default 262144.
	MaxRecords int
	// UDPPortRest and TCPPortRest are how long a source port is not used again toward the same destination. The default
	// for UDP, 185 s, is longer than Linux remembers a stream (nf_conntrack_udp_timeout_stream, 120 s; older kernels
	// 180 s). For TCP, whose connections are reset, 1 s; after an unanswered TCP probe the port rests as for UDP.
	UDPPortRest, TCPPortRest time.Duration
	// LivenessTimeout is how long a server may take to answer its own endpoint. Default 1 s.
	LivenessTimeout time.Duration
}

// Engine drives the sockets of all agents of a process.
type Engine struct {
	options Options
	limiter *limiter
	// gate bounds the threads that are inside some namespace at the same time.
	gate chan struct{}
	// probing and serving are the loops; a namespace stays with one of each kind.
	probing, serving []*loop
	// inFlight is the number of Probe calls at work.
	inFlight atomic.Int64

	mu     sync.Mutex
	closed bool
	agents map[*Agent]struct{}
	// ports belong to a namespace, not to an agent: pods on the host network share their node's.
	ports map[string]*sharedPorts
	turn  int
}

type sharedPorts struct {
	ports *sourcePorts
	users int
}

// NewEngine starts an engine. It must be closed.
func NewEngine(o Options) (*Engine, error) {
	if o.MaxSockets <= 0 {
		o.MaxSockets = defaultMaxSockets()
	}
	if o.UDPPortRest <= 0 {
		o.UDPPortRest = 185 * time.Second
	}
	if o.TCPPortRest <= 0 {
		o.TCPPortRest = time.Second
	}
	if o.LivenessTimeout <= 0 {
		o.LivenessTimeout = time.Second
	}
	e := &Engine{
		options: o,
		limiter: newLimiter(o.MaxSockets),
		gate:    make(chan struct{}, max(2, runtime.GOMAXPROCS(0))),
		agents:  map[*Agent]struct{}{},
		ports:   map[string]*sharedPorts{},
	}
	for range max(1, min(maxLoops, runtime.GOMAXPROCS(0)/2)) {
		for _, loops := range []*[]*loop{&e.probing, &e.serving} {
			l, err := newLoop(func() bool { return e.inFlight.Load() > 0 })
			if err != nil {
				_ = e.Close()
				return nil, err
			}
			l.release = e.limiter.release
			*loops = append(*loops, l)
			go l.run()
		}
	}
	return e, nil
}

// defaultMaxSockets derives the bound from the limit on open files, which the Go runtime raises to the hard one.
func defaultMaxSockets() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		limit.Cur = 1024
	}
	inUse := 64
	if entries, err := os.ReadDir("/proc/self/fd"); err == nil {
		inUse += len(entries)
	}
	return max(16, min(16384, (int(min(limit.Cur, 1<<20))-inUse)/3))
}

// Close closes every agent, and returns when nothing of the engine is left running.
func (e *Engine) Close() error {
	e.mu.Lock()
	e.closed = true
	agents := make([]*Agent, 0, len(e.agents))
	for a := range e.agents {
		agents = append(agents, a)
	}
	e.mu.Unlock()
	var errs []error
	for _, a := range agents {
		errs = append(errs, a.Close())
	}
	for _, l := range append(append([]*loop{}, e.probing...), e.serving...) {
		l.stop()
	}
	return errors.Join(errs...)
}

// maxLoops is the number of loops of a kind.
const maxLoops = 4

// lateness is how late the loops were that a probe depends on: the one that watches it, and those of the servers, one
// of which may have to answer it.
type lateness [1 + maxLoops]int64

// measure takes the lateness of the loops now.
func (e *Engine) measure(t *lateness, probing *loop) {
	t[0] = probing.lateness()
	for i, l := range e.serving {
		t[1+i] = l.lateness()
	}
}

// since is how late the latest of the loops was since then.
func (t *lateness) since(then *lateness) int64 {
	var late int64
	for i := range t {
		late = max(late, t[i]-then[i])
	}
	return late
}

// begin and end bracket the time in which punctuality matters.
func (e *Engine) begin() {
	if e.inFlight.Add(1) == 1 {
		for _, l := range e.probing {
			l.wake()
		}
		for _, l := range e.serving {
			l.wake()
		}
	}
}

func (e *Engine) end() { e.inFlight.Add(-1) }

// inside runs fn in a namespace, with few threads doing so at the same time.
func (e *Engine) inside(ns netns.NsHandle, fn func() error) error {
	e.gate <- struct{}{}
	defer func() { <-e.gate }()
	return inns.Do(ns, fn)
}

// Config says what an agent is.
type Config struct {
	Identity probes.Identity
	// Namespace is an open handle of the network namespace to act in; the agent keeps a copy of its own. With
	// [netns.None] (beware: the zero value is file descriptor 0) it is the one of the process, and no privilege is
	// needed.
	Namespace netns.NsHandle
	// Key authenticates probes and answers; nil for none.
	Key message.Key
}

// NewAgent makes an agent. It serves nothing before [Agent.Listen].
func (e *Engine) NewAgent(c Config) (*Agent, error) {
	if err := message.CheckIdentity(c.Identity); err != nil {
		return nil, err
	}
	a := &Agent{
		engine:   e,
		identity: c.Identity,
		ns:       netns.None(),
		records:  newRecords(e.options.MaxRecords),
		servers:  map[model.Port]*server{},
		closing:  make(chan struct{}),
	}
	a.SetKey(c.Key)
	if c.Namespace.IsOpen() {
		fd, err := unix.FcntlInt(uintptr(c.Namespace), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("duplicate network namespace of %s: %w", c.Identity.Endpoint, err)
		}
		a.ns = netns.NsHandle(fd)
	}
	if err := e.register(a); err != nil {
		if a.ns.IsOpen() {
			_ = a.ns.Close()
		}
		return nil, err
	}
	return a, nil
}

func (e *Engine) register(a *Agent) error {
	id, err := namespaceID(a.ns)
	if err != nil {
		return fmt.Errorf("identify network namespace of %s: %w", a.identity.Endpoint, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return ErrClosed
	}
	shared := e.ports[id]
	if shared == nil {
		var first, last int
		var reserved func(int) bool
		if err := inns.Do(a.ns, func() error {
			first, last, reserved = ephemeralRange()
			return nil
		}); err != nil {
			return fmt.Errorf("enter network namespace of %s: %w", a.identity.Endpoint, err)
		}
		shared = &sharedPorts{ports: newSourcePorts(first, last, reserved, e.portRest)}
		e.ports[id] = shared
	}
	shared.users++
	a.portsID, a.ports = id, shared.ports
	a.probing = e.probing[e.turn%len(e.probing)]
	a.serving = e.serving[e.turn%len(e.serving)]
	e.turn++
	e.agents[a] = struct{}{}
	return nil
}

func (e *Engine) unregister(a *Agent) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.agents, a)
	shared := e.ports[a.portsID]
	if shared.users--; shared.users == 0 {
		delete(e.ports, a.portsID)
	}
}

func (e *Engine) portRest(p model.Protocol) time.Duration {
	if p == model.TCP {
		return e.options.TCPPortRest
	}
	return e.options.UDPPortRest
}

// namespaceID names a namespace for as long as it exists.
func namespaceID(ns netns.NsHandle) (string, error) {
	var st unix.Stat_t
	var err error
	if ns.IsOpen() {
		err = unix.Fstat(int(ns), &st)
	} else {
		err = unix.Stat("/proc/thread-self/ns/net", &st)
	}
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino), nil
}
