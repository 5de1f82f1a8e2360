package lease

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// fakeLeases stands in for an API server's Leases where time is not real: versions, conflicts and preconditions are as
// there. That a real one behaves so is what TestARealAPIServer shows.
type fakeLeases struct {
	*fake.Clientset

	mu      sync.Mutex
	lease   *coordinationv1.Lease
	version int
	// before is called before each call, and its error is the answer.
	before func(verb string) error
	// after is called after each call that did something, and its error takes the place of the answer.
	after func(verb string) error
	// namespace tells whether it is there.
	namespace bool
}

func newFakeLeases() *fakeLeases {
	f := &fakeLeases{Clientset: fake.NewClientset(), namespace: true}
	f.PrependReactor("*", "leases", func(action clienttesting.Action) (bool, runtime.Object, error) {
		got, err := f.answer(action)
		return true, got, err
	})
	f.PrependReactor("create", "namespaces", func(clienttesting.Action) (bool, runtime.Object, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.namespace = true
		return false, nil, nil
	})
	return f
}

func (f *fakeLeases) answer(action clienttesting.Action) (*coordinationv1.Lease, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.before != nil {
		if err := f.before(action.GetVerb()); err != nil {
			return nil, err
		}
	}
	got, err := f.do(action)
	if err == nil && f.after != nil {
		err = f.after(action.GetVerb())
	}
	return got, err
}

func (f *fakeLeases) do(action clienttesting.Action) (*coordinationv1.Lease, error) {
	resource := coordinationv1.Resource("leases")
	switch action.GetVerb() {
	case "create":
		if !f.namespace {
			return nil, apierrors.NewNotFound(corev1.Resource("namespaces"), Namespace)
		}
		if f.lease != nil {
			return nil, apierrors.NewAlreadyExists(resource, f.lease.Name)
		}
		return f.store(action.(clienttesting.CreateAction).GetObject().(*coordinationv1.Lease), "")
	case "update":
		wanted := action.(clienttesting.UpdateAction).GetObject().(*coordinationv1.Lease)
		if f.lease == nil {
			return nil, apierrors.NewNotFound(resource, wanted.Name)
		}
		if wanted.ResourceVersion != f.lease.ResourceVersion || wanted.UID != f.lease.UID {
			return nil, apierrors.NewConflict(resource, wanted.Name, errors.New("it was changed"))
		}
		return f.store(wanted, f.lease.UID)
	case "delete":
		a := action.(clienttesting.DeleteAction)
		if f.lease == nil {
			return nil, apierrors.NewNotFound(resource, a.GetName())
		}
		if p := a.GetDeleteOptions().Preconditions; *p.UID != f.lease.UID || *p.ResourceVersion != f.lease.ResourceVersion {
			return nil, apierrors.NewConflict(resource, a.GetName(), errors.New("it was changed"))
		}
		f.lease = nil
		return nil, nil
	case "get":
		if f.lease == nil {
			return nil, apierrors.NewNotFound(resource, action.(clienttesting.GetAction).GetName())
		}
		return f.lease.DeepCopy(), nil
	}
	return nil, errors.New("the fake does not know " + action.GetVerb())
}

func (f *fakeLeases) store(l *coordinationv1.Lease, uid types.UID) (*coordinationv1.Lease, error) {
	f.version++
	f.lease = l.DeepCopy()
	f.lease.ResourceVersion = strconv.Itoa(f.version)
	if f.lease.UID = uid; uid == "" {
		f.lease.UID = types.UID("uid-" + f.lease.ResourceVersion)
	}
	return f.lease.DeepCopy(), nil
}

// set changes how calls are answered.
func (f *fakeLeases) set(before, after func(verb string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before, f.after = before, after
}

// change changes the Lease as somebody else would.
func (f *fakeLeases) change(how func(*coordinationv1.Lease)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	how(f.lease)
	f.version++
	f.lease.ResourceVersion = strconv.Itoa(f.version)
}

func (f *fakeLeases) remove() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lease = nil
}

// now is the Lease as it is, nil for none.
func (f *fakeLeases) now() *coordinationv1.Lease {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lease.DeepCopy()
}

// elsewhere makes the holder one of another machine, known by its Lease only.
func elsewhere(l *coordinationv1.Lease) {
	l.Annotations[processAnnotation] = `{"boot":"another","namespace":"pid:[1]","pid":1,"started":"1"}`
}

// vanish ends a holder as SIGKILL would: it gives no more signs of life, and does not give the Lease back.
func vanish(l *Lease) {
	l.stop()
	<-l.ended
}

// inBubble runs a test with a clock of its own and a fake of the API server's Leases.
func inBubble(t *testing.T, test func(t *testing.T, f *fakeLeases)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newFakeLeases()) })
}

func take(t *testing.T, f *fakeLeases, runID string) (*Lease, error) {
	t.Helper()
	return Acquire(t.Context(), f, Options{RunID: runID})
}

func mustTake(t *testing.T, f *fakeLeases, runID string) *Lease {
	t.Helper()
	l, err := take(t, f, runID)
	require.NoError(t, err)
	return l
}

