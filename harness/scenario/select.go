package scenario

import (
	"fmt"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
)

// Select keeps the scenarios whose labels fit a Kubernetes label selector, such as feature=ingress,level!=extended. An
// empty selector keeps all. When none is left, the error matches [ErrNothing].
func Select(scenarios []*Scenario, selector string) ([]*Scenario, error) {
	parsed, err := labels.Parse(selector)
	if err != nil {
		return nil, fmt.Errorf("parse selector %q: %w", selector, err)
	}
	var out []*Scenario
	for _, s := range scenarios {
		if parsed.Matches(labels.Set(s.Metadata.Labels)) {
			out = append(out, s)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("selector %q fits no scenario: %w", selector, ErrNothing)
	}
	return out, nil
}

// Shard is one of several parts of a run. The zero value is the whole run.
type Shard struct {
	// Index counts from 1 to Count.
	Index, Count int
}

// maxShards bounds the parts of a run.
const maxShards = 10_000

// ParseShard reads i/n, such as 1/3 for the first of three parts. An empty text is the whole run.
func ParseShard(text string) (Shard, error) {
	if text == "" {
		return Shard{}, nil
	}
	i, n, ok := strings.Cut(text, "/")
	index, err1 := strconv.Atoi(i)
	count, err2 := strconv.Atoi(n)
	if !ok || err1 != nil || err2 != nil || count < 1 || count > maxShards || index < 1 || index > count {
		return Shard{}, fmt.Errorf("shard %q: write i/n, from 1/n to n/n", text)
	}
	return Shard{index, count}, nil
}

// Of returns the shard's scenarios: every n-th one, so that all parts are of a size and each scenario is in one of
// them. It may be empty when there are fewer scenarios than parts.
func (s Shard) Of(scenarios []*Scenario) []*Scenario {
	if s.Count <= 1 {
		return scenarios
	}
	var out []*Scenario
	for i := s.Index - 1; i < len(scenarios); i += s.Count {
		out = append(out, scenarios[i])
	}
	return out
}
