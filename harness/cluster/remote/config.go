package remote

import (
	"context"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
	"github.com/netproof/netproof/probes/stream"
)

// Config describes a cluster and what its provider can do on it.
type Config struct {
	// RESTConfig gives access to the API server.
	RESTConfig *rest.Config
	// Info is written into reports.
	Info model.Cluster
	// Nodes take pods, in the order of their index, with their addresses: those of the Node object, and those from
	// which the node itself sends to pods of other nodes (the addresses of tunnels).
	Nodes []model.Node
	// Image of the probe pods. It holds the netproof executable at [AgentPath].
	Image string
	// PullPolicy of the image; empty means IfNotPresent.
	PullPolicy corev1.PullPolicy
	// Provider is what the provider can do beyond the API; nil for nothing.
	Provider Provider
	// Direct makes pods be probed from inside their network namespaces, without an exec, where the provider can do
	// that.
	Direct bool
	// ProbeTimeout is how long an answer to a probe may take; 0 means [ProbeTimeout].
	ProbeTimeout time.Duration
	// Progress hears in plain words what goes on; it may be nil.
	Progress func(string)
}

// AgentPath is where the image has the netproof executable.
const AgentPath = "/netproof"

// Command is what runs the agent somewhere else than in a pod, and how to reach it. The program serves one stream on
// its standard input and output: netproof agent stdio.
type Command struct {
	// Dial starts the program with the settings of [podagent.Environment] and connects to its standard input and
	// output. The connection ends the program.
	Dial stream.Dial
	// Addresses that the program can be reached at, and sends from.
	Addresses []netip.Addr
}

// Provider is what the provider of a cluster can do beyond its API. Methods return an error that matches
// [errors.ErrUnsupported] for what cannot be done.
type Provider interface {
	// NodeCommand runs the agent in the network namespace of a node, with these settings in its environment.
	NodeCommand(ctx context.Context, node model.Node, environment []string) (Command, error)
	// HostCommand makes an endpoint outside of the cluster, on a network that its nodes reach, and runs the agent
	// there.
	HostCommand(ctx context.Context, name string, environment []string) (Command, error)
	// RemoveHost undoes HostCommand.
	RemoveHost(ctx context.Context, name string) error
	// Direct returns an agent that probes from the network namespace of a pod without going through the API, over a
	// path of its own. It serves nothing, and its Records and Liveness are never asked.
	Direct(ctx context.Context, pod *corev1.Pod, key []byte) (probes.Agent, error)
	// Health returns an error that names a part of the cluster which has died: a node that stopped, a network plugin's
	// agent.
	Health(ctx context.Context) error
	// Close removes the cluster, or lets go of it.
	Close(ctx context.Context) error
}

// ProbeTimeout is how long an answer may take on a cluster of several machines, or one whose agents share few
// processors.
const ProbeTimeout = 500 * time.Millisecond
