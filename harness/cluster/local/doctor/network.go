//go:build linux

package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/netproof/netproof/harness/cluster/local/hosttools"
)

// WriteNetworkFacts makes, in the network namespace of the process, what a cluster makes there, and writes what could
// not be made as JSON. It is meant for the inside of a sandbox, with which all of it goes.
func WriteNetworkFacts(ctx context.Context, w io.Writer) error {
	facts := []NetworkFact{
		fact("bridge", netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs("np-bridge")})),
		fact("virtual ethernet", netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs("np-veth0"), PeerName: "np-veth1"})),
		fact("VXLAN", netlink.LinkAdd(&netlink.Vxlan{LinkAttrs: attrs("np-vxlan"), VxlanId: 4096, Port: 4789})),
	}
	if nft := hosttools.Find("nft"); nft != "" {
		// Sets, maps and connection tracking are what policies and Services are made of.
		rules := `table inet netproof {
			set peers { type ipv4_addr; flags interval; }
			map verdicts { type ipv4_addr : verdict; }
			chain forward {
				type filter hook forward priority 0;
				ct state established accept
				ip saddr @peers reject
				ip daddr vmap @verdicts
			}
			chain nat { type nat hook prerouting priority -100; }
		}`
		facts = append(facts, fact("nftables", runNft(ctx, nft, rules)))
	}
	return json.NewEncoder(w).Encode(facts)
}

func attrs(name string) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name = name
	return a
}

// fact is about something that every cluster needs.
func fact(name string, err error) NetworkFact {
	f := NetworkFact{Name: name, Needed: true}
	if err != nil {
		f.Error = err.Error()
	}
	return f
}

func runNft(ctx context.Context, nft, rules string) error {
	cmd := exec.CommandContext(ctx, nft, "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
