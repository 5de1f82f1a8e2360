//go:build linux

package nodeagent

import (
	"context"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/version"
)

// pluginRunner runs CNI plugins. They are programs in Go that end after some milliseconds: collecting their garbage, or
// spreading over several processors, would cost more than it brings.
type pluginRunner struct {
	invoke.RawExec
	version.PluginDecoder
}

var _ invoke.Exec = (*pluginRunner)(nil)

func newPluginRunner() *pluginRunner { return &pluginRunner{} }

// ExecPlugin implements [invoke.Exec]. What the plugin says on standard error is dropped when it succeeds, and becomes
// part of the error when it gives no better one.
func (r *pluginRunner) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	return r.RawExec.ExecPlugin(ctx, path, stdin, append(environ, "GOGC=off", "GOMAXPROCS=1"))
}
