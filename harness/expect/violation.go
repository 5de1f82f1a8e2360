package expect

import (
	"fmt"
	"slices"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/plain"
	"github.com/netproof/netproof/harness/scenario"
)

// Violation is a cell of a folder of manifests for which an intent, a rule of netproof.yaml, and the policies say
// different things. The intent stands, and is proven on the wire: where the policies do what they say, the cell fails.
type Violation struct {
	Connection model.Connection
	// Wanted is what the intent says, and Rule the line that says it.
	Wanted, Rule string
	// Given is what the policies say, and Because why in a sentence.
	Given, Because string
	// LeftOut are policies of the folder that may decide the connection elsewhere: the run leaves them out.
	LeftOut []scenario.Unjudged
}

// String says it in a sentence.
func (v Violation) String() string {
	text := fmt.Sprintf("%s wants %s, and the policies give %s: %s", v.Rule, v.Wanted, v.Given, v.Because)
	if len(v.LeftOut) > 0 {
		text += fmt.Sprintf(" (without %s, which netproof does not apply)", scenario.Names(v.LeftOut))
	}
	return plain.Text(text)
}

// Violated has a finding for each intent that the policies violate, with the first of its connections. resolved are the
// tables that were made with addresses, as far as the run came.
func (p *Scenario) Violated(resolved []*Table) (out []model.Finding) {
	type group struct {
		first Violation
		seen  []model.Connection
	}
	var groups []*group
	for _, table := range slices.Concat(p.tables, resolved) {
		if table == nil {
			continue
		}
		for _, v := range table.Violations {
			i := slices.IndexFunc(groups, func(g *group) bool {
				return g.first.Rule == v.Rule && g.first.Wanted == v.Wanted && g.first.Given == v.Given
			})
			if i < 0 {
				groups, i = append(groups, &group{first: v}), len(groups)
			}
			if !slices.Contains(groups[i].seen, v.Connection) {
				groups[i].seen = append(groups[i].seen, v.Connection)
			}
		}
	}
	for _, g := range groups {
		message := fmt.Sprintf("%s: %s", g.first.Connection.Text(), g.first)
		if more := len(g.seen) - 1; more == 1 {
			message += "; so does 1 more connection"
		} else if more > 1 {
			message += fmt.Sprintf("; so do %d more connections", more)
		}
		out = append(out, model.Finding{Kind: model.IntentViolated, Message: message, Result: model.Failed})
	}
	return out
}
