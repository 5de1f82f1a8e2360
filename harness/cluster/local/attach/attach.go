//go:build linux

package attach

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
	"github.com/netproof/netproof/probes/wire"
)

// SocketPath is where a cluster listens, inside its sandbox.
const SocketPath = "/run/netproof/attach.sock"

// The operations.
const (
	opLease      = "lease"
	opDescribe   = "describe"
	opHealth     = "health"
	opPod        = "pod"
	opNode       = "node"
	opHost       = "host"
	opAddHost    = "add-host"
	opRemoveHost = "remove-host"
)

// maxLine bounds the first line of a connection, in bytes.
const maxLine = 64 << 10

type request struct {
	Op string `json:"op"`
	// Pod takes node and UID as well: the agent of a pod that was replaced is an error.
	Namespace string       `json:"namespace,omitempty"`
	Name      string       `json:"name,omitempty"`
	UID       types.UID    `json:"uid,omitempty"`
	NodeName  string       `json:"nodeName,omitempty"`
	Index     int          `json:"index,omitempty"`
	Ports     []model.Port `json:"ports,omitempty"`
	// Addresses are those that a host must have.
	Addresses []netip.Addr `json:"addresses,omitempty"`
	// Lease is the number that the run was given with the cluster.
	Lease int `json:"lease,omitempty"`
}

type response struct {
	Error       string        `json:"error,omitempty"`
	Unsupported bool          `json:"unsupported,omitempty"`
	InUse       bool          `json:"inUse,omitempty"`
	Lease       int           `json:"lease,omitempty"`
	Info        model.Cluster `json:"info,omitzero"`
	Nodes       []model.Node  `json:"nodes,omitempty"`
	Kubeconfig  string        `json:"kubeconfig,omitempty"`
	Addresses   []netip.Addr  `json:"addresses,omitempty"`
}

func (r response) err() error {
	switch {
	case r.Error == "":
		return nil
	case r.InUse:
		return ErrInUse
	case r.Unsupported:
		return fmt.Errorf("%s: %w", r.Error, errors.ErrUnsupported)
	}
	return errors.New(r.Error)
}

// server answers for a cluster.
type server struct {
	cluster    cluster.Cluster
	kubeconfig string
	api

	lease lease
	// soiled and labels belong to whoever has the turn: whether the last run's remains could not all be removed, and
	// the labels that the namespaces which stay had before the run.
	soiled bool
	labels map[string]map[string]string

	mu    sync.Mutex
	hosts map[string]probes.Agent
	// holder is the number of the lease that is out, 0 if none, and last that of the last one.
	holder, last int
}

// Serve answers on a listener until ctx ends. One run at a time has the cluster; when it ends, what it left is removed
// before the next may have it. kubeconfig is a file that gives access to the API server from inside the sandbox.
func Serve(ctx context.Context, l net.Listener, c cluster.Cluster, kubeconfig string) error {
	objects, err := newAPI(c.RESTConfig())
	if err != nil {
		return err
	}
	s := &server{
		cluster: c, kubeconfig: kubeconfig, api: objects,
		lease: lease{turn: make(chan struct{}, 1)}, hosts: map[string]probes.Agent{},
	}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept on %s: %w", l.Addr(), err)
		}
		conns.Add(1)
		go func() {
			defer conns.Done()
			stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
			defer stop()
			defer conn.Close()
			s.serve(ctx, conn)
		}()
	}
}

// serve answers one connection. A client that goes away in the middle needs no answer.
func (s *server) serve(ctx context.Context, conn net.Conn) {
	var req request
	if err := readLine(conn, &req); err != nil {
		_ = writeLine(conn, response{Error: "read request: " + err.Error()})
		return
	}
	if req.Op == opLease {
		s.lend(ctx, conn)
		return
	}
	resp, agent, err := s.answer(ctx, req)
	if err != nil {
		resp = response{Error: err.Error(), Unsupported: errors.Is(err, errors.ErrUnsupported)}
	}
	if writeLine(conn, resp) != nil || agent == nil || err != nil {
		return
	}
	_ = wire.Serve(ctx, conn, agent) // it ends with the connection
}

