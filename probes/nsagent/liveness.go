//go:build linux

package nsagent

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
	"github.com/netproof/netproof/probes/message"
)

// Liveness sends a probe to each of the endpoint's servers over the loopback interface of its namespace, in every IP
// family that has a loopback address there. A server is alive when all of them were answered, by this very endpoint.
// These probes leave no records.
func (a *Agent) Liveness(ctx context.Context) ([]probes.ServerStatus, error) {
	a.mu.Lock()
	statuses := make([]probes.ServerStatus, 0, len(a.servers))
	var unserved []probes.ServerStatus
	for _, s := range a.servers {
		if s.err != nil {
			unserved = append(unserved, probes.ServerStatus{Port: s.port, Unsupported: errors.Is(s.err, ErrNotSupported), Detail: s.err.Error()})
			continue
		}
		statuses = append(statuses, probes.ServerStatus{Port: s.port})
	}
	a.mu.Unlock()

	loopback := []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	var batch []probes.Request
	for i, s := range statuses {
		for j, address := range loopback {
			batch = append(batch, probes.Request{
				ID: int64(i*len(loopback) + j), Nonce: probes.Nonce("alive-" + rand.Text()),
				Protocol: s.Port.Protocol, Address: address, Port: s.Port.Number,
				TimeoutMs: a.engine.options.LivenessTimeout.Milliseconds(),
			})
		}
	}
	outcomes := make([]probes.Response, len(batch))
	if err := a.probe(ctx, batch, message.Look, func(r probes.Response) { outcomes[r.ID] = r }); err != nil {
		return nil, fmt.Errorf("look for servers of %s: %w", a.identity.Endpoint, err)
	}
	for i := range statuses {
		a.judge(&statuses[i], outcomes[i*len(loopback):][:len(loopback)])
	}
	statuses = append(statuses, unserved...)
	slices.SortFunc(statuses, func(x, y probes.ServerStatus) int { return model.ComparePorts(x.Port, y.Port) })
	return statuses, nil
}

// judge decides whether a server is alive from the outcomes of probes to it, one per IP family.
func (a *Agent) judge(s *probes.ServerStatus, outcomes []probes.Response) {
	answered := 0
	var wrong []string
	for _, o := range outcomes {
		switch {
		case o.Outcome == probes.Answered && o.By == a.identity:
			answered++
		case o.Outcome == probes.Answered:
			wrong = append(wrong, fmt.Sprintf("answered by %s %s", o.By.Endpoint, o.By.UID))
		case o.Outcome == probes.Unsupported, !o.Sent && (o.Errno == "EADDRNOTAVAIL" || o.Errno == "ENETUNREACH"):
			// No such family, or no loopback address of it, in this namespace.
		case o.Outcome == probes.Error:
			s.Unknown = true
			wrong = append(wrong, o.Detail)
		default:
			wrong = append(wrong, cmp.Or(strings.TrimSpace(fmt.Sprintf("%s %s %s", o.Outcome, o.Errno, o.Detail)), "no outcome"))
		}
	}
	if answered == 0 && len(wrong) == 0 {
		wrong = append(wrong, "the namespace has no loopback address: is its lo up?")
	}
	s.Alive = len(wrong) == 0
	s.Detail = strings.Join(wrong, "; ")
}
