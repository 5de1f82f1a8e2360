package run

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
	prove "github.com/netproof/netproof/harness/run"
	"github.com/netproof/netproof/harness/scenario"
	"github.com/netproof/netproof/harness/writefile"
)

// keepExpected writes the computed tables that are not there yet, or all of them if they are to be updated. It says which on the
// error stream, and returns the paths of those that nobody has reviewed, written or not. The error joins those of the tables that could
// not be written, and has been said.
func keepExpected(streams cli.Streams, prepared *prove.Prepared, update bool) (unreviewed []string, err error) {
	var errs []error
	for _, p := range prepared.Scenarios() {
		steps, complete := p.Computed()
		path := p.Scenario().ExpectedFile()
		if len(steps) == 0 || !complete {
			continue
		}
		old, kept := p.Scenario().Expected()
		content := scenario.FormatExpected(p.Scenario().Metadata.Name, steps)
		if kept && (!update || bytes.Equal(old, content)) {
			continue
		}
		if err := writefile.Replace(path, writefile.Bytes(content)); err != nil {
			fmt.Fprintf(streams.Err, "warning: the computed table could not be kept: %v\n", err)
			errs = append(errs, err)
			unreviewed = append(unreviewed, path)
			continue
		}
		unreviewed = append(unreviewed, path)
		fmt.Fprintf(streams.Err, "wrote %s, the table that the specification expects: review it, and keep it with the scenario\n", path)
	}
	return unreviewed, errors.Join(errs...)
}

// mayUpdateExpected finds out before the run which of the computed tables could not be written after it.
func mayUpdateExpected(prepared *prove.Prepared) error {
	var errs []error
	for _, p := range prepared.Scenarios() {
		if steps, _ := p.Computed(); len(steps) > 0 {
			errs = append(errs, writefile.CheckFile(p.Scenario().ExpectedFile()))
		}
	}
	return errors.Join(errs...)
}
