package kind

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/netproof/netproof/harness/cluster/kind/engine"
	"github.com/netproof/netproof/harness/cni/install"
	"github.com/netproof/netproof/harness/image"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
)

const (
	// realEnv asks for the tests that need a container engine and a node image; make test-kind sets it.
	realEnv = "NETPROOF_TEST_KIND"
	// agentEnv names a static netproof for probe pods; without it the test binary plays it, and must be static:
	// CGO_ENABLED=0 go test.
	agentEnv = "NETPROOF_TEST_KIND_AGENT"
	// cniEnv names the network plugin of the clusters, familyEnv their IP families; calico and ipv4 if they are not
	// set.
	cniEnv    = "NETPROOF_TEST_KIND_CNI"
	familyEnv = "NETPROOF_TEST_KIND_FAMILY"
	// manifestEnv and chartEnv name what is installed instead of what the vendor publishes.
	manifestEnv = "NETPROOF_TEST_KIND_MANIFEST"
	chartEnv    = "NETPROOF_TEST_KIND_CHART"
)

func testCNI() string { return cmp.Or(os.Getenv(cniEnv), cniCalico) }

func testFamilies() []model.IPFamily {
	switch os.Getenv(familyEnv) {
	case "ipv6":
		return []model.IPFamily{model.IPv6}
	case "dual":
		return []model.IPFamily{model.IPv4, model.IPv6}
	}
	return []model.IPFamily{model.IPv4}
}

func needKind(t *testing.T) *engine.Engine {
	t.Helper()
	if os.Getenv(realEnv) != "1" {
		t.Skip("needs a container engine and a node image: make test-kind, or " + realEnv + "=1 with what that builds")
	}
	if _, err := image.Architecture(cmp.Or(os.Getenv(agentEnv), "/proc/self/exe")); err != nil {
		t.Fatal(err)
	}
	e, err := engine.Detect(t.Context(), "")
	require.NoError(t, err)
	return e
}

// realOptions are those of a provider in tests; each word of progress goes to the log, and to hear.
func realOptions(t *testing.T, hear func(string)) Options {
	return Options{
		CNI:        install.Options{Manifest: os.Getenv(manifestEnv), Chart: os.Getenv(chartEnv)},
		Executable: os.Getenv(agentEnv), LogsDir: filepath.Join(t.TempDir(), "logs"),
		Progress: func(s string) {
			t.Logf("%s  %s", time.Now().Format("15:04:05.0"), s)
			if hear != nil {
				hear(s)
			}
		},
	}
}

func startCluster(t *testing.T, name string, nodes int, o Options) *Cluster {
	t.Helper()
	p, err := New(o)
	require.NoError(t, err)
	opts := clusterOptions(name)
	opts.Nodes = nodes
	c, err := p.Start(t.Context(), opts)
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() { // otherwise the test has removed it
			_ = Delete(context.Background(), "", c.Name())
		}
	})
	for _, m := range c.timeline {
		t.Logf("%6.1f s  %s", m.after.Seconds(), m.what)
	}
	return c
}

// remains lists what there is of a cluster: containers, the network, temporary files, and entries of the user's
// kubeconfig.
func remains(t *testing.T, e *engine.Engine, name string, volumes ...string) []string {
	t.Helper()
	ctx := context.Background()
	var out []string
	containers, err := e.Lines(ctx, "ps", "-a", "--format", "{{.Names}}")
	require.NoError(t, err)
	for _, c := range containers {
		if strings.HasPrefix(c, name+"-") {
			out = append(out, "container "+c)
		}
	}
	networks, err := e.Lines(ctx, "network", "ls", "--format", "{{.Name}}")
	require.NoError(t, err)
	for _, n := range networks {
		if n == networkOf(name) {
			out = append(out, "network "+n)
		}
	}
	there, err := e.Lines(ctx, "volume", "ls", "-q")
	require.NoError(t, err)
	for _, v := range volumes {
		for _, other := range there {
			if v == other {
				out = append(out, "volume "+v)
			}
		}
	}
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), "netproof-kind-*"))
	require.NoError(t, err)
	for _, d := range dirs {
		if text, err := os.ReadFile(filepath.Join(d, "kubeconfig")); err == nil && strings.Contains(string(text), "kind-"+name) {
			out = append(out, "folder "+d)
		}
	}
	if home, err := os.UserHomeDir(); err == nil {
		if text, err := os.ReadFile(filepath.Join(home, ".kube", "config")); err == nil && strings.Contains(string(text), "kind-"+name) {
			out = append(out, "an entry of ~/.kube/config")
		}
	}
	return out
}

