package semantics

import (
	"fmt"
	"net/netip"

	"github.com/netproof/netproof/harness/model"
)

// dimension is a point at which the specification, or the connection, leaves a choice.
type dimension int

const (
	// whichBackend: a service picks one of its pods.
	whichBackend dimension = iota
	// hostNetworkPods: concept page, "NetworkPolicy and hostNetwork pods": the plugin tells such pods apart and treats
	// them like all pods, or it does not and they are their node.
	hostNetworkPods
	// whichEntry: the node whose node port, or whose service proxy, a connection enters through.
	whichEntry
	// destinationSeen: concept page, "Behavior of to and from selectors": where the destination IP is rewritten, "it is
	// not defined whether this happens before or after NetworkPolicy processing".
	destinationSeen
	// nodePortNumber: which node port was allocated.
	nodePortNumber
	// sourceSeen: the same section: "the source IP that the NetworkPolicy acts on may be the IP of a LoadBalancer or of
	// the Pod's node, etc."
	sourceSeen
	// sourceAddress: a node has several addresses of a family, and the specification does not tell which it sends from.
	sourceAddress
	// toOwnNode: the concept page's overview says that traffic "to and from" the node of a pod is always allowed, its
	// section "The two sorts of pod isolation" and NetworkPolicySpec.egress exempt only traffic from it. The
	// contradiction is raised in kubernetes-sigs/kube-network-policies issue 283.
	toOwnNode
	// toItselfByService: "a pod cannot block access to itself", but whether that holds through a service is
	// implementation-defined: kubernetes-sigs/network-policy-api issue 343, kubernetes/kubernetes issue 95879.
	toItselfByService
)

// assumption is what one reading takes for granted at a point that is left open.
type assumption struct {
	dimension dimension
	text      string
}

// Texts that are said of more than one case.
const (
	hostNetworkAsPods  = "the network plugin tells hostNetwork pods from their node"
	hostNetworkAsNodes = "the network plugin takes hostNetwork pods for their node"
	hairpinExempt      = "a pod that reaches itself through a service is exempt"
	hairpinNotExempt   = "a pod that reaches itself through a service is not exempt"
)

// scene is a connection with everything settled that both sides depend on. The sides have further readings each, which
// are independent of one another: the connection is allowed if some egress reading and some ingress reading allow it.
type scene struct {
	assume  []assumption
	egress  []half
	ingress []half
}

// end is one end of a connection as the topology has it.
type end struct {
	name model.Endpoint
	pod  int
	// node is the node's index, or that of the pod's node; none for hosts.
	node int
	// shared is true for nodes and hostNetwork pods: the address is the node's.
	shared bool
	// addr is what a client dials; invalid as long as it is not known.
	addr netip.Addr
}

// locate finds an endpoint that is not a service.
func (e *Evaluator) locate(name model.Endpoint, family model.IPFamily) (end, error) {
	if host, ok := e.hosts[name]; ok {
		addr, err := pick(name, host.Addresses, family)
		return end{name: name, pod: none, node: none, addr: addr}, err
	}
	if name.IsNode() {
		index, ok := name.NodeIndex()
		if ok && len(e.nodes) > 0 {
			_, ok = e.nodes[index]
		}
		if !ok {
			return end{}, fmt.Errorf("there is no node %s", name)
		}
		out := end{name: name, pod: none, node: index, shared: true}
		if node, ok := e.nodes[index]; ok {
			var err error
			if out.addr, err = pick(name, node.Addresses, family); err != nil {
				return end{}, err
			}
		}
		return out, nil
	}
	index, ok := e.podIndex[name]
	if !ok {
		if name.IsHost() {
			return end{}, fmt.Errorf("there is no host %s", name)
		}
		return end{}, fmt.Errorf("there is no pod %s", name)
	}
	pod := &e.pods[index]
	out := end{name: name, pod: index, node: pod.Node, shared: pod.HostNetwork}
	addrs := pod.Addresses
	if node, ok := e.nodes[pod.Node]; ok && pod.HostNetwork && len(addrs) == 0 {
		addrs = node.Addresses
	}
	var err error
	out.addr, err = pick(name, addrs, family)
	return out, err
}

// pick returns the address of a family, the zero address if none is known yet, and an error if addresses are known but
// none is of the family: then there is no such connection.
func pick(name model.Endpoint, addrs []netip.Addr, family model.IPFamily) (netip.Addr, error) {
	if len(addrs) == 0 {
		return netip.Addr{}, nil
	}
	addr, ok := model.AddressOf(addrs, family)
	if !ok {
		return netip.Addr{}, fmt.Errorf("%s has no %s address", name, family)
	}
	return addr.Unmap(), nil
}

// backend is a pod that may answer a connection, and the port it answers on.
type backend struct {
	end
	port int
}

