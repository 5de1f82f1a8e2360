package expect_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/netproof/netproof/harness/expect"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/scenario"
)

// monorepo is a folder of many teams, each with a namespace of its own: five kinds of workloads, a default deny, and
// policies that let one kind in to another from the namespaces of one environment.
func monorepo(teams, workloads, policies int) string {
	kinds := []string{"web", "api", "worker", "db", "cache"}
	ports := []int{80, 8080, 9000, 5432, 6379}
	environments := []string{"dev", "test", "prod"}
	var b strings.Builder
	document := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n---\n", args...) }
	for i := range teams {
		document("{apiVersion: v1, kind: Namespace, metadata: {name: team-%d, labels: {env: %s}}}", i, environments[i%3])
	}
	for i := range workloads {
		kind := i / teams % 5
		labels := fmt.Sprintf("{app: %s, id: w%d}", kinds[kind], i)
		document("{apiVersion: apps/v1, kind: Deployment, metadata: {name: %s-%d, namespace: team-%d}, spec: {selector: {matchLabels: %s}, "+
			"template: {metadata: {labels: %s}, spec: {containers: [{name: c, image: i, ports: [{containerPort: %d}]}]}}}}",
			kinds[kind], i, i%teams, labels, labels, ports[kind])
	}
	for i := range policies {
		team, k := i%teams, i/teams
		spec := "{podSelector: {}, policyTypes: [Ingress]}"
		if k > 0 {
			spec = fmt.Sprintf("{podSelector: {matchLabels: {app: %s}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {app: %s}}, namespaceSelector: {matchLabels: {env: %s}}}]}]}",
				kinds[k%5], kinds[(k+1)%5], environments[k%3])
		}
		document("{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p-%d, namespace: team-%d}, spec: %s}", k, team, spec)
	}
	return b.String()
}

// BenchmarkMonorepo reads and plans a large folder, as netproof list does.
func BenchmarkMonorepo(b *testing.B) {
	for _, size := range []struct{ teams, workloads, policies int }{{40, 2000, 1000}, {40, 2000, 500}, {40, 1000, 1000}} {
		b.Run(fmt.Sprintf("workloads=%d,policies=%d", size.workloads, size.policies), func(b *testing.B) {
			files := fstest.MapFS{"dir/all.yaml": {Data: []byte(monorepo(size.teams, size.workloads, size.policies))}}
			for b.Loop() {
				list, err := scenario.Load(context.Background(), []string{"dir"}, scenario.Options{FS: files})
				if err != nil {
					b.Fatal(err)
				}
				prepared, err := expect.Prepare(list, expect.Options{Families: []model.IPFamily{model.IPv4}, Nodes: 2})
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(len(prepared.Scenarios()[0].Table(1).Cells)), "cells")
			}
		})
	}
}
