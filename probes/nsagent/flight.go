//go:build linux

package nsagent

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
	"github.com/netproof/netproof/probes/message"
)

const (
	// bindTries is the number of source ports that are tried before a probe is given up.
	bindTries = 256
	// sends is how often a datagram is sent, evenly spaced over the time-out: one that is lost on the way must not look
	// like a denial.
	sends = 3
	// starvedShare is the share of its time-out by which loops may be late before a probe gets more time.
	starvedShare = 8
	// patience is how many times its time-out a starved probe waits in all before it ends as an error.
	patience = 10
)

// flight is one probe, from the making of its socket to its outcome.
type flight struct {
	watch watch
	batch *batch
	// place is the index among the batch's flights; -1 when it is not there.
	place int
	fd    int

	nonce       probes.Nonce
	protocol    model.Protocol
	destination netip.AddrPort
	sourcePort  int
	timeout     int64
	resp        probes.Response

	// sent and deadline are times of the loops' clock.
	sent, deadline int64
	// lateness is how late the loops were when the first packet was sent, late how much later this one was handed on.
	lateness lateness
	late     int64
	// connected is true when the request can be, or has been, sent over a connection, and always for UDP.
	connected bool
	// partial is the beginning of an answer.
	partial []byte
}

var _ source = (*flight)(nil)

func (f *flight) watched() *watch { return &f.watch }

// stream tells whether the probe goes over a connection.
func (f *flight) stream() bool { return f.protocol != model.UDP }

// prepare fills in a flight that has no socket yet.
func (f *flight) prepare(b *batch, r *probes.Request) {
	f.batch, f.place, f.fd = b, -1, -1
	f.nonce, f.protocol = r.Nonce, r.Protocol
	f.resp.ID, f.resp.Nonce = r.ID, r.Nonce
	if err := check(r); err != nil {
		f.conclude(probes.Error, 0, err.Error())
		return
	}
	f.destination = netip.AddrPortFrom(r.Address.Unmap(), uint16(r.Port))
	f.timeout = r.TimeoutMs * int64(time.Millisecond)
}

// conclude sets the outcome of a flight.
func (f *flight) conclude(o probes.Outcome, errno unix.Errno, detail string) {
	f.resp.Outcome, f.resp.Errno, f.resp.Detail = o, errnoName(errno), detail
	if f.resp.Sent && o != probes.Timeout {
		f.resp.RTT = time.Duration(nanotime() - f.sent)
	}
}

// makeSocket makes the flight's socket, in the namespace of the calling thread.
func (f *flight) makeSocket() {
	if f.resp.Outcome != "" {
		return
	}
	fd, err := newSocket(f.protocol, f.destination.Addr().Is6())
	if err == nil {
		f.fd = fd
		return
	}
	var errno unix.Errno
	_ = errors.As(err, &errno)
	outcome := probes.Error
	if notSupported(err) {
		outcome = probes.Unsupported
	}
	f.conclude(outcome, errno, fmt.Sprintf("make %s socket for %s: %v", f.protocol, f.destination.Addr(), err))
}

