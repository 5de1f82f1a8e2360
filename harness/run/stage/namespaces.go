package stage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/model"
)

func (s *Stage) createNamespaces(ctx context.Context, list []model.Namespace, pods []model.Pod) error {
	var calls []func() error
	for _, ns := range list {
		calls = append(calls, func() error {
			level := s.cluster.NamespaceLabels(slices.DeleteFunc(slices.Clone(pods), func(p model.Pod) bool { return p.Namespace != ns.Name }))
			if err := notPodSecurity(ns.Name, ns.Labels, nil); err != nil {
				return err
			}
			if s.made[ns.Name] != "" {
				return s.wakeNamespace(ctx, ns, level)
			}
			if len(s.lent) > 0 {
				return s.borrowNamespace(ctx, ns)
			}
			labels := s.ownLabels(ns.Labels)
			maps.Copy(labels, level)
			delete(labels, corev1.LabelMetadataName) // the API server sets it
			obj := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.names.real(ns.Name), Labels: labels}}
			got, err := s.client.CoreV1().Namespaces().Create(ctx, obj, metav1.CreateOptions{})
			if apierrors.IsAlreadyExists(err) && isBuiltIn(ns.Name) {
				// Pods may be put beside what the cluster brings; the namespace itself stays as it is.
				got, err = s.client.CoreV1().Namespaces().Get(ctx, ns.Name, metav1.GetOptions{})
				if err != nil {
					return fmt.Errorf("read namespace %s: %w", ns.Name, err)
				}
				if got, err = s.asBeforeTheCrash(ctx, got); err != nil {
					return err
				}
				s.keepNamespace(got, false)
				return s.LabelNamespace(ctx, ns.Name, ns.Labels)
			}
			if apierrors.IsAlreadyExists(err) {
				return fmt.Errorf("namespace %s is there already, and is not this run's: choose another name or a --namespace-prefix, or have it lent (--namespaces)", obj.Name)
			}
			if err != nil {
				return fmt.Errorf("create namespace %s: %w", obj.Name, err)
			}
			s.keepNamespace(got, true)
			return nil
		})
	}
	return sideBySide(APIConcurrency, calls...)
}

// borrowNamespace takes a namespace that was lent, with the labels that it has.
func (s *Stage) borrowNamespace(ctx context.Context, ns model.Namespace) error {
	got, err := s.client.CoreV1().Namespaces().Get(ctx, s.names.real(ns.Name), metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read namespace %s: %w", ns.Name, err)
	}
	if why := s.notLent(got, ns); why != "" {
		return errors.New(why)
	}
	s.keepNamespace(got, false)
	return nil
}

// notLent says why a namespace of the cluster cannot be a scenario's, or "". The run may not change it, so it must have
// the labels.
func (s *Stage) notLent(have *corev1.Namespace, want model.Namespace) string {
	if !slices.Contains(s.lent, have.Name) {
		return fmt.Sprintf("namespace %s is not among those of --namespaces", have.Name)
	}
	if have.Labels[cluster.LentLabel] != cluster.Lent {
		return fmt.Sprintf("namespace %s is not lent to runs: if nobody else needs what is in it, kubectl label namespace %s %s=%s says so",
			have.Name, have.Name, cluster.LentLabel, cluster.Lent)
	}
	for _, k := range slices.Sorted(maps.Keys(want.Labels)) {
		if v, ok := have.Labels[k]; k != corev1.LabelMetadataName && (!ok || v != want.Labels[k]) {
			return fmt.Sprintf("namespace %s needs the label %s=%s, and a run must not label what it was lent: kubectl label namespace %s %s=%s",
				have.Name, k, want.Labels[k], have.Name, k, want.Labels[k])
		}
	}
	return ""
}

// isBuiltIn tells whether every cluster has this namespace.
func isBuiltIn(ns string) bool {
	return ns == metav1.NamespaceDefault || ns == metav1.NamespaceSystem
}

func (s *Stage) keepNamespace(ns *corev1.Namespace, made bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := s.names.scenario(ns.Name)
	if made {
		s.made[name] = ns.UID
	} else {
		s.found[name] = s.names.allLabels(ns.Labels)
	}
	s.declared.Namespaces = append(s.declared.Namespaces, model.Namespace{Name: name, Labels: s.labelsOf(name, ns.Labels)})
}

