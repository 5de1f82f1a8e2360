package report

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
	"github.com/netproof/netproof/cmd/netproof/internal/output"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/plain"
	"github.com/netproof/netproof/harness/readfile"
	"github.com/netproof/netproof/harness/report"
)

// New returns the command.
func New(streams cli.Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "report",
		Short: "work with saved reports",
	}
	cmd.AddCommand(newConvert(streams))
	return cmd
}

type convertFlags struct {
	output  output.Flags
	verbose bool
}

func newConvert(streams cli.Streams) *cobra.Command {
	var flags convertFlags
	cmd := &cobra.Command{
		Use:   "convert FILE",
		Short: "write a saved report in another format",
		Long: `Write a saved JSON report, or the journal of a run that did not end, in another format.
FILE may be - for standard input. The exit code tells whether the conversion went well, not
what the report says.`,
		Example: `  netproof report convert report.json --format junit --output junit.xml
  netproof report convert report.json --format markdown >> "$GITHUB_STEP_SUMMARY"`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runConvert(cmd.Context(), streams, &flags, args[0])
		},
	}
	flags.output.Add(cmd)
	cmd.Flags().BoolVarP(&flags.verbose, "verbose", "v", false, "show every matrix and every mismatch in tables")
	return cmd
}

func runConvert(ctx context.Context, streams cli.Streams, flags *convertFlags, path string) error {
	outputs, err := flags.output.Outputs()
	if err != nil {
		return err
	}
	run, err := cli.Within(ctx, func() (model.Run, error) { return read(ctx, streams, path) })
	if ctx.Err() != nil {
		return err
	}
	if err != nil {
		return &cli.UsageError{Err: err}
	}
	return output.Write(streams, run, outputs, flags.verbose)
}

// maxReport bounds a saved report, or a journal: the largest that a run writes has a million cells.
const maxReport = 2 << 30

func read(ctx context.Context, streams cli.Streams, path string) (model.Run, error) {
	in, name := streams.In, "standard input"
	if path != "-" {
		content, err := readfile.File(ctx, path, maxReport)
		switch {
		case errors.Is(err, readfile.ErrFolder):
			return model.Run{}, fmt.Errorf("%s is a folder, not a report", path)
		case errors.Is(err, readfile.ErrNotRegular):
			return model.Run{}, fmt.Errorf("%s is not a regular file: write - to read standard input", path)
		case err != nil:
			return model.Run{}, fmt.Errorf("%s: %w", path, err)
		}
		in, name = bytes.NewReader(content), path
	}
	run, err := report.Read(in)
	if err != nil {
		return model.Run{}, fmt.Errorf("%s: %w", plain.Text(name), err)
	}
	return run, nil
}