func (s *server) answer(ctx context.Context, req request) (resp response, agent probes.Agent, err error) {
	switch req.Op {
	case opDescribe:
		return response{Info: s.cluster.Info(), Nodes: s.cluster.Nodes(), Kubeconfig: s.kubeconfig}, nil, nil
	case opHealth:
		return resp, nil, s.cluster.Health(ctx)
	case opPod:
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: req.Namespace, Name: req.Name, UID: req.UID}}
		pod.Spec.NodeName = req.NodeName
		agent, err = s.cluster.PodAgent(ctx, pod)
	case opNode:
		agent, err = s.cluster.NodeAgent(ctx, req.Index)
	case opAddHost:
		var host cluster.Host
		if host, err = s.addHost(ctx, req); err == nil {
			resp.Addresses = host.Addresses
		}
	case opHost:
		s.mu.Lock()
		agent = s.hosts[req.Name]
		s.mu.Unlock()
		if agent == nil {
			err = fmt.Errorf("there is no host %s", req.Name)
		}
	case opRemoveHost:
		err = s.removeHost(ctx, req)
	default:
		err = fmt.Errorf("unknown operation %q", req.Op)
	}
	return resp, agent, err
}

// readLine reads one JSON line and not a byte more: what follows belongs to the probes' protocol.
func readLine(r io.Reader, into any) error {
	var line []byte
	var b [1]byte
	for len(line) < maxLine {
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return err
		}
		if b[0] == '\n' {
			return json.Unmarshal(line, into)
		}
		line = append(line, b[0])
	}
	return fmt.Errorf("a line is longer than %d bytes", maxLine)
}

func writeLine(w io.Writer, v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(line, '\n'))
	return err
}

// Cluster is a cluster that runs in another process.
type Cluster struct {
	cluster.Native

	path  string
	info  model.Cluster
	nodes []model.Node
	rest  *rest.Config
	file  string
	// number is that of the lease.
	number int

	mu    sync.Mutex
	conns []net.Conn
	// lease is the connection that holds the cluster, nil when it was given back.
	lease *net.UnixConn
}

var _ cluster.Cluster = (*Cluster)(nil)

// Dial takes the cluster that listens at path, for this process alone, until Close or the process's end. Its error is
// [ErrInUse] if another has it.
func Dial(ctx context.Context, path string) (*Cluster, error) {
	c := &Cluster{path: path}
	resp, conn, err := c.call(ctx, request{Op: opLease})
	if err != nil {
		return nil, err
	}
	c.lease, c.number = conn, resp.Lease
	if err := c.describe(ctx); err != nil {
		return nil, errors.Join(err, c.Close(context.WithoutCancel(ctx)))
	}
	return c, nil
}

func (c *Cluster) describe(ctx context.Context) error {
	resp, err := c.ask(ctx, request{Op: opDescribe})
	if err != nil {
		return err
	}
	c.info, c.nodes, c.file = resp.Info, resp.Nodes, resp.Kubeconfig
	if c.rest, err = clientcmd.BuildConfigFromFlags("", resp.Kubeconfig); err != nil {
		return fmt.Errorf("read kubeconfig of the cluster: %w", err)
	}
	return nil
}

