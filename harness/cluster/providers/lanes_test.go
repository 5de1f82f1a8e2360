package providers

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestThereAreAsManyLanesAsTheMachineBears(t *testing.T) {
	const gib = 1 << 30
	for _, tc := range []struct {
		lanes  int
		memory uint64
		want   int
	}{{2, 8 * gib, 2}, {4, 8 * gib, 4}, {128, 512 * gib, 4}, {4, 0, 4}, {4, gib, 2}, {4, gib / 4, 1}, {0, gib, 1}} {
		assert.Equal(t, tc.want, bearable(tc.lanes, tc.memory), tc)
	}
	assert.LessOrEqual(t, Lanes(Kind), Lanes(Local), "pods of kind are work")
	assert.Equal(t, 1, Lanes(Existing), "others work there")
}
