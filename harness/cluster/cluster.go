package cluster

import (
	"context"
	"net/netip"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"github.com/netproof/netproof/harness/cni"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
)

// Options are what a user can choose about a new cluster.
type Options struct {
	// Name of the cluster; empty for one that lives as long as the run.
	Name string
	// CNI is the network plugin, one of those that the provider has.
	CNI string
	// Nodes is the number of nodes that take pods, at least 1.
	Nodes int
	// IPFamilies of pods and services, the first is the primary one.
	IPFamilies []model.IPFamily
	// Progress hears in plain words what goes on; it may be nil.
	Progress func(string)
}

// The labels of everything that a run makes on a cluster. State lives in the cluster, never in a side file. No file
// that users write can have them: see docs/decisions/0008-two-labels-of-our-own.md.
const (
	RunLabel = "netproof.dev/run"
	OwnLabel = "netproof.dev/managed-by"
	// LaneLabel is the number of the lane that made an object, where a run has several lanes.
	LaneLabel = "netproof.dev/lane"
	// ManagedByLabel is on what stays: the namespace of Leases, and the objects that give rights.
	ManagedByLabel = "app.kubernetes.io/managed-by"
	// LentLabel is on namespaces that an administrator lends to runs which may make none. Only he can put it there.
	LentLabel = "netproof.dev/lent"
	// Lent is its value.
	Lent = "true"
	// CanaryNamespace holds the canaries of a run. Scenarios cannot name it.
	CanaryNamespace = "netproof-canary"
	// ManagedBy is the value of OwnLabel and ManagedByLabel.
	ManagedBy = "netproof"
	// RunsSelector selects what runs make. An object needs both labels.
	RunsSelector = OwnLabel + "=" + ManagedBy + "," + RunLabel
	// EndpointAnnotation is what a scenario calls a probe pod, as namespace/name. In the cluster its namespace may have
	// a prefix.
	EndpointAnnotation = "netproof.dev/endpoint"
)

// RunLabels are the labels of what a run makes.
func RunLabels(runID string) map[string]string {
	return map[string]string{RunLabel: runID, OwnLabel: ManagedBy}
}

// LaneLabels are the labels of what a lane of a run makes. Lanes count from 1; 0 is what runs alone.
func LaneLabels(runID string, lane int) map[string]string {
	out := RunLabels(runID)
	if lane > 0 {
		out[LaneLabel] = strconv.Itoa(lane)
	}
	return out
}

// LaneSelector selects what a lane of a run has made.
func LaneSelector(runID string, lane int) string {
	if lane == 0 {
		return RunLabel + "=" + runID + ",!" + LaneLabel
	}
	return RunLabel + "=" + runID + "," + LaneLabel + "=" + strconv.Itoa(lane)
}

// IsRunLabel tells whether a label is one of those.
func IsRunLabel(key string) bool { return key == RunLabel || key == OwnLabel || key == LaneLabel }

// EndpointOf is what a scenario calls a probe pod. Pods of several lanes may have one endpoint; their UIDs differ.
func EndpointOf(pod *corev1.Pod) model.Endpoint {
	if e := pod.Annotations[EndpointAnnotation]; e != "" {
		return model.Endpoint(e)
	}
	return model.PodEndpoint(pod.Namespace, pod.Name)
}

// Provider makes clusters.
type Provider interface {
	// Create makes a cluster and returns when its nodes and network plugin are ready, by the provider's own check.
	// What it had made is removed when it fails or ctx ends.
	Create(ctx context.Context, opts Options) (Cluster, error)
}

// Host is an endpoint outside the cluster, on a network that its nodes reach.
type Host struct {
	Name      string
	Addresses []netip.Addr
	Agent     probes.Agent
}

// Cluster is a running cluster.
type Cluster interface {
	// Info says what the cluster is, as written into reports.
	Info() model.Cluster
	// RESTConfig gives access to the API server; callers get a copy they may change.
	RESTConfig() *rest.Config
	// Nodes are the nodes that take pods, in the order of their index, with their addresses.
	Nodes() []model.Node
	// PodAgent returns the agent in a running pod's network namespace. Its UID says which pod it is: the agent of a pod
	// that has been replaced is an error.
	PodAgent(ctx context.Context, pod *corev1.Pod) (probes.Agent, error)
	// PreparePod completes a probe pod, which has one container with ports and nothing else, so that it runs on this
	// cluster.
	PreparePod(pod *corev1.Pod)
	// NamespaceLabels are the labels that a namespace needs beside those of the scenario for these pods to be admitted.
	NamespaceLabels(pods []model.Pod) model.Labels
	// Admit adds addresses that agents may probe. Pods, nodes and hosts are admitted already, so this is for those of
	// services.
	Admit(addresses ...netip.Addr)
	// ProbeTimeout is how long an answer to a probe may take on this cluster.
	ProbeTimeout() time.Duration
	// NodeAgent returns an agent in the network namespace of a node. Its error matches errors.ErrUnsupported where
	// there is no way to get there.
	NodeAgent(ctx context.Context, index int) (probes.Agent, error)
	// AddHost makes an endpoint outside the cluster that serves the host's ports, at its addresses if it has any; it
	// lives until RemoveHost or Close. Providers that cannot make one, or not at such an address, return an error that
	// matches errors.ErrUnsupported.
	AddHost(ctx context.Context, host model.Host) (Host, error)
	// RemoveHost undoes AddHost.
	RemoveHost(ctx context.Context, name string) error
	// Health returns an error that names a part of the cluster which has died since it was made. What is judged after
	// that proves nothing.
	Health(ctx context.Context) error
	// Close removes the cluster and all that came with it.
	Close(ctx context.Context) error
}

// Capable is a cluster that knows more about what its network plugin can do than the plugin's name and version tell,
// such as what this installation has switched off.
type Capable interface {
	// Capabilities are those of the plugin as it runs; ok is false where nothing is known about it.
	Capabilities() (capabilities cni.Capabilities, ok bool)
}

// Identified is a cluster that has given the run its id already, because things carry it that were made before the run
// began.
type Identified interface {
	RunID() string
}
