package semantics

import (
	"fmt"
	"net"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/netproof/netproof/harness/model"
)

// cluster is one cluster that the documentation permits, with everything it leaves open chosen. The oracle asks each of
// them, one connection at a time, in the words of the documentation and with nothing of the evaluator's.
type cluster struct {
	topology *model.Topology
	policies []Policy

	tellsHostNetworkPods bool
	exemptsWayToOwnNode  bool
	exemptsHairpin       bool
	policyBeforeRewrite  bool
	rewritesSource       bool
	// entry is the node a node port or an outside client's service connection goes through, nodePort the port's number.
	entry    int
	nodePort int
	// address picks among the addresses that a node may send from.
	address int
}

// packet is what policy sees.
type packet struct {
	pod  *model.Pod // the peer, as far as the cluster can tell it is a pod
	ip   net.IP
	port int // as policy sees it
	// podPort and dest are the port of the destination pod and that pod.
	podPort  int
	dest     *model.Pod
	protocol model.Protocol
}

func (c *cluster) identity(p *model.Pod) *model.Pod {
	if p != nil && p.HostNetwork && !c.tellsHostNetworkPods {
		return nil
	}
	return p
}

func (c *cluster) nodeIP(index int, family model.IPFamily) net.IP {
	var all []net.IP
	for _, a := range c.topology.Nodes[index].Addresses {
		if model.FamilyOf(a) == family {
			all = append(all, a.AsSlice())
		}
	}
	return all[c.address%len(all)]
}

func firstIP(c *cluster, conn model.Connection, of model.Endpoint) net.IP {
	var list []string
	if p, ok := c.topology.Pod(of); ok {
		for _, a := range p.Addresses {
			list = append(list, a.String())
		}
	} else if n, ok := of.NodeIndex(); ok {
		for _, a := range c.topology.Nodes[n].Addresses {
			list = append(list, a.String())
		}
	} else {
		h, _ := c.topology.Host(of)
		for _, a := range h.Addresses {
			list = append(list, a.String())
		}
	}
	for _, s := range list {
		if ip := net.ParseIP(s); (ip.To4() != nil) == (conn.IPFamily == model.IPv4) {
			return ip
		}
	}
	return nil
}

// allows decides a connection to a given destination, directly or through the service.
func (c *cluster) allows(conn model.Connection, service *model.Service, to model.Endpoint, podPort int) bool {
	from, _ := c.topology.Pod(conn.From)
	dest, _ := c.topology.Pod(to)
	sourceNode, destNode := -1, -1
	if n, ok := conn.From.NodeIndex(); ok {
		sourceNode = n
	}
	if from != nil && from.HostNetwork {
		sourceNode = from.Node
	}
	if n, ok := to.NodeIndex(); ok {
		destNode = n
	}
	if dest != nil && dest.HostNetwork {
		destNode = dest.Node
	}
	itself := from != nil && from == dest

	// Egress.
	if subject := c.identity(from); subject != nil && !(itself && (service == nil || c.exemptsHairpin)) {
		p := packet{
			pod: c.identity(dest), ip: firstIP(c, conn, to), port: podPort,
			podPort: podPort, dest: c.identity(dest), protocol: conn.Protocol,
		}
		seenNode := destNode
		if service != nil && c.policyBeforeRewrite {
			seenNode, p.port = -1, conn.Port
			if conn.Via == model.ViaNodePort {
				node := model.NodeEndpoint(c.entry)
				seenNode, p.port, p.ip = c.entry, c.nodePort, firstIP(c, conn, node)
			} else if conn.IPFamily == model.IPv4 {
				p.ip = service.Addresses[0].AsSlice()
			} else {
				p.ip = service.Addresses[1].AsSlice()
			}
		}
		if !(seenNode == subject.Node && c.exemptsWayToOwnNode) && !c.side(subject, p, "Egress") {
			return false
		}
	}
	// Ingress.
	if subject := c.identity(dest); subject != nil && !(itself && (service == nil || c.exemptsHairpin)) {
		p := packet{
			pod: c.identity(from), ip: nil, port: podPort, podPort: podPort, dest: subject, protocol: conn.Protocol,
		}
		mayRewrite := service != nil && (conn.Via == model.ViaNodePort || conn.From.IsHost())
		if mayRewrite && c.rewritesSource {
			sourceNode, p.pod = c.entry, nil
		}
		if sourceNode >= 0 {
			p.ip = c.nodeIP(sourceNode, conn.IPFamily)
		} else {
			p.ip = firstIP(c, conn, conn.From)
		}
		if sourceNode != subject.Node && !c.side(subject, p, "Ingress") {
			return false
		}
	}
	return true
}

