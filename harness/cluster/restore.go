package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
)

// RestoreAnnotation is on a built-in namespace as long as its labels are not what they were before a run. It holds a [Restore] as JSON.
const RestoreAnnotation = "netproof.dev/restore-labels"

// Restore is how a built-in namespace was before a run.
type Restore struct {
	// Run that has changed the labels.
	Run string `json:"run"`
	// Labels that it has changed, with the values that they had; nil for one that was not there.
	Labels map[string]*string `json:"labels"`
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
