package scenario

import (
	"fmt"
	"slices"

	"github.com/netproof/netproof/harness/model"
)

// rulesOf turns intents into rules, with the places of the intents. where is the list of them.
func (l *loader) rulesOf(intents []Intent, where *value) (out []Rule) {
	for i := range intents {
		in, v := &intents[i], where.items[i]
		said := 0
		for _, key := range []string{"allow", "deny", "isolate"} {
			if inner := v.get(key); inner != nil {
				said++
				if inner.kind == nullValue {
					l.add(v.keyAt(key), "write `"+key+": {...}`, or remove it", "`%s` is empty", key)
				}
			}
		}
		if said != 1 {
			if (v.kind == mappingValue || v.kind == nullValue) && !l.reportedAt(v.at) {
				l.add(v.at, "write one of `allow`, `deny` and `isolate`, such as `- deny: {from: \"dev/*\", to: \"prod/*\"}`", "an intent says one thing, and this one says %d", said)
			}
			continue
		}
		switch {
		case in.Allow != nil:
			if r, ok := l.between(in.Allow, v, "allow", model.Allow); ok {
				out = append(out, r)
			}
		case in.Deny != nil:
			if r, ok := l.between(in.Deny, v, "deny", model.Deny); ok {
				out = append(out, r)
			}
		case in.Isolate != nil:
			if r, ok := l.isolation(in.Isolate, v); ok {
				out = append(out, r)
			}
		}
	}
	return out
}

func (l *loader) between(b *Between, intent *value, key string, verdict model.Verdict) (Rule, bool) {
	v := intent.get(key)
	if v.kind != mappingValue {
		return Rule{}, false // it was reported
	}
	before := l.count()
	d := &decoder{c: &l.collector}
	r := Rule{From: b.From, To: b.To, Ports: b.Ports, Via: b.Via, Except: b.Except, By: b.By, Verdict: string(verdict), At: intent.at}
	r.fromAt, r.toAt, r.viaAt = keyPlaces(v)
	r.from, r.to = parseEnds(d, v, before, r.fromAt, r.toAt, r.From, r.To)
	r.except = parseAll(&l.collector, v.get("except"), b.Except)
	checkVia(&l.collector, r.viaAt, r.Via)
	sides := []string{string(model.ByIngress), string(model.ByEgress), string(model.ByBoth)}
	switch {
	case b.By == "":
	case !slices.Contains(sides, b.By):
		l.add(v.get("by").at, "write ingress, egress or both", "%q is not a side of a connection", shorten(b.By))
	case verdict != model.Deny:
		l.add(v.keyAt("by"), "remove by, or write `deny`", "`by` says which side refuses, and the intent does not deny")
	}
	return r, l.count() == before
}

// isolation keeps groups of namespaces apart. Groups by a label are made when the namespaces are known.
func (l *loader) isolation(in *Isolate, intent *value) (Rule, bool) {
	v := intent.get("isolate")
	before := l.count()
	every := pattern{text: "*", kind: everyPattern}
	r := Rule{
		From: "*", To: "*", Except: in.Except, Verdict: string(model.Deny), At: intent.at, fromAt: v.at, toAt: v.at, viaAt: v.at, from: every, to: every,
		apart: in, apartAt: v,
	}
	r.except = parseAll(&l.collector, v.get("except"), in.Except)
	switch {
	case (in.Label == "") == (len(in.Namespaces) == 0):
		l.add(v.at, "write `isolate: {namespaces: [dev, test, prod]}`, or `isolate: {label: team}`", "groups of namespaces are said by their names or by a label, one of them")
	case in.Label == "" && len(in.Namespaces) == 1:
		l.add(v.at, "name two namespaces or more", "one group is apart from nobody")
	}
	return r, l.count() == before && v.kind == mappingValue
}

// setGroups makes the groups of the rules that keep namespaces apart.
func (f *plainFolder) setGroups(rules []Rule) {
	t := &f.s.Spec.Topology
	for i := range rules {
		r := &rules[i]
		switch {
		case r.apart == nil:
		case r.apart.Label != "":
			values := map[string][]string{}
			for _, ns := range t.Namespaces {
				if value, ok := ns.Labels[r.apart.Label]; ok {
					values[value] = append(values[value], ns.Name)
				}
			}
			if len(values) < 2 {
				f.add(r.apartAt.get("label").at, "label the namespaces, or name them: `isolate: {namespaces: [dev, prod]}`",
					"there are no two groups of namespaces: the label `%s` has %s", shorten(r.apart.Label), counted(len(values), "value"))
				continue
			}
			for _, value := range keys(values) {
				var group []pattern
				for _, name := range values[value] {
					group = append(group, pattern{kind: podPattern, namespace: name, name: "*"})
				}
				r.groups = append(r.groups, group)
			}
		default:
			var names []string
			for _, ns := range t.Namespaces {
				names = append(names, ns.Name)
			}
			for j, text := range r.apart.Namespaces {
				if !slices.ContainsFunc(names, func(name string) bool { return glob(text, name) }) {
					f.add(r.apartAt.get("namespaces").items[j].at, didYouMean(text, names), "no namespace of the folder is `%s`", shorten(text))
					continue
				}
				r.groups = append(r.groups, []pattern{{kind: podPattern, namespace: text, name: "*"}})
			}
		}
	}
}

// groupOf is the group that a namespace is in, -1 if it is in none.
func (r *Rule) groupOf(namespace string) int {
	return slices.IndexFunc(r.groups, func(group []pattern) bool {
		return slices.ContainsFunc(group, func(p pattern) bool { return glob(p.namespace, namespace) })
	})
}

// apartFrom tells whether a rule keeps two endpoints apart.
func (r *Rule) apartFrom(from, to model.Endpoint) bool {
	source, _, ok := from.Split()
	target, _, alsoOK := to.Split()
	if !ok || !alsoOK {
		return false
	}
	a, b := r.groupOf(source), r.groupOf(target)
	return a >= 0 && b >= 0 && a != b
}

// contradiction says that two rules of a folder want different things of one cell.
func contradiction(first, second *Rule, c model.Connection, where string) Problem {
	return problemAt(second.At, "change one of them, or name what is not meant under `except`",
		"it contradicts %s: of %s one wants %s and the other %s in %s", first.At.Short(), c, wanted(first), wanted(second), where)
}

func wanted(r *Rule) string {
	if r.By != "" {
		return fmt.Sprintf("%s by %s", r.Verdict, r.By)
	}
	return r.Verdict
}
