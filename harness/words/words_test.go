package words

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestWordsAreJoinedAsASentenceDoes(t *testing.T) {
	assert.Empty(t, And(nil))
	assert.Equal(t, "a", And([]string{"a"}))
	assert.Equal(t, "a and b", And([]string{"a", "b"}))
	assert.Equal(t, "a, b and c", And([]string{"a", "b", "c"}))
}

func TestOfManyWordsTheFirstAreNamed(t *testing.T) {
	assert.Equal(t, "a, b and c", Few([]string{"a", "b", "c"}, 2), "one more is no shorter than its name")
	all := []string{"a", "b", "c", "d"}
	assert.Equal(t, "a, b and 2 more", Few(all, 2))
	assert.Equal(t, []string{"a", "b", "c", "d"}, all, "what was given stays")
}

func TestTheNearestWordIsTheOneWithTheFewestSlips(t *testing.T) {
	one := func(_ string, slips int) bool { return slips <= 1 }
	for word, want := range map[string]string{
		"calico": "calico", "Calico": "calico", "calcio": "calico", "calic": "calico", "callico": "calico", "calibo": "calico",
		"clico": "calico", "caaliico": "", "": "", "non": "none",
	} {
		assert.Equal(t, want, Nearest(word, []string{"calico", "cilium", "none"}, one), word)
	}
	assert.Equal(t, "ab", Nearest("ax", []string{"ab", "ac", "a"}, one), "the first of several")
	assert.Equal(t, "none", Nearest("nxxe", []string{"name", "none"}, func(c string, slips int) bool { return c == "none" && slips == 2 }))
}

func TestSlipsAreCounted(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"kitten", "sitting", 3}, {"ab", "ba", 1}, {"ca", "abc", 3}, {"abcd", "badc", 2}} {
		assert.Equal(t, tc.want, distance(tc.a, tc.b), "%s %s", tc.a, tc.b)
		assert.Equal(t, tc.want, distance(tc.b, tc.a), "%s %s", tc.b, tc.a)
	}
}
