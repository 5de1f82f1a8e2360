package sweep

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/lease"
)

// Options say what is to be removed.
type Options struct {
	// RunID is the run whose remains are removed; empty for all runs.
	RunID string
	// OlderThan leaves runs alone that have made something within this time.
	OlderThan time.Duration
	// Namespaces are the only ones that are looked at, beside [lease.Namespace]; empty for all of the cluster. They are
	// those that were lent to runs, and the account may have rights in no others.
	Namespaces []string
	// NamespacePrefix of the runs, with Namespaces.
	NamespacePrefix string
	// DryRun only tells what would be removed.
	DryRun bool
	// Progress gets in plain words what goes on; it may be nil.
	Progress func(string)
	// Timing of Leases; nil for the usual one.
	Timing *lease.Timing
}

// Object is one that a run made.
type Object struct {
	// Resource as the API calls it, such as pods or ciliumnetworkpolicies.cilium.io.
	Resource string
	// Namespace is empty for objects of the cluster's scope.
	Namespace, Name string
	// Run that made it.
	Run string
}

func (o Object) String() string {
	return o.Resource + " " + strings.TrimPrefix(o.Namespace+"/"+o.Name, "/")
}

// Stay is something that was not removed, or not looked at, and why.
type Stay struct{ What, Why string }

func (s Stay) String() string { return "left alone: " + s.What + ": " + s.Why }

// Removed is what came of a clean-up.
type Removed struct {
	// Objects that are gone; with DryRun, those that would be removed.
	Objects []Object
	// Restored are the built-in namespaces whose labels are as they were before a run; with DryRun, those that would
	// be.
	Restored []string
	// Stays is what was left alone, and what could not be looked at.
	Stays []Stay
}

const (
	// removeTime bounds the wait for the end of objects where the caller sets no bound. A namespace goes only after
	// what is in it.
	removeTime = 3 * time.Minute
	removePoll = 500 * time.Millisecond
	// explainTime bounds the question why an object does not go.
	explainTime = 10 * time.Second
)

// errSlow is why a wait for the end of objects was given up.
var errSlow = fmt.Errorf("not done within %s", removeTime)

// Cleanup removes what runs left on a cluster that could not do it themselves, and returns when it is gone: policies,
// pods, services, namespaces with all that is in them, and Leases. Runs whose Lease is alive are left alone; to tell
// takes up to a minute. Runs on clusters that netproof made itself, such as kind's, may have no Lease: for those,
// OlderThan is what keeps the living apart.
//
// It can be called again at any time. The error names each object that could not be removed; what was removed is
// returned all the same. The namespace [lease.Namespace] stays, and so do labels of built-in namespaces that no
// [cluster.RestoreAnnotation] tells of.
func Cleanup(ctx context.Context, cfg *rest.Config, opts Options) (Removed, error) {
	if opts.Progress == nil {
		opts.Progress = func(string) {}
	}
	c, err := newCleaner(cfg, cluster.LentTo(opts.Namespaces, opts.NamespacePrefix), opts.Progress)
	if err != nil {
		return Removed{}, err
	}
	return c.cleanUp(ctx, opts)
}

func (c *cleaner) cleanUp(ctx context.Context, opts Options) (Removed, error) {
	// Objects are listed before Leases: a run takes its Lease before it makes anything, so one that is not seen to hold
	// a Lease now was not alive when its objects were seen.
	found, err := c.find(ctx)
	if err != nil {
		return c.removed, err
	}
	chosen := c.choose(found, opts, time.Now())
	if chosen, err = c.withoutLiving(ctx, chosen, opts.Timing); err != nil {
		return c.removed, err
	}
	if opts.DryRun {
		for _, f := range found {
			if slices.Contains(chosen, f.Run) {
				c.removed.Objects = append(c.removed.Objects, f.Object)
			}
		}
		c.removed.Restored = c.changedBy(chosen)
		return c.removed, nil
	}
	err = c.remove(ctx, chosen)
	return c.removed, err
}

// cleaner removes what runs made.
type cleaner struct {
	client   kubernetes.Interface
	objects  metadata.Interface
	progress func(string)
	// namespaces are the only ones that are looked at; empty for all of the cluster.
	namespaces []string
	// kinds are those with objects of runs, in the order in which they are removed.
	kinds []schema.GroupVersionResource
	// changed are the built-in namespaces that runs have left with other labels.
	changed map[string]cluster.Restore
	removed Removed
}

