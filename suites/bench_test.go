//go:build linux

package suites

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"

	"github.com/netproof/netproof/fixtures"
	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/local"
	"github.com/netproof/netproof/harness/cluster/local/engine"
	"github.com/netproof/netproof/harness/expect"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/prooftest"
	"github.com/netproof/netproof/harness/run"
	"github.com/netproof/netproof/harness/scenario"
	"github.com/netproof/netproof/probes"
)

// The benchmarks of docs/performance.md. They run on the real thing: make bench.

// BenchmarkClusterReady measures from nothing to a cluster of two nodes whose network plugin is ready, and the memory
// of all of its processes.
func BenchmarkClusterReady(b *testing.B) {
	engines, err := engine.Ensure(b.Context(), engine.Options{CNI: "calico"})
	require.NoError(b, err)
	defer engines.Close()
	var megabytes float64
	for b.Loop() {
		c, err := local.New(engines).Create(b.Context(), cluster.Options{CNI: "calico", Nodes: 2})
		require.NoError(b, err)
		b.StopTimer()
		megabytes = max(megabytes, memory(b))
		require.NoError(b, c.Close(context.WithoutCancel(b.Context())))
		b.StartTimer()
	}
	b.ReportMetric(megabytes, "MB-of-all-processes")
}

// memory is the proportional set size of every process in this PID namespace, in MB: the sandbox, netproof included.
func memory(tb testing.TB) float64 {
	tb.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/smaps_rollup")
	require.NoError(tb, err)
	kilobytes := 0
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue // it has just ended
		}
		for line := range strings.Lines(string(text)) {
			if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
				n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
				require.NoError(tb, err)
				kilobytes += n
			}
		}
	}
	return float64(kilobytes) / 1024
}

// prepare loads and plans scenarios for the suite's cluster.
func prepare(tb testing.TB, c cluster.Cluster, opts scenario.Options, paths ...string) []*expect.Scenario {
	tb.Helper()
	list, err := scenario.Load(tb.Context(), paths, opts)
	require.NoError(tb, err)
	prepared, err := expect.Prepare(list, expect.Options{Families: c.Info().IPFamilies, Nodes: c.Info().Nodes})
	require.NoError(tb, err)
	return prepared.Scenarios()
}

// BenchmarkTwentyFiveScenarios measures the first 25 core scenarios of the fixtures on one cluster, and the quickstart.
func BenchmarkTwentyFiveScenarios(b *testing.B) {
	c, lanes := prooftest.Open(b)
	all := prepare(b, c, scenario.Options{FS: fixtures.FS()}, "core")
	for b.Loop() {
		for _, p := range all[:25] {
			result, err := lanes.Prove(b.Context(), p)
			require.NoError(b, err)
			require.Equal(b, model.Passed, result.Result, result.Name)
		}
	}
}

// BenchmarkLanes measures all core scenarios with one lane and with several, in one run, and reports the processor time
// of all processes: the cluster's, the plugin's and this one's. Every cell has to be as expected, whatever the lanes.
func BenchmarkLanes(b *testing.B) {
	c, _ := prooftest.Open(b)
	list, err := scenario.Load(b.Context(), []string{"core"}, scenario.Options{FS: fixtures.FS()})
	require.NoError(b, err)
	prepared, err := expect.Prepare(list, expect.Options{Families: c.Info().IPFamilies, Nodes: c.Info().Nodes})
	require.NoError(b, err)
	for _, lanes := range []int{1, 2, 4} {
		b.Run(fmt.Sprintf("lanes=%d", lanes), func(b *testing.B) {
			before := processorTime(b)
			for b.Loop() {
				// The benchmarks share a cluster, so each cleans up what it has made.
				result, _, err := run.Run(b.Context(), c, prepared, run.Options{Lanes: lanes, Allow: scenario.Reaches()})
				require.NoError(b, err)
				require.Equal(b, model.ExitOK, model.ExitCode(result), "%+v %v", result.Summary, result.Findings)
			}
			b.ReportMetric((processorTime(b)-before).Seconds()/float64(b.N), "cpu-s/op")
		})
	}
}

// processorTime is that of every process in this PID namespace, and of those of their children that have ended: the
// sandbox, netproof included, or with kind all of the machine.
func processorTime(tb testing.TB) time.Duration {
	tb.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	require.NoError(tb, err)
	ticks := 0
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue // it has just ended
		}
		// The name, in parentheses, may have spaces: proc(5) has utime, stime, cutime and cstime as fields 14 to 17.
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		for _, field := range fields[11:15] {
			n, err := strconv.Atoi(field)
			require.NoError(tb, err)
			ticks += n
		}
	}
	return time.Duration(ticks) * 10 * time.Millisecond // USER_HZ is 100
}

