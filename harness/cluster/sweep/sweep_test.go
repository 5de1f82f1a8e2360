package sweep

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/lease"
)

// fakeCluster stands in for an API server. That a real one behaves so is what the tests of package existing show.
type fakeCluster struct {
	*fake.Clientset
	objects *metadatafake.FakeMetadataClient
	// silent are the APIs whose server does not answer.
	silent map[schema.GroupVersion]error
	// lease is one that gives signs of life, nil for none.
	lease *coordinationv1.Lease
}

// served tells which kinds of policies there are.
type served struct {
	discovery.DiscoveryInterface
	silent map[schema.GroupVersion]error
}

func (s served) ServerPreferredResources() ([]*metav1.APIResourceList, error) {
	verbs := metav1.Verbs{"list", "delete"}
	lists := []*metav1.APIResourceList{
		{GroupVersion: "networking.k8s.io/v1", APIResources: []metav1.APIResource{{Name: "networkpolicies", Namespaced: true, Verbs: verbs}}},
		{GroupVersion: "cilium.io/v2", APIResources: []metav1.APIResource{{Name: "ciliumclusterwidenetworkpolicies", Verbs: verbs}}},
	}
	if s.silent != nil {
		return lists, &discovery.ErrGroupDiscoveryFailed{Groups: s.silent}
	}
	return lists, nil
}

func (f *fakeCluster) Discovery() discovery.DiscoveryInterface {
	return served{f.Clientset.Discovery(), f.silent}
}

func newCluster(t *testing.T, objects ...runtime.Object) *fakeCluster {
	t.Helper()
	scheme := metadatafake.NewTestScheme()
	require.NoError(t, metav1.AddMetaToScheme(scheme))
	f := &fakeCluster{
		Clientset: fake.NewClientset(
			&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system"}},
		),
		objects: metadatafake.NewSimpleMetadataClient(scheme, objects...),
	}
	f.PrependReactor("list", "leases", func(clienttesting.Action) (bool, runtime.Object, error) {
		list := &coordinationv1.LeaseList{}
		if f.lease != nil {
			version, _ := strconv.Atoi(f.lease.ResourceVersion) // "" is 0
			f.lease.ResourceVersion = strconv.Itoa(version + 1)
			list.Items = append(list.Items, *f.lease.DeepCopy())
		}
		return true, list, nil
	})
	// As in a real server, finalizers keep an object.
	f.objects.PrependReactor("delete", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
		a := action.(clienttesting.DeleteAction)
		got, err := f.objects.Tracker().Get(a.GetResource(), a.GetNamespace(), a.GetName())
		if err != nil {
			return true, nil, err
		}
		object := got.(*metav1.PartialObjectMetadata).DeepCopy()
		if len(object.Finalizers) == 0 {
			return false, nil, nil
		}
		now := metav1.Now()
		object.DeletionTimestamp = &now
		return true, nil, f.objects.Tracker().Update(a.GetResource(), object, a.GetNamespace())
	})
	return f
}

// made is what a run made now.
func made(version, kind, namespace, name, run string, tweaks ...func(*metav1.PartialObjectMetadata)) *metav1.PartialObjectMetadata {
	o := &metav1.PartialObjectMetadata{
		TypeMeta: metav1.TypeMeta{APIVersion: version, Kind: kind},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: name, UID: types.UID(kind + "/" + namespace + "/" + name), Labels: cluster.RunLabels(run),
			CreationTimestamp: metav1.Now(),
		},
	}
	for _, tweak := range tweaks {
		tweak(o)
	}
	return o
}

func without(label string) func(*metav1.PartialObjectMetadata) {
	return func(o *metav1.PartialObjectMetadata) { delete(o.Labels, label) }
}

// remains are one object of each kind, in the order in which they go.
func remains(run string) []runtime.Object {
	return []runtime.Object{
		made("networking.k8s.io/v1", "NetworkPolicy", "x-"+run, "deny", run),
		made("cilium.io/v2", "CiliumClusterwideNetworkPolicy", "", "deny-"+run, run),
		made("v1", "Pod", "x-"+run, "a", run),
		made("v1", "Service", "x-"+run, "web", run),
		made("v1", "Namespace", "", "x-"+run, run),
		made("coordination.k8s.io/v1", "Lease", lease.Namespace, "netproof-"+run, run),
	}
}

