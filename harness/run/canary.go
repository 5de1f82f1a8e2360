package run

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
)

// canaryNamespace holds the canaries. Scenarios cannot name it.
const canaryNamespace = cluster.CanaryNamespace

// The ports of a canary pod.
const (
	canaryAllowed = 7000
	canaryDenied  = 7001
	// The barrier's port is one of these.
	canaryTurn  = 7010
	canaryTurns = 8
)

// turnLabel is the label of the canary namespace and its pods that every turn of the barrier changes.
const turnLabel = "netproof.dev/turn"

// canary is one pod on each node, a connection from each to the next that a policy always allows, one that it always denies,
// and a third that moves from port to port: the barrier.
//
// A network plugin tells nobody when a policy has reached a node. The barrier finds out: it changes the label of the canary
// namespace, the label of the canary pods, and a policy that admits only the new labels and only on another port. The API
// server orders the changes of one kind of object, so a node that admits the new connection has taken up every change of
// policies, pods and namespaces that was made before it. A node that is stuck goes on admitting the port of the change that it took
// up last, so a port is not used again before every node has been seen to have left it.
type canary struct {
	client kubernetes.Interface
	// namespace of the canaries in the cluster.
	namespace string
	// labels are those of everything that the run makes.
	labels map[string]string
	// lent says that the namespace is not the run's own. Its labels stay as they are, and so do those of all others: there is no change of
	// namespaces that a node could have missed.
	lent   bool
	nonces *nonces
	pods   map[model.Endpoint]*corev1.Pod
	// links are the connections from each canary to the next, one per family.
	links []target
	turn  int
	// ports are those that a node may still admit: the last one that was confirmed, and those of the turns after it.
	ports []int
}

// errNotConfirmed is matched by a barrier's error when some node did not take up a change in time.
var errNotConfirmed = errors.New("a node did not take up the change")

// canarySpec returns the canaries' part of a topology: a pod on each node, at least two. A namespace that is lent has no label of theirs.
func canarySpec(nodes int, lent bool) (model.Namespace, []model.Pod) {
	ns := model.Namespace{Name: canaryNamespace, Labels: model.Labels{turnLabel: "0"}}
	if lent {
		ns.Labels = nil
	}
	var pods []model.Pod
	for i := range max(nodes, 2) {
		pods = append(pods, model.Pod{
			Namespace: canaryNamespace, Name: "canary-" + strconv.Itoa(i), Node: i % nodes, Labels: model.Labels{turnLabel: "0"},
			Ports: []model.Port{{Number: canaryAllowed, Protocol: model.TCP}, {Number: canaryDenied, Protocol: model.TCP}},
		})
	}
	for i := range pods {
		for turn := range canaryTurns {
			pods[i].Ports = append(pods[i].Ports, model.Port{Number: canaryTurn + turn, Protocol: model.TCP})
		}
	}
	return ns, pods
}

// to returns the links to a port, with what is expected there.
func (c *canary) to(port int, expected model.Verdict) []target {
	out := make([]target, len(c.links))
	for i, l := range c.links {
		l.port, l.conn.Port, l.expected = port, port, expected
		out[i] = l
	}
	return out
}

// link builds the links once the canary pods run.
func (c *canary) link(ctx context.Context, pods []model.Pod, agents func(context.Context, model.Endpoint) (probes.Agent, error), families []model.IPFamily) error {
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
			c.links = append(c.links, target{
				conn: model.Connection{From: p.Endpoint(), To: next.Endpoint(), Protocol: model.TCP, IPFamily: f, Via: model.ViaPodIP},
				from: from, address: addr, answerers: []probes.Identity{to.Identity()}, recorders: []probes.Agent{to},
			})
		}
	}
	return nil
}

// policies are the canaries' policies at a turn, which admits a port.
func (c *canary) policies(turn, turnPort int) []*networkingv1.NetworkPolicy {
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
		policy("always", networkingv1.NetworkPolicyIngressRule{Ports: port(canaryAllowed)}),
		policy("turn", networkingv1.NetworkPolicyIngressRule{
			Ports: port(turnPort),
			From:  []networkingv1.NetworkPolicyPeer{peer},
		}),
	}
}

// barrier returns when every node has taken up everything that was changed before the call, and at which moment the last
// one was seen to have. Its error matches errNotConfirmed when ctx ended first, and names the nodes.
func (c *canary) barrier(ctx context.Context, r rhythm) (time.Time, error) {
	c.turn++
	port, ok := c.freePort()
	if !ok {
		return time.Time{}, fmt.Errorf("%w, nor the %d before it", errNotConfirmed, canaryTurns-1)
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
	at, err := c.await(ctx, r, port)
	if err == nil {
		c.ports = []int{port}
	}
	return at, err
}

// freePort is a port of the barrier that no node can admit yet.
func (c *canary) freePort() (port int, ok bool) {
	for i := range canaryTurns {
		port = canaryTurn + (c.turn+i)%canaryTurns
		if !slices.Contains(c.ports, port) {
			return port, true
		}
	}
	return 0, false
}

// await samples the links to a port, densely, until each was answered once, and returns when the last one was.
func (c *canary) await(ctx context.Context, r rhythm, port int) (time.Time, error) {
	s := newSampler(c.to(port, model.Allow), r, c.nonces)
	defer s.flights.Wait()
	probing, cancel := context.WithCancel(ctx)
	defer cancel()
	tick := time.NewTicker(r.dense)
	defer tick.Stop()
	due := true
	for {
		if due {
			s.round(probing, func(t *track) bool { return t.answeredAt().IsZero() })
		}
		missing, last := s.unanswered()
		if len(missing) == 0 {
			return last, nil
		}
		select {
		case <-s.resolved:
			due = false
		case <-tick.C:
			due = true
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("%w: no connection to %s", errNotConfirmed, strings.Join(missing, ", "))
		}
	}
}

// unanswered names the targets that were not answered yet; when there are none, last is when the last one was.
func (s *sampler) unanswered() (missing []string, last time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tracks {
		at := t.answeredAt()
		if at.IsZero() {
			missing = append(missing, fmt.Sprintf("%s (%s)", t.conn.To, t.conn.IPFamily))
		} else if at.After(last) {
			last = at
		}
	}
	return missing, last
}

// answeredAt is when the first answered sample came back, zero if none did.
func (t *track) answeredAt() time.Time {
	for _, smp := range t.samples {
		if smp.verdict == model.Allow {
			return smp.resolved
		}
	}
	return time.Time{}
}
