//go:build linux

package nsagent

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netproof/netproof/probes"
	"github.com/netproof/netproof/probes/message"
)

// tick is how long a loop sleeps at most while probes are in flight. It waking up later than that is how the loop
// learns that this process is starved.
const tick = 10 * time.Millisecond

// edgeTriggered is EPOLLET as the unsigned number it is meant to be.
const edgeTriggered = 1 << 31

// source is something a loop watches: a probe, a listener, an accepted connection. Its methods are called by the
// loop's goroutine only.
type source interface {
	// ready handles epoll events. It must read until it would block: events are edge-triggered unless asked otherwise.
	ready(l *loop, events uint32)
	// expired is called when the timer runs out.
	expired(l *loop)
	// abandon is called when the loop ends with the source still watched.
	abandon(l *loop)
	// watched is the loop's bookkeeping about the source.
	watched() *watch
}

// watch is the loop's bookkeeping about one source.
type watch struct {
	fd int
	// slot is the source's place in the loop's table; its number and generation are the epoll user data, so that an
	// event fetched before the source went away does not reach whoever took the place.
	slot int32
	// at is when the timer runs out, heap the place among the timers; -1: no timer is set.
	at   int64
	heap int
}

type slot struct {
	source     source
	generation int32
}

// loop is an epoll loop in a goroutine of its own.
type loop struct {
	epfd, wakefd int

	mu       sync.Mutex
	inbox    []func()
	woken    bool
	closed   bool
	finished chan struct{}

	// busy tells whether the loop has to keep an eye on its own punctuality.
	busy func() bool
	// lag is the time, in nanoseconds, by which this loop was late so far, all taken together, up to its last round;
	// due is when it has to be back from what it does now.
	punctuality sync.Mutex
	lag, due    int64

	// What follows belongs to the loop's goroutine.
	slots   []slot
	free    []int32
	timers  []source
	now     int64
	scratch []byte
	oob     []byte
	// identities are those of answers, each kept once.
	identities map[string]probes.Identity
	// freed counts the sockets closed in this round; release hears it at its end.
	freed   int
	release func(int)
}

// epoch is the zero of the loops' clock, which is monotonic.
var epoch = time.Now()

func nanotime() int64 { return int64(time.Since(epoch)) }

// wakeSlot stands in the user data of the eventfd's events, where those of sources have their place.
const wakeSlot = -1

func isWake(e unix.EpollEvent) bool { return e.Fd == wakeSlot }

func newLoop(busy func() bool) (*loop, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make epoll instance: %w", err)
	}
	wakefd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(epfd)
		return nil, fmt.Errorf("make eventfd: %w", err)
	}
	l := &loop{
		epfd: epfd, wakefd: wakefd, busy: busy, due: nanotime() + int64(tick), finished: make(chan struct{}),
		scratch: make([]byte, 64<<10), oob: make([]byte, 512),
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: wakeSlot}
	if err := unix.EpollCtl(epfd, unix.EPOLL_CTL_ADD, wakefd, &event); err != nil {
		_ = unix.Close(epfd)
		_ = unix.Close(wakefd)
		return nil, fmt.Errorf("watch eventfd: %w", err)
	}
	return l, nil
}

// do has fn called by the loop's goroutine, soon; false means that the loop has ended and fn will not be called.
func (l *loop) do(fn func()) bool {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return false
	}
	l.inbox = append(l.inbox, fn)
	wake := !l.woken
	l.woken = true
	l.mu.Unlock()
	if wake {
		l.wake()
	}
	return true
}

// call is do, and waits until fn has returned.
func (l *loop) call(fn func()) bool {
	done := make(chan struct{})
	if !l.do(func() { fn(); close(done) }) {
		return false
	}
	<-done
	return true
}

