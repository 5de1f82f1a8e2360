package none

import (
	"encoding/json"
	"fmt"
	"net/netip"
)

// CNIConfig is the network configuration list of a node whose pods get addresses from these networks, one per IP
// family. The MTU is in bytes.
func CNIConfig(podNetworks []netip.Prefix, mtu int) ([]byte, error) {
	var ranges, routes []any
	for _, n := range podNetworks {
		ranges = append(ranges, []any{map[string]any{"subnet": n.String()}})
		everywhere := "0.0.0.0/0"
		if n.Addr().Is6() {
			everywhere = "::/0"
		}
		routes = append(routes, map[string]any{"dst": everywhere})
	}
	out, err := json.Marshal(map[string]any{
		"cniVersion": "1.0.0",
		"name":       "netproof",
		"plugins": []any{map[string]any{
			"type":   "ptp",
			"mtu":    mtu,
			"ipMasq": false,
			"ipam": map[string]any{
				"type":    "host-local",
				"ranges":  ranges,
				"routes":  routes,
				"dataDir": "/run/cni/ipam",
			},
		}},
	})
	if err != nil {
		return nil, fmt.Errorf("write CNI configuration: %w", err)
	}
	return out, nil
}
