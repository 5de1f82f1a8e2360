//go:build !linux

package podagent

import (
	"context"
	"errors"
	"io"
)

// Run refuses: an agent works in the network namespace of a pod, which is Linux's.
func Run(context.Context, []string, func(string) string, io.Reader, io.Writer) error {
	return errors.New("an agent runs in probe pods, whose nodes are Linux: build the program that they run with GOOS=linux")
}
