//go:build linux

package existing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/check"
	"github.com/netproof/netproof/harness/cluster/lease"
	"github.com/netproof/netproof/harness/cluster/local"
	"github.com/netproof/netproof/harness/cluster/sweep"
	"github.com/netproof/netproof/harness/expect"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/run"
	"github.com/netproof/netproof/harness/scenario"
)

// agents are the network plugin's, as far as detection is concerned. The plugin itself runs beside them.
const agents = `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: calico-node, namespace: kube-system}
spec:
  selector: {matchLabels: {k8s-app: calico-node}}
  template:
    metadata: {labels: {k8s-app: calico-node}}
    spec:
      containers: [{name: calico-node, image: "quay.io/calico/node:v3.30.1"}]
`

// remains are what run dead0001 left: of each kind that runs make, and in each place where they make it.
const remains = `
apiVersion: v1
kind: Namespace
metadata: {name: x, labels: {netproof.dev/managed-by: netproof, netproof.dev/run: dead0001}}
---
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: x, labels: {netproof.dev/managed-by: netproof, netproof.dev/run: dead0001}}
spec: {containers: [{name: probe, image: none}]}
---
apiVersion: v1
kind: Service
metadata: {name: left, namespace: default, labels: {netproof.dev/managed-by: netproof, netproof.dev/run: dead0001}}
spec: {ports: [{port: 80}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: left, namespace: default, labels: {netproof.dev/managed-by: netproof, netproof.dev/run: dead0001}}
spec: {podSelector: {matchLabels: {nobody: has}}}
---
apiVersion: crd.projectcalico.org/v1
kind: GlobalNetworkPolicy
metadata: {name: left, labels: {netproof.dev/managed-by: netproof, netproof.dev/run: dead0001}}
spec: {selector: nobody == 'has', types: [Ingress]}
---
apiVersion: v1
kind: Namespace
metadata:
  name: kube-system
  labels: {team: red}
  annotations: {netproof.dev/restore-labels: '{"run":"dead0001","labels":{"team":null,"was":"here"}}'}
`

// left are the objects of remains.
var left = []sweep.Object{
	object("globalnetworkpolicies.crd.projectcalico.org", "", "left", "dead0001"),
	object("namespaces", "", "x", "dead0001"),
	object("networkpolicies.networking.k8s.io", "default", "left", "dead0001"),
	object("pods", "x", "a", "dead0001"),
	object("services", "default", "left", "dead0001"),
}

// notOurs are objects that look like a run's, and are not: each lacks one of the labels.
const notOurs = `
apiVersion: v1
kind: Namespace
metadata: {name: mine, labels: {netproof.dev/managed-by: netproof}}
---
apiVersion: v1
kind: Pod
metadata: {name: mine, namespace: mine, labels: {netproof.dev/run: dead0001}}
spec: {containers: [{name: probe, image: none}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: mine, namespace: mine, labels: {app.kubernetes.io/managed-by: netproof, netproof.dev/run: dead0001}}
spec: {podSelector: {}}
---
apiVersion: v1
kind: Service
metadata: {name: mine, namespace: mine, labels: {netproof.dev/managed-by: netproof, netproof.dev/run: ""}}
spec: {ports: [{port: 80}]}
`

var untouched = []sweep.Object{
	object("namespaces", "", "mine", ""), object("pods", "mine", "mine", ""), object("networkpolicies.networking.k8s.io", "mine", "mine", ""), object("services", "mine", "mine", ""),
}

// deadLease is the Lease of run dead0001, which was on this machine.
func (l *lab) deadLease(t *testing.T) {
	t.Helper()
	cfg, cut := cuttable(t, l.admin)
	held, err := lease.Acquire(t.Context(), mustClient(t, cfg), lease.Options{RunID: "dead0001", Timing: &quick})
	require.NoError(t, err)
	cut()
	leases := l.client.CoordinationV1().Leases(lease.Namespace)
	got, err := leases.Get(t.Context(), held.Name(), metav1.GetOptions{})
	require.NoError(t, err)
	const annotation = "netproof.dev/process"
	process := map[string]any{}
	require.NoError(t, json.Unmarshal([]byte(got.Annotations[annotation]), &process))
	process["started"] = "1" // its number is another process's now
	text, err := json.Marshal(process)
	require.NoError(t, err)
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, annotation, text)
	_, err = leases.Patch(t.Context(), held.Name(), types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	require.NoError(t, err)
}

