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
