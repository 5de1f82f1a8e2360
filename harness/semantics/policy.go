package semantics

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/netproof/netproof/harness/model"
)

// Policy is a NetworkPolicy and where it was read.
type Policy struct {
	Object *networkingv1.NetworkPolicy
	// Source is file and line, such as deny.yaml:3; may be empty.
	Source string
	// Written is Object as its author wrote it, for the texts of explanations: networks that stand for addresses which
	// are not known yet are named by what was written. It has the same rules and peers. Nil if Object says it all.
	Written *networkingv1.NetworkPolicy
	// Lines tells where the rules stand; nil if that is not known.
	Lines *Lines
}

// Lines are the places of the rules of a policy.
type Lines struct {
	// Of has file and line, such as web.yaml:19, by the field: ingress[0], or ingress[0].from[1].
	Of map[string]string
}

// line is where a field of the policy stands, or "".
func (p Policy) line(field string) string {
	if p.Lines == nil {
		return ""
	}
	return p.Lines.Of[field]
}

// at is a field of the policy with its line: ingress[0] (web.yaml:19).
func (p Policy) at(field string) string {
	if line := p.line(field); line != "" {
		return field + " (" + line + ")"
	}
	return field
}

// String names the policy and its source: x/deny (deny.yaml:3).
func (p Policy) String() string {
	if p.Source == "" {
		return p.key()
	}
	return p.key() + " (" + p.Source + ")"
}

func (p Policy) key() string {
	if p.Object == nil {
		return "<nil>"
	}
	return p.Object.Namespace + "/" + p.Object.Name
}

// Rule is one rule of a policy.
type Rule struct {
	Policy Policy
	// Field is where in the policy's spec it stands: ingress[0].
	Field string
}

// String names the rule by its own line, or by that of its policy: x/web ingress[0] (web.yaml:19).
func (r Rule) String() string {
	if r.Policy.line(r.Field) != "" {
		return r.Policy.key() + " " + r.Policy.at(r.Field)
	}
	return r.Policy.String() + " " + r.Field
}

// PolicyError says which field cannot be evaluated, and the policy that it is in. The API server refuses such a policy.
type PolicyError struct {
	Policy Policy
	// Field is the path of the field: spec.ingress[0].from[1].ipBlock.cidr.
	Field string
	Err   error
}

func (e *PolicyError) Error() string {
	return fmt.Sprintf("evaluate policy %s: %s: %v", e.Policy, e.Field, e.Err)
}

func (e *PolicyError) Unwrap() error { return e.Err }

// direction indexes what a policy says for one side of a connection.
type direction int

const (
	ingress direction = iota
	egress
)

func (d direction) side() model.Side {
	if d == ingress {
		return model.ByIngress
	}
	return model.ByEgress
}

// peersField is the name of the list of peers in a rule of this direction.
func (d direction) peersField() string {
	if d == ingress {
		return "from"
	}
	return "to"
}

// compiled is a policy made ready for evaluation.
type compiled struct {
	Policy
	selector labels.Selector
	selects  podSet
	applies  [2]bool
	rules    [2][]rule
}

type rule struct {
	// field is where the rule stands in the spec: ingress[0].
	field string
	// peers is empty when the rule matches every peer, as ports is when it matches every port.
	peers []peer
	ports []port
}

// peer is either a pair of selectors or an IP block.
type peer struct {
	pods       labels.Selector // nil when the field is absent
	namespaces labels.Selector // nil when the field is absent
	matches    podSet

	block  netip.Prefix // invalid unless the peer is an IP block
	except []netip.Prefix
	// written is the block as messages show it; nil for its networks.
	written *networkingv1.IPBlock
}

func (p *peer) isBlock() bool { return p.block.IsValid() }

// blockText is the block's network as messages show it.
func (p *peer) blockText() string {
	if p.written != nil {
		return p.written.CIDR
	}
	return p.block.String()
}

// exceptText is an exception as messages show it.
func (p *peer) exceptText(i int) string {
	if p.written != nil && i < len(p.written.Except) {
		return p.written.Except[i]
	}
	return p.except[i].String()
}

type port struct {
	protocol model.Protocol
	name     string // empty for a number, a range, or every port
	// first to last are the numbers, inclusive; 1 to 65535 when the port field is absent.
	first, last int
}

// everyPort tells whether the port field is absent, so that each port of the protocol matches.
func (p port) everyPort() bool { return p.name == "" && p.first == 1 && p.last == maxPort }

const maxPort = 65535

func (p port) String() string {
	switch {
	case p.name != "":
		return p.name + "/" + string(p.protocol)
	case p.everyPort():
		return "every " + string(p.protocol) + " port"
	case p.first == p.last:
		return strconv.Itoa(p.first) + "/" + string(p.protocol)
	default:
		return fmt.Sprintf("%d-%d/%s", p.first, p.last, p.protocol)
	}
}