// cuttable gives an access of which no call gets through any more once it was cut: to others, whoever has it has died.
func cuttable(t *testing.T, cfg *rest.Config) (cuttable *rest.Config, cut func()) {
	ctx, cut := context.WithCancel(context.Background())
	t.Cleanup(cut)
	cfg = rest.CopyConfig(cfg)
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper { return &cutting{next, ctx} })
	return cfg, cut
}

// asAccount is a cluster that a run reaches as the service account.
type asAccount struct {
	*local.Cluster
	existing *Cluster
}

func (c asAccount) RESTConfig() *rest.Config         { return c.existing.RESTConfig() }
func (c asAccount) RunID() string                    { return c.existing.RunID() }
func (c asAccount) Health(ctx context.Context) error { return c.existing.Health(ctx) }

// everything has each thing in it that a run does to a cluster.
const everything = `
apiVersion: netproof.dev/v1alpha1
kind: Scenario
metadata: {name: everything}
spec:
  description: each thing that a run does
  topology:
    namespaces: [{name: x}, {name: default}]
    pods:
      - {name: x/a, labels: {app: a}, ports: [8080/TCP]}
      - {name: x/b, labels: {app: b}, ports: [8080/TCP]}
      - {name: default/netproof-c, labels: {app: c}, ports: [8080/TCP]}
    services:
      - {name: x/svc, selector: {app: b}, ports: [8080/TCP]}
  steps:
    - {name: open, expect: {default: allow}}
    - name: isolated
      apply:
        - apiVersion: networking.k8s.io/v1
          kind: NetworkPolicy
          metadata: {name: deny, namespace: x}
          spec: {podSelector: {matchLabels: {app: b}}, policyTypes: [Ingress]}
        - apiVersion: crd.projectcalico.org/v1
          kind: GlobalNetworkPolicy
          metadata: {name: default.netproof-test}
          spec: {tier: default, order: 1, selector: nobody == 'has', types: [Ingress]}
      expect: {default: allow, rules: [{from: "*", to: x/b, verdict: deny}]}
    - name: changed
      apply:
        - apiVersion: networking.k8s.io/v1
          kind: NetworkPolicy
          metadata: {name: open, namespace: x}
          spec: {podSelector: {matchLabels: {app: z}}, policyTypes: [Egress], egress: [{}]}
      label: {pods: {x/a: {app: z}}, namespaces: {x: {team: red}, default: {netproof-test: red}}}
      create: {pods: [{name: x/d, ports: [8080/TCP]}]}
      expect: {default: allow, rules: [{from: "*", to: x/b, verdict: deny}]}
    - name: released
      delete: [NetworkPolicy/x/deny]
      remove: {pods: [x/d]}
      expect: {default: allow}
`

// prepare prepares a scenario for a cluster.
func prepare(t *testing.T, c cluster.Cluster, text string) *expect.Prepared {
	t.Helper()
	file := filepath.Join(t.TempDir(), "scenario.yaml")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	loaded, err := scenario.Load(t.Context(), []string{file}, scenario.Options{})
	require.NoError(t, err)
	prepared, err := expect.Prepare(loaded, expect.Options{Families: c.Info().IPFamilies, Nodes: c.Info().Nodes})
	require.NoError(t, err)
	return prepared
}

