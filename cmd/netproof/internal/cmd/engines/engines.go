package engines

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
	"github.com/netproof/netproof/cmd/netproof/internal/progress"
	"github.com/netproof/netproof/harness/cluster/local/engine"
	"github.com/netproof/netproof/harness/plain"
	"github.com/netproof/netproof/harness/readfile"
	"github.com/netproof/netproof/harness/words"
	"github.com/netproof/netproof/harness/writefile"
)

// New returns the command.
func New(streams cli.Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "engines",
		Short: "build, list, carry over and remove the upstream programs of local clusters",
		Long: `A local cluster runs the programs of Kubernetes, etcd and Calico themselves: its engines. They are built from
their Go modules into the user's cache, by the first run or by 'netproof engines build', which takes minutes
and needs Go. A bundle carries them to machines of the same platform, such as CI runners and machines
without a network, which need no Go then.

NETPROOF_CACHE moves the cache, which is netproof/ in the user's cache folder by default.`,
		Example: `  netproof engines list
  netproof engines export engines.tar.zst
  netproof engines import engines.tar.zst`,
	}
	cmd.AddCommand(newBuild(streams), newList(streams), newExport(streams), newImport(streams), newPrune(streams))
	return cmd
}

func addQuiet(cmd *cobra.Command, quiet *bool) {
	cmd.Flags().BoolVarP(quiet, "quiet", "q", false, "show no progress")
}