// volumesOf are the volumes of a cluster's nodes.
func volumesOf(t *testing.T, e *engine.Engine, name string) []string {
	t.Helper()
	own, _, err := containersOf(t.Context(), e, name)
	require.NoError(t, err)
	var names []string
	for _, c := range own {
		out, err := e.Output(t.Context(), "inspect", "--format", "{{json .Mounts}}", c.ID)
		require.NoError(t, err)
		var mounts []struct{ Type, Name string }
		require.NoError(t, json.Unmarshal([]byte(out), &mounts))
		for _, m := range mounts {
			if m.Type == "volume" {
				names = append(names, m.Name)
			}
		}
	}
	return names
}

// makePod makes a probe pod on a node that serves a port, and returns it when it is ready.
func makePod(t *testing.T, c *Cluster, name string, node model.Node, port int32) *corev1.Pod {
	t.Helper()
	client, err := kubernetes.NewForConfig(c.RESTConfig())
	require.NoError(t, err)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{NodeName: node.Name, Containers: []corev1.Container{{
			Ports: []corev1.ContainerPort{{ContainerPort: port, Protocol: corev1.ProtocolTCP}},
		}}},
	}
	c.PreparePod(pod)
	_, err = client.CoreV1().Pods("default").Create(t.Context(), pod, metav1.CreateOptions{})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		pod, err = client.CoreV1().Pods("default").Get(t.Context(), name, metav1.GetOptions{})
		return err == nil && pod.Status.Phase == corev1.PodRunning && len(pod.Status.PodIPs) > 0
	}, time.Minute, 100*time.Millisecond, "pod %s does not run: %v", name, pod.Status)
	return pod
}

// probe sends one probe to each of a pod's addresses and gives the outcomes.
func probe(t *testing.T, from probes.Agent, port int, to ...string) []probes.Outcome {
	t.Helper()
	var batch []probes.Request
	for i, text := range to {
		batch = append(batch, probes.Request{
			ID: int64(i), Nonce: probes.Nonce(rand16()), Protocol: model.TCP, Address: address(t, text), Port: port, TimeoutMs: 3000,
		})
	}
	out := make([]probes.Outcome, len(batch))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	require.NoError(t, from.Probe(ctx, batch, func(r probes.Response) {
		out[r.ID] = r.Outcome
		if r.Outcome != probes.Answered {
			t.Logf("probe: %+v", r)
		}
	}))
	return out
}

func TestAClusterIsMadeUsedAndRemoved(t *testing.T) {
	e := needKind(t)
	c := startCluster(t, "", 2, realOptions(t, nil))
	ctx := t.Context()
	assert.NotEmpty(t, c.timeline)

	t.Run("it is what was asked for", func(t *testing.T) {
		info := c.Info()
		assert.Equal(t, "kind", info.Provider)
		assert.Equal(t, testCNI(), info.CNI.Name)
		assert.NotEmpty(t, info.CNI.Version)
		assert.Equal(t, 2, info.Nodes)
		nodes := c.Nodes()
		require.Len(t, nodes, 2)
		assert.Equal(t, c.Name()+"-worker", nodes[0].Name)
		assert.Equal(t, c.Name()+"-worker2", nodes[1].Name)
		assert.NotEmpty(t, nodes[0].Addresses)
		require.NoError(t, c.Health(ctx))
	})
	t.Run("it is listed by its labels", func(t *testing.T) {
		list, err := List(ctx, "")
		require.NoError(t, err)
		var found Info
		for _, i := range list {
			if i.Name == c.Name() {
				found = i
			}
		}
		assert.Equal(t, Ready, found.State)
		assert.Equal(t, c.Info().Kubernetes, found.Kubernetes)
		assert.Equal(t, testCNI(), found.CNI)
		assert.Equal(t, testFamilies(), found.IPFamilies)
		assert.WithinDuration(t, time.Now(), found.Created, 20*time.Minute)
	})
	t.Run("pods, nodes and hosts reach each other", func(t *testing.T) { useCluster(t, c, "api-") })
	t.Run("also from inside the pods' network namespaces", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("takes root")
		}
		o := realOptions(t, nil)
		o.Direct = true
		p, err := New(o)
		require.NoError(t, err)
		direct, err := p.Attach(ctx, c.Name())
		require.NoError(t, err)
		useCluster(t, direct, "direct-")
		require.NoError(t, direct.Close(ctx))
		require.NoError(t, c.Health(ctx))
	})
	t.Run("a name that is taken is refused", func(t *testing.T) {
		p, err := New(realOptions(t, nil))
		require.NoError(t, err)
		_, err = p.Create(ctx, clusterOptions(c.Name()))
		require.ErrorIs(t, err, ErrExists)
		require.NoError(t, c.Health(ctx), "and the cluster is still there")
	})
	t.Run("a node that stops is told", func(t *testing.T) {
		node := c.Nodes()[1].Name
		_, err := e.Change(ctx, nil, "stop", "-t", "0", node)
		require.NoError(t, err)
		require.ErrorContains(t, c.run.Health(ctx), "the container of node "+node+" is exited")
		list, err := List(ctx, "")
		require.NoError(t, err)
		for _, i := range list {
			if i.Name == c.Name() {
				assert.Equal(t, Degraded, i.State)
			}
		}
	})
	volumes := volumesOf(t, e, c.Name())
	assert.NotEmpty(t, volumes)
	began := time.Now()
	require.NoError(t, c.Close(ctx))
	t.Logf("closed after %s", time.Since(began))
	assert.Empty(t, remains(t, e, c.Name(), volumes...))
	require.ErrorIs(t, Delete(ctx, "", c.Name()), ErrNotFound)
}

