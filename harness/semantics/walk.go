package semantics

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/plain"
	"github.com/netproof/netproof/harness/words"
)

// Walk explains the verdict rule by rule, one line each, indented by two spaces for each level: for each side the
// policies that isolate, what each of their rules matches, and what is missing. An undefined verdict comes with one
// reading that allows and one that denies.
func (d Decision) Walk() []string {
	if d.evaluator == nil {
		return nil
	}
	w := &walker{evaluator: d.evaluator}
	w.line(0, "%s: %s", d.Connection.Text(), d.headline())
	if d.silent != "" {
		w.line(1, "%s", d.silent)
		return w.lines
	}
	scenes := d.scenes()
	if d.Verdict == model.Undefined && !d.NeedsAddresses {
		allows, denies := d.evaluator.opposed(scenes)
		a, b := allows.assume(), denies.assume()
		w.line(1, "allowed if %s:", texts(difference(a, b)))
		w.sides(2, &allows)
		w.line(1, "denied if %s:", texts(difference(b, a)))
		w.sides(2, &denies)
		return w.lines
	}
	// All readings agree, so one of them is enough; but each pod behind a service has rules of its own.
	for _, group := range byBackend(scenes) {
		indent := 1
		if group.text != "" {
			w.line(1, "if %s:", group.text)
			indent = 2
		}
		reading, ok := d.evaluator.first(group.scenes, d.answerOf())
		if !ok {
			// An address is missing elsewhere; for this pod it makes no difference.
			reading = witness{scene: &group.scenes[0], egress: &group.scenes[0].egress[0], ingress: &group.scenes[0].ingress[0]}
		}
		w.sides(indent, &reading)
	}
	return w.lines
}

func (d Decision) headline() string {
	switch {
	case d.NeedsAddresses:
		return "depends on addresses that are not known yet"
	case d.Verdict == model.Deny && d.By != "":
		return fmt.Sprintf("deny, by %s", sideText(d.By))
	default:
		return string(d.Verdict)
	}
}

func sideText(s model.Side) string {
	if s == model.ByBoth {
		return "egress and ingress"
	}
	return string(s)
}

type backendGroup struct {
	text   string
	scenes []scene
}

// byBackend splits scenes by the pod that a service picks.
func byBackend(scenes []scene) (out []backendGroup) {
	for i := range scenes {
		text := ""
		for _, a := range scenes[i].assume {
			if a.dimension == whichBackend {
				text = a.text
			}
		}
		if len(out) == 0 || out[len(out)-1].text != text {
			out = append(out, backendGroup{text: text})
		}
		last := &out[len(out)-1]
		last.scenes = append(last.scenes, scenes[i])
	}
	return out
}

type walker struct {
	evaluator *Evaluator
	lines     []string
}

func (w *walker) line(indent int, format string, args ...any) {
	w.lines = append(w.lines, strings.Repeat("  ", indent)+plain.Text(fmt.Sprintf(format, args...)))
}

func (w *walker) sides(indent int, reading *witness) {
	w.side(indent, reading.egress)
	w.side(indent, reading.ingress)
}

// verdictWord renders the answer of one side.
func verdictWord(a answer) string {
	switch a {
	case yes:
		return "allow"
	case no:
		return "deny"
	default:
		return "depends on an address that is not known yet"
	}
}

func (w *walker) side(indent int, h *half) {
	e := w.evaluator
	result, _ := e.judge(h)
	preposition := "to"
	if h.direction == egress {
		preposition = "from"
	}
	w.line(indent, "%s %s %s: %s", h.direction.side(), preposition, h.name, verdictWord(result))
	indent++
	if h.subject == none {
		if h.name.IsNode() || h.name.IsHost() {
			w.line(indent, "%s is not a pod: no policy applies to it", h.name)
		} else {
			w.line(indent, "%s counts as its node: no policy applies to it", h.name)
		}
		return
	}
	isolating := e.subjectPolicies(h.direction, h.subject)
	if len(isolating) == 0 {
		w.line(indent, "no policy isolates %s for %s: every connection is allowed", h.name, h.direction.side())
		w.others(indent, h)
		return
	}
	w.line(indent, "%s is isolated for %s by %s", h.name, h.direction.side(),
		names(e.isolatingPolicies[h.direction][h.subject]))
	if h.exempt != notExempt {
		w.line(indent, "%s, whatever the rules say", exemptionText(h))
		return
	}
	misses := map[Rule][]nearMiss{}
	for _, miss := range e.nearMisses(h) {
		misses[miss.Rule] = append(misses[miss.Rule], miss)
	}
	for _, p := range isolating {
		w.policy(indent, p, h, misses)
	}
	w.others(indent, h)
}

