package flags

import (
	"github.com/spf13/cobra"

	"github.com/netproof/netproof/harness/scenario"
)

// Input are the flags that say how files are read.
type Input struct {
	// Limits bound what the files may make.
	Limits scenario.Limits
	// Assert is a file of assertions from outside the folders; empty for none.
	Assert string
}

// AddLimits defines the bounds.
func (f *Input) AddLimits(cmd *cobra.Command) {
	f.Limits = scenario.DefaultLimits
	const most = 100_000_000
	Number(cmd, &f.Limits.Namespaces, "max-namespaces", 1, most, "most namespaces that the files may make together")
	Number(cmd, &f.Limits.Pods, "max-pods", 1, most, "most pods that the files may make together")
	Number(cmd, &f.Limits.Services, "max-services", 1, most, "most services that the files may make together")
	Number(cmd, &f.Limits.Cells, "max-cells", 1, most, "most connections to probe, over all steps, for one IP family")
}

// AddAssert defines --assert.
func (f *Input) AddAssert(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.Assert, "assert", "", "file of assertions that the folders of manifests must fulfil, and that no file in them can override")
	_ = cmd.MarkFlagFilename("assert", "yaml", "yml", "json")
}

// Options are what [scenario.Load] takes.
func (f *Input) Options() scenario.Options {
	return scenario.Options{Limits: f.Limits, Assert: f.Assert}
}
