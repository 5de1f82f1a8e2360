// Command netproof proves what Kubernetes network policies do. See CONTRACT.md for its commands and exit codes.
package main

import (
	"context"
	"os"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
	"github.com/netproof/netproof/cmd/netproof/internal/cmd"
	"github.com/netproof/netproof/harness/cluster/kind"
	"github.com/netproof/netproof/harness/cluster/local/named"
	"github.com/netproof/netproof/harness/cluster/local/sandbox"
)

// main is the only place that exits.
func main() {
	sandbox.Init()
	named.Init()
	kind.Init()
	ctx, stop := cli.WithSignals(context.Background())
	code := cmd.Run(ctx, cli.System(), os.Args[1:])
	stop()
	os.Exit(code)
}
