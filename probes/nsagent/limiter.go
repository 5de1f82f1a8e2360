//go:build linux

package nsagent

import (
	"slices"
	"sync"
)

// grantSize is the number of sockets that a batch gets at once: enough that entering the namespace costs little per
// socket, few enough that batches take turns.
const grantSize = 64

// limiter bounds the number of sockets open at the same time, and shares them out fairly: agents take turns, then the
// batches of an agent.
type limiter struct {
	mu sync.Mutex
	// size is the bound, free what is left of it.
	size, free int
	// turns are the agents that wait, the next one first.
	turns []*turn
}

// turn is one agent's line of waiting batches.
type turn struct {
	key   any
	queue []*waiter
}

type waiter struct {
	want    int
	granted chan int
}

func newLimiter(size int) *limiter { return &limiter{size: size, free: size} }

// portion is how much a batch that wants n gets, once that much is free: never a dribble of single sockets.
func (l *limiter) portion(n int) int { return min(n, grantSize, l.size) }

// request asks for n sockets on behalf of key. The channel yields, once, how many were granted: at least one.
func (l *limiter) request(key any, n int) *waiter {
	w := &waiter{want: n, granted: make(chan int, 1)}
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.IndexFunc(l.turns, func(t *turn) bool { return t.key == key })
	if i < 0 {
		i = len(l.turns)
		l.turns = append(l.turns, &turn{key: key})
	}
	l.turns[i].queue = append(l.turns[i].queue, w)
	l.share()
	return w
}

// share hands out what is free. It must be called with the lock held.
func (l *limiter) share() {
	for len(l.turns) > 0 {
		t := l.turns[0]
		w := t.queue[0]
		n := l.portion(w.want)
		if l.free < n {
			return
		}
		l.free -= n
		w.granted <- n
		t.queue = t.queue[1:]
		l.turns = l.turns[1:]
		if len(t.queue) > 0 {
			l.turns = append(l.turns, t)
		}
	}
}

// release gives n sockets back.
func (l *limiter) release(n int) {
	if n == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.free += n
	l.share()
}

// cancel withdraws a request; what it was granted in the meantime goes back.
func (l *limiter) cancel(w *waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, t := range l.turns {
		j := slices.Index(t.queue, w)
		if j < 0 {
			continue
		}
		t.queue = slices.Delete(t.queue, j, j+1)
		if len(t.queue) == 0 {
			l.turns = slices.Delete(l.turns, i, i+1)
		}
		l.share()
		return
	}
	select {
	case n := <-w.granted:
		l.free += n
		l.share()
	default:
	}
}
