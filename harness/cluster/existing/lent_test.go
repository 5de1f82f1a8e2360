//go:build linux

package existing

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/check"
	"github.com/netproof/netproof/harness/cluster/lease"
	"github.com/netproof/netproof/harness/cluster/sweep"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/policy"
	"github.com/netproof/netproof/harness/run"
	"github.com/netproof/netproof/harness/scenario"
)

// tenancy are the rights of an account that was lent two namespaces.
var tenancy = RBACOptions{ServiceAccount: "tenant", Namespaces: []string{"shop", "bank"}, Policies: []string{policy.Admin, policy.Calico}}

// tenant gives the access of that account.
func (l *lab) tenant() *rest.Config {
	return l.as("system:serviceaccount:"+lease.Namespace+":tenant", "system:serviceaccounts", "system:serviceaccounts:"+lease.Namespace)
}

// lend makes the namespaces, lends them, and gives the account its rights in them and no others.
func (l *lab) lend(t *testing.T) {
	t.Helper()
	l.apply(t, `
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {netproof.dev/lent: "true", team: blue, owner: us, pod-security.kubernetes.io/enforce: privileged}}
---
apiVersion: v1
kind: Namespace
metadata: {name: bank, labels: {netproof.dev/lent: "true"}}
`)
	text, err := Manifest(tenancy)
	require.NoError(t, err)
	// The pods of local clusters have no image, and do not say what the level restricted wants to hear.
	l.apply(t, strings.ReplaceAll(string(text), "enforce: restricted\n  name: netproof-canary", "enforce: privileged\n  name: netproof-canary"))
	client := mustClient(t, l.tenant())
	eventually(t, "the rights are there", func() bool { // the API server hears of roles through a watch of its own
		var errs []error
		for _, ns := range tenancy.lent() {
			_, err := client.CoreV1().Services(ns).List(soon(t), metav1.ListOptions{})
			errs = append(errs, err)
		}
		_, err := client.CoreV1().Nodes().List(soon(t), metav1.ListOptions{})
		return !slices.ContainsFunc(append(errs, err), func(err error) bool { return err != nil })
	})
}

// shopping has each thing in it that a run in lent namespaces does.
const shopping = `
apiVersion: netproof.dev/v1alpha1
kind: Scenario
metadata: {name: shopping}
spec:
  topology:
    namespaces: [{name: shop, labels: {team: blue}}, {name: bank}]
    pods:
      - {name: shop/a, labels: {app: a}, ports: [8080/TCP]}
      - {name: shop/b, labels: {app: b}, ports: [8080/TCP]}
      - {name: bank/c, labels: {app: c}, ports: [8080/TCP]}
    services:
      - {name: shop/svc, selector: {app: b}, ports: [8080/TCP]}
  probes: [{from: "*", to: "*"}, {from: "*", to: shop/svc, via: service}]
  steps:
    - {name: open, expect: {default: allow}}
    - name: isolated
      apply:
        - apiVersion: networking.k8s.io/v1
          kind: NetworkPolicy
          metadata: {name: deny, namespace: shop}
          spec:
            podSelector: {matchLabels: {app: b}}
            policyTypes: [Ingress]
            ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}]}]
      expect: {default: allow, rules: [{from: bank/c, to: shop/b, verdict: deny}, {from: bank/c, to: shop/svc, via: service, verdict: deny}]}
    - name: changed
      label: {pods: {shop/a: {app: z}}}
      create: {pods: [{name: bank/d, ports: [8080/TCP]}]}
      apply:
        - apiVersion: crd.projectcalico.org/v1
          kind: NetworkPolicy
          metadata: {name: default.shut, namespace: bank}
          spec: {tier: default, selector: app == 'nobody', types: [Ingress]}
      expect: {default: allow, rules: [{from: "bank/*", to: shop/b, verdict: deny}, {from: "bank/*", to: shop/svc, via: service, verdict: deny}]}
    - name: released
      delete: [NetworkPolicy/shop/deny]
      remove: {pods: [bank/d]}
      expect: {default: allow}
`

// borrow opens the cluster as the account that was lent namespaces.
func (l *lab) borrow(t *testing.T, cfg *rest.Config, progress func(string)) *Cluster {
	t.Helper()
	c, err := open(t.Context(), cfg, "the lab", Options{Image: digest, Namespaces: tenancy.Namespaces, timing: &quick}, cluster.Options{}, progress)
	require.NoError(t, err)
	return c
}

var borrowed = run.Options{Namespaces: tenancy.Namespaces}

