//go:build linux

package suites

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/exec"

	"github.com/netproof/netproof/fixtures"
	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/remote"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/prooftest"
	"github.com/netproof/netproof/harness/scenario"
)

// execWorkers is how many execs are under way at once: more did not make more of them a second on two processors.
const execWorkers = 16

// BenchmarkCellsBesideOneExecEach proves tables of 50 pods to 50 pods on a cluster whose pods are reached by exec, and
// starts, in the same run and from the same pods, one exec per cell as the usual tools do. It reports both as cells per
// second.
//
// The exec does less than those tools need: its program starts and ends, and connects to nobody. A proven cell takes at
// least three samples.
func BenchmarkCellsBesideOneExecEach(b *testing.B) {
	c, lanes := prooftest.Open(b)
	counted, ok := c.(interface{ Calls() int64 })
	if !ok {
		b.Skip("the embedded cluster has no exec: go test ./suites -run '^$' -bench Exec -args -provider kind")
	}
	for _, denied := range []bool{false, true} {
		files := fstest.MapFS{"scale/scenario.yaml": {Data: fixtures.Scale(50, denied)}}
		p := prepare(b, c, scenario.Options{FS: files}, "scale")[0]
		_, err := lanes.Prove(b.Context(), p) // makes the pods, which stay
		require.NoError(b, err)
		b.Run(fmt.Sprintf("netproof/denied=%t", denied), func(b *testing.B) {
			cells, calls := 0, counted.Calls()
			began := time.Now()
			for b.Loop() {
				result, err := lanes.Prove(b.Context(), p)
				require.NoError(b, err)
				require.Equal(b, model.Passed, result.Result)
				cells += len(result.Steps[0].Cells)
			}
			b.ReportMetric(float64(cells)/time.Since(began).Seconds(), "cells/s")
			b.ReportMetric(float64(counted.Calls()-calls)/float64(b.N), "round-trips/op")
			b.ReportMetric(0, "ns/op")
		})
	}
	b.Run("one-exec-per-cell", func(b *testing.B) {
		cfg := c.RESTConfig()
		list := scalePods(b, cfg)
		cells, next := 0, atomic.Int64{}
		began := time.Now()
		for b.Loop() {
			const some = 100
			var wg sync.WaitGroup
			work := make(chan int)
			for range execWorkers {
				wg.Go(func() {
					for range work {
						pod := &list[int(next.Add(1))%len(list)]
						if err := execOnce(b.Context(), cfg, pod); err != nil {
							b.Error(err)
						}
					}
				})
			}
			for i := range some {
				work <- i
			}
			close(work)
			wg.Wait()
			cells += some
		}
		b.ReportMetric(float64(cells)/time.Since(began).Seconds(), "cells/s")
		b.ReportMetric(0, "ns/op")
	})
}

// scalePods are the pods of the table.
func scalePods(b *testing.B, cfg *rest.Config) []corev1.Pod {
	b.Helper()
	client, err := kubernetes.NewForConfig(cfg)
	require.NoError(b, err)
	list, err := client.CoreV1().Pods("scale").List(b.Context(), metav1.ListOptions{LabelSelector: cluster.RunLabel})
	require.NoError(b, err)
	require.Len(b, list.Items, 50)
	return list.Items
}

// execOnce runs a program in a pod that says how it is called, and ends.
func execOnce(ctx context.Context, cfg *rest.Config, pod *corev1.Pod) error {
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return err
	}
	url := client.CoreV1().RESTClient().Post().Resource("pods").Namespace(pod.Namespace).Name(pod.Name).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Command: []string{remote.AgentPath, "agent", "nothing"}, Stdout: true, Stderr: true}, scheme.ParameterCodec).URL()
	executor, err := remotecommand.NewWebSocketExecutor(cfg, http.MethodGet, url.String())
	if err != nil {
		return err
	}
	var out bytes.Buffer
	err = executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &out, Stderr: &out})
	if _, ran := errors.AsType[exec.CodeExitError](err); !ran { // the program itself refuses its arguments
		return fmt.Errorf("exec in %s: %w: %s", pod.Name, err, out.String())
	}
	return nil
}

// BenchmarkTwoHundredPods proves what one pod reaches of 199 others, and they of it, and reports what that takes. What
// it takes to start 200 pods is in the first one only.
func BenchmarkTwoHundredPods(b *testing.B) {
	c, lanes := prooftest.Open(b)
	hub := []byte("  probes:\n    - {from: scale/p000, to: '*'}\n    - {from: '*', to: scale/p000}\n  steps:\n")
	table := bytes.Replace(fixtures.Scale(200, false), []byte("  steps:\n"), hub, 1)
	p := prepare(b, c, scenario.Options{FS: fstest.MapFS{"scale/scenario.yaml": {Data: table}}}, "scale")[0]
	for b.Loop() {
		result, err := lanes.Prove(b.Context(), p)
		require.NoError(b, err)
		require.Equal(b, model.Passed, result.Result)
		require.Len(b, result.Steps[0].Cells, 2*199)
		b.ReportMetric(float64(result.Steps[0].SettledMs), "ms-to-settle")
	}
}
