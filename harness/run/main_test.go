//go:build linux

package run

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/local"
	"github.com/netproof/netproof/harness/cluster/local/engine"
	"github.com/netproof/netproof/harness/cluster/local/process"
	"github.com/netproof/netproof/harness/cluster/local/sandbox"
	"github.com/netproof/netproof/harness/expect"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/run/stage"
	"github.com/netproof/netproof/harness/scenario"
)

// patience bounds whatever a test waits for. Nothing here takes a tenth of it.
const patience = 60 * time.Second

// TestMain runs the tests in a sandbox, against real clusters. The engines are built outside, where there is a network.
func TestMain(m *testing.M) {
	sandbox.Init()
	if !sandbox.Inside() {
		for _, cni := range []string{"calico", "none"} {
			engines, err := ensureEngines(cni)
			if err != nil {
				fmt.Fprintf(os.Stderr, "build engines: %v\n", err)
				os.Exit(1)
			}
			if err := engines.Close(); err != nil {
				fmt.Fprintf(os.Stderr, "build engines: %v\n", err)
				os.Exit(1)
			}
		}
	}
	sandbox.Main(suite{m})
}

// suite closes the shared cluster after the last test.
type suite struct{ *testing.M }

func (s suite) Run() int {
	code := s.M.Run()
	if err := shared.stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	return code
}

func ensureEngines(cni string) (*engine.Engines, error) {
	return engine.Ensure(context.Background(), engine.Options{
		CNI: cni, EngineDir: os.Getenv("NETPROOF_ENGINE_DIR"), Progress: engine.NewProgress(os.Stderr, false),
	})
}

// lab is a cluster under test, and a client of it that any other program could be.
type lab struct {
	*local.Cluster
	client  kubernetes.Interface
	engines *engine.Engines
}

func newLab(cni string, nodes int) (*lab, error) {
	engines, err := ensureEngines(cni)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := local.New(engines).Start(ctx, cluster.Options{CNI: cni, Nodes: nodes})
	if err != nil {
		return nil, err
	}
	config := c.RESTConfig()
	config.WarningHandler = rest.NoWarnings{}
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	return &lab{c, client, engines}, err
}

func (l *lab) stop() error {
	if err := l.Close(context.Background()); err != nil {
		return err
	}
	return l.engines.Close()
}

// shared is a cluster for the tests that leave it as it was.
var shared sharedLab

type sharedLab struct {
	lab *lab
	// theatre is open as long as nobody needs the cluster for a run of its own.
	theatre *theatre
}

func (s *sharedLab) stop() error {
	if s.lab == nil {
		return nil
	}
	l, left := s.lab, s.clear()
	s.lab = nil
	return errors.Join(left, l.stop())
}

// clear closes the theatre. Nothing of it may be left.
func (s *sharedLab) clear() error {
	if s.theatre == nil {
		return nil
	}
	s.theatre.session.close(context.Background())
	findings := s.theatre.found
	s.theatre = nil
	left, err := s.lab.traces()
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("the theatre left something behind: %v (%v)", left, findings)
	}
	return err
}

func (s *sharedLab) open(t *testing.T) *lab {
	t.Helper()
	if s.lab == nil {
		l, err := newLab("calico", 2)
		require.NoError(t, err)
		s.lab = l
	}
	t.Cleanup(func() { require.NoError(t, s.lab.Health(t.Context()), "the test broke the shared cluster") })
	return s.lab
}

// sharedCluster is for runs that leave the cluster as it was. That is checked.
func sharedCluster(t *testing.T) *lab {
	t.Helper()
	l := shared.open(t)
	require.NoError(t, shared.clear())
	t.Cleanup(func() { assert.Empty(t, l.left(t), "the test left something on the shared cluster") })
	return l
}

// ownCluster is for faults that ruin it. A sandbox has room for one cluster, so the shared one makes way.
func ownCluster(t *testing.T, cni string) *lab {
	t.Helper()
	require.NoError(t, shared.stop())
	l, err := newLab(cni, 2)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.stop()) })
	return l
}

