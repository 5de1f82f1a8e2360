//go:build linux

package local_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/local"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
)

// BenchmarkStart is the time from nothing to two nodes with Calico that take pods, and the memory of all its programs.
func BenchmarkStart(b *testing.B) {
	engines, err := ensureEngines(b.Context(), "calico")
	require.NoError(b, err)
	defer func() { require.NoError(b, engines.Close()) }()
	var rss, pss float64
	for b.Loop() {
		c, err := local.New(engines).Start(deadline(b), cluster.Options{CNI: "calico"})
		require.NoError(b, err)
		b.StopTimer()
		rss, pss = memory(b, c)
		require.NoError(b, c.Close(context.Background()))
		b.StartTimer()
	}
	b.ReportMetric(rss, "MB-rss")
	b.ReportMetric(pss, "MB-pss")
}

// memory sums up the resident memory of the cluster's programs and of this process, in megabytes. Pages that several of
// them share count in each, and in the second sum once.
func memory(b *testing.B, c *local.Cluster) (rss, pss float64) {
	b.Helper()
	pids := []int{os.Getpid()}
	for _, p := range c.Processes() {
		pids = append(pids, p.PID())
	}
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		require.NoError(b, err)
		for line := range strings.Lines(string(text)) {
			var kb float64
			if n, _ := fmt.Sscanf(line, "Rss: %f kB", &kb); n == 1 {
				rss += kb / 1024
			}
			if n, _ := fmt.Sscanf(line, "Pss: %f kB", &kb); n == 1 {
				pss += kb / 1024
			}
		}
	}
	return rss, pss
}

// processorTime sums up what the programs whose names end so, and the children they waited for, have used.
func processorTime(b *testing.B, c *local.Cluster, suffix string) time.Duration {
	b.Helper()
	var ticks int
	for _, p := range c.Processes() {
		if !strings.HasSuffix(p.Name(), suffix) {
			continue
		}
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
		require.NoError(b, err)
		_, rest, _ := strings.Cut(string(text), ") ")
		for _, field := range strings.Fields(rest)[11:15] { // utime, stime, cutime, cstime of proc(5)
			n, err := strconv.Atoi(field)
			require.NoError(b, err)
			ticks += n
		}
	}
	return time.Duration(ticks) * 10 * time.Millisecond // USER_HZ is 100 on every platform that Go supports
}

// BenchmarkPods is the time for twenty pods on two nodes to become ready, and for their namespace to be gone.
func BenchmarkPods(b *testing.B) {
	l := start(b, cluster.Options{CNI: "calico"})
	used := processorTime(b, l.Cluster, "")
	var up, down time.Duration
	rounds := 0
	for b.Loop() {
		name := fmt.Sprintf("round-%d", rounds)
		rounds++
		began := time.Now()
		_, err := l.client.CoreV1().Namespaces().Create(deadline(b), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		require.NoError(b, err)
		var pods []*corev1.Pod
		for i := range 20 {
			pods = append(pods, newPod(name, fmt.Sprintf("p%d", i)))
		}
		l.create(b, pods...)
		up += time.Since(began)
		began = time.Now()
		l.removeNamespace(b, name)
		down += time.Since(began)
	}
	require.NoError(b, l.Health(b.Context()))
	used = processorTime(b, l.Cluster, "") - used
	b.ReportMetric(used.Seconds()/float64(rounds), "s-processor")
	b.ReportMetric(up.Seconds()/float64(rounds), "s-ready")
	b.ReportMetric(down.Seconds()/float64(rounds), "s-gone")
}

// BenchmarkPolicy is the time from a policy's acceptance to the first denial on another node, and from its deletion to
// the first answer.
func BenchmarkPolicy(b *testing.B) {
	l := start(b, cluster.Options{CNI: "calico"})
	ns := l.namespace(b, "bench")
	var pods []*corev1.Pod
	for i := range 10 {
		pods = append(pods, newPod(ns, fmt.Sprintf("p%d", i), onNode(i%2)))
	}
	pods = l.create(b, pods...)
	client, server := l.agent(b, pods[0]), podIPs(b, pods[1])[0]
	until := func(want bool) time.Duration {
		began := time.Now()
		for n := 0; ; n++ {
			var r probes.Response
			request := probes.Request{
				ID: 1, Nonce: probes.Nonce(fmt.Sprintf("%d-%d", began.UnixNano(), n)),
				Protocol: model.TCP, Address: server, Port: 80, TimeoutMs: 5,
			}
			require.NoError(b, client.Probe(deadline(b), []probes.Request{request}, func(got probes.Response) { r = got }))
			if (r.Outcome == probes.Answered) == want {
				return r.SentAt.Sub(began)
			}
		}
	}
	until(true)
	used := processorTime(b, l.Cluster, "/felix")
	var cut, open time.Duration
	rounds := 0
	for b.Loop() {
		rounds++
		l.policy(b, ns, denyIngress("deny", metav1.LabelSelector{}))
		cut += until(false)
		require.NoError(b, l.client.NetworkingV1().NetworkPolicies(ns).Delete(deadline(b), "deny", metav1.DeleteOptions{}))
		open += until(true)
	}
	used = processorTime(b, l.Cluster, "/felix") - used
	b.ReportMetric(1000*used.Seconds()/float64(rounds), "ms-felix")
	b.ReportMetric(1000*cut.Seconds()/float64(rounds), "ms-enforced")
	b.ReportMetric(1000*open.Seconds()/float64(rounds), "ms-released")
}
