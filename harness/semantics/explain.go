package semantics

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/plain"
	"github.com/netproof/netproof/harness/words"
)

// NearMiss is a rule that would have admitted a connection but for something.
type NearMiss struct {
	Side model.Side
	Rule Rule
	// Peer is the entry of the rule that comes near, such as from[1]; empty when the peers match and the port does not.
	Peer string
	// But is what would have to be otherwise: "port 81/TCP is not 80/TCP", "label app of x/a is api, not web".
	But []string
}

// String renders the near miss: x/web (web.yaml:3) ingress[0] would, but for: port 81/TCP is not 80/TCP.
func (n NearMiss) String() string {
	return fmt.Sprintf("%s would, but for: %s", n.Rule, words.And(n.But))
}

// witness is one way to read a connection, and where it leads.
type witness struct {
	scene           *scene
	egress, ingress *half
}

func (w *witness) assume() []assumption {
	return slices.Concat(w.scene.assume, w.egress.assume, w.ingress.assume)
}

// witnesses lists the ways to read one scene that lead to an answer, the plainest first.
func (e *Evaluator) witnesses(s *scene, want answer) (out []witness) {
	for i := range s.egress {
		for j := range s.ingress {
			w := witness{scene: s, egress: &s.egress[i], ingress: &s.ingress[j]}
			x, _ := e.judge(w.egress)
			y, _ := e.judge(w.ingress)
			if min(x, y) == want {
				out = append(out, w)
			}
		}
	}
	return out
}

// difference returns the assumptions of a that b does not share.
func difference(a, b []assumption) (out []assumption) {
	for _, x := range a {
		if !slices.Contains(b, x) {
			out = append(out, x)
		}
	}
	return out
}

// opposed finds two readings, one that allows and one that denies, that differ in as little as possible.
func (e *Evaluator) opposed(scenes []scene) (allows, denies witness) {
	best, ok := 0, false
	consider := func(a, b witness) {
		x, y := a.assume(), b.assume()
		distance := len(difference(x, y)) + len(difference(y, x))
		if !ok || distance < best {
			allows, denies, best, ok = a, b, distance, true
		}
	}
	var allowing, denying []witness
	for i := range scenes {
		a, d := e.witnesses(&scenes[i], yes), e.witnesses(&scenes[i], no)
		for _, x := range a {
			for _, y := range d {
				consider(x, y)
			}
		}
		allowing, denying = append(allowing, a...), append(denying, d...)
	}
	if ok || len(allowing) == 0 {
		return allows, denies
	}
	// No scene holds both: then it is the scene that matters. One that allows is enough to find its nearest opposite.
	for _, y := range denying {
		consider(allowing[0], y)
	}
	return allows, denies
}

// first returns the first reading that leads to an answer; of those that lead to a denial, the first in which no side
// refuses that does not refuse in all of them.
func (e *Evaluator) first(scenes []scene, want answer) (best witness, ok bool) {
	for i := range scenes {
		for _, w := range e.witnesses(&scenes[i], want) {
			x, _ := e.judge(w.egress)
			y, _ := e.judge(w.ingress)
			if want != no || x != y {
				return w, true
			}
			if !ok {
				best, ok = w, true
			}
		}
	}
	return best, ok
}

// answerOf is the answer that stands for a verdict.
func (d Decision) answerOf() answer {
	switch {
	case d.Verdict == model.Allow:
		return yes
	case d.Verdict == model.Deny:
		return no
	default:
		return unknown
	}
}

// scenes lists the readings again. They existed when the decision was made, and nothing they depend on can have
// changed.
func (d Decision) scenes() []scene {
	if d.evaluator == nil || d.silent != "" {
		return nil
	}
	scenes, _, _ := d.evaluator.scenes(d.Connection)
	return scenes
}

// Summary explains the verdict in one line.
func (d Decision) Summary() string { return plain.Text(d.summary()) }

