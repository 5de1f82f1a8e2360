// Package words is what messages to people have in common: it joins words, and finds the one that somebody may have
// meant. It is pure.
package words

import (
	"strconv"
	"strings"
)

// And joins words as a sentence does: a, b and c.
func And(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}

// Few joins the first of many words as a sentence does, and counts the others: a, b and 3 more.
func Few(words []string, most int) string {
	if more := len(words) - most; more > 1 {
		words = append(words[:most:most], strconv.Itoa(more)+" more")
	}
	return And(words)
}

// Nearest is the candidate that the fewest slips turn a word into, the first of several; "" where none is near. A slip
// is a letter too many, missing or wrong, or two neighbours swapped; capital letters are none. How many slips are near
// is for the caller to say.
func Nearest(word string, candidates []string, near func(candidate string, slips int) bool) string {
	best, fewest := "", -1
	for _, c := range candidates {
		slips := distance(strings.ToLower(word), strings.ToLower(c))
		if (fewest < 0 || slips < fewest) && near(c, slips) {
			best, fewest = c, slips
		}
	}
	return best
}

// distance counts the insertions, deletions, replacements and swaps of neighbours that turn a into b: the optimal
// string alignment distance.
func distance(a, b string) int {
	before, prev, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range a {
		before, prev, row = prev, row, before
		row[0] = i + 1
		for j := range b {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(prev[j]+cost, prev[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
	}
	return row[len(b)]
}

// Count renders a number with its noun.
func Count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}
