package faults

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
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
	"k8s.io/client-go/kubernetes"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/kind"
	"github.com/netproof/netproof/harness/cluster/lease"
	"github.com/netproof/netproof/harness/expect"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/prooftest"
	"github.com/netproof/netproof/harness/run"
	"github.com/netproof/netproof/harness/scenario"
)

// The tests have the flags of all packages below suites, though clusterEnv chooses their cluster.
func TestMain(m *testing.M) { prooftest.MainOutside(m) }

const (
	// clusterEnv names the kind cluster that is broken, and fixed again.
	clusterEnv = "NETPROOF_TEST_KIND_CLUSTER"
	// programEnv is a static netproof.
	programEnv = "NETPROOF_TEST_KIND_AGENT"
	// slowEnv asks for what takes minutes.
	slowEnv = "NETPROOF_TEST_KIND_SLOW"
)

// patience bounds what a cluster of two processors needs to heal.
const patience = 4 * time.Minute

// isolation takes no more than it needs to be wrong about: one connection that stays, and one that a policy cuts.
const isolation = `apiVersion: netproof.dev/v1alpha1
kind: Scenario
metadata: {name: isolation}
spec:
  topology:
    namespaces: [{name: fault}]
    pods:
      - {name: fault/a, node: 0, labels: {app: a}, ports: [8080/TCP]}
      - {name: fault/b, node: 1, labels: {app: b}, ports: [8080/TCP]}
  steps:
    - name: open
      expect: {default: allow}
    - name: isolated
      apply:
        - apiVersion: networking.k8s.io/v1
          kind: NetworkPolicy
          metadata: {name: isolate-b, namespace: fault}
          spec: {podSelector: {matchLabels: {app: b}}, policyTypes: [Ingress]}
      expect:
        default: allow
        rules:
          - {from: fault/a, to: fault/b, verdict: deny}
`

// ground is the kind cluster of these tests.
type ground struct {
	name, program string
	provider      *kind.Provider
}

func open(t *testing.T) *ground {
	t.Helper()
	prooftest.SkipIfSelected(t)
	g := &ground{name: os.Getenv(clusterEnv), program: os.Getenv(programEnv)}
	if g.name == "" || g.program == "" {
		t.Skipf("needs a kind cluster to break: make test-kind, or %s and %s", clusterEnv, programEnv)
	}
	var err error
	g.provider, err = kind.New(kind.Options{Executable: g.program, Progress: func(s string) { t.Log(s) }})
	require.NoError(t, err)
	return g
}

func (g *ground) attach(t *testing.T) *kind.Cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := g.provider.Attach(ctx, g.name)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close(context.Background()) }) // once more, or after a failure: the next test wants the cluster
	return c
}

// shell runs a script in a node.
func shell(t *testing.T, node, script string) {
	t.Helper()
	out, err := exec.CommandContext(context.WithoutCancel(t.Context()), "docker", "exec", node, "sh", "-c", script).CombinedOutput()
	require.NoError(t, err, "%s: %s: %s", node, script, out)
}

func docker(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(context.WithoutCancel(t.Context()), "docker", args...).CombinedOutput()
	require.NoError(t, err, "docker %v: %s", args, out)
	return strings.TrimSpace(string(out))
}

// fault breaks a cluster while isolation is proven on it.
type fault struct {
	// afterOpen is called before the policy is applied, before when it was and nothing was sampled yet, after when the
	// step was sampled.
	afterOpen, before, after func(*testing.T, *kind.Cluster)
	// heal fixes what the run could not survive, once it is over.
	heal func(*testing.T, *kind.Cluster)
	// expect looks at the run.
	expect func(*testing.T, model.Run)
}

// prove proves isolation on a cluster.
func prove(t *testing.T, c cluster.Cluster, opts run.Options) model.Run {
	t.Helper()
	list, err := scenario.Load(t.Context(), []string{"isolation"}, scenario.Options{FS: fstest.MapFS{"isolation/scenario.yaml": {Data: []byte(isolation)}}})
	require.NoError(t, err)
	prepared, err := expect.Prepare(list, expect.Options{Families: c.Info().IPFamilies, Nodes: c.Info().Nodes})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, _, err := run.Run(ctx, c, prepared, opts)
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			text, _ := json.MarshalIndent(r, "", " ")
			t.Logf("%s", text)
		}
	})
	return r
}