func (d Decision) summary() string {
	if d.evaluator == nil {
		return ""
	}
	if d.silent != "" {
		return d.silent
	}
	e, scenes := d.evaluator, d.scenes()
	if d.Verdict == model.Undefined && !d.NeedsAddresses {
		allows, denies := e.opposed(scenes)
		a, b := allows.assume(), denies.assume()
		return fmt.Sprintf("the specification leaves it open: allowed if %s; denied if %s",
			texts(difference(a, b)), texts(difference(b, a)))
	}
	w, _ := e.first(scenes, d.answerOf())
	switch {
	case d.NeedsAddresses:
		return e.missing(&w)
	case d.Verdict == model.Deny:
		var parts []string
		for _, h := range []*half{w.egress, w.ingress} {
			if result, _ := e.judge(h); result == no {
				parts = append(parts, e.refusal(h))
			}
		}
		return strings.Join(parts, "; ")
	default:
		return e.permission(&w)
	}
}

// missing names the addresses without which a reading gives no answer.
func (e *Evaluator) missing(w *witness) string {
	var of []string
	for _, h := range []*half{w.egress, w.ingress} {
		if result, _ := e.judge(h); result == unknown && !slices.Contains(of, string(h.peer.at)) {
			of = append(of, string(h.peer.at))
		}
	}
	if len(of) == 1 {
		return fmt.Sprintf("depends on the address of %s, which is not known yet", of[0])
	}
	return fmt.Sprintf("depends on the addresses of %s, which are not known yet", words.And(of))
}

// refusal says in a line why one side refuses, with the rule that comes nearest if it misses by one thing only.
func (e *Evaluator) refusal(h *half) string {
	out := fmt.Sprintf("%s is isolated for %s by %s; no rule admits %s", h.name, h.direction.side(),
		names(e.isolatingPolicies[h.direction][h.subject]), h.peer.name)
	var best *nearMiss
	for _, miss := range e.nearMisses(h) {
		if len(miss.But) == 1 && (best == nil || miss.distance < best.distance) {
			best = &miss
		}
	}
	if best != nil {
		out += "; " + best.String()
	}
	return out
}

// permission says in a line why both sides allow.
func (e *Evaluator) permission(w *witness) string {
	var open, parts []string
	for _, h := range []*half{w.egress, w.ingress} {
		switch _, by := e.judge(h); {
		case h.subject == none:
		case len(e.subjectPolicies(h.direction, h.subject)) == 0:
			open = append(open, fmt.Sprintf("%s for %s", h.name, h.direction.side()))
		case h.exempt != notExempt:
			parts = append(parts, exemptionText(h))
		default:
			parts = append(parts, fmt.Sprintf("%s admits %s", by, h.peer.name))
		}
	}
	if len(open) > 0 {
		parts = append([]string{"no policy isolates " + strings.Join(open, " or ")}, parts...)
	}
	if len(parts) == 0 {
		return "no policy applies: neither end counts as a pod"
	}
	slices.Sort(parts[min(1, len(parts)):])
	return strings.Join(slices.Compact(parts), "; ")
}

func exemptionText(h *half) string {
	switch {
	case h.exempt == toItself:
		return fmt.Sprintf("%s cannot block access to itself", h.name)
	case h.direction == ingress:
		return fmt.Sprintf("%s cannot block access from its own node", h.name)
	default:
		return fmt.Sprintf("%s may always reach its own node", h.name)
	}
}

// NearMisses returns the rules that would have admitted a denied connection but for something, egress first. It is
// empty for connections that are not denied.
func (d Decision) NearMisses() []NearMiss {
	if d.Verdict != model.Deny {
		return nil
	}
	w, ok := d.evaluator.first(d.scenes(), no)
	if !ok {
		return nil
	}
	var out []NearMiss
	for _, h := range []*half{w.egress, w.ingress} {
		for _, miss := range d.evaluator.nearMisses(h) {
			out = append(out, miss.NearMiss)
		}
	}
	return out
}

// nearMiss is a near miss and how far it is from what its author can have meant, for choosing the one worth a word.
type nearMiss struct {
	NearMiss
	distance distance
}

type distance int

const (
	// otherPort: the rule names this very peer.
	otherPort distance = iota
	// otherLabels: the rule has this very port, or all.
	otherLabels
	// otherPortForAll: the rule is for every peer, on another port.
	otherPortForAll
	otherProtocol
	otherAddress
)