func (l *loop) wake() {
	// It cannot fail: an eventfd only ever refuses a write that would overflow its counter, and then it is readable.
	_, _ = unix.Write(l.wakefd, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

// stop ends the loop; sources that are still watched are abandoned. It returns when that is done.
func (l *loop) stop() {
	l.mu.Lock()
	already := l.closed
	l.closed = true
	l.mu.Unlock()
	if !already {
		l.wake()
	}
	<-l.finished
}

func (l *loop) run() {
	defer close(l.finished)
	events := make([]unix.EpollEvent, 512)
	var work []func()
	l.now = l.leave(0)
	for {
		wait := l.timeToSleep()
		// Handling a round is time in which nobody listened: it counts like waking up late.
		l.leave(wait)
		n, err := unix.EpollWait(l.epfd, events, int(wait))
		if err != nil && err != unix.EINTR {
			panic(fmt.Sprintf("wait for events: %v", err)) // the epoll instance is ours: a bug
		}
		l.now = l.leave(0)

		// Before the inbox is taken: a call that comes after that wakes the loop again, and this must not eat it.
		if slices.ContainsFunc(events[:max(n, 0)], isWake) {
			var count [8]byte
			_, _ = unix.Read(l.wakefd, count[:])
		}
		l.mu.Lock()
		work, l.inbox = l.inbox, work[:0]
		l.woken = false
		closed := l.closed
		l.mu.Unlock()

		for _, e := range events[:max(n, 0)] {
			if isWake(e) {
				continue
			}
			if s := l.slots[e.Fd]; s.source != nil && s.generation == e.Pad {
				s.source.ready(l, e.Events)
			}
		}
		for i, fn := range work {
			fn()
			work[i] = nil
		}
		// No timer may run out while events wait to be handled: an answer that is there counts.
		if n < len(events) {
			l.expire()
		}
		l.settle()
		if closed {
			l.abandonAll()
			return
		}
	}
}

// settle ends a round.
func (l *loop) settle() {
	if l.freed > 0 && l.release != nil {
		l.release(l.freed)
		l.freed = 0
	}
}

// maxIdentities bounds the table of identities, which whoever answers can fill.
const maxIdentities = 4096

// identity returns who gave an answer.
func (l *loop) identity(a message.Answer) probes.Identity {
	if id, ok := l.identities[string(a.Identified)]; ok {
		return id
	}
	if len(l.identities) >= maxIdentities || l.identities == nil {
		l.identities = map[string]probes.Identity{}
	}
	id := a.Identity()
	l.identities[string(a.Identified)] = id
	return id
}

// leave notes that the loop turns to something that may take this many milliseconds, and by how much it is late with
// what it did until now. It returns the time. A negative number means any time at all.
func (l *loop) leave(may int64) int64 {
	l.punctuality.Lock()
	defer l.punctuality.Unlock()
	now := nanotime()
	l.lag += max(0, now-l.due)
	l.due = now + may*int64(time.Millisecond) + int64(tick)
	if may < 0 {
		l.due = math.MaxInt64
	}
	return now
}

// lateness is how late the loop was so far, including what it is late with now.
func (l *loop) lateness() int64 {
	l.punctuality.Lock()
	defer l.punctuality.Unlock()
	return l.lag + max(0, nanotime()-l.due)
}

// timeToSleep returns the time until the next timer in milliseconds, rounded up; -1 means for ever.
func (l *loop) timeToSleep() int64 {
	wait := int64(-1)
	if len(l.timers) > 0 {
		left := l.timers[0].watched().at - nanotime()
		wait = max(0, (left+int64(time.Millisecond)-1)/int64(time.Millisecond))
	}
	if limit := tick.Milliseconds(); (wait < 0 || wait > limit) && l.busy() {
		wait = limit
	}
	return wait
}

func (l *loop) abandonAll() {
	for i := range l.slots {
		if s := l.slots[i].source; s != nil {
			s.abandon(l)
		}
	}
	l.settle()
	_ = unix.Close(l.epfd)
	_ = unix.Close(l.wakefd)
}

// add starts to watch a source; its watch says which file descriptor.
func (l *loop) add(s source, events uint32) error {
	w := s.watched()
	if n := len(l.free); n > 0 {
		w.slot = l.free[n-1]
		l.free = l.free[:n-1]
	} else {
		w.slot = int32(len(l.slots))
		l.slots = append(l.slots, slot{})
	}
	w.heap = -1
	place := &l.slots[w.slot]
	place.source = s
	event := unix.EpollEvent{Events: events, Fd: w.slot, Pad: place.generation}
	if err := unix.EpollCtl(l.epfd, unix.EPOLL_CTL_ADD, w.fd, &event); err != nil {
		l.vacate(w)
		return fmt.Errorf("watch socket: %w", err)
	}
	return nil
}

// listen changes what is watched for.
func (l *loop) listen(s source, events uint32) {
	w := s.watched()
	event := unix.EpollEvent{Events: events, Fd: w.slot, Pad: l.slots[w.slot].generation}
	_ = unix.EpollCtl(l.epfd, unix.EPOLL_CTL_MOD, w.fd, &event) // only fails on a descriptor that is not watched
}

// remove stops watching a source and closes its file descriptor.
func (l *loop) remove(s source) {
	w := s.watched()
	l.cancelTimer(s)
	l.vacate(w)
	_ = unix.Close(w.fd) // the epoll instance forgets it too: descriptors are never shared
	w.fd = -1
}

func (l *loop) vacate(w *watch) {
	l.slots[w.slot].source = nil
	l.slots[w.slot].generation++
	l.free = append(l.free, w.slot)
}

// setTimer has expired called at a time of the loop's clock. A source has one timer; setting it again moves it.
func (l *loop) setTimer(s source, at int64) {
	w := s.watched()
	w.at = at
	if w.heap < 0 {
		w.heap = len(l.timers)
		l.timers = append(l.timers, s)
	}
	l.siftDown(l.siftUp(w.heap))
}

func (l *loop) cancelTimer(s source) {
	w := s.watched()
	i := w.heap
	if i < 0 {
		return
	}
	w.heap = -1
	last := len(l.timers) - 1
	moved := l.timers[last]
	l.timers[last] = nil
	l.timers = l.timers[:last]
	if i < last {
		l.timers[i] = moved
		moved.watched().heap = i
		l.siftDown(l.siftUp(i))
	}
}

// expire calls those whose time has come.
func (l *loop) expire() {
	for len(l.timers) > 0 {
		s := l.timers[0]
		if s.watched().at > l.now {
			return
		}
		l.cancelTimer(s)
		s.expired(l)
	}
}

func (l *loop) siftUp(i int) int {
	s := l.timers[i]
	at := s.watched().at
	for i > 0 {
		parent := (i - 1) / 2
		p := l.timers[parent]
		if p.watched().at <= at {
			break
		}
		l.timers[i] = p
		p.watched().heap = i
		i = parent
	}
	l.timers[i] = s
	s.watched().heap = i
	return i
}

func (l *loop) siftDown(i int) {
	s := l.timers[i]
	at := s.watched().at
	for {
		child := 2*i + 1
		if child >= len(l.timers) {
			break
		}
		if right := child + 1; right < len(l.timers) && l.timers[right].watched().at < l.timers[child].watched().at {
			child = right
		}
		c := l.timers[child]
		if c.watched().at >= at {
			break
		}
		l.timers[i] = c
		c.watched().heap = i
		i = child
	}
	l.timers[i] = s
	s.watched().heap = i
}
