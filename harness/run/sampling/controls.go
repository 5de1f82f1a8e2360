package sampling

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/netproof/netproof/harness/model"
)

// judgeCanaries decides from the canaries' series whether denials of this window can be trusted at all.
func (w *Window) judgeCanaries(within time.Duration, tracks []*Track, dead map[model.Endpoint]string, barrierErr error) {
	w.Controls.CanaryAllowed, w.Controls.CanaryDenied = true, true
	var leaks, cuts, silent []string
	for _, t := range tracks {
		series, _ := t.Series()
		series = Telling(series)
		where := fmt.Sprintf("%s -> %s", t.Conn.From, t.Conn.To)
		for _, smp := range series {
			if smp.Verdict == t.Expected {
				continue
			}
			// A handshake is made by the kernels: packets went both ways, and only the server's program was too starved
			// to answer in time.
			if t.Expected == model.Allow && smp.Response.Connected {
				continue
			}
			if t.Expected == model.Deny {
				w.Controls.CanaryDenied = false
				leaks = append(leaks, where)
			} else {
				w.Controls.CanaryAllowed = false
				cuts = append(cuts, fmt.Sprintf("%s (%s)", where, lost(smp, w.Start)))
			}
			break
		}
		if len(series) == 0 {
			w.Controls.CanaryAllowed, w.Controls.CanaryDenied = false, false
			silent = append(silent, where)
		}
	}
	var reasons []string
	if len(silent) > 0 {
		reasons = append(reasons, "the canaries could not be probed: "+strings.Join(silent, ", "))
	}
	if len(leaks) > 0 {
		reasons = append(reasons, "the canary that must be denied was not: "+strings.Join(leaks, ", "))
	}
	if len(cuts) > 0 {
		reasons = append(reasons, "the canary that must be allowed was not: "+strings.Join(cuts, ", "))
	}
	for _, e := range slices.Sorted(maps.Keys(dead)) {
		reasons = append(reasons, fmt.Sprintf("the server of the canary %s was not alive: %s", e, dead[e]))
	}
	switch {
	case errors.Is(barrierErr, ErrNotConfirmed):
		reasons = append(reasons, fmt.Sprintf("not every node took up the change within %s: %v", within, barrierErr))
	case barrierErr != nil:
		reasons = append(reasons, barrierErr.Error())
	}
	w.Enforcement = strings.Join(reasons, "; ")
}

// lost says what became of a sample that should have been answered, for whoever must find out why.
func lost(smp Sample, start time.Time) string {
	what := cmp.Or(string(smp.Response.Outcome), string(smp.Verdict))
	if smp.Reason != "" {
		what += ", " + smp.Reason
	}
	if !smp.Seen {
		what += ", the server did not see it"
	}
	return fmt.Sprintf("%s, sent %d ms after the change", what, smp.Sent.Sub(start).Milliseconds())
}

func (w *Window) judgeSelfs(tracks []*Track) {
	w.DeadProbers = map[model.Endpoint]string{}
	for _, t := range tracks {
		series, _ := t.Series()
		if len(Telling(series)) == 0 && len(series) > 0 {
			w.DeadProbers[t.Conn.From] = series[0].Reason
		}
		answered := slices.ContainsFunc(series, func(smp Sample) bool { return smp.Verdict == model.Allow })
		for _, smp := range Telling(series) {
			// As with canaries: the kernels shook hands, so packets went both ways. But it must have heard an answer at
			// all.
			if smp.Verdict != model.Allow && !(answered && smp.Response.Connected) {
				w.DeadProbers[t.Conn.From] = cmp.Or(smp.Reason, string(smp.Response.Outcome))
				break
			}
		}
	}
}