func objectsOf(run string) []Object {
	return []Object{
		{"networkpolicies.networking.k8s.io", "x-" + run, "deny", run},
		{"ciliumclusterwidenetworkpolicies.cilium.io", "", "deny-" + run, run},
		{"pods", "x-" + run, "a", run},
		{"services", "x-" + run, "web", run},
		{"namespaces", "", "x-" + run, run},
		{"leases.coordination.k8s.io", lease.Namespace, "netproof-" + run, run},
	}
}

func (f *fakeCluster) clean(ctx context.Context, opts Options) (Removed, error) {
	return cleanerFor(f, f.objects, cluster.LentTo(opts.Namespaces, opts.NamespacePrefix), func(string) {}).cleanUp(ctx, opts)
}

// deleted are the objects whose deletion was asked for, in that order.
func (f *fakeCluster) deleted() (names []string) {
	for _, action := range f.objects.Actions() {
		if d, is := action.(clienttesting.DeleteAction); is {
			names = append(names, Object{Resource: d.GetResource().GroupResource().String(), Namespace: d.GetNamespace(), Name: d.GetName()}.String())
		}
	}
	return names
}

func textsOf(objects []Object) (texts []string) {
	for _, o := range objects {
		texts = append(texts, o.String())
	}
	return texts
}

func TestWhatADeadRunLeftGoesPoliciesFirstAndItsLeaseLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newCluster(t, remains("dead")...)
		removed, err := f.clean(t.Context(), Options{})
		require.NoError(t, err)
		assert.Equal(t, textsOf(objectsOf("dead")), f.deleted())
		assert.ElementsMatch(t, objectsOf("dead"), removed.Objects)
		assert.Empty(t, removed.Stays)

		again, err := f.clean(t.Context(), Options{})
		require.NoError(t, err)
		assert.Equal(t, Removed{}, again, "nothing is left")
	})
}

func TestWhatIsOfOthersStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		objects := append(remains("dead"), remains("alive")...)
		objects = append(objects,
			made("v1", "Pod", "shop", "copied", "dead", without(cluster.OwnLabel)),
			made("v1", "Pod", "shop", "tool", "dead", without(cluster.RunLabel)),
			made("v1", "Namespace", "", "kube-public", "dead"),
			made("v1", "ConfigMap", "shop", "settings", "dead"),
		)
		f := newCluster(t, objects...)
		holder := "alive@elsewhere"
		f.lease = &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Name: "netproof-alive", Namespace: lease.Namespace, Labels: cluster.RunLabels("alive")},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: &holder},
		}
		removed, err := f.clean(t.Context(), Options{})
		require.NoError(t, err)
		assert.ElementsMatch(t, objectsOf("dead"), removed.Objects)
		assert.Equal(t, textsOf(objectsOf("dead")), f.deleted(), "nobody asked for the end of anything else")
		assert.Equal(t, []Stay{
			{"namespaces kube-public", "it is a built-in namespace, and no run can have made it"},
			{"run alive", "its Lease netproof-system/netproof-alive is alive, on host elsewhere"},
		}, removed.Stays)
	})
}

func TestOnlyTheRunsThatAreMeantAreSwept(t *testing.T) {
	for name, tc := range map[string]struct {
		opts  Options
		gone  []string
		stays int
	}{
		"a run by its id":         {Options{RunID: "one"}, []string{"one"}, 0},
		"those that are old":      {Options{OlderThan: time.Hour}, []string{"one"}, 1},
		"an old one by its id":    {Options{RunID: "two", OlderThan: time.Hour}, nil, 1},
		"a run that left nothing": {Options{RunID: "three"}, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				one := remains("one")
				<-time.After(2 * time.Hour)
				f := newCluster(t, append(one, remains("two")...)...)
				var want []Object
				for _, run := range tc.gone {
					want = append(want, objectsOf(run)...)
				}
				opts := tc.opts
				opts.DryRun = true
				found, err := f.clean(t.Context(), opts)
				require.NoError(t, err)
				assert.ElementsMatch(t, want, found.Objects)
				assert.Empty(t, f.deleted(), "a dry run removes nothing")

				removed, err := f.clean(t.Context(), tc.opts)
				require.NoError(t, err)
				assert.ElementsMatch(t, want, removed.Objects)
				assert.ElementsMatch(t, textsOf(want), f.deleted())
				assert.Len(t, removed.Stays, tc.stays)
			})
		})
	}
}