// side applies the policies of one pod for one policy type.
func (c *cluster) side(subject *model.Pod, p packet, policyType networkingv1.PolicyType) bool {
	isolated := false
	for _, policy := range c.policies {
		o := policy.Object
		if o.Namespace != subject.Namespace || !matches(o.Spec.PodSelector, subject.Labels) {
			continue
		}
		kinds := o.Spec.PolicyTypes
		if len(kinds) == 0 {
			kinds = []networkingv1.PolicyType{"Ingress"}
			if len(o.Spec.Egress) > 0 {
				kinds = append(kinds, "Egress")
			}
		}
		if !slices.Contains(kinds, policyType) {
			continue
		}
		isolated = true
		if policyType == "Ingress" {
			for _, r := range o.Spec.Ingress {
				if c.ruleAllows(o.Namespace, r.From, r.Ports, p) {
					return true
				}
			}
		} else {
			for _, r := range o.Spec.Egress {
				if c.ruleAllows(o.Namespace, r.To, r.Ports, p) {
					return true
				}
			}
		}
	}
	return !isolated
}

func (c *cluster) ruleAllows(namespace string, peers []networkingv1.NetworkPolicyPeer,
	ports []networkingv1.NetworkPolicyPort, p packet,
) bool {
	if len(peers) == 0 {
		return portAllows(ports, p, p.port)
	}
	for _, peer := range peers {
		if peer.IPBlock != nil {
			if blockHolds(peer.IPBlock, p.ip) && portAllows(ports, p, p.port) {
				return true
			}
			continue
		}
		if p.pod == nil || !portAllows(ports, p, p.podPort) {
			continue
		}
		if peer.NamespaceSelector == nil && p.pod.Namespace != namespace {
			continue
		}
		if peer.NamespaceSelector != nil {
			ns, _ := c.topology.Namespace(p.pod.Namespace)
			if !matches(*peer.NamespaceSelector, ns.Labels) {
				continue
			}
		}
		if peer.PodSelector != nil && !matches(*peer.PodSelector, p.pod.Labels) {
			continue
		}
		return true
	}
	return false
}

func portAllows(ports []networkingv1.NetworkPolicyPort, p packet, number int) bool {
	for _, port := range ports {
		protocol := "TCP"
		if port.Protocol != nil {
			protocol = string(*port.Protocol)
		}
		if protocol != string(p.protocol) {
			continue
		}
		switch {
		case port.Port == nil:
			return true
		case port.Port.Type == intstr.String:
			if p.dest == nil {
				continue
			}
			for _, named := range p.dest.Ports {
				if named.Name == port.Port.StrVal && string(named.Protocol) == protocol && named.Number == p.podPort {
					return true
				}
			}
		case port.EndPort == nil:
			if int(port.Port.IntVal) == number {
				return true
			}
		default:
			if int(port.Port.IntVal) <= number && number <= int(*port.EndPort) {
				return true
			}
		}
	}
	return len(ports) == 0
}

func blockHolds(b *networkingv1.IPBlock, ip net.IP) bool {
	holds := func(cidr string) bool {
		_, network, err := net.ParseCIDR(cidr)
		if err != nil {
			panic(err)
		}
		return (network.IP.To4() != nil) == (ip.To4() != nil) && network.Contains(ip)
	}
	return holds(b.CIDR) && !slices.ContainsFunc(b.Except, holds)
}

func matches(s metav1.LabelSelector, l model.Labels) bool {
	for k, v := range s.MatchLabels {
		if l[k] != v {
			return false
		}
	}
	for _, r := range s.MatchExpressions {
		v, has := l[r.Key]
		ok := false
		switch r.Operator {
		case metav1.LabelSelectorOpIn:
			ok = has && slices.Contains(r.Values, v)
		case metav1.LabelSelectorOpNotIn:
			ok = !has || !slices.Contains(r.Values, v)
		case metav1.LabelSelectorOpExists:
			ok = has
		case metav1.LabelSelectorOpDoesNotExist:
			ok = !has
		}
		if !ok {
			return false
		}
	}
	return true
}