func (g *ground) suffer(t *testing.T, f fault) {
	t.Helper()
	c := g.attach(t)
	call := func(do func(*testing.T, *kind.Cluster)) {
		if do != nil {
			do(t, c)
		}
	}
	r := prove(t, c, run.Options{
		Settle: 15 * time.Second,
		BeforeSampling: func(_, step string) {
			if step == "isolated" {
				call(f.before)
			}
		},
		AfterSampling: func(_, step string) {
			if step == "isolated" {
				call(f.after)
			} else {
				call(f.afterOpen)
			}
		},
	})
	honest(t, r)
	if f.expect != nil {
		f.expect(t, r)
	}
	call(f.heal)
	if lost := healed(t, c); lost {
		assert.NotEqual(t, model.ExitOK, model.ExitCode(r), "a run that has lost its Lease cannot be green")
	} else if f.heal == nil {
		clean(t, c)
	}
	require.NoError(t, c.Close(context.WithoutCancel(t.Context())))
	next := g.attach(t) // what the run could not remove, the next one does
	clean(t, next)
	require.NoError(t, next.Close(context.WithoutCancel(t.Context())))
}

// healed returns when the cluster is well again, or this run can have no more of it: an API server that is away for
// longer than a Lease lasts ends the run.
func healed(t *testing.T, c *kind.Cluster) (lost bool) {
	t.Helper()
	var ill error
	assert.Eventually(t, func() bool {
		ill = c.Health(t.Context())
		lost = errors.Is(ill, lease.ErrLost)
		return ill == nil || lost
	}, patience, 500*time.Millisecond, "the cluster heals")
	if !lost {
		require.NoError(t, ill)
	}
	return lost
}

// honest requires that nothing was claimed which is not so: the policy works, so no cell can have failed; what passed
// was observed.
func honest(t *testing.T, r model.Run) {
	t.Helper()
	assert.Contains(t, []int{model.ExitOK, model.ExitInconclusive, model.ExitCleanupFailed}, model.ExitCode(r))
	for _, s := range r.Scenarios {
		for _, step := range s.Steps {
			for _, c := range step.Cells {
				assert.Contains(t, []model.Result{model.Passed, model.ResultInconclusive}, c.Result, "%s: %s", c.ID, c.Reason)
				if c.Result == model.Passed {
					assert.Equal(t, c.Expected, c.Observed, c.ID)
				} else {
					assert.NotEmpty(t, c.Reason, c.ID)
				}
			}
		}
	}
}

// inconclusive requires that the run proved nothing in the step of the fault, and says why.
func inconclusive(reasons ...string) func(*testing.T, model.Run) {
	return func(t *testing.T, r model.Run) {
		t.Helper()
		assert.NotEqual(t, model.ExitOK, model.ExitCode(r))
		var said []string
		for _, f := range r.Findings {
			said = append(said, f.Message)
		}
		for _, s := range r.Scenarios {
			for _, f := range s.Findings {
				said = append(said, f.Message)
			}
			for _, step := range s.Steps {
				for _, c := range step.Cells {
					if step.Name != "isolated" {
						continue
					}
					said = append(said, c.Reason)
					if c.Expected == model.Deny {
						assert.Equal(t, model.ResultInconclusive, c.Result, c.ID)
					}
				}
			}
		}
		for _, reason := range reasons {
			assert.Contains(t, strings.Join(said, "\n"), reason)
		}
	}
}

// clean requires that of runs there is nothing on the cluster, nor beside it.
func clean(t *testing.T, c *kind.Cluster) {
	t.Helper()
	client, err := kubernetes.NewForConfig(c.RESTConfig())
	require.NoError(t, err)
	namespaces, err := client.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{LabelSelector: cluster.RunLabel})
	require.NoError(t, err)
	pods, err := client.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{LabelSelector: cluster.RunLabel})
	require.NoError(t, err)
	names := func(list []corev1.Namespace) (out []string) {
		for _, n := range list {
			out = append(out, n.Name)
		}
		return out
	}
	assert.Empty(t, names(namespaces.Items))
	assert.Empty(t, pods.Items)
	assert.Empty(t, docker(t, "ps", "-aq", "--filter", "label="+kind.LabelCluster+"="+c.Name(), "--filter", "label=netproof.dev/host"))
}

// node is the container of the node with this index.
func node(c *kind.Cluster, index int) string { return c.Nodes()[index].Name }

func TestExecStreamsThatAreCutComeBack(t *testing.T) {
	g := open(t)
	var before int64
	g.suffer(t, fault{
		before: func(t *testing.T, c *kind.Cluster) {
			before = c.Connections()
			for i := range c.Nodes() {
				shell(t, node(c, i), "pkill -9 -x kubelet") // every stream goes through it; systemd starts it again
			}
		},
		after: func(t *testing.T, c *kind.Cluster) {
			assert.Greater(t, c.Connections(), before, "streams were cut, and opened again")
		},
	})
}