func newBuild(streams cli.Streams) *cobra.Command {
	var quiet bool
	cmd := &cobra.Command{
		Use:   "build",
		Short: "build the engines that are missing",
		Long: `Build the engines that this netproof pins and that are not in the cache, and verify those that are. A second
build at the same time waits for the first one.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			set, err := engine.EnsureAll(cmd.Context(), engine.Options{Progress: progress.Engines(streams, quiet)})
			if err != nil {
				return err
			}
			states, err := set.States()
			if err := errors.Join(err, set.Close()); err != nil {
				return err
			}
			var size int64
			for _, s := range states {
				size += s.Size
			}
			_, err = fmt.Fprintf(streams.Out, "%s: %s ready\n", names(states), megabytes(size))
			return err
		},
	}
	addQuiet(cmd, &quiet)
	return cmd
}

func newExport(streams cli.Streams) *cobra.Command {
	var quiet bool
	cmd := &cobra.Command{
		Use:   "export FILE",
		Short: "write the engines as one file, for other machines",
		Long: `Write the engines of this netproof as a bundle, a tar file compressed with zstd, for 'netproof engines import' on
machines of the same platform. FILE may be - for standard output. What is missing is built first.

The same engines give the same file, whoever exports them. Its SHA-256 is printed: it is what
'netproof engines import --sha256' takes.`,
		Example: `  netproof engines export engines.tar.zst
  netproof engines export - | ssh builder netproof engines import -`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return export(cmd.Context(), streams, args[0], quiet) },
	}
	addQuiet(cmd, &quiet)
	return cmd
}

func export(ctx context.Context, streams cli.Streams, file string, quiet bool) error {
	var told engine.Bundle
	write := func(w io.Writer) error {
		return cli.WriteWithin(ctx, w, func(w io.Writer) (err error) {
			told, err = engine.Export(ctx, w, engine.Options{Progress: progress.Engines(streams, quiet)})
			return err
		})
	}
	if (file == "-" || cli.IsOut(file)) && streams.OutTerminal.Is {
		return cli.Usage("a bundle is not for a terminal: name a file, or give standard output to another program")
	}
	say := streams.Beside(file)
	if file == "-" {
		if err := write(streams.Raw().Out); err != nil {
			return err
		}
		file, say = "standard output", streams.Err
	} else {
		// Before anything is built.
		if err := writefile.Check(file); err != nil {
			return &cli.UsageError{Err: err}
		}
		if err := writefile.Replace(file, write); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(say, "%s: %s, %s (%s unpacked)\nsha256 %s\n",
		plain.Text(file), names(told.Engines), megabytes(told.Size), megabytes(told.Unpacked), told.SHA256)
	return err
}

func newImport(streams cli.Streams) *cobra.Command {
	var digest string
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "put the engines of a bundle into the cache",
		Long: `Put the engines of a bundle that 'netproof engines export' wrote into the cache, where runs use them, whatever Go the
machine has or lacks. FILE may be - for standard input. Nothing is put in place before the whole bundle is
found to be what its manifest says; engines that are there already stay.

A bundle for another platform, or of other pins than those of this netproof, is refused with exit code 2.
The programs in a bundle are run, so take it from nobody whom you would not let install netproof. With
--sha256 it must have the digest that whoever exported it has told.`,
		Example: `  netproof engines import engines.tar.zst
  netproof engines import --sha256 0c8a1a5a6e0f5b7f8f3c1e2d4b6a79880c8a1a5a6e0f5b7f8f3c1e2d4b6a7988 engines.tar.zst`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			digest = strings.TrimPrefix(digest, "sha256:")
			if raw, err := hex.DecodeString(digest); digest != "" && (err != nil || len(raw) != 32) {
				return cli.Usage("--sha256 %q: a SHA-256 has 64 hexadecimal digits", digest)
			}
			return importFile(cmd.Context(), streams, args[0], engine.ImportOptions{SHA256: digest})
		},
	}
	cmd.Flags().StringVar(&digest, "sha256", "", "digest that the bundle must have, as export prints it")
	return cmd
}

func importFile(ctx context.Context, streams cli.Streams, file string, opts engine.ImportOptions) error {
	in, name := streams.In, "standard input"
	if file != "-" {
		f, err := readfile.Stream(file, engine.MaxBundle)
		if errors.Is(err, readfile.ErrNotRegular) {
			return cli.Usage("%s is not a regular file: write - to read standard input", file)
		}
		if err != nil {
			return cli.Usage("%s: %w", file, err)
		}
		defer f.Close()
		in, name = f, plain.Text(file)
	}
	told, err := engine.Import(ctx, in, opts)
	var refused *engine.BundleError
	if errors.As(err, &refused) {
		return cli.Usage("%s is not imported: %w", name, err)
	}
	if err != nil {
		return err
	}
	var came, stayed []engine.State
	for _, s := range told.Engines {
		if s.Took > 0 {
			came = append(came, s)
		} else {
			stayed = append(stayed, s)
		}
	}
	if len(came) > 0 {
		fmt.Fprintf(streams.Out, "imported %s\n", names(came))
	}
	if len(stayed) > 0 {
		fmt.Fprintf(streams.Out, "%s: there already\n", names(stayed))
	}
	_, err = fmt.Fprintf(streams.Out, "sha256 %s\n", told.SHA256)
	return err
}

func newPrune(streams cli.Streams) *cobra.Command {
	var opts engine.PruneOptions
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "remove the engines that no run uses any more",
		Long: `Remove from the cache what this netproof would not run: engines of other versions, those of another Go where there is
one of this Go, and what interrupted builds left. What a run, a cluster or a build works with stays.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			pruned, err := engine.Prune(cmd.Context(), opts)
			what := "removed"
			if opts.DryRun {
				what = "would remove"
			}
			count, size := 0, int64(0)
			for _, p := range pruned {
				if p.InUse {
					fmt.Fprintf(streams.Out, "%s stays: a run, a cluster or a build uses it\n", describe(p.Cached))
					continue
				}
				count++
				size += p.Size
				fmt.Fprintf(streams.Out, "%s %s, %s\n", what, describe(p.Cached), megabytes(p.Size))
			}
			fmt.Fprintf(streams.Out, "%s %s, %s\n", what, words.Count(count, "folder", "folders"), megabytes(size))
			return err
		},
	}
	cmd.Flags().BoolVar(&opts.DryRun, "dry-run", false, "only tell what would be removed")
	return cmd
}

// describe names a folder of the cache.
func describe(c engine.Cached) string {
	if c.Remains {
		return "what is left of a build of " + plain.Text(c.Engine) + " in " + plain.Text(c.Path)
	}
	return plain.Text(c.Engine+" "+c.Version) + " in " + plain.Text(c.Path)
}

func names(states []engine.State) string {
	var list []string
	for _, s := range states {
		list = append(list, plain.Text(s.Engine+" "+s.Version))
	}
	return strings.Join(list, ", ")
}

func megabytes(bytes int64) string { return fmt.Sprintf("%d MB", (bytes+500_000)/1_000_000) }