func TestALeaseIsHeldUntilItIsGivenBack(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeLeases) {
		f.namespace = false // it is made
		began := time.Now()
		l := mustTake(t, f, "one")
		assert.Zero(t, time.Since(began), "a cluster that nobody has is taken at once")
		assert.Equal(t, "netproof", f.now().Name)
		assert.Equal(t, "one", f.now().Labels["netproof.dev/run"])
		assert.True(t, strings.HasPrefix(*f.now().Spec.HolderIdentity, "one@"), *f.now().Spec.HolderIdentity)

		<-time.After(time.Hour)
		require.NoError(t, l.Err())
		assert.Less(t, time.Since(f.now().Spec.RenewTime.Time), 2*usual.RenewEvery)

		require.NoError(t, l.Release(t.Context()))
		assert.Nil(t, f.now(), "nothing of it is left")
		require.NoError(t, l.Release(t.Context()), "it can be given back twice")
		next := mustTake(t, f, "two")
		assert.Empty(t, next.Previous())
		require.NoError(t, next.Release(t.Context()))
	})
}

func TestALivingHolderKeepsOthersAway(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeLeases) {
		l := mustTake(t, f, "one")
		<-time.After(4 * time.Minute)
		began := time.Now()
		_, err := take(t, f, "two")
		require.ErrorIs(t, err, ErrBusy)
		var busy *BusyError
		require.ErrorAs(t, err, &busy)
		assert.Equal(t, "one", busy.RunID)
		assert.Equal(t, "netproof", busy.Lease)
		assert.InDelta(t, 4*time.Minute, busy.For, float64(10*time.Second))
		assert.ErrorContains(t, err, "--namespace-prefix")
		assert.LessOrEqual(t, time.Since(began), 2*usual.RenewEvery, "the next sign of life tells")
		require.NoError(t, l.Err())
		require.NoError(t, l.Release(t.Context()))
	})
}

func TestADeadHoldersLeaseIsTakenOver(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*coordinationv1.Lease)
		after  time.Duration
	}{
		{"on another machine, after the whole of its duration", elsewhere, usual.Duration},
		{"whose process on this machine has ended, sooner", func(l *coordinationv1.Lease) {
			me := self()
			me.Started = "1"
			l.Annotations[processAnnotation] = me.String()
		}, usual.EndedDuration},
		{"that asks for more time, after that", func(l *coordinationv1.Lease) {
			elsewhere(l)
			*l.Spec.LeaseDurationSeconds = 90
		}, 90 * time.Second},
		{"that nobody holds any more, at once", func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = nil }, -2 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, f *fakeLeases) {
				vanish(mustTake(t, f, "one"))
				f.change(tc.change)
				began := time.Now()
				l := mustTake(t, f, "two")
				assert.InDelta(t, tc.after+2*time.Second, time.Since(began), float64(2*time.Second))
				if tc.after > 0 {
					assert.Equal(t, []string{"one"}, l.Previous())
				}
				assert.Equal(t, int32(1), *f.now().Spec.LeaseTransitions)
				assert.Equal(t, "two", f.now().Labels["netproof.dev/run"])
				require.NoError(t, l.Release(t.Context()))
			})
		})
	}
}

func TestTheClocksOfMachinesNeedNotAgree(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeLeases) {
		l := mustTake(t, f, "one")
		stop := make(chan struct{})
		go func() { // it lives, and its clock is a day late
			tick := time.NewTicker(time.Second)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
					f.mu.Lock()
					if f.lease != nil {
						f.lease.Spec.RenewTime.Time = time.Now().Add(-24 * time.Hour)
					}
					f.mu.Unlock()
				case <-stop:
					return
				}
			}
		}()
		_, err := take(t, f, "two")
		require.ErrorIs(t, err, ErrBusy)
		close(stop)
		require.NoError(t, l.Release(t.Context()))
	})
}

func TestOfTwoThatWaitForADeadHolderOneGetsItsLease(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeLeases) {
		vanish(mustTake(t, f, "one"))
		f.change(elsewhere)
		leases, errs := make([]*Lease, 2), make([]error, 2)
		var waiting sync.WaitGroup
		for i, id := range []string{"two", "three"} {
			waiting.Go(func() { leases[i], errs[i] = take(t, f, id) })
		}
		waiting.Wait()
		if errs[0] != nil {
			leases[0], errs[1], leases[1], errs[0] = leases[1], errs[0], leases[0], errs[1]
		}
		require.NoError(t, errs[0])
		require.ErrorIs(t, errs[1], ErrBusy)
		require.NoError(t, leases[0].Err())
		require.NoError(t, leases[0].Release(t.Context()))
	})
}

func TestAHolderThatEndsInOrderIsWaitedFor(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeLeases) {
		l := mustTake(t, f, "one")
		time.AfterFunc(2500*time.Millisecond, func() { assert.NoError(t, l.Release(context.Background())) })
		next := mustTake(t, f, "two")
		assert.Empty(t, next.Previous())
		require.NoError(t, next.Release(t.Context()))
	})
}

