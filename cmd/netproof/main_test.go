package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/cluster/kind"
	"github.com/netproof/netproof/harness/cluster/local/named"
	"github.com/netproof/netproof/harness/cluster/local/sandbox"
)

var update = flag.Bool("update", false, "write what the commands print into the scripts")

func TestMain(m *testing.M) {
	// Sandboxes run this binary again under names of their own, which testscript would not take for a command.
	sandbox.Init()
	named.Init()
	kind.Init()
	testscript.Main(m, map[string]func(){"netproof": main})
}

// TestCommandLine runs the scripts in testdata/script: each is a sequence of command lines with what they must print
// and how they must end.
func TestCommandLine(t *testing.T) {
	report, err := filepath.Abs("../../harness/report/testdata")
	require.NoError(t, err)
	fixtures, err := filepath.Abs("../../fixtures")
	require.NoError(t, err)
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("REPORTS", report)
			env.Setenv("FIXTURES", fixtures)
			// A name that no other run of this test has, and that is gone also when the script fails.
			cluster := fmt.Sprintf("%s-%d", filepath.Base(env.WorkDir), os.Getpid())
			env.Setenv("CLUSTER", cluster)
			env.Defer(func() {
				if err := named.Delete(context.Background(), cluster); err != nil && !errors.Is(err, named.ErrNotFound) {
					t.Error(err)
				}
			})
			// The engines of the user are those to run; testscript's own home is empty.
			for _, name := range []string{"HOME", "XDG_CACHE_HOME", "NETPROOF_CACHE", "GOCACHE", "GOMODCACHE", "GOFLAGS", "GOPROXY", "GOTOOLCHAIN"} {
				env.Setenv(name, os.Getenv(name))
			}
			env.Setenv("LANG", "C.UTF-8")
			env.Setenv("NO_COLOR", "1")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "awaits": awaits, "reachable": reachable},
	})
}

// exitCodeOf gives the exit code behind an error of [testscript.TestScript.Exec].
func exitCodeOf(err error) string {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return strconv.Itoa(exit.ExitCode())
	}
	return err.Error()
}

// awaits returns when a file that a program in the background writes holds a text: awaits FILE TEXT.
func awaits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: awaits FILE TEXT")
	}
	end := time.After(time.Minute)
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		data, err := os.ReadFile(ts.MkAbs(args[0]))
		if err == nil && strings.Contains(string(data), args[1]) {
			return
		}
		select {
		case <-poll.C:
		case <-end:
			ts.Fatalf("%s does not come to hold %s: %v", args[0], args[1], err)
		}
	}
}

// exits runs a program and checks its exit code, which testscript's own exec only knows as zero or not: exits 2
// netproof run -x. Several codes are separated by |.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM [ARG ...]")
	}
	got := "0"
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		got = exitCodeOf(err)
	}
	if !slices.Contains(strings.Split(args[0], "|"), got) {
		ts.Fatalf("%v ended with %s, not with %s", args[1:], got, args[0])
	}
}
