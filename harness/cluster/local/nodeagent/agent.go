//go:build linux

package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/containernetworking/cni/libcni"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/netproof/netproof/harness/cluster/local/node"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
)

// Endpoint serves ports in a network namespace and probes from there.
type Endpoint interface {
	probes.Agent
	// Stop ends the servers of these ports.
	Stop(ports ...model.Port)
	// Close ends the servers and frees their ports.
	Close() error
}

// ErrUnsupportedPorts says that the kernel lacks the protocol of some ports; the others are served.
var ErrUnsupportedPorts = errors.New("ports of a protocol that this kernel lacks are not served")

// Serve makes an endpoint in a network namespace. It returns when the servers listen. With an error that matches
// [ErrUnsupportedPorts] it returns an endpoint all the same; Liveness reports those ports as dead.
type Serve func(network *os.File, identity probes.Identity, ports []model.Port) (Endpoint, error)

// Config is what an agent works with.
type Config struct {
	Client kubernetes.Interface
	Node   *node.Node
	// NetworkList is the configuration of the node's network, in the form of a CNI network configuration list.
	NetworkList []byte
	// PluginDirs are where the CNI plugins are.
	PluginDirs []string
	// StateDir is a folder for what libcni remembers.
	StateDir string
	Serve    Serve
	// Programmed, if set, tells whether the network plugin has set up a pod that it attached. It runs in the node.
	Programmed func(namespace, pod string, addresses []netip.Addr) (bool, error)
}

// Agent looks after the pods of one node.
type Agent struct {
	cfg     Config
	network *libcni.NetworkConfigList
	cni     *libcni.CNIConfig

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	stopped bool
	pods    map[types.UID]*worker
	// names holds, per namespace/name, the newest worker of that name.
	names map[string]*worker
	// faults are the errors that happened outside of any pod's own life.
	faults []error
}

// New makes an agent. It does nothing before it is given pods, by the handler that [Agent.Handler] returns.
func New(cfg Config) (*Agent, error) {
	list, err := libcni.NetworkConfFromBytes(cfg.NetworkList)
	if err != nil {
		return nil, fmt.Errorf("read network configuration of %s: %w", cfg.Node.Name, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Agent{
		cfg:     cfg,
		network: list,
		cni:     libcni.NewCNIConfigWithCacheDir(cfg.PluginDirs, cfg.StateDir, newPluginRunner()),
		ctx:     ctx,
		cancel:  cancel,
		pods:    map[types.UID]*worker{},
		names:   map[string]*worker{},
	}, nil
}

// Handler takes the events of a pod informer. Pods of other nodes are passed over.
func (a *Agent) Handler() cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { a.see(obj.(*corev1.Pod)) },
		UpdateFunc: func(_, obj any) { a.see(obj.(*corev1.Pod)) },
		DeleteFunc: func(obj any) {
			if unknown, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = unknown.Obj
			}
			if pod, ok := obj.(*corev1.Pod); ok {
				a.forget(pod)
			}
		},
	}
}

// see brings the agent in line with a pod as the API server has it.
func (a *Agent) see(pod *corev1.Pod) {
	if pod.Spec.NodeName != a.cfg.Node.Name {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopped {
		return
	}
	w := a.pods[pod.UID]
	if w == nil {
		if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
			return
		}
		name := pod.Namespace + "/" + pod.Name
		w = newWorker(a, pod, a.names[name])
		a.pods[pod.UID] = w
		a.names[name] = w
		a.wg.Go(w.run)
	}
	if pod.DeletionTimestamp != nil {
		w.stop()
	}
}

// forget ends a pod whose object is gone.
func (a *Agent) forget(pod *corev1.Pod) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if w := a.pods[pod.UID]; w != nil && !a.stopped {
		w.stop()
	}
}

// ended takes a finished worker out of the books.
func (a *Agent) ended(w *worker) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.pods, w.pod.UID)
	name := w.pod.Namespace + "/" + w.pod.Name
	if a.names[name] == w {
		delete(a.names, name)
	}
}

func (a *Agent) fault(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.faults = append(a.faults, err)
}

// Err returns what went wrong on the node outside of any pod's status: removals that failed.
func (a *Agent) Err() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return errors.Join(a.faults...)
}

// Errors an agent gives for a pod that it has no endpoint for.
var (
	// ErrNoPod says that no pod with this UID runs on the node.
	ErrNoPod = errors.New("no such pod on this node")
	// ErrNotRunning says that the pod is there but does not serve yet, or no longer.
	ErrNotRunning = errors.New("pod is not running")
)

// Endpoint returns the endpoint of a running pod.
func (a *Agent) Endpoint(uid types.UID) (Endpoint, error) {
	w, err := a.worker(uid)
	if err != nil {
		return nil, err
	}
	return w.current()
}

func (a *Agent) worker(uid types.UID) (*worker, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w := a.pods[uid]
	if w == nil {
		return nil, ErrNoPod
	}
	return w, nil
}

// Halt makes the agent deaf and dumb, as a fault for tests: pods that run go on, but nothing is made, removed or
// reported any more. A halted agent stays so.
func (a *Agent) Halt() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopped = true
}

// StopServers ends the servers of a pod while its status says that it is ready, as a fault for tests. The pod's
// endpoint can still probe.
func (a *Agent) StopServers(uid types.UID) error {
	w, err := a.worker(uid)
	if err != nil {
		return err
	}
	e, err := w.current()
	if err != nil {
		return err
	}
	ports, err := declaredPorts(w.pod)
	if err != nil {
		return err
	}
	e.Stop(ports...)
	return nil
}

// Network returns the network namespace of a running pod, for faults in tests. It belongs to the pod.
func (a *Agent) Network(uid types.UID) (*node.Namespace, error) {
	w, err := a.worker(uid)
	if err != nil {
		return nil, err
	}
	return w.network()
}

// Close ends every pod on the node without telling the API server, and waits until they have.
func (a *Agent) Close(timeout time.Duration) error {
	a.mu.Lock()
	a.stopped = true
	workers := make([]*worker, 0, len(a.pods))
	for _, w := range a.pods {
		workers = append(workers, w)
	}
	a.mu.Unlock()
	a.cancel()
	for _, w := range workers {
		w.stop()
	}
	done := make(chan struct{})
	go func() { a.wg.Wait(); close(done) }()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-done:
		return nil
	case <-timer.C:
		return fmt.Errorf("stop agent of %s: pods did not end within %v", a.cfg.Node.Name, timeout)
	}
}
