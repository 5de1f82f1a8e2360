//go:build linux

package attach

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/model"
)

// ErrInUse says that another run has the cluster: what two of them make would have the same names, and the policies of
// one would be in force in the other.
var ErrInUse = errors.New("in use by another run")

const (
	// handover is how long a run that asks for the cluster waits for one that has it: the end of a process that was
	// killed comes to be known a moment after it.
	handover = time.Second
	// sweepTimeout bounds the removal of what a run left.
	sweepTimeout = 30 * time.Second
)

// lease is the right to use the cluster, which one run has at a time.
type lease struct {
	turn chan struct{}
	// sweeping is true while the last one's remains are removed: those who ask for the cluster wait.
	sweeping atomic.Bool
}

// take returns when the caller has the turn, or an error.
func (l *lease) take(ctx context.Context) error {
	wait := time.NewTimer(handover)
	defer wait.Stop()
	for {
		select {
		case l.turn <- struct{}{}:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-wait.C:
			if !l.sweeping.Load() {
				return ErrInUse
			}
			wait.Reset(handover)
		}
	}
}

func (l *lease) give() { <-l.turn }

// lend gives the cluster to the run at the other end of a connection until that ends, and then removes what the run
// left. A run that ends in order half-closes the connection and reads what came of the removal.
func (s *server) lend(ctx context.Context, conn net.Conn) {
	if err := s.lease.take(ctx); err != nil {
		_ = writeLine(conn, response{Error: err.Error(), InUse: errors.Is(err, ErrInUse)})
		return
	}
	defer s.lease.give()
	id, err := s.begin(ctx)
	if err != nil {
		_ = writeLine(conn, response{Error: err.Error()})
		return
	}
	if writeLine(conn, response{Lease: id}) == nil {
		_, _ = io.Copy(io.Discard, conn) // nothing is said; it ends with the run
	}
	var resp response
	if err := s.end(ctx); err != nil {
		resp.Error = err.Error()
	}
	_ = writeLine(conn, resp) // who was killed does not listen
}

// begin makes the cluster ready for a run and returns the number of its lease.
func (s *server) begin(ctx context.Context) (int, error) {
	if s.soiled { // what could not be removed then may go now
		if err := s.sweep(ctx); err != nil {
			return 0, err
		}
	}
	labels, err := s.builtInLabels(ctx)
	if err != nil {
		return 0, err
	}
	s.labels = labels
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	s.holder = s.last
	return s.holder, nil
}

func (s *server) end(ctx context.Context) error {
	s.mu.Lock()
	s.holder = 0
	s.mu.Unlock()
	return s.sweep(ctx)
}

// sweep removes what the last run left. A run that cleaned up after itself left nothing.
func (s *server) sweep(ctx context.Context) error {
	if ctx.Err() != nil {
		return nil // the cluster ends, and all that is in it
	}
	s.lease.sweeping.Store(true)
	defer s.lease.sweeping.Store(false)
	ctx, cancel := context.WithTimeoutCause(ctx, sweepTimeout, errSlow)
	defer cancel()
	err := errors.Join(s.removeHosts(ctx), s.removeObjects(ctx), s.setLabels(ctx, s.labels))
	s.soiled = err != nil
	if err != nil {
		return fmt.Errorf("remove what a run left: %w", err)
	}
	return nil
}

var errSlow = fmt.Errorf("not done within %v", sweepTimeout)

// removeHosts removes the hosts that are left. Those that cannot be removed are tried again before the next run.
func (s *server) removeHosts(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for name := range s.hosts {
		if err := s.cluster.RemoveHost(ctx, name); err != nil {
			errs = append(errs, err)
			continue
		}
		delete(s.hosts, name)
	}
	return errors.Join(errs...)
}

// addHost makes a host for the run that has the lease. The request of one that is gone may still be on its way.
func (s *server) addHost(ctx context.Context, req request) (cluster.Host, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if req.Lease == 0 || req.Lease != s.holder {
		return cluster.Host{}, fmt.Errorf("add host %s: the run has ended", req.Name)
	}
	host, err := s.cluster.AddHost(ctx, model.Host{Name: req.Name, Ports: req.Ports, Addresses: req.Addresses})
	if err == nil {
		s.hosts[req.Name] = host.Agent
	}
	return host, err
}

func (s *server) removeHost(ctx context.Context, req request) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if req.Lease == 0 || req.Lease != s.holder {
		return fmt.Errorf("remove host %s: the run has ended", req.Name)
	}
	delete(s.hosts, req.Name)
	return s.cluster.RemoveHost(ctx, req.Name)
}