func TestARunWithTheRightsOfTheManifestIsGreenAndUsesThemAll(t *testing.T) {
	l := theLab(t)
	l.apply(t, agents)
	l.awaitAgents(t)
	l.apply(t, remains)
	l.deadLease(t)

	var asked recorder
	var said heard
	cfg := l.account()
	asked.Wrap(cfg)
	c, err := open(t.Context(), cfg, "the lab", Options{Image: digest, timing: &quick}, cluster.Options{}, said.add)
	require.NoError(t, err)
	said.contains(t, "has died: taking its Lease over")
	said.contains(t, "removed globalnetworkpolicies.crd.projectcalico.org left")
	for _, o := range left {
		assert.False(t, l.there(t, o), o)
	}
	assert.Equal(t, model.Cluster{
		Provider: "existing", Name: "the lab", CNI: model.CNI{Name: "calico", Version: "v3.30.1"}, Kubernetes: l.Info().Kubernetes,
		Nodes: 2, IPFamilies: []model.IPFamily{model.IPv4},
	}, c.Info())

	prepared := prepare(t, c, everything)
	result, _, err := run.Run(t.Context(), asAccount{l.Cluster, c}, prepared, run.Options{Allow: scenario.Reaches()})
	require.NoError(t, err)
	assert.Equal(t, model.ExitOK, model.ExitCode(result), "%+v", result.Findings)
	require.NoError(t, c.Close(t.Context()))
	again, err := open(t.Context(), cfg, "the lab", Options{Image: digest, timing: &quick}, cluster.Options{}, said.add)
	require.NoError(t, err)
	require.NoError(t, again.Close(t.Context()))

	leases, err := l.client.CoordinationV1().Leases(lease.Namespace).List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	assert.Empty(t, leases.Items, "the Lease is given back")

	grants := Grants(labRights)
	assert.Empty(t, asked.Uncovered(grants))
	// What only a cluster with kubelets, with Cilium, or with an API server before 1.26 shows. The other policies are
	// like the one.
	assert.Equal(t, []string{
		"create pods/exec", "deletecollection pods", "get /api/*", "get /apis/*", "get configmaps", "get pods/exec",
	}, slices.DeleteFunc(asked.Unused(grants), func(right string) bool {
		_, kind, _ := strings.Cut(right, " ")
		return strings.Contains(kind, ".policy.") || strings.HasSuffix(kind, "projectcalico.org") && kind != "globalnetworkpolicies.crd.projectcalico.org"
	}))
}

// awaitAgents waits until the DaemonSet of the agents is as it should be.
func (l *lab) awaitAgents(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		sets := l.client.AppsV1().DaemonSets("kube-system")
		assert.NoError(t, sets.Delete(soon(t), "calico-node", metav1.DeleteOptions{}))
		eventually(t, "agents go", func() bool {
			pods, err := l.client.CoreV1().Pods("kube-system").List(soon(t), metav1.ListOptions{LabelSelector: "k8s-app=calico-node"})
			return err == nil && len(pods.Items) == 0
		})
	})
	eventually(t, "agents are ready", func() bool {
		set, err := l.client.AppsV1().DaemonSets("kube-system").Get(soon(t), "calico-node", metav1.GetOptions{})
		return err == nil && set.Status.NumberReady == 2
	})
}

