package stage

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
)

// The API server is a fake: for how long a real one sees a namespace that was made again as ending cannot be chosen.
func TestANamespaceThatWasMadeAgainTakesObjectsOnceAdmissionSeesIt(t *testing.T) {
	ending := apierrors.NewForbidden(schema.GroupResource{Resource: "services"}, "web", nil)
	ending.ErrStatus.Details.Causes = append(ending.ErrStatus.Details.Causes, metav1.StatusCause{Type: corev1.NamespaceTerminatingCause})
	forbidden := apierrors.NewForbidden(schema.GroupResource{Resource: "services"}, "web", nil)
	ended, end := context.WithCancel(t.Context())
	end()

	for _, tc := range []struct {
		name      string
		ctx       context.Context
		namespace *corev1.Namespace
		refusals  []error
		calls     int
		err       error
	}{
		{"it is seen at once", t.Context(), &corev1.Namespace{}, nil, 1, nil},
		{"it is seen late", t.Context(), &corev1.Namespace{}, []error{ending, ending}, 3, nil},
		{"it does end", t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &metav1.Time{}}}, []error{ending}, 1, ending},
		{"it is gone", t.Context(), nil, []error{ending}, 1, ending},
		{"something else is forbidden", t.Context(), &corev1.Namespace{}, []error{forbidden}, 1, forbidden},
		{"nobody waits any more", ended, &corev1.Namespace{}, []error{ending}, 1, ending},
	} {
		t.Run(tc.name, func(t *testing.T) {
			client := fake.NewClientset()
			if tc.namespace != nil {
				tc.namespace.Name = "x"
				_, err := client.CoreV1().Namespaces().Create(t.Context(), tc.namespace, metav1.CreateOptions{})
				require.NoError(t, err)
			}
			calls := 0
			err := inNamespace(tc.ctx, client, "x", func() error {
				calls++
				if calls <= len(tc.refusals) {
					return tc.refusals[calls-1]
				}
				return nil
			})
			assert.Equal(t, tc.err, err)
			assert.Equal(t, tc.calls, calls)
		})
	}
}

func TestSideBySideJoinsErrors(t *testing.T) {
	one, two := errors.New("one"), errors.New("two")
	err := sideBySide(1, func() error { return one }, func() error { return nil }, func() error { return two })
	assert.ErrorIs(t, err, one)
	assert.ErrorIs(t, err, two)
}