// compiler turns policies into what is evaluated, with the topology's pods behind each selector.
type compiler struct {
	evaluator *Evaluator
	// sets keeps the pods behind selectors that were seen before: policies tend to repeat theirs.
	sets map[setKey]podSet
	// index finds the pods that a selector may match; made when it is first asked.
	index *podIndex
}

type setKey struct{ namespace, namespaces, pods string }

func (c *compiler) compile(p Policy) (*compiled, error) {
	if p.Object == nil {
		return nil, &PolicyError{Policy: p, Field: "policy", Err: errors.New("no object")}
	}
	fail := func(field string, err error) error { return &PolicyError{Policy: p, Field: field, Err: err} }
	if p.Object.Name == "" {
		return nil, fail("metadata.name", errors.New("empty"))
	}
	if p.Object.Namespace == "" {
		return nil, fail("metadata.namespace", errors.New("empty"))
	}
	spec := &p.Object.Spec
	out := &compiled{Policy: p}
	var err error
	// "An empty podSelector selects all pods in the namespace": concept page, "The NetworkPolicy resource".
	if out.selector, err = metav1.LabelSelectorAsSelector(&spec.PodSelector); err != nil {
		return nil, fail("spec.podSelector", err)
	}
	out.selects = c.set(p.Object.Namespace, nil, out.selector)
	if out.applies, err = policyTypes(spec); err != nil {
		return nil, fail("spec.policyTypes", err)
	}
	// Rules of a direction that the policy does not apply to have no effect, but must be valid all the same.
	for i := range spec.Ingress {
		r, where, err := c.rule(p.Object.Namespace, ingress, i, spec.Ingress[i].From, spec.Ingress[i].Ports)
		if err != nil {
			return nil, fail("spec."+r.field+"."+where, err)
		}
		out.rules[ingress] = append(out.rules[ingress], r)
	}
	for i := range spec.Egress {
		r, where, err := c.rule(p.Object.Namespace, egress, i, spec.Egress[i].To, spec.Egress[i].Ports)
		if err != nil {
			return nil, fail("spec."+r.field+"."+where, err)
		}
		out.rules[egress] = append(out.rules[egress], r)
	}
	if p.Written != nil {
		for i, r := range p.Written.Spec.Ingress {
			out.tellAsWritten(ingress, i, r.From)
		}
		for i, r := range p.Written.Spec.Egress {
			out.tellAsWritten(egress, i, r.To)
		}
	}
	return out, nil
}

// tellAsWritten takes the texts of a rule's blocks from what was written.
func (p *compiled) tellAsWritten(d direction, index int, peers []networkingv1.NetworkPolicyPeer) {
	if index >= len(p.rules[d]) || len(peers) != len(p.rules[d][index].peers) {
		return
	}
	for i := range peers {
		p.rules[d][index].peers[i].written = peers[i].IPBlock
	}
}

// policyTypes tells which directions a policy applies to. "If no policyTypes are specified on a NetworkPolicy then by
// default Ingress will always be set and Egress will be set if the NetworkPolicy has any egress rules": concept page,
// "The NetworkPolicy resource". An empty list is not a list: the API server's defaulting looks at its length.
func policyTypes(spec *networkingv1.NetworkPolicySpec) (applies [2]bool, err error) {
	if len(spec.PolicyTypes) == 0 {
		return [2]bool{ingress: true, egress: len(spec.Egress) > 0}, nil
	}
	for _, t := range spec.PolicyTypes {
		switch t {
		case networkingv1.PolicyTypeIngress:
			applies[ingress] = true
		case networkingv1.PolicyTypeEgress:
			applies[egress] = true
		default:
			return applies, fmt.Errorf("%q is neither Ingress nor Egress", t)
		}
	}
	return applies, nil
}

// rule compiles one rule; where is the field below the rule that err is about.
func (c *compiler) rule(namespace string, d direction, index int, peers []networkingv1.NetworkPolicyPeer,
	ports []networkingv1.NetworkPolicyPort,
) (out rule, where string, err error) {
	out.field = fmt.Sprintf("%s[%d]", d.side(), index)
	for i := range peers {
		p, sub, err := c.peer(namespace, &peers[i])
		if err != nil {
			return out, fmt.Sprintf("%s[%d]%s", d.peersField(), i, sub), err
		}
		out.peers = append(out.peers, p)
	}
	for i := range ports {
		p, sub, err := compilePort(&ports[i])
		if err != nil {
			return out, fmt.Sprintf("ports[%d]%s", i, sub), err
		}
		out.ports = append(out.ports, p)
	}
	return out, "", nil
}

