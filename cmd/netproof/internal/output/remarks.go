package output

import (
	"fmt"
	"io"

	"github.com/netproof/netproof/harness/scenario"
)

// Warnings says what is odd about files that can be used all the same.
func Warnings(w io.Writer, warnings scenario.Problems) {
	for _, p := range warnings {
		fmt.Fprintf(w, "warning: %v\n", p)
	}
}

// Notes says what was passed over in files as it should be.
func Notes(w io.Writer, scenarios []*scenario.Scenario) {
	for _, s := range scenarios {
		for _, note := range s.Notes {
			fmt.Fprintf(w, "note: %s\n", note)
		}
	}
}

// Remarks says what is odd about scenarios, and what was passed over in their files.
func Remarks(w io.Writer, scenarios []*scenario.Scenario) {
	for _, s := range scenarios {
		Warnings(w, s.Warnings)
	}
	Notes(w, scenarios)
}
