//go:build linux

package nsagent

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/netproof/netproof/harness/model"
)

// errNoFreshPort: every source port toward a destination was used so recently that connection tracking may still
// remember it.
var errNoFreshPort = errors.New("no fresh source port")

// blockSize is the number of neighbouring ports that share one time of last use.
const blockSize = 64

// sourcePorts hands out the source ports of one network namespace. The kernel's own choice may repeat a port at once,
// and a connection tracking entry that is still alive lets a packet through that the policy would now refuse.
// Ports toward one destination rotate from a random start, so that the same one comes back as late as possible,
// and never within the window.
type sourcePorts struct {
	mu sync.Mutex
	// first port and number of ports.
	first, count int
	reserved     func(port int) bool
	now          func() time.Time
	window       func(model.Protocol) time.Duration
	rotations    map[rotationKey]*rotation
	// sweepAt is the number of rotations at which idle ones are dropped.
	sweepAt int
}

type rotationKey struct {
	protocol    model.Protocol
	destination netip.AddrPort
}

// rotation is the state of the ports toward one destination.
type rotation struct {
	// start is the offset of the first port, used the number of ports handed out since.
	start, used int
	// blocks holds when a port of each block was last handed out; as long as the first round lasts it grows.
	blocks []time.Time
	latest time.Time
	// retired holds ports that must rest longer than the window, and until when.
	retired map[int]time.Time
	// rested is when the last of them may be used again.
	rested time.Time
}

func newSourcePorts(first, last int, reserved func(int) bool, window func(model.Protocol) time.Duration) *sourcePorts {
	count := (last - first + 1) / blockSize * blockSize
	return &sourcePorts{
		first: first, count: count, reserved: reserved, now: time.Now, window: window,
		rotations: map[rotationKey]*rotation{}, sweepAt: 1024,
	}
}

// next returns a port that was not used toward the destination within the protocol's window, or errNoFreshPort.
// Whether the port is free to bind to is for the caller to find out, and to ask again if not.
func (s *sourcePorts) next(protocol model.Protocol, destination netip.AddrPort) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	key := rotationKey{protocol, destination}
	r := s.rotations[key]
	if r == nil {
		s.sweep(now)
		r = &rotation{start: rand.IntN(s.count/blockSize) * blockSize}
		s.rotations[key] = r
	}
	for range s.count {
		block := r.used / blockSize % (s.count / blockSize)
		switch {
		case block == len(r.blocks):
			r.blocks = append(r.blocks, now)
		case r.used%blockSize == 0 && now.Sub(r.blocks[block]) < s.window(protocol):
			return 0, fmt.Errorf("%w toward %s %s: all %d were used within %s",
				errNoFreshPort, protocol, destination, s.count, s.window(protocol))
		}
		r.blocks[block], r.latest = now, now
		port := s.first + (r.start+r.used)%s.count
		r.used++
		if until, ok := r.retired[port]; ok {
			if now.Before(until) {
				continue
			}
			delete(r.retired, port)
		}
		if s.reserved == nil || !s.reserved(port) {
			return port, nil
		}
	}
	return 0, fmt.Errorf("%w toward %s %s: all of %d-%d are reserved or resting",
		errNoFreshPort, protocol, destination, s.first, s.first+s.count-1)
}

// retire keeps a port from being used toward the destination for a while that is longer than the window.
func (s *sourcePorts) retire(protocol model.Protocol, destination netip.AddrPort, port int, rest time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.rotations[rotationKey{protocol, destination}]
	if r == nil {
		return // not from here
	}
	if r.retired == nil {
		r.retired = map[int]time.Time{}
	}
	until := s.now().Add(rest)
	r.retired[port] = until
	r.rested = until
}

// sweep drops the rotations that have been idle for longer than their window, when there are many.
func (s *sourcePorts) sweep(now time.Time) {
	if len(s.rotations) < s.sweepAt {
		return
	}
	for key, r := range s.rotations {
		if now.Sub(r.latest) >= s.window(key.protocol) && now.After(r.rested) {
			delete(s.rotations, key)
		}
	}
	s.sweepAt = max(1024, 2*len(s.rotations))
}

// The range that Linux picks ephemeral ports from, unless told otherwise.
const defaultFirstPort, defaultLastPort = 32768, 60999

// ephemeralRange reads the range of ephemeral ports of the calling thread's network namespace, and those that are not
// to be used. When that cannot be read, Linux's defaults are as good as any: binding finds out what is free.
func ephemeralRange() (first, last int, reserved func(int) bool) {
	first, last = defaultFirstPort, defaultLastPort
	if text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		if f := strings.Fields(string(text)); len(f) == 2 {
			lo, err1 := strconv.Atoi(f[0])
			hi, err2 := strconv.Atoi(f[1])
			if err1 == nil && err2 == nil && lo > 0 && hi <= 65535 && hi-lo+1 >= blockSize {
				first, last = lo, hi
			}
		}
	}
	type span struct{ lo, hi int }
	var spans []span
	if text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_reserved_ports"); err == nil {
		for part := range strings.SplitSeq(strings.TrimSpace(string(text)), ",") {
			lo, hi, isRange := strings.Cut(part, "-")
			if !isRange {
				hi = lo
			}
			l, err1 := strconv.Atoi(lo)
			h, err2 := strconv.Atoi(hi)
			if err1 == nil && err2 == nil {
				spans = append(spans, span{l, h})
			}
		}
	}
	return first, last, func(port int) bool {
		for _, s := range spans {
			if s.lo <= port && port <= s.hi {
				return true
			}
		}
		return false
	}
}
