package scenario

import (
	"fmt"
	"slices"
	"strings"
)

// suggest returns the candidate that a typing mistake would turn into word, or "".
func suggest(word string, candidates []string) string {
	// In a short word one letter is too much of it to be a slip.
	most := len(word) / 3
	if len(word) < 4 {
		most = 0
	}
	best, bestDistance := "", most+1
	for _, c := range slices.Sorted(slices.Values(candidates)) {
		d := distance(strings.ToLower(word), strings.ToLower(c))
		if d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// didYouMean is a mend for an unknown word: the nearest candidate if there is one, else all of them.
func didYouMean(word string, candidates []string) string {
	if s := suggest(word, candidates); s != "" {
		return fmt.Sprintf("did you mean `%s`?", s)
	}
	return oneOf(candidates)
}

// oneOf lists what may be written.
func oneOf(candidates []string) string {
	const most = 12
	list := quoted(slices.Sorted(slices.Values(candidates)))
	switch {
	case len(list) == 0:
		return "remove it"
	case len(list) > most:
		return "write one of " + strings.Join(list[:most], ", ") + ", ..."
	case len(list) == 1:
		return "write " + list[0]
	}
	return "write one of " + strings.Join(list, ", ")
}

func quoted(words []string) []string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = "`" + w + "`"
	}
	return out
}

// enumerate joins words as a sentence does: a, b and c.
func enumerate(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}

// distance is the number of insertions, deletions, replacements and swaps of neighbours between two words.
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
