package expect

import (
	"errors"
	"fmt"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/scenario"
	"github.com/netproof/netproof/harness/semantics"
)

// Table says what one step should show, in the order of its planned cells.
type Table struct {
	Step  string
	Cells []Cell
	// Violations are the cells of a folder of manifests that its intents and its policies see differently.
	Violations []Violation
}

// Cell is a connection of a step with what is expected of it, and why.
type Cell struct {
	// ID names it in reports.
	ID   string
	Conn model.Connection
	// Verdict is the expected one. Where it is Pending the specification needs addresses that are not known yet: then
	// it is what the hand-written table says, and empty where that says nothing.
	Verdict model.Verdict
	Pending bool
	// Computed tells whether the verdict is left to the specification.
	Computed bool
	// Open says why nobody decides the cell, where that is not the specification; strict runs count it.
	Open string
	// Egress and Ingress are the verdicts of the two sides, and OneSided is true for a denial where a rule of the other
	// side admits the connection: the next change of this side opens it.
	Egress, Ingress model.Verdict
	OneSided        bool
	// Cause names the rules or policies that make the verdict: cells that share it have one reason.
	Cause string
	// Policies are those that decide.
	Policies []model.PolicyNote
	// Needs are the features that the cell needs and the network plugin does not have.
	Needs []Need

	// decision is what the specification says; nil where it says nothing.
	decision *semantics.Decision
	// said takes the place of its summary, and more follows it.
	said, more string
}

// Summary says in a line why the verdict is expected.
func (c *Cell) Summary() string {
	text := c.said
	if text == "" && c.decision != nil {
		text = c.decision.Summary()
	}
	return text + c.more
}

// Walk says in all detail why the verdict is expected.
func (c *Cell) Walk() []string {
	if c.decision == nil {
		return nil
	}
	return c.decision.Walk()
}

// policySet are the policies in force in a step, as far as the specification of NetworkPolicy speaks of them.
type policySet struct {
	policies []semantics.Policy
	notes    map[string]model.PolicyNote
	// kinds are those of other objects in force. The specification knows nothing of them.
	kinds []schema.GroupKind
	// unjudged are those of the other objects that may decide connections.
	unjudged []scenario.Unjudged
}

// unresolvedPolicies are the policies in force before any address is known. Explanations show their placeholders.
func unresolvedPolicies(step *scenario.PlannedStep, families []model.IPFamily) (policySet, error) {
	out, err := policiesOf(step, func(a scenario.ApplyObject) (*unstructured.Unstructured, error) { return a.Example(families) })
	if err != nil {
		return out, err
	}
	i := 0
	for _, applied := range step.InForce {
		if applied.Policy == nil {
			continue
		}
		if applied.NeedsAddresses {
			object, err := scenario.Expand(applied.Object, families)
			if err != nil {
				return out, fmt.Errorf("%s: %w", applied.Source, err)
			}
			if out.policies[i].Written, err = typedPolicy(object); err != nil {
				return out, fmt.Errorf("%s: %w", applied.Source, err)
			}
		}
		i++
	}
	return out, nil
}

func typedPolicy(object *unstructured.Unstructured) (*networkingv1.NetworkPolicy, error) {
	typed := &networkingv1.NetworkPolicy{}
	return typed, runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(object.Object, typed, true)
}

// resolvedPolicies replaces the placeholders of the policies in force.
func resolvedPolicies(step *scenario.PlannedStep, lookup scenario.Lookup, families []model.IPFamily) (policySet, error) {
	return policiesOf(step, func(a scenario.ApplyObject) (*unstructured.Unstructured, error) {
		object, err := scenario.Resolve(a.Object, lookup, families)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", a.Source, err)
		}
		return object, nil
	})
}

func policiesOf(step *scenario.PlannedStep, resolve func(scenario.ApplyObject) (*unstructured.Unstructured, error)) (policySet, error) {
	out := policySet{notes: map[string]model.PolicyNote{}}
	for _, u := range step.Unjudged {
		if u.Applied { // what is left out is in force nowhere that a run looks at
			out.unjudged = append(out.unjudged, u)
		}
	}
	for _, applied := range step.InForce {
		object, err := resolve(applied)
		if err != nil {
			return out, err
		}
		if object.GroupVersionKind() != networkingv1.SchemeGroupVersion.WithKind("NetworkPolicy") {
			if kind := object.GroupVersionKind().GroupKind(); !slices.Contains(out.kinds, kind) {
				out.kinds = append(out.kinds, kind)
			}
			continue
		}
		typed, err := typedPolicy(object)
		if err != nil {
			return out, fmt.Errorf("%s: %w", applied.Source, err)
		}
		out.policies = append(out.policies, semantics.Policy{Object: typed, Source: applied.Source.Short(), Lines: &semantics.Lines{Of: applied.Lines()}})
		note := scenario.Notes(object)
		note.Source = applied.Source.Short()
		out.notes[typed.Namespace+"/"+typed.Name] = note
	}
	return out, nil
}

