//go:build linux

package run

import (
	"context"
	"io/fs"
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/netproof/netproof/fixtures"
	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/expect"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/scenario"
	"github.com/netproof/netproof/probes"
)

// moving is a scenario that changes all that a step can change.
var moving = scene("moving", trio, "  steps:", `
    - name: other labels
      label: {pods: {x/a: {app: null, role: guest}, x/c: {app: a}}, namespaces: {x: {team: red, new: "yes"}}}`+isolateB+`
      expect:
        default: allow
        rules:
          - {from: x/a, to: x/b, verdict: deny}
    - name: pods go and come
      remove: {pods: [x/c]}
      create:
        pods:
          - {name: x/d, node: 1, labels: {app: a}, ports: [80/TCP]}
      delete: [NetworkPolicy/x/isolate-b]
      expect: {default: allow}
    - name: a pod comes back as another one
      create: {pods: [{name: x/c, node: 1, labels: {app: c}, ports: [81/TCP]}]}`+isolateB+`
      expect:
        default: allow
        rules:
          - {from: "*", to: x/b, verdict: deny}
          - {from: x/d, to: x/b, verdict: allow}`)

// stand is what the pods and the namespace of a scenario look like.
func (l *lab) stand(t *testing.T) (uids map[string]types.UID, labels map[string]map[string]string) {
	t.Helper()
	uids, labels = map[string]types.UID{}, map[string]map[string]string{}
	pods, err := l.client.CoreV1().Pods("x").List(soon(t), metav1.ListOptions{})
	require.NoError(t, err)
	for _, p := range pods.Items {
		uids[p.Name], labels[p.Name] = p.UID, p.Labels
	}
	ns, err := l.client.CoreV1().Namespaces().Get(soon(t), "x", metav1.GetOptions{})
	require.NoError(t, err)
	labels["namespace"] = ns.Labels
	return uids, labels
}

func TestStepsAreUndoneAndPodsKeptForTheNextScenario(t *testing.T) {
	th := openTheatre(t)
	green(t, th.play(t, "", nil, nil, isolation("first")))
	uids, labels := th.lab.stand(t)
	require.Len(t, uids, 3)

	green(t, th.play(t, "", nil, nil, isolation("second")))
	again, _ := th.lab.stand(t)
	assert.Equal(t, uids, again, "the pods of an equal topology are kept")

	r := th.play(t, "", nil, nil, moving)
	green(t, r)
	after, labelsAfter := th.lab.stand(t)
	assert.Equal(t, labels, labelsAfter, "labels are restored")
	assert.Equal(t, slices.Sorted(maps.Keys(uids)), slices.Sorted(maps.Keys(after)), "pods are restored")
	assert.Equal(t, uids["a"], after["a"])
	assert.Equal(t, uids["b"], after["b"])
	assert.NotEqual(t, uids["c"], after["c"], "this one had been removed")
	assert.Equal(t, "node-0", th.lab.pod(t, "x/c").Spec.NodeName)
	policies, err := th.lab.client.NetworkingV1().NetworkPolicies("x").List(soon(t), metav1.ListOptions{})
	require.NoError(t, err)
	assert.Empty(t, policies.Items, "policies are removed")

	green(t, th.play(t, "", nil, nil, isolation("third")))
	last, _ := th.lab.stand(t)
	assert.Equal(t, after, last, "restored pods are as good as those that stayed")
}

func TestTimesAreTakenOfWhatChanged(t *testing.T) {
	th := openTheatre(t)
	r := th.play(t, "", nil, nil, isolation("times", `
    - name: open again
      delete: [NetworkPolicy/x/isolate-b]
      expect: {default: allow}`))
	green(t, r)
	open, isolated, again := stepOf(t, r, "open"), stepOf(t, r, "isolated"), stepOf(t, r, "open again")
	assert.Zero(t, open.EnforcedMs)
	assert.Zero(t, open.ReleasedMs)
	assert.Positive(t, open.SettledMs)
	assert.Positive(t, isolated.EnforcedMs)
	assert.Zero(t, isolated.ReleasedMs)
	assert.Greater(t, isolated.SettledMs, isolated.EnforcedMs, "settling takes its samples")
	assert.Zero(t, again.EnforcedMs)
	assert.Positive(t, again.ReleasedMs)

	cell := cells(isolated)["x/c x/b"]
	assert.Equal(t, isolated.EnforcedMs, cell.Evidence.EnforcedMs, "one cell had to change")
	assert.Equal(t, model.Dropped, cell.Manner)
	assert.GreaterOrEqual(t, cell.Samples, 3)
	assert.Zero(t, cells(isolated)["x/a x/b"].Evidence.EnforcedMs)
	assert.Equal(t, model.Answered, cells(isolated)["x/a x/b"].Manner)
	assert.Positive(t, cells(isolated)["x/a x/b"].Evidence.Seen)
}

