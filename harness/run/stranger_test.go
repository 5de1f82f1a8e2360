//go:build linux

package run

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/scenario"
)

// tenant makes a pod of somebody else that runs, and removes it after the test.
func (l *lab) tenant(t *testing.T, ns, name string, labels map[string]string) *corev1.Pod {
	t.Helper()
	pods := l.client.CoreV1().Pods(ns)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
		Spec:       corev1.PodSpec{NodeName: l.Nodes()[0].Name, Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}
	_, err := pods.Create(soon(t), pod, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() {
		zero := int64(0)
		assert.NoError(t, pods.Delete(soon(t), name, metav1.DeleteOptions{GracePeriodSeconds: &zero}))
		eventually(t, func() string {
			if _, err := pods.Get(soon(t), name, metav1.GetOptions{}); err == nil {
				return "pod " + name + " is still there"
			}
			return ""
		})
	})
	var got *corev1.Pod
	eventually(t, func() string {
		if got, err = pods.Get(soon(t), name, metav1.GetOptions{}); err != nil || !podIsReady(got) {
			return "pod " + name + " is not ready"
		}
		return ""
	})
	return got
}

// front makes a service of somebody else, and removes it after the test.
func (l *lab) front(t *testing.T, ns, name string, selector map[string]string) {
	t.Helper()
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone, Selector: selector, Ports: []corev1.ServicePort{{Port: 80}}},
	}
	_, err := l.client.CoreV1().Services(ns).Create(soon(t), svc, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, l.client.CoreV1().Services(ns).Delete(soon(t), name, metav1.DeleteOptions{}))
	})
}

// decoy puts a pod, and a service in front of pods like it, into default, beside a namespace of its own.
const decoy = `
  topology:
    namespaces: [{name: x}, {name: default}]
    pods:
      - {name: x/a, labels: {app: a}, ports: [80/TCP]}
      - {name: default/decoy, labels: {app: admin-ui}, ports: [80/TCP]}
`

// refusedBecause requires that nothing was made on the cluster, and why.
func refusedBecause(t *testing.T, l *lab, opts Options, text string, why ...string) {
	t.Helper()
	before := l.left(t)
	made := false
	f := withFakes(l)
	f.reached = func(*corev1.Pod) { made = true }
	_, _, err := Run(t.Context(), f, prepare(t, text), opts)
	var problems scenario.Problems
	require.ErrorAs(t, err, &problems)
	for _, part := range why {
		assert.ErrorContains(t, err, part)
	}
	assert.False(t, made, "not even the canaries")
	assert.Equal(t, before, l.left(t))
}

func TestOnACommonClusterWhatReachesBeyondTheScenarioIsRefused(t *testing.T) {
	l := sharedCluster(t)
	text := scene("decoy", decoy, "  steps: [{name: s, expect: {default: allow}}]")
	refusedBecause(t, l, Options{}, text, "the namespace `default`", "--allow default")
	refusedBecause(t, l, Options{Allow: []scenario.Reach{scenario.ReachKubeSystem}}, text, "the namespace `default`")
	green(t, play(t, l, Options{Allow: []scenario.Reach{scenario.ReachDefault}}, text))
}

// allowed are the options of a run that may do everything on a cluster that others use.
var allowed = Options{Allow: scenario.Reaches()}

func TestNoServiceOfTheRunLeadsToPodsOfOthers(t *testing.T) {
	l := sharedCluster(t)
	l.tenant(t, "default", "admin-ui-0", map[string]string{"app": "admin-ui"})
	exposed := decoy + "    services: [{name: default/expose, selector: {app: admin-ui}, type: NodePort, ports: [80]}]\n"
	refusedBecause(t, l, allowed, scene("expose", exposed, "  steps: [{name: s, expect: {default: allow}}]"),
		"0.scenario.yaml:11:16: ", "service default/expose selects pod default/admin-ui-0, which is not of this run")

	// With labels of its own it leads to nobody else.
	own := scene("own", `
  topology:
    namespaces: [{name: x}, {name: default}]
    pods:
      - {name: x/a, labels: {app: a}, ports: [80/TCP]}
      - {name: default/decoy, labels: {app: own}, ports: [80/TCP]}
    services: [{name: default/expose, selector: {app: own}, ports: [80]}]
  probes: [{from: x/a, to: default/expose, via: service}]
  steps: [{name: s, expect: {default: allow}}]`)
	green(t, play(t, l, allowed, own))
}

