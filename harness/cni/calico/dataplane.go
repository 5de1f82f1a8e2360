package calico

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// Dataplane is the part of the kernel that Felix programs.
type Dataplane string

// The dataplanes that Calico has for Linux besides eBPF, the least costly first: for one policy, Felix and the programs
// it calls used 32, 45 and 90 ms of processor time on the machine that they were compared on.
const (
	// IPTablesLegacy is the older kernel interface. Newer kernels may lack it.
	IPTablesLegacy Dataplane = "iptables-legacy"
	// IPTablesNFT is the iptables that translates to nftables.
	IPTablesNFT Dataplane = "iptables-nft"
	// NFTables is Felix's own use of nftables. It needs nft 1.0.1 or later.
	NFTables Dataplane = "nftables"
)

// dataplanes in the order of preference.
var dataplanes = []Dataplane{IPTablesLegacy, IPTablesNFT, NFTables}

// ErrNoDataplane says that this machine has none of the dataplanes.
var ErrNoDataplane = errors.New("neither iptables nor nftables can be used here")

// DetectDataplane returns the first dataplane that works here, with IPv6 too if that is asked for. It finds out by
// writing rules like those that Felix writes into the network namespace of the calling thread, which should be one to
// throw away. find gives the path of a program, or an empty string.
func DetectDataplane(ipv6 bool, find func(program string) string) (Dataplane, error) {
	var errs []error
	for _, d := range dataplanes {
		err := d.try(ipv6, find)
		if err == nil {
			return d, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", d, err))
	}
	return "", fmt.Errorf("%w:\n%w", ErrNoDataplane, errors.Join(errs...))
}

// iptablesRules use each extension that Felix's rules need; %s is the name of an IP set.
const iptablesRules = `*raw
-A PREROUTING -m rpfilter --invert -m comment --comment "netproof" -j DROP
COMMIT
*mangle
-A PREROUTING -m mark --mark 0x10000/0x10000 -j MARK --set-xmark 0x20000/0x20000
COMMIT
*nat
-A POSTROUTING -m addrtype --dst-type LOCAL -j MASQUERADE
COMMIT
*filter
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -p tcp -m set --match-set %s src -m multiport --dports 80,90:95 -j ACCEPT
COMMIT
`

const nftablesRules = `table inet netproof-try {
	set s { type ipv4_addr; flags interval; elements = { 192.0.2.0/24 }; }
	map m { type ifname : verdict; }
	chain c {
		type filter hook forward priority 0; policy accept;
		ct state established,related counter accept
		ip saddr @s tcp dport { 80, 90-95 } counter accept
		meta mark & 0x10000 == 0x10000 counter meta mark set mark and 0xfffdffff
		iifname vmap @m
	}
	chain r {
		type filter hook prerouting priority raw; policy accept;
		fib saddr . mark . iif oif 0 drop
	}
	chain n {
		type nat hook postrouting priority srcnat; policy accept;
		fib daddr type local masquerade
	}
}
delete table inet netproof-try
`

func (d Dataplane) try(ipv6 bool, find func(string) string) error {
	if d == NFTables {
		return feed(find, nftablesRules, "nft", "-f", "-")
	}
	kind := strings.TrimPrefix(string(d), "iptables-")
	if err := tryIPTables(find, "iptables-"+kind+"-restore", "inet", "4"+kind); err != nil {
		return err
	}
	if !ipv6 {
		return nil
	}
	return tryIPTables(find, "ip6tables-"+kind+"-restore", "inet6", "6"+kind)
}

func tryIPTables(find func(string) string, restore, family, set string) error {
	set = "netproof-" + set
	if err := feed(find, "", "ipset", "create", set, "hash:net", "family", family, "-exist"); err != nil {
		return err
	}
	return feed(find, fmt.Sprintf(iptablesRules, set), restore)
}

// feed runs a program with an input and returns an error that holds what it said.
func feed(find func(string) string, input, program string, args ...string) error {
	path := find(program)
	if path == "" {
		return fmt.Errorf("%s: not found", program)
	}
	cmd := exec.Command(path, args...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, bytes.TrimSpace(out))
	}
	return nil
}
