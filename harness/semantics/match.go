package semantics

import (
	"net/netip"

	"github.com/netproof/netproof/harness/model"
)

// answer is what one reading of the specification says. The order matters: of alternatives the greatest counts, of
// conditions the least.
type answer int

const (
	no answer = iota
	// unknown: it depends on an address that is not known yet.
	unknown
	yes
)

// party is one end of a connection, as policy sees it under one reading.
type party struct {
	// name is the endpoint for people, at is what the address belongs to: a service, where policy sees its address.
	name, at model.Endpoint
	// pod is the pod that selectors can match; none for nodes, hosts, and pods that are not told from their node.
	pod int
	// node is the node whose traffic this is; none for hosts and pods with a network of their own.
	node int
	// addr is what an IP block is held against; invalid as long as it is not known.
	addr netip.Addr
}

// nodePortFirst and nodePortLast are the range that node ports are allocated from unless the API server has the flag
// for otherwise: Services page, "type: NodePort".
const (
	nodePortFirst = 30000
	nodePortLast  = 32767
)

// wirePort is the kind of port number that a packet carries where policy looks at it.
type wirePort int

const (
	// exactPort: the number is known.
	exactPort wirePort = iota
	// listedNodePort: an allocated node port that every rule about node ports lists.
	listedNodePort
	// unlistedNodePort: an allocated node port that no rule lists by number, unless it lists them all.
	unlistedNodePort
)

// ports is the port of a connection, as policy sees it under one reading.
type ports struct {
	protocol model.Protocol
	family   model.IPFamily
	// pod is the pod whose port names count; none when the destination is not a pod.
	pod int
	// onPod is the number of the port on the pod. Selectors and names speak of it: "a numerical or named port on a
	// pod", NetworkPolicyPort.port.
	onPod int
	// wire is the number in the packet; the same as onPod unless policy sees the packet before a service rewrites it.
	wire int
	kind wirePort
}

// exemption is a connection that policy cannot cut.
type exemption int

const (
	notExempt exemption = iota
	// toItself: "a pod cannot block access to itself".
	toItself
	// ownNode: "traffic to and from the node where a Pod is running is always allowed, regardless of the IP address of
	// the Pod or the node".
	ownNode
)

// half is one side of a connection under one reading: a pod whose policies count, and what they see.
type half struct {
	direction direction
	// subject is the pod; none when no policy counts on this side.
	subject int
	// name is the subject's, also when it is not a pod or does not count as one.
	name   model.Endpoint
	peer   party
	ports  ports
	exempt exemption
	// assume is what this reading takes for granted; empty when there is only one.
	assume []assumption
}

// judge evaluates one side. by is the first rule that admits; it has no policy if none does, or none is needed.
func (e *Evaluator) judge(h *half) (result answer, by Rule) {
	policies := e.subjectPolicies(h.direction, h.subject)
	// "By default, a pod is non-isolated": concept page, "The two sorts of pod isolation".
	if len(policies) == 0 || h.exempt != notExempt {
		return yes, Rule{}
	}
	result = no
	for _, p := range policies {
		for i := range p.rules[h.direction] {
			r := &p.rules[h.direction][i]
			switch e.admits(r, h) {
			case yes:
				// "The effects of those lists combine additively": one is enough.
				return yes, Rule{Policy: p.Policy, Field: r.field}
			case unknown:
				result = unknown
			case no:
			}
		}
	}
	return result, Rule{}
}

// admits tells whether a rule matches: "each rule allows traffic which matches both the from and ports sections". An
// empty list is an absent one, and matches all: NetworkPolicyIngressRule.from, .ports.
func (e *Evaluator) admits(r *rule, h *half) answer {
	if len(r.peers) == 0 {
		return e.admitsPort(r, h, false)
	}
	result := no
	for i := range r.peers {
		matched := r.peers[i].admits(&h.peer, h.ports.family)
		if matched == no {
			continue
		}
		result = max(result, min(matched, e.admitsPort(r, h, !r.peers[i].isBlock())))
	}
	return result
}

func (e *Evaluator) admitsPort(r *rule, h *half, onPod bool) answer {
	if len(r.ports) == 0 {
		return yes
	}
	for i := range r.ports {
		if e.portMatches(r.ports[i], &h.ports, onPod) {
			return yes
		}
	}
	return no
}

func (e *Evaluator) portMatches(p port, c *ports, onPod bool) bool {
	if p.protocol != c.protocol {
		return false
	}
	if p.name != "" {
		// A name is a name of the destination pod's ports, for egress as for ingress; only a pod has names to give.
		if c.pod == none {
			return false
		}
		for _, named := range e.pods[c.pod].Ports {
			if named.Name == p.name && named.Protocol == p.protocol && named.Number == c.onPod {
				return true
			}
		}
		return false
	}
	if onPod || c.kind == exactPort {
		number := c.wire
		if onPod {
			number = c.onPod
		}
		return p.first <= number && number <= p.last
	}
	if c.kind == listedNodePort {
		return p.first <= nodePortLast && nodePortFirst <= p.last
	}
	return p.first <= nodePortFirst && nodePortLast <= p.last
}

// admits tells whether a peer of a rule matches one end of a connection.
func (p *peer) admits(end *party, family model.IPFamily) answer {
	if !p.isBlock() {
		if end.pod != none && p.matches.has(end.pod) {
			return yes
		}
		return no
	}
	// The address decides, whoever has it: the concept page would rather see cluster-external addresses in a block
	// because pod IPs are unpredictable, but the end-to-end tests hold plugins to matching a pod's IP.
	if familyOf(p.block) != family {
		return no
	}
	if p.block.Bits() == 0 && len(p.except) == 0 {
		return yes
	}
	if !end.addr.IsValid() {
		return unknown
	}
	if !p.block.Contains(end.addr) {
		return no
	}
	for _, except := range p.except {
		if except.Contains(end.addr) {
			return no
		}
	}
	return yes
}

func familyOf(p netip.Prefix) model.IPFamily { return model.FamilyOf(p.Addr()) }
