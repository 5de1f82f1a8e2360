package suggest

import "github.com/netproof/netproof/harness/words"

// Nearest gives the candidate that is closest to a mistyped word, "" if none is close: two characters wrong, missing,
// too many or swapped at most, and no more than a third of the word.
func Nearest(word string, candidates []string) string {
	return words.Nearest(word, candidates, func(candidate string, slips int) bool {
		return slips <= 2 && 3*slips <= max(len(word), len(candidate))
	})
}

// DidYouMean gives the end of an error message, "" if nothing is close.
func DidYouMean(word string, candidates []string) string {
	if s := Nearest(word, candidates); s != "" {
		return " (did you mean " + s + "?)"
	}
	return ""
}
