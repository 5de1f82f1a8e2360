package lease

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"

	"github.com/netproof/netproof/harness/cluster"
)

// Namespace holds the Leases of runs, and by default netproof's service account. It is always this one: runs that
// looked in different places would not see each other. A run makes it where it is missing, and it stays.
const Namespace = "netproof-system"

// The annotations of a Lease.
const (
	processAnnotation = "netproof.dev/process"
	prefixAnnotation  = "netproof.dev/namespace-prefix"
	// remainsAnnotation is on a Lease that nobody holds, and names the runs that left something, with commas
	// between them.
	remainsAnnotation = "netproof.dev/remains"
)

var (
	// ErrBusy is matched when another run has the cluster. The error is a [BusyError].
	ErrBusy = errors.New("another run has the cluster")
	// ErrLost is matched by the health of a cluster that this run must not use any more.
	ErrLost = errors.New("the run has lost its Lease of the cluster")
)

// BusyError names the run that has the cluster.
type BusyError struct {
	// RunID and Host of the other run.
	RunID, Host string
	// For is how long it has had the cluster, by this machine's clock.
	For time.Duration
	// Lease is the name of its Lease, in [Namespace].
	Lease string
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("%v: run %s on host %s, since %s (Lease %s/%s); wait for its end, or run beside it with a --namespace-prefix of your own",
		ErrBusy, e.RunID, e.Host, e.For.Round(time.Second), Namespace, e.Lease)
}

// Is implements the protocol of [errors.Is].
func (e *BusyError) Is(target error) bool { return target == ErrBusy }

// Timing says how a Lease is held. A holder gives up before anybody else may take it, and observes with its own clock
// how long nothing has changed: the clocks of machines need not agree.
type Timing struct {
	// Duration is after how long without a sign of life a holder counts as dead.
	Duration time.Duration
	// RenewEvery is how often a holder gives one, and RenewWithin how long it may fail to.
	RenewEvery, RenewWithin time.Duration
	// EndedDuration stands in for Duration where the holder's process was on this machine and has ended. A machine that
	// was copied as a whole has the same identity as the other, hence a wait at all.
	EndedDuration time.Duration
	// Look is how often somebody who waits looks.
	Look time.Duration
	// Call bounds one call.
	Call time.Duration
}

// usual outlives an API server that is started again, which takes up to some 40 s on a small machine.
var usual = Timing{
	Duration: 60 * time.Second, RenewEvery: 5 * time.Second, RenewWithin: 50 * time.Second,
	EndedDuration: 12 * time.Second, Look: time.Second, Call: 10 * time.Second,
}

// NameFor is the name of the Lease of runs with this namespace prefix.
func NameFor(prefix string) string {
	if prefix = strings.Trim(prefix, "-"); prefix == "" {
		return cluster.ManagedBy
	}
	return cluster.ManagedBy + "-" + prefix
}

// Options say who takes a Lease.
type Options struct {
	RunID string
	// NamespacePrefix of the run. Runs with different ones have different Leases.
	NamespacePrefix string
	// Remains finds those of the runs of which something is left in the cluster; nil where runs leave nothing. It is
	// called when the Lease is given back, with this run and those before it that died: see [Lease.Previous].
	Remains func(ctx context.Context, runs []string) []string
	// Progress gets in plain words what is waited for; it may be nil.
	Progress func(string)
	// Timing of the Lease; nil for the usual one, which outlives an API server that is started again.
	Timing *Timing
}

// Lease is the right to use a cluster, which one run has at a time. It is kept up until Release.
type Lease struct {
	leases coordinationclient.LeaseInterface
	timing Timing
	runID  string
	name   string
	// previous are the runs that had it, and may have left something.
	previous []string
	remains  func(ctx context.Context, runs []string) []string

	stop  context.CancelFunc
	ended chan struct{}

	mu   sync.Mutex
	held *coordinationv1.Lease
	lost error
}