// clusters lists every cluster that the documentation permits.
func clusters(topology *model.Topology, policies []Policy) (out []*cluster) {
	for bits := range 1 << 7 {
		bit := func(i int) bool { return bits>>i&1 == 1 }
		for _, nodePort := range []int{31000, 30001, 30600} {
			c := &cluster{
				topology: topology, policies: policies,
				tellsHostNetworkPods: bit(0), exemptsWayToOwnNode: bit(1), exemptsHairpin: bit(2), policyBeforeRewrite: bit(3),
				rewritesSource: bit(4), nodePort: nodePort,
			}
			if bit(5) {
				c.entry = 1
			}
			if bit(6) {
				c.address = 1
			}
			out = append(out, c)
		}
	}
	return out
}

// concerns tells whether the cluster differs from the others in something that this kind of connection meets; it saves
// asking clusters that must say the same.
func (c *cluster) concerns(conn model.Connection) bool {
	if conn.Via == model.ViaPodIP && (c.exemptsHairpin || c.policyBeforeRewrite || c.rewritesSource || c.entry != 0) {
		return false
	}
	return conn.Via == model.ViaNodePort || c.nodePort == 31000
}

// ask gives the verdict of all clusters together, and whether there is anything to ask.
func ask(all []*cluster, conn model.Connection) (model.Verdict, bool) {
	topology := all[0].topology
	type target struct {
		to   model.Endpoint
		port int
	}
	targets := []target{{conn.To, conn.Port}}
	var service *model.Service
	if conn.Via != model.ViaPodIP {
		service, _ = topology.Service(conn.To)
		targets = nil
		for i := range topology.Pods {
			p := &topology.Pods[i]
			if p.Namespace != service.Namespace || p.Labels["app"] != service.Selector["app"] {
				continue
			}
			switch service.Ports[0].Target {
			case "":
				targets = append(targets, target{p.Endpoint(), 80})
			case "8080":
				targets = append(targets, target{p.Endpoint(), 8080})
			default:
				targets = append(targets, target{p.Endpoint(), p.Ports[0].Number})
			}
		}
	}
	allowed, denied := false, false
	for _, c := range all {
		if !c.concerns(conn) {
			continue
		}
		for _, t := range targets {
			if c.allows(conn, service, t.to, t.port) {
				allowed = true
			} else {
				denied = true
			}
			if allowed && denied {
				return model.Undefined, true
			}
		}
	}
	switch {
	case allowed:
		return model.Allow, true
	case denied:
		return model.Deny, true
	default:
		return model.Undefined, false
	}
}

func TestTheEvaluatorAgreesWithAnOracleOnRandomWorlds(t *testing.T) {
	worlds := uint64(4000)
	if testing.Short() {
		worlds = 200
	}
	seen := map[string]int{}
	for seed := range worlds {
		g := newGenerator(seed, int(seed%3)*20)
		topology, policies := g.topology(), g.policies()
		e, err := New(topology, policies)
		require.NoError(t, err, "seed %d", seed)
		all := clusters(topology, policies)
		conns := connections(topology)
		// A sample of each world's connections: more worlds tell more than more of the same.
		for range 25 {
			c := oneOf(g, conns...)
			d, err := e.Decide(c)
			require.NoError(t, err, "seed %d: %s", seed, c)
			want, some := ask(all, c)
			require.Equal(t, want, d.Verdict, "seed %d: %s\n%s\n%s", seed, c, dump(policies), lines(d.Walk()))
			require.False(t, d.NeedsAddresses)
			if some {
				seen[fmt.Sprintf("%s %s", c.Via, want)]++
			}
		}
	}
	for _, via := range []model.Via{model.ViaPodIP, model.ViaService, model.ViaNodePort} {
		for _, verdict := range []model.Verdict{model.Allow, model.Deny, model.Undefined} {
			require.Greater(t, seen[fmt.Sprintf("%s %s", via, verdict)], int(worlds/250), "too few to mean anything: %v", seen)
		}
	}
}

func lines(list []string) (out string) {
	for _, s := range list {
		out += s + "\n"
	}
	return out
}
