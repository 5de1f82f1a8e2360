package scenario

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// farReaching reaches beyond its own namespaces in every way, and in some of them more than once.
const farReaching = `apiVersion: netproof.dev/v1alpha1
kind: Scenario
metadata: {name: far}
spec:
  topology:
    namespaces:
      - {name: x}
      - {name: default}
      - {name: kube-system, labels: {team: red}}
    pods:
      - {name: x/a, labels: {app: web}, ports: [80/TCP]}
      - {name: x/b, hostNetwork: true, ports: [18080/TCP]}
      - {name: default/c, ports: [80/TCP]}
    services:
      - {name: x/web, selector: {app: web}, ports: [80]}
      - {name: x/out, selector: {app: web}, ports: [80], type: NodePort}
  probes:
    - {from: "*", to: "*"}
    - {from: node:0, to: x/a}
    - {from: x/a, to: x/out, via: nodePort}
  steps:
    - name: first
      apply:
        - {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: deny}, spec: {podSelector: {}}}
        - {apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: global}, spec: {selector: all()}}
      create: {pods: [{name: kube-system/d, hostNetwork: true}]}
      expect: {default: allow}
`

func TestWhatReachesBeyondTheScenariosNamespacesIsNamedWithItsPlace(t *testing.T) {
	far := mustLoad(t, map[string]string{"scenario.yaml": farReaching})[0]
	var said []string
	for _, p := range far.Beyond(nil) {
		said = append(said, p.Error())
	}
	fix := func(r string) string {
		return "; this run did not make the cluster\n    fix: leave it out, or permit it with --allow " + r
	}
	assert.Equal(t, []string{
		"scenario.yaml:8:9: the namespace `default` is not the scenario's own: what is done there concerns everybody" + fix("default"),
		"scenario.yaml:9:9: the namespace `kube-system` is not the scenario's own: what is done there concerns everybody" + fix("kube-system"),
		"scenario.yaml:12:9: pod x/b is on the network of its node (hostNetwork)" + fix("host-network"),
		"scenario.yaml:16:9: service x/out opens a port on every node of the cluster" + fix("node-port"),
		"scenario.yaml:25:11: GlobalNetworkPolicy global is of the cluster's scope: it can act on all that runs there" + fix("cluster-scoped"),
	}, said)
	assert.Empty(t, far.Beyond(Reaches()))
	assert.Len(t, far.Beyond([]Reach{ReachDefault, ReachHostNetwork}), 3)

	for reach, only := range map[Reach]string{
		ReachHostNetwork: "  probes: [{from: node:0, to: x/a}]\n  steps: [{name: s, expect: {default: allow}}]\n",
		ReachNodePort:    "  probes: [{from: x/a, to: x/web, via: nodePort}]\n  steps: [{name: s, expect: {default: allow}}]\n",
	} {
		problems := mustLoad(t, story(only))[0].Beyond([]Reach{})
		require.NotEmpty(t, problems, reach)
		assert.Contains(t, problems[len(problems)-1].Fix, "--allow "+string(reach))
	}
	near := "  steps: [{name: s, expect: {default: allow}}]\n"
	assert.Len(t, mustLoad(t, story(near))[0].Beyond(nil), 1, "its NodePort service")
	assert.Empty(t, mustLoad(t, story(near))[0].Beyond([]Reach{ReachNodePort}))
}

func TestAFolderWhoseManifestsNameNoNamespaceReachesIntoDefault(t *testing.T) {
	folder := mustLoad(t, map[string]string{
		"deny.yaml": "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: deny}, spec: {podSelector: {}}}",
		"pods.yaml": "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: c, image: i, ports: [{containerPort: 80}]}]}}\n" +
			"---\n{apiVersion: v1, kind: Pod, metadata: {name: b}, spec: {containers: [{name: c, image: i, ports: [{containerPort: 80}]}]}}\n",
	})[0]
	problems := folder.Beyond(nil)
	require.Len(t, problems, 1)
	assert.Contains(t, problems[0].Error(), "pods.yaml:1:1: the namespace `default`")
}

func TestAllowedReachesAreReadFromAList(t *testing.T) {
	list, err := ParseReaches(" default, node-port,")
	require.NoError(t, err)
	assert.Equal(t, []Reach{ReachDefault, ReachNodePort}, list)
	list, err = ParseReaches("")
	require.NoError(t, err)
	assert.Empty(t, list)
	_, err = ParseReaches("default,nodeport")
	require.EqualError(t, err, `"nodeport" cannot be allowed: there is default, kube-system, cluster-scoped, host-network, node-port; did you mean node-port?`)
	_, err = ParseReaches("everything")
	require.ErrorContains(t, err, "cannot be allowed: there is default")
	assert.NotContains(t, err.Error(), "did you mean")
}