// Acquire takes the Lease of the cluster and keeps it. While somebody else has it the error is a [BusyError]; it
// takes some seconds to tell, and up to a minute to find out that the holder has died, whose Lease is then taken over.
func Acquire(ctx context.Context, client kubernetes.Interface, opts Options) (*Lease, error) {
	if opts.Progress == nil {
		opts.Progress = func(string) {}
	}
	l := &Lease{
		leases: client.CoordinationV1().Leases(Namespace), timing: timingOr(opts.Timing), runID: opts.RunID,
		name: NameFor(opts.NamespacePrefix), remains: opts.Remains, ended: make(chan struct{}),
	}
	if err := l.take(ctx, client, opts); err != nil {
		return nil, fmt.Errorf("take Lease %s/%s: %w", Namespace, l.name, err)
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	l.stop = stop
	go l.keep(background)
	return l, nil
}

func timingOr(t *Timing) Timing {
	if t == nil {
		return usual
	}
	return *t
}

// take returns when this run has the Lease.
func (l *Lease) take(ctx context.Context, client kubernetes.Interface, opts Options) error {
	ctx, cancel := context.WithTimeoutCause(ctx, takeDurations*l.timing.Duration, errTooLong)
	defer cancel()
	watch := vigil{timing: l.timing, first: map[string]sight{}}
	poll := time.NewTicker(l.timing.Look)
	defer poll.Stop()
	for {
		got, err := l.call(ctx, func(ctx context.Context) (*coordinationv1.Lease, error) {
			return l.leases.Get(ctx, l.name, metav1.GetOptions{})
		})
		switch {
		case apierrors.IsNotFound(err):
			err = l.create(ctx, client, opts)
		case err == nil:
			err = l.takeOver(ctx, got, opts, &watch)
		}
		switch {
		case err == nil:
			return nil
		case errors.Is(err, errUndecided), apierrors.IsConflict(err), apierrors.IsAlreadyExists(err), apierrors.IsNotFound(err),
			apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		case apierrors.IsForbidden(err):
			return fmt.Errorf("%w; netproof rbac prints the rights that a run needs", err)
		default:
			return err
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			if cause := context.Cause(ctx); !errors.Is(cause, errTooLong) || errors.Is(err, errUndecided) {
				return cause
			}
			return fmt.Errorf("%w: %w", errTooLong, err)
		}
	}
}

// takeDurations bounds the whole of take: nothing in it takes longer than one duration, unless the Lease changes hands
// in the meantime.
const takeDurations = 4

var errTooLong = errors.New("it cannot be taken")

// errUndecided says that it cannot be told yet whether the holder of a Lease lives.
var errUndecided = errors.New("undecided")

// takeOver takes a Lease that there is, unless its holder lives.
func (l *Lease) takeOver(ctx context.Context, got *coordinationv1.Lease, opts Options, watch *vigil) error {
	id, on := Holder(got)
	var previous []string
	if left := got.Annotations[remainsAnnotation]; left != "" {
		previous = strings.Split(left, ",")
	}
	if id != "" {
		previous = append(previous, id)
		switch watch.look(got, time.Now()) {
		case alive:
			busy := &BusyError{RunID: id, Host: on, Lease: l.name}
			if t := got.Spec.AcquireTime; t != nil {
				busy.For = max(0, time.Since(t.Time))
			}
			return busy
		case unknown:
			if watch.told == "" {
				watch.told = id
				opts.Progress(fmt.Sprintf("run %s on host %s has the cluster: waiting up to %s for a sign of life of it", id, on, watch.patience(got)))
			}
			return errUndecided
		case dead:
			opts.Progress(fmt.Sprintf("run %s on host %s has died: taking its Lease over", id, on))
		}
	}
	wanted := l.object(opts)
	wanted.ResourceVersion, wanted.UID = got.ResourceVersion, got.UID // nobody else may have taken it in between
	transitions := int32(1)
	if got.Spec.LeaseTransitions != nil {
		transitions += *got.Spec.LeaseTransitions
	}
	wanted.Spec.LeaseTransitions = &transitions
	held, err := l.call(ctx, func(ctx context.Context) (*coordinationv1.Lease, error) {
		return l.leases.Update(ctx, wanted, metav1.UpdateOptions{})
	})
	if err == nil {
		l.held, l.previous = held, previous
	}
	return err
}

// create makes the Lease, and its namespace where that is missing.
func (l *Lease) create(ctx context.Context, client kubernetes.Interface, opts Options) error {
	create := func(ctx context.Context) (*coordinationv1.Lease, error) {
		return l.leases.Create(ctx, l.object(opts), metav1.CreateOptions{})
	}
	held, err := l.call(ctx, create)
	if apierrors.IsNotFound(err) {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: Namespace, Labels: NamespaceLabels()}}
		_, err = client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("create namespace %s: %w", Namespace, err)
		}
		held, err = l.call(ctx, create)
	}
	if err == nil {
		l.held = held
	}
	return err
}