func (c *compiler) peer(namespace string, in *networkingv1.NetworkPolicyPeer) (out peer, where string, err error) {
	if in.IPBlock != nil {
		// "If this field is set then neither of the other fields can be": NetworkPolicyPeer.ipBlock.
		if in.PodSelector != nil || in.NamespaceSelector != nil {
			return out, "", errors.New("ipBlock stands beside a selector")
		}
		return compileBlock(in.IPBlock)
	}
	if in.PodSelector == nil && in.NamespaceSelector == nil {
		return out, "", errors.New("neither podSelector nor namespaceSelector nor ipBlock")
	}
	// Here nil and empty differ: an absent selector restricts nothing by itself but decides which namespace is meant,
	// an empty one selects everything.
	if in.PodSelector != nil {
		if out.pods, err = metav1.LabelSelectorAsSelector(in.PodSelector); err != nil {
			return out, ".podSelector", err
		}
	}
	if in.NamespaceSelector != nil {
		if out.namespaces, err = metav1.LabelSelectorAsSelector(in.NamespaceSelector); err != nil {
			return out, ".namespaceSelector", err
		}
	}
	out.matches = c.set(namespace, out.namespaces, out.pods)
	return out, "", nil
}

// set returns the pods behind a pair of selectors. Without a namespace selector they are those of the policy's own
// namespace, without a pod selector all of the selected namespaces: NetworkPolicyPeer in the API reference.
func (c *compiler) set(namespace string, namespaces, pods labels.Selector) podSet {
	key := setKey{namespace: namespace, pods: selectorKey(pods)}
	if namespaces != nil {
		key = setKey{namespaces: selectorKey(namespaces), pods: key.pods}
	}
	if set, ok := c.sets[key]; ok {
		return set
	}
	e := c.evaluator
	if c.index == nil {
		c.index = indexPods(e.pods)
	}
	set := newPodSet(len(e.pods))
	if namespaces == nil {
		c.index.add(set, e.pods, []string{namespace}, pods)
	} else {
		var names []string
		for name, l := range e.namespaces {
			if namespaces.Matches(labels.Set(l)) {
				names = append(names, name)
			}
		}
		c.index.add(set, e.pods, names, pods)
	}
	c.sets[key] = set
	return set
}

// selectorKey tells an absent selector from an empty one, which prints as nothing.
func selectorKey(s labels.Selector) string {
	if s == nil {
		return "absent"
	}
	return "selector " + s.String()
}

func compileBlock(in *networkingv1.IPBlock) (out peer, where string, err error) {
	if out.block, err = parsePrefix(in.CIDR); err != nil {
		return out, ".ipBlock.cidr", err
	}
	for i, s := range in.Except {
		except, err := parsePrefix(s)
		if err == nil && (except.Bits() <= out.block.Bits() || !out.block.Contains(except.Addr())) {
			// "Except values will be rejected if they are outside the cidr range": IPBlock.except.
			err = fmt.Errorf("%s is not a part of %s", s, in.CIDR)
		}
		if err != nil {
			return out, fmt.Sprintf(".ipBlock.except[%d]", i), err
		}
		out.except = append(out.except, except)
	}
	return out, "", nil
}

// parsePrefix reads a CIDR. Bits beyond the prefix are ignored, as the API server ignores them in existing objects, and
// an IPv4 network written as IPv6 is the IPv4 network.
func parsePrefix(s string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not a CIDR such as 192.168.1.0/24 or 2001:db8::/64", s)
	}
	if prefix.Addr().Is4In6() && prefix.Bits() >= 96 {
		prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96)
	}
	return prefix.Masked(), nil
}

func compilePort(in *networkingv1.NetworkPolicyPort) (out port, where string, err error) {
	out = port{protocol: model.TCP, first: 1, last: maxPort}
	if in.Protocol != nil {
		out.protocol = model.Protocol(*in.Protocol)
		if !slices.Contains([]model.Protocol{model.TCP, model.UDP, model.SCTP}, out.protocol) {
			return out, ".protocol", fmt.Errorf("%q is none of TCP, UDP, SCTP", *in.Protocol)
		}
	}
	switch {
	case in.Port == nil && in.EndPort != nil:
		return out, ".endPort", errors.New("set without port")
	case in.Port == nil:
		return out, "", nil
	case in.Port.Type == intstr.String && in.Port.StrVal == "":
		return out, ".port", errors.New("empty name")
	case in.Port.Type == intstr.String && in.EndPort != nil:
		return out, ".endPort", errors.New("set for a named port")
	case in.Port.Type == intstr.String:
		out.name = in.Port.StrVal
		return out, "", nil
	}
	out.first, out.last = int(in.Port.IntVal), int(in.Port.IntVal)
	if out.first < 1 || out.first > maxPort {
		return out, ".port", fmt.Errorf("%d is not between 1 and %d", out.first, maxPort)
	}
	if in.EndPort != nil {
		// KEP-2079, "Validations": endPort is equal to or bigger than port, and a port itself.
		out.last = int(*in.EndPort)
		if out.last < out.first || out.last > maxPort {
			return out, ".endPort", fmt.Errorf("%d is not between port %d and %d", out.last, out.first, maxPort)
		}
	}
	return out, "", nil
}