// send binds the socket to a fresh source port and sends the first packet. The kernel's errors here are this host's
// own: nothing left it, with the two exceptions below.
func (f *flight) send(scratch []byte) {
	ipv6 := f.destination.Addr().Is6()
	if err := f.bind(ipv6); err != nil {
		var errno unix.Errno
		_ = errors.As(err, &errno)
		f.conclude(probes.Error, errno, err.Error())
		return
	}
	// Without these the error queue stays empty, and a connection attempt does not notice ICMP messages that arrive
	// while its own SYN is being sent, as they do when the refusing host is this machine.
	if ipv6 {
		_ = unix.SetsockoptInt(f.fd, unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1)
	} else {
		_ = unix.SetsockoptInt(f.fd, unix.IPPROTO_IP, unix.IP_RECVERR, 1)
	}
	scope, err := scopeOf(f.fd, f.destination.Addr().Zone())
	if err != nil {
		f.conclude(probes.Error, 0, err.Error())
		return
	}
	var to sockaddr
	to.set(f.destination.Addr(), int(f.destination.Port()), scope)

	f.batch.agent.engine.measure(&f.lateness, f.batch.loop)
	f.stamp()
	errno := connectTo(f.fd, &to)
	if f.stream() {
		f.resp.Source = localAddr(f.fd)
		switch errno {
		case 0, unix.EINPROGRESS:
			f.resp.Sent, f.resp.Attempts = true, 1
		case unix.ECONNREFUSED:
			f.resp.Sent, f.resp.Attempts = true, 1
			f.conclude(probes.Reset, errno, "")
		default:
			f.conclude(probes.Error, errno, fmt.Sprintf("connect to %s: %v", f.destination, errno))
		}
	} else {
		if errno != 0 {
			f.conclude(probes.Error, errno, fmt.Sprintf("route to %s: %v", f.destination, errno))
			return
		}
		f.connected = true
		f.resp.Source = localAddr(f.fd)
		f.stamp()
		f.sendDatagram(scratch)
	}
}

// stamp notes the time of sending.
func (f *flight) stamp() {
	f.resp.SentAt = time.Now()
	f.sent = int64(f.resp.SentAt.Sub(epoch))
	f.deadline = f.sent + f.timeout
}