// others tells why the remaining policies of the subject's namespace do not count.
func (w *walker) others(indent int, h *half) {
	e := w.evaluator
	pod := &e.pods[h.subject]
	for _, p := range e.policies {
		switch {
		case p.Object.Namespace != pod.Namespace:
		case !p.applies[h.direction]:
			if p.selects.has(h.subject) {
				w.line(indent, "%s selects %s, but does not apply to %s", p, h.name, h.direction.side())
			}
		case !p.selects.has(h.subject):
			w.line(indent, "%s does not select %s: %s", p, h.name, words.And(labelMisses(p.selector, pod.Labels, string(h.name))))
		}
	}
}

func (w *walker) policy(indent int, p *compiled, h *half, misses map[Rule][]nearMiss) {
	e := w.evaluator
	what := "every pod of namespace " + p.Object.Namespace
	if !p.selector.Empty() {
		what = "pods with " + p.selector.String()
	}
	w.line(indent, "%s selects %s", p, what)
	indent++
	if len(p.rules[h.direction]) == 0 {
		w.line(indent, "it has no %s rule, and so admits nothing", h.direction.side())
	}
	for i := range p.rules[h.direction] {
		r := &p.rules[h.direction][i]
		switch e.admits(r, h) {
		case yes:
			w.line(indent, "%s admits %s", p.at(r.field), h.peer.name)
		case no:
			w.line(indent, "%s does not admit %s", p.at(r.field), h.peer.name)
		case unknown:
			w.line(indent, "%s admits %s or not, by the address of %s, which is not known yet", p.at(r.field), h.peer.name, h.peer.at)
		}
		w.rule(indent+1, p, r, h)
		for _, miss := range misses[Rule{Policy: p.Policy, Field: r.field}] {
			w.line(indent+1, "would have admitted %s but for: %s", h.peer.name, words.And(miss.But))
		}
	}
}

func (w *walker) rule(indent int, p *compiled, r *rule, h *half) {
	e := w.evaluator
	if len(r.peers) == 0 {
		w.line(indent, "no %s: every peer matches", h.direction.peersField())
	}
	for i := range r.peers {
		entry := fmt.Sprintf("%s[%d] %s", h.direction.peersField(), i, peerText(&r.peers[i]))
		switch r.peers[i].admits(&h.peer, h.ports.family) {
		case yes:
			w.line(indent, "%s: matches", entry)
		case no:
			w.line(indent, "%s: %s", entry, words.And(e.peerMiss(p.Object.Namespace, &r.peers[i], h)))
		case unknown:
			w.line(indent, "%s: the address of %s is not known yet", entry, h.peer.at)
		}
	}
	if len(r.ports) == 0 {
		w.line(indent, "no ports: every port matches")
	}
	// Selectors speak of the pod's port, the rest of the packet's; they differ only where a service rewrites the
	// packet.
	onPod := slices.ContainsFunc(r.peers, func(p peer) bool { return !p.isBlock() && p.admits(&h.peer, h.ports.family) != no })
	for i := range r.ports {
		single := &rule{ports: r.ports[i : i+1]}
		if e.admitsPort(single, h, onPod) == yes {
			w.line(indent, "ports[%d] %s: matches", i, r.ports[i])
		} else {
			w.line(indent, "ports[%d] %s: %s", i, r.ports[i], e.portMiss(single, h, onPod))
		}
	}
}

func peerText(p *peer) string {
	if p.isBlock() {
		out := "ipBlock " + p.blockText()
		for i := range p.except {
			if i == 0 {
				out += " except "
			} else {
				out += ", "
			}
			out += p.exceptText(i)
		}
		return out
	}
	var parts []string
	if p.namespaces != nil {
		parts = append(parts, "namespaceSelector "+selectorText(p.namespaces))
	}
	if p.pods != nil {
		parts = append(parts, "podSelector "+selectorText(p.pods))
	}
	return strings.Join(parts, ", ")
}

func selectorText(s labels.Selector) string {
	if s.Empty() {
		return "{}"
	}
	return s.String()
}
