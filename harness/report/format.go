package report

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/netproof/netproof/harness/model"
)

// ErrUnknownFormat says that there is no format of that name.
var ErrUnknownFormat = errors.New("unknown report format")

// Options are what can be chosen about a rendering. Formats for programs take none of it.
type Options struct {
	Table TableOptions
}

// Format is one way to write a run down.
type Format struct {
	// Name is what --format takes.
	Name string
	// Description is half a sentence for help texts.
	Description string
	// Write renders the run. Its errors are those of the writer.
	Write func(w io.Writer, run model.Run, opts Options) error
}

// Formats lists all formats, in the order in which help texts show them.
func Formats() []Format {
	return []Format{
		{"table", "truth tables for people", func(w io.Writer, run model.Run, opts Options) error {
			return WriteTable(w, run, opts.Table)
		}},
		{"json", "the whole report, for programs and for report convert", withoutOptions(WriteJSON)},
		{"junit", "JUnit XML, for CI systems", withoutOptions(WriteJUnit)},
		{"markdown", "for pull requests and wikis", withoutOptions(WriteMarkdown)},
		{"csv", "one line per cell", withoutOptions(WriteCSV)},
	}
}

func withoutOptions(write func(io.Writer, model.Run) error) func(io.Writer, model.Run, Options) error {
	return func(w io.Writer, run model.Run, _ Options) error { return write(w, run) }
}

// FormatNames lists the names of all formats.
func FormatNames() []string {
	var names []string
	for _, f := range Formats() {
		names = append(names, f.Name)
	}
	return names
}

// Lookup finds a format by its name; the error matches [ErrUnknownFormat] and lists what there is.
func Lookup(name string) (Format, error) {
	for _, f := range Formats() {
		if f.Name == name {
			return f, nil
		}
	}
	return Format{}, fmt.Errorf("%w %q: there is %s", ErrUnknownFormat, name, strings.Join(FormatNames(), ", "))
}