func portDistance(r *rule, c *ports) distance {
	switch {
	case !slices.ContainsFunc(r.ports, func(p port) bool { return p.protocol == c.protocol }):
		return otherProtocol
	case len(r.peers) == 0:
		return otherPortForAll
	default:
		return otherPort
	}
}

// nearMisses lists for a side that refuses, rule by rule, what the peers lack that come with a matching port, and what
// the port lacks if a peer matches.
func (e *Evaluator) nearMisses(h *half) (out []nearMiss) {
	if result, _ := e.judge(h); result != no {
		return nil
	}
	for _, p := range e.subjectPolicies(h.direction, h.subject) {
		for i := range p.rules[h.direction] {
			r := &p.rules[h.direction][i]
			miss := nearMiss{NearMiss: NearMiss{Side: h.direction.side(), Rule: Rule{Policy: p.Policy, Field: r.field}}}
			if len(r.peers) == 0 {
				miss.distance = portDistance(r, &h.ports)
				miss.But = []string{e.portMiss(r, h, false)}
				out = append(out, miss)
				continue
			}
			portMissed := false
			for j := range r.peers {
				candidate, onPod := miss, !r.peers[j].isBlock()
				peerMiss := e.peerMiss(p.Object.Namespace, &r.peers[j], h)
				switch {
				case len(peerMiss) == 0 && portMissed:
					continue
				case len(peerMiss) == 0:
					portMissed = true
					candidate.distance = portDistance(r, &h.ports)
					candidate.But = []string{e.portMiss(r, h, onPod)}
				case e.admitsPort(r, h, onPod) == yes:
					candidate.Peer = fmt.Sprintf("%s[%d]", h.direction.peersField(), j)
					candidate.But = peerMiss
					candidate.distance = otherLabels
					if !onPod {
						candidate.distance = otherAddress
					}
				default:
					continue
				}
				out = append(out, candidate)
			}
		}
	}
	return out
}

// peerMiss says what one end of a connection lacks to match a peer; nothing if it matches, or may.
func (e *Evaluator) peerMiss(namespace string, p *peer, h *half) []string {
	if p.admits(&h.peer, h.ports.family) != no {
		return nil
	}
	end := &h.peer
	if p.isBlock() {
		return []string{blockMiss(p, end, h.ports.family)}
	}
	if end.pod == none {
		if end.name.IsNode() || end.name.IsHost() {
			return []string{fmt.Sprintf("%s is not a pod", end.name)}
		}
		return []string{fmt.Sprintf("%s counts as its node, which no selector matches", end.name)}
	}
	pod := &e.pods[end.pod]
	var out []string
	if p.namespaces == nil {
		if pod.Namespace != namespace {
			out = append(out, fmt.Sprintf("%s is in namespace %s, not %s", end.name, pod.Namespace, namespace))
		}
	} else {
		out = labelMisses(p.namespaces, e.namespaces[pod.Namespace], "namespace "+pod.Namespace)
	}
	if p.pods != nil {
		out = append(out, labelMisses(p.pods, pod.Labels, string(end.name))...)
	}
	return out
}

func blockMiss(p *peer, end *party, family model.IPFamily) string {
	if familyOf(p.block) != family {
		return fmt.Sprintf("%s is %s, the connection %s", p.blockText(), familyOf(p.block), family)
	}
	for i, except := range p.except {
		if except.Contains(end.addr) {
			return fmt.Sprintf("address %s of %s is in the exception %s", end.addr, end.at, p.exceptText(i))
		}
	}
	return fmt.Sprintf("address %s of %s is outside %s", end.addr, end.at, p.blockText())
}