// BenchmarkFiftyToFifty measures tables of 50 pods to 50 pods, and reports how long after the policy they were settled.
func BenchmarkFiftyToFifty(b *testing.B) {
	c, lanes := prooftest.Open(b)
	for _, denied := range []bool{true, false} {
		b.Run(fmt.Sprintf("denied=%t", denied), func(b *testing.B) {
			files := fstest.MapFS{"scale/scenario.yaml": {Data: fixtures.Scale(50, denied)}}
			p := prepare(b, c, scenario.Options{FS: files}, "scale")[0]
			settled := 0.0
			for b.Loop() {
				result, err := lanes.Prove(b.Context(), p)
				require.NoError(b, err)
				require.Equal(b, model.Passed, result.Result)
				settled = max(settled, float64(result.Steps[0].SettledMs))
			}
			b.ReportMetric(settled, "ms-to-settle")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// pods makes n pods that serve a port, spread over the nodes, and returns their agents with their addresses.
func pods(b *testing.B, c cluster.Cluster, n int) (agents []probes.Agent, running []corev1.Pod) {
	b.Helper()
	client, err := kubernetes.NewForConfig(c.RESTConfig())
	require.NoError(b, err)
	namespaces := client.CoreV1().Namespaces()
	_, err = namespaces.Create(b.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "bench"}}, metav1.CreateOptions{})
	require.NoError(b, err)
	b.Cleanup(func() {
		ctx := context.Background()
		require.NoError(b, namespaces.Delete(ctx, "bench", metav1.DeleteOptions{}))
	})
	for i := range n {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("p%d", i)}, Spec: corev1.PodSpec{
			NodeName: c.Nodes()[i%len(c.Nodes())].Name,
			Containers: []corev1.Container{{
				Name: "c", Image: "none", Ports: []corev1.ContainerPort{{ContainerPort: 8080}},
			}},
		}}
		_, err := client.CoreV1().Pods("bench").Create(b.Context(), pod, metav1.CreateOptions{})
		require.NoError(b, err)
	}
	require.NoError(b, wait.PollUntilContextTimeout(b.Context(), 50*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		list, err := client.CoreV1().Pods("bench").List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, err
		}
		running = list.Items
		for _, p := range running {
			if p.Status.Phase != corev1.PodRunning {
				return false, nil
			}
		}
		return len(running) == n, nil
	}))
	for i := range running {
		agent, err := c.PodAgent(b.Context(), &running[i])
		require.NoError(b, err)
		agents = append(agents, agent)
	}
	return agents, running
}

func address(tb testing.TB, pod corev1.Pod) netip.Addr {
	tb.Helper()
	a, err := netip.ParseAddr(pod.Status.PodIP)
	require.NoError(tb, err)
	return a
}

// BenchmarkProvenProbes measures proven probes, that is nonces that came back, through Calico's rules, beside one
// program started per probe as the usual tools do it, and reports both per second.
func BenchmarkProvenProbes(b *testing.B) {
	c, _ := prooftest.Open(b)
	agents, running := pods(b, c, 20)
	b.Run("netproof", func(b *testing.B) {
		const batch = 500
		proven := atomic.Int64{}
		began := time.Now()
		nonce := atomic.Int64{}
		for b.Loop() {
			var wg sync.WaitGroup
			for i, agent := range agents {
				wg.Go(func() {
					requests := make([]probes.Request, batch)
					for j := range requests {
						to := running[(i+1+j%(len(running)-1))%len(running)]
						requests[j] = probes.Request{
							ID: int64(j), Nonce: probes.Nonce(fmt.Sprintf("bench-%x", nonce.Add(1))), Protocol: model.TCP,
							Address: address(b, to), Port: 8080, TimeoutMs: 2000,
						}
					}
					err := agent.Probe(b.Context(), requests, func(r probes.Response) {
						if r.Outcome == probes.Answered {
							proven.Add(1)
						}
					})
					if err != nil {
						b.Error(err)
					}
				})
			}
			wg.Wait()
		}
		require.Equal(b, nonce.Load(), proven.Load(), "every probe must be answered")
		b.ReportMetric(float64(proven.Load())/time.Since(began).Seconds(), "probes/s")
		b.ReportMetric(0, "ns/op")
	})
	b.Run("one-program-per-probe", func(b *testing.B) {
		// The least that a suite pays which calls kubectl exec for every cell: one program, one connection over
		// loopback. The API server, the kubelet and the container runtime come on top.
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(b, err)
		defer listener.Close()
		script := fmt.Sprintf("exec 3<>/dev/tcp/127.0.0.1/%d", listener.Addr().(*net.TCPAddr).Port)
		n := 0
		began := time.Now()
		for b.Loop() {
			out, err := exec.CommandContext(b.Context(), "nsenter", "--net=/proc/self/ns/net", "bash", "-c", script).CombinedOutput()
			require.NoError(b, err, string(out))
			n++
		}
		b.ReportMetric(float64(n)/time.Since(began).Seconds(), "probes/s")
		b.ReportMetric(0, "ns/op")
	})
}
