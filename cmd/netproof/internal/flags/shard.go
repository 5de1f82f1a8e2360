package flags

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

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

// indexEnv is what an Indexed Job gives its pods, from 0:
// https://kubernetes.io/docs/concepts/workloads/controllers/job/#completion-mode.
const indexEnv = "JOB_COMPLETION_INDEX"

// Set parses i/n. With auto for i, it is the place of the pod in an Indexed Job.
func (s *Shard) Set(text string) (err error) {
	if text == "" {
		return errors.New("write i/n, such as 1/3 for the first of three parts, or leave it out")
	}
	if n, auto := strings.CutPrefix(text, "auto/"); auto {
		index, err := strconv.Atoi(os.Getenv(indexEnv))
		if err != nil {
			return fmt.Errorf("auto is for pods of an Indexed Job: %s is %q", indexEnv, os.Getenv(indexEnv))
		}
		text = fmt.Sprintf("%d/%s", index+1, n)
	}
	s.Shard, err = scenario.ParseShard(text)
	return err
}
