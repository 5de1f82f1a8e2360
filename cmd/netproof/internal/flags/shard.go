package flags

import (
	"fmt"

	"github.com/netproof/netproof/harness/scenario"
)

// Shard is the flag --shard. The zero value is the whole run.
type Shard struct{ scenario.Shard }

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
func (s *Shard) Set(text string) (err error) {
	s.Shard, err = scenario.ParseShard(text)
	return err
}