func TestExecStreamsThatStayCutProveNothing(t *testing.T) {
	g := open(t)
	each := func(script string) func(*testing.T, *kind.Cluster) {
		return func(t *testing.T, c *kind.Cluster) {
			for i := range c.Nodes() {
				shell(t, node(c, i), script)
			}
		}
	}
	g.suffer(t, fault{before: each("systemctl stop kubelet"), after: each("systemctl start kubelet"), expect: inconclusive()})
}

func TestAProbePodThatIsKilledProvesNothing(t *testing.T) {
	g := open(t)
	g.suffer(t, fault{
		before: func(t *testing.T, c *kind.Cluster) { shell(t, node(c, 1), "pkill -9 -f '[a]gent serve'") },
		expect: inconclusive(),
	})
}

// The kernel shakes hands for a server whose program has stopped: that must neither be taken for a canary that works
// nor for a denial.
func TestProbePodsThatAreStoppedProveNothing(t *testing.T) {
	g := open(t)
	const agents = "'[a]gent serve'"
	g.suffer(t, fault{
		before: func(t *testing.T, c *kind.Cluster) { shell(t, node(c, 1), "pkill -STOP -f "+agents) },
		after:  func(t *testing.T, c *kind.Cluster) { shell(t, node(c, 1), "pkill -CONT -f "+agents) },
		expect: inconclusive("the server of the canary netproof-canary/canary-1 was not alive"),
	})
}

func TestAProbePodThatIsDeletedProvesNothing(t *testing.T) {
	g := open(t)
	g.suffer(t, fault{
		before: func(t *testing.T, c *kind.Cluster) {
			client, err := kubernetes.NewForConfig(c.RESTConfig())
			require.NoError(t, err)
			require.NoError(t, client.CoreV1().Pods("fault").Delete(t.Context(), "b", *metav1.NewDeleteOptions(0)))
		},
		expect: inconclusive("pod fault/b was deleted during the run"),
	})
}

func TestAStoppedNodeProvesNothing(t *testing.T) {
	g := open(t)
	g.suffer(t, fault{
		before: func(t *testing.T, c *kind.Cluster) { docker(t, "stop", "-t", "0", node(c, 1)) },
		heal:   func(t *testing.T, c *kind.Cluster) { docker(t, "start", node(c, 1)) },
		expect: inconclusive("is exited with exit code"),
	})
}

func TestAnAPIServerThatIsStartedAgainIsSurvived(t *testing.T) {
	g := open(t)
	g.suffer(t, fault{before: func(t *testing.T, _ *kind.Cluster) {
		shell(t, g.name+"-control-plane", "pkill -9 -x kube-apiserver")
	}})
}

// An API server that is away for longer than a Lease lasts ends the run, which then can remove nothing.
func TestAnAPIServerThatStaysAwayProvesNothing(t *testing.T) {
	g := open(t)
	if os.Getenv(slowEnv) == "" {
		t.Skipf("takes minutes of waiting for a Lease to run out: make test-kind, or %s=1", slowEnv)
	}
	const manifest = "kube-apiserver.yaml"
	move := func(from, to string) func(*testing.T, *kind.Cluster) {
		return func(t *testing.T, _ *kind.Cluster) {
			shell(t, g.name+"-control-plane", "mv "+from+"/"+manifest+" "+to+"/")
		}
	}
	const there, away = "/etc/kubernetes/manifests", "/root"
	g.suffer(t, fault{before: move(there, away), heal: move(away, there), expect: inconclusive()})
}

func TestANetworkPluginThatIsStuckOnOneNodeProvesNothing(t *testing.T) {
	g := open(t)
	const felix = "[c]alico-node -felix"
	g.suffer(t, fault{
		afterOpen: func(t *testing.T, c *kind.Cluster) { shell(t, node(c, 1), "pkill -STOP -f '"+felix+"'") },
		after:     func(t *testing.T, c *kind.Cluster) { shell(t, node(c, 1), "pkill -CONT -f '"+felix+"'") },
		expect:    inconclusive("not every node took up the change"),
	})
}

func TestANetworkPluginThatIsKilledComesBack(t *testing.T) {
	g := open(t)
	g.suffer(t, fault{afterOpen: func(t *testing.T, c *kind.Cluster) { shell(t, node(c, 1), "pkill -9 -f '[c]alico-node -felix'") }})
}

func TestANodeWithoutEnforcementBlamesNoPolicy(t *testing.T) {
	g := open(t)
	// Felix would put its rules back, at once if it has something to do anyway. Until then the node lets through what
	// policies forbid, the canary's too.
	const flush = `pkill -STOP -f '[c]alico-node -felix'; for i in iptables-nft iptables-legacy; do $i -w -F FORWARD 2>/dev/null; $i -w -P FORWARD ACCEPT 2>/dev/null; done; true`
	g.suffer(t, fault{
		before: func(t *testing.T, c *kind.Cluster) { shell(t, node(c, 1), flush) },
		expect: inconclusive("the canary that must be denied was not"),
		heal:   func(t *testing.T, c *kind.Cluster) { shell(t, node(c, 1), "pkill -9 -f '[c]alico-node -felix'") },
	})
}

