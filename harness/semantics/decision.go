package semantics

import (
	"fmt"
	"slices"
	"strings"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/plain"
)

// Decision is what the specification says about one connection.
type Decision struct {
	Connection model.Connection
	// Verdict is Allow, Deny or Undefined.
	Verdict model.Verdict
	// By tells which sides refuse a connection that is denied; empty for all others, and when some readings put the
	// refusal on one side and some on the other.
	By model.Side
	// NeedsAddresses is true when the verdict depends on an address that is not known yet. It is then Undefined for
	// now: an evaluator that knows the addresses may say otherwise.
	NeedsAddresses bool
	Egress         SideDecision
	Ingress        SideDecision

	evaluator *Evaluator
	// silent says why the specification has nothing to say, if it has not.
	silent string
}

// SideDecision is what the policies on one side of a connection say about it.
type SideDecision struct {
	// Verdict is Allow, Deny or Undefined. A side without a pod, or whose pod is not isolated, allows.
	Verdict        model.Verdict
	NeedsAddresses bool
	// Isolating are the policies that isolate the pod for this direction, ordered by namespace and name.
	Isolating []Policy
	// Admitting are rules that admit the connection: the first of the first such policy, for each reading.
	Admitting []Rule
}

// possible is the set of answers that the readings give.
type possible uint8

func (p possible) has(a answer) bool { return p&(1<<a) != 0 }

func (p *possible) add(a answer) { *p |= 1 << a }

// verdict reduces the answers of all readings. Allowed in some and denied in others is undefined whatever the missing
// addresses turn out to be.
func (p possible) verdict() (v model.Verdict, needsAddresses bool) {
	switch {
	case p.has(yes) && p.has(no):
		return model.Undefined, false
	case p.has(unknown):
		return model.Undefined, true
	case p.has(yes):
		return model.Allow, false
	default:
		return model.Deny, false
	}
}

// Decide tells what must become of a connection. With [model.ViaService] and [model.ViaNodePort] the destination is a
// service and the port is the service's.
//
// A connection is allowed or denied as a whole, reply traffic included: "Reply traffic for those allowed connections
// will also be implicitly allowed", concept page, "The two sorts of pod isolation". Whether the destination serves the
// port is not asked.
//
// The error says why there is no such connection: an end that is not in the topology, a service without the port, an
// end without an address of the family.
func (e *Evaluator) Decide(c model.Connection) (Decision, error) {
	c, err := checked(c)
	if err != nil {
		return Decision{}, err
	}
	scenes, silent, err := e.scenes(c)
	if err != nil {
		return Decision{}, fmt.Errorf("decide %s: %w", c, err)
	}
	d := Decision{Connection: c, evaluator: e, silent: silent}
	if silent != "" {
		d.Verdict = model.Undefined
		d.Egress.Verdict, d.Ingress.Verdict = model.Undefined, model.Undefined
		return d, nil
	}
	var whole, out, in possible
	for i := range scenes {
		s := &scenes[i]
		egressAnswers := e.judgeAll(s.egress, &d.Egress)
		ingressAnswers := e.judgeAll(s.ingress, &d.Ingress)
		out |= egressAnswers
		in |= ingressAnswers
		whole |= both(egressAnswers, ingressAnswers)
	}
	d.Verdict, d.NeedsAddresses = whole.verdict()
	d.Egress.Verdict, d.Egress.NeedsAddresses = out.verdict()
	d.Ingress.Verdict, d.Ingress.NeedsAddresses = in.verdict()
	if d.Verdict == model.Deny {
		d.By = refusers(d.Egress.Verdict, d.Ingress.Verdict)
	}
	return d, nil
}

