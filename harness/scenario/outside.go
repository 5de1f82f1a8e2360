package scenario

import (
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/netproof/netproof/harness/model"
)

// metadataAddresses are where clouds tell a machine about itself, credentials included:
// https://cloud.google.com/compute/docs/metadata/querying-metadata,
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html.
var metadataAddresses = []netip.Addr{netip.MustParseAddr("169.254.169.254"), netip.MustParseAddr("fd00:ec2::254")}

const (
	// maxHosts bounds the hosts of a folder: a local cluster has room for about as many.
	maxHosts = 200
	// maxMadeHosts bounds those of them that are made for address blocks of policies.
	maxMadeHosts = 64
)

// unplayable says why nobody can be at an address, or "".
func unplayable(a netip.Addr) string {
	switch {
	case a.Zone() != "":
		return "it has a zone, which means something on one machine only"
	case a.Is4In6():
		return "it is an IPv4 address in IPv6 form"
	case a.IsUnspecified(), a.Is4() && a.As4()[0] == 0:
		return "it means no address"
	case a.IsLoopback():
		return "it never leaves the machine that sends to it"
	case a.IsMulticast(), a.Is4() && a.As4()[0] >= 240:
		return "it is not the address of one host"
	case a.Is6() && a.IsLinkLocalUnicast():
		return "it is a link-local address, which routers do not forward"
	}
	return ""
}

// usable tells whether a host can be made at an address.
func usable(a netip.Addr) bool { return a.IsValid() && unplayable(a) == "" }

// lastOf is the last address of a block.
func lastOf(p netip.Prefix) netip.Addr {
	bytes := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(bytes)*8; i++ {
		bytes[i/8] |= 1 << (7 - i%8)
	}
	out, _ := netip.AddrFromSlice(bytes)
	return out
}

// inside picks an address of a block that is in none of the others: the second one, since the first of a network is
// seldom a host's, or the first after such another block.
func inside(p netip.Prefix, others []netip.Prefix) netip.Addr {
	a := p.Masked().Addr()
	if !p.IsSingleIP() {
		a = a.Next()
	}
	for range len(others) + 1 {
		i := slices.IndexFunc(others, func(o netip.Prefix) bool { return o.Contains(a) })
		if i < 0 {
			break
		}
		a = lastOf(others[i]).Next()
	}
	if !p.Contains(a) || slices.ContainsFunc(others, func(o netip.Prefix) bool { return o.Contains(a) }) {
		return netip.Addr{}
	}
	return a
}

// justOutside picks the address after a block, or the one before it.
func justOutside(p netip.Prefix) netip.Addr {
	if after := lastOf(p).Next(); usable(after) {
		return after
	}
	if before := p.Masked().Addr().Prev(); usable(before) {
		return before
	}
	return netip.Addr{}
}

// block is an ipBlock of a policy, and who is asked about it.
type block struct {
	cidr    netip.Prefix
	except  []netip.Prefix
	ports   []Port
	in      bool
	subject pattern
	at      Position
}

// blocks are the ipBlocks of all policies.
func (f *plainFolder) blocks() (out []block) {
	for _, o := range f.policies {
		if o.policy == nil {
			continue
		}
		selector, err := metav1.LabelSelectorAsSelector(&o.policy.Spec.PodSelector)
		if err != nil {
			continue // it was reported
		}
		subject := theirPods
		subject.namespace, subject.selector = o.namespace, selector
		places := policyChecker{&collector{}, o.tree}
		for _, r := range rulesIn(o.policy) {
			for i := range r.peers {
				in := r.peers[i].IPBlock
				if in == nil {
					continue
				}
				cidr, err := netip.ParsePrefix(in.CIDR)
				if err != nil {
					continue // it was reported
				}
				b := block{cidr: cidr.Masked(), ports: portsOfRule(r.ports), in: r.in, subject: subject, at: places.at(r.peersAt().Index(i))}
				for _, text := range in.Except {
					if e, err := netip.ParsePrefix(text); err == nil {
						b.except = append(b.except, e.Masked())
					}
				}
				out = append(out, b)
			}
		}
	}
	return out
}

// portsOfRule are the ports that a host serves for a rule: those that the rule names by number, and the edges of its
// ranges.
func portsOfRule(ports []networkingv1.NetworkPolicyPort) (out []Port) {
	const most = 4
	numbers := 0
	for _, p := range ports {
		r, ok := rangeOf(p)
		if !ok || numbers == most {
			continue
		}
		numbers++
		out = withPort(out, Port{Port: r.first, Protocol: r.protocol})
		if p.EndPort != nil {
			out = withPort(out, r.edges()...)
		}
	}
	return out
}

// protocolOf is the protocol of a port of a rule: "If not specified, this field defaults to TCP",
// NetworkPolicyPort.protocol.
func protocolOf(p networkingv1.NetworkPolicyPort) string {
	if p.Protocol == nil {
		return string(model.TCP)
	}
	return string(*p.Protocol)
}

// withPort adds ports that are not there yet. One that was only at an edge is none where somebody names it.
func withPort(ports []Port, more ...Port) []Port {
	for _, p := range more {
		if i := slices.IndexFunc(ports, func(have Port) bool { return have.Port == p.Port && have.Protocol == p.Protocol }); i < 0 {
			ports = append(ports, p)
		} else if !p.edge {
			ports[i].edge = false
		}
	}
	return ports
}

// httpsPort is what an address serves of which no port is known.
var httpsPort = Port{Port: 443, Protocol: string(model.TCP)}

// outside are the hosts outside of the cluster while probes are put together.
type outside struct {
	hosts  []Host
	probes []Probe
	// made counts the hosts that nobody declared, and left the blocks for which there was no room.
	made, left int
}