func TestWhatADeadRunLeftIsRemovedAndNothingElse(t *testing.T) {
	l := theLab(t)
	l.apply(t, remains)
	l.apply(t, notOurs)
	l.deadLease(t)
	alive, err := lease.Acquire(t.Context(), l.client, lease.Options{RunID: "alive001", NamespacePrefix: "other-", Timing: &quick})
	require.NoError(t, err)
	l.apply(t, `{apiVersion: v1, kind: Namespace, metadata: {name: other-x, labels: {netproof.dev/managed-by: netproof, netproof.dev/run: alive001}}}`)
	itself := object("leases.coordination.k8s.io", lease.Namespace, "netproof", "dead0001")
	all := slices.SortedFunc(slices.Values(append(slices.Clone(left), itself)), byText)
	living := stay("run alive001", "its Lease netproof-system/netproof-other is alive, on host "+machine(t))
	clean := func(opts sweep.Options) (sweep.Removed, error) {
		opts.Timing = &quick
		removed, err := sweep.Cleanup(soon(t), l.account(), opts)
		slices.SortFunc(removed.Objects, byText)
		return removed, err
	}

	t.Run("young runs are left alone", func(t *testing.T) {
		removed, err := clean(sweep.Options{OlderThan: time.Hour})
		require.NoError(t, err)
		assert.Empty(t, removed.Objects)
		require.Len(t, removed.Stays, 2)
		assert.Contains(t, removed.Stays[0].String(), "left alone: run alive001: it made something")
		assert.Contains(t, removed.Stays[1].String(), "only what is older than 1h0m0s was asked for")
	})
	t.Run("another run is left alone", func(t *testing.T) {
		removed, err := clean(sweep.Options{RunID: "0000"})
		require.NoError(t, err)
		assert.Equal(t, sweep.Removed{}, removed)
	})
	t.Run("a dry run removes nothing", func(t *testing.T) {
		removed, err := clean(sweep.Options{DryRun: true})
		require.NoError(t, err)
		assert.Equal(t, sweep.Removed{Objects: all, Restored: []string{"kube-system"}, Stays: []sweep.Stay{living}}, removed)
		for _, o := range all {
			assert.True(t, l.there(t, o), o)
		}
	})
	t.Run("the dead one's remains go", func(t *testing.T) {
		var said heard
		removed, err := clean(sweep.Options{Progress: said.add})
		require.NoError(t, err)
		assert.Equal(t, sweep.Removed{Objects: all, Restored: []string{"kube-system"}, Stays: []sweep.Stay{living}}, removed)
		for _, o := range all {
			assert.False(t, l.there(t, o), o)
			said.contains(t, "removed "+o.String())
		}
		for _, o := range append(slices.Clone(untouched), object("namespaces", "", "other-x", "")) {
			assert.True(t, l.there(t, o), o)
		}
		ns, err := l.client.CoreV1().Namespaces().Get(t.Context(), "kube-system", metav1.GetOptions{})
		require.NoError(t, err)
		assert.NotContains(t, ns.Labels, "team")
		assert.Equal(t, "here", ns.Labels["was"])
		assert.NotContains(t, ns.Annotations, cluster.RestoreAnnotation)
		require.NoError(t, alive.Err())
	})
	t.Run("there is nothing to do the second time", func(t *testing.T) {
		removed, err := clean(sweep.Options{RunID: "dead0001"})
		require.NoError(t, err)
		assert.Equal(t, sweep.Removed{}, removed)
	})
	require.NoError(t, alive.Release(t.Context()))
}

func TestWhatARunCouldNotRemoveIsRemovedByTheNext(t *testing.T) {
	l := theLab(t)
	var said heard
	take := func(id string) *lease.Lease {
		held, err := sweep.Hold(soon(t), l.account(), nil, lease.Options{RunID: id, Progress: said.add, Timing: &quick})
		require.NoError(t, err)
		return held
	}
	leases := func() []coordinationv1.Lease {
		list, err := l.client.CoordinationV1().Leases(lease.Namespace).List(soon(t), metav1.ListOptions{})
		require.NoError(t, err)
		return list.Items
	}
	one := take("one")
	l.apply(t, `{apiVersion: v1, kind: Namespace, metadata: {name: left, labels: {netproof.dev/managed-by: netproof, netproof.dev/run: one}}}`)
	require.NoError(t, one.Release(t.Context()))
	require.Len(t, leases(), 1)
	assert.Nil(t, leases()[0].Spec.HolderIdentity, "nobody has to wait for it")
	assert.True(t, l.there(t, object("namespaces", "", "left", "one")))

	two := take("two")
	assert.Equal(t, []string{"one"}, two.Previous())
	said.contains(t, "removing what run one left")
	assert.False(t, l.there(t, object("namespaces", "", "left", "one")))
	require.NoError(t, two.Release(t.Context()))
	assert.Empty(t, leases())
}