func TestWhatFinalizersHoldIsNamedAndKeepsTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		objects := append(remains("dead"), made("v1", "Service", "y", "held", "dead", func(o *metav1.PartialObjectMetadata) {
			o.Finalizers = []string{"example.com/first", "example.com/second"}
		}))
		f := newCluster(t, objects...)
		began := time.Now()
		removed, err := f.clean(t.Context(), Options{})
		require.ErrorIs(t, err, errSlow)
		assert.Equal(t, removeTime, time.Since(began))
		require.ErrorContains(t, err, "services y/held of run dead is still there, held by its finalizers example.com/first, example.com/second")
		require.ErrorContains(t, err, "kubectl patch services held -n y")
		assert.ElementsMatch(t, slices.DeleteFunc(objectsOf("dead"), func(o Object) bool { return o.Namespace == lease.Namespace }), removed.Objects)
		assert.NotContains(t, f.deleted(), "leases.coordination.k8s.io "+lease.Namespace+"/netproof-dead", "it names the run as long as something is left")
	})
}

func TestWhatTheServerWillNotDeleteIsNamedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newCluster(t, remains("dead")...)
		f.objects.PrependReactor("delete", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
			return true, nil, apierrors.NewForbidden(corev1.Resource("pods"), "a", errors.New("no right"))
		})
		removed, err := f.clean(t.Context(), Options{})
		require.ErrorContains(t, err, "delete pods x-dead/a of run dead")
		require.ErrorContains(t, err, "netproof rbac")
		assert.Len(t, removed.Objects, 4, "the others go, but for the Lease")
		assert.Len(t, slices.DeleteFunc(f.deleted(), func(name string) bool { return name != "pods x-dead/a" }), 1)
	})
}

func TestInLentNamespacesNothingElseIsLookedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newCluster(t, append(remains("dead"), made("v1", "Pod", "shop", "a", "dead"), made("v1", "Pod", "t-"+cluster.CanaryNamespace, "c", "dead"))...)
		removed, err := f.clean(t.Context(), Options{Namespaces: []string{"shop"}, NamespacePrefix: "t-"})
		require.NoError(t, err)
		assert.ElementsMatch(t, []Object{
			{"pods", "shop", "a", "dead"}, {"pods", "t-" + cluster.CanaryNamespace, "c", "dead"},
			{"leases.coordination.k8s.io", lease.Namespace, "netproof-dead", "dead"},
		}, removed.Objects)
		for _, action := range f.objects.Actions() {
			assert.Contains(t, []string{"shop", "t-" + cluster.CanaryNamespace, lease.Namespace}, action.GetNamespace(), "%s %s", action.GetVerb(), action.GetResource())
		}
	})
}

func TestWhatCannotBeLookedAtIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newCluster(t, remains("dead")...)
		f.silent = map[schema.GroupVersion]error{{Group: "projectcalico.org", Version: "v3"}: errors.New("no endpoints")}
		f.objects.PrependReactor("list", "ciliumclusterwidenetworkpolicies", func(clienttesting.Action) (bool, runtime.Object, error) {
			return true, nil, apierrors.NewForbidden(schema.GroupResource{Group: "cilium.io"}, "", errors.New("no right"))
		})
		removed, err := f.clean(t.Context(), Options{})
		require.NoError(t, err)
		assert.Len(t, removed.Objects, 5)
		assert.Equal(t, []Stay{
			{"projectcalico.org/v3", "its API server does not answer (no endpoints), so it was not looked at"},
			{"objects of cilium.io", "they may not be listed, so they were not looked at"},
		}, removed.Stays)
	})
}

func TestLabelsOfBuiltInNamespacesAreAsBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newCluster(t)
		old := "blue"
		before := cluster.Restore{Run: "dead", Labels: map[string]*string{"team": &old, "extra": nil}, Before: map[string]string{"team": "blue", "zone": "1"}}
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name: "default", Labels: map[string]string{"team": "red", "extra": "x", "zone": "2"},
			Annotations: map[string]string{cluster.RestoreAnnotation: before.Annotation().(string)},
		}}
		_, err := f.CoreV1().Namespaces().Update(t.Context(), ns, metav1.UpdateOptions{})
		require.NoError(t, err)
		removed, err := f.clean(t.Context(), Options{})
		require.NoError(t, err)
		assert.Equal(t, []string{"default"}, removed.Restored)
		require.Len(t, removed.Stays, 1)
		assert.Contains(t, removed.Stays[0].String(), `zone is "2", and was "1" before run dead`)
		got, err := f.CoreV1().Namespaces().Get(t.Context(), "default", metav1.GetOptions{})
		require.NoError(t, err)
		assert.Equal(t, map[string]string{"team": "blue", "zone": "2"}, got.Labels)
		assert.Empty(t, got.Annotations)
	})
}