// contents are what is in the namespaces that were lent, but for what Kubernetes puts into each.
func (l *lab) contents(t *testing.T) (names []string) {
	t.Helper()
	for _, ns := range tenancy.lent() {
		pods, err := l.client.CoreV1().Pods(ns).List(soon(t), metav1.ListOptions{})
		require.NoError(t, err)
		for _, p := range pods.Items {
			names = append(names, "pod "+ns+"/"+p.Name)
		}
		services, err := l.client.CoreV1().Services(ns).List(soon(t), metav1.ListOptions{})
		require.NoError(t, err)
		for _, s := range services.Items {
			names = append(names, "service "+ns+"/"+s.Name)
		}
		policies, err := l.client.NetworkingV1().NetworkPolicies(ns).List(soon(t), metav1.ListOptions{})
		require.NoError(t, err)
		for _, p := range policies.Items {
			names = append(names, "policy "+ns+"/"+p.Name)
		}
		if l.there(t, object("networkpolicies.crd.projectcalico.org", ns, "default.shut", "")) {
			names = append(names, "policy "+ns+"/default.shut")
		}
	}
	return names
}

func TestARunWithRightsInLentNamespacesOnlyIsGreenAndUsesThemAll(t *testing.T) {
	l := theLab(t)
	l.lend(t)
	before, err := l.client.CoreV1().Namespaces().Get(t.Context(), "shop", metav1.GetOptions{})
	require.NoError(t, err)

	var asked recorder
	var said heard
	cfg := l.tenant()
	asked.Wrap(cfg)
	c := l.borrow(t, cfg, said.add)
	said.contains(t, "the network plugin is not looked for")
	assert.Equal(t, model.Cluster{
		Provider: "existing", Name: "the lab", CNI: model.CNI{Name: "unknown"}, Kubernetes: l.Info().Kubernetes, Nodes: 2,
		IPFamilies: []model.IPFamily{model.IPv4},
	}, c.Info())
	result, _, err := run.Run(t.Context(), asAccount{l.Cluster, c}, prepare(t, c, shopping), borrowed)
	require.NoError(t, err)
	assert.Equal(t, model.ExitOK, model.ExitCode(result), "%+v", result.Findings)
	require.Len(t, result.Scenarios, 1)
	assert.Equal(t, model.Passed, result.Scenarios[0].Result, "%+v", result.Scenarios[0].Findings)
	require.NoError(t, c.Close(t.Context()))

	assert.Empty(t, l.contents(t), "all is gone")
	after, err := l.client.CoreV1().Namespaces().Get(t.Context(), "shop", metav1.GetOptions{})
	require.NoError(t, err)
	assert.Equal(t, before.ResourceVersion, after.ResourceVersion, "the namespace itself is untouched")

	grants := Grants(tenancy)
	assert.Empty(t, asked.Uncovered(grants))
	for _, c := range Review(soon(t), mustClient(t, l.tenant()), grants) {
		assert.Equal(t, check.OK, c.State, "%+v", c)
	}
	assert.Equal(t, []string{"create pods/exec", "get /api/*", "get /apis/*", "get pods/exec"}, slices.DeleteFunc(asked.Unused(grants), func(right string) bool {
		// The namespace bank has no service, and no policy of Kubernetes; Calico's other kinds are like the one.
		return strings.Contains(right, ".policy.") || strings.HasSuffix(right, "projectcalico.org") || strings.Contains(right, "services") || strings.Contains(right, "networkpolicies") ||
			strings.Contains(right, "pods") && !strings.Contains(right, "exec")
	}))
}