// at finds the host that has an address.
func (out *outside) at(a netip.Addr) *Host {
	for i := range out.hosts {
		if slices.Contains(out.hosts[i].addresses, a) {
			return &out.hosts[i]
		}
	}
	return nil
}

// host finds the host that has an address, or makes one, and lets it serve the ports, unless its author has said which
// it serves.
func (out *outside) host(a netip.Addr, ports []Port, at Position) *Host {
	h := out.at(a)
	if h == nil {
		if out.made == maxMadeHosts {
			return nil
		}
		out.made++
		name := a.String()
		out.hosts = append(out.hosts, Host{Name: name, At: at, addresses: []netip.Addr{a}, stranger: true})
		h = &out.hosts[len(out.hosts)-1]
	}
	if h.stranger || h.spokenOf || len(h.Ports) == 0 {
		h.Ports = withPort(h.Ports, ports...)
	}
	return h
}

// ask lets a block be asked about: its subjects send to the host, or the host sends to them.
func (out *outside) ask(b block, a netip.Addr) {
	ports := b.ports
	if b.in {
		ports = nil
	} else if len(ports) == 0 {
		ports = []Port{httpsPort}
	}
	h := out.host(a, ports, b.at)
	if h == nil {
		out.left++
		return
	}
	host := pattern{text: string(model.HostEndpoint(h.Name)), kind: hostPattern, name: h.Name}
	from, to := b.subject, host
	if b.in {
		from, to = host, b.subject
	}
	out.probes = append(out.probes, madeProbe(from, to, b.at))
}

// madeProbe is a probe that nobody wrote.
func madeProbe(from, to pattern, at Position) Probe {
	return Probe{From: from.text, To: to.text, from: from, to: to, At: at, fromAt: at, toAt: at, viaAt: at, made: true, stranger: true}
}

// blocks asks about each address block of the policies: at an address inside of it, at one just outside, and so for its
// exceptions. What a declared host lies in is asked about there.
func (out *outside) blocks(all []block) {
	for _, b := range all {
		declared := false
		for i := range out.hosts {
			for _, a := range out.hosts[i].addresses {
				excepted := slices.ContainsFunc(b.except, func(e netip.Prefix) bool { return e.Contains(a) })
				if b.cidr.Contains(a) && !excepted && !out.hosts[i].stranger {
					declared = true
					out.ask(b, a)
				}
			}
		}
		wanted := []netip.Addr{justOutside(b.cidr)}
		if !declared {
			wanted = append(wanted, inside(b.cidr, b.except))
		}
		if b.cidr.Bits() == 0 {
			wanted = nil // every address is inside
		}
		for _, e := range b.except {
			a := inside(e, nil)
			for _, known := range metadataAddresses {
				if e.Contains(known) {
					a = known
				}
			}
			wanted = append(wanted, a)
			if edge := justOutside(e); b.cidr.Contains(edge) {
				wanted = append(wanted, edge)
			}
		}
		for _, a := range wanted {
			if usable(a) {
				out.ask(b, a)
			}
		}
	}
}

// theirPods are the pods of the folder itself that policies can speak of.
var theirPods = pattern{text: "*", kind: subjectPattern}

// addressOf reads the address of a declared host.
func (l *loader) addressOf(h *Host, item *value) {
	v := item.get("address")
	if v == nil || h.Address == "" {
		return
	}
	a, err := netip.ParseAddr(h.Address)
	if err != nil {
		l.add(v.at, "write one address, such as 203.0.113.10", "%q is not an IP address", shorten(h.Address))
		return
	}
	if why := unplayable(a); why != "" {
		l.add(v.at, "write the address of a host", "no host can be at %s: %s", a, why)
		return
	}
	h.addresses = []netip.Addr{a}
}

// spokenOf makes hosts of the addresses that rules and probes name, unless a declared host has them: what a rule says
// of an address shall be asked.
func (out *outside) spokenOf(spec *AssertionsSpec) {
	add := func(p pattern, ports []PortRef, at Position) {
		if p.kind != addressPattern {
			return
		}
		var serves []Port
		for _, ref := range ports {
			if ref.Port != 0 {
				serves = withPort(serves, Port{Port: ref.Port, Protocol: ref.Protocol})
			}
		}
		if h := out.at(p.address); h != nil {
			if h.spokenOf {
				h.Ports = withPort(h.Ports, serves...)
			}
			return
		}
		if len(serves) == 0 {
			serves = []Port{httpsPort}
		}
		out.hosts = append(out.hosts, Host{Name: p.address.String(), At: at, Ports: serves, spokenOf: true, addresses: []netip.Addr{p.address}})
	}
	for _, r := range spec.Rules {
		add(r.from, nil, r.fromAt)
		add(r.to, r.Ports, r.toAt)
	}
	for _, p := range spec.Probes.List {
		add(p.from, nil, p.fromAt)
		add(p.to, p.Ports, p.toAt)
	}
}

// metadata adds the host of that name if a rule or a probe speaks of it and nobody declares it.
func (out *outside) metadata(spec *AssertionsSpec) {
	const name = "metadata"
	speaks := func(p pattern) bool { return p.kind == hostPattern && p.name == name }
	used := slices.ContainsFunc(spec.Rules, func(r Rule) bool { return speaks(r.from) || speaks(r.to) }) ||
		slices.ContainsFunc(spec.Probes.List, func(p Probe) bool { return speaks(p.from) || speaks(p.to) })
	if !used || slices.ContainsFunc(out.hosts, func(h Host) bool { return h.Name == name }) {
		return
	}
	out.hosts = append(out.hosts, Host{Name: name, Ports: []Port{{Port: 80, Protocol: string(model.TCP)}}, addresses: metadataAddresses})
}