func byText(a, b sweep.Object) int { return strings.Compare(a.String(), b.String()) }

func machine(t *testing.T) string {
	t.Helper()
	name, err := os.Hostname()
	require.NoError(t, err)
	return name
}

func TestCleanUpNamesWhatItCannotRemove(t *testing.T) {
	l := theLab(t)
	l.apply(t, `
apiVersion: v1
kind: Namespace
metadata: {name: held, labels: {netproof.dev/managed-by: netproof, netproof.dev/run: dead0001}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: held
  namespace: held
  finalizers: [netproof.dev/held]
  labels: {netproof.dev/managed-by: netproof, netproof.dev/run: dead0001}
spec: {podSelector: {}}
---
apiVersion: v1
kind: Service
metadata: {name: free, namespace: default, labels: {netproof.dev/managed-by: netproof, netproof.dev/run: dead0001}}
spec: {ports: [{port: 80}]}
`)
	t.Cleanup(func() {
		_, err := l.client.NetworkingV1().NetworkPolicies("held").Patch(soon(t), "held", types.MergePatchType,
			[]byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
		assert.NoError(t, err)
	})
	why := errors.New("no more time")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 8*time.Second, why) // all calls get through before
	defer cancel()
	removed, err := sweep.Cleanup(ctx, l.admin, sweep.Options{Timing: &quick})
	require.ErrorIs(t, err, why)
	require.ErrorContains(t, err, "networkpolicies.networking.k8s.io held/held of run dead0001 is still there, held by its finalizers netproof.dev/held")
	require.ErrorContains(t, err, "kubectl patch networkpolicies.networking.k8s.io held -n held --type=merge")
	require.ErrorContains(t, err, "namespaces held of run dead0001 is still there")
	assert.Equal(t, []sweep.Object{object("services", "default", "free", "dead0001")}, removed.Objects)
}

func TestCleanUpSaysWhatItMayNotDo(t *testing.T) {
	l := theLab(t)
	l.apply(t, remains)
	l.apply(t, `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader}
rules:
- {apiGroups: [""], resources: [namespaces, pods, services], verbs: [get, list]}
- {apiGroups: [networking.k8s.io], resources: [networkpolicies], verbs: [get, list]}
- {apiGroups: [coordination.k8s.io], resources: [leases], verbs: [list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: reader}
subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: reader}]
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}
`)
	// The API server hears of new roles through a watch of its own.
	reader, err := kubernetes.NewForConfig(l.as("reader"))
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		_, err := reader.CoreV1().Namespaces().Get(soon(t), "default", metav1.GetOptions{})
		return err == nil
	}, 10*time.Second, 20*time.Millisecond)
	removed, err := sweep.Cleanup(soon(t), l.as("reader"), sweep.Options{Timing: &quick})
	require.ErrorContains(t, err, "delete networkpolicies.networking.k8s.io default/left of run dead0001")
	require.ErrorContains(t, err, "delete namespaces x of run dead0001")
	require.ErrorContains(t, err, "restore the labels of namespace kube-system")
	assert.Empty(t, removed.Objects)
	assert.Contains(t, removed.Stays, stay("objects of crd.projectcalico.org", "they may not be listed, so they were not looked at"))

	_, err = sweep.Cleanup(soon(t), l.admin, sweep.Options{Timing: &quick})
	require.NoError(t, err)
}