// program starts netproof on the cluster, and returns once it has said something on its standard error.
func (g *ground) start(t *testing.T, said, report string, args ...string) *exec.Cmd {
	t.Helper()
	args = append([]string{"run", "--provider", "kind", "--cluster", g.name, "--format", "table", "--format", "json", "--output", report}, args...)
	cmd := exec.Command(g.program, args...)
	out := &watched{text: said, seen: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = out, out
	require.NoError(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
		}
		if t.Failed() {
			t.Log(out.String())
		}
	})
	select {
	case <-out.seen:
	case err := <-ended:
		t.Fatalf("it ended too early: %v\n%s", err, out)
	case <-time.After(patience):
		t.Fatalf("it never said %q:\n%s", said, out)
	}
	return cmd
}

// watched keeps what is written, and tells when a text has come.
type watched struct {
	text string
	seen chan struct{}

	mu  sync.Mutex
	all bytes.Buffer
	hit bool
}

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all.Write(p)
	if !w.hit && strings.Contains(w.all.String(), w.text) {
		w.hit = true
		close(w.seen)
	}
	return len(p), nil
}

func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.all.String()
}

// core is the folder of scenarios that the runs prove which do not come to their end.
func core(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../../fixtures/core/ingress")
	require.NoError(t, err)
	return dir
}

func TestAnInterruptedRunSaysSoAndLeavesNothing(t *testing.T) {
	g := open(t)
	report := filepath.Join(t.TempDir(), "report.json")
	cmd := g.start(t, "[2/3]", report, core(t))
	require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
	require.Eventually(t, func() bool { return cmd.ProcessState != nil }, patience, 50*time.Millisecond)
	assert.Equal(t, 130, cmd.ProcessState.ExitCode())

	text, err := os.ReadFile(report)
	require.NoError(t, err)
	var r model.Run
	require.NoError(t, json.Unmarshal(text, &r))
	assert.False(t, r.Complete)
	assert.Equal(t, model.Interrupted, r.Summary.Result)
	require.NotEmpty(t, r.Scenarios)
	assert.Equal(t, model.Passed, r.Scenarios[0].Result, "what was proven before is kept")
	honestUntil(t, r)
	c := g.attach(t)
	clean(t, c)
	require.NoError(t, c.Close(context.WithoutCancel(t.Context())))
}

// honestUntil is honest for a run that was ended early.
func honestUntil(t *testing.T, r model.Run) {
	t.Helper()
	for _, s := range r.Scenarios {
		for _, step := range s.Steps {
			for _, c := range step.Cells {
				assert.Contains(t, []model.Result{model.Passed, model.ResultInconclusive}, c.Result, "%s: %s", c.ID, c.Reason)
			}
		}
	}
}

func TestWhatAKilledRunLeftIsRemovedByTheNext(t *testing.T) {
	g := open(t)
	report := filepath.Join(t.TempDir(), "report.json")
	cmd := g.start(t, "[2/3]", report, core(t))
	require.NoError(t, cmd.Process.Kill())
	require.Eventually(t, func() bool { return cmd.ProcessState != nil }, patience, 50*time.Millisecond)

	c := g.attach(t)
	clean(t, c)
	r := prove(t, c, run.Options{})
	assert.Equal(t, model.ExitOK, model.ExitCode(r))
	require.NoError(t, c.Close(context.WithoutCancel(t.Context())))
}

// TestAfterAllFaultsTheClusterIsAsGoodAsNew comes after them: what they broke is whole.
func TestAfterAllFaultsTheClusterIsAsGoodAsNew(t *testing.T) {
	g := open(t)
	c := g.attach(t)
	r := prove(t, c, run.Options{})
	assert.Equal(t, model.ExitOK, model.ExitCode(r))
	clean(t, c)
	require.NoError(t, c.Close(context.WithoutCancel(t.Context())))
}

// TestTheUsersKubeconfigIsLeftAlone comes last: no test before it may have written there.
func TestTheUsersKubeconfigIsLeftAlone(t *testing.T) {
	g := open(t)
	home, err := os.UserHomeDir()
	require.NoError(t, err)
	text, err := os.ReadFile(cmp.Or(os.Getenv("KUBECONFIG"), filepath.Join(home, ".kube", "config")))
	if !os.IsNotExist(err) {
		require.NoError(t, err)
	}
	assert.NotContains(t, string(text), "kind-"+g.name)
}
