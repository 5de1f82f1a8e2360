package reviewed

import (
	"errors"
	"io/fs"
	"os"

	"github.com/netproof/netproof/harness/run"
)

// Check compares the computed tables with the expected.txt beside their scenarios. Those that have none yet pass: a run writes it.
// Its error joins one [run.ExpectedError] per scenario that differs, and what is wrong with the files.
func Check(prepared *run.Prepared) error {
	var errs []error
	for _, p := range prepared.Scenarios() {
		if steps, _ := p.Computed(); len(steps) == 0 {
			continue
		}
		content, err := os.ReadFile(p.Scenario().ExpectedFile())
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = p.CheckExpected(content)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