// tableOf merges the table of a step with the specification. Cells whose verdict needs addresses that are missing keep
// what the table says, and so do those that policies of other kinds may decide. Of the latter, open are those that the
// table leaves to the specification: they have no verdict.
//
// previous is the table of the step before, for cells that are to be like there; nil in the first step.
func tableOf(s *scenario.Scenario, step *scenario.PlannedStep, previous *Table, topology *model.Topology, in policySet) (out *Table, open []model.Connection, err error) {
	evaluator, err := semantics.New(topology, in.policies)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: step %q: %w", s.File, step.Name, err)
	}
	out = &Table{Step: step.Name, Cells: make([]Cell, len(step.Cells))}
	var errs []error
	before := previous.verdicts()
	for i, planned := range step.Cells {
		conn := planned.Connection
		if planned.Like && planned.Expected == "" {
			planned.Expected = before[conn]
		}
		cell := Cell{ID: model.CellID(s.Metadata.Name, step.Name, conn), Conn: conn, Verdict: planned.Expected, Computed: planned.Expected == ""}
		unjudged := scenario.Undecided(in.unjudged, conn)
		d, err := evaluator.Decide(conn)
		switch {
		case len(unjudged) > 0 && cell.Computed:
			open = append(open, conn)
		case err != nil:
			if topologyHasAddresses(topology) {
				errs = append(errs, err)
			}
			cell.Pending = true
		case len(unjudged) > 0:
			cell.said = fmt.Sprintf("it is written at %s, and the specification of NetworkPolicy says nothing about %s", planned.Rule, scenario.Names(unjudged))
		default:
			violation, err := cell.decide(s, step, planned, d, in)
			if err != nil {
				errs = append(errs, err)
			}
			if violation != nil {
				out.Violations = append(out.Violations, *violation)
			}
		}
		if cell.Verdict == model.Undefined && !cell.Pending {
			cell.Open = whyOpen(s, topology, conn, unjudged)
		}
		out.Cells[i] = cell
	}
	return out, open, errors.Join(joined(errs)...)
}

// verdicts are those of the cells of which they are known.
func (t *Table) verdicts() map[model.Connection]model.Verdict {
	if t == nil {
		return nil
	}
	out := make(map[model.Connection]model.Verdict, len(t.Cells))
	for i := range t.Cells {
		if c := &t.Cells[i]; !c.Pending {
			out[c.Conn] = c.Verdict
		}
	}
	return out
}

// decide puts what the table and the specification say together. In a scenario they must agree. The rules of a folder
// are intents, which the policies may violate.
func (c *Cell) decide(s *scenario.Scenario, step *scenario.PlannedStep, planned scenario.PlannedCell, d semantics.Decision, in policySet) (
	violation *Violation, err error,
) {
	verdict, table, spec, pending := reconcile(written{verdict: planned.Expected, by: planned.By}, d)
	if table != "" && s.Plain {
		violation = &Violation{Connection: c.Conn, Wanted: table, Rule: planned.Rule, Given: spec, Because: d.Summary(), LeftOut: leftOut(step, c.Conn)}
	} else if table != "" {
		err = &Disagreement{
			Scenario: s.Metadata.Name, File: s.File, Step: step.Name, Connection: c.Conn,
			Written: table, WrittenBy: planned.Rule, Computed: spec, Walk: d.Walk(), cause: d.Cause(),
		}
	}
	c.Verdict, c.Pending, c.decision = verdict, pending, &d
	if !pending {
		c.Egress, c.Ingress = d.Egress.Verdict, d.Ingress.Verdict
		c.OneSided = d.By == model.ByEgress && len(d.Ingress.Admitting) > 0 || d.By == model.ByIngress && len(d.Egress.Admitting) > 0
	}
	c.Cause = d.Cause()
	if violation != nil {
		c.Cause = violation.Rule + ": " + c.Cause
		c.said = violation.String()
	}
	if d.Verdict == model.Undefined && !pending && verdict != model.Undefined {
		c.more = fmt.Sprintf("; the table wants %s (%s)", verdict, planned.Rule)
	}
	for _, p := range d.DecidingPolicies() {
		c.Policies = append(c.Policies, in.notes[p.Object.Namespace+"/"+p.Object.Name])
	}
	return violation, err
}

// leftOut are the policies of the folder that may decide a connection where they are applied, which a run does not do.
func leftOut(step *scenario.PlannedStep, c model.Connection) (out []scenario.Unjudged) {
	for _, u := range scenario.Undecided(step.Unjudged, c) {
		if !u.Applied {
			out = append(out, u)
		}
	}
	return out
}

// topologyHasAddresses tells whether the pods run.
func topologyHasAddresses(t *model.Topology) bool {
	return len(t.Pods) > 0 && len(t.Pods[0].Addresses) > 0
}
