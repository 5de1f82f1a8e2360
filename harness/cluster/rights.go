package cluster

import (
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// LentTo are the namespaces that a run was lent, with that of its canaries, which has the run's prefix. There is none
// for a run that makes its own.
func LentTo(namespaces []string, prefix string) []string {
	if len(namespaces) == 0 {
		return nil
	}
	return slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(namespaces), prefix+CanaryNamespace))))
}

// ExplainForbidden says what to do where an error of the API server is about a right that is missing. It returns other
// errors as they are.
func ExplainForbidden(err error) error {
	if apierrors.IsForbidden(err) {
		return fmt.Errorf("%w; netproof rbac prints the rights that a run needs, netproof doctor --provider existing checks them", err)
	}
	return err
}
