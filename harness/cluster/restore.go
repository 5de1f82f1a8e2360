package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// RestoreAnnotation is on a built-in namespace as long as its labels are not what they were before a run. It holds a
// [Restore] as JSON.
const RestoreAnnotation = "netproof.dev/restore-labels"

// Restore is how a built-in namespace was before a run.
type Restore struct {
	// Run that has changed the labels.
	Run string `json:"run"`
	// Labels that it has changed, with the values that they had; nil for one that was not there. No others are touched:
	// they may be somebody else's.
	Labels map[string]*string `json:"labels"`
	// Before are all labels that the namespace had.
	Before map[string]string `json:"before,omitempty"`
}

// ReadRestore reads the annotation out of those of a namespace; ok is false where there is none.
func ReadRestore(annotations map[string]string) (r Restore, ok bool, err error) {
	text, ok := annotations[RestoreAnnotation]
	if !ok {
		return r, false, nil
	}
	err = json.Unmarshal([]byte(text), &r)
	if err == nil && r.Run == "" {
		err = errors.New("it names no run")
	}
	if err != nil {
		err = fmt.Errorf("its annotation %s does not tell how its labels were: %w", RestoreAnnotation, err)
	}
	return r, true, err
}

// Annotation is the value of [RestoreAnnotation] in a merge patch: nil, which removes it, when nothing is changed.
func (r Restore) Annotation() any {
	if len(r.Labels) == 0 {
		return nil
	}
	text, _ := json.Marshal(r) // strings and nulls cannot fail
	return string(text)
}

// Patch is a merge patch that gives the namespace its labels back, and removes the annotation.
func (r Restore) Patch() []byte {
	body, _ := json.Marshal(map[string]any{"metadata": map[string]any{ // strings and nulls cannot fail
		"labels": r.Labels, "annotations": map[string]any{RestoreAnnotation: nil},
	}})
	return body
}

// Differences says in words which labels of a namespace are not as they were, in the order of their names. An
// annotation that does not tell all labels of before makes none.
func (r Restore) Differences(now map[string]string) []string {
	if r.Before == nil {
		return nil
	}
	all := maps.Clone(r.Before)
	maps.Copy(all, now)
	var out []string
	for _, key := range slices.Sorted(maps.Keys(all)) {
		was, had := r.Before[key]
		is, has := now[key]
		switch {
		case !had:
			out = append(out, fmt.Sprintf("%s is %q, and was not there before", key, is))
		case !has:
			out = append(out, fmt.Sprintf("%s is gone, and was %q before", key, was))
		case is != was:
			out = append(out, fmt.Sprintf("%s is %q, and was %q before", key, is, was))
		}
	}
	return out
}

// Stuck quotes what the conditions of a namespace say of why it does not go.
func Stuck(ns *corev1.Namespace) (said []string) {
	for _, c := range ns.Status.Conditions {
		if c.Status == corev1.ConditionTrue && c.Message != "" {
			said = append(said, c.Message)
		}
	}
	return said
}

// Held says what keeps an object that was deleted from going, and how to let it go; "" where no finalizer does.
// resource is as the API calls it, such as networkpolicies.networking.k8s.io.
func Held(resource, namespace, name string, finalizers []string) string {
	if len(finalizers) == 0 {
		return ""
	}
	in := ""
	if namespace != "" {
		in = " -n " + namespace
	}
	return fmt.Sprintf("held by its finalizers %s: if nobody is left who takes them away, "+
		`kubectl patch %s %s%s --type=merge -p '{"metadata":{"finalizers":null}}' does`, strings.Join(finalizers, ", "), resource, name, in)
}