func TestNoPodOfTheRunJoinsAServiceOfOthers(t *testing.T) {
	l := sharedCluster(t)
	l.front(t, "default", "admin-ui", map[string]string{"app": "admin-ui"})
	why := "pod default/decoy would be behind service default/admin-ui, which is not of this run"
	refusedBecause(t, l, allowed, scene("joins", decoy, "  steps: [{name: s, expect: {default: allow}}]"), "0.scenario.yaml:10:9: ", why)
	refusedBecause(t, l, allowed, scene("created", `
  topology:
    namespaces: [{name: x}, {name: default}]
    pods:
      - {name: x/a, labels: {app: a}, ports: [80/TCP]}
      - {name: x/b, labels: {app: b}, ports: [80/TCP]}
  steps:
    - {name: before, expect: {default: allow}}
    - name: created
      create: {pods: [{name: default/decoy, labels: {app: admin-ui}, ports: [80/TCP]}]}
      expect: {default: allow}`), why)
	refusedBecause(t, l, allowed, scene("labelled", `
  topology:
    namespaces: [{name: x}, {name: default}]
    pods:
      - {name: x/a, labels: {app: a}, ports: [80/TCP]}
      - {name: default/decoy, labels: {app: b}, ports: [80/TCP]}
  steps:
    - {name: before, expect: {default: allow}}
    - name: labelled
      label: {pods: {default/decoy: {app: admin-ui}}}
      expect: {default: allow}`), why)
}

func TestWhoeverJoinsDuringARunIsNamed(t *testing.T) {
	l := sharedCluster(t)
	text := scene("joined", decoy, "    services: [{name: default/expose, selector: {app: admin-ui}, ports: [80]}]", `
  steps:
    - {name: before, expect: {default: allow}}
    - {name: after, expect: {default: allow}}`)
	for name, tc := range map[string]struct {
		do   func(t *testing.T)
		says string
	}{
		"a service": {
			func(t *testing.T) { l.front(t, "default", "late", map[string]string{"app": "admin-ui"}) },
			"pod default/decoy would be behind service default/late, which is not of this run",
		},
		"a service in a namespace of the run": {
			func(t *testing.T) {
				svc := &corev1.Service{
					ObjectMeta: metav1.ObjectMeta{Name: "late"},
					Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "a"}, Ports: []corev1.ServicePort{{Port: 80}}},
				}
				_, err := l.client.CoreV1().Services("x").Create(soon(t), svc, metav1.CreateOptions{})
				require.NoError(t, err)
			},
			"pod x/a would be behind service x/late, which is not of this run",
		},
		"a pod": {
			func(t *testing.T) { l.tenant(t, "default", "late", map[string]string{"app": "admin-ui"}) },
			"service default/expose selects pod default/late, which is not of this run",
		},
		"an EndpointSlice": {
			func(t *testing.T) {
				slices := l.client.DiscoveryV1().EndpointSlices("default")
				_, err := slices.Create(soon(t), &discoveryv1.EndpointSlice{
					ObjectMeta:  metav1.ObjectMeta{Name: "late", Labels: map[string]string{discoveryv1.LabelServiceName: "kubernetes"}},
					AddressType: discoveryv1.AddressTypeIPv4,
					Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{l.pod(t, "default/decoy").Status.PodIP}}},
				}, metav1.CreateOptions{})
				require.NoError(t, err)
				t.Cleanup(func() { assert.NoError(t, slices.Delete(soon(t), "late", metav1.DeleteOptions{})) })
			},
			"EndpointSlice default/late of service default/kubernetes, which is not of this run, leads to pod default/decoy",
		},
	} {
		t.Run(name, func(t *testing.T) {
			opts := allowed
			opts.AfterSampling = at("after", func() { tc.do(t) })
			r := play(t, l, opts, text)
			notGreen(t, r)
			onlyPassed(t, stepOf(t, r, "before"))
			found(t, r, model.Control, `step "after": `+tc.says)
		})
	}
}