func TestARealAPIServer(t *testing.T) {
	l := theLab(t)
	take := func(id string) (*lease.Lease, error) {
		return lease.Acquire(soon(t), mustClient(t, l.account()), lease.Options{RunID: id, Timing: &quick})
	}
	one, err := take("one")
	require.NoError(t, err)
	_, err = take("two")
	require.ErrorIs(t, err, lease.ErrBusy)
	require.NoError(t, one.Err())
	require.NoError(t, one.Release(t.Context()))

	cfg, cut := cuttable(t, l.account())
	two, err := lease.Acquire(soon(t), mustClient(t, cfg), lease.Options{RunID: "two", Timing: &quick})
	require.NoError(t, err)
	assert.Empty(t, two.Previous())
	cut()
	three, err := take("three")
	require.NoError(t, err)
	assert.Equal(t, []string{"two"}, three.Previous())
	require.NoError(t, l.client.CoordinationV1().Leases(lease.Namespace).Delete(t.Context(), "netproof", metav1.DeleteOptions{}))
	eventually(t, "the loss is noticed", func() bool { return three.Err() != nil })
	require.ErrorIs(t, three.Err(), lease.ErrLost)
	require.NoError(t, three.Release(t.Context()))

	_, err = lease.Acquire(soon(t), mustClient(t, l.as("nobody")), lease.Options{RunID: "four", Timing: &quick})
	require.ErrorContains(t, err, "netproof rbac")
}

func mustClient(t *testing.T, cfg *rest.Config) kubernetes.Interface {
	t.Helper()
	client, err := kubernetes.NewForConfig(cfg)
	require.NoError(t, err)
	return client
}

// kubeconfig writes the access of somebody into a file.
func (l *lab) kubeconfig(t *testing.T, cfg *rest.Config) string {
	t.Helper()
	out := clientcmdapi.NewConfig()
	out.Clusters["lab"] = &clientcmdapi.Cluster{Server: cfg.Host, CertificateAuthorityData: cfg.CAData, CertificateAuthority: cfg.CAFile}
	out.AuthInfos["user"] = &clientcmdapi.AuthInfo{
		Token: cfg.BearerToken, Impersonate: cfg.Impersonate.UserName, ImpersonateGroups: cfg.Impersonate.Groups,
	}
	out.Contexts["lab"] = &clientcmdapi.Context{Cluster: "lab", AuthInfo: "user"}
	out.CurrentContext = "lab"
	path := filepath.Join(t.TempDir(), "config")
	require.NoError(t, clientcmd.WriteToFile(*out, path))
	return path
}

func TestAClusterIsOpenedFromAKubeconfig(t *testing.T) {
	l := theLab(t)
	opts := Options{Kubeconfig: l.kubeconfig(t, l.account()), Image: "registry.example/netproof:v1", timing: &quick}
	l.apply(t, `{apiVersion: v1, kind: Namespace, metadata: {name: mine}}`)
	l.apply(t, `{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: mine}, spec: {containers: [{name: c, image: i}]}}`)
	eventually(t, "a pod has an address", func() bool {
		pod, err := l.client.CoreV1().Pods("mine").Get(soon(t), "a", metav1.GetOptions{})
		return err == nil && pod.Status.PodIP != "" && pod.Status.Phase == "Running"
	})

	var said heard
	got, err := New(opts).Create(soon(t), cluster.Options{Nodes: 1, IPFamilies: []model.IPFamily{model.IPv4}, Progress: said.add})
	require.NoError(t, err)
	assert.Equal(t, "lab", got.Info().Name)
	assert.Equal(t, 1, got.Info().Nodes)
	assert.Len(t, got.Nodes(), 1)
	assert.Equal(t, "unknown", got.Info().CNI.Name)
	said.contains(t, "is named by a tag")
	said.contains(t, "no network plugin was recognised")
	require.NoError(t, got.Health(t.Context()))
	id := got.(cluster.Identified).RunID()

	_, err = New(opts).Create(soon(t), cluster.Options{})
	var busy *lease.BusyError
	require.ErrorAs(t, err, &busy)
	assert.Equal(t, id, busy.RunID)
	require.ErrorContains(t, err, "use cluster lab")
	beside := opts
	beside.NamespacePrefix = "beside-"
	other, err := New(beside).Create(soon(t), cluster.Options{Progress: said.add})
	require.NoError(t, err, "a prefix of its own lets a run in")
	require.NoError(t, other.Close(t.Context()))

	checks := Doctor(soon(t), Options{Kubeconfig: opts.Kubeconfig, Image: digest})
	states := map[string]check.State{}
	for _, c := range checks {
		states[c.Name] = c.State
	}
	assert.Equal(t, check.Limited, states["lease"], "another run has it")
	assert.Equal(t, check.OK, states["right to pods/exec"])
	assert.False(t, check.Missed(checks), "%+v", checks)

	require.NoError(t, l.client.CoordinationV1().Leases(lease.Namespace).Delete(t.Context(), "netproof", metav1.DeleteOptions{}))
	eventually(t, "the loss is noticed", func() bool { return got.Health(t.Context()) != nil })
	require.ErrorIs(t, got.Health(t.Context()), lease.ErrLost)
	require.NoError(t, got.Close(t.Context()))

	_, err = New(opts).Create(soon(t), cluster.Options{IPFamilies: []model.IPFamily{model.IPv6}})
	require.ErrorContains(t, err, "no IPv6 addresses, only IPv4")
	_, err = New(opts).Create(soon(t), cluster.Options{Nodes: 9})
	require.ErrorContains(t, err, "2 nodes take pods, and --nodes asks for 9")
	opts.Kubeconfig = l.kubeconfig(t, l.as("nobody"))
	_, err = New(opts).Create(soon(t), cluster.Options{})
	require.ErrorContains(t, err, "netproof rbac")
}