// call asks for one thing. The connection is open for what follows.
func (c *Cluster) call(ctx context.Context, req request) (response, *net.UnixConn, error) {
	var d net.Dialer
	conn, err := d.DialUnix(ctx, "unix", nil, &net.UnixAddr{Name: c.path, Net: "unix"})
	if err != nil {
		return response{}, nil, fmt.Errorf("reach the cluster's process: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	var resp response
	err = writeLine(conn, req)
	if err == nil {
		err = readLine(conn, &resp)
	}
	if err != nil {
		return response{}, nil, errors.Join(fmt.Errorf("ask the cluster's process: %w", err), conn.Close())
	}
	if err := resp.err(); err != nil {
		return response{}, nil, errors.Join(err, conn.Close())
	}
	return resp, conn, nil
}

// ask is a call after which nothing follows.
func (c *Cluster) ask(ctx context.Context, req request) (response, error) {
	resp, conn, err := c.call(ctx, req)
	if err != nil {
		return resp, err
	}
	return resp, conn.Close()
}

func (c *Cluster) agent(ctx context.Context, req request) (probes.Agent, error) {
	_, conn, err := c.call(ctx, req)
	if err != nil {
		return nil, err
	}
	agent, err := wire.Dial(ctx, conn)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conns = append(c.conns, conn)
	return agent, nil
}

// Info implements cluster.Cluster.
func (c *Cluster) Info() model.Cluster { return c.info }

// RESTConfig implements cluster.Cluster.
func (c *Cluster) RESTConfig() *rest.Config { return rest.CopyConfig(c.rest) }

// Kubeconfig is the file that gives access to the API server from inside the sandbox.
func (c *Cluster) Kubeconfig() string { return c.file }

// Nodes implements cluster.Cluster.
func (c *Cluster) Nodes() []model.Node { return c.nodes }

// PodAgent implements cluster.Cluster.
func (c *Cluster) PodAgent(ctx context.Context, pod *corev1.Pod) (probes.Agent, error) {
	return c.agent(ctx, request{Op: opPod, Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, NodeName: pod.Spec.NodeName})
}

// NodeAgent implements cluster.Cluster.
func (c *Cluster) NodeAgent(ctx context.Context, index int) (probes.Agent, error) {
	return c.agent(ctx, request{Op: opNode, Index: index})
}

// AddHost implements cluster.Cluster.
func (c *Cluster) AddHost(ctx context.Context, host model.Host) (cluster.Host, error) {
	name := host.Name
	resp, err := c.ask(ctx, request{Op: opAddHost, Name: name, Ports: host.Ports, Addresses: host.Addresses, Lease: c.number})
	if err != nil {
		return cluster.Host{}, err
	}
	agent, err := c.agent(ctx, request{Op: opHost, Name: name})
	if err != nil {
		return cluster.Host{}, errors.Join(err, c.RemoveHost(ctx, name))
	}
	return cluster.Host{Name: name, Addresses: resp.Addresses, Agent: agent}, nil
}

// RemoveHost implements cluster.Cluster.
func (c *Cluster) RemoveHost(ctx context.Context, name string) error {
	_, err := c.ask(ctx, request{Op: opRemoveHost, Name: name, Lease: c.number})
	return err
}

// Health implements cluster.Cluster.
func (c *Cluster) Health(ctx context.Context) error {
	_, err := c.ask(ctx, request{Op: opHealth})
	return err
}

// Close gives the cluster back, which goes on without this process. It returns when the cluster has removed what was
// left in it and could be had by another run. Closing again has no effect.
func (c *Cluster) Close(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, conn := range c.conns {
		errs = append(errs, conn.Close())
	}
	c.conns = nil
	if c.lease != nil {
		errs = append(errs, giveBack(ctx, c.lease))
		c.lease = nil
	}
	return errors.Join(errs...)
}

func giveBack(ctx context.Context, lease *net.UnixConn) error {
	ctx, cancel := context.WithTimeoutCause(ctx, sweepTimeout+handover, errSlow)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = lease.Close() })
	defer stop()
	var resp response
	err := lease.CloseWrite()
	if err == nil {
		err = readLine(lease, &resp)
	}
	if err != nil {
		return fmt.Errorf("give the cluster back: %w", errors.Join(err, context.Cause(ctx)))
	}
	return errors.Join(resp.err(), lease.Close())
}
