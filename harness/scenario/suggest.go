package scenario

import (
	"fmt"
	"slices"
	"strings"

	"github.com/netproof/netproof/harness/words"
)

// suggest returns the candidate that a typing mistake would turn into word, or "".
func suggest(word string, candidates []string) string {
	// In a short word one letter is too much of it to be a slip.
	most := len(word) / 3
	if len(word) < 4 {
		most = 0
	}
	return words.Nearest(word, slices.Sorted(slices.Values(candidates)), func(_ string, slips int) bool { return slips <= most })
}

// didYouMean is a fix for an unknown word: the nearest candidate if there is one, else all of them.
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

func quoted(list []string) []string {
	out := make([]string, len(list))
	for i, w := range list {
		out[i] = "`" + w + "`"
	}
	return out
}