// backends resolves the destination of a connection. reason is set when a service has no pod to answer.
func (e *Evaluator) backends(c model.Connection) (out []backend, service *model.Service, reason string, err error) {
	if c.Via == model.ViaPodIP {
		to, err := e.locate(c.To, c.IPFamily)
		return []backend{{end: to, port: c.Port}}, nil, "", err
	}
	service, ok := e.services[c.To]
	if !ok {
		return nil, nil, "", fmt.Errorf("there is no service %s", c.To)
	}
	if _, err := pick(c.To, service.Addresses, c.IPFamily); err != nil {
		return nil, nil, "", err
	}
	var sp *model.ServicePort
	for i := range service.Ports {
		if p := service.Ports[i].Port; p.Number == c.Port && p.Protocol == c.Protocol {
			sp = &service.Ports[i]
		}
	}
	if sp == nil {
		return nil, nil, "", fmt.Errorf("service %s has no port %d/%s", c.To, c.Port, c.Protocol)
	}
	if len(service.Selector) == 0 {
		return nil, service, fmt.Sprintf("service %s has no selector: its endpoints are not known here", c.To), nil
	}
	for i := range e.pods {
		pod := &e.pods[i]
		if !service.Selects(pod) {
			continue
		}
		number, ok := sp.On(pod)
		if !ok {
			continue
		}
		to, err := e.locate(pod.Endpoint(), c.IPFamily)
		if err != nil {
			// A pod without an address of the family is not among the service's endpoints of that family.
			continue
		}
		out = append(out, backend{end: to, port: number})
	}
	if len(out) == 0 {
		reason = fmt.Sprintf("service %s has no endpoint for %d/%s: no pod matches its selector and serves the port",
			c.To, c.Port, c.Protocol)
	}
	return out, service, reason, nil
}

// stage is what the scenes of a connection are made from.
type stage struct {
	evaluator *Evaluator
	conn      model.Connection
	from      end
	service   *model.Service
}

// scenes lists the readings of a connection. Without a service, a hostNetwork pod or a node among its ends there is
// one. reason is set, and there are no scenes, when the specification has nothing to say.
func (e *Evaluator) scenes(c model.Connection) (out []scene, reason string, err error) {
	from, err := e.locate(c.From, c.IPFamily)
	if err != nil {
		return nil, "", err
	}
	backends, service, reason, err := e.backends(c)
	if err != nil || reason != "" {
		return nil, reason, err
	}
	s := &stage{evaluator: e, conn: c, from: from, service: service}
	// Where the source may be rewritten, it is to the node that the connection enters through. "Packets sent to
	// Services with Type=NodePort are source NAT'd by default", "packets sent to ClusterIP from within the cluster are
	// never source NAT'd": tutorial "Using Source IP".
	entries := []int{none}
	if c.Via == model.ViaNodePort || (c.Via == model.ViaService && from.node == none) {
		entries = e.nodeIndexes
	}
	for i := range backends {
		var assume []assumption
		if len(backends) > 1 {
			assume = []assumption{{whichBackend, "the service picks " + string(backends[i].name)}}
		}
		for _, entry := range entries {
			assume := assume
			if len(entries) > 1 {
				assume = with(assume, assumption{whichEntry, "the connection enters at " + string(model.NodeEndpoint(entry))})
			}
			out = append(out, s.towards(&backends[i], entry, assume)...)
		}
	}
	return out, "", nil
}

// towards lists the scenes of a connection to one pod, node or host.
func (s *stage) towards(to *backend, entry int, assume []assumption) (out []scene) {
	sharing := (s.from.pod != none && s.from.shared) || (to.pod != none && to.shared)
	itself := s.from.pod != none && s.from.pod == to.pod
	for _, kind := range choices(sharing, hostNetworkPods, hostNetworkAsPods, hostNetworkAsNodes) {
		for _, hairpin := range choices(itself && s.service != nil, toItselfByService, hairpinExempt, hairpinNotExempt) {
			next := s.scene(to, kind.text == hostNetworkAsNodes, entry, itself && hairpin.text != hairpinNotExempt)
			next.assume = assume
			for _, a := range []assumption{kind, hairpin} {
				if a.text != "" {
					next.assume = with(next.assume, a)
				}
			}
			out = append(out, next)
		}
	}
	return out
}

// choices are the two that a dimension offers, or one without a text if it is not open.
func choices(open bool, d dimension, texts ...string) (out []assumption) {
	if !open {
		return []assumption{{dimension: d}}
	}
	for _, text := range texts {
		out = append(out, assumption{d, text})
	}
	return out
}

// scene settles which pod answers, what hostNetwork pods count as, where the connection enters, and whether it is
// exempt as one of a pod to itself.
func (s *stage) scene(to *backend, asNodes bool, entry int, itself bool) scene {
	fromPod, toPod := s.from.pod, to.pod
	if asNodes && s.from.shared {
		fromPod = none
	}
	if asNodes && to.shared {
		toPod = none
	}
	return scene{
		egress:  s.egress(to, fromPod, toPod, entry, itself),
		ingress: s.ingress(to, fromPod, toPod, entry, itself),
	}
}

// party describes an end under a reading: what it counts as, and with which address.
func (n *end) party(pod int, addr netip.Addr) party {
	p := party{name: n.name, at: n.name, pod: pod, node: none, addr: addr}
	if n.shared {
		p.node = n.node
	}
	return p
}

