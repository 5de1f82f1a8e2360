package expect_test

import (
	"context"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/expect"
	"github.com/netproof/netproof/harness/firstdraft"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/scenario"
)

// A question about all pairs of a large folder is refused, since a folder may come from a stranger. One about any of
// its workloads is answered.
func TestQuestionsAreBounded(t *testing.T) {
	t.Parallel()
	files := fstest.MapFS{"dir/all.yaml": {Data: []byte(monorepo(10, 1200, 30))}}
	list, err := scenario.Load(context.Background(), []string{"dir"}, scenario.Options{FS: files})
	require.NoError(t, err)
	require.NotEmpty(t, list[0].Classes)
	ipv4 := []model.IPFamily{model.IPv4}
	const refusal = "the question is about more than 100000 connections"

	_, err = expect.Explain(list[0], expect.Question{From: "*", To: "*", Port: "80", Families: ipv4, Nodes: 2})
	assert.ErrorContains(t, err, refusal)
	_, err = expect.Reach(list[0], expect.ReachQuestion{To: "*", Families: ipv4, Nodes: 2})
	assert.ErrorContains(t, err, refusal)
	_, err = firstdraft.Of(list[0], ipv4, 2)
	assert.ErrorContains(t, err, refusal)

	like := list[0].Classes[0].Like
	last := like[len(like)-1]
	for _, to := range []model.Endpoint{list[0].Classes[0].Of, like[0], last} {
		reached, err := expect.Reach(list[0], expect.ReachQuestion{To: to, Families: ipv4, Nodes: 2})
		require.NoError(t, err)
		assert.Equal(t, 1199+10+1+2+1, len(reached.Decisions), "every other, the strangers of ten namespaces and of their own, two nodes and an address")
	}
	answers, err := expect.Explain(list[0], expect.Question{From: last, To: list[0].Classes[0].Of, Port: "80", Families: ipv4, Nodes: 2})
	require.NoError(t, err)
	assert.Len(t, answers[1].Decisions, 1)
}
