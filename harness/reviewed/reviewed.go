package reviewed

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/netproof/netproof/harness/expect"
	"github.com/netproof/netproof/harness/scenario"
	"github.com/netproof/netproof/harness/writefile"
)

// Unreviewed is a table that was computed and nobody has looked at.
type Unreviewed struct {
	// Path is where it belongs, beside its scenario.
	Path string
	// Err says why it could not be written there; nil if it was.
	Err error
}

// Keep writes the computed tables that are complete and not there yet, or all of them if they are to be updated. tables
// are those that a run has made with addresses, by scenario; nil without a run. It returns those that nobody has
// reviewed, written or not.
func Keep(prepared *expect.Prepared, tables map[*expect.Scenario][]*expect.Table, update bool) (unreviewed []Unreviewed) {
	for _, p := range prepared.Scenarios() {
		steps, complete := p.Computed(tables[p])
		path := p.Scenario().ExpectedFile()
		if len(steps) == 0 || !complete {
			continue
		}
		old, kept := p.Scenario().Expected()
		content := scenario.FormatExpected(p.Name(), steps)
		if kept && (!update || bytes.Equal(old, content)) {
			continue
		}
		if path == "" {
			unreviewed = append(unreviewed, Unreviewed{Path: "the table of " + p.Name(), Err: errHomeless})
			continue
		}
		unreviewed = append(unreviewed, Unreviewed{Path: path, Err: writefile.Replace(path, writefile.Bytes(content))})
	}
	return unreviewed
}

// errHomeless says that a table belongs to manifests that lie in no folder.
var errHomeless = errors.New("the manifests come from no folder, so expected.txt has no place: give a folder that holds netproof.yaml as well")

// IsHomeless tells whether a table could not be kept since its manifests lie in no folder.
func IsHomeless(err error) bool { return errors.Is(err, errHomeless) }

// MayUpdate finds out before a run which of the computed tables could not be written after it.
func MayUpdate(prepared *expect.Prepared) error {
	var errs []error
	for _, p := range prepared.Scenarios() {
		steps, _ := p.Computed(nil)
		switch {
		case len(steps) == 0:
		case p.Scenario().ExpectedFile() == "":
			errs = append(errs, fmt.Errorf("scenario %s: %w", p.Name(), errHomeless))
		default:
			errs = append(errs, writefile.CheckFile(p.Scenario().ExpectedFile()))
		}
	}
	return errors.Join(errs...)
}