func TestPoliciesOfOthersThatSelectPodsOfTheRunAreNamed(t *testing.T) {
	l := sharedCluster(t)
	text := scene("decoy", decoy, "  steps: [{name: s, expect: {default: allow}}]")
	policies := l.client.NetworkingV1().NetworkPolicies("default")
	policy := func(name string, selector map[string]string) *networkingv1.NetworkPolicy {
		return &networkingv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: networkingv1.NetworkPolicySpec{
				PodSelector: metav1.LabelSelector{MatchLabels: selector}, PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
				Ingress: []networkingv1.NetworkPolicyIngressRule{{}},
			},
		}
	}
	t.Run("one that selects others does not matter", func(t *testing.T) {
		_, err := policies.Create(soon(t), policy("tenants", map[string]string{"app": "tenant"}), metav1.CreateOptions{})
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, policies.Delete(soon(t), "tenants", metav1.DeleteOptions{})) })
		green(t, play(t, l, allowed, text))
	})
	t.Run("a NetworkPolicy", func(t *testing.T) {
		_, err := policies.Create(soon(t), policy("tenants", map[string]string{"app": "admin-ui"}), metav1.CreateOptions{})
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, policies.Delete(soon(t), "tenants", metav1.DeleteOptions{})) })
		r := play(t, l, allowed, text)
		notGreen(t, r)
		found(t, r, model.Control, "NetworkPolicy default/tenants, which is not of this run, selects pod default/decoy")
	})
	global := func(t *testing.T, spec map[string]any) {
		t.Helper()
		client, err := dynamic.NewForConfig(l.RESTConfig())
		require.NoError(t, err)
		policies := client.Resource(schema.GroupVersionResource{Group: "crd.projectcalico.org", Version: "v1", Resource: "globalnetworkpolicies"})
		_, err = policies.Create(soon(t), &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "crd.projectcalico.org/v1", "kind": "GlobalNetworkPolicy", "metadata": map[string]any{"name": "default.tenants"}, "spec": spec,
		}}, metav1.CreateOptions{})
		require.NoError(t, err)
		t.Cleanup(func() {
			assert.NoError(t, policies.Delete(context.WithoutCancel(soon(t)), "default.tenants", metav1.DeleteOptions{}))
		})
	}
	open := []any{map[string]any{"action": "Allow"}}
	t.Run("a policy of the plugin's that selects others", func(t *testing.T) {
		global(t, map[string]any{"selector": "app == 'tenant'", "types": []any{"Ingress"}, "ingress": open})
		green(t, play(t, l, allowed, text))
	})
	t.Run("a policy of the plugin's", func(t *testing.T) {
		global(t, map[string]any{"selector": "app == 'a'", "types": []any{"Ingress"}, "ingress": open})
		r := play(t, l, allowed, text)
		notGreen(t, r)
		found(t, r, model.Control, "GlobalNetworkPolicy default.tenants, which is not of this run, selects pod x/a")
	})
	t.Run("a policy that cuts the canaries off", func(t *testing.T) {
		global(t, map[string]any{"selector": "all()", "types": []any{"Ingress"}, "order": int64(1), "ingress": []any{map[string]any{"action": "Deny"}}})
		opts := allowed
		opts.tune = (*pace).hurry
		r := play(t, l, opts, text)
		notGreen(t, r)
		found(t, r, model.NoConnectivity, "GlobalNetworkPolicy default.tenants, which is not of this run, selects pod netproof-canary/canary-0")
	})
}

