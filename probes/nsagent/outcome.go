//go:build linux

package nsagent

import (
	"errors"
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/netproof/netproof/probes"
)

// icmpError is an ICMP message about a packet of a probe, from its socket's error queue.
type icmpError struct {
	errno unix.Errno
	ipv6  bool
	kind  uint8
	code  uint8
	// from is who sent it; the zero address when the kernel does not tell.
	from netip.Addr
}

func (e icmpError) String() string {
	family := "ICMP"
	if e.ipv6 {
		family = "ICMPv6"
	}
	if !e.from.IsValid() {
		return fmt.Sprintf("%s type %d code %d", family, e.kind, e.code)
	}
	return fmt.Sprintf("%s type %d code %d from %s", family, e.kind, e.code, e.from)
}

// ICMP types and codes of RFC 792, RFC 1812 section 5.2.7.1 and RFC 4443.
const (
	icmp4Unreachable  = 3
	icmp4TimeExceeded = 11

	icmp4HostUnreachable = 1
	icmp4PortUnreachable = 3
	icmp4FragNeeded      = 4
	icmp4NetProhibited   = 9
	icmp4HostProhibited  = 10
	icmp4Filtered        = 13

	icmp6Unreachable  = 1
	icmp6TimeExceeded = 3

	icmp6NoRoute            = 0
	icmp6Prohibited         = 1
	icmp6AddressUnreachable = 3
	icmp6PortUnreachable    = 4
	icmp6PolicyFailed       = 5
	icmp6RouteRejected      = 6
)

// outcome returns what the message says about the path; ok is false for messages that say nothing about it.
//
// A host that cannot resolve its neighbour, or has no route, tells its own sockets so by an ICMP message to itself.
// Then the packet never left: that is an error of the prober, not the network's answer.
func (e icmpError) outcome(own netip.Addr) (o probes.Outcome, ok bool) {
	fromSelf := e.from.IsValid() && e.from.WithZone("") == own.WithZone("")
	unreachable := func() (probes.Outcome, bool) {
		if fromSelf {
			return probes.Error, true
		}
		return probes.Unreachable, true
	}
	switch {
	case !e.ipv6 && e.kind == icmp4Unreachable:
		switch e.code {
		case icmp4PortUnreachable:
			return probes.Reset, true
		case icmp4NetProhibited, icmp4HostProhibited, icmp4Filtered:
			return probes.Prohibited, true
		case icmp4FragNeeded:
			return "", false
		case icmp4HostUnreachable:
			return unreachable()
		}
		return probes.Unreachable, true
	case e.ipv6 && e.kind == icmp6Unreachable:
		switch e.code {
		case icmp6PortUnreachable:
			return probes.Reset, true
		case icmp6Prohibited, icmp6PolicyFailed, icmp6RouteRejected:
			return probes.Prohibited, true
		case icmp6NoRoute, icmp6AddressUnreachable:
			return unreachable()
		}
		return probes.Unreachable, true
	case !e.ipv6 && e.kind == icmp4TimeExceeded, e.ipv6 && e.kind == icmp6TimeExceeded:
		return probes.Unreachable, true
	}
	return "", false
}

// readErrorQueue takes the next ICMP message off the socket's error queue; ok is false when there is none.
func readErrorQueue(fd int, data, oob []byte) (e icmpError, ok bool) {
	for {
		_, n, _, _, err := unix.Recvmsg(fd, data, oob, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return icmpError{}, false
		}
		if e, ok := parseErrorQueue(oob[:n]); ok {
			return e, true
		}
	}
}

// parseErrorQueue finds the ICMP message among control messages: a sock_extended_err, then the sender's address.
func parseErrorQueue(oob []byte) (icmpError, bool) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return icmpError{}, false
	}
	for _, m := range messages {
		v6 := m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_RECVERR
		v4 := m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_RECVERR
		const size = int(unsafe.Sizeof(unix.SockExtendedErr{}))
		if !v4 && !v6 || len(m.Data) < size {
			continue
		}
		extended := *(*unix.SockExtendedErr)(unsafe.Pointer(&m.Data[0]))
		if extended.Origin != unix.SO_EE_ORIGIN_ICMP && extended.Origin != unix.SO_EE_ORIGIN_ICMP6 {
			continue
		}
		return icmpError{
			errno: unix.Errno(extended.Errno),
			ipv6:  extended.Origin == unix.SO_EE_ORIGIN_ICMP6,
			kind:  extended.Type,
			code:  extended.Code,
			from:  parseSockaddr(m.Data[size:]).Addr(),
		}, true
	}
	return icmpError{}, false
}

// outcomeOf returns what an errno from the socket says, when no ICMP message explains it.
// EHOSTUNREACH, ENETUNREACH and EACCES without a message on the error queue are the verdict of this host's own
// routing table, whether they come at once or later (a route that went away): the packet did not leave.
func outcomeOf(errno unix.Errno) probes.Outcome {
	switch errno {
	case unix.ECONNREFUSED, unix.ECONNRESET, unix.EPIPE:
		return probes.Reset
	case unix.ETIMEDOUT:
		return probes.Timeout
	}
	return probes.Error
}

// errnoName returns the kernel's name of an error, such as ECONNREFUSED.
func errnoName(errno unix.Errno) string {
	if errno == 0 {
		return ""
	}
	if name := unix.ErrnoName(errno); name != "" {
		return name
	}
	return fmt.Sprintf("errno %d", int(errno))
}
