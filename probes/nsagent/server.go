//go:build linux

package nsagent

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes/message"
)

const (
	// backlog is how many connections may wait to be accepted; the kernel bounds it by net.core.somaxconn.
	backlog = 4096
	// receiveBuffer lets a burst of datagrams wait while this process does something else: an overflow looks like a
	// drop.
	receiveBuffer = 4 << 20
	// acceptsPerEvent keeps one busy listener from starving the others.
	acceptsPerEvent = 64
	// slowClient is how long a client may take to send its request.
	slowClient = 10 * time.Second
	// maxSlowClients bounds the connections of one listener whose request did not come yet; the oldest make room.
	maxSlowClients = 4096
	// acceptPause is how long a listener waits when this process may not open another file.
	acceptPause = 20 * time.Millisecond
)

// server serves one port of an endpoint, with a listener per IP family.
type server struct {
	port      model.Port
	loop      *loop
	listeners []*listener
	// err says why the port is not served.
	err error
}

// serve starts a server. Its port field is set also if that fails.
func (a *Agent) serve(p model.Port) *server {
	s := &server{port: p, loop: a.serving}
	if p.Number < 1 || p.Number > 65535 {
		s.err = fmt.Errorf("serve %s for %s: port must be 1 to 65535", p, a.identity.Endpoint)
		return s
	}
	if p.Protocol == model.SCTP {
		if err := HaveSCTP(); err != nil {
			s.err = fmt.Errorf("serve %s for %s: %w", p, a.identity.Endpoint, err)
			return s
		}
	}
	var fds []int
	var v6 []bool
	err := a.engine.inside(a.ns, func() error {
		for _, ipv6 := range []bool{false, true} {
			fd, err := listenSocket(p, ipv6)
			if ipv6 && notSupported(err) {
				continue // a kernel without IPv6
			}
			if err != nil {
				return err
			}
			fds, v6 = append(fds, fd), append(v6, ipv6)
		}
		return nil
	})
	if err == nil {
		for i, fd := range fds {
			s.listeners = append(s.listeners, &listener{agent: a, port: p, ipv6: v6[i], watch: watch{fd: fd, heap: -1}})
		}
		if !s.loop.call(func() { err = s.start() }) {
			err = ErrClosed
		}
	}
	if err != nil {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
		s.listeners = nil
		s.err = fmt.Errorf("serve %s for %s: %w", p, a.identity.Endpoint, err)
	}
	return s
}

// start watches the listeners. It runs in the loop's goroutine. After an error none is watched.
func (s *server) start() error {
	for i, ln := range s.listeners {
		if err := s.loop.add(ln, unix.EPOLLIN); err != nil {
			for _, started := range s.listeners[:i] {
				s.loop.vacate(&started.watch)
			}
			return err
		}
	}
	return nil
}

// stop closes the listeners and their connections.
func (s *server) stop() {
	s.loop.call(func() {
		for _, ln := range s.listeners {
			ln.close(s.loop)
		}
	})
}

// listenSocket makes a socket that is bound to the wildcard address and, for streams, listens, in the namespace of
// the calling thread.
func listenSocket(p model.Port, ipv6 bool) (fd int, err error) {
	fd, err = newSocket(p.Protocol, ipv6)
	if err != nil {
		return -1, fmt.Errorf("make socket: %w", err)
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd)
		}
	}()
	if ipv6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return -1, fmt.Errorf("restrict to IPv6: %w", err)
		}
	}
	if p.Protocol == model.UDP {
		// A reply must leave from the address the request came to, which on a host with several is not the one
		// that routing would choose.
		level, option := unix.IPPROTO_IP, unix.IP_PKTINFO
		if ipv6 {
			level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO
		}
		if err := unix.SetsockoptInt(fd, level, option, 1); err != nil {
			return -1, fmt.Errorf("ask for destination addresses: %w", err)
		}
		// The first works beyond the system's limit, but takes a privilege.
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
		}
	} else if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		// For a server that is stopped and started again. For UDP it would allow two servers of one port.
		return -1, fmt.Errorf("allow reuse of the address: %w", err)
	}
	var any sockaddr
	any.wildcard(ipv6, p.Number)
	if errno := bindTo(fd, &any); errno != 0 {
		return -1, fmt.Errorf("bind: %w", errno)
	}
	if p.Protocol != model.UDP {
		if err := unix.Listen(fd, backlog); err != nil {
			return -1, fmt.Errorf("listen: %w", err)
		}
	}
	return fd, nil
}