func TestOnAClusterOfItsOwnARunMayReachAnywhere(t *testing.T) {
	assert.Empty(t, (&session{opts: Options{Disposable: true}}).beyond(prepare(t, scene("decoy", decoy, "  steps: [{name: s, expect: {default: allow}}]")).Scenarios()[0]))
}

// helm has the label that every chart of Helm sets, wherever a file can have labels.
const helm = `
  topology:
    namespaces: [{name: x, labels: {app.kubernetes.io/managed-by: Helm}}, {name: default}]
    pods:
      - {name: x/a, labels: {app: a, app.kubernetes.io/managed-by: Helm}, ports: [80/TCP]}
      - {name: x/b, labels: {app: b, app.kubernetes.io/managed-by: Helm}, ports: [80/TCP]}
      - {name: x/c, labels: {app: c}, ports: [80/TCP]}
      - {name: default/d, labels: {app: d}, ports: [80/TCP]}
    services: [{name: x/b, selector: {app: b}, ports: [80]}]
  probes: [{from: "*", to: "*"}, {from: x/a, to: x/b, via: service}]
  steps:
    - name: by the label of charts
      apply:
        - apiVersion: networking.k8s.io/v1
          kind: NetworkPolicy
          metadata: {name: charts, namespace: x, labels: {app.kubernetes.io/managed-by: Helm}}
          spec:
            podSelector: {matchExpressions: [{key: app.kubernetes.io/managed-by, operator: Exists}]}
            policyTypes: [Ingress]
        - apiVersion: networking.k8s.io/v1
          kind: NetworkPolicy
          metadata: {name: open, namespace: default, labels: {app.kubernetes.io/managed-by: Helm}}
          spec: {podSelector: {matchLabels: {app: d}}, ingress: [{}]}
        - apiVersion: crd.projectcalico.org/v1
          kind: GlobalNetworkPolicy
          metadata: {name: default.charts, labels: {app.kubernetes.io/managed-by: Helm}}
          spec: {tier: default, selector: nobody == 'has', types: [Ingress]}
      expect: {default: allow, rules: [{from: "*", to: x/a, verdict: deny}, {from: "*", to: x/b, verdict: deny}]}
`

func TestALabelThatChartsSetIsTheFilesAndHidesNothingFromTheRun(t *testing.T) {
	l := sharedCluster(t)
	var unmarked []string
	opts := allowed
	opts.AfterSampling = at("by the label of charts", func() {
		dyn, err := dynamic.NewForConfig(l.RESTConfig())
		require.NoError(t, err)
		for _, kind := range []schema.GroupVersionResource{
			{Version: "v1", Resource: "namespaces"}, {Version: "v1", Resource: "pods"}, {Version: "v1", Resource: "services"},
			{Group: "networking.k8s.io", Version: "v1", Resource: "networkpolicies"},
			{Group: "crd.projectcalico.org", Version: "v1", Resource: "globalnetworkpolicies"},
		} {
			count := func(selector string) int {
				list, err := dyn.Resource(kind).List(soon(t), metav1.ListOptions{LabelSelector: selector})
				require.NoError(t, err)
				for _, o := range list.Items {
					name := strings.TrimPrefix(o.GetNamespace()+"/"+o.GetName(), "/")
					if !strings.HasPrefix(name, "default") && !strings.HasPrefix(name, "kube-") && o.GetLabels()[cluster.OwnLabel] == "" {
						unmarked = append(unmarked, kind.Resource+" "+name)
					}
				}
				return len(list.Items)
			}
			assert.NotZero(t, count(cluster.RunsSelector), kind.Resource)
			count("")
		}
	})
	green(t, play(t, l, opts, scene("charts", helm)))
	assert.Empty(t, unmarked)
}
