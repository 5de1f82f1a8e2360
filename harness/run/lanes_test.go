//go:build linux

package run

import (
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/scenario"
)

// listener notes what a run says, and does something when a step begins.
type listener struct {
	Observers
	mu      sync.Mutex
	details []string
	// running are the scenarios under way, and most is how many there were at once.
	running, most int
	// ran has for each scenario how many others were under way when it began.
	ran  map[string]int
	step func(step string)
}

func (l *listener) Detail(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.details = append(l.details, text)
}

func (l *listener) ScenarioStarted(name string, _, _ int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ran == nil {
		l.ran = map[string]int{}
	}
	l.ran[name] = l.running
	l.running++
	l.most = max(l.most, l.running)
}

func (l *listener) StepStarted(_, step string, _, _ int) {
	if l.step != nil {
		l.step(step)
	}
}

func (l *listener) ScenarioDone(model.Scenario) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running--
}

// inDefault is a scenario in a namespace that every lane would have to share.
func inDefault(name string) string {
	return scene(name, `
  topology:
    namespaces: [{name: default}]
    pods:
      - {name: default/a, node: 0, ports: [80/TCP]}
      - {name: default/b, node: 1, ports: [80/TCP]}
  steps:
    - name: closed
      apply:
        - apiVersion: networking.k8s.io/v1
          kind: NetworkPolicy
          metadata: {name: closed, namespace: default}
          spec: {podSelector: {}, policyTypes: [Ingress]}
      expect: {default: deny}`)
}

// byName admits a namespace by its name, which has a prefix in a lane.
func byName(name string) string {
	return scene(name, `
  topology:
    namespaces: [{name: p}, {name: q}, {name: r}]
    pods:
      - {name: p/a, node: 0, ports: [80/TCP]}
      - {name: q/a, node: 1, ports: [80/TCP]}
      - {name: r/a, node: 1, ports: [80/TCP]}
  probes:
    - {from: "*", to: p/a}
  steps:
    - name: from q
      apply:
        - apiVersion: networking.k8s.io/v1
          kind: NetworkPolicy
          metadata: {name: from-q, namespace: p}
          spec:
            podSelector: {}
            policyTypes: [Ingress]
            ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: q}}}]}]
      expect:
        default: deny
        rules: [{from: q/a, to: p/a, verdict: allow}]`)
}

func TestLanesProveSideBySideWhatOneLaneProves(t *testing.T) {
	l := sharedCluster(t)
	heard := &listener{}
	opts := Options{Lanes: 3, Observer: heard, Allow: []scenario.Reach{scenario.ReachDefault}}
	r := play(t, l, opts, isolation("first"), inDefault("second"), byName("third"),
		isolation("fourth"), isolation("fifth"))
	green(t, r)
	var names []string
	for _, s := range r.Scenarios {
		names = append(names, s.Name)
		for _, step := range s.Steps {
			for _, c := range step.Cells {
				assert.Contains(t, []string{"x", "y", "z", "p", "q", "r", "default"}, strings.Split(string(c.To), "/")[0], "reports know no prefix")
			}
		}
	}
	assert.Equal(t, []string{"first", "second", "third", "fourth", "fifth"}, names, "in the order of the files")
	assert.Greater(t, heard.most, 1, "scenarios were side by side")
	assert.Zero(t, heard.ran["second"], "it reaches beyond its namespaces")
	require.Len(t, heard.details, 1)
	assert.Equal(t, "second runs alone: the namespace `default` is not the scenario's own: what is done there concerns everybody", heard.details[0])
	assert.Empty(t, l.left(t))
}

func TestAPluginThatEnforcesNothingIsOneFindingOfAllLanes(t *testing.T) {
	l := ownCluster(t, "none")
	r := play(t, l, Options{Lanes: 2}, isolation("first"), isolation("second"), isolation("third"))
	assert.Equal(t, model.ExitMismatch, model.ExitCode(r))
	assert.False(t, r.Complete)
	require.Len(t, r.Findings, 1)
	assert.Equal(t, model.NoEnforcement, r.Findings[0].Kind)
	assert.Empty(t, r.Scenarios)
	assert.Empty(t, l.left(t))
}

func TestADeadPartOfTheClusterIsOneFindingOfAllLanes(t *testing.T) {
	l := ownCluster(t, "calico")
	var once sync.Once
	kill := func(step string) {
		if step == "isolated" {
			once.Do(func() { assert.NoError(t, l.KillEnforcement(soon(t), 1)) })
		}
	}
	var now bounds
	r := play(t, l, Options{Lanes: 2, Disposable: true, Observer: &listener{step: kill}, tune: func(p *pace) { now.keep(p); p.giveUp() }},
		isolation("first"), isolation("second"), isolation("third"), isolation("fourth"))
	notGreen(t, r)
	assert.False(t, r.Complete)
	assert.Len(t, findings(r, model.Infrastructure), 1)
	found(t, r, model.Infrastructure, "node-1/felix ended unexpectedly")
	assert.Less(t, len(r.Scenarios), 4, "no lane begins another scenario")
	for _, s := range r.Scenarios {
		if len(s.Steps) == 0 {
			continue // its lane had not come to a step yet
		}
		for _, c := range cells(s.Steps[len(s.Steps)-1]) {
			assert.NotEqual(t, model.Deny, c.Observed, "no denial is proven without the plugin")
		}
	}
}

func TestALanePrefersItsOwnTopology(t *testing.T) {
	prepared := prepare(t, isolation("a1"), byName("b1"), isolation("a2"), isolation("a3"), byName("b2"))
	assert.Equal(t, []int{0, 2, 3, 1, 4}, grouped(prepared.Scenarios()))
	q := newQueue(prepared.Scenarios(), grouped(prepared.Scenarios()))
	key := func(place int) string { return prepared.Scenarios()[place].Plan().TopologyKey }
	first, _ := q.next("")
	second, _ := q.next("")
	assert.Equal(t, 0, first, "three scenarios have this topology")
	assert.Equal(t, 1, second, "another lane is at work on the first")
	third, _ := q.next(key(second))
	assert.Equal(t, 4, third, "it can be played on the same pods")
	fourth, _ := q.next(key(third))
	assert.Contains(t, []int{2, 3}, fourth, "nothing else is left")
	q.end()
	_, more := q.next(key(fourth))
	assert.False(t, more)
}

func TestWhatCannotShareAClusterIsSaid(t *testing.T) {
	l := &Lanes{count: 3, runID: cluster.NewRunID()}
	for name, tc := range map[string]struct{ text, why string }{
		"its own namespaces":   {isolation("a"), ""},
		"a built-in namespace": {inDefault("a"), "the namespace `default` is not the scenario's own"},
		"a node": {scene("a", trio, "  probes: [{from: \"node:0\", to: x/a}]", "  steps: [{name: open, expect: {default: allow}}]"),
			"probes from node:0 are sent from the network of a node"},
		"a kind of a plugin": {isolation("a", `
    - name: text
      apply:
        - apiVersion: crd.projectcalico.org/v1
          kind: NetworkPolicy
          metadata: {name: default.named, namespace: x}
          spec: {types: [Ingress], ingress: [{action: Allow}]}
      expect: {default: allow}`), "NetworkPolicy x/default.named is of a plugin's own kind, whose rules may reach into other lanes"},
	} {
		t.Run(name, func(t *testing.T) {
			prepared := prepare(t, tc.text)
			why := l.whyAlone(prepared.Scenarios()[0])
			if tc.why == "" {
				assert.Empty(t, why)
			} else {
				assert.Contains(t, why, tc.why)
			}
		})
	}
}
