//go:build linux

package nsagent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/netproof/netproof/harness/model"
)

// ErrNotSupported says that this kernel cannot make such a socket.
var ErrNotSupported = errors.New("not supported by this kernel")

var sctp struct {
	sync.Mutex
	known bool
	err   error
}

// HaveSCTP tells whether this kernel makes SCTP sockets: nil if it does, [ErrNotSupported] if it does not, any other
// error if that could not be found out. Only the first two are remembered. It may load the kernel's sctp module.
func HaveSCTP() error {
	sctp.Lock()
	defer sctp.Unlock()
	if sctp.known {
		return sctp.err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	switch {
	case err == nil:
		_ = unix.Close(fd)
		sctp.known = true
		return nil
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.ESOCKTNOSUPPORT):
		sctp.known, sctp.err = true, fmt.Errorf("SCTP sockets: %w (%w)", ErrNotSupported, err)
		return sctp.err
	}
	return fmt.Errorf("look for SCTP sockets: %w", err)
}

// notSupported tells whether the making of a socket failed for want of the family or the protocol.
func notSupported(err error) bool {
	return errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.ESOCKTNOSUPPORT) || errors.Is(err, unix.EAFNOSUPPORT)
}

// newSocket makes a socket in the namespace of the calling thread.
func newSocket(p model.Protocol, ipv6 bool) (int, error) {
	family := unix.AF_INET
	if ipv6 {
		family = unix.AF_INET6
	}
	kind, number := unix.SOCK_STREAM, unix.IPPROTO_TCP
	switch p {
	case model.TCP:
	case model.UDP:
		kind, number = unix.SOCK_DGRAM, unix.IPPROTO_UDP
	case model.SCTP:
		number = unix.IPPROTO_SCTP
	default:
		return -1, fmt.Errorf("protocol %q: want TCP, UDP or SCTP", p)
	}
	return unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, number)
}

// sockaddr is a socket address in the form the kernel takes, so that none needs to be allocated per call.
type sockaddr struct {
	raw    unix.RawSockaddrInet6
	length uint32
}

// set fills in an address. The scope is the index of the interface a link-local address belongs to.
func (s *sockaddr) set(addr netip.Addr, port int, scope uint32) {
	addr = addr.Unmap()
	if addr.Is4() {
		in4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(&s.raw))
		*in4 = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: addr.As4()}
		binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&in4.Port))[:], uint16(port))
		s.length = unix.SizeofSockaddrInet4
		return
	}
	s.raw = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: addr.As16(), Scope_id: scope}
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&s.raw.Port))[:], uint16(port))
	s.length = unix.SizeofSockaddrInet6
}

// wildcard fills in the unspecified address of a family.
func (s *sockaddr) wildcard(ipv6 bool, port int) {
	if ipv6 {
		s.set(netip.IPv6Unspecified(), port, 0)
		return
	}
	s.set(netip.IPv4Unspecified(), port, 0)
}

func (s *sockaddr) addrPort() netip.AddrPort {
	return parseSockaddr(unsafe.Slice((*byte)(unsafe.Pointer(&s.raw)), min(int(s.length), unix.SizeofSockaddrInet6)))
}

// parseSockaddr reads a raw socket address; the zero value if it is of no IP family.
func parseSockaddr(b []byte) netip.AddrPort {
	if len(b) < 2 {
		return netip.AddrPort{}
	}
	switch binary.NativeEndian.Uint16(b) {
	case unix.AF_INET:
		if len(b) < 8 {
			return netip.AddrPort{}
		}
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:4]))
	case unix.AF_INET6:
		if len(b) < 24 {
			return netip.AddrPort{}
		}
		addr := netip.AddrFrom16([16]byte(b[8:24])).Unmap()
		if addr.IsLinkLocalUnicast() && len(b) >= unix.SizeofSockaddrInet6 {
			if scope := binary.NativeEndian.Uint32(b[24:28]); scope != 0 {
				addr = addr.WithZone(strconv.FormatUint(uint64(scope), 10))
			}
		}
		return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(b[2:4]))
	}
	return netip.AddrPort{}
}

// The system calls below are those of the x/sys/unix package without its allocations: it makes a new Sockaddr per call.

func bindTo(fd int, s *sockaddr) unix.Errno {
	_, _, errno := unix.Syscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&s.raw)), uintptr(s.length))
	return errno
}

func connectTo(fd int, s *sockaddr) unix.Errno {
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&s.raw)), uintptr(s.length))
	return errno
}

func localAddr(fd int) netip.AddrPort {
	s := sockaddr{length: unix.SizeofSockaddrInet6}
	_, _, errno := unix.Syscall(unix.SYS_GETSOCKNAME, uintptr(fd),
		uintptr(unsafe.Pointer(&s.raw)), uintptr(unsafe.Pointer(&s.length)))
	if errno != 0 {
		return netip.AddrPort{}
	}
	return s.addrPort()
}

func acceptFrom(fd int, s *sockaddr) (int, unix.Errno) {
	s.length = unix.SizeofSockaddrInet6
	conn, _, errno := unix.Syscall6(unix.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(&s.raw)),
		uintptr(unsafe.Pointer(&s.length)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	return int(conn), errno
}

// sendBytes and recvBytes never block, and never raise SIGPIPE. The slices must not be empty.
func sendBytes(fd int, b []byte, flags int) (int, unix.Errno) {
	for {
		n, _, errno := unix.Syscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
			uintptr(flags|unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL), 0, 0)
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}

func recvBytes(fd int, b []byte) (int, unix.Errno) {
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
			unix.MSG_DONTWAIT, 0, 0)
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}

// resetOnClose makes close send a reset and forget the connection at once, instead of keeping it in TIME_WAIT.
func resetOnClose(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}

// scopeOf returns the interface index that a zone names, as a number or a name.
func scopeOf(fd int, zone string) (uint32, error) {
	if zone == "" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	request, err := unix.NewIfreq(zone)
	if err != nil {
		return 0, fmt.Errorf("zone %q: %w", zone, err)
	}
	// The socket's namespace is asked, whatever the thread's is.
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, request); err != nil {
		return 0, fmt.Errorf("zone %q: %w", zone, err)
	}
	return request.Uint32(), nil
}