// traces are what a run could have left behind: namespaces that Kubernetes did not make, pods, services and policies.
func (l *lab) traces() ([]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var out []string
	namespaces, err := l.client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	for _, n := range namespaces.Items {
		if n.Name != "default" && !strings.HasPrefix(n.Name, "kube-") {
			out = append(out, "namespace "+n.Name)
		}
		for _, k := range slices.Sorted(maps.Keys(n.Labels)) {
			if k != corev1.LabelMetadataName {
				out = append(out, "label "+k+" of namespace "+n.Name)
			}
		}
	}
	pods, err := l.client.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	for _, p := range pods.Items {
		out = append(out, "pod "+p.Namespace+"/"+p.Name)
	}
	services, err := l.client.CoreV1().Services("").List(ctx, metav1.ListOptions{LabelSelector: cluster.RunLabel})
	if err != nil {
		return nil, err
	}
	for _, s := range services.Items {
		out = append(out, "service "+s.Namespace+"/"+s.Name)
	}
	policies, err := l.client.NetworkingV1().NetworkPolicies("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	for _, p := range policies.Items {
		out = append(out, "policy "+p.Namespace+"/"+p.Name)
	}
	return out, nil
}

// left are the traces, for tests.
func (l *lab) left(t *testing.T) []string {
	t.Helper()
	out, err := l.traces()
	require.NoError(t, err)
	return out
}

// pod reads a pod as it is now.
func (l *lab) pod(t *testing.T, e model.Endpoint) *corev1.Pod {
	t.Helper()
	ns, name, _ := e.Split()
	pod, err := l.client.CoreV1().Pods(ns).Get(soon(t), name, metav1.GetOptions{})
	require.NoError(t, err)
	return pod
}

// calico are the network plugin's own policies in namespace x.
func (l *lab) calico(t *testing.T) dynamic.ResourceInterface {
	t.Helper()
	client, err := dynamic.NewForConfig(l.RESTConfig())
	require.NoError(t, err)
	return client.Resource(schema.GroupVersionResource{Group: "crd.projectcalico.org", Version: "v1", Resource: "networkpolicies"}).Namespace("x")
}

// pause stops one of the cluster's programs until resume is called.
func (l *lab) pause(t *testing.T, name string) (resume func()) {
	t.Helper()
	i := slices.IndexFunc(l.Processes(), func(p *process.Process) bool { return p.Name() == name })
	require.GreaterOrEqual(t, i, 0, "no program %s", name)
	pid := l.Processes()[i].PID()
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	return func() { assert.NoError(t, syscall.Kill(pid, syscall.SIGCONT)) }
}

// soon is a context for one thing.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits until check has nothing to say.
func eventually(t *testing.T, check func() string) {
	t.Helper()
	end := time.Now().Add(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		missing := check()
		if missing == "" {
			return
		}
		if time.Now().After(end) {
			require.FailNow(t, "not in time", missing)
		}
		<-tick.C
	}
}

// bounds hands the pace of a run to a test. Once a fault is there, a test makes the run give up early on what the fault
// prevents for ever. Until then the run is as patient as any, so that a busy machine fails no test.
type bounds struct{ *pace }

func (b *bounds) keep(p *pace) { b.pace = p }

// hurry shortens the waiting for a mismatch, and for connections that are cut.
func (p *pace) hurry() { p.MismatchWindow, p.connect = 400*time.Millisecond, 2*time.Second }

// giveUp shortens the waiting for nodes that do not take up a change.
func (p *pace) giveUp() {
	p.hurry()
	p.settle = 3 * time.Second
}

// trio is a topology of three pods on two nodes.
const trio = `
  topology:
    namespaces: [{name: x, labels: {team: blue}}]
    pods:
      - {name: x/a, node: 0, labels: {app: a}, ports: [80/TCP]}
      - {name: x/b, node: 1, labels: {app: b}, ports: [80/TCP]}
      - {name: x/c, node: 0, labels: {app: c}, ports: [80/TCP]}
`

// isolateB lets only pods with app=a reach x/b.
const isolateB = `
      apply:
        - apiVersion: networking.k8s.io/v1
          kind: NetworkPolicy
          metadata: {name: isolate-b, namespace: x}
          spec:
            podSelector: {matchLabels: {app: b}}
            policyTypes: [Ingress]
            ingress: [{from: [{podSelector: {matchLabels: {app: a}}}]}]
`

// openC is a policy of the network plugin's own kind that changes nothing.
const openC = `
        - apiVersion: crd.projectcalico.org/v1
          kind: NetworkPolicy
          metadata: {name: default.open, namespace: x}
          spec: {selector: app == 'c', types: [Ingress], ingress: [{action: Allow}]}
`

// exceptToB has the verdicts that follow.
const exceptToB = `
      expect:
        default: allow
        rules:
          - {from: "*", to: x/b, verdict: deny}
          - {from: x/a, to: x/b, verdict: allow}
`

// scene writes a scenario.
func scene(name string, spec ...string) string {
	return "apiVersion: netproof.dev/v1alpha1\nkind: Scenario\nmetadata: {name: " + name + "}\nspec:\n" + strings.Join(spec, "\n")
}