// labelsOf are the labels of a namespace that count: all where the run found it, and of one that the run made those of
// the scenario.
func (s *Stage) labelsOf(name string, have map[string]string) model.Labels {
	if _, found := s.found[name]; found {
		return s.names.allLabels(have)
	}
	return s.names.labels(have)
}

// labelPatch is a merge patch that turns one set of labels into another, and sets annotations. It speaks of no label
// that both have, nor of the run's own.
func labelPatch(from, to model.Labels, annotations map[string]any) []byte {
	labels := map[string]any{}
	for k, v := range changes(to, from) {
		if !cluster.IsRunLabel(k) {
			labels[k] = v
		}
	}
	metadata := map[string]any{"labels": labels}
	if len(annotations) > 0 {
		metadata["annotations"] = annotations
	}
	body, _ := json.Marshal(map[string]any{"metadata": metadata}) // strings and nulls cannot fail
	return body
}

// relabel turns the labels of a namespace into others. One that the run did not make is given an annotation, as long as
// its labels are not what they were, that tells how to restore them: a run that crashes cannot.
func (s *Stage) relabel(ctx context.Context, name string, from, to model.Labels) error {
	var annotations map[string]any
	if found, builtIn := s.found[name]; builtIn {
		annotations = map[string]any{cluster.RestoreAnnotation: cluster.Restore{Run: s.lane.RunID, Labels: changes(found, to), Before: found}.Annotation()}
	}
	return s.patchNamespace(ctx, name, labelPatch(from, to, annotations))
}

// changes are the labels that differ, with the values that they had before; nil for one that was not there.
func changes(before, now map[string]string) map[string]*string {
	out := map[string]*string{}
	for k := range now {
		if _, was := before[k]; !was {
			out[k] = nil
		}
	}
	for k, v := range before {
		if n, is := now[k]; k != corev1.LabelMetadataName && (!is || n != v) { // that one is the API server's
			out[k] = &v
		}
	}
	return out
}

// asBeforeTheCrash gives a built-in namespace the labels back that a run has changed which can do it no more.
func (s *Stage) asBeforeTheCrash(ctx context.Context, ns *corev1.Namespace) (*corev1.Namespace, error) {
	before, changed, err := cluster.ReadRestore(ns.Annotations)
	if err != nil {
		return nil, fmt.Errorf("namespace %s was labelled by an earlier run: %w: correct its labels and remove the annotation", ns.Name, err)
	}
	if !changed {
		return ns, nil
	}
	ns, err = s.client.CoreV1().Namespaces().Patch(ctx, ns.Name, types.MergePatchType, before.Patch(), metav1.PatchOptions{})
	if err != nil {
		return nil, fmt.Errorf("restore the labels of a namespace after run %s: %w", before.Run, err)
	}
	return ns, nil
}

// giveBack gives the namespaces that the run found the labels back that they had, and shows that they have them.
func (s *Stage) giveBack(ctx context.Context) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(s.found)) {
		if err := s.giveBackLabels(ctx, name); err != nil {
			errs = append(errs, err)
			continue
		}
		delete(s.found, name)
	}
	return errors.Join(errs...)
}

// giveBackLabels looks at the namespace itself: what the run knows of it may be late, after a call whose answer did not
// come.
func (s *Stage) giveBackLabels(ctx context.Context, name string) error {
	namespaces := s.client.CoreV1().Namespaces()
	ns, err := namespaces.Get(ctx, s.names.real(name), metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("restore the labels of namespace %s: %w", name, err)
	}
	before, changed, err := cluster.ReadRestore(ns.Annotations)
	if err != nil {
		return fmt.Errorf("restore the labels of namespace %s: %w", name, err)
	}
	if !changed || before.Run != s.lane.RunID {
		return nil
	}
	if ns, err = namespaces.Patch(ctx, ns.Name, types.MergePatchType, before.Patch(), metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("restore the labels of namespace %s: %w", name, err)
	}
	before.Before = s.found[name] // nobody else could write into that
	if differ := before.Differences(s.names.allLabels(ns.Labels)); len(differ) > 0 {
		delete(s.found, name)
		return fmt.Errorf("the labels of namespace %s are not as they were, since somebody else has changed them: %s", name, strings.Join(differ, "; "))
	}
	return nil
}

