package run

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

// PreparedScenario is a scenario whose plan is made, and whose hand-written tables agree with the specification as far as
// that can be told without addresses.
type PreparedScenario struct {
	scenario *scenario.Scenario
	plan     *scenario.Plan
	findings []model.Finding
	// computed are the verdicts that were left to the specification, by cell id, as far as they are known.
	computed map[string]model.Verdict
	// expected is the reviewed table, if there is one.
	expected *scenario.Expected
	// strict runs are vacuous where a green result would prove less than it seems to.
	strict bool
	// open are the cells that are left open for another reason than the specification, by id, with the reason.
	open map[string]string
}

// Scenario returns the scenario as it was loaded.
func (p *PreparedScenario) Scenario() *scenario.Scenario { return p.scenario }

// Plan returns what will be done.
func (p *PreparedScenario) Plan() *scenario.Plan { return p.plan }

// Prepared are scenarios ready to run.
type Prepared struct {
	list []*PreparedScenario
}

// Scenarios are the prepared scenarios in the order in which they will run.
func (p *Prepared) Scenarios() []*PreparedScenario { return p.list }

// Prepare plans scenarios for a cluster with these IP families and this number of nodes, and compares every hand-written
// verdict with the specification. It touches nothing. Its error joins [scenario.Problems], one [Disagreement] per cell and one
// [UnjudgedError] per scenario.
func Prepare(scenarios []*scenario.Scenario, families []model.IPFamily, nodes int) (*Prepared, error) {
	out := &Prepared{}
	var errs []error
	for _, s := range scenarios {
		plan, err := s.Plan(families, nodes)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		p := &PreparedScenario{scenario: s, plan: plan, computed: map[string]model.Verdict{}, open: map[string]string{}}
		for _, message := range plan.Vacuous {
			p.findings = append(p.findings, model.Finding{Kind: model.NothingProven, Message: message, Result: model.Vacuous})
		}
		unjudged := &UnjudgedError{Scenario: s}
		for _, step := range plan.Steps {
			// Objects with placeholders have no meaning yet; live addresses come with the pods.
			policies, err := unresolvedPolicies(step, families)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			topology := step.Topology
			list, open, err := expect(s, step, &topology, policies)
			unjudged.add(step, policies.unjudged, open)
			if err == nil && len(open) == 0 {
				p.noteOpen(step, list, policies)
				err = p.keepComputed(step, list)
			}
			if err != nil {
				errs = append(errs, err)
			}
		}
		if len(unjudged.Connections) > 0 {
			errs = append(errs, unjudged)
		}
		out.list = append(out.list, p)
	}
	return out, brief(errors.Join(errs...))
}

// policySet are the policies in force in a step, as far as the specification of NetworkPolicy speaks of them.
type policySet struct {
	policies []semantics.Policy
	notes    map[string]model.PolicyNote
	// kinds are those of other objects in force, of which the specification knows nothing.
	kinds []schema.GroupKind
	// unjudged are those of the other objects that may decide connections.
	unjudged []scenario.Unjudged
}

// unresolvedPolicies are the policies in force before any address is known. Explanations show their placeholders.
func unresolvedPolicies(step scenario.PlannedStep, families []model.IPFamily) (policySet, error) {
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
func resolvedPolicies(step scenario.PlannedStep, lookup scenario.Lookup, families []model.IPFamily) (policySet, error) {
	return policiesOf(step, func(a scenario.ApplyObject) (*unstructured.Unstructured, error) {
		object, err := scenario.Resolve(a.Object, lookup, families)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", a.Source, err)
		}
		return object, nil
	})
}

func policiesOf(step scenario.PlannedStep, resolve func(scenario.ApplyObject) (*unstructured.Unstructured, error)) (policySet, error) {
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
		out.policies = append(out.policies, semantics.Policy{Object: typed, Source: applied.Source.Short()})
		note := scenario.Notes(object)
		note.Source = applied.Source.Short()
		out.notes[typed.Namespace+"/"+typed.Name] = note
	}
	return out, nil
}

// expect merges the table of a step with the specification. Cells whose verdict needs addresses that are missing keep what
// the table says, and so do those that policies of other kinds may decide. Of the latter, open are those that the table leaves to
// the specification: they have no verdict.
func expect(s *scenario.Scenario, step scenario.PlannedStep, topology *model.Topology, in policySet) (out []expectation, open []model.Connection, err error) {
	evaluator, err := semantics.New(topology, in.policies)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: step %q: %w", s.File, step.Name, err)
	}
	out = make([]expectation, len(step.Cells))
	var errs []error
	for i, cell := range step.Cells {
		unjudged := scenario.Undecided(in.unjudged, cell.Connection)
		if len(unjudged) > 0 && cell.Expected == "" {
			open = append(open, cell.Connection)
			continue
		}
		d, err := evaluator.Decide(cell.Connection)
		if err != nil {
			if topologyHasAddresses(topology) {
				errs = append(errs, err)
			}
			out[i] = expectation{verdict: cell.Expected, pending: true}
			continue
		}
		w := written{verdict: cell.Expected, by: cell.By, line: cell.Rule}
		if len(unjudged) > 0 {
			out[i] = expectation{
				verdict: w.verdict, by: w.by,
				summary: fmt.Sprintf("it is written at %s, and the specification of NetworkPolicy says nothing about %s", w.line, scenario.Names(unjudged)),
			}
			continue
		}
		verdict, table, spec, pending := reconcile(w, d)
		if table != "" {
			errs = append(errs, &Disagreement{
				Scenario: s.Metadata.Name, File: s.File, Step: step.Name, Connection: cell.Connection,
				Written: table, WrittenBy: w.line, Computed: spec, Walk: d.Walk(), LeftOut: leftOut(step, cell.Connection),
			})
		}
		out[i] = expectation{verdict: verdict, pending: pending, by: w.by, summary: d.Summary(), walk: d.Walk()}
		if d.Verdict == model.Undefined && !pending && verdict != model.Undefined {
			out[i].summary += fmt.Sprintf("; the table wants %s (%s)", verdict, w.line)
		}
		for _, p := range d.DecidingPolicies() {
			out[i].policies = append(out[i].policies, in.notes[p.Object.Namespace+"/"+p.Object.Name])
		}
	}
	return out, open, errors.Join(errs...)
}

// leftOut are the policies of the folder that may decide a connection where they are applied, which a run does not do.
func leftOut(step scenario.PlannedStep, c model.Connection) (out []scenario.Unjudged) {
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
