package stage

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/run/sampling"
	"github.com/netproof/netproof/probes"
)

// CanaryNamespace holds the canaries. Scenarios cannot name it.
const CanaryNamespace = cluster.CanaryNamespace

// The ports of a canary pod.
const (
	CanaryAllowed = 7000
	CanaryDenied  = 7001
	// The barrier's port is one of these.
	canaryTurn  = 7010
	canaryTurns = 8
)

// turnLabel is the label of the canary namespace and its pods that every turn of the barrier changes.
const turnLabel = "netproof.dev/turn"

// Canary is one pod on each node, a connection from each to the next that a policy always allows, one that it always
// denies, and a third that moves from port to port: the barrier.
//
// A network plugin tells nobody when a policy has reached a node. The barrier finds out: it changes the label of the
// canary namespace, the label of the canary pods, and a policy that admits only the new labels and only on another
// port. The API server orders the changes of one kind of object, so a node that admits the new connection has taken up
// every change of policies, pods and namespaces that was made before it. A node that is stuck goes on admitting the
// port of the change that it took up last, so a port is not used again before every node has been seen to have left it.
type Canary struct {
	client kubernetes.Interface
	// namespace of the canaries in the cluster.
	namespace string
	// labels are those of everything that the run makes.
	labels map[string]string
	// lent says that the namespace is not the run's own. Its labels stay as they are, and so do those of all others:
	// there is no change of namespaces that a node could have missed.
	lent   bool
	nonces *sampling.Nonces
	pods   map[model.Endpoint]*corev1.Pod
	// links are the connections from each canary to the next, one per family.
	links []sampling.Target
	turn  int
	// routes counts the services that were made to see that nodes follow.
	routes int
	// ports are those that a node may still admit: the last one that was confirmed, and those of the turns after it.
	ports []int
}

// canarySpec returns the canaries' part of a topology: a pod on each node, at least two. A namespace that is lent has
// no label of theirs.
func canarySpec(nodes int, lent bool) (model.Namespace, []model.Pod) {
	ns := model.Namespace{Name: CanaryNamespace, Labels: model.Labels{turnLabel: "0"}}
	if lent {
		ns.Labels = nil
	}
	var pods []model.Pod
	for i := range max(nodes, 2) {
		pods = append(pods, model.Pod{
			Namespace: CanaryNamespace, Name: "canary-" + strconv.Itoa(i), Node: i % nodes, Labels: model.Labels{turnLabel: "0"},
			Ports: []model.Port{{Number: CanaryAllowed, Protocol: model.TCP}, {Number: CanaryDenied, Protocol: model.TCP}},
		})
	}
	for i := range pods {
		for turn := range canaryTurns {
			pods[i].Ports = append(pods[i].Ports, model.Port{Number: canaryTurn + turn, Protocol: model.TCP})
		}
	}
	return ns, pods
}

// RaiseCanary deploys the canaries. No policy stands yet.
func (s *Stage) RaiseCanary(ctx context.Context, nonces *sampling.Nonces) (*Canary, error) {
	ns, pods := canarySpec(s.cluster.Info().Nodes, len(s.lent) > 0)
	if err := s.createNamespaces(ctx, []model.Namespace{ns}, pods); err != nil {
		return nil, err
	}
	if err := s.CreatePods(ctx, pods); err != nil {
		return nil, err
	}
	c := &Canary{
		client: s.client, namespace: s.names.real(CanaryNamespace), labels: s.ownLabels(nil), lent: len(s.lent) > 0,
		nonces: nonces, pods: map[model.Endpoint]*corev1.Pod{},
	}
	for _, p := range pods {
		c.pods[p.Endpoint()] = s.running[p.Endpoint()]
	}
	return c, c.link(ctx, pods, s.agent, s.families)
}

// Endpoints are the canary pods.
func (c *Canary) Endpoints() []model.Endpoint { return slices.Collect(maps.Keys(c.pods)) }

// Guard applies the canaries' first policies: from then on one connection is always denied.
func (c *Canary) Guard(ctx context.Context) error {
	c.ports = []int{canaryTurn}
	for _, p := range c.policies(0, canaryTurn) {
		if err := applyObject(ctx, c.client.NetworkingV1().RESTClient(), "networkpolicies", p); err != nil {
			return fmt.Errorf("apply policy %s: %w", p.Name, err)
		}
	}
	return nil
}

// To returns the links to a port, with what is expected there.
func (c *Canary) To(port int, expected model.Verdict) []sampling.Target {
	out := make([]sampling.Target, len(c.links))
	for i, l := range c.links {
		l.Port, l.Conn.Port, l.Expected = port, port, expected
		out[i] = l
	}
	return out
}

// link builds the links once the canary pods run.
func (c *Canary) link(ctx context.Context, pods []model.Pod, agents func(context.Context, model.Endpoint) (probes.Agent, error), families []model.IPFamily) error {
	for i, p := range pods {
		next := pods[(i+1)%len(pods)]
		from, err := agents(ctx, p.Endpoint())
		if err != nil {
			return err
		}
		to, err := agents(ctx, next.Endpoint())
		if err != nil {
			return err
		}
		for _, f := range families {
			addr, ok := model.AddressOf(podAddresses(c.pods[next.Endpoint()]), f)
			if !ok {
				return fmt.Errorf("canary %s has no %s address", next.Endpoint(), f)
			}
			c.links = append(c.links, sampling.Target{
				Conn: model.Connection{From: p.Endpoint(), To: next.Endpoint(), Protocol: model.TCP, IPFamily: f, Via: model.ViaPodIP},
				From: from, Address: addr, Answerers: []probes.Identity{to.Identity()}, Recorders: []probes.Agent{to},
			})
		}
	}
	return nil
}

