package expect

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/plain"
	"github.com/netproof/netproof/harness/scenario"
	"github.com/netproof/netproof/harness/semantics"
	"github.com/netproof/netproof/harness/words"
)

// Disagreement is a cell for which the hand-written table and the specification say different things: either the
// scenario is wrong, or the specification was misread. It is found before any packet is sent. Cells of a step that the
// same line of the table and the same policies decide are one.
type Disagreement struct {
	Scenario, File, Step string
	Connection           model.Connection
	// Written is what the table says, WrittenBy the line that says it.
	Written   string
	WrittenBy string
	// Computed is what the specification says, and Walk why.
	Computed string
	Walk     []string
	// Others are further cells of which the same is to be said.
	Others []model.Connection

	// cause names what decides, as far as policies do.
	cause string
}

// like tells whether two cells of a step have one reason.
func (d *Disagreement) like(other *Disagreement) bool {
	return d.WrittenBy == other.WrittenBy && d.Written == other.Written && d.Computed == other.Computed && d.cause == other.cause
}

// joined puts those of one step that have one reason together. Other errors stay as they are.
func joined(errs []error) (out []error) {
	var seen []*Disagreement
	for _, err := range errs {
		var d *Disagreement
		if errors.As(err, &d) {
			if i := slices.IndexFunc(seen, d.like); i >= 0 {
				seen[i].Others = append(seen[i].Others, d.Connection)
				continue
			}
			seen = append(seen, d)
		}
		out = append(out, err)
	}
	return out
}

// Error shows both sides and the reasons.
func (d *Disagreement) Error() string {
	which := d.Connection.String()
	if len(d.Others) > 0 {
		const most = 3
		var others []string
		for _, c := range d.Others {
			others = append(others, c.String())
		}
		which += fmt.Sprintf(", and %d more: %s", len(others), words.Few(others, most))
	}
	text := fmt.Sprintf("%s: scenario %s, step %q: %s: the table says %s (%s), the specification says %s",
		d.File, d.Scenario, d.Step, which, d.Written, d.WrittenBy, d.Computed)
	text = plain.Text(text)
	if len(d.Walk) == 0 {
		return text + ", as in the step above"
	}
	return text + ":\n    " + strings.Join(d.Walk, "\n    ")
}

// UnjudgedError says that a scenario leaves verdicts to the specification of NetworkPolicy that policies of other kinds
// may decide. It is found before any packet is sent.
type UnjudgedError struct {
	Scenario *scenario.Scenario
	// Steps are the names of those that have such cells, and Objects the policies.
	Steps       []string
	Objects     []scenario.Unjudged
	Connections []model.Connection
}

// add notes the cells of a step that are left open.
func (e *UnjudgedError) add(step *scenario.PlannedStep, objects []scenario.Unjudged, open []model.Connection) {
	if len(open) == 0 {
		return
	}
	e.Steps = append(e.Steps, fmt.Sprintf("%q", step.Name))
	e.Connections = append(e.Connections, open...)
	for _, o := range objects {
		matters := slices.ContainsFunc(open, o.MayDecide)
		if matters && !slices.Contains(e.Objects, o) {
			e.Objects = append(e.Objects, o)
		}
	}
}

// Error names the policies once, and one of the cells.
func (e *UnjudgedError) Error() string {
	cells, step := "the verdict of 1 cell", "step"
	if n := len(e.Connections); n > 1 {
		cells = fmt.Sprintf("the verdicts of %d cells", n)
	}
	if len(e.Steps) > 1 {
		step = "steps"
	}
	where := "`expect` of the step"
	if e.Scenario.Plain {
		where = "the rules of netproof.yaml"
	}
	first := e.Connections[0]
	return fmt.Sprintf("%s: scenario %s, %s %s: %s cannot be computed, such as that of %s: the specification of NetworkPolicy says nothing about %s\n"+
		"    fix: write them into %s, such as `{from: %q, to: %q, verdict: deny}`",
		e.Scenario.File, e.Scenario.Metadata.Name, step, strings.Join(e.Steps, ", "), cells, first, scenario.Names(e.Objects), where, first.From, first.To)
}

// IsInputError tells whether an error is a [Disagreement], an [UnjudgedError] or a [ReviewError]: one about what people
// wrote.
func IsInputError(err error) bool {
	var disagreement *Disagreement
	var unjudged *UnjudgedError
	var review *ReviewError
	return errors.As(err, &disagreement) || errors.As(err, &unjudged) || errors.As(err, &review)
}

// brief leaves the reasons out of those disagreements that say of the same connection what an earlier one did.
func brief(err error) error {
	said := map[string]bool{}
	var walk func(error)
	walk = func(err error) {
		if list, ok := err.(interface{ Unwrap() []error }); ok {
			for _, inner := range list.Unwrap() {
				walk(inner)
			}
			return
		}
		var d *Disagreement
		if errors.As(err, &d) {
			key := d.Scenario + " " + d.Connection.String() + " " + d.Written + " " + d.Computed
			if said[key] {
				d.Walk = nil
			}
			said[key] = true
		}
	}
	walk(err)
	return err
}

// written is what the hand-written table says of a cell; an empty verdict leaves it to the specification.
type written struct {
	verdict model.Verdict
	by      model.Side
}

// reconcile puts the two sources together. It returns the differing sides as disagreement; pending is true when the
// specification needs addresses that are not known yet.
func reconcile(w written, d semantics.Decision) (verdict model.Verdict, saysTable, saysSpec string, pending bool) {
	if d.NeedsAddresses {
		return w.verdict, "", "", true
	}
	switch {
	case w.verdict == "":
		return d.Verdict, "", "", false
	case d.Verdict == model.Undefined:
		// What the specification leaves open an author may still want: whoever does not writes undefined.
		return w.verdict, "", "", false
	case w.verdict != d.Verdict:
		return w.verdict, string(w.verdict), describe(d), false
	}
	// A side on which the readings differ may be the one that refuses.
	refuses := func(s semantics.SideDecision) bool { return s.Verdict != model.Allow }
	wrongSide := false
	switch w.by {
	case model.ByIngress:
		wrongSide = !refuses(d.Ingress)
	case model.ByEgress:
		wrongSide = !refuses(d.Egress)
	case model.ByBoth:
		wrongSide = !refuses(d.Ingress) || !refuses(d.Egress)
	}
	if wrongSide && w.verdict == model.Deny {
		return w.verdict, fmt.Sprintf("%s by %s", w.verdict, w.by), describe(d), false
	}
	return w.verdict, "", "", false
}

func describe(d semantics.Decision) string {
	if d.Verdict == model.Deny && d.By != "" {
		return fmt.Sprintf("%s by %s", d.Verdict, d.By)
	}
	return string(d.Verdict)
}