func TestAReviewTellsWhichRightsAreMissing(t *testing.T) {
	l := theLab(t)
	grants := Grants(labRights)
	for _, c := range Review(soon(t), mustClient(t, l.account()), grants) {
		assert.Equal(t, check.OK, c.State, "%+v", c)
	}
	for i, c := range Review(soon(t), mustClient(t, l.as("nobody")), grants) {
		switch g := grants[i]; {
		case len(g.Rule.NonResourceURLs) > 0:
			assert.Equal(t, check.OK, c.State, "everybody may")
		case g.Optional != "":
			assert.Equal(t, check.Limited, c.State, "%+v", c)
			assert.Contains(t, c.Detail, g.Optional)
		default:
			assert.Equal(t, check.Missing, c.State, "%+v", c)
			assert.Contains(t, c.Detail, "may not "+g.Rule.Verbs[0]+" "+g.Rule.Resources[0])
			assert.Contains(t, c.Fix, "netproof rbac")
		}
	}
}

func TestAnAPIServerTakesTheJobsAndTheirPods(t *testing.T) {
	l := theLab(t)
	text, err := os.ReadFile(jobFile)
	require.NoError(t, err)
	_, objects, found := strings.Cut(string(text), rightsEnd)
	require.True(t, found)
	l.apply(t, objects)
	t.Cleanup(func() {
		background := metav1.DeletePropagationBackground
		opts := metav1.DeleteOptions{PropagationPolicy: &background}
		assert.NoError(t, l.client.BatchV1().Jobs(lease.Namespace).DeleteCollection(soon(t), opts, metav1.ListOptions{}))
		assert.NoError(t, l.client.CoreV1().ConfigMaps(lease.Namespace).Delete(soon(t), "netproof-scenarios", metav1.DeleteOptions{}))
	})
	jobs, err := l.client.BatchV1().Jobs(lease.Namespace).List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	require.Len(t, jobs.Items, 2)
	for _, job := range jobs.Items {
		// The namespace enforces the level restricted.
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: job.Name, Labels: job.Spec.Template.Labels}, Spec: job.Spec.Template.Spec}
		_, err := l.client.CoreV1().Pods(lease.Namespace).Create(t.Context(), pod, metav1.CreateOptions{
			DryRun: []string{metav1.DryRunAll}, FieldValidation: metav1.FieldValidationStrict,
		})
		require.NoError(t, err)
		pod.Spec.HostNetwork = true
		_, err = l.client.CoreV1().Pods(lease.Namespace).Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		require.ErrorContains(t, err, "restricted", "the namespace does enforce it")
	}
}
