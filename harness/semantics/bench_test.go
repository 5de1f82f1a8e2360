package semantics

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/model"
)

// BenchmarkTable decides a table of 50 pods to 50 pods under ten policies, compilation included.
func BenchmarkTable(b *testing.B) {
	topology := &model.Topology{}
	for i := range 50 {
		topology.Pods = append(topology.Pods, model.Pod{
			Namespace: fmt.Sprintf("n%d", i%5), Name: fmt.Sprintf("p%d", i), Labels: model.Labels{"app": fmt.Sprint(i % 7)},
			Addresses: addrs(fmt.Sprintf("10.0.0.%d", i+1)), Ports: testPorts,
		})
	}
	var policies []Policy
	for i := range 10 {
		policies = append(policies, makePolicy(fmt.Sprintf("p%d", i), fmt.Sprintf("n%d", i%5), typeBoth,
			ingressRule(podsIn("", fmt.Sprintf("app=%d", i%7)), block("10.0.0.0/27"), on("80")), egressRule(podsIn("", ""))))
	}
	for b.Loop() {
		e, err := New(topology, policies)
		require.NoError(b, err)
		for i := range topology.Pods {
			for j := range topology.Pods {
				_, err := e.Decide(model.Connection{
					From: topology.Pods[i].Endpoint(), To: topology.Pods[j].Endpoint(), Port: 80, Protocol: model.TCP,
					IPFamily: model.IPv4, Via: model.ViaPodIP,
				})
				if err != nil {
					b.Fatal(err)
				}
			}
		}
	}
}

// BenchmarkWalk explains one denied connection.
func BenchmarkWalk(b *testing.B) {
	e := newEvaluator(b, testTopology(), makePolicy("deny", "x"), makePolicy("web", "x", ingressRule(podsOf("pod=a"), on("80"))))
	d := decide(b, e, "x/a -> x/b 81/TCP")
	for b.Loop() {
		_, _ = d.Summary(), d.Walk()
	}
}

// crowd is a cluster of many pods: workloads of fifty replicas, five in each namespace, every tenth workload on the
// network of its node. Each policy lets one workload in from the one before it, and out to a tier and to a network.
func crowd(pods, policies int) (*model.Topology, []Policy) {
	t := &model.Topology{}
	for i := range pods {
		workload := i / 50
		t.Pods = append(t.Pods, model.Pod{
			Namespace: fmt.Sprintf("n%d", workload/5), Name: fmt.Sprintf("p%d", i), Node: i % 1000, HostNetwork: workload%100 == 99,
			Labels: model.Labels{"app": fmt.Sprintf("a%d", workload), "tier": fmt.Sprint(workload % 3), "apps.kubernetes.io/pod-index": fmt.Sprint(i % 50)},
			Ports:  testPorts[:1],
		})
	}
	var list []Policy
	for i := range policies {
		workload := i + 1
		list = append(list, makePolicy(fmt.Sprintf("p%d", i), fmt.Sprintf("n%d", workload/5), selecting(fmt.Sprintf("app=a%d", workload)), typeBoth,
			ingressRule(podsIn("", fmt.Sprintf("app=a%d", workload-1)), on("80")),
			egressRule(podsIn("", fmt.Sprintf("tier=%d", i%3)), block("203.0.113.0/24"))))
	}
	return t, list
}

// BenchmarkSummary is the whole of a large cluster, its policies compiled; then the same with one more policy and with
// one more pod, which is what a change costs whoever watches.
func BenchmarkSummary(b *testing.B) {
	const pods, policies = 100_000, 1000
	for _, c := range []struct {
		name           string
		pods, policies int
	}{
		{"100000-pods-1000-policies", pods, policies},
		{"one-more-policy", pods, policies + 1},
		{"one-more-pod", pods + 1, policies},
	} {
		b.Run(c.name, func(b *testing.B) {
			topology, list := crowd(c.pods, c.policies)
			b.ReportAllocs()
			for b.Loop() {
				e, err := New(topology, list)
				require.NoError(b, err)
				s, err := e.Summarize(model.IPv4)
				require.NoError(b, err)
				b.ReportMetric(float64(len(s.Classes)), "classes")
			}
		})
	}
}
