package output

import (
	"fmt"
	"io"

	"github.com/netproof/netproof/harness/plain"
	"github.com/netproof/netproof/harness/scenario"
	"github.com/netproof/netproof/harness/words"
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

// Classes says where workloads stand for others: for the commands that have --every-pair.
func Classes(w io.Writer, s *scenario.Scenario) {
	others := 0
	for _, c := range s.Classes {
		others += len(c.Like)
	}
	if others > 0 {
		fmt.Fprintf(w, "note: %s: %s for %s that nothing tells apart from them; --every-pair asks about each\n",
			plain.Text(s.File), words.Count(len(s.Classes), "workload stands", "workloads stand"), words.Count(others, "other", "others"))
	}
}

// Remarks says what is odd about scenarios, and what was passed over in their files.
func Remarks(w io.Writer, scenarios []*scenario.Scenario) {
	for _, s := range scenarios {
		Warnings(w, s.Warnings)
	}
	Notes(w, scenarios)
}