func newCleaner(cfg *rest.Config, namespaces []string, progress func(string)) (*cleaner, error) {
	client, err := cluster.Connect(cfg)
	if err != nil {
		return nil, err
	}
	objects, err := cluster.ConnectMetadata(cfg)
	if err != nil {
		return nil, err
	}
	return cleanerFor(client, objects, namespaces, progress), nil
}

func cleanerFor(client kubernetes.Interface, objects metadata.Interface, namespaces []string, progress func(string)) *cleaner {
	return &cleaner{client: client, objects: objects, namespaces: namespaces, progress: progress, changed: map[string]cluster.Restore{}}
}

// remain is an object that was found.
type remain struct {
	Object
	meta metav1.ObjectMeta
}

// find lists what all runs made, and the built-in namespaces that they changed.
func (c *cleaner) find(ctx context.Context) ([]remain, error) {
	if err := c.findChanged(ctx); err != nil {
		return nil, err
	}
	kinds, err := c.served()
	if err != nil {
		return nil, err
	}
	var found []remain
	for _, kind := range kinds {
		list, err := c.list(ctx, kind)
		if apierrors.IsForbidden(err) {
			what := kind.GroupResource().String()
			if kind.Group != "" { // one word for all kinds of a plugin
				what = "objects of " + kind.Group
			}
			c.stays(what, "they may not be listed, so they were not looked at")
			continue
		}
		if err != nil {
			return nil, err
		}
		if len(list) > 0 {
			c.kinds = append(c.kinds, kind)
			found = append(found, list...)
		}
	}
	return found, nil
}

// The kinds that every cluster has.
var (
	podKind       = corev1.SchemeGroupVersion.WithResource("pods")
	serviceKind   = corev1.SchemeGroupVersion.WithResource("services")
	namespaceKind = corev1.SchemeGroupVersion.WithResource("namespaces")
	leaseKind     = coordinationv1.SchemeGroupVersion.WithResource("leases")
)

// served are the kinds that runs make objects of, in the order in which they are removed: policies first, since they
// are in force, namespaces after what is in them, Leases last, since they keep others away.
func (c *cleaner) served() ([]schema.GroupVersionResource, error) {
	policies, silent, err := cluster.ServedPolicies(c.client.Discovery())
	if err != nil {
		return nil, err
	}
	for gv, err := range silent {
		c.stays(gv.String(), fmt.Sprintf("its API server does not answer (%v), so it was not looked at", err))
	}
	var kinds []schema.GroupVersionResource
	for _, kind := range policies {
		if kind.Namespaced || len(c.namespaces) == 0 {
			kinds = append(kinds, kind.In)
		}
	}
	if len(c.namespaces) > 0 { // a run that was lent namespaces makes none
		return append(kinds, podKind, serviceKind, leaseKind), nil
	}
	return append(kinds, podKind, serviceKind, namespaceKind, leaseKind), nil
}

// list lists the objects of one kind that runs made.
func (c *cleaner) list(ctx context.Context, kind schema.GroupVersionResource) ([]remain, error) {
	where := c.namespaces
	switch {
	case kind == leaseKind:
		where = []string{lease.Namespace}
	case len(where) == 0:
		where = []string{metav1.NamespaceAll}
	}
	var listed []metav1.PartialObjectMetadata
	for _, ns := range where {
		list, err := c.objects.Resource(kind).Namespace(ns).List(ctx, metav1.ListOptions{LabelSelector: cluster.RunsSelector})
		if apierrors.IsNotFound(err) {
			return nil, nil // the kind itself is gone
		}
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", kind.GroupResource(), err)
		}
		listed = append(listed, list.Items...)
	}
	var out []remain
	for i := range listed {
		o := listed[i].ObjectMeta
		object := Object{Resource: kind.GroupResource().String(), Namespace: o.Namespace, Name: o.Name, Run: o.Labels[cluster.RunLabel]}
		if o.Labels[cluster.OwnLabel] != cluster.ManagedBy || object.Run == "" {
			continue // a selector is a request; only what is seen counts
		}
		if kind == namespaceKind && IsBuiltIn(o.Name) {
			c.stays(object.String(), "it is a built-in namespace, and no run can have made it")
			continue
		}
		out = append(out, remain{object, o})
	}
	return out, nil
}

