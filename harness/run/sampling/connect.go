package sampling

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/netproof/netproof/harness/model"
)

// ErrNotConfirmed is matched by the error of [Await], and of a barrier, when something was not answered in time.
var ErrNotConfirmed = errors.New("a node did not take up the change")

// Await samples the targets densely until each was answered once, and returns when the last one was. Its error matches
// [ErrNotConfirmed] when ctx ended first, and names those that were not.
func Await(ctx context.Context, targets []Target, r Rhythm, n *Nonces) (time.Time, error) {
	s := newSampler(targets, r, n)
	defer s.flights.Wait()
	probing, cancel := context.WithCancel(ctx)
	defer cancel()
	tick := time.NewTicker(r.Dense)
	defer tick.Stop()
	due := true
	for {
		if due {
			s.round(probing, func(t *Track) bool { return t.answeredAt().IsZero() })
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
			return time.Time{}, fmt.Errorf("%w: no connection to %s", ErrNotConfirmed, strings.Join(missing, ", "))
		}
	}
}

// Connections say what came of connections that nothing should cut.
type Connections struct {
	// Why has an entry for each that was tried: "" if it was answered, else what happened instead.
	Why map[model.Connection]string
	// Cut tells whether there is one that was not answered although this kernel supports it.
	Cut bool
	// Shown are the endpoints whose servers all answered.
	Shown map[model.Endpoint]bool
}

// Connect tries connections that nothing should cut until each was answered once, or the time for it is over. within is
// that time; a crowd has more. Its error is that of ctx.
func Connect(ctx context.Context, targets []Target, r Rhythm, n *Nonces, servers Servers, within time.Duration) (Connections, error) {
	began := time.Now()
	out := Connections{Why: map[model.Connection]string{}}
	s := newSampler(targets, r, n)
	limit, cancel := context.WithTimeout(ctx, within+s.rhythm.Late)
	defer cancel()
	for {
		began := time.Now()
		sent := s.round(ctx, func(t *Track) bool {
			return t.answeredAt().IsZero() && (len(t.samples) == 0 || t.Unreachable == "" && t.samples[len(t.samples)-1].Verdict != model.Unsupported)
		})
		s.flights.Wait()
		if sent == 0 {
			break
		}
		if missing, _ := s.unanswered(); len(missing) == 0 {
			break
		}
		next := time.NewTimer(r.Spaced - time.Since(began))
		select {
		case <-next.C:
		case <-limit.Done():
		}
		next.Stop()
		if limit.Err() != nil {
			break
		}
	}
	s.each(func(t *Track, series []Sample, _ bool) {
		if !t.answeredAt().IsZero() {
			out.Why[t.Conn] = ""
			return
		}
		last := series[len(series)-1]
		out.Cut = out.Cut || last.Verdict != model.Unsupported
		out.Why[t.Conn] = cmp.Or(last.Reason, fmt.Sprintf("%s after %d tries", last.Response.Outcome, len(series)))
	})
	out.Shown = s.shown(began, servers.Ports)
	return out, ctx.Err()
}