// checked fills in the way and refuses what no connection can be.
func checked(c model.Connection) (model.Connection, error) {
	if c.Via == "" {
		c.Via = model.ViaPodIP
	}
	switch c.Via {
	case model.ViaPodIP, model.ViaService, model.ViaNodePort:
	default:
		return c, fmt.Errorf("decide %s: %q is no way to a destination", c, c.Via)
	}
	switch c.Protocol {
	case model.TCP, model.UDP, model.SCTP:
	default:
		// "For all the other protocols, the behaviour may vary across network plugins": concept page, "Network traffic
		// filtering".
		return c, fmt.Errorf("decide %s: %q is none of TCP, UDP, SCTP", c, c.Protocol)
	}
	switch c.IPFamily {
	case model.IPv4, model.IPv6:
	default:
		return c, fmt.Errorf("decide %s: %q is neither IPv4 nor IPv6", c, c.IPFamily)
	}
	if c.Port < 1 || c.Port > maxPort {
		return c, fmt.Errorf("decide %s: port %d is not between 1 and %d", c, c.Port, maxPort)
	}
	return c, nil
}

// judgeAll evaluates the readings of one side and notes the policies and rules that count.
func (e *Evaluator) judgeAll(halves []half, side *SideDecision) (answers possible) {
	for i := range halves {
		h := &halves[i]
		result, by := e.judge(h)
		answers.add(result)
		if by.Policy.Object != nil {
			side.admit(by)
		}
		if h.subject != none {
			side.isolate(e.isolatingPolicies[h.direction][h.subject])
		}
	}
	return answers
}

func (s *SideDecision) admit(r Rule) {
	if !slices.Contains(s.Admitting, r) {
		s.Admitting = append(s.Admitting, r)
	}
}

func (s *SideDecision) isolate(policies []Policy) {
	if len(s.Isolating) == 0 {
		s.Isolating = policies[:len(policies):len(policies)]
		return
	}
	for _, p := range policies {
		if !slices.Contains(s.Isolating, p) {
			// The first append copies what the evaluator shares, so that it may be ordered anew.
			s.Isolating = append(s.Isolating, p)
			slices.SortFunc(s.Isolating, comparePolicies)
		}
	}
}

// both combines the answers of the two sides: "both the egress policy on the source pod and the ingress policy on the
// destination pod need to allow the connection".
func both(a, b possible) (out possible) {
	for _, x := range []answer{no, unknown, yes} {
		for _, y := range []answer{no, unknown, yes} {
			if a.has(x) && b.has(y) {
				out.add(min(x, y))
			}
		}
	}
	return out
}

func refusers(egress, ingress model.Verdict) model.Side {
	switch {
	case egress == model.Deny && ingress == model.Deny:
		return model.ByBoth
	case egress == model.Deny:
		return model.ByEgress
	case ingress == model.Deny:
		return model.ByIngress
	default:
		return ""
	}
}

// Cause names what makes the verdict: the rules that admit a connection that is allowed, the policies that isolate on a
// side that refuses one. Connections that share it have one reason.
func (d Decision) Cause() string {
	var parts []string
	for _, side := range []*SideDecision{&d.Egress, &d.Ingress} {
		switch {
		case d.Verdict == model.Allow:
			for _, r := range side.Admitting {
				parts = append(parts, r.String())
			}
		case side.Verdict == d.Verdict:
			parts = append(parts, names(side.Isolating))
		default:
			parts = append(parts, "")
		}
	}
	if text := plain.Text(strings.Join(parts, "; ")); text != "; " {
		return text
	}
	return ""
}

// DecidingPolicies returns the policies that a reader should look at first: those that isolate on a side that refuses,
// those that admit where both sides allow, those that isolate where the verdict is undefined. It is empty when no
// policy touches the connection.
func (d Decision) DecidingPolicies() []Policy {
	var out []Policy
	add := func(policies ...Policy) {
		for _, p := range policies {
			if !slices.Contains(out, p) {
				out = append(out, p)
			}
		}
	}
	for _, side := range []*SideDecision{&d.Egress, &d.Ingress} {
		switch {
		case d.Verdict == model.Allow:
			for _, r := range side.Admitting {
				add(r.Policy)
			}
		case side.Verdict == d.Verdict || d.Verdict == model.Deny && d.By == "":
			add(side.Isolating...)
		}
	}
	slices.SortFunc(out, comparePolicies)
	return out
}
