package calico

import (
	"fmt"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/netproof/netproof/harness/cni/install"
	"github.com/netproof/netproof/harness/model"
)

// Version of Calico that is installed on real clusters.
const Version = "v3.30.1"

// manifestDigest is that of manifests/calico-vxlan.yaml in Calico's source at [Version].
const manifestDigest = "sha256:d2d2a7139b1fae5247eb4bf24454a73a6f6e05c205991c0bfd54b598b24e88d9"

const (
	// nodeContainer is the container of Calico's agent.
	nodeContainer = "calico-node"
	configMap     = "calico-config"
)

// Plugin is Calico for clusters that are reached over their API: the vendor's manifest for VXLAN without BGP.
//
// What is changed about it: the pools are the cluster's pod subnets; every packet between nodes goes through VXLAN, as
// on the local provider, where the manifest would only do so between subnets; and where pods have IPv6 addresses, what
// Calico's documentation lists under "Configure dual stack or IPv6 only". Encapsulation is left alone in a manifest
// whose backend is not VXLAN.
func Plugin() install.Plugin {
	return install.Plugin{
		Name:    "calico",
		Version: Version,
		Source: install.Source{
			URL:    "https://raw.githubusercontent.com/projectcalico/calico/" + Version + "/manifests/calico-vxlan.yaml",
			Digest: manifestDigest,
		},
		Agent: install.Agent{Selector: "k8s-app=calico-node", Container: nodeContainer},
		Adapt: adapt,
	}
}

// adapt fits a manifest to the network. One that has no calico-node, such as the operator's, stays as it is.
func adapt(objects []*unstructured.Unstructured, network install.Network) ([]string, error) {
	var changes []string
	for _, variable := range environment(network, backend(objects)) {
		changes = append(changes, install.SetEnv(objects, nodeContainer, variable[0], variable[1])...)
	}
	if len(changes) == 0 || !network.Has(model.IPv6) {
		return changes, nil
	}
	assigned, err := assignIPv6(objects, network)
	return append(changes, assigned...), err
}

// environment says in the variables of calico-node how the network is.
func environment(network install.Network, backend string) [][2]string {
	var env [][2]string
	set := func(name, value string) { env = append(env, [2]string{name, value}) }
	if subnet, ok := network.Subnet(model.IPv4); ok {
		set("CALICO_IPV4POOL_CIDR", subnet.String())
	} else {
		set("IP", "none")
		set("CALICO_IPV4POOL_CIDR", "none")
		set("CALICO_ROUTER_ID", "hash")
	}
	if subnet, ok := network.Subnet(model.IPv6); ok {
		set("IP6", "autodetect")
		set("FELIX_IPV6SUPPORT", "true")
		set("CALICO_IPV6POOL_CIDR", subnet.String())
		set("CALICO_IPV6POOL_NAT_OUTGOING", "true")
	}
	if backend != "vxlan" {
		return env
	}
	set("CALICO_IPV4POOL_IPIP", "Never")
	set("CALICO_IPV4POOL_VXLAN", "Always")
	set("CALICO_IPV6POOL_VXLAN", "Always")
	return env
}

func configOf(objects []*unstructured.Unstructured) *unstructured.Unstructured {
	for _, o := range objects {
		if o.GetKind() == "ConfigMap" && o.GetName() == configMap {
			return o
		}
	}
	return nil
}

func backend(objects []*unstructured.Unstructured) string {
	config := configOf(objects)
	if config == nil {
		return ""
	}
	// What is not a string is no backend either.
	value, _, _ := unstructured.NestedString(config.Object, "data", "calico_backend")
	return value
}

var calicoIPAM = regexp.MustCompile(`"type":\s*"calico-ipam"`)

// assignIPv6 tells the CNI plugin which families pods get addresses of. The network configuration is a template that is
// not yet JSON, so it is changed as text.
func assignIPv6(objects []*unstructured.Unstructured, network install.Network) ([]string, error) {
	config := configOf(objects)
	if config == nil {
		return nil, fmt.Errorf("it has no ConfigMap %s, in which the IP families of pods are said", configMap)
	}
	text, _, err := unstructured.NestedString(config.Object, "data", "cni_network_config")
	if err != nil {
		return nil, fmt.Errorf("ConfigMap %s: %w", configMap, err)
	}
	if strings.Contains(text, "assign_ipv6") {
		return nil, nil
	}
	if len(calicoIPAM.FindAllString(text, -1)) != 1 {
		return nil, fmt.Errorf("ConfigMap %s: cni_network_config does not name calico-ipam once, so pods could not be given IPv6 addresses", configMap)
	}
	families := fmt.Sprintf(`"assign_ipv4": "%t", "assign_ipv6": "true"`, network.Has(model.IPv4))
	text = calicoIPAM.ReplaceAllString(text, "$0, "+families)
	if err := unstructured.SetNestedField(config.Object, text, "data", "cni_network_config"); err != nil {
		return nil, fmt.Errorf("ConfigMap %s: %w", configMap, err)
	}
	return []string{fmt.Sprintf("ConfigMap %s/%s, cni_network_config: ipam has %s", config.GetNamespace(), configMap, families)}, nil
}
