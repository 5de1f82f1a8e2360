package run

import (
	"context"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
)

// fakeCluster is a real cluster whose agents are replaced by others. It stands for what no fault of a real part can
// show: programs that lie.
type fakeCluster struct {
	cluster.Cluster
	// reached is called for every pod whose agent is asked for, wrap for every agent that is made.
	reached func(*corev1.Pod)
	wrap    func(*fakeAgent)

	mu     sync.Mutex
	agents map[model.Endpoint]*fakeAgent
}

var _ cluster.Cluster = (*fakeCluster)(nil)

// withFakes puts fake agents, which behave until a test says otherwise, in front of those of the pods.
func withFakes(c cluster.Cluster) *fakeCluster {
	return &fakeCluster{Cluster: c, agents: map[model.Endpoint]*fakeAgent{}}
}

func (c *fakeCluster) PodAgent(ctx context.Context, pod *corev1.Pod) (probes.Agent, error) {
	real, err := c.Cluster.PodAgent(ctx, pod)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reached != nil {
		c.reached(pod)
	}
	a := &fakeAgent{Agent: real}
	if c.wrap != nil {
		c.wrap(a)
	}
	c.agents[real.Identity().Endpoint] = a
	return a, nil
}

// agent is the newest agent of an endpoint.
func (c *fakeCluster) agent(e model.Endpoint) *fakeAgent {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.agents[e]
}

type (
	probeFunc    func(ctx context.Context, real probes.Agent, batch []probes.Request, deliver func(probes.Response)) error
	recordsFunc  func(ctx context.Context, real probes.Agent, nonces []probes.Nonce) ([]probes.Record, error)
	livenessFunc func(ctx context.Context, real probes.Agent) ([]probes.ServerStatus, error)
)

// lies are what an agent does instead of what it should; those that are nil it does as it should.
type lies struct {
	probe    probeFunc
	records  recordsFunc
	liveness livenessFunc
}

// fakeAgent is an agent that can be told to lie.
type fakeAgent struct {
	probes.Agent

	mu   sync.Mutex
	lies lies
}

var _ probes.Agent = (*fakeAgent)(nil)

func (a *fakeAgent) tell(l lies) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lies = l
}

func (a *fakeAgent) told() lies {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lies
}

func (a *fakeAgent) Probe(ctx context.Context, batch []probes.Request, deliver func(probes.Response)) error {
	if lie := a.told().probe; lie != nil {
		return lie(ctx, a.Agent, batch, deliver)
	}
	return a.Agent.Probe(ctx, batch, deliver)
}

func (a *fakeAgent) Records(ctx context.Context, nonces []probes.Nonce) ([]probes.Record, error) {
	if lie := a.told().records; lie != nil {
		return lie(ctx, a.Agent, nonces)
	}
	return a.Agent.Records(ctx, nonces)
}

func (a *fakeAgent) Liveness(ctx context.Context) ([]probes.ServerStatus, error) {
	if lie := a.told().liveness; lie != nil {
		return lie(ctx, a.Agent)
	}
	return a.Agent.Liveness(ctx)
}

// insteadOfSending answers every request without sending anything.
func insteadOfSending(make func(probes.Request) probes.Response) probeFunc {
	return func(_ context.Context, _ probes.Agent, batch []probes.Request, deliver func(probes.Response)) error {
		for _, r := range batch {
			deliver(make(r))
		}
		return nil
	}
}

// afterSending changes what a real prober found.
func afterSending(change func(probes.Response) probes.Response) probeFunc {
	return func(ctx context.Context, real probes.Agent, batch []probes.Request, deliver func(probes.Response)) error {
		return real.Probe(ctx, batch, func(r probes.Response) { deliver(change(r)) })
	}
}

// atBatch does something before the n-th batch from now on, and sends it as it should be.
func atBatch(n int, do func()) probeFunc {
	var mu sync.Mutex
	return func(ctx context.Context, real probes.Agent, batch []probes.Request, deliver func(probes.Response)) error {
		mu.Lock()
		n--
		now := n == 0
		mu.Unlock()
		if now {
			do()
		}
		return real.Probe(ctx, batch, deliver)
	}
}