// useCluster sends probes along every path that a provider makes.
func useCluster(t *testing.T, c *Cluster, prefix string) {
	ctx := t.Context()
	const port = 8080
	a, b := makePod(t, c, prefix+"a", c.Nodes()[0], port), makePod(t, c, prefix+"b", c.Nodes()[1], port)
	var ips []string
	for _, ip := range b.Status.PodIPs {
		ips = append(ips, ip.IP)
		c.Admit(address(t, ip.IP))
	}
	require.Len(t, ips, len(testFamilies()))
	answered := make([]probes.Outcome, len(ips))
	for i := range answered {
		answered[i] = probes.Answered
	}
	pod, err := c.PodAgent(ctx, a)
	require.NoError(t, err)
	_, err = c.PodAgent(ctx, b)
	require.NoError(t, err)
	assert.Equal(t, answered, probe(t, pod, port, ips...), "from pod to pod")

	node, err := c.NodeAgent(ctx, 0)
	require.NoError(t, err)
	assert.Equal(t, answered, probe(t, node, port, ips...), "from a node")

	began := time.Now()
	host, err := c.AddHost(ctx, model.Host{Name: "ledger", Ports: []model.Port{{Number: 443, Protocol: model.TCP}}})
	require.NoError(t, err)
	t.Logf("host made after %s", time.Since(began))
	require.Len(t, host.Addresses, len(testFamilies()))
	var addresses []string
	for _, address := range host.Addresses {
		addresses = append(addresses, address.String())
	}
	assert.Equal(t, answered, probe(t, pod, 443, addresses...), "from a pod to a host")
	assert.Equal(t, answered, probe(t, host.Agent, port, ips...), "from a host to a pod")
	require.NoError(t, c.RemoveHost(ctx, "ledger"))
	left, err := containersWith(ctx, c.run.engine, LabelCluster+"="+c.Name())
	require.NoError(t, err)
	assert.Empty(t, left)
}

func TestInterruptionAtAnyMomentLeavesNothing(t *testing.T) {
	e := needKind(t)
	for _, moment := range []string{
		"looking at the container engine", "starting the nodes", "starting the control plane", "joining the workers", "waiting for nodes and network plugin",
	} {
		for _, delay := range []time.Duration{0, 700 * time.Millisecond} {
			t.Run(moment+" and "+delay.String(), func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				var volumes []string
				var once sync.Once
				p, err := New(realOptions(t, func(s string) {
					if s == moment {
						once.Do(func() { time.AfterFunc(delay, cancel) })
					}
				}))
				require.NoError(t, err)
				name := "netproof-" + strings.ToLower(rand16()[:6])
				_, err = p.Create(ctx, clusterOptions(name))
				ended := time.Now()
				require.ErrorIs(t, err, context.Canceled)
				t.Log(err)
				assert.Empty(t, remains(t, e, name, volumes...))
				// Nothing appears later either.
				require.Never(t, func() bool { return len(remains(t, e, name)) > 0 }, 2*time.Second, 200*time.Millisecond)
				_ = ended
			})
		}
	}
}

