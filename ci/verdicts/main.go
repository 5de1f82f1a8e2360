// Command verdicts compares what runs on different clusters, or through different transports, observed: cell by cell,
// report by report.
//
//	go run ./ci/verdicts embedded.json kind.json ...
//
// Every report is compared with the first one. It fails when a cell is missing, or was observed to be something else.
// Of cells that the specification leaves open a difference is shown and does not fail.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/netproof/netproof/harness/model"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: go run ./ci/verdicts REPORT.json REPORT.json ...")
		os.Exit(2)
	}
	differ, err := compare(os.Stdout, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "verdicts:", err)
		os.Exit(2)
	}
	if differ > 0 {
		os.Exit(1)
	}
}

// compare prints every difference, and returns the number of those that matter.
func compare(w io.Writer, files []string) (differ int, err error) {
	first, err := read(files[0])
	if err != nil {
		return 0, err
	}
	for _, file := range files[1:] {
		other, err := read(file)
		if err != nil {
			return 0, err
		}
		open := 0
		all := maps.Clone(first)
		maps.Copy(all, other)
		for _, id := range slices.Sorted(maps.Keys(all)) {
			a, inFirst := first[id]
			b, inOther := other[id]
			switch {
			case !inFirst || !inOther:
				fmt.Fprintf(w, "%s is in one report only\n", id)
				differ++
			case a.Observed == b.Observed:
			case a.Result == model.Recorded && b.Result == model.Recorded:
				fmt.Fprintf(w, "%s, which the specification leaves open: %s in %s, %s in %s\n", id, a.Observed, files[0], b.Observed, file)
				open++
			default:
				fmt.Fprintf(w, "%s: %s in %s%s, %s in %s%s\n", id, a.Observed, files[0], because(a), b.Observed, file, because(b))
				differ++
			}
		}
		fmt.Fprintf(w, "%d cells in %s and %s, %d of those that the specification leaves open differ\n", len(all), files[0], file, open)
	}
	return differ, nil
}

func because(c model.Cell) string {
	if c.Reason == "" {
		return ""
	}
	return " (" + c.Reason + ")"
}

// read returns the cells of a report by their ids.
func read(file string) (map[string]model.Cell, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var r model.Run
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	cells := map[string]model.Cell{}
	for _, s := range r.Scenarios {
		for _, step := range s.Steps {
			for _, c := range step.Cells {
				cells[c.ID] = c
			}
		}
	}
	if len(cells) == 0 {
		return nil, fmt.Errorf("%s holds no cell", file)
	}
	return cells, nil
}