// isolation is the scenario that most tests sabotage: everything open, and then a policy.
func isolation(name string, more ...string) string {
	return scene(name, append([]string{trio, "  steps:",
		"    - name: open\n      expect: {default: allow}",
		"    - name: isolated" + isolateB + exceptToB}, more...)...)
}

func load(t *testing.T, texts ...string) []*scenario.Scenario {
	t.Helper()
	files := fstest.MapFS{}
	var paths []string
	for i, text := range texts {
		name := fmt.Sprintf("%d.scenario.yaml", i)
		files[name] = &fstest.MapFile{Data: []byte(text)}
		paths = append(paths, name)
	}
	list, err := scenario.Load(t.Context(), paths, scenario.Options{FS: files})
	require.NoError(t, err)
	return list
}

func prepare(t *testing.T, texts ...string) *expect.Prepared {
	t.Helper()
	prepared, err := expect.Prepare(load(t, texts...), expect.Options{Families: []model.IPFamily{model.IPv4}, Nodes: 2})
	require.NoError(t, err)
	return prepared
}

// theatre is a session on the shared cluster, in which scenarios are played one after the other, with fake agents that
// behave until a test says otherwise.
type theatre struct {
	*fakeCluster
	lab           *lab
	session       *session
	before, after func(scenario, step string)

	Observers
	// found are all findings outside of scenarios.
	found []model.Finding
}

// Found implements [Observer].
func (th *theatre) Found(f model.Finding) { th.found = append(th.found, f) }

func openTheatre(t *testing.T) *theatre {
	t.Helper()
	l := shared.open(t)
	if shared.theatre != nil {
		return shared.theatre
	}
	th := &theatre{fakeCluster: withFakes(l), lab: l}
	th.session = open(t.Context(), th, Options{
		Observer: th, lane: stage.Lane{RunID: runIDOf(th)}, Allow: scenario.Reaches(),
		BeforeSampling: func(scenario, step string) { th.before(scenario, step) },
		AfterSampling:  func(scenario, step string) { th.after(scenario, step) },
	})
	shared.theatre = th
	return th
}

// play plays one scenario, with something that happens before a step is sampled and something that happens after it.
// What it returns is as if the scenario had been a run of its own.
func (th *theatre) play(t *testing.T, step string, before, after func(), text string) model.Run {
	t.Helper()
	pace := &th.session.pace
	calm := *pace
	defer func() { *pace = calm }()
	hurried := func(do func()) func() {
		if do == nil {
			return nil
		}
		return func() { pace.hurry(); do() }
	}
	th.hooks(at(step, hurried(before)), at(step, hurried(after)))
	return th.playHooked(t, text)
}

// hooks sets what happens around every step.
func (th *theatre) hooks(before, after func(scenario, step string)) {
	th.before, th.after = before, after
}

// playHooked plays a scenario with the hooks that were set.
func (th *theatre) playHooked(t *testing.T, text string) model.Run {
	t.Helper()
	s := th.session
	known := len(th.found)
	p := prepare(t, text).Scenarios()[0]
	require.Empty(t, s.refuse(t.Context(), p))
	require.True(t, s.raise(t.Context()), "%v", th.found)
	out, _, err := s.prove(t.Context(), p)
	require.NoError(t, err)
	r := model.Run{Complete: len(out.Steps) == len(p.Plan().Steps), Findings: th.found[known:], Scenarios: []model.Scenario{out}}
	model.Summarize(&r)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(told(r))
		}
	})
	return r
}

// lie has an agent lie in one step, and requires that the scenario notices, in that step.
func (th *theatre) lie(t *testing.T, e model.Endpoint, l lies, text string) model.Run {
	t.Helper()
	// The final control finds honest agents: what is caught is caught by the controls of the step itself.
	return th.play(t, "isolated", func() { th.agent(e).tell(l) }, func() { th.agent(e).tell(lies{}) }, text)
}

// at makes a hook that acts around one step, once.
func at(step string, do func()) func(string, string) {
	var once sync.Once
	return func(_, name string) {
		if name == step && do != nil {
			once.Do(do)
		}
	}
}

// play runs scenarios and returns the run. The input is right.
func play(t *testing.T, c cluster.Cluster, opts Options, texts ...string) model.Run {
	t.Helper()
	return playUntil(t.Context(), t, c, opts, texts...)
}

