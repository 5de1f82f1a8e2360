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
		if err := podagent.Run(context.Background(), os.Args[1:], os.Getenv, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if task := os.Getenv(runnerEnv); task != "" {
		os.Exit(runnerMain(task))
	}
	os.Exit(m.Run())
}