func TestAKilledRunnerLeavesNothing(t *testing.T) {
	e := needKind(t)
	for _, moment := range []string{"progress: starting the nodes", "progress: starting the control plane", "ready"} {
		t.Run(moment, func(t *testing.T) {
			name := "netproof-" + strings.ToLower(rand16()[:6])
			runner := startRunner(t, "cluster:"+name, moment)
			require.NoError(t, runner.Process.Kill())
			_, _ = runner.Process.Wait()
			killed := time.Now()
			require.Eventually(t, func() bool { return len(remains(t, e, name)) == 0 }, 3*time.Minute, 200*time.Millisecond)
			t.Logf("removed after %s", time.Since(killed))
			require.Never(t, func() bool { return len(remains(t, e, name)) > 0 }, 2*time.Second, 200*time.Millisecond)
			list, err := List(t.Context(), "")
			require.NoError(t, err)
			for _, i := range list {
				assert.NotEqual(t, name, i.Name)
			}
		})
	}
}

func TestAnotherToolsClusterIsNotTouched(t *testing.T) {
	e := needKind(t)
	s, err := Options{}.plan(clusterOptions(""))
	require.NoError(t, err)
	name := "foreign-" + strings.ToLower(rand16()[:6])
	id, err := e.Change(t.Context(), nil, "create", "--name", name+"-control-plane", "--label", labelKind+"="+name, "--label", labelRole+"="+roleControlPlane, s.image)
	require.NoError(t, err)
	defer func() { _, _ = e.Change(context.Background(), nil, "rm", "-f", "-v", strings.TrimSpace(id)) }()
	there := func() bool {
		_, foreign, err := containersOf(t.Context(), e, name)
		return err == nil && len(foreign) == 1
	}
	require.True(t, there())

	err = Delete(t.Context(), "", name)
	require.ErrorIs(t, err, ErrNotOurs)
	require.ErrorContains(t, err, "kind delete cluster --name "+name)
	p, err := New(realOptions(t, nil))
	require.NoError(t, err)
	_, err = p.Attach(t.Context(), name)
	require.ErrorIs(t, err, ErrNotOurs)
	require.ErrorContains(t, err, "--provider existing")
	_, err = p.Create(t.Context(), clusterOptions(name))
	require.ErrorIs(t, err, ErrExists)
	assert.True(t, there(), "it is still there")

	// A network of that name which somebody else has made is no licence either.
	_, err = e.Change(t.Context(), nil, "network", "create", networkOf(name))
	require.NoError(t, err)
	defer func() { _, _ = e.Change(context.Background(), nil, "network", "rm", networkOf(name)) }()
	require.ErrorIs(t, Delete(t.Context(), "", name), ErrNotOurs)
	assert.True(t, there())
	require.ErrorIs(t, Delete(t.Context(), "", "no-such-cluster"), ErrNotFound)
}

func TestAKeptClusterIsUsedAgain(t *testing.T) {
	e := needKind(t)
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	o := realOptions(t, nil)
	o.Keep = true
	c := startCluster(t, "", 1, o)
	ctx := t.Context()
	require.NoError(t, c.Close(ctx))
	require.FileExists(t, c.Kubeconfig())
	assert.NotEmpty(t, remains(t, e, c.Name()), "it is kept")

	p, err := New(realOptions(t, nil))
	require.NoError(t, err)
	began := time.Now()
	again, err := p.Attach(ctx, c.Name())
	require.NoError(t, err)
	t.Logf("attached after %s", time.Since(began))
	want := c.Info()
	assert.Equal(t, want, again.Info())
	assert.Equal(t, c.Nodes(), again.Nodes())
	require.NoError(t, again.Health(ctx))
	_, err = again.AddHost(ctx, model.Host{Name: "left-behind"})
	require.NoError(t, err)
	require.NoError(t, again.Close(ctx))
	hosts, err := containersWith(ctx, e, LabelCluster+"="+c.Name())
	require.NoError(t, err)
	assert.Empty(t, hosts, "what a run made goes, the cluster stays")

	t.Run("but not when its nodes are stopped", func(t *testing.T) {
		_, err := e.Change(ctx, nil, "stop", "-t", "0", c.Name()+"-worker")
		require.NoError(t, err)
		_, err = p.Attach(ctx, c.Name())
		require.ErrorContains(t, err, "it is degraded")
	})
	volumes := volumesOf(t, e, c.Name())
	require.NoError(t, Delete(ctx, "", c.Name()))
	assert.Empty(t, remains(t, e, c.Name(), volumes...))
	assert.NoFileExists(t, c.Kubeconfig())
	_, err = p.Attach(ctx, c.Name())
	require.ErrorIs(t, err, ErrNotFound)
}

