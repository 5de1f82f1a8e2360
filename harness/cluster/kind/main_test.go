package kind

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/netproof/netproof/probes/podagent"
)

// TestMain also plays netproof in probe pods, and a runner that a test kills.
func TestMain(m *testing.M) {
	Init()
	if len(os.Args) == 3 && os.Args[1] == "agent" {
		os.Exit(agentMain(os.Args[2]))
	}
	if task := os.Getenv(runnerEnv); task != "" {
		os.Exit(runnerMain(task))
	}
	os.Exit(m.Run())
}

// agentMain is netproof agent serve, connect and stdio.
func agentMain(command string) int {
	settings, err := podagent.ReadSettings(os.Getenv)
	if err == nil {
		switch command {
		case "serve":
			err = podagent.Serve(context.Background(), settings)
		case "connect":
			err = podagent.Bridge(context.Background(), settings, os.Stdin, os.Stdout)
		case "stdio":
			err = podagent.Stdio(context.Background(), settings, os.Stdin, os.Stdout)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