func TestTheRightsInLentNamespacesEndThere(t *testing.T) {
	l := theLab(t)
	l.lend(t)
	client := mustClient(t, l.tenant())
	refused := func(what string, err error) {
		t.Helper()
		require.ErrorContains(t, err, "forbidden", what)
	}
	_, err := client.CoreV1().Pods("kube-system").List(t.Context(), metav1.ListOptions{})
	refused("list pods elsewhere", err)
	_, err = client.CoreV1().Pods("default").Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, metav1.CreateOptions{})
	refused("make pods elsewhere", err)
	_, err = client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "mine"}}, metav1.CreateOptions{})
	refused("make namespaces", err)
	_, err = client.CoreV1().Namespaces().Patch(t.Context(), "shop", types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`), metav1.PatchOptions{})
	refused("label namespaces", err)
	_, err = client.CoreV1().Secrets("shop").List(t.Context(), metav1.ListOptions{})
	refused("read secrets", err)
	refused("delete namespaces", client.CoreV1().Namespaces().Delete(t.Context(), "shop", metav1.DeleteOptions{}))
}

func TestNamespacesAreOnlyUsedWhereTheyAreLentAndEmpty(t *testing.T) {
	l := theLab(t)
	l.lend(t)
	tried := func(t *testing.T, text string) error {
		t.Helper()
		c := l.borrow(t, l.tenant(), func(string) {})
		_, _, err := run.Run(t.Context(), asAccount{l.Cluster, c}, prepare(t, c, text), borrowed)
		require.NoError(t, c.Close(t.Context()))
		return err
	}
	patch := func(t *testing.T, body string) {
		t.Helper()
		_, err := l.client.CoreV1().Namespaces().Patch(soon(t), "bank", types.MergePatchType, []byte(body), metav1.PatchOptions{})
		require.NoError(t, err)
	}
	t.Run("one that nobody lends", func(t *testing.T) {
		patch(t, `{"metadata":{"labels":{"netproof.dev/lent":null}}}`)
		defer patch(t, `{"metadata":{"labels":{"netproof.dev/lent":"true"}}}`)
		err := tried(t, shopping)
		require.ErrorContains(t, err, "namespace bank is not lent to runs")
		require.ErrorContains(t, err, "kubectl label namespace bank netproof.dev/lent=true")
	})
	t.Run("one that is not given to the run", func(t *testing.T) {
		require.ErrorContains(t, tried(t, strings.ReplaceAll(shopping, "bank", "vault")), "namespace vault is not there, or not among those of --namespaces")
	})
	t.Run("one without the labels of the scenario", func(t *testing.T) {
		err := tried(t, strings.ReplaceAll(shopping, "team: blue", "team: red"))
		require.ErrorContains(t, err, "namespace shop needs the label team=red, and a run must not label what it was lent")
	})
	t.Run("one whose labels a step changes", func(t *testing.T) {
		err := tried(t, strings.ReplaceAll(shopping, "label: {pods:", "label: {namespaces: {shop: {tier: front}}, pods:"))
		require.ErrorContains(t, err, "namespace shop needs the label tier=front")
	})
	t.Run("one with a pod of somebody else", func(t *testing.T) {
		l.apply(t, `{apiVersion: v1, kind: Pod, metadata: {name: ledger, namespace: bank}, spec: {containers: [{name: c, image: i}]}}`)
		require.ErrorContains(t, tried(t, shopping), "pod bank/ledger, which is not of this run, is in a namespace that was lent to it")
	})
	assert.Equal(t, []string{"pod bank/ledger"}, l.contents(t), "nothing was made")
}

func TestWhatAKilledRunLeftInLentNamespacesIsRemovedWithTheSameRights(t *testing.T) {
	l := theLab(t)
	l.lend(t)
	cfg, die := cuttable(t, l.tenant())
	left := l.abandon(t, l.borrow(t, cfg, func(string) {}), die, shopping, "changed", borrowed)
	require.NotEmpty(t, l.contents(t))
	removed, err := sweep.Cleanup(soon(t), l.tenant(), sweep.Options{Namespaces: tenancy.Namespaces, Timing: &quick})
	require.NoError(t, err)
	assert.NotEmpty(t, removed.Objects)
	assert.Empty(t, removed.Stays)
	assert.Empty(t, l.contents(t))
	removed, err = sweep.Cleanup(soon(t), l.tenant(), sweep.Options{RunID: left, Namespaces: tenancy.Namespaces, DryRun: true, Timing: &quick})
	require.NoError(t, err)
	assert.Empty(t, removed, "nothing is left")
	assert.True(t, l.there(t, object("namespaces", "", "shop", "")))
}

// abandon runs a scenario on a cluster until a step is sampled, and lets go of it there as a run does that is killed:
// nothing is undone. To die ends its signs of life. It returns the run's id.
func (l *lab) abandon(t *testing.T, c *Cluster, die func(), text, step string, opts run.Options) string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var there sync.Once
	reached, end := make(chan struct{}), make(chan struct{})
	opts.BeforeSampling = func(_, name string) {
		if name == step {
			there.Do(func() {
				close(reached)
				<-end
			})
		}
	}
	prepared := prepare(t, c, text)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		// From the moment on that it is let go of, none of its calls gets through.
		lanes := run.OpenLanes(ctx, cut{asAccount{l.Cluster, c}, ctx}, opts)
		_, _ = lanes.Prove(ctx, prepared.Scenarios()[0])
	}()
	select {
	case <-reached:
	case <-ended:
		require.Fail(t, "the run ended before it was let go of")
	}
	die()
	cancel()
	close(end)
	<-ended
	return c.RunID()
}

// cut is a cluster whose API server nobody can reach once its context has ended.
type cut struct {
	asAccount
	ctx context.Context
}

func (c cut) RESTConfig() *rest.Config {
	cfg := c.asAccount.RESTConfig()
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper { return &cutting{next, c.ctx} })
	return cfg
}

type cutting struct {
	next http.RoundTripper
	ctx  context.Context
}

func (c *cutting) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := c.ctx.Err(); err != nil {
		return nil, err
	}
	return c.next.RoundTrip(r)
}

// charts has the label that every chart of Helm sets, wherever a file can have labels, and policies in a namespace of
// others.
const charts = `
apiVersion: netproof.dev/v1alpha1
kind: Scenario
metadata: {name: charts}
spec:
  topology:
    namespaces: [{name: x, labels: {app.kubernetes.io/managed-by: Helm}}, {name: default, labels: {team: red, app.kubernetes.io/managed-by: Helm}}]
    pods:
      - {name: x/a, labels: {app: a, app.kubernetes.io/managed-by: Helm}, ports: [8080/TCP]}
      - {name: default/netproof-b, labels: {app: b, app.kubernetes.io/managed-by: Helm}, ports: [8080/TCP]}
    services: [{name: default/netproof-b, selector: {app: b}, ports: [8080/TCP]}]
  steps:
    - name: cut
      apply:
        - apiVersion: networking.k8s.io/v1
          kind: NetworkPolicy
          metadata: {name: netproof-cut, namespace: default, labels: {app.kubernetes.io/managed-by: Helm}}
          spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
        - apiVersion: crd.projectcalico.org/v1
          kind: GlobalNetworkPolicy
          metadata: {name: default.netproof-cut, labels: {app.kubernetes.io/managed-by: Helm}}
          spec: {tier: default, selector: nobody == 'has', types: [Ingress]}
      expect: {default: deny}
`

func TestWhatChartsLabelIsRemovedAfterAKillAndLabelsAreAsTheyWere(t *testing.T) {
	l := theLab(t)
	namespaces := l.client.CoreV1().Namespaces()
	patch := func(body string) {
		_, err := namespaces.Patch(soon(t), "default", types.MergePatchType, []byte(body), metav1.PatchOptions{})
		require.NoError(t, err)
	}
	patch(`{"metadata":{"labels":{"pod-security.kubernetes.io/audit":"restricted","owner":"them"}}}`)
	t.Cleanup(func() {
		patch(`{"metadata":{"labels":{"pod-security.kubernetes.io/audit":null,"owner":null,"zone":null}}}`)
	})
	before, err := namespaces.Get(soon(t), "default", metav1.GetOptions{})
	require.NoError(t, err)

	cfg, die := cuttable(t, l.account())
	c, err := open(t.Context(), cfg, "the lab", Options{Image: digest, timing: &quick}, cluster.Options{}, func(string) {})
	require.NoError(t, err)
	id := l.abandon(t, c, die, charts, "cut", run.Options{Allow: scenario.Reaches()})
	during, err := namespaces.Get(soon(t), "default", metav1.GetOptions{})
	require.NoError(t, err)
	assert.Equal(t, "red", during.Labels["team"])
	assert.Contains(t, during.Annotations, cluster.RestoreAnnotation)
	patch(`{"metadata":{"labels":{"zone":"new"}}}`) // somebody else goes on working

	removed, err := sweep.Cleanup(soon(t), l.account(), sweep.Options{Timing: &quick})
	require.NoError(t, err)
	for _, o := range []sweep.Object{
		object("namespaces", "", "x", id), object("pods", "x", "a", id), object("pods", "default", "netproof-b", id), object("services", "default", "netproof-b", id),
		object("networkpolicies.networking.k8s.io", "default", "netproof-cut", id),
		object("globalnetworkpolicies.crd.projectcalico.org", "", "default.netproof-cut", id),
	} {
		assert.Contains(t, removed.Objects, o)
		assert.False(t, l.there(t, o), o)
	}
	assert.Equal(t, []string{"default"}, removed.Restored)
	assert.Contains(t, removed.Stays, stay("a label of namespace default", `zone is "new", and was not there before run `+id+", which did not change it"))
	after, err := namespaces.Get(soon(t), "default", metav1.GetOptions{})
	require.NoError(t, err)
	delete(after.Labels, "zone")
	assert.Equal(t, before.Labels, after.Labels)
	assert.Equal(t, before.Annotations, after.Annotations)
	list, err := l.client.CoreV1().Pods(metav1.NamespaceAll).List(soon(t), metav1.ListOptions{LabelSelector: cluster.RunLabel + "=" + id})
	require.NoError(t, err)
	assert.Empty(t, list.Items)
}
