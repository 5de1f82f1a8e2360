// Package check is what doctors say: each provider of clusters looks at what it needs, and says of each thing whether
// it is there and how to fix what is not. What several of them look at is here as well.
package check

import "slices"

// State is what a check came to.
type State string

// The states.
const (
	OK State = "ok"
	// Limited: clusters work, but some scenarios or comforts do not.
	Limited State = "limited"
	// Missing: no cluster can be made, or used.
	Missing State = "missing"
)

// Check is one thing that was looked at.
type Check struct {
	Name   string `json:"name"`
	State  State  `json:"state"`
	Detail string `json:"detail,omitempty"`
	// Fix is a command or a setting; empty when nothing has to be fixed, or nothing can.
	Fix string `json:"fix,omitempty"`
}

// Missed tells whether anything is missing.
func Missed(checks []Check) bool {
	return slices.ContainsFunc(checks, func(c Check) bool { return c.State == Missing })
}
