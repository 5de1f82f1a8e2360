package flags

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
	"github.com/netproof/netproof/harness/render"
	"github.com/netproof/netproof/harness/scenario"
)

// standardInput is the path that stands for it.
const standardInput = "-"

// maxInput bounds what is read from standard input.
const maxInput = 32 << 20

// Input are the flags that say what is read, and how.
type Input struct {
	// Limits bound what the files may make.
	Limits scenario.Limits
	// Assert is a file of assertions from outside the folders; empty for none.
	Assert string
	// Kustomizations are folders that are built, Chart is one that is rendered, with files of Values, as Release.
	Kustomizations []string
	Chart          string
	Values         []string
	Release        render.Release
	// Pairs says which pairs of a folder's workloads are asked about.
	Pairs     scenario.Pairs
	everyPair bool
	// Lent is true for a run that makes no namespaces of its own.
	Lent bool

	// stdin is what standard input held.
	stdin []byte
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

// AddRendered defines what is rendered before it is read.
func (f *Input) AddRendered(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringArrayVarP(&f.Kustomizations, "kustomize", "k", nil, "folder of a kustomization to build, as kubectl apply -k takes it; repeatable")
	fs.StringVar(&f.Chart, "chart", "", "folder of a Helm chart to render")
	fs.StringArrayVarP(&f.Values, "values", "f", nil, "file of values for --chart; repeatable, later ones count")
	fs.StringVar(&f.Release.Name, "release", "", "name of the release that --chart renders; the default is the name of the chart")
	fs.StringVar(&f.Release.Namespace, "release-namespace", "default", "namespace of the release that --chart renders")
	_ = cmd.MarkFlagDirname("kustomize")
	_ = cmd.MarkFlagDirname("chart")
	_ = cmd.MarkFlagFilename("values", "yaml", "yml")
}

// AddEveryPair defines --every-pair.
func (f *Input) AddEveryPair(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.everyPair, "every-pair", false, "ask about each pair of workloads of a folder; the default for small ones; =false: one for all that nothing tells apart")
}

// Check holds the flags and the paths against each other, and gives the paths that are read: the current folder where
// nothing is named.
func (f *Input) Check(cmd *cobra.Command, paths []string) ([]string, error) {
	switch {
	case f.everyPair:
		f.Pairs = scenario.EveryPair
	case cmd.Flags().Changed("every-pair"):
		f.Pairs = scenario.PairsOfClasses
	}
	for _, name := range []string{"values", "release", "release-namespace"} {
		if f.Chart == "" && cmd.Flags().Changed(name) {
			return nil, cli.Usage("--%s says how a chart is rendered: add --chart DIR", name)
		}
	}
	if cmd.Flags().Changed("chart") && f.Chart == "" || slices.Contains(f.Kustomizations, "") {
		return nil, cli.Usage("the folder is empty: write --chart DIR or -k DIR")
	}
	if len(paths) == 0 && f.Chart == "" && len(f.Kustomizations) == 0 {
		return []string{"."}, nil
	}
	return paths, nil
}

// Load reads the scenarios of the paths and of what is rendered. in is standard input, for the path `-`. What can block
// is abandoned when ctx ends.
func (f *Input) Load(ctx context.Context, in io.Reader, paths []string) ([]*scenario.Scenario, error) {
	opts := scenario.Options{Limits: f.Limits, Assert: f.Assert, Lent: f.Lent, Pairs: f.Pairs}
	var err error
	if opts.Documents, err = f.documents(ctx, in, slices.Contains(paths, standardInput)); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, &cli.UsageError{Err: err}
	}
	files := slices.DeleteFunc(slices.Clone(paths), func(p string) bool { return p == standardInput })
	return scenario.Load(ctx, files, opts)
}

func (f *Input) documents(ctx context.Context, in io.Reader, wantsInput bool) (out []scenario.Document, err error) {
	if wantsInput {
		if f.stdin == nil {
			if f.stdin, err = readInput(in); err != nil {
				return nil, err
			}
		}
		out = append(out, scenario.Document{Name: standardInput, Data: f.stdin})
	}
	for _, dir := range f.Kustomizations {
		data, notes, err := render.Kustomize(ctx, dir)
		if err != nil {
			return nil, fmt.Errorf("-k: %w", err)
		}
		out = append(out, scenario.Document{Name: dir, Data: data, Dir: dir, Notes: notes})
	}
	if f.Chart != "" {
		rendered, notes, err := render.Chart(ctx, f.Chart, f.Values, f.Release)
		if err != nil {
			return nil, fmt.Errorf("--chart: %w", err)
		}
		for _, r := range rendered {
			out = append(out, scenario.Document{Name: r.File, Of: f.Chart, Data: r.Text, Namespace: f.Release.Namespace, Notes: notes})
			notes = nil
		}
		if len(rendered) == 0 {
			return nil, fmt.Errorf("--chart %s: the chart has no templates", f.Chart)
		}
	}
	return out, nil
}

func readInput(in io.Reader) ([]byte, error) {
	if f, ok := in.(*os.File); ok {
		if term.IsTerminal(int(f.Fd())) {
			return nil, cli.Usage("standard input is a terminal: pipe manifests into it, such as: helm template NAME DIR | netproof run -")
		}
	}
	data, err := io.ReadAll(io.LimitReader(in, maxInput+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read standard input: %w", err)
	case len(data) > maxInput:
		return nil, fmt.Errorf("standard input has more than %d MiB, which is the most that is read", maxInput>>20)
	case len(bytes.TrimSpace(data)) == 0:
		return nil, errors.New("standard input is empty: whatever should have written manifests to it has failed")
	}
	return data, nil
}

// Again gives standard input once more, for a process that runs the same command line; nil where it was not read. It
// ends by itself when the other end is closed.
func (f *Input) Again() (*os.File, error) {
	if f.stdin == nil {
		return nil, nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("hand over standard input: %w", err)
	}
	go func() {
		_, _ = w.Write(f.stdin) // whoever reads it need not read all
		_ = w.Close()
	}()
	return r, nil
}
