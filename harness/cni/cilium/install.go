package cilium

import (
	"maps"
	"strings"

	"github.com/netproof/netproof/harness/cni/install"
	"github.com/netproof/netproof/harness/model"
)

// Version of Cilium that is installed on real clusters.
const Version = "v1.15.19"

// chartDigest is the [install.ChartDigest] of the chart in Cilium's source at [Version].
const chartDigest = "sha256:f5e38f8baa0f5026973ad190a236b32dc1eeea61a1621e9a0071f0841c494ab7"

// Plugin is Cilium for clusters that are reached over their API: the vendor's chart, with Values.
func Plugin() install.Plugin {
	return install.Plugin{
		Name:    "cilium",
		Version: Version,
		Source: install.Source{
			URL:    "https://github.com/cilium/cilium/archive/refs/tags/" + Version + ".tar.gz",
			Chart:  "install/kubernetes/cilium",
			Digest: chartDigest,
		},
		Agent:  install.Agent{Selector: "k8s-app=cilium", Container: "cilium-agent"},
		Values: Values,
	}
}

// Values are the chart's values for a cluster whose nodes share one network, as kind's do. Pods are connected by plain
// routes, services stay with kube-proxy, and what has nothing to do with policies for pods is off: it takes memory and
// time on each node, and its own traffic. SCTP, which the chart has off, is on, since policies may name it.
func Values(network install.Network) map[string]any {
	values := map[string]any{
		"ipam":                 map[string]any{"mode": "kubernetes"},
		"routingMode":          "native",
		"autoDirectNodeRoutes": true,
		"endpointRoutes":       map[string]any{"enabled": true},

		"kubeProxyReplacement": "false",
		"socketLB":             map[string]any{"enabled": false},

		"l7Proxy":                false,
		"hubble":                 map[string]any{"enabled": false},
		"authentication":         map[string]any{"enabled": false},
		"healthChecking":         false,
		"endpointHealthChecking": map[string]any{"enabled": false},
		"operator":               map[string]any{"replicas": 1},

		// Maps that grow as they are used: nodes of a test cluster share one machine's memory.
		"bpf":  map[string]any{"hostLegacyRouting": true, "preallocateMaps": false, "mapDynamicSizeRatio": 0.0005},
		"sctp": map[string]any{"enabled": true},
	}
	maps.Copy(values, familyValues(network))
	return values
}

func familyValues(network install.Network) map[string]any {
	values := map[string]any{}
	requirements := map[string]any{}
	for _, family := range []model.IPFamily{model.IPv4, model.IPv6} {
		subnet, has := network.Subnet(family)
		name := strings.ToLower(string(family))
		values[name] = map[string]any{"enabled": has}
		if !has {
			continue
		}
		values[name+"NativeRoutingCIDR"] = subnet.String()
		requirements["require"+string(family)+"PodCIDR"] = true
	}
	values["k8s"] = requirements
	return values
}