// policies are the canaries' policies at a turn, which admits a port.
func (c *Canary) policies(turn, turnPort int) []*networkingv1.NetworkPolicy {
	tcp := corev1.ProtocolTCP
	port := func(n int) []networkingv1.NetworkPolicyPort {
		p := intstr.FromInt32(int32(n))
		return []networkingv1.NetworkPolicyPort{{Protocol: &tcp, Port: &p}}
	}
	selector := &metav1.LabelSelector{MatchLabels: map[string]string{turnLabel: strconv.Itoa(turn)}}
	policy := func(name string, rule networkingv1.NetworkPolicyIngressRule) *networkingv1.NetworkPolicy {
		return &networkingv1.NetworkPolicy{
			TypeMeta:   metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"},
			ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: name, Labels: c.labels},
			Spec: networkingv1.NetworkPolicySpec{
				PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
				Ingress:     []networkingv1.NetworkPolicyIngressRule{rule},
			},
		}
	}
	peer := networkingv1.NetworkPolicyPeer{NamespaceSelector: selector, PodSelector: selector}
	if c.lent {
		peer.NamespaceSelector = nil
	}
	return []*networkingv1.NetworkPolicy{
		policy("always", networkingv1.NetworkPolicyIngressRule{Ports: port(CanaryAllowed)}),
		policy("turn", networkingv1.NetworkPolicyIngressRule{
			Ports: port(turnPort),
			From:  []networkingv1.NetworkPolicyPeer{peer},
		}),
	}
}

// Barrier returns when every node has taken up everything that was changed before the call, and at which moment the
// last one was seen to have. Its error matches errNotConfirmed when ctx ended first, and names the nodes.
func (c *Canary) Barrier(ctx context.Context, r sampling.Rhythm) (time.Time, error) {
	c.turn++
	port, ok := c.freePort()
	if !ok {
		return time.Time{}, fmt.Errorf("%w, nor the %d before it", sampling.ErrNotConfirmed, canaryTurns-1)
	}
	c.ports = append(c.ports, port)
	label := map[string]any{"metadata": map[string]any{"labels": map[string]any{turnLabel: strconv.Itoa(c.turn)}}}
	patch, err := jsonPatch(label)
	if err != nil {
		return time.Time{}, err
	}
	calls := []func() error{func() error {
		return applyObject(ctx, c.client.NetworkingV1().RESTClient(), "networkpolicies", c.policies(c.turn, port)[1])
	}}
	if !c.lent {
		calls = append(calls, func() error {
			_, err := c.client.CoreV1().Namespaces().Patch(ctx, c.namespace, types.MergePatchType, patch, metav1.PatchOptions{})
			return err
		})
	}
	for e := range maps.Keys(c.pods) {
		calls = append(calls, func() error {
			_, name, _ := e.Split()
			_, err := c.client.CoreV1().Pods(c.namespace).Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
			return err
		})
	}
	if err := sideBySide(len(calls), calls...); err != nil {
		return time.Time{}, fmt.Errorf("move the canary: %w", err)
	}
	at, err := sampling.Await(ctx, c.To(port, model.Allow), r, c.nonces)
	if err == nil {
		c.ports = []int{port}
	}
	return at, err
}

// AwaitRoutes returns when every node leads connections through services to the endpoints that they had before the
// call. Its error matches [sampling.ErrNotConfirmed] when ctx ended first.
//
// kube-proxy, and whatever stands in for it, tells nobody when it has followed. So this is a barrier as well: a service
// is made with the canaries behind it. The API server hands out changes of endpoints in their order, so a node that
// leads to them has taken up every change before.
func (s *Stage) AwaitRoutes(ctx context.Context, c *Canary, r sampling.Rhythm) (err error) {
	c.routes++
	svc := model.Service{
		Namespace: CanaryNamespace, Name: "routes-" + strconv.Itoa(c.routes), Selector: s.ownLabels(nil),
		Ports: []model.ServicePort{{Port: model.Port{Number: CanaryAllowed, Protocol: model.TCP}}},
	}
	services := s.client.CoreV1().Services(c.namespace)
	got, err := services.Create(ctx, s.serviceObject(svc), metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("create a service of the canaries: %w", err)
	}
	defer func() {
		detached, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.Agent)
		defer cancel()
		if deleteErr := services.Delete(detached, got.Name, deletion(got.UID)); deleteErr != nil && !isGone(deleteErr) {
			err = errors.Join(err, fmt.Errorf("delete a service of the canaries: %w", deleteErr))
		}
	}()
	addresses := clusterIPs(got)
	s.cluster.Admit(addresses...)
	var everyone []probes.Identity
	for _, l := range c.links {
		everyone = append(everyone, l.Answerers...)
	}
	targets := make([]sampling.Target, len(c.links))
	for i, l := range c.links {
		address, ok := model.AddressOf(addresses, l.Conn.IPFamily)
		if !ok {
			return fmt.Errorf("a service of the canaries has no %s address", l.Conn.IPFamily)
		}
		l.Conn.To, l.Conn.Via, l.Conn.Port = svc.Endpoint(), model.ViaService, CanaryAllowed
		l.Address, l.Port, l.Expected, l.Answerers, l.Recorders = address, CanaryAllowed, model.Allow, everyone, nil
		targets[i] = l
	}
	if _, err := sampling.Await(ctx, targets, r, c.nonces); err != nil {
		return fmt.Errorf("what routes connections through services did not follow: %w", err)
	}
	return nil
}

// freePort is a port of the barrier that no node can admit yet.
func (c *Canary) freePort() (port int, ok bool) {
	for i := range canaryTurns {
		port = canaryTurn + (c.turn+i)%canaryTurns
		if !slices.Contains(c.ports, port) {
			return port, true
		}
	}
	return 0, false
}