func TestAPolicyThatSelectsNothingProvesNothing(t *testing.T) {
	l := sharedCluster(t)
	r := play(t, l, Options{}, scene("vacuous", trio, "  steps:", `
    - name: nobody
      apply:
        - apiVersion: networking.k8s.io/v1
          kind: NetworkPolicy
          metadata: {name: nobody, namespace: x}
          spec: {podSelector: {matchLabels: {app: nobody}}, policyTypes: [Ingress]}
      expect: {default: allow}`))
	assert.Equal(t, model.ExitVacuous, model.ExitCode(r))
	assert.Equal(t, model.Vacuous, r.Summary.Result)
	onlyPassed(t, stepOf(t, r, "nobody"))
	found(t, r, model.NothingProven, "NetworkPolicy x/nobody (0.scenario.yaml:17) selects no pod")
}

func TestWhatTheSpecificationLeavesOpenIsRecorded(t *testing.T) {
	th := openTheatre(t)
	r := th.play(t, "", nil, nil, scene("open-case", trio, `
  steps:
    - name: a is cut off from its node
      create: {pods: [{name: x/h, node: 0, hostNetwork: true, ports: [8099/TCP]}]}
      apply:
        - apiVersion: networking.k8s.io/v1
          kind: NetworkPolicy
          metadata: {name: no-egress, namespace: x}
          spec: {podSelector: {matchLabels: {app: a}}, policyTypes: [Egress]}
      expect:
        default: allow
        rules:
          - {from: x/a, to: "*", verdict: deny}
          - {from: x/a, to: x/h, verdict: undefined}`))
	step := stepOf(t, r, "a is cut off from its node")
	cell := cells(step)["x/a x/h"]
	assert.Equal(t, model.Recorded, cell.Result)
	assert.Equal(t, model.Undefined, cell.Expected)
	assert.Contains(t, []model.Verdict{model.Allow, model.Deny}, cell.Observed)
	assert.Equal(t, model.ExitOK, model.ExitCode(r), "it neither passes nor fails")
	for name, c := range cells(step) {
		if name != "x/a x/h" {
			assert.Equal(t, passed, c.Result, "%s: %s", name, c.Reason)
		}
	}
}

func TestSCTPIsProvenOrUnsupportedNeverFailed(t *testing.T) {
	l := sharedCluster(t)
	text, err := fs.ReadFile(fixtures.FS(), "core/ports/sctp/scenario.yaml")
	require.NoError(t, err)
	r := play(t, l, Options{}, string(text))
	assert.Equal(t, model.ExitOK, model.ExitCode(r))
	require.Len(t, r.Scenarios, 1)
	unsupported := 0
	for _, c := range r.Scenarios[0].Steps[0].Cells {
		if c.Result == model.ResultUnsupported {
			unsupported++
			assert.Equal(t, model.SCTP, c.Protocol, "%s: %s", c.ID, c.Reason)
			assert.Contains(t, c.Reason, "this kernel cannot send such a probe")
			continue
		}
		assert.Equal(t, passed, c.Result, "%s: %s", c.ID, c.Reason)
	}
	t.Logf("%d cells are unsupported by this kernel", unsupported)
	assert.Contains(t, []int{0, 6}, unsupported, "all SCTP cells, or none")
}

