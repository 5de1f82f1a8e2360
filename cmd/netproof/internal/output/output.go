package output

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
	"github.com/netproof/netproof/cmd/netproof/internal/suggest"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/report"
	"github.com/netproof/netproof/harness/writefile"
)

// Output is one report that is to be written.
type Output struct {
	Format report.Format
	// Path is a file; empty for standard output.
	Path string
}

// Flags are --format and --output, in the order in which they were given.
type Flags struct {
	given []given
}

// given is one occurrence of either flag; the other field is empty.
type given struct {
	format report.Format
	path   string
}

func (g given) isPath() bool { return g.format.Name == "" }

// Add defines the flags.
func (f *Flags) Add(cmd *cobra.Command) {
	names := report.FormatNames()
	cmd.Flags().Var(formatValue{f}, "format", "form of the report: "+strings.Join(names, ", ")+"; may be repeated (default table)")
	cmd.Flags().Var(pathValue{f}, "output", "file for a report: the n-th --output belongs to the n-th --format; the first format without one goes to standard output")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.MarkFlagFilename("output")
}

type (
	formatValue struct{ flags *Flags }
	pathValue   struct{ flags *Flags }
)

var (
	_ pflag.Value = formatValue{}
	_ pflag.Value = pathValue{}
)

func (v formatValue) String() string { return "" }

// Type is what help texts show for the value.
func (v formatValue) Type() string { return "name" }

func (v formatValue) Set(name string) error {
	format, err := report.Lookup(name)
	if err != nil {
		return fmt.Errorf("%w%s", err, suggest.DidYouMean(name, report.FormatNames()))
	}
	v.flags.given = append(v.flags.given, given{format: format})
	return nil
}

func (v pathValue) String() string { return "" }

// Type is what help texts show for the value.
func (v pathValue) Type() string { return "file" }

func (v pathValue) Set(path string) error {
	if path == "" {
		return errors.New("it must name a file, or be - for standard output")
	}
	v.flags.given = append(v.flags.given, given{path: path})
	return nil
}

// Outputs pairs formats and files: the first format with the first file, and so on. When there is one file less than
// formats, each file goes with the format that stands before it, so that both of
//
//	--format table --format json --output report.json
//	--format json --output report.json --format table
//
// write JSON to the file and the table to standard output. Without --format it is a table.
func (f *Flags) Outputs() ([]Output, error) {
	var formats, paths int
	for _, g := range f.given {
		if g.isPath() {
			paths++
		} else {
			formats++
		}
	}
	switch {
	case formats == 0 && paths > 1:
		return nil, cli.Usage("%d times --output needs as many times --format: %s", paths, strings.Join(report.FormatNames(), ", "))
	case paths > formats && formats > 0:
		return nil, cli.Usage("%d times --output, but only %d times --format", paths, formats)
	case formats-paths > 1:
		return nil, cli.Usage("%d formats have no --output, but only one can go to standard output", formats-paths)
	}
	if formats == 0 {
		table, err := report.Lookup("table")
		if err != nil {
			return nil, err
		}
		f.given = append([]given{{format: table}}, f.given...)
		formats = 1
	}
	outputs := f.inOrder()
	if paths < formats {
		outputs = f.adjacent()
	}
	seen := map[string]bool{}
	for i, out := range outputs {
		if out.Path == "-" || cli.IsOut(out.Path) {
			outputs[i].Path = ""
		}
		key := outputs[i].Path
		if key != "" {
			// Found out now, rather than after the run.
			if err := writefile.Check(key); err != nil {
				return nil, cli.Usage("--output: %w", err)
			}
			key = filepath.Clean(key)
		}
		if seen[key] && key == "" {
			return nil, cli.Usage("two reports cannot both go to standard output")
		}
		if seen[key] {
			return nil, cli.Usage("two reports cannot both go to %s", out.Path)
		}
		seen[key] = true
	}
	return outputs, nil
}

func (f *Flags) inOrder() []Output {
	var outputs []Output
	next := 0
	for _, g := range f.given {
		if !g.isPath() {
			outputs = append(outputs, Output{Format: g.format})
		}
	}
	for _, g := range f.given {
		if g.isPath() {
			outputs[next].Path = g.path
			next++
		}
	}
	return outputs
}

// adjacent gives each file to the format before it, or to the next one if that has a file already or there is none.
func (f *Flags) adjacent() []Output {
	var outputs []Output
	var waiting []string
	for _, g := range f.given {
		switch last := len(outputs) - 1; {
		case g.isPath() && last >= 0 && outputs[last].Path == "":
			outputs[last].Path = g.path
		case g.isPath():
			waiting = append(waiting, g.path)
		case len(waiting) > 0:
			outputs = append(outputs, Output{Format: g.format, Path: waiting[0]})
			waiting = waiting[1:]
		default:
			outputs = append(outputs, Output{Format: g.format})
		}
	}
	for i := range outputs {
		if outputs[i].Path == "" && len(waiting) > 0 {
			outputs[i].Path, waiting = waiting[0], waiting[1:]
		}
	}
	return outputs
}

// Rescue writes the table to standard error, unless standard output has shown it: for a run whose reports could not all
// be written.
func Rescue(streams cli.Streams, run model.Run, outputs []Output, verbose bool) {
	for _, out := range outputs {
		if out.Path == "" && out.Format.Name == "table" && streams.Lost() == nil {
			return
		}
	}
	table := report.DetectTable(streams.Getenv, streams.ErrTerminal.Is, streams.ErrTerminal.Columns)
	table.Verbose = verbose
	_ = report.WriteTable(streams.Err, run, table) // there is no place left to say that this one fails as well
}

// Write writes all reports; one that cannot be written does not keep the others from being. That standard output takes
// nothing is no error here, where [cli.Streams.Lost] tells it.
func Write(streams cli.Streams, run model.Run, outputs []Output, verbose bool) error {
	var errs []error
	for _, out := range outputs {
		if out.Path == "" {
			table := report.DetectTable(streams.Getenv, streams.OutTerminal.Is, streams.OutTerminal.Columns)
			table.Verbose = verbose
			err := out.Format.Write(streams.Out, run, report.Options{Table: table})
			if err != nil && !streams.IsLost(err) {
				errs = append(errs, fmt.Errorf("write %s report: %w", out.Format.Name, err))
			}
			continue
		}
		table := report.DetectTable(streams.Getenv, false, 0)
		table.Verbose, table.Color = verbose, false
		errs = append(errs, writefile.Replace(out.Path, func(w io.Writer) error {
			return out.Format.Write(w, run, report.Options{Table: table})
		}))
	}
	return errors.Join(errs...)
}