// IsBuiltIn tells whether every cluster has this namespace, or all runs use it.
func IsBuiltIn(namespace string) bool {
	return namespace == metav1.NamespaceDefault || strings.HasPrefix(namespace, "kube-") || namespace == lease.Namespace
}

func (c *cleaner) stays(what, why string) {
	if s := (Stay{what, why}); !slices.Contains(c.removed.Stays, s) {
		c.removed.Stays = append(c.removed.Stays, s)
	}
}

// choose picks the runs that the options mean, sorted.
func (c *cleaner) choose(found []remain, opts Options, now time.Time) []string {
	youngest := map[string]time.Time{}
	for _, f := range found {
		if made := f.meta.CreationTimestamp.Time; opts.RunID == "" || f.Run == opts.RunID {
			if last, seen := youngest[f.Run]; !seen || made.After(last) {
				youngest[f.Run] = made
			}
		}
	}
	for _, before := range c.changed {
		if _, seen := youngest[before.Run]; !seen && (opts.RunID == "" || before.Run == opts.RunID) {
			youngest[before.Run] = time.Time{} // a run that lives has its canaries too
		}
	}
	var runs []string
	for _, run := range slices.Sorted(maps.Keys(youngest)) {
		if age := now.Sub(youngest[run]); age < opts.OlderThan {
			c.stays("run "+run, fmt.Sprintf("it made something %s ago, and only what is older than %s was asked for", age.Round(time.Second), opts.OlderThan))
			continue
		}
		runs = append(runs, run)
	}
	return runs
}

// withoutLiving leaves out the runs whose Lease is alive.
func (c *cleaner) withoutLiving(ctx context.Context, runs []string, timing *lease.Timing) ([]string, error) {
	living, err := lease.Living(ctx, c.client, runs, c.progress, timing)
	for _, l := range living {
		c.stays("run "+l.RunID, fmt.Sprintf("its Lease %s/%s is alive, on host %s", lease.Namespace, l.Lease, l.Host))
	}
	if err != nil {
		return nil, cluster.ExplainForbidden(err)
	}
	return slices.DeleteFunc(runs, func(run string) bool {
		return slices.ContainsFunc(living, func(l lease.Life) bool { return l.RunID == run })
	}), nil
}

// remove removes what the runs made, kind by kind, and returns when it is gone.
func (c *cleaner) remove(ctx context.Context, runs []string) error {
	if len(runs) == 0 {
		return nil
	}
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, removeTime, errSlow)
		defer cancel()
	}
	restored := c.restore(ctx, runs)
	r := &removal{cleaner: c, runs: runs, seen: map[types.UID]Object{}, failed: map[types.UID]error{}}
	poll := time.NewTicker(removePoll)
	defer poll.Stop()
	for {
		left, err := r.round(ctx)
		if err != nil && ctx.Err() == nil || err == nil && len(left) == 0 {
			return errors.Join(restored, err, r.errors())
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return errors.Join(restored, r.errors(), c.explain(left, context.Cause(ctx)))
		}
	}
}

// removal is under way.
type removal struct {
	*cleaner
	runs []string
	// seen are the objects that were there in the last round, failed those that the API server will not delete.
	seen   map[types.UID]Object
	failed map[types.UID]error
}

// round deletes what is there and returns what is not gone yet. Leases wait for everything else.
func (r *removal) round(ctx context.Context) (left []remain, err error) {
	for _, kind := range r.kinds {
		if kind == leaseKind && (len(left) > 0 || len(r.failed) > 0) {
			continue
		}
		list, err := r.list(ctx, kind)
		if err != nil {
			return left, err
		}
		list = slices.DeleteFunc(list, func(o remain) bool { return !slices.Contains(r.runs, o.Run) })
		r.note(kind, list)
		for _, o := range list {
			if r.failed[o.meta.UID] != nil {
				continue
			}
			if o.meta.DeletionTimestamp == nil {
				if err := r.delete(ctx, kind, o); err != nil {
					r.failed[o.meta.UID] = err
					continue
				}
			}
			left = append(left, o)
		}
	}
	return left, nil
}

