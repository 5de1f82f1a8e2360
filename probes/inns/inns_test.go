//go:build linux

package inns

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// newNamespace makes a network namespace that lasts as long as the test.
func newNamespace(t *testing.T) netns.NsHandle {
	t.Helper()
	ns, err := New()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, ns.Close()) })
	return ns
}

func current(t *testing.T) string {
	t.Helper()
	ns, err := netns.Get()
	require.NoError(t, err)
	defer ns.Close()
	return ns.UniqueId()
}

func TestFunctionRunsInsideAndTheThreadComesBack(t *testing.T) {
	ns := newNamespace(t)
	home := current(t)
	var inside string
	var tid int
	require.NoError(t, Do(ns, func() error {
		inside, tid = current(t), unix.Gettid()
		return nil
	}))
	assert.Equal(t, ns.UniqueId(), inside)
	assert.NotZero(t, tid)
	assert.Equal(t, home, current(t))
	assertNoThreadIn(t, ns)
}

func TestManyVisitsAtOnceLeaveNoThreadInTheNamespace(t *testing.T) {
	ns := newNamespace(t)
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for range 20 {
				assert.NoError(t, Do(ns, func() error { return nil }))
			}
		})
	}
	wg.Wait()
	assertNoThreadIn(t, ns)
}

func TestASocketBelongsToTheNamespaceItWasMadeIn(t *testing.T) {
	ns := newNamespace(t)
	var fd int
	require.NoError(t, Do(ns, func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return err
	}))
	defer func() { _ = unix.Close(fd) }()
	// The new namespace has no route at all, not even to loopback, which is down.
	err := unix.Connect(fd, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}})
	require.ErrorIs(t, err, unix.ENETUNREACH)
}

func TestANewNamespaceIsAnotherOneAndTheCallerStays(t *testing.T) {
	home := current(t)
	a, b := newNamespace(t), newNamespace(t)
	assert.NotEqual(t, home, a.UniqueId())
	assert.NotEqual(t, a.UniqueId(), b.UniqueId())
	assert.Equal(t, home, current(t))
	assertNoThreadIn(t, a)
}

func TestErrorOfTheFunctionIsReturned(t *testing.T) {
	ns := newNamespace(t)
	want := errors.New("inside")
	require.ErrorIs(t, Do(ns, func() error { return want }), want)
}

func TestNoHandleMeansTheNamespaceOfTheProcess(t *testing.T) {
	home := current(t)
	require.NoError(t, Do(netns.None(), func() error {
		assert.Equal(t, home, current(t))
		return nil
	}))
}

func TestPanicReachesTheCallerAndTheThreadComesBack(t *testing.T) {
	ns := newNamespace(t)
	assert.PanicsWithValue(t, "boom", func() { _ = Do(ns, func() error { panic("boom") }) })
	assertNoThreadIn(t, ns)
}

func TestGoexitInsideEndsTheCaller(t *testing.T) {
	ns := newNamespace(t)
	returned := false
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = Do(ns, func() error { runtime.Goexit(); return nil })
		returned = true
	}()
	<-done
	assert.False(t, returned)
	assertNoThreadIn(t, ns)
}

func TestClosedHandleIsAnError(t *testing.T) {
	fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	defer func() { _ = unix.Close(fd) }()
	called := false
	err = Do(netns.NsHandle(fd), func() error { called = true; return nil })
	require.ErrorContains(t, err, "enter network namespace")
	assert.False(t, called)
}

func TestAThreadThatCannotGoBackIsThrownAway(t *testing.T) {
	ns := newNamespace(t)
	calls := 0
	setns = func(fd, kind int) error {
		if calls++; calls == 2 {
			return unix.EPERM
		}
		return unix.Setns(fd, kind)
	}
	t.Cleanup(func() { setns = unix.Setns })
	ran := false
	err := Do(ns, func() error { ran = true; return nil })
	require.ErrorIs(t, err, ErrRestore)
	require.ErrorIs(t, err, unix.EPERM)
	assert.True(t, ran)
	// The first thread of a process cannot end: should it be the one, it stays inside, parked for ever.
	require.Eventually(t, func() bool {
		left := threadsIn(t, ns)
		return len(left) == 0 || len(left) == 1 && left[0] == os.Getpid()
	}, patience, lookEvery)
}

// assertNoThreadIn requires that no thread of this process is left in ns. A thread that is thrown away (also the one
// that made the namespace) ends a moment after its goroutine; one that was wrongly kept stays.
func assertNoThreadIn(t *testing.T, ns netns.NsHandle) {
	t.Helper()
	require.Eventually(t, func() bool { return len(threadsIn(t, ns)) == 0 }, patience, lookEvery)
}