func TestNamespacesOfTheClusterKeepTheirLabels(t *testing.T) {
	l := sharedCluster(t)
	namespaces := l.client.CoreV1().Namespaces()
	_, err := namespaces.Patch(soon(t), "default", types.MergePatchType, []byte(`{"metadata":{"labels":{"mine":"kept","pod-security.kubernetes.io/audit":"restricted"}}}`), metav1.PatchOptions{})
	require.NoError(t, err)
	labels := func() (labels map[string]string, restore string) {
		ns, err := namespaces.Get(soon(t), "default", metav1.GetOptions{})
		require.NoError(t, err)
		return ns.Labels, ns.Annotations[cluster.RestoreAnnotation]
	}
	before, _ := labels()
	var during map[string]string
	var restore string
	opts := Options{Allow: []scenario.Reach{scenario.ReachDefault}, BeforeSampling: at("relabelled", func() { during, restore = labels() })}
	text := scene("default-namespace", `
  topology:
    namespaces: [{name: default, labels: {team: blue}}]
    pods:
      - {name: default/a, node: 0, labels: {app: a}, ports: [80/TCP]}
      - {name: default/b, node: 1, labels: {app: b}, ports: [80/TCP]}
  steps:
    - name: by label
      apply:
        - apiVersion: networking.k8s.io/v1
          kind: NetworkPolicy
          metadata: {name: from-blue, namespace: default}
          spec:
            podSelector: {}
            policyTypes: [Ingress]
            ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}]}]
      expect: {default: allow}
    - name: relabelled
      label: {namespaces: {default: {team: red}}}
      expect: {default: deny}`)
	green(t, play(t, l, opts, text))
	assert.Equal(t, "red", during["team"])
	assert.Equal(t, "kept", during["mine"])
	assert.Equal(t, "restricted", during["pod-security.kubernetes.io/audit"])
	assert.Regexp(t, `^\{"run":"[0-9a-f]{8}","labels":\{"team":null\},"before":\{"kubernetes.io/metadata.name":"default","mine":"kept",`+
		`"pod-security.kubernetes.io/audit":"restricted"\}\}$`, restore, "while it is changed, it says how it was")
	after, restore := labels()
	assert.Equal(t, before, after)
	assert.Empty(t, restore)

	// A run that crashed leaves both; the next one knows what was before.
	_, err = namespaces.Patch(soon(t), "default", types.MergePatchType,
		[]byte(`{"metadata":{"labels":{"team":"red"},"annotations":{"netproof.dev/restore-labels":"{\"run\":\"gone\",\"labels\":{\"team\":null}}"}}}`), metav1.PatchOptions{})
	require.NoError(t, err)
	green(t, play(t, l, opts, text))
	after, restore = labels()
	assert.Equal(t, before, after)
	assert.Empty(t, restore)

	// Somebody else changes what the namespace asks of pods meanwhile: that is theirs, and told.
	opts.AfterSampling = at("relabelled", func() {
		_, err := namespaces.Patch(soon(t), "default", types.MergePatchType, []byte(`{"metadata":{"labels":{"pod-security.kubernetes.io/audit":"baseline"}}}`), metav1.PatchOptions{})
		require.NoError(t, err)
	})
	r := play(t, l, opts, text)
	notGreen(t, r)
	found(t, r, model.Control, "the labels of namespace default were changed behind the run's back")
	found(t, r, model.Cleanup, `pod-security.kubernetes.io/audit is "baseline", and was "restricted" before`)
	after, restore = labels()
	assert.NotContains(t, after, "team")
	assert.Empty(t, restore)
	_, err = namespaces.Patch(soon(t), "default", types.MergePatchType, []byte(`{"metadata":{"labels":{"mine":null,"pod-security.kubernetes.io/audit":null}}}`), metav1.PatchOptions{})
	require.NoError(t, err)
}

func TestRunsOnOneClusterFollowEachOtherWithoutTraces(t *testing.T) {
	l := sharedCluster(t)
	for _, text := range []string{isolation("first"), moving} {
		green(t, play(t, l, Options{}, text))
		assert.Empty(t, l.left(t))
	}
}

func TestARunWithoutScenariosProvesNothing(t *testing.T) {
	l := sharedCluster(t)
	r, _, err := Run(t.Context(), l, &expect.Prepared{}, Options{})
	require.NoError(t, err)
	assert.Equal(t, model.ExitVacuous, model.ExitCode(r))
	assert.Empty(t, l.left(t), "not even the canaries")
}

func TestAStepThatCannotBeDoneEndsTheScenarioAndIsUndone(t *testing.T) {
	th := openTheatre(t)
	text := scene("stuck", trio, "  steps:",
		"    - name: open\n      expect: {default: allow}", `
    - name: a port twice
      create: {pods: [{name: x/h, node: 0, hostNetwork: true, ports: [8099/TCP]}]}
      expect: {default: allow}
    - name: never
      expect: {default: allow}`)
	// Somebody else has taken the name.
	r := th.play(t, "open", nil, func() {
		pod := th.lab.pod(t, "x/c")
		pod.ObjectMeta = metav1.ObjectMeta{Name: "h", Namespace: "x"}
		_, err := th.lab.client.CoreV1().Pods("x").Create(soon(t), pod, metav1.CreateOptions{})
		require.NoError(t, err)
	}, text)
	notGreen(t, r)
	assert.False(t, r.Complete)
	assert.Len(t, r.Scenarios[0].Steps, 1)
	found(t, r, model.Infrastructure, `step "a port twice": create pod x/h`)
	green(t, th.play(t, "", nil, nil, isolation("next")))
}

// The name of a pod is no proof: one that replaces another must itself be seen to connect. Where it came and went under
// a policy, it is run once more at the end.
func TestAPodThatCameAndWentUnderAPolicyIsRunOnceMoreForItsBaseline(t *testing.T) {
	th := openTheatre(t)
	text := scene("replacement", trio, `
  probes: [{from: "*", to: x/b}]
  steps:
    - name: isolated`+isolateB+`
      expect: {default: deny, rules: [{from: x/a, to: x/b, verdict: allow}]}
    - name: c goes
      remove: {pods: [x/c]}
      expect: {default: allow}
    - name: another c comes
      create: {pods: [{name: x/c, node: 0, labels: {app: c}, ports: [80/TCP]}]}
      expect: {default: deny, rules: [{from: x/a, to: x/b, verdict: allow}]}
    - name: and goes
      remove: {pods: [x/c]}
      expect: {default: allow}`)
	r := th.play(t, "", nil, nil, text)
	green(t, r)
}

