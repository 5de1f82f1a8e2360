package expect_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/expect"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/scenario"
)

// folderOf makes a folder of few labels, so that many workloads are alike, and policies of every shape of peers and
// ports.
func folderOf(r *rand.Rand) string {
	var b strings.Builder
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	document := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n---\n", args...) }
	namespaces := 2 + r.IntN(3)
	for i := range namespaces {
		document("{apiVersion: v1, kind: Namespace, metadata: {name: ns-%d, labels: {env: %s}}}", i, pick("dev", "prod"))
	}
	for i := range 6 + r.IntN(10) {
		ports := pick("[{containerPort: 80, name: http}]", "[{containerPort: 80}]", "[{containerPort: 80, name: http}, {containerPort: 8080, name: other}]",
			"[{containerPort: 8080, name: http}]", "[]")
		document("{apiVersion: v1, kind: Pod, metadata: {name: w-%d, namespace: ns-%d, labels: {app: %s}}, spec: {containers: [{name: c, image: i, ports: %s}]}}",
			i, r.IntN(namespaces), pick("web", "db"), ports)
	}
	for i := range r.IntN(4) {
		document("{apiVersion: v1, kind: Service, metadata: {name: s-%d, namespace: ns-%d}, spec: {selector: {app: %s}, ports: [{port: 80, targetPort: %s}]}}",
			i, r.IntN(namespaces), pick("web", "db"), pick("80", "http"))
	}
	selector := func() string {
		return pick("{}", "{matchLabels: {app: web}}", "{matchLabels: {app: db}}", "{matchExpressions: [{key: app, operator: NotIn, values: [db]}]}")
	}
	rules := func() string {
		var out []string
		for range r.IntN(3) {
			peer := pick("", "podSelector: "+selector(), "namespaceSelector: {matchLabels: {env: dev}}",
				"namespaceSelector: {matchLabels: {env: prod}}, podSelector: "+selector(), "ipBlock: {cidr: 0.0.0.0/0}")
			ports := pick("", "ports: [{port: 80}]", "ports: [{port: http}]", "ports: [{port: 79, endPort: 8000}]")
			parts := []string{}
			if peer != "" {
				parts = append(parts, "PEERS: [{"+peer+"}]")
			}
			if ports != "" {
				parts = append(parts, ports)
			}
			out = append(out, "{"+strings.Join(parts, ", ")+"}")
		}
		return "[" + strings.Join(out, ", ") + "]"
	}
	for i := range 1 + r.IntN(5) {
		document("{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p-%d, namespace: ns-%d}, spec: {podSelector: %s, policyTypes: %s, ingress: %s, egress: %s}}",
			i, r.IntN(namespaces), selector(), pick("[Ingress]", "[Egress]", "[Ingress, Egress]"),
			strings.ReplaceAll(rules(), "PEERS", "from"), strings.ReplaceAll(rules(), "PEERS", "to"))
	}
	return b.String()
}

// verdictsOf prepares a folder, and gives the verdicts of the step in which its policies are in force.
func verdictsOf(t *testing.T, files fstest.MapFS, pairs scenario.Pairs) (map[model.Connection]model.Verdict, *scenario.Scenario) {
	t.Helper()
	list, err := scenario.Load(context.Background(), []string{"dir"}, scenario.Options{FS: files, Pairs: pairs})
	require.NoError(t, err)
	prepared, err := expect.Prepare(list, expect.Options{Families: []model.IPFamily{model.IPv4}, Nodes: 2})
	require.NoError(t, err)
	out := map[model.Connection]model.Verdict{}
	for _, c := range prepared.Scenarios()[0].Table(1).Cells {
		if c.Pending {
			out[c.Conn] = "pending"
		} else {
			out[c.Conn] = c.Verdict
		}
	}
	return out, list[0]
}

// Whatever is asked pair by pair has the verdict of the pair that stands for it.
func TestAPairOfClassesHasTheVerdictOfEachOfItsPairs(t *testing.T) {
	t.Parallel()
	merged := 0
	for seed := range uint64(150) {
		folder := folderOf(rand.New(rand.NewPCG(seed, 10)))
		files := fstest.MapFS{"dir/all.yaml": {Data: []byte(folder)}, "dir/netproof.yaml": {Data: []byte(
			"apiVersion: netproof.dev/v1alpha1\nkind: Assertions\nspec: {strangers: [pods, namespace]}\n")}}
		every, _ := verdictsOf(t, files, scenario.EveryPair)
		some, s := verdictsOf(t, files, scenario.PairsOfClasses)
		require.LessOrEqual(t, len(some), len(every))
		of, second := map[model.Endpoint]model.Endpoint{}, map[model.Endpoint]model.Endpoint{}
		for _, c := range s.Classes {
			second[c.Of] = c.Like[0]
			for _, like := range c.Like {
				of[like] = c.Of
				merged++
			}
		}
		for conn, verdict := range every {
			if conn.Via != model.ViaPodIP {
				continue
			}
			represented := conn
			for _, end := range []*model.Endpoint{&represented.From, &represented.To} {
				if first, ok := of[*end]; ok {
					*end = first
				}
			}
			if represented.From == represented.To {
				represented.To = second[represented.From]
			}
			got, ok := some[represented]
			require.True(t, ok, "seed %d: nothing stands for %s, which %s would\n%s", seed, conn, represented, folder)
			require.Equal(t, verdict, got, "seed %d: %s stands for %s\n%s", seed, represented, conn, folder)
		}
		for conn, verdict := range some {
			require.Equal(t, every[conn], verdict, "seed %d: %s\n%s", seed, conn, folder)
		}
		// Each kind of service that leads to the same classes is still asked about.
		require.Equal(t, anyService(every), anyService(some), "seed %d\n%s", seed, folder)
	}
	assert.Greater(t, merged, 200, "the folders have workloads that are alike")
}

func anyService(of map[model.Connection]model.Verdict) bool {
	for conn := range of {
		if conn.Via == model.ViaService {
			return true
		}
	}
	return false
}
