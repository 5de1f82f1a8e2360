// Command engines builds the upstream programs of local clusters into the user's cache, if they are not there, and shows how
// far it is. Tests need them, and would build them without a word.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"

	"github.com/netproof/netproof/harness/cluster/local/engine"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := build(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "engines:", err)
		os.Exit(1)
	}
}

func build(ctx context.Context) error {
	engines, err := engine.Ensure(ctx, engine.Options{
		CNI: "calico", Progress: engine.NewProgress(os.Stderr, term.IsTerminal(int(os.Stderr.Fd()))),
	})
	if err != nil {
		return err
	}
	return engines.Close()
}
