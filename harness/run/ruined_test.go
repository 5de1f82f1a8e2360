//go:build linux

package run

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/model"
)

func TestAPluginThatEnforcesNothingIsOneFinding(t *testing.T) {
	l := ownCluster(t, "none")
	r := play(t, l, Options{}, isolation("first"), isolation("second"))
	assert.Equal(t, model.ExitMismatch, model.ExitCode(r))
	assert.False(t, r.Complete)
	require.Len(t, r.Findings, 1)
	assert.Equal(t, model.NoEnforcement, r.Findings[0].Kind)
	assert.Equal(t, model.Failed, r.Findings[0].Result)
	assert.Contains(t, r.Findings[0].Message, "the network plugin none enforces no policy")
	assert.Empty(t, r.Scenarios)
	assert.Zero(t, r.Summary.Cells)
	assert.Empty(t, l.left(t))
}

func TestEnforcementThatStoppedBeforeThePolicyCameBlamesNoPolicy(t *testing.T) {
	l := ownCluster(t, "calico")
	stop := func(node int) func() {
		return func() { require.NoError(t, l.StopEnforcement(node)) }
	}
	var now bounds
	first, second := at("open", func() { stop(1)(); now.giveUp() }), at("nothing changes", stop(0))
	r := play(t, l, Options{
		tune:          now.keep,
		AfterSampling: func(s, step string) { first(s, step); second(s, step) },
	}, isolation("felix", `
    - name: c too
      apply:
        - apiVersion: networking.k8s.io/v1
          kind: NetworkPolicy
          metadata: {name: isolate-c, namespace: x}
          spec: {podSelector: {matchLabels: {app: c}}, policyTypes: [Ingress], ingress: [{}]}`+exceptToB+`
    - name: nothing changes`+exceptToB+`
    - name: a is cut off
      apply:
        - apiVersion: networking.k8s.io/v1
          kind: NetworkPolicy
          metadata: {name: isolate-a, namespace: x}
          spec: {podSelector: {matchLabels: {app: a}}, policyTypes: [Ingress]}
      expect:
        default: allow
        rules:
          - {from: "*", to: x/b, verdict: deny}
          - {from: x/a, to: x/b, verdict: allow}
          - {from: "*", to: x/a, verdict: deny}`))
	notGreen(t, r)
	onlyPassed(t, stepOf(t, r, "open"))
	one := map[string]model.Result{"x/c x/b": inconclusive}
	both := map[string]model.Result{"x/c x/b": inconclusive, "x/b x/a": inconclusive, "x/c x/a": inconclusive}
	for step, want := range map[string]map[string]model.Result{"isolated": one, "c too": one, "nothing changes": one, "a is cut off": both} {
		assert.Equal(t, all(passed, want), results(stepOf(t, r, step)), step)
		assert.Contains(t, cells(stepOf(t, r, step))["x/c x/b"].Reason, "not every node took up the change", step)
		assert.False(t, stepOf(t, r, step).Controls.Held, step)
		found(t, r, model.Control, fmt.Sprintf("step %q: not every node took up the change within 3s", step))
	}
	assert.Contains(t, findings(r, model.Control)[0], "canary-1")
	assert.NotContains(t, findings(r, model.Control)[0], "canary-0", "the node that works is not blamed")
}

func TestAPartOfTheClusterThatDiedProvesNothing(t *testing.T) {
	const service = `
    services: [{name: x/web, selector: {app: b}, ports: [80/TCP]}]
  probes:
    - {from: "*", to: x/*}
    - {from: x/c, to: x/web, via: service}`
	for _, tc := range []struct {
		name string
		kill func(ctx context.Context, l *lab) error
		dead string
	}{
		{"the plugin's program", func(ctx context.Context, l *lab) error { return l.KillEnforcement(ctx, 1) }, "node-1/felix"},
		{"the API server", func(ctx context.Context, l *lab) error { return l.KillProgram(ctx, "kube-apiserver") }, "kube-apiserver"},
		{"etcd", func(ctx context.Context, l *lab) error { return l.KillProgram(ctx, "etcd") }, "etcd"},
		{"the service proxy", func(ctx context.Context, l *lab) error { return l.KillProgram(ctx, "node-0/kube-proxy") }, "node-0/kube-proxy"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := ownCluster(t, "calico")
			text := scene("death", trio+service, "  steps:",
				"    - name: open\n      expect: {default: allow}",
				"    - name: isolated"+isolateB+exceptToB)
			var now bounds
			r := play(t, l, Options{
				Disposable:     true,
				tune:           now.keep,
				BeforeSampling: at("isolated", func() { require.NoError(t, tc.kill(soon(t), l)); now.giveUp() }),
			}, text, isolation("second"))
			notGreen(t, r)
			assert.False(t, r.Complete, "the second scenario never ran")
			require.Len(t, r.Scenarios, 1)
			onlyPassed(t, r.Scenarios[0].Steps[0])
			step := stepOf(t, r, "isolated")
			for name, result := range results(step) {
				assert.Equal(t, inconclusive, result, name)
			}
			found(t, r, model.Infrastructure, tc.dead+" ended unexpectedly")
			assert.Contains(t, cells(step)["x/c x/b"].Reason, tc.dead)

			// On such a cluster nothing is run any more. The user made no mistake.
			again := play(t, l, Options{Disposable: true}, text)
			notGreen(t, again)
			assert.False(t, again.Complete)
			assert.Zero(t, again.Summary.Cells)
			found(t, again, model.Infrastructure, tc.dead+" ended unexpectedly")
		})
	}
}

func TestAHaltedNodeAgentIsFoundWhenAPodIsReplaced(t *testing.T) {
	l := ownCluster(t, "calico")
	var now bounds
	r := play(t, l, Options{
		Disposable: true,
		tune:       now.keep,
		BeforeSampling: at("isolated", func() {
			now.giveUp()
			now.ready = 3 * time.Second
			require.NoError(t, l.HaltNodeAgent(1))
			require.NoError(t, remakePod(soon(t), t, l, "x", "b"))
		}),
	}, isolation("halted"), isolation("second"))
	notGreen(t, r)
	require.Len(t, r.Scenarios, 2)
	for name, c := range cells(r.Scenarios[0].Steps[1]) {
		assert.Equal(t, inconclusive, c.Result, name)
		assert.Contains(t, c.Reason, "pod x/b was replaced during the run", name)
	}
	assert.Equal(t, inconclusive, r.Scenarios[1].Result)
	assert.Empty(t, r.Scenarios[1].Steps, "without its pods nothing of the second scenario can be judged")
	found(t, r, model.Infrastructure, "still waiting for x/b")
}
