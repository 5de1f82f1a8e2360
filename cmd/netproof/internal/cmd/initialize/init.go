package initialize

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
	"github.com/netproof/netproof/cmd/netproof/internal/flags"
	"github.com/netproof/netproof/cmd/netproof/internal/output"
	"github.com/netproof/netproof/harness/cluster/providers"
	"github.com/netproof/netproof/harness/firstdraft"
	"github.com/netproof/netproof/harness/scenario"
	"github.com/netproof/netproof/harness/writefile"
)

type flagSet struct {
	input    flags.Input
	ipFamily string
	nodes    int
}

// New returns the command.
func New(streams cli.Streams) *cobra.Command {
	f := flagSet{ipFamily: "ipv4", nodes: 2}
	cmd := &cobra.Command{
		Use:   "init [PATH]",
		Short: "write a first netproof.yaml from what the policies of a folder do now",
		Long: `Write a first netproof.yaml into a folder of manifests: who reaches each workload now, as intents to read, correct
and keep. From then on 'netproof list' and 'netproof run' say where the policies do something else. PATH is the folder; the
default is the current one. A netproof.yaml that is there already is left alone. No cluster is needed.`,
		Example: `  netproof init policies/`,
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := "."
			if len(args) > 0 {
				dir = args[0]
			}
			return execute(cmd.Context(), streams, &f, dir)
		},
	}
	flags.Choice(cmd, &f.ipFamily, "ip-family", "IP family", providers.IPFamilyNames(), "addresses of pods and services")
	flags.Number(cmd, &f.nodes, "nodes", 1, flags.MaxNodes, "number of nodes that are assumed")
	f.input.AddLimits(cmd)
	return cmd
}

func execute(ctx context.Context, streams cli.Streams, f *flagSet, dir string) error {
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return cli.Usage("%s is a file: give the folder of the policies", dir)
	}
	target := filepath.Join(dir, "netproof.yaml")
	for _, name := range []string{target, filepath.Join(dir, "netproof.yml")} {
		if _, err := os.Lstat(name); err == nil {
			return cli.Usage("%s is there already: change it by hand, or move it away to have a new one written", name)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return &cli.UsageError{Err: err}
		}
	}
	scenarios, err := cli.Within(ctx, func() ([]*scenario.Scenario, error) { return f.input.Load(ctx, streams.In, []string{dir}) })
	if err != nil {
		return err
	}
	output.Remarks(streams.Err, scenarios)
	if len(scenarios) != 1 || !scenarios[0].Plain {
		return cli.Usage("%s holds scenario files, which say what they expect themselves: give a folder of manifests", dir)
	}
	content, err := cli.Within(ctx, func() ([]byte, error) { return firstdraft.Of(scenarios[0], flags.IPFamilies(f.ipFamily), f.nodes) })
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return &cli.UsageError{Err: err}
	}
	if err := writefile.Replace(target, writefile.Bytes(content)); err != nil {
		return err
	}
	_, err = fmt.Fprintf(streams.Out, "wrote %s: read it, correct it, and keep it; then: netproof run %s\n", target, dir)
	return err
}