func (s *Stage) patchNamespace(ctx context.Context, name string, patch []byte) error {
	if _, err := s.client.CoreV1().Namespaces().Patch(ctx, s.names.real(name), types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("label namespace %s: %w", name, err)
	}
	return nil
}

// LabelNamespace replaces the labels that the scenario gave a namespace. Those that it had before the run stay.
func (s *Stage) LabelNamespace(ctx context.Context, name string, to model.Labels) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	ns, ok := s.declared.Namespace(name)
	if !ok {
		return fmt.Errorf("label namespace %s: it does not exist", name)
	}
	if err := notPodSecurity(name, to, s.found[name]); err != nil {
		return err
	}
	to = maps.Clone(to)
	if to == nil {
		to = model.Labels{}
	}
	for k, v := range s.found[name] {
		if _, given := to[k]; !given {
			to[k] = v
		}
	}
	to[corev1.LabelMetadataName] = name
	if maps.Equal(ns.Labels, to) {
		return nil
	}
	if len(s.lent) > 0 {
		return fmt.Errorf("label namespace %s: a run must not label what it was lent", name)
	}
	// The label with the name is the API server's.
	from, into := maps.Clone(ns.Labels), maps.Clone(to)
	delete(from, corev1.LabelMetadataName)
	delete(into, corev1.LabelMetadataName)
	if err := s.relabel(ctx, name, from, into); err != nil {
		return err
	}
	ns.Labels = to
	return nil
}

// namespaces are those of the cluster, or those that the run was lent.
func (s *Stage) namespaces(ctx context.Context) ([]corev1.Namespace, error) {
	namespaces := s.client.CoreV1().Namespaces()
	if len(s.lent) == 0 {
		list, err := namespaces.List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, fmt.Errorf("list namespaces: %w", err)
		}
		return list.Items, nil
	}
	return gather(s.lent, func(name string) ([]corev1.Namespace, error) {
		ns, err := namespaces.Get(ctx, name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			return nil, nil
		case err != nil:
			return nil, fmt.Errorf("read namespace %s: %w", name, err)
		}
		return []corev1.Namespace{*ns}, nil
	})
}

func sameLabels(have map[string]string, want model.Labels) bool {
	have = maps.Clone(have)
	maps.DeleteFunc(have, func(k, _ string) bool { return cluster.IsRunLabel(k) || k == corev1.LabelMetadataName })
	want = maps.Clone(want)
	delete(want, corev1.LabelMetadataName)
	return maps.Equal(have, want)
}

// deleteNamespace returns when the namespace is gone.
func (s *Stage) deleteNamespace(ctx context.Context, name string, uid types.UID) error {
	namespaces := s.client.CoreV1().Namespaces()
	err := namespaces.Delete(ctx, name, deletion(uid))
	if isGone(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("delete namespace %s: %w", name, err)
	}
	w, err := namespaces.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil {
		return fmt.Errorf("watch the end of namespace %s: %w", name, err)
	}
	defer w.Stop()
	poll := time.NewTicker(250 * time.Millisecond) // a watch may start after the end, or break
	defer poll.Stop()
	var last *corev1.Namespace // as it was seen last: the time may end in the middle of a look
	for {
		got, err := namespaces.Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) || err == nil && got.UID != uid {
			return nil
		}
		if err == nil {
			last = got
		}
		select {
		case <-w.ResultChan():
		case <-poll.C:
		case <-ctx.Done():
			return fmt.Errorf("namespace %s is still there%s: %w", name, namespaceTrouble(last), context.Cause(ctx))
		}
	}
}

// namespaceTrouble quotes what a namespace says of why it does not go.
func namespaceTrouble(ns *corev1.Namespace) string {
	if ns == nil {
		return ""
	}
	var said []string
	if held := cluster.Held("namespaces", "", ns.Name, ns.Finalizers); held != "" {
		said = append(said, held)
	}
	said = append(said, cluster.Stuck(ns)...)
	if len(said) == 0 {
		return ""
	}
	return " (" + strings.Join(said, "; ") + ")"
}