func TestAClusterThatFailsLeavesItsLogsAndNothingElse(t *testing.T) {
	e := needKind(t)
	s, err := Options{}.plan(clusterOptions(""))
	require.NoError(t, err)
	// A node image whose nodes end like those of a machine without inotify handles.
	out, err := e.Change(t.Context(), nil, "create", s.image)
	require.NoError(t, err)
	id := strings.TrimSpace(out)
	defer func() { _, _ = e.Change(context.Background(), nil, "rm", "-f", "-v", id) }()
	const broken = "netproof.dev/test-broken-node:1"
	_, err = e.Change(t.Context(), nil, "commit", "-c",
		`ENTRYPOINT ["/bin/sh", "-c", "echo Failed to create control group inotify object: Too many open files; exit 255"]`, id, broken)
	require.NoError(t, err)
	defer func() { _, _ = e.Change(context.Background(), nil, "rmi", broken) }()

	o := realOptions(t, nil)
	o.NodeImage = broken
	p, err := New(o)
	require.NoError(t, err)
	_, err = p.Create(t.Context(), clusterOptions(""))
	t.Log(err)
	problem, known := errors.AsType[*engine.Problem](err)
	require.True(t, known)
	assert.Equal(t, engine.NoHandles, problem.Kind)
	failed, ok := errors.AsType[*CreateError](err)
	require.True(t, ok)
	require.Equal(t, o.LogsDir, failed.Logs)
	require.ErrorContains(t, err, "logs: "+failed.Logs)
	text, err := os.ReadFile(filepath.Join(failed.Logs, "error.txt"))
	require.NoError(t, err)
	assert.Contains(t, string(text), "max_user_instances")
	serial, err := os.ReadFile(filepath.Join(failed.Logs, failed.Name+"-control-plane", "serial.log"))
	require.NoError(t, err)
	assert.Contains(t, string(serial), "inotify object")
	assert.Empty(t, remains(t, e, failed.Name))
}

func TestAnImageThatIsNowhereIsNamed(t *testing.T) {
	e := needKind(t)
	o := realOptions(t, nil)
	o.NodeImage = "netproof.invalid/kind-node:v1.0.0"
	p, err := New(o)
	require.NoError(t, err)
	_, err = p.Create(t.Context(), clusterOptions("nowhere"))
	problem, known := errors.AsType[*engine.Problem](err)
	require.True(t, known, "%v", err)
	assert.Equal(t, engine.NoImage, problem.Kind)
	require.ErrorContains(t, err, "netproof.invalid/kind-node:v1.0.0")
	assert.Empty(t, remains(t, e, "nowhere"))
}

func TestClustersSideBySide(t *testing.T) {
	e := needKind(t)
	if os.Getenv("NETPROOF_TEST_KIND_TWO") != "1" {
		t.Skip("takes two clusters at a time: NETPROOF_TEST_KIND_TWO=1")
	}
	var both sync.WaitGroup
	made := make([]*Cluster, 2)
	errs := make([]error, 2)
	for i := range made {
		both.Go(func() {
			p, err := New(realOptions(t, nil))
			if err == nil {
				made[i], err = p.Start(t.Context(), clusterOptions(""))
			}
			errs[i] = err
		})
	}
	both.Wait()
	for i, c := range made {
		require.NoError(t, errs[i])
		require.NoError(t, c.Health(t.Context()))
	}
	require.NoError(t, made[0].Close(t.Context()))
	assert.Empty(t, remains(t, e, made[0].Name()))
	require.NoError(t, made[1].Health(t.Context()), "the other one goes on")
	require.NoError(t, made[1].Close(t.Context()))
	assert.Empty(t, remains(t, e, made[1].Name()))
}
