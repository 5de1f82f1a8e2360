package report

import (
	"encoding/csv"
	"io"
	"strconv"

	"github.com/netproof/netproof/harness/model"
)

// csvColumns are the columns of the CSV form, in their order; new ones are added at the end.
var csvColumns = []string{
	"id", "scenario", "step", "from", "to", "port", "protocol", "ipFamily", "via", "expected", "observed", "result", "manner",
	"samples", "rttUs", "reason", "explain",
}

// WriteCSV writes one line per cell under a line of column names, as in RFC 4180.
func WriteCSV(w io.Writer, run model.Run) error {
	out := csv.NewWriter(w)
	out.UseCRLF = false
	if err := out.Write(csvColumns); err != nil {
		return err
	}
	for _, s := range run.Scenarios {
		for _, step := range s.Steps {
			for _, c := range step.Cells {
				rtt := ""
				if c.Evidence != nil && c.Evidence.RTTMicros > 0 {
					rtt = strconv.FormatInt(c.Evidence.RTTMicros, 10)
				}
				err := out.Write([]string{
					c.ID, s.Name, step.Name, string(c.From), string(c.To), strconv.Itoa(c.Port), string(c.Protocol), string(c.IPFamily),
					string(c.Via), string(c.Expected), string(c.Observed), string(c.Result), string(c.Manner), strconv.Itoa(c.Samples),
					rtt, c.Reason, c.Explain,
				})
				if err != nil {
					return err
				}
			}
		}
	}
	out.Flush()
	return out.Error()
}