// note records what has gone since the last round.
func (r *removal) note(kind schema.GroupVersionResource, list []remain) {
	now := map[types.UID]Object{}
	for _, o := range list {
		now[o.meta.UID] = o.Object
		r.seen[o.meta.UID] = o.Object
	}
	for _, uid := range slices.SortedFunc(maps.Keys(r.seen), func(a, b types.UID) int {
		return cmp.Or(strings.Compare(r.seen[a].String(), r.seen[b].String()), strings.Compare(string(a), string(b)))
	}) {
		o := r.seen[uid]
		if _, there := now[uid]; there || o.Resource != kind.GroupResource().String() {
			continue
		}
		delete(r.seen, uid)
		delete(r.failed, uid)
		r.removed.Objects = append(r.removed.Objects, o)
		r.progress("removed " + o.String())
	}
}

// delete asks the API server to delete an object as it was seen.
func (r *removal) delete(ctx context.Context, kind schema.GroupVersionResource, o remain) error {
	opts := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &o.meta.UID}}
	switch kind {
	case podKind:
		opts.GracePeriodSeconds = new(int64)
	case leaseKind:
		opts.Preconditions.ResourceVersion = &o.meta.ResourceVersion // another run may take it over
	}
	err := r.objects.Resource(kind).Namespace(o.Namespace).Delete(ctx, o.Name, opts)
	if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return fmt.Errorf("delete %s of run %s: %w", o.Object, o.Run, cluster.ExplainForbidden(err))
}

func (r *removal) errors() error {
	var errs []error
	for _, uid := range slices.Sorted(maps.Keys(r.failed)) {
		errs = append(errs, r.failed[uid])
	}
	return errors.Join(errs...)
}

// explain says of each object that is still there what holds it.
func (c *cleaner) explain(left []remain, cause error) error {
	// The time of the caller's context is over.
	ctx, cancel := context.WithTimeout(context.Background(), explainTime)
	defer cancel()
	var errs []error
	for _, o := range left {
		why := ""
		if held := cluster.Held(o.Resource, o.Namespace, o.Name, o.meta.Finalizers); held != "" {
			why = ", " + held
		}
		if o.Resource == namespaceKind.Resource {
			why += c.namespaceTrouble(ctx, o.Name)
		}
		errs = append(errs, fmt.Errorf("%s of run %s is still there%s: %w", o.Object, o.Run, why, cause))
	}
	return errors.Join(errs...)
}

// namespaceTrouble quotes what the conditions of a namespace say of why it does not go.
func (c *cleaner) namespaceTrouble(ctx context.Context, name string) string {
	ns, err := c.client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return ""
	}
	if said := cluster.Stuck(ns); len(said) > 0 {
		return " (" + strings.Join(said, "; ") + ")"
	}
	return ""
}

// findChanged reads what runs wrote down about the labels of built-in namespaces.
func (c *cleaner) findChanged(ctx context.Context) error {
	if len(c.namespaces) > 0 {
		return nil // a run that was lent namespaces labels none
	}
	for _, name := range []string{metav1.NamespaceDefault, metav1.NamespaceSystem} {
		ns, err := c.client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("read namespace %s: %w", name, cluster.ExplainForbidden(err))
		}
		before, changed, err := cluster.ReadRestore(ns.Annotations)
		switch {
		case err != nil:
			c.stays("the labels of namespace "+name, err.Error())
		case changed:
			c.changed[name] = before
		}
	}
	return nil
}

// changedBy are the built-in namespaces with labels of one of the runs, sorted.
func (c *cleaner) changedBy(runs []string) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(c.changed)) {
		if slices.Contains(runs, c.changed[name].Run) {
			out = append(out, name)
		}
	}
	return out
}

// restore gives built-in namespaces the labels that they had before one of the runs.
func (c *cleaner) restore(ctx context.Context, runs []string) error {
	var errs []error
	for _, name := range c.changedBy(runs) {
		before := c.changed[name]
		ns, err := c.client.CoreV1().Namespaces().Patch(ctx, name, types.MergePatchType, before.Patch(), metav1.PatchOptions{})
		if err != nil {
			errs = append(errs, fmt.Errorf("restore the labels of namespace %s: %w", name, err))
			continue
		}
		for _, differ := range before.Differences(ns.Labels) {
			c.stays("a label of namespace "+name, differ+" run "+before.Run+", which did not change it")
		}
		c.removed.Restored = append(c.removed.Restored, name)
		c.progress("restored the labels of namespace " + name)
	}
	return errors.Join(errs...)
}
