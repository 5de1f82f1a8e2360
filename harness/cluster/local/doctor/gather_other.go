//go:build !linux

package doctor

import (
	"context"
	"io"
	"runtime"

	"github.com/netproof/netproof/harness/cluster/local/sandbox"
	"github.com/netproof/netproof/harness/model"
)

// Gather says that this is not Linux, which is what local clusters are made of.
func Gather(ctx context.Context, _ string, _ []model.IPFamily, _ []string) Facts {
	return Facts{System: runtime.GOOS, Sandbox: sandbox.Check(ctx)}
}

// WriteNetworkFacts returns the error of a sandbox, inside of which it is meant to be called.
func WriteNetworkFacts(ctx context.Context, _ io.Writer) error { return sandbox.Check(ctx) }
