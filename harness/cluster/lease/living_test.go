package lease

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
)

// listed makes the fake list its Lease, or fail.
func listed(f *fakeLeases, err *error) {
	f.PrependReactor("list", "leases", func(clienttesting.Action) (bool, runtime.Object, error) {
		list := &coordinationv1.LeaseList{}
		if l := f.now(); l != nil {
			list.Items = append(list.Items, *l)
		}
		return true, list, *err
	})
}

func TestTheLivingAreToldFromTheDead(t *testing.T) {
	host, err := os.Hostname()
	require.NoError(t, err)
	for _, tc := range []struct {
		name  string
		runs  []string
		dies  bool
		how   func(*coordinationv1.Lease)
		want  []Life
		after time.Duration
		said  int
	}{
		{"one that gives signs of life, at the next one", []string{"one", "two"}, false, nil, []Life{{"one", host, "netproof"}}, usual.RenewEvery, 1},
		{"one of another machine that gives none, after the whole duration", []string{"one"}, true, elsewhere, nil, usual.Duration, 1},
		{"one whose process on this machine has ended, sooner", []string{"one"}, true, func(l *coordinationv1.Lease) {
			me := self()
			me.Started = "1"
			l.Annotations[processAnnotation] = me.String()
		}, nil, usual.EndedDuration, 1},
		{"one that has no Lease, at once", []string{"two"}, false, nil, nil, 0, 0},
		{"one that has given its Lease back and left something, at once", []string{"one"}, true, func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = nil }, nil, 0, 0},
		{"nobody, at once", nil, false, nil, nil, 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, f *fakeLeases) {
				var none error
				listed(f, &none)
				l := mustTake(t, f, "one")
				if tc.dies {
					vanish(l)
				}
				if tc.how != nil {
					f.change(tc.how)
				}
				var said []string
				began := time.Now()
				living, err := Living(t.Context(), f, tc.runs, func(text string) { said = append(said, text) }, nil)
				require.NoError(t, err)
				assert.Equal(t, tc.want, living)
				assert.InDelta(t, tc.after, time.Since(began), float64(2*usual.Look))
				assert.Len(t, said, tc.said, "%q", said)
				if !tc.dies {
					require.NoError(t, l.Release(t.Context()))
				}
			})
		})
	}
}

func TestWhoLivesIsNotGuessed(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeLeases) {
		var broken error
		listed(f, &broken)
		vanish(mustTake(t, f, "one"))
		f.change(elsewhere)
		why := errors.New("interrupted")
		ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Second, why)
		defer cancel()
		_, err := Living(ctx, f, []string{"one"}, func(string) {}, nil)
		require.ErrorIs(t, err, why)

		broken = errors.New("connection refused")
		_, err = Living(t.Context(), f, []string{"one"}, func(string) {}, nil)
		require.ErrorIs(t, err, broken)
	})
}