// labelMisses says which requirements of a selector a set of labels does not meet.
func labelMisses(s labels.Selector, have model.Labels, of string) (out []string) {
	requirements, _ := s.Requirements()
	for i := range requirements {
		r := &requirements[i]
		if r.Matches(labels.Set(have)) {
			continue
		}
		wanted := r.Values().List()
		value, has := have[r.Key()]
		switch op := r.Operator(); {
		case op == selection.Exists:
			out = append(out, fmt.Sprintf("%s has no label %s", of, r.Key()))
		case op == selection.DoesNotExist:
			out = append(out, fmt.Sprintf("%s has the label %s", of, r.Key()))
		case op == selection.NotIn:
			out = append(out, fmt.Sprintf("label %s of %s is %s, which is excluded", r.Key(), of, quoted(value)))
		case has && len(wanted) == 1:
			out = append(out, fmt.Sprintf("label %s of %s is %s, not %s", r.Key(), of, quoted(value), quoted(wanted[0])))
		case has:
			out = append(out, fmt.Sprintf("label %s of %s is %s, none of %s", r.Key(), of, quoted(value),
				strings.Join(wanted, ", ")))
		case len(wanted) == 1:
			out = append(out, fmt.Sprintf("%s has no label %s=%s", of, r.Key(), wanted[0]))
		default:
			out = append(out, fmt.Sprintf("%s has no label %s, wanted is one of %s", of, r.Key(), strings.Join(wanted, ", ")))
		}
	}
	return out
}

// quoted shows a label's value, which may be empty.
func quoted(value string) string {
	if value == "" {
		return `""`
	}
	return value
}

// portMiss says why none of a rule's ports matches.
func (e *Evaluator) portMiss(r *rule, h *half, onPod bool) string {
	c := &h.ports
	number := c.wire
	if onPod {
		number = c.onPod
	}
	if len(r.ports) == 1 && r.ports[0].name != "" {
		return e.namedPortMiss(r.ports[0], h)
	}
	have := fmt.Sprintf("port %d/%s", number, c.protocol)
	if !onPod && c.kind != exactPort {
		have = "the node port"
	}
	if len(r.ports) > 1 {
		var all []string
		for _, p := range r.ports {
			all = append(all, p.String())
		}
		return have + " is none of " + strings.Join(all, ", ")
	}
	switch p := r.ports[0]; {
	case p.protocol != c.protocol:
		return fmt.Sprintf("%s is not %s", c.protocol, p.protocol)
	case p.first != p.last:
		return fmt.Sprintf("%s is outside %s", have, p)
	default:
		return fmt.Sprintf("%s is not %s", have, p)
	}
}

func (e *Evaluator) namedPortMiss(p port, h *half) string {
	dest := h.name
	if h.direction == egress {
		dest = h.peer.name
	}
	switch {
	case h.ports.pod == none:
		return fmt.Sprintf("%s has no named ports, and %s is one", dest, p)
	case p.protocol != h.ports.protocol:
		return fmt.Sprintf("%s is not %s", h.ports.protocol, p.protocol)
	}
	for _, named := range e.pods[h.ports.pod].Ports {
		if named.Name == p.name && named.Protocol == p.protocol {
			return fmt.Sprintf("port %s of %s is %d, not %d", p.name, dest, named.Number, h.ports.onPod)
		}
	}
	return fmt.Sprintf("%s has no port named %s", dest, p)
}

// names lists policies in a sentence, the first three by name.
func names(policies []Policy) string {
	const most = 3
	var out []string
	for i, p := range policies {
		if i == most && len(policies) > most+1 {
			out = append(out, fmt.Sprintf("%d more", len(policies)-most))
			break
		}
		out = append(out, p.String())
	}
	return words.And(out)
}

func texts(list []assumption) string {
	var out []string
	for _, a := range list {
		out = append(out, a.text)
	}
	return words.And(out)
}

// Side explains in a line why one side, ingress or egress, lets a connection pass or not, whatever the other does.
func (d Decision) Side(side model.Side) string {
	if d.evaluator == nil || d.silent != "" {
		return plain.Text(d.silent)
	}
	w, ok := d.evaluator.first(d.scenes(), d.answerOf())
	if !ok {
		return ""
	}
	h := w.ingress
	if side == model.ByEgress {
		h = w.egress
	}
	result, by := d.evaluator.judge(h)
	text := ""
	switch {
	case h.subject == none:
		text = fmt.Sprintf("no policy applies to %s", h.name)
	case len(d.evaluator.subjectPolicies(h.direction, h.subject)) == 0:
		text = fmt.Sprintf("no policy isolates %s for %s", h.name, h.direction.side())
	case h.exempt != notExempt:
		text = exemptionText(h)
	case result == yes:
		text = fmt.Sprintf("%s admits %s", by, h.peer.name)
	default:
		text = d.evaluator.refusal(h)
	}
	return plain.Text(text)
}
