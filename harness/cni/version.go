package cni

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// version is the numbers of a version: v3.30.1 is [3 30 1], kindnetd's v20260820-69b56db7 is [20260820]. What follows
// the numbers is left out: a vendor's build of v1.15.19 can do what v1.15.19 can do.
type version []int

// parseVersion reads the numbers that a version begins with.
func parseVersion(text string) (version, error) {
	numbers, _, _ := strings.Cut(strings.TrimPrefix(text, "v"), "-")
	numbers, _, _ = strings.Cut(numbers, "+")
	var v version
	for part := range strings.SplitSeq(numbers, ".") {
		n, err := strconv.Atoi(part)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("read version %q: %q is not a number", text, part)
		}
		v = append(v, n)
	}
	return v, nil
}

// less tells whether v is older than w. Numbers that are missing count as zero.
func (v version) less(w version) bool {
	length := max(len(v), len(w))
	return slices.Compare(v.padded(length), w.padded(length)) < 0
}

func (v version) padded(length int) version {
	return append(slices.Clone(v), make(version, length-len(v))...)
}

// AtLeast tells whether a version is another one or newer, by the numbers that both begin with. ok is false where one
// of them begins with none.
func AtLeast(text, minimum string) (atLeast, ok bool) {
	v, err := parseVersion(text)
	w, err2 := parseVersion(minimum)
	if err != nil || err2 != nil {
		return false, false
	}
	return !v.less(w), true
}
