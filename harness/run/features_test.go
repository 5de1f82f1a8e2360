//go:build linux

package run

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cni"
	"github.com/netproof/netproof/harness/expect"
	"github.com/netproof/netproof/harness/model"
)

// fakeClaims is a real cluster whose network plugin is said to lack things.
type fakeClaims struct {
	cluster.Cluster
	off []cni.Feature
	// noHosts stands for a provider that cannot make hosts outside of the cluster.
	noHosts bool
}

func (c fakeClaims) Capabilities() (cni.Capabilities, bool) {
	can, ok := cni.CapabilitiesOf(c.Info().CNI.Name, c.Info().CNI.Version)
	for _, f := range c.off {
		can = can.Without(f, "switched off for this test")
	}
	return can, ok
}

func (c fakeClaims) AddHost(ctx context.Context, host model.Host) (cluster.Host, error) {
	if c.noHosts {
		return cluster.Host{}, fmt.Errorf("its surroundings are not known: %w", errors.ErrUnsupported)
	}
	return c.Cluster.AddHost(ctx, host)
}

var _ cluster.Capable = fakeClaims{}

// claimed plays a scenario on a cluster of the test with such claims.
func claimed(t *testing.T, claims fakeClaims, text string) model.Run {
	t.Helper()
	claims.Cluster = sharedCluster(t)
	return play(t, claims, Options{}, text)
}

const portRange = `
  topology:
    namespaces: [{name: x}]
    pods:
      - {name: x/a, node: 0, labels: {app: a}, ports: [80/TCP]}
      - {name: x/b, node: 1, labels: {app: b}, ports: [80/TCP, 81/TCP, 90/TCP]}
  steps:
    - name: range
      apply:
        - apiVersion: networking.k8s.io/v1
          kind: NetworkPolicy
          metadata: {name: b, namespace: x}
          spec:
            podSelector: {matchLabels: {app: b}}
            policyTypes: [Ingress]
            ingress: [{ports: [{port: 80, endPort: 85}]}]
      expect:
        default: allow
        rules:
          - {from: "*", to: x/b, ports: [90/TCP], verdict: deny}`

func TestAFeatureThatWorksAlthoughThePluginIsSaidToLackItFails(t *testing.T) {
	r := claimed(t, fakeClaims{off: []cni.Feature{cni.EndPort}}, scene("stale", portRange))
	assert.Equal(t, model.ExitMismatch, model.ExitCode(r))
	var failed []string
	for _, c := range r.Scenarios[0].Steps[0].Cells {
		if c.Result == passed {
			continue
		}
		failed = append(failed, fmt.Sprintf("%s -> %s:%d", c.From, c.To, c.Port))
		assert.Equal(t, model.Failed, c.Result, c.Reason)
		assert.Contains(t, c.Reason, "does not enforce ranges of ports (endPort) (switched off for this test), yet it did: correct harness/cni/capabilities.go")
	}
	assert.Equal(t, []string{"x/a -> x/b:81"}, failed, "the only connection whose verdict depends on the range")
}

const noIngress = `
  topology:
    namespaces: [{name: x}]
    pods:
      - {name: x/a, node: 0, labels: {app: a}, ports: [80/TCP]}
      - {name: x/b, node: 1, labels: {app: b}, ports: [80/TCP]}
  steps:
    - name: by the plugin's own kind
      apply:
        - apiVersion: cilium.io/v2
          kind: CiliumNetworkPolicy
          metadata: {name: b, namespace: x}
          spec:
            endpointSelector: {matchLabels: {app: b}}
            ingress: [{}]
      expect:
        default: allow
        rules:
          - {from: x/a, to: x/b, verdict: deny}
    - name: without
      delete: [CiliumNetworkPolicy/x/b]
      expect: {default: allow}`

func TestPoliciesOfAKindThatThePluginDoesNotHaveAreUnsupported(t *testing.T) {
	l := sharedCluster(t)
	r := play(t, l, Options{}, scene("own-kind", noIngress))
	assert.Equal(t, model.ExitOK, model.ExitCode(r))
	require.Len(t, r.Scenarios[0].Steps, 2)
	for _, c := range r.Scenarios[0].Steps[0].Cells {
		if c.From != "x/a" {
			assert.Equal(t, passed, c.Result, "%s does not depend on it: %s", c.ID, c.Reason)
			continue
		}
		assert.Equal(t, model.ResultUnsupported, c.Result)
		assert.Equal(t, model.Unsupported, c.Observed)
		assert.Contains(t, c.Reason, "calico v3.30.1 does not enforce CiliumNetworkPolicy objects of cilium.io (")
		assert.Contains(t, c.Reason, "; observed allow")
	}
	for _, c := range r.Scenarios[0].Steps[1].Cells {
		assert.Equal(t, passed, c.Result, c.Reason)
	}
	assert.Equal(t, 1, r.Summary.Unsupported)
}

