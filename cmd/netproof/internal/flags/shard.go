package flags

import (
	"fmt"
	"strconv"
	"strings"
)

// Shard is one of several equal parts of a run, for CI jobs that share it. The zero value is the whole.
type Shard struct {
	// Index counts from 1 to Count.
	Index, Count int
}

// String gives i/n, "" for the whole.
func (s *Shard) String() string {
	if s.Count == 0 {
		return ""
	}
	return fmt.Sprintf("%d/%d", s.Index, s.Count)
}

// Type is what help texts show for the value.
func (s *Shard) Type() string { return "i/n" }

// Set parses i/n.
func (s *Shard) Set(text string) error {
	i, n, ok := strings.Cut(text, "/")
	index, errI := strconv.Atoi(i)
	count, errN := strconv.Atoi(n)
	if !ok || errI != nil || errN != nil || count < 1 || index < 1 || index > count {
		return fmt.Errorf("it must be i/n with i from 1 to n, such as 2/3 for the second of three parts")
	}
	s.Index, s.Count = index, count
	return nil
}

// Has tells whether the item at a position, from 0, belongs to the shard.
func (s *Shard) Has(position int) bool { return s.Count == 0 || position%s.Count == s.Index-1 }