// NamespaceLabels are those of [Namespace]. The pods of Jobs that run netproof are the only ones there, and need no
// more than this level.
func NamespaceLabels() map[string]string {
	return map[string]string{cluster.ManagedByLabel: cluster.ManagedBy, "pod-security.kubernetes.io/enforce": "restricted"}
}

// call bounds one call.
func (l *Lease) call(ctx context.Context, f func(context.Context) (*coordinationv1.Lease, error)) (*coordinationv1.Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, l.timing.Call)
	defer cancel()
	return f(ctx)
}

// object is the Lease as this run holds it.
func (l *Lease) object(opts Options) *coordinationv1.Lease {
	now, seconds, none := metav1.NowMicro(), int32(l.timing.Duration/time.Second), int32(0)
	machine, err := os.Hostname()
	if err != nil {
		machine = "unknown"
	}
	id := l.runID + "@" + machine
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{
			Name: l.name, Namespace: Namespace,
			Labels:      cluster.RunLabels(l.runID),
			Annotations: map[string]string{processAnnotation: self().String(), prefixAnnotation: opts.NamespacePrefix},
		},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: &id, LeaseDurationSeconds: &seconds, AcquireTime: &now, RenewTime: &now, LeaseTransitions: &none,
		},
	}
}

// Holder is the run that has a Lease, and its host; "" for one that nobody has.
func Holder(l *coordinationv1.Lease) (runID, machine string) {
	if l.Spec.HolderIdentity == nil {
		return "", ""
	}
	runID, machine, _ = strings.Cut(*l.Spec.HolderIdentity, "@")
	return runID, machine
}

// Name of the Lease, in [Namespace].
func (l *Lease) Name() string { return l.name }

// Previous are the runs that had the Lease before and died, or could not remove what they had made. That may still be
// there.
func (l *Lease) Previous() []string { return l.previous }

// Err tells that the Lease is lost: the error matches [ErrLost] and says why. It stays once it is there.
func (l *Lease) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost
}

func (l *Lease) lose(why string, cause error) {
	err := fmt.Errorf("%w %s/%s: %s", ErrLost, Namespace, l.name, why)
	if cause != nil {
		err = fmt.Errorf("%w: %w", err, cause)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost = err
}

// keep gives signs of life until ctx ends or the Lease is lost.
func (l *Lease) keep(ctx context.Context) {
	defer close(l.ended)
	tick := time.NewTicker(l.timing.RenewEvery)
	defer tick.Stop()
	renewed := time.Now()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		began := time.Now()
		// A call that hangs must not keep this from noticing that the time is up.
		limit, cancel := context.WithTimeout(ctx, min(l.timing.Call, max(time.Millisecond, l.timing.RenewWithin-began.Sub(renewed))))
		err := l.renew(limit)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			renewed = began
		case l.Err() != nil:
			return
		case time.Since(renewed) >= l.timing.RenewWithin:
			l.lose(fmt.Sprintf("it could not be renewed for %s", time.Since(renewed).Round(time.Second)), err)
			return
		}
	}
}

