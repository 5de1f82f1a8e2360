//go:build linux

package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sync/semaphore"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/local/node"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
)

const (
	// firstRetry is the pause after the first failed start of a pod; it doubles up to lastRetry.
	firstRetry = 200 * time.Millisecond
	lastRetry  = 5 * time.Second
	// callTimeout bounds one call of the network plugin. Where the processors are taken a call may need half a minute,
	// and one that is cut off has to be done again, which makes it worse.
	callTimeout = time.Minute
	// startTimeout bounds what is left of an attempt to start a pod once it has its network, removeTimeout its removal.
	startTimeout  = 15 * time.Second
	removeTimeout = 90 * time.Second
	// pollInterval is how often a starting pod is looked at.
	pollInterval = 5 * time.Millisecond
)

// calls bounds the calls of network plugins that run at once on this machine, whatever the node and the cluster. Each
// is a program that needs a processor for most of its time.
var calls = semaphore.NewWeighted(int64(2 * runtime.GOMAXPROCS(0)))

// call calls the network plugin when it is its turn. The time limit counts from then.
func (a *Agent) call(ctx context.Context, fn func(context.Context) error) error {
	if err := calls.Acquire(ctx, 1); err != nil {
		return err
	}
	defer calls.Release(1)
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return a.cfg.Node.Do(func() error { return fn(ctx) })
}

// Reasons that a pod which cannot start shows in its conditions and events.
const (
	reasonNetwork = "NetworkFailed"
	reasonServers = "ServersFailed"
	reasonPorts   = "InvalidPorts"
	// These stand in an event; the pod starts.
	reasonUnsupported = "UnsupportedPorts"
	reasonHostPorts   = "HostPortsIgnored"
)

// startError is why a pod did not start.
type startError struct {
	reason string
	err    error
	// final says that another attempt would fail the same way.
	final bool
}

func (e *startError) Error() string { return e.err.Error() }
func (e *startError) Unwrap() error { return e.err }

// worker leads one pod from its binding to its removal.
type worker struct {
	agent *Agent
	pod   *corev1.Pod
	// before is the worker of an earlier pod of the same name, which has to end first: host interfaces are named after
	// the pod.
	before *worker
	// stopping is closed when the pod is to go, done when it is gone.
	stopping chan struct{}
	stopOnce sync.Once
	done     chan struct{}

	mu       sync.Mutex
	endpoint Endpoint
	ns       *node.Namespace
}

func newWorker(a *Agent, pod *corev1.Pod, before *worker) *worker {
	return &worker{agent: a, pod: pod, before: before, stopping: make(chan struct{}), done: make(chan struct{})}
}

func (w *worker) stop() { w.stopOnce.Do(func() { close(w.stopping) }) }

func (w *worker) current() (Endpoint, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.endpoint == nil {
		return nil, ErrNotRunning
	}
	return w.endpoint, nil
}

func (w *worker) network() (*node.Namespace, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ns == nil {
		return nil, ErrNotRunning
	}
	return w.ns, nil
}

func (w *worker) run() {
	defer close(w.done)
	defer w.agent.ended(w)
	if w.before != nil {
		<-w.before.done
		w.before = nil
	}
	ctx, cancel := context.WithCancel(w.agent.ctx)
	defer cancel()
	go func() {
		select {
		case <-w.stopping:
			cancel()
		case <-ctx.Done():
		}
	}()
	pause := firstRetry
	for attempt := 0; ctx.Err() == nil; attempt++ {
		s := &sandbox{worker: w, id: containerID(w.pod, attempt)}
		if err := s.start(ctx); err != nil {
			if ctx.Err() == nil {
				w.report(ctx, err)
			}
			s.remove()
			if err.final {
				<-ctx.Done()
				break
			}
			select {
			case <-ctx.Done():
			case <-time.After(pause):
				pause = min(2*pause, lastRetry)
			}
			continue
		}
		<-ctx.Done()
		s.remove()
	}
	w.deleteObject()
}

// deleteObject removes the object of a pod that is being deleted, now that nothing of it is left on the node.
func (w *worker) deleteObject() {
	if w.agent.ctx.Err() != nil {
		return // the cluster goes as a whole
	}
	ctx, cancel := context.WithTimeout(w.agent.ctx, removeTimeout)
	defer cancel()
	err := persist(ctx, func() error {
		err := w.agent.cfg.Client.CoreV1().Pods(w.pod.Namespace).Delete(ctx, w.pod.Name, metav1.DeleteOptions{
			GracePeriodSeconds: new(int64),
			Preconditions:      metav1.NewUIDPreconditions(string(w.pod.UID)),
		})
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil // gone, or replaced by another pod of the same name
		}
		return err
	})
	if err != nil && w.agent.ctx.Err() == nil {
		w.agent.fault(fmt.Errorf("delete pod %s/%s: %w", w.pod.Namespace, w.pod.Name, err))
	}
}

