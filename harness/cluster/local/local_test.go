package local_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/local"
	"github.com/netproof/netproof/harness/cluster/local/engine"
	"github.com/netproof/netproof/harness/cluster/local/sandbox"
	"github.com/netproof/netproof/probes"
)

func TestMain(m *testing.M) { sandbox.Main(m) }

var nonce int

func TestDev(t *testing.T) {
	engines, err := engine.Ensure(t.Context(), engine.Options{CNI: "calico"})
	require.NoError(t, err)
	t.Cleanup(func() { _ = engines.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	began := time.Now()
	c, err := local.New(engines).Start(ctx, cluster.Options{Progress: func(s string) { t.Logf("%v %s", time.Since(began), s) }})
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close(context.Background())) }()
	t.Logf("ready after %v", time.Since(began))
	client, err := kubernetes.NewForConfig(c.RESTConfig())
	require.NoError(t, err)
	_, err = client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "x"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	began = time.Now()
	for _, name := range []string{"a", "b"} {
		_, err = client.CoreV1().Pods("x").Create(ctx, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "x", Ports: []corev1.ContainerPort{{ContainerPort: 80}}}}},
		}, metav1.CreateOptions{})
		require.NoError(t, err)
	}
	for {
		pods, err := client.CoreV1().Pods("x").List(context.Background(), metav1.ListOptions{})
		if err != nil {
			for _, p := range c.Events() {
				t.Log(p)
			}
		}
		require.NoError(t, err)
		ready := 0
		for _, p := range pods.Items {
			for _, cond := range p.Status.Conditions {
				if cond.Type == corev1.PodReady && cond.Status == corev1.ConditionTrue {
					ready++
				}
			}
		}
		if ready == 2 {
			for _, p := range pods.Items {
				t.Log(p.Spec.NodeName, p.Status.PodIP)
			}
			break
		}
		select {
		case <-ctx.Done():
			for _, p := range pods.Items {
				for _, cond := range p.Status.Conditions {
					t.Logf("%s %s %s %s", p.Name, cond.Type, cond.Reason, cond.Message)
				}
			}
			for _, p := range c.Processes() {
				t.Logf("%s: %s", p.Name(), p.Tail(20))
			}
			_ = exec.Command("sh", "-c", "cp -r "+c.Dir()+"/logs /tmp/np/lastlogs; for t in /proc/$PPID/task/*; do nsenter --net=$t/ns/net --mount=$t/ns/mnt sh -c 'hostname; ip a; find /run -type f; cat /run/calico/endpoint-status/*; nft list ruleset'; done >/tmp/np/lastlogs/ns.txt 2>&1").Run()
			t.Fatal(c.Health(context.Background()))
		case <-time.After(10 * time.Millisecond):
		}
	}
	t.Logf("pods ready after %v", time.Since(began))
	pods, err := client.CoreV1().Pods("x").List(ctx, metav1.ListOptions{})
	require.NoError(t, err)
	from, err := c.PodAgent(ctx, &pods.Items[0])
	require.NoError(t, err)
	probe := func() (r probes.Response) {
		nonce++
		err := from.Probe(ctx, []probes.Request{{ID: 1, Nonce: probes.Nonce(fmt.Sprint("n", nonce)), Protocol: "TCP", Address: netip.MustParseAddr(pods.Items[1].Status.PodIP), Port: 80, TimeoutMs: 50}}, func(x probes.Response) { r = x })
		require.NoError(t, err)
		return r
	}
	began = time.Now()
	for probe().Outcome != probes.Answered {
		require.NoError(t, ctx.Err())
	}
	t.Logf("connected after %v", time.Since(began))
	for range 3 {
		_, err = client.NetworkingV1().NetworkPolicies("x").Create(ctx, &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "deny"}}, metav1.CreateOptions{})
		require.NoError(t, err)
		began = time.Now()
		for probe().Outcome == probes.Answered {
			require.NoError(t, ctx.Err())
		}
		t.Logf("denied after %v", time.Since(began))
		require.NoError(t, client.NetworkingV1().NetworkPolicies("x").Delete(ctx, "deny", metav1.DeleteOptions{}))
		began = time.Now()
		for probe().Outcome != probes.Answered {
			require.NoError(t, ctx.Err())
		}
		t.Logf("released after %v", time.Since(began))
	}
	began = time.Now()
	require.NoError(t, client.CoreV1().Namespaces().Delete(ctx, "x", metav1.DeleteOptions{}))
	for {
		if _, err := client.CoreV1().Namespaces().Get(ctx, "x", metav1.GetOptions{}); err != nil {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Logf("namespace gone after %v", time.Since(began))
	for _, p := range c.Processes() {
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p.PID()))
		for line := range strings.Lines(string(status)) {
			if strings.HasPrefix(line, "Rss") || strings.HasPrefix(line, "Pss:") || strings.HasPrefix(line, "Anonymous") {
				t.Logf("%s %s", p.Name(), line)
			}
		}
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
		f := strings.Fields(string(stat))
		t.Logf("%s utime %s stime %s (10ms)", p.Name(), f[13], f[14])
	}
	require.NoError(t, c.Health(ctx))
}
