// Command netproof proves what Kubernetes network policies do. See docs/contract.md for its commands and exit codes.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
	"github.com/netproof/netproof/cmd/netproof/internal/cmd"
	"github.com/netproof/netproof/harness/cluster/kind"
	"github.com/netproof/netproof/harness/cluster/local/named"
	"github.com/netproof/netproof/harness/cluster/local/sandbox"
	"github.com/netproof/netproof/harness/model"
)

// main is the only place that exits.
func main() {
	if err := cli.KeepClosed(); err != nil {
		fmt.Fprintf(os.Stderr, "netproof: %v\n", err)
		os.Exit(model.ExitInconclusive)
	}
	sandbox.Init()
	named.Init()
	kind.Init()
	// What client-go says of connections that end is said by whoever uses them, in words for people.
	klog.SetLogger(logr.Discard())
	ctx, stop := cli.WithSignals(context.Background())
	code := cmd.Run(ctx, cli.System(), os.Args[1:])
	stop()
	os.Exit(code)
}
