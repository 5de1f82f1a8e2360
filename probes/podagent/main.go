//go:build linux

package podagent

import (
	"context"
	"fmt"
	"io"
)

// Run is the program of an agent: its arguments are those after the program's name, agent and what it is to do there.
func Run(ctx context.Context, args []string, getenv func(string) string, in io.Reader, out io.Writer) error {
	do := ""
	if len(args) == 2 && args[0] == "agent" {
		do = args[1]
	}
	s, err := ReadSettings(getenv)
	if err != nil {
		return err
	}
	if do == "serve" || do == "stdio" {
		slacken()
	}
	switch do {
	case "serve":
		return Serve(ctx, s)
	case "connect":
		return Bridge(ctx, s, in, out)
	case "stdio":
		return Stdio(ctx, s, in, out)
	}
	return fmt.Errorf("arguments %q: want agent serve, agent connect or agent stdio", args)
}