// listener serves one port in one IP family. It is watched level-triggered.
type listener struct {
	watch watch
	agent *Agent
	port  model.Port
	ipv6  bool
	// oldest and newest are the ends of a list of connections whose request has not come yet.
	oldest, newest *connection
	slow           int
}

var _ source = (*listener)(nil)

func (ln *listener) watched() *watch { return &ln.watch }

// close closes the listener and its connections.
func (ln *listener) close(l *loop) {
	for ln.oldest != nil {
		ln.oldest.close(l)
	}
	l.remove(ln)
}

func (ln *listener) abandon(l *loop) { ln.close(l) }

func (ln *listener) ready(l *loop, _ uint32) {
	if ln.port.Protocol == model.UDP {
		ln.datagrams(l)
		return
	}
	var peer sockaddr
	for range acceptsPerEvent {
		fd, errno := acceptFrom(ln.watch.fd, &peer)
		switch errno {
		case 0:
		case unix.EAGAIN:
			return
		case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM:
			// Level-triggered, this would be a busy loop.
			l.listen(ln, 0)
			l.setTimer(ln, l.now+int64(acceptPause))
			return
		default:
			continue // a connection that ended before it was accepted
		}
		c := &connection{listener: ln, watch: watch{fd: fd, heap: -1}, peer: peer}
		if c.read(l) {
			_ = unix.Close(fd)
			continue
		}
		if err := l.add(c, unix.EPOLLIN|unix.EPOLLRDHUP|edgeTriggered); err != nil {
			_ = unix.Close(fd)
			continue
		}
		c.enlist()
		l.setTimer(c, l.now+int64(slowClient))
		if ln.slow > maxSlowClients {
			ln.oldest.close(l)
		}
	}
}

func (ln *listener) expired(l *loop) { l.listen(ln, unix.EPOLLIN) }

// connection is an accepted connection whose request has not come yet.
type connection struct {
	watch    watch
	listener *listener
	peer     sockaddr
	partial  []byte

	older, newer *connection
}

var _ source = (*connection)(nil)

func (c *connection) watched() *watch { return &c.watch }
func (c *connection) expired(l *loop) { c.close(l) }
func (c *connection) abandon(l *loop) { c.close(l) }
func (c *connection) ready(l *loop, _ uint32) {
	if c.read(l) {
		c.close(l)
	}
}

func (c *connection) enlist() {
	ln := c.listener
	c.older = ln.newest
	if c.older != nil {
		c.older.newer = c
	} else {
		ln.oldest = c
	}
	ln.newest = c
	ln.slow++
}

func (c *connection) close(l *loop) {
	ln := c.listener
	if c.older != nil {
		c.older.newer = c.newer
	} else {
		ln.oldest = c.newer
	}
	if c.newer != nil {
		c.newer.older = c.older
	} else {
		ln.newest = c.older
	}
	ln.slow--
	l.remove(c)
}

