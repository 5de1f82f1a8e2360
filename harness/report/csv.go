package report

import (
	"encoding/csv"
	"io"
	"strconv"
	"strings"
	"unicode"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/plain"
)

// csvColumns are the columns of the CSV form, in their order; new ones are added at the end.
var csvColumns = []string{
	"id", "scenario", "step", "from", "to", "port", "protocol", "ipFamily", "via", "expected", "observed", "result", "manner",
	"samples", "rttUs", "reason", "explain", "egress", "ingress", "oneSided",
}

// WriteCSV writes one line per cell under a line of column names, as in RFC 4180. What a spreadsheet would calculate
// has an apostrophe before it, which makes it text (OWASP, CSV Injection).
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
				record := []string{
					c.ID, s.Name, step.Name, string(c.From), string(c.To), strconv.Itoa(c.Port), string(c.Protocol), string(c.IPFamily),
					string(c.Via), string(c.Expected), string(c.Observed), string(c.Result), string(c.Manner), strconv.Itoa(c.Samples),
					rtt, c.Reason, c.Explain, string(c.Egress), string(c.Ingress), strconv.FormatBool(c.OneSided),
				}
				for i := range record {
					record[i] = csvField(record[i])
				}
				if err := out.Write(record); err != nil {
					return err
				}
			}
		}
	}
	out.Flush()
	return out.Error()
}

// csvField makes text safe in a field. A spreadsheet takes one that begins with such a sign for a formula, in any width
// of it, whatever white space stands before; one that splits at other separators than the comma begins fields after
// those.
func csvField(text string) string {
	var b strings.Builder
	begins := true
	for _, r := range plain.Text(text) {
		switch {
		case begins && strings.ContainsRune("=+-@＝＋－＠", r):
			b.WriteByte('\'')
			begins = false
		case r == ';' || r == '|' || r == '"' || r == '\'' && begins:
			begins = true
		case !unicode.IsSpace(r):
			begins = false
		}
		b.WriteRune(r)
	}
	return b.String()
}