// persist calls fn until it succeeds or ctx ends, with growing pauses, and returns the last error.
func persist(ctx context.Context, fn func() error) error {
	for pause := firstRetry; ; pause = min(2*pause, lastRetry) {
		err := fn()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

func containerID(pod *corev1.Pod, attempt int) string {
	return fmt.Sprintf("%s-%d", strings.ReplaceAll(string(pod.UID), "-", ""), attempt)
}

// sandbox is one attempt at the network of a pod.
type sandbox struct {
	*worker
	id        string
	namespace *node.Namespace
	attached  bool
	server    Endpoint
}

func (s *sandbox) start(ctx context.Context) *startError {
	ports, err := declaredPorts(s.pod)
	if err != nil {
		return &startError{reason: reasonPorts, err: err, final: true}
	}
	if hostPorts(s.pod) {
		s.event(ctx, reasonHostPorts, "host ports are not opened: a port is served at the addresses of the pod alone")
	}
	addresses := s.agent.cfg.Node.Addresses
	namespace := s.agent.cfg.Node.Network()
	if !s.pod.Spec.HostNetwork {
		if s.namespace, err = s.agent.cfg.Node.NewNamespace(); err != nil {
			return &startError{reason: reasonNetwork, err: err}
		}
		namespace = s.namespace
		if addresses, err = s.attach(ctx); err != nil {
			return &startError{reason: reasonNetwork, err: err}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	identity := probes.Identity{Endpoint: cluster.EndpointOf(s.pod), UID: string(s.pod.UID)}
	s.server, err = s.agent.cfg.Serve(namespace.File(), identity, ports)
	if errors.Is(err, ErrUnsupportedPorts) {
		s.event(ctx, reasonUnsupported, err.Error())
		ports = slices.DeleteFunc(ports, func(p model.Port) bool { return p.Protocol == model.SCTP })
	} else if err != nil {
		return &startError{reason: reasonServers, err: err}
	}
	if err := s.awaitServers(ctx, ports); err != nil {
		return &startError{reason: reasonServers, err: err}
	}
	if !s.pod.Spec.HostNetwork {
		if err := s.awaitProgrammed(ctx, addresses); err != nil {
			return &startError{reason: reasonNetwork, err: err}
		}
	}
	// Known before it is Ready: whoever sees the status finds the endpoint.
	s.mu.Lock()
	s.endpoint, s.ns = s.server, namespace
	s.mu.Unlock()
	if err := s.reportRunning(ctx, addresses); err != nil {
		return &startError{reason: reasonServers, err: err}
	}
	return nil
}

// attach calls the CNI plugin, and returns the pod's addresses in the order of the cluster's families.
func (s *sandbox) attach(ctx context.Context) ([]netip.Addr, error) {
	var addresses []netip.Addr
	s.attached = true // also when it fails half-way: DEL cleans up after a failed ADD
	err := s.agent.call(ctx, func(ctx context.Context) error {
		raw, err := s.agent.cni.AddNetworkList(ctx, s.agent.network, s.runtimeConf())
		if err != nil {
			return err
		}
		result, err := types100.GetResult(raw)
		if err != nil {
			return err
		}
		for _, ip := range result.IPs {
			a, ok := netip.AddrFromSlice(ip.Address.IP)
			if !ok {
				return fmt.Errorf("the plugin gave the address %q", ip.Address.IP)
			}
			addresses = append(addresses, a.Unmap())
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("attach pod %s/%s to the network: %w", s.pod.Namespace, s.pod.Name, err)
	}
	if addresses, err = inOrder(addresses, s.agent.cfg.Node.PodNetworks); err != nil {
		return nil, fmt.Errorf("attach pod %s/%s to the network: %w", s.pod.Namespace, s.pod.Name, err)
	}
	return addresses, nil
}

// inOrder returns one address per network, in the order of the networks.
func inOrder(addresses []netip.Addr, networks []netip.Prefix) ([]netip.Addr, error) {
	var ordered []netip.Addr
	for _, n := range networks {
		found := false
		for _, a := range addresses {
			if n.Contains(a) {
				ordered = append(ordered, a)
				found = true
				break
			}
		}
		if !found {
			return nil, fmt.Errorf("the plugin gave %v, none of which is in %s", addresses, n)
		}
	}
	return ordered, nil
}

func (s *sandbox) runtimeConf() *libcni.RuntimeConf {
	return &libcni.RuntimeConf{
		ContainerID: s.id,
		NetNS:       s.namespace.Path(),
		IfName:      "eth0",
		Args: [][2]string{
			{"IgnoreUnknown", "1"},
			{"K8S_POD_NAMESPACE", s.pod.Namespace},
			{"K8S_POD_NAME", s.pod.Name},
			{"K8S_POD_INFRA_CONTAINER_ID", s.id},
			{"K8S_POD_UID", string(s.pod.UID)},
		},
	}
}

// awaitServers returns when the server of each port has answered from inside the namespace.
func (s *sandbox) awaitServers(ctx context.Context, ports []model.Port) error {
	if len(ports) == 0 {
		return nil
	}
	return poll(ctx, func() (string, error) {
		statuses, err := s.server.Liveness(ctx)
		if err != nil {
			return err.Error(), nil
		}
		for _, status := range statuses {
			wanted := slices.ContainsFunc(ports, func(p model.Port) bool {
				return p.Number == status.Port.Number && p.Protocol == status.Port.Protocol
			})
			if wanted && !status.Alive {
				return fmt.Sprintf("server of %s does not answer: %s", status.Port, status.Detail), nil
			}
		}
		return "", nil
	})
}

// awaitProgrammed returns when the network plugin has set the pod up.
func (s *sandbox) awaitProgrammed(ctx context.Context, addresses []netip.Addr) error {
	if s.agent.cfg.Programmed == nil {
		return nil
	}
	return poll(ctx, func() (string, error) {
		var done bool
		err := s.agent.cfg.Node.Do(func() (err error) {
			done, err = s.agent.cfg.Programmed(s.pod.Namespace, s.pod.Name, addresses)
			return err
		})
		if err != nil || done {
			return "", err
		}
		return "the network plugin has not set up the pod's interface", nil
	})
}

// poll calls check until it has nothing to say.
func poll(ctx context.Context, check func() (missing string, err error)) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		missing, err := check()
		if err != nil || missing == "" {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s (%w)", missing, context.Cause(ctx))
		case <-ticker.C:
		}
	}
}

// remove undoes what start has done, as far as it came.
func (s *sandbox) remove() {
	s.mu.Lock()
	s.endpoint, s.ns = nil, nil
	s.mu.Unlock()
	var errs []error
	if s.server != nil {
		errs = append(errs, s.server.Close())
	}
	// A cluster that goes as a whole takes the interfaces with its namespaces.
	if s.attached && s.agent.ctx.Err() == nil {
		ctx, cancel := context.WithTimeout(s.agent.ctx, removeTimeout)
		err := persist(ctx, func() error {
			return s.agent.call(ctx, func(ctx context.Context) error {
				return s.agent.cni.DelNetworkList(ctx, s.agent.network, s.runtimeConf())
			})
		})
		cancel()
		if err != nil && s.agent.ctx.Err() == nil {
			errs = append(errs, fmt.Errorf("detach from the network: %w", err))
		}
	}
	if s.namespace != nil {
		if err := s.namespace.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		s.agent.fault(fmt.Errorf("remove pod %s/%s: %w", s.pod.Namespace, s.pod.Name, err))
	}
}

// hostPorts tells whether a pod asks for ports of its node that it would not have anyway.
func hostPorts(pod *corev1.Pod) bool {
	return !pod.Spec.HostNetwork && slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool {
		return slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.HostPort != 0 })
	})
}

// declaredPorts are the ports that the containers of a pod declare.
func declaredPorts(pod *corev1.Pod) ([]model.Port, error) {
	type key struct {
		number   int32
		protocol corev1.Protocol
	}
	owner := map[key]string{}
	var ports []model.Port
	for _, c := range pod.Spec.Containers {
		for _, p := range c.Ports {
			protocol := p.Protocol
			if protocol == "" {
				protocol = corev1.ProtocolTCP
			}
			k := key{p.ContainerPort, protocol}
			if other, taken := owner[k]; taken {
				return nil, fmt.Errorf("port %d/%s is declared twice, by container %s and by container %s: only one can listen",
					p.ContainerPort, protocol, other, c.Name)
			}
			owner[k] = c.Name
			ports = append(ports, model.Port{Name: p.Name, Number: int(p.ContainerPort), Protocol: model.Protocol(protocol)})
		}
	}
	return ports, nil
}