func playUntil(ctx context.Context, t *testing.T, c cluster.Cluster, opts Options, texts ...string) model.Run {
	t.Helper()
	result, _, err := Run(ctx, c, prepare(t, texts...), opts)
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(told(result))
		}
	})
	return result
}

// told writes a run down for those who must find out why a test failed.
func told(r model.Run) string {
	var b strings.Builder
	fmt.Fprintf(&b, "exit code %d, complete %v, %+v\n", model.ExitCode(r), r.Complete, r.Summary)
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "  run: %s (%s): %s\n", f.Kind, f.Result, f.Message)
	}
	for _, s := range r.Scenarios {
		fmt.Fprintf(&b, "  %s: %s\n", s.Name, s.Result)
		for _, f := range s.Findings {
			fmt.Fprintf(&b, "    %s (%s): %s\n", f.Kind, f.Result, f.Message)
		}
		for _, step := range s.Steps {
			fmt.Fprintf(&b, "    %s: enforced %d, released %d, settled %d, %+v\n", step.Name, step.EnforcedMs, step.ReleasedMs, step.SettledMs, step.Controls)
			for _, c := range step.Cells {
				fmt.Fprintf(&b, "      %s: expected %s, observed %s: %s %q %+v\n", c.Connection(), c.Expected, c.Observed, c.Result, c.Reason, c.Evidence)
			}
		}
	}
	return b.String()
}

// stepOf finds a step of a run's only scenario.
func stepOf(t *testing.T, r model.Run, name string) model.Step {
	t.Helper()
	require.Len(t, r.Scenarios, 1)
	i := slices.IndexFunc(r.Scenarios[0].Steps, func(s model.Step) bool { return s.Name == name })
	require.GreaterOrEqual(t, i, 0, "no step %q in the report", name)
	return r.Scenarios[0].Steps[i]
}

// cells maps connections, written short as "x/a x/b", to a step's cells. Every connection has one port only.
func cells(s model.Step) map[string]model.Cell {
	out := map[string]model.Cell{}
	for _, c := range s.Cells {
		out[string(c.From)+" "+string(c.To)] = c
	}
	return out
}

// results maps the cells of a step to their results.
func results(s model.Step) map[string]model.Result {
	out := map[string]model.Result{}
	for k, c := range cells(s) {
		out[k] = c.Result
	}
	return out
}

// all is the results of a step of trio whose cells are all alike, but for exceptions.
func all(r model.Result, except map[string]model.Result) map[string]model.Result {
	out := map[string]model.Result{}
	for _, from := range []string{"x/a", "x/b", "x/c"} {
		for _, to := range []string{"x/a", "x/b", "x/c"} {
			if from != to {
				out[from+" "+to] = r
			}
		}
	}
	maps.Copy(out, except)
	return out
}

// onlyPassed requires that a step is without blemish.
func onlyPassed(t *testing.T, s model.Step) {
	t.Helper()
	for _, c := range s.Cells {
		assert.Equal(t, model.Passed, c.Result, "%s: %s", c.ID, c.Reason)
	}
	assert.True(t, s.Controls.Held, "controls of step %s", s.Name)
}

// notGreen requires that a run is inconclusive: nothing is proven, neither for nor against a policy.
func notGreen(t *testing.T, r model.Run) {
	t.Helper()
	assert.Equal(t, model.ExitInconclusive, model.ExitCode(r), "exit code")
	assert.Equal(t, model.ResultInconclusive, r.Summary.Result)
	assert.Zero(t, r.Summary.Failed, "no policy is to blame")
}

// green requires that a run proved everything.
func green(t *testing.T, r model.Run) {
	t.Helper()
	assert.Equal(t, model.ExitOK, model.ExitCode(r), "exit code")
	for _, s := range r.Scenarios {
		assert.Empty(t, s.Findings)
		for _, step := range s.Steps {
			onlyPassed(t, step)
		}
	}
}

// findings are the messages of a kind, of the run and its scenarios.
func findings(r model.Run, kind model.FindingKind) []string {
	var out []string
	take := func(list []model.Finding) {
		for _, f := range list {
			if f.Kind == kind {
				out = append(out, f.Message)
			}
		}
	}
	take(r.Findings)
	for _, s := range r.Scenarios {
		take(s.Findings)
	}
	return out
}

// found requires a finding of a kind that says something.
func found(t *testing.T, r model.Run, kind model.FindingKind, text string) {
	t.Helper()
	list := findings(r, kind)
	assert.True(t, slices.ContainsFunc(list, func(m string) bool { return strings.Contains(m, text) }),
		"no finding of kind %s says %q: %q", kind, text, list)
}

func podIsReady(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}
