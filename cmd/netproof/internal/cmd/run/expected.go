package run

import (
	"bytes"
	"fmt"
	"io"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
	"github.com/netproof/netproof/harness/report"
	prove "github.com/netproof/netproof/harness/run"
	"github.com/netproof/netproof/harness/scenario"
)

// keepExpected writes the computed tables that are not there yet, or all of them if they are to be updated. It says which on the
// error stream, and returns their paths: they are to be reviewed.
func keepExpected(streams cli.Streams, prepared *prove.Prepared, update bool) (written []string) {
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
		if err := report.WriteFile(path, func(w io.Writer) error {
			_, err := w.Write(content)
			return err
		}); err != nil {
			fmt.Fprintf(streams.Err, "warning: the computed table could not be kept: %v\n", err)
			written = append(written, path)
			continue
		}
		written = append(written, path)
		fmt.Fprintf(streams.Err, "wrote %s, the table that the specification expects: review it, and keep it with the scenario\n", path)
	}
	return written
}
