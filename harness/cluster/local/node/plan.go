package node

import (
	"fmt"
	"net/netip"

	"github.com/netproof/netproof/harness/model"
)

// MaxNodes is how many nodes the address plan has room for.
const MaxNodes = 100

// Plan is the address plan of a cluster: one network per family and purpose, the primary family first. IPv4 addresses
// come from the ranges for benchmarks and documentation (RFC 2544, RFC 5737) and from the private ones that Kubernetes
// installers use; IPv6 addresses are unique local (RFC 4193) and documentation ones (RFC 3849).
type Plan struct {
	Families []model.IPFamily
}

type familyPlan struct {
	fabric, pods, services, hosts netip.Prefix
	// podBits is the length of a node's pod network.
	podBits int
}

var plans = map[model.IPFamily]familyPlan{
	model.IPv4: {
		fabric:   netip.MustParsePrefix("198.18.0.0/24"),
		pods:     netip.MustParsePrefix("10.244.0.0/16"),
		services: netip.MustParsePrefix("10.96.0.0/16"),
		hosts:    netip.MustParsePrefix("203.0.113.0/24"),
		podBits:  24,
	},
	model.IPv6: {
		fabric:   netip.MustParsePrefix("fd98:18::/64"),
		pods:     netip.MustParsePrefix("fd00:10:244::/48"),
		services: netip.MustParsePrefix("fd00:10:96::/112"),
		hosts:    netip.MustParsePrefix("2001:db8:113::/64"),
		podBits:  64,
	},
}

// Check tells what is wrong with the plan's families.
func (p Plan) Check() error {
	if len(p.Families) == 0 || len(p.Families) > 2 {
		return fmt.Errorf("a cluster has one or two IP families, not %d", len(p.Families))
	}
	for i, f := range p.Families {
		if _, ok := plans[f]; !ok {
			return fmt.Errorf("unknown IP family %q", f)
		}
		if i > 0 && f == p.Families[0] {
			return fmt.Errorf("IP family %s is named twice", f)
		}
	}
	return nil
}

func (p Plan) each(pick func(familyPlan) netip.Prefix) []netip.Prefix {
	var prefixes []netip.Prefix
	for _, f := range p.Families {
		prefixes = append(prefixes, pick(plans[f]))
	}
	return prefixes
}

// Pods are the networks of all pods.
func (p Plan) Pods() []netip.Prefix { return p.each(func(f familyPlan) netip.Prefix { return f.pods }) }

// Services are the networks of cluster IPs.
func (p Plan) Services() []netip.Prefix {
	return p.each(func(f familyPlan) netip.Prefix { return f.services })
}

// Fabric are the networks that join the nodes.
func (p Plan) Fabric() []netip.Prefix {
	return p.each(func(f familyPlan) netip.Prefix { return f.fabric })
}

// Hosts are the networks of what is outside the cluster.
func (p Plan) Hosts() []netip.Prefix {
	return p.each(func(f familyPlan) netip.Prefix { return f.hosts })
}

// Gateway are the addresses of the fabric's bridge, where the API server listens.
func (p Plan) Gateway() []netip.Addr {
	return addresses(p.Fabric(), 1)
}

// Node are the addresses of a node.
func (p Plan) Node(index int) []netip.Addr { return addresses(p.Fabric(), 10+index) }

// NodePods are the networks of a node's pods.
func (p Plan) NodePods(index int) []netip.Prefix {
	var prefixes []netip.Prefix
	for _, f := range p.Families {
		plan := plans[f]
		bytes := plan.pods.Addr().AsSlice()
		bytes[plan.podBits/8-1] = byte(index)
		addr, _ := netip.AddrFromSlice(bytes)
		prefixes = append(prefixes, netip.PrefixFrom(addr, plan.podBits))
	}
	return prefixes
}

// Host are the addresses of the n-th host outside the cluster.
func (p Plan) Host(n int) []netip.Addr { return addresses(p.Hosts(), 10+n) }

// addresses gives the n-th address of each network; n is below 256.
func addresses(prefixes []netip.Prefix, n int) []netip.Addr {
	var addrs []netip.Addr
	for _, p := range prefixes {
		bytes := p.Addr().AsSlice()
		bytes[len(bytes)-1] = byte(n)
		addr, _ := netip.AddrFromSlice(bytes)
		addrs = append(addrs, addr)
	}
	return addrs
}