// renew gives one sign of life.
func (l *Lease) renew(ctx context.Context) error {
	next := l.held.DeepCopy()
	now := metav1.NowMicro()
	next.Spec.RenewTime = &now
	got, err := l.leases.Update(ctx, next, metav1.UpdateOptions{})
	if err == nil {
		l.held = got
		return nil
	}
	if !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
		return err
	}
	// Somebody has changed it: perhaps this run, in a call whose answer did not come.
	got, lookErr := l.leases.Get(ctx, l.name, metav1.GetOptions{})
	if apierrors.IsNotFound(lookErr) {
		l.lose("somebody deleted it", nil)
		return err
	}
	if lookErr != nil {
		return lookErr
	}
	if id, machine := Holder(got); id != l.runID || got.UID != l.held.UID {
		l.lose(fmt.Sprintf("run %s on host %s has it now", id, machine), nil)
		return err
	}
	l.held = got
	return err
}

// releaseTime bounds the return of a Lease.
const releaseTime = 15 * time.Second

// Release gives the Lease back, in no more than 15 s. A Lease that is lost is left to whoever has it now. If objects of
// the run or of those before it remain, the Lease is kept without a holder, and names those runs. Release may be called
// twice.
func (l *Lease) Release(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, releaseTime, errors.New("the API server did not answer"))
	defer cancel()
	l.stop()
	select {
	case <-l.ended:
	case <-ctx.Done():
		return fmt.Errorf("give Lease %s/%s back: %w", Namespace, l.name, context.Cause(ctx))
	}
	if l.Err() != nil || l.held == nil {
		return nil
	}
	var left []string
	if l.remains != nil {
		left = l.remains(ctx, append(slices.Clone(l.previous), l.runID))
	}
	var err error
	for range releaseTries {
		if err = l.giveBack(ctx, left); !apierrors.IsConflict(err) {
			break // otherwise the last sign of life arrived only now
		}
	}
	if err != nil {
		return fmt.Errorf("give Lease %s/%s back: %w", Namespace, l.name, err)
	}
	l.held = nil
	return nil
}

// releaseTries bounds how often the Lease may change while it is given back.
const releaseTries = 3

// giveBack deletes the Lease if this run still has it, or names in it the runs that left something.
func (l *Lease) giveBack(ctx context.Context, left []string) error {
	got, err := l.call(ctx, func(ctx context.Context) (*coordinationv1.Lease, error) {
		return l.leases.Get(ctx, l.name, metav1.GetOptions{})
	})
	if err == nil {
		if id, _ := Holder(got); id != l.runID {
			return nil
		}
		if len(left) > 0 {
			got.Spec.HolderIdentity = nil
			metav1.SetMetaDataAnnotation(&got.ObjectMeta, remainsAnnotation, strings.Join(left, ","))
			_, err = l.leases.Update(ctx, got, metav1.UpdateOptions{})
		} else {
			// Not one that has changed since.
			err = l.leases.Delete(ctx, l.name, metav1.DeleteOptions{
				Preconditions: &metav1.Preconditions{UID: &got.UID, ResourceVersion: &got.ResourceVersion},
			})
		}
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// life says what is known of the holder of a Lease.
type life int

const (
	unknown life = iota
	alive
	dead
)

// vigil tells the living from the dead by looking at their Leases again and again.
type vigil struct {
	timing Timing
	// first is how each Lease, by name, was when it was seen first.
	first map[string]sight
	// told is the run whose signs of life are waited for.
	told string
}

type sight struct {
	version string
	at      time.Time
}

// look compares a Lease with how it was before.
func (v *vigil) look(l *coordinationv1.Lease, now time.Time) life {
	version := string(l.UID) + "/" + l.ResourceVersion
	before, seen := v.first[l.Name]
	switch {
	case !seen:
		v.first[l.Name] = sight{version, now}
	case before.version != version:
		return alive
	case now.Sub(before.at) > v.patience(l):
		return dead
	}
	return unknown
}

// patience is for how long a Lease must not change for its holder to count as dead.
func (v *vigil) patience(l *coordinationv1.Lease) time.Duration {
	if readProcess(l.Annotations[processAnnotation]).gone() {
		return v.timing.EndedDuration
	}
	patience := v.timing.Duration
	if s := l.Spec.LeaseDurationSeconds; s != nil {
		patience = max(patience, time.Duration(*s)*time.Second)
	}
	return patience
}