func TestAScenarioWithHostsIsUnsupportedWhereTheyCannotBe(t *testing.T) {
	r := claimed(t, fakeClaims{noHosts: true}, scene("hosts", `
  topology:
    namespaces: [{name: x}]
    pods:
      - {name: x/a, node: 0, labels: {app: a}, ports: [80/TCP]}
      - {name: x/b, node: 1, labels: {app: b}, ports: [80/TCP]}
    hosts: [{name: outside, ports: [80/TCP]}]
  steps:
    - name: none
      expect: {default: allow}`))
	require.Len(t, r.Scenarios, 1)
	assert.Empty(t, r.Findings)
	assert.NotZero(t, r.Summary.Unsupported)
	assert.Equal(t, r.Summary.Cells, r.Summary.Unsupported)
	assert.Equal(t, model.Vacuous, r.Summary.Result, "it proves nothing")
	assert.Contains(t, r.Scenarios[0].Steps[0].Cells[0].Reason, "this cluster can have no hosts outside of it, as host:outside would be: its surroundings are not known")
}

func TestWhatShowsThatAFeatureIsThere(t *testing.T) {
	can, ok := cni.CapabilitiesOf("calico", "v3.30.1")
	require.True(t, ok)
	s := &session{limited: true, capabilities: can.Without(cni.SCTP, "test").Without(cni.EndPort, "test")}
	judged := func(observed, expected model.Verdict) model.Cell {
		result := model.Passed
		if observed != expected {
			result = model.Failed
		}
		return model.Cell{Observed: observed, Expected: expected, Result: result}
	}
	sctp, endPort := []expect.Need{{Feature: cni.SCTP}}, []expect.Need{{Feature: cni.EndPort, Alone: true}}
	for name, tc := range map[string]struct {
		cells []model.Cell
		needs [][]expect.Need
		want  []model.Result
	}{
		"allowed alone": {[]model.Cell{judged(model.Allow, model.Allow)}, [][]expect.Need{sctp}, []model.Result{model.ResultUnsupported}},
		"denied alone":  {[]model.Cell{judged(model.Deny, model.Deny)}, [][]expect.Need{sctp}, []model.Result{model.ResultUnsupported}},
		"both": {[]model.Cell{judged(model.Deny, model.Deny), judged(model.Allow, model.Allow)}, [][]expect.Need{sctp, sctp},
			[]model.Result{model.Failed, model.Failed}},
		"both, and one that is wrong": {[]model.Cell{judged(model.Deny, model.Deny), judged(model.Allow, model.Allow), judged(model.Allow, model.Deny)},
			[][]expect.Need{sctp, sctp, sctp}, []model.Result{model.ResultUnsupported, model.ResultUnsupported, model.ResultUnsupported}},
		"one of them alone tells": {[]model.Cell{judged(model.Allow, model.Allow), judged(model.Allow, model.Deny)},
			[][]expect.Need{endPort, endPort}, []model.Result{model.Failed, model.Failed}},
		"not as expected": {[]model.Cell{judged(model.Deny, model.Allow)}, [][]expect.Need{endPort}, []model.Result{model.ResultUnsupported}},
		"not needed":      {[]model.Cell{judged(model.Deny, model.Allow)}, [][]expect.Need{nil}, []model.Result{model.Failed}},
		"inconclusive":    {[]model.Cell{{Observed: model.Inconclusive, Result: model.ResultInconclusive}}, [][]expect.Need{endPort}, []model.Result{model.ResultInconclusive}},
	} {
		t.Run(name, func(t *testing.T) {
			var cells []*cell
			for i, n := range tc.needs {
				cells = append(cells, &cell{Cell: expect.Cell{Needs: n}, out: tc.cells[i]})
			}
			s.judgeNeeds(cells)
			var got []model.Result
			for _, c := range cells {
				got = append(got, c.out.Result)
			}
			assert.Equal(t, tc.want, got)
		})
	}
}
