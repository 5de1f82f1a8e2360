package scenario

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func labelled(n int) (out []*Scenario) {
	for i := range n {
		level := "core"
		if i%2 == 1 {
			level = "extended"
		}
		out = append(out, &Scenario{Metadata: Metadata{Name: fmt.Sprintf("s%d", i), Labels: map[string]string{"level": level}}})
	}
	return out
}

func TestSelectKeepsScenariosByTheirLabels(t *testing.T) {
	for selector, want := range map[string][]string{
		"":                   {"s0", "s1", "s2"},
		"level=core":         {"s0", "s2"},
		"level!=core":        {"s1"},
		"level in (core, x)": {"s0", "s2"},
		"!feature":           {"s0", "s1", "s2"},
	} {
		have, err := Select(labelled(3), selector)
		require.NoError(t, err, selector)
		assert.Equal(t, want, namesOf(have), selector)
	}
	_, err := Select(labelled(3), "level=none")
	require.ErrorIs(t, err, ErrNothing)
	_, err = Select(labelled(3), "level in")
	require.Error(t, err)
	assert.NotErrorIs(t, err, ErrNothing)
}

func TestShardsAreOfASizeAndHoldEachScenarioOnce(t *testing.T) {
	all := labelled(10)
	seen := map[string]int{}
	for i := range 4 {
		shard, err := ParseShard(fmt.Sprintf("%d/4", i+1))
		require.NoError(t, err)
		part := shard.Of(all)
		assert.GreaterOrEqual(t, len(part), 2)
		assert.LessOrEqual(t, len(part), 3)
		for _, s := range part {
			seen[s.Metadata.Name]++
		}
	}
	assert.Len(t, seen, 10)
	whole, err := ParseShard("")
	require.NoError(t, err)
	assert.Len(t, whole.Of(all), 10)
	last, err := ParseShard("11/11")
	require.NoError(t, err)
	assert.Empty(t, last.Of(all))
}

func TestAShardThatIsNoneIsRefused(t *testing.T) {
	for _, text := range []string{"1", "0/2", "3/2", "a/b", "1/", "/1", "1/0", "-1/2", "1/2/3", "1/99999999"} {
		_, err := ParseShard(text)
		assert.Error(t, err, text)
	}
}
