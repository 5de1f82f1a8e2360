package suggest

import "strings"

// Nearest gives the candidate that is closest to a mistyped word, "" if none is close: two characters wrong, missing, too
// many or swapped at most, and no more than a third of the word.
func Nearest(word string, candidates []string) string {
	best, bestDistance := "", 3
	for _, c := range candidates {
		d := distance(strings.ToLower(word), strings.ToLower(c))
		if d < bestDistance && 3*d <= max(len(word), len(c)) {
			best, bestDistance = c, d
		}
	}
	return best
}

// DidYouMean gives the end of an error message, "" if nothing is close.
func DidYouMean(word string, candidates []string) string {
	if s := Nearest(word, candidates); s != "" {
		return " (did you mean " + s + "?)"
	}
	return ""
}

// distance counts the insertions, deletions, replacements and swaps of neighbours that turn a into b: the optimal string
// alignment distance.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