// bind binds the socket to a source port that is fresh toward the destination.
func (f *flight) bind(ipv6 bool) error {
	if ipv6 {
		// Else the port would have to be free in IPv4 too.
		_ = unix.SetsockoptInt(f.fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	var from sockaddr
	for range bindTries {
		port, err := f.batch.agent.ports.next(f.protocol, f.destination)
		if err != nil {
			return err
		}
		from.wildcard(ipv6, port)
		switch errno := bindTo(f.fd, &from); errno {
		case 0:
			f.sourcePort = port
			return nil
		case unix.EADDRINUSE:
		default:
			return fmt.Errorf("bind to source port %d: %w", port, errno)
		}
	}
	return fmt.Errorf("bind to a source port: %d in a row are in use: %w", bindTries, unix.EADDRINUSE)
}

// sendDatagram sends the request once more, or for the first time.
func (f *flight) sendDatagram(scratch []byte) {
	_, errno := sendBytes(f.fd, f.batch.agent.key().AppendRequest(scratch, f.batch.kind, f.nonce), 0)
	first := !f.resp.Sent
	switch errno {
	case 0:
		f.resp.Sent = true
		f.resp.Attempts++
	case unix.ENOBUFS:
		// A queue or an eBPF program on the way out of the interface threw it away. For TCP the kernel keeps that
		// to itself, and it looks like any packet lost further on. So let it here.
		f.resp.Sent, f.resp.Errno = true, errnoName(errno)
		f.resp.Attempts++
	case unix.EPERM:
		// A packet filter in the prober's own namespace refused the packet, which is as good as one further on.
		// If it rejected it, there is an ICMP message.
		f.resp.Sent = true
		f.resp.Attempts++
		if f.refused() {
			return
		}
		f.conclude(probes.Prohibited, errno, "refused by a packet filter in the prober's own network namespace")
	case unix.EAGAIN:
		// The socket's own buffer is full of what was not yet transmitted: neighbour resolution is at work.
	default:
		if first {
			f.conclude(probes.Error, errno, fmt.Sprintf("send to %s: %v", f.destination, errno))
			return
		}
		f.failed(errno)
	}
}

// failed sets the outcome that an errno of a probe under way tells, with the help of the socket's error queue.
func (f *flight) failed(errno unix.Errno) {
	if f.refused() {
		return
	}
	f.conclude(outcomeOf(errno), errno, "")
	switch {
	case len(f.partial) > 0:
		f.conclude(probes.WrongAnswer, errno, fmt.Sprintf("connection ended within the answer, after %d bytes", len(f.partial)))
	case f.resp.Outcome == probes.Error:
		f.resp.Detail = fmt.Sprintf("%s to %s: %v", f.protocol, f.destination, errno)
	}
}

// refused sets the outcome if an ICMP message on the error queue tells it.
func (f *flight) refused() bool {
	var data [256]byte
	var oob [256]byte
	for {
		e, ok := readErrorQueue(f.fd, data[:], oob[:])
		if !ok {
			return false
		}
		outcome, ok := e.outcome(f.resp.Source.Addr())
		if !ok {
			continue
		}
		f.conclude(outcome, e.errno, e.String())
		if outcome == probes.Error {
			f.resp.Sent = false
			f.resp.Detail = "own host found no way to it: " + e.String()
		}
		return true
	}
}

// takeOff hands the flight, whose first packet is sent, to the loop.
func (f *flight) takeOff(l *loop) {
	f.watch.fd = f.fd
	f.watch.heap = -1
	b := f.batch
	if b.ended {
		_ = unix.Close(f.fd)
		l.freed++
		return
	}
	// What passed since the packet was sent, the loop was not watching.
	if late := nanotime() - f.sent; late > int64(tick) {
		f.late = late
	}
	// Within one machine the handshake is often over by now, and the request can go without waiting for an event.
	if f.stream() {
		f.sendRequest(l)
	}
	events := uint32(unix.EPOLLIN | unix.EPOLLRDHUP | edgeTriggered)
	if !f.connected {
		events |= unix.EPOLLOUT
	}
	if f.resp.Outcome == "" {
		if err := l.add(f, events); err != nil {
			f.conclude(probes.Error, 0, err.Error())
		}
	}
	if f.resp.Outcome != "" {
		f.close()
		l.freed++
		b.finished(f.resp)
		return
	}
	f.place = len(b.flights)
	b.flights = append(b.flights, f)
	l.setTimer(f, f.nextTime())
}

// nextTime is when the flight wants to be woken: to send again, or to end.
func (f *flight) nextTime() int64 {
	if !f.stream() && f.resp.Attempts < sends {
		return min(f.deadline, f.sent+int64(max(1, f.resp.Attempts))*f.timeout/sends)
	}
	return f.deadline
}

// ready implements source.
func (f *flight) ready(l *loop, events uint32) {
	f.advance(l, events&unix.EPOLLERR != 0)
	f.land(l)
}

// advance does what can be done now: take errors, send the request, read the answer.
func (f *flight) advance(l *loop, erred bool) {
	if erred && f.refused() {
		return
	}
	if !f.connected {
		f.sendRequest(l)
	}
	if f.connected && f.resp.Outcome == "" {
		f.receive(l)
	}
}

// sendRequest sends the request if the connection is made.
func (f *flight) sendRequest(l *loop) {
	_, errno := sendBytes(f.fd, f.batch.agent.key().AppendRequest(l.scratch[:0], f.batch.kind, f.nonce), 0)
	switch errno {
	case 0:
		f.connected, f.resp.Connected = true, true
	case unix.EAGAIN:
		// Still connecting.
	case unix.ECONNRESET, unix.EPIPE:
		// The connection was made, and ended before the request could be sent.
		f.resp.Connected = true
		f.failed(unix.ECONNRESET)
	default:
		f.failed(errno)
	}
}

// receive reads until there is an outcome, or nothing to read.
func (f *flight) receive(l *loop) {
	buf := l.scratch
	for {
		have := copy(buf, f.partial)
		n, errno := recvBytes(f.fd, buf[have:])
		switch {
		case errno == unix.EAGAIN:
			return
		case errno != 0:
			f.failed(errno)
			return
		case n == 0 && f.stream():
			f.conclude(probes.WrongAnswer, 0, fmt.Sprintf("connection closed after %d bytes of an answer", have))
			return
		}
		if f.read(l, buf[:have+n]); f.resp.Outcome != "" {
			return
		}
	}
}

// read takes what came so far.
func (f *flight) read(l *loop, b []byte) {
	answer, err := f.batch.agent.key().ParseAnswer(b)
	switch {
	case err == nil && string(answer.Nonce) == string(f.nonce):
		f.conclude(probes.Answered, 0, "")
		f.resp.By = l.identity(answer)
	case err == nil:
		f.conclude(probes.WrongAnswer, 0, fmt.Sprintf("answer to another probe: nonce %.64q", answer.Nonce))
	case errors.Is(err, message.ErrShort) && f.stream():
		f.partial = append(f.partial[:0], b...)
	default:
		f.conclude(probes.WrongAnswer, 0, fmt.Sprintf("%v: %d bytes, beginning %.32q", err, len(b), b))
	}
}

// expired implements source.
func (f *flight) expired(l *loop) {
	defer f.land(l)
	// Whatever arrived in time counts, also if nobody was there to read it.
	if f.advance(l, true); f.resp.Outcome != "" {
		return
	}
	if l.now < f.deadline {
		f.sendDatagram(l.scratch[:0])
		if f.resp.Outcome == "" {
			// Attempts does not grow when the packet was not taken: wait for the next turn all the same.
			l.setTimer(f, max(f.nextTime(), min(f.deadline, l.now+f.timeout/sends)))
		}
		return
	}
	// Time in which this process did not get to run is not time that the network had: give it back.
	var now lateness
	f.batch.agent.engine.measure(&now, l)
	late := f.late + now.since(&f.lateness)
	if late <= f.timeout/starvedShare || l.now >= f.sent+f.timeout+late {
		f.timedOut()
		return
	}
	if l.now >= f.sent+patience*f.timeout {
		f.conclude(probes.Error, 0, fmt.Sprintf("this process was starved: late by %s of the %s since the probe was sent",
			time.Duration(late).Round(time.Millisecond), time.Duration(l.now-f.sent).Round(time.Millisecond)))
		return
	}
	f.deadline = min(f.sent+f.timeout+late, f.sent+patience*f.timeout)
	l.setTimer(f, f.deadline)
}

// timedOut sets the outcome of a probe that was not answered.
func (f *flight) timedOut() {
	errno := f.resp.Errno
	f.conclude(probes.Timeout, 0, "")
	f.resp.Errno = errno
	if f.resp.Connected {
		f.resp.Detail = "connected, but not answered"
	}
	if f.protocol == model.TCP {
		if info, err := unix.GetsockoptTCPInfo(f.fd, unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			f.resp.Attempts = 1 + int(info.Total_retrans)
		}
	}
}

// land ends a flight that has an outcome.
func (f *flight) land(l *loop) {
	if f.resp.Outcome == "" {
		return
	}
	r := f.resp
	f.drop(l)
	f.batch.finished(r)
}

// drop ends a flight, and says nothing about it.
func (f *flight) drop(l *loop) {
	b := f.batch
	last := len(b.flights) - 1
	b.flights[f.place] = b.flights[last]
	b.flights[f.place].place = f.place
	b.flights[last] = nil
	b.flights = b.flights[:last]
	f.place = -1
	f.rest()
	if f.connected && f.stream() {
		resetOnClose(f.fd)
	}
	l.remove(f)
	f.fd = -1
	l.freed++
}

// close closes the socket of a flight that is not watched.
func (f *flight) close() {
	f.rest()
	if f.connected && f.stream() {
		resetOnClose(f.fd)
	}
	_ = unix.Close(f.fd)
	f.fd = -1
}

// rest keeps the source port out of use for longer when connection tracking may remember the connection for longer:
// when it did not end on both sides.
func (f *flight) rest() {
	switch {
	case !f.stream(), f.resp.Outcome == probes.Answered, f.resp.Outcome == probes.Reset:
		return
	}
	f.batch.agent.ports.retire(f.protocol, f.destination, f.sourcePort, f.batch.agent.engine.options.UDPPortRest)
}

// abandon implements source. Agents are closed before loops are stopped, and wait for their flights.
func (f *flight) abandon(l *loop) { f.drop(l) }