func TestADenialWithoutAnyBaselineIsTakenBack(t *testing.T) {
	cell := model.Cell{ID: "id", From: "x/c", To: "x/b", Port: 80, Protocol: model.TCP, IPFamily: model.IPv4, Via: model.ViaPodIP, Observed: model.Deny, Result: model.Passed}
	judged := func(based bool, final map[model.Connection]string) model.Cell {
		pr := &proof{based: map[string]bool{"id": based}, out: model.Scenario{Steps: []model.Step{{Cells: []model.Cell{cell}}}}}
		pr.takeBack(final)
		return pr.out.Steps[0].Cells[0]
	}
	assert.Equal(t, model.Passed, judged(true, nil).Result)
	assert.Equal(t, model.Passed, judged(false, map[model.Connection]string{cell.Connection(): ""}).Result)
	never := judged(false, nil)
	assert.Equal(t, inconclusive, never.Result)
	assert.Contains(t, never.Reason, "this pair of pods was never seen to connect without policies")
	assert.Equal(t, inconclusive, judged(true, map[model.Connection]string{cell.Connection(): "timeout"}).Result)
}

// As long as the endpoints of a service are not its pods, what becomes of a connection through it says nothing about
// policies.
func TestServicesFollowThePodsBehindThem(t *testing.T) {
	th := openTheatre(t)
	green(t, th.play(t, "one pod", nil, func() {
		time.AfterFunc(time.Second, th.lab.pause(t, "kube-controller-manager"))
	}, scene("services", trio, `
    services: [{name: x/web, selector: {app: b}, ports: [80/TCP]}]
  probes: [{from: x/a, to: x/web, via: service}]
  steps:
    - name: one pod
      expect: {default: allow}
    - name: another pod instead
      remove: {pods: [x/b]}
      create: {pods: [{name: x/d, node: 0, labels: {app: b}, ports: [80/TCP]}]}
      expect: {default: allow}
    - name: a pod that came by its label
      label: {pods: {x/d: {app: d}, x/c: {app: b}}}
      expect: {default: allow}
    - name: denied`+isolateB+`
      label: {pods: {x/a: {app: z}}}
      expect: {default: deny}`)))
}

// While kube-proxy has not followed, a connection through a service goes to pods that are not there. That is no denial.
func TestServicesAreNotProbedBeforeTheNodesLeadToTheirPods(t *testing.T) {
	th := openTheatre(t)
	green(t, th.play(t, "one pod", nil, func() {
		for _, name := range []string{"node-0/kube-proxy", "node-1/kube-proxy"} {
			time.AfterFunc(3*time.Second, th.lab.pause(t, name))
		}
	}, scene("routes", trio, `
    services: [{name: x/web, selector: {app: b}, ports: [80/TCP]}]
  probes: [{from: x/a, to: x/web, via: service}]
  steps:
    - name: one pod
      expect: {default: allow}
    - name: another pod instead
      remove: {pods: [x/b]}
      create: {pods: [{name: x/d, node: 0, labels: {app: b}, ports: [80/TCP]}]}
      expect: {default: allow}`)))
	left, err := th.lab.client.CoreV1().Services("netproof-canary").List(soon(t), metav1.ListOptions{})
	require.NoError(t, err)
	assert.Empty(t, left.Items)
}

// Of scenarios on the same pods, the one's final control and the next one's baseline are the same measurement.
func TestAFinalControlIsTheBaselineOfWhatComesNext(t *testing.T) {
	th := openTheatre(t)
	probed := atomic.Int64{}
	// before plays isolation, and returns how many probes x/a sent before the first step.
	before := func(name string) int64 {
		sent := int64(-1)
		th.agent("x/a").tell(lies{probe: func(ctx context.Context, real probes.Agent, batch []probes.Request, deliver func(probes.Response)) error {
			probed.Add(int64(len(batch)))
			return real.Probe(ctx, batch, deliver)
		}})
		probed.Store(0)
		th.hooks(at("open", func() { sent = probed.Load() }), at("", nil))
		green(t, th.playHooked(t, isolation(name)))
		return sent
	}
	green(t, th.play(t, "", nil, nil, isolation("first")))
	assert.Zero(t, before("at-once"))
	th.session.last.at = time.Now().Add(-2 * baselineTTL)
	assert.EqualValues(t, 2, before("later"), "to each of the others")
	green(t, th.play(t, "", nil, nil, moving))
	assert.EqualValues(t, 2, before("after-labels"), "what was tried there had other labels")
}