// read takes what the client sent, and answers if it is a request. It returns true when the connection is done with.
func (c *connection) read(l *loop) bool {
	buf := l.scratch[:message.MaxRequest+1]
	for {
		have := copy(buf, c.partial)
		n, errno := recvBytes(c.watch.fd, buf[have:])
		switch {
		case errno == unix.EAGAIN:
			return false
		case errno != 0 || n == 0:
			return true
		}
		kind, nonce, err := c.listener.agent.key().ParseRequest(buf[:have+n])
		if errors.Is(err, message.ErrShort) {
			c.partial = append(c.partial[:0], buf[:have+n]...)
			continue
		}
		answer := c.listener.answer(l, kind, nonce, err, &c.peer)
		if answer == nil {
			resetOnClose(c.watch.fd)
			return true
		}
		// The answer fits into the socket's buffer, and closing sends what is in it. The client ends the connection
		// with a reset as soon as it has read the answer, so that neither side keeps it in TIME_WAIT.
		_, _ = sendBytes(c.watch.fd, answer, unix.MSG_MORE)
		return true
	}
}

// answer records a request and returns what to send back, in the loop's scratch memory; nil for what is no request.
func (ln *listener) answer(l *loop, kind message.Kind, nonce []byte, err error, peer *sockaddr) []byte {
	out := l.scratch[message.MaxRequest+1:][:0]
	switch {
	case errors.Is(err, message.ErrVersion):
		return message.AppendRefusal(out)
	case err != nil:
		return nil
	}
	if kind == message.Probe {
		ln.agent.records.add(nonce, peer.addrPort())
	}
	return ln.agent.key().AppendAnswer(out, nonce, ln.agent.identity)
}

// datagrams answers what has come to a UDP socket.
func (ln *listener) datagrams(l *loop) {
	buf := l.scratch[:message.MaxRequest+1]
	var peer sockaddr
	var vector unix.Iovec
	var header unix.Msghdr
	for range acceptsPerEvent {
		vector.Base = &buf[0]
		vector.SetLen(len(buf))
		header = unix.Msghdr{Name: (*byte)(unsafe.Pointer(&peer.raw)), Namelen: unix.SizeofSockaddrInet6, Iov: &vector, Control: &l.oob[0]}
		header.SetIovlen(1)
		header.SetControllen(len(l.oob))
		n, _, errno := unix.Syscall(unix.SYS_RECVMSG, uintptr(ln.watch.fd), uintptr(unsafe.Pointer(&header)), unix.MSG_DONTWAIT)
		if errno == unix.EAGAIN {
			return
		}
		if errno != 0 {
			continue
		}
		peer.length = header.Namelen
		kind, nonce, err := ln.agent.key().ParseRequest(buf[:n])
		answer := ln.answer(l, kind, nonce, err, &peer)
		if answer == nil {
			continue
		}
		control := l.oob[:header.Controllen]
		vector.Base = &answer[0]
		vector.SetLen(len(answer))
		header.Iov = &vector
		header.Control = nil
		header.SetControllen(0)
		if info := replyFrom(control); len(info) > 0 {
			header.Control = &info[0]
			header.SetControllen(len(info))
		}
		header.Flags = 0
		// A reply that cannot be sent is a reply that got lost: the record says that the request came.
		_, _, _ = unix.Syscall(unix.SYS_SENDMSG, uintptr(ln.watch.fd), uintptr(unsafe.Pointer(&header)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	}
}

// replyFrom turns the control message that tells where a datagram came to into the one that makes the reply leave
// from there, in place.
func replyFrom(control []byte) []byte {
	header := unix.CmsgLen(0)
	if len(control) < header {
		return nil
	}
	h := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
	data := control[header:]
	switch {
	case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
		info := (*unix.Inet4Pktinfo)(unsafe.Pointer(&data[0]))
		info.Spec_dst, info.Addr, info.Ifindex = info.Addr, [4]byte{}, 0
	case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
		info := (*unix.Inet6Pktinfo)(unsafe.Pointer(&data[0]))
		// Only a link-local address needs its interface; for others routing chooses.
		if info.Addr[0] != 0xfe || info.Addr[1]&0xc0 != 0x80 {
			info.Ifindex = 0
		}
	default:
		return nil
	}
	return control
}