// isolated tells whether anything can depend on how this side is read.
func (s *stage) isolated(d direction, pod int) bool {
	return len(s.evaluator.subjectPolicies(d, pod)) > 0
}

// egress lists what the source's policies may see.
func (s *stage) egress(to *backend, fromPod, toPod, entry int, itself bool) []half {
	after := half{
		direction: egress, subject: fromPod, name: s.from.name,
		peer: to.party(toPod, to.addr),
		ports: ports{
			protocol: s.conn.Protocol, family: s.conn.IPFamily,
			pod: toPod, onPod: to.port, wire: to.port,
		},
	}
	if !s.isolated(egress, fromPod) {
		return []half{after}
	}
	if itself {
		after.exempt = toItself
		return []half{after}
	}
	if s.service == nil {
		return s.ownNode(after)
	}
	after.assume = []assumption{{destinationSeen, "policy sees the pod behind the service"}}
	out := s.ownNode(after)
	before := after
	before.peer.node = none
	before.ports.wire = s.conn.Port
	if s.conn.Via == model.ViaService {
		before.peer.at = s.conn.To
		before.peer.addr, _ = pick(s.conn.To, s.service.Addresses, s.conn.IPFamily)
		before.assume = []assumption{{destinationSeen, "policy sees the address of the service"}}
		out = append(out, before)
	} else {
		before.peer.at, before.peer.node = model.NodeEndpoint(entry), entry
		addrs, _ := s.evaluator.nodeAddresses(entry, s.conn.IPFamily)
		before.peer.addr, _ = pick("", addrs, s.conn.IPFamily)
		for _, number := range []struct {
			kind wirePort
			text string
		}{
			{listedNodePort, "the node port is one that the rules list"},
			{unlistedNodePort, "the node port is none that the rules list"},
		} {
			before.ports.kind = number.kind
			before.assume = []assumption{
				{destinationSeen, "policy sees the address of the node"}, {nodePortNumber, number.text},
			}
			out = append(out, s.ownNode(before)...)
		}
	}
	return out
}

// ownNode adds the reading in which a pod may always reach its own node, if that is where the connection goes.
func (s *stage) ownNode(h half) []half {
	if h.peer.node == none || h.peer.node != s.evaluator.pods[h.subject].Node {
		return []half{h}
	}
	exempt := h
	exempt.exempt = ownNode
	exempt.assume = with(h.assume, assumption{toOwnNode, "a pod may always reach its own node"})
	h.assume = with(h.assume, assumption{toOwnNode, "only what comes from a pod's own node is exempt"})
	return []half{exempt, h}
}

// with appends to a copy: readings share the beginnings of their assumptions.
func with(list []assumption, more assumption) []assumption {
	return append(list[:len(list):len(list)], more)
}

// ingress lists what the destination's policies may see.
func (s *stage) ingress(to *backend, fromPod, toPod, entry int, itself bool) []half {
	base := half{
		direction: ingress, subject: toPod, name: to.name,
		peer: s.from.party(fromPod, s.from.addr),
		ports: ports{
			protocol: s.conn.Protocol, family: s.conn.IPFamily,
			pod: toPod, onPod: to.port, wire: to.port,
		},
	}
	if !s.isolated(ingress, toPod) {
		return []half{base}
	}
	if itself {
		base.exempt = toItself
		return []half{base}
	}
	out := s.sentFrom(base, base.peer)
	if entry != none {
		for i := range out {
			out[i].assume = with(out[i].assume, assumption{sourceSeen, "policy sees the original source"})
		}
		rewritten := base
		rewritten.assume = []assumption{{sourceSeen, fmt.Sprintf("policy sees %s as the source", model.NodeEndpoint(entry))}}
		node := model.NodeEndpoint(entry)
		out = append(out, s.sentFrom(rewritten, party{name: node, at: node, pod: none, node: entry})...)
	}
	return out
}

// sentFrom lists the readings for a source: one for each address that a node may send from, and none for a node that
// has no address of the family.
func (s *stage) sentFrom(base half, source party) []half {
	base.peer = source
	if source.node == none {
		return []half{base}
	}
	// The pod's own node is exempt by the overview, by "The two sorts of pod isolation" and by
	// NetworkPolicySpec.ingress. That includes the hostNetwork pods on it: "their connections will be treated as node
	// connections".
	if source.node == s.evaluator.pods[base.subject].Node {
		base.exempt = ownNode
		return []half{base}
	}
	addrs, known := s.evaluator.nodeAddresses(source.node, s.conn.IPFamily)
	switch {
	case !known, len(addrs) == 0 && base.peer.addr.IsValid():
		return []half{base}
	case len(addrs) == 1:
		base.peer.addr = addrs[0]
		return []half{base}
	}
	out := make([]half, 0, len(addrs))
	for _, addr := range addrs {
		h := base
		h.peer.addr = addr
		h.assume = with(h.assume, assumption{sourceAddress, fmt.Sprintf("%s sends from %s",
			model.NodeEndpoint(source.node), addr)})
		out = append(out, h)
	}
	return out
}
