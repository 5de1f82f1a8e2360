package progress

import (
	"github.com/netproof/netproof/cmd/netproof/internal/cli"
	"github.com/netproof/netproof/harness/cluster/local/engine"
)

// Engines is what shows how engines are built, on the error stream; nil if quiet.
func Engines(streams cli.Streams, quiet bool) func(engine.Event) {
	if quiet {
		return nil
	}
	return engine.NewProgress(streams.Err, streams.ErrTerminal.Is)
}