func TestALostLeaseStaysLostAndSaysWhy(t *testing.T) {
	unreachable := errors.New("connection refused")
	for _, tc := range []struct {
		name  string
		lose  func(f *fakeLeases)
		after time.Duration
		want  string
	}{
		{"another run has it", func(f *fakeLeases) {
			f.change(func(l *coordinationv1.Lease) { id := "two@elsewhere"; l.Spec.HolderIdentity = &id })
		}, usual.RenewEvery, "run two on host elsewhere has it now"},
		{"it was deleted", func(f *fakeLeases) { f.remove() }, usual.RenewEvery, "somebody deleted it"},
		{"it was deleted and made anew", func(f *fakeLeases) {
			f.change(func(l *coordinationv1.Lease) { l.UID = "another" })
		}, usual.RenewEvery, "has it now"},
		{"the API server cannot be reached", func(f *fakeLeases) {
			f.set(func(string) error { return unreachable }, nil)
		}, usual.RenewWithin, "it could not be renewed for"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, f *fakeLeases) {
				l := mustTake(t, f, "one")
				<-time.After(time.Minute + time.Second)
				tc.lose(f)
				<-time.After(tc.after - usual.RenewEvery)
				require.NoError(t, l.Err())
				<-time.After(2 * usual.RenewEvery)
				require.ErrorIs(t, l.Err(), ErrLost)
				require.ErrorContains(t, l.Err(), tc.want)

				f.set(nil, nil)
				<-time.After(time.Hour)
				require.ErrorIs(t, l.Err(), ErrLost)
				before := f.now()
				require.NoError(t, l.Release(t.Context()))
				assert.Equal(t, before, f.now(), "what is somebody else's is left alone")
			})
		})
	}
}

func TestALeaseOutlivesAnAPIServerThatIsStartedAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeLeases) {
		l := mustTake(t, f, "one")
		f.set(func(string) error { return errors.New("connection refused") }, nil)
		<-time.After(40 * time.Second)
		f.set(nil, nil)
		<-time.After(time.Minute)
		require.NoError(t, l.Err())
		require.NoError(t, l.Release(t.Context()))
	})
}

func TestAnAnswerThatDidNotComeLosesNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeLeases) {
		l := mustTake(t, f, "one")
		lost := 0
		f.set(nil, func(verb string) error {
			if verb == "update" && lost < 3 {
				lost++
				return errors.New("connection reset")
			}
			return nil
		})
		<-time.After(time.Minute)
		assert.Equal(t, 3, lost)
		require.NoError(t, l.Err())
		// What others write on the Lease without taking it is no loss either.
		f.change(func(l *coordinationv1.Lease) { l.Annotations["note"] = "seen" })
		<-time.After(time.Minute)
		require.NoError(t, l.Err())
		require.NoError(t, l.Release(t.Context()))
		assert.Nil(t, f.now())
	})
}

func TestALeaseThatCannotBeGivenBackIsNoSuccess(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeLeases) {
		l := mustTake(t, f, "one")
		f.set(func(verb string) error {
			if verb == "delete" {
				return apierrors.NewConflict(coordinationv1.Resource("leases"), "netproof", errors.New("it was changed"))
			}
			return nil
		}, nil)
		require.ErrorContains(t, l.Release(t.Context()), "give Lease netproof-system/netproof back")
		f.set(nil, nil)
		require.NoError(t, l.Release(t.Context()), "it can be tried again")
		assert.Nil(t, f.now())
	})
}

func TestALeaseThatMayNotBeTakenSaysHowToGetTheRight(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeLeases) {
		f.set(func(verb string) error {
			return apierrors.NewForbidden(coordinationv1.Resource("leases"), "netproof", errors.New("no right to "+verb))
		}, nil)
		_, err := take(t, f, "one")
		require.ErrorContains(t, err, "netproof rbac")
		require.ErrorContains(t, err, "netproof-system/netproof")
	})
}

func TestTakingALeaseEndsWithItsContextAndDoesNotLastForEver(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeLeases) {
		vanish(mustTake(t, f, "one"))
		f.change(elsewhere)
		why := errors.New("interrupted")
		ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Second, why)
		defer cancel()
		_, err := Acquire(ctx, f, Options{RunID: "two"})
		require.ErrorIs(t, err, why)

		f.remove()
		f.set(func(string) error { return apierrors.NewNotFound(coordinationv1.Resource("leases"), "") }, nil) // a server without the kind
		began := time.Now()
		_, err = take(t, f, "three")
		require.ErrorIs(t, err, errTooLong)
		assert.LessOrEqual(t, time.Since(began), 5*usual.Duration)
	})
}

func TestEachPrefixHasALeaseOfItsOwn(t *testing.T) {
	for prefix, want := range map[string]string{"": "netproof", "shard-0-": "netproof-shard-0", "team": "netproof-team", "--": "netproof"} {
		assert.Equal(t, want, NameFor(prefix), prefix)
	}
}
