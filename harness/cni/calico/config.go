package calico

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

const (
	// HealthPort is where the node program answers health questions, on the node's loopback address.
	HealthPort = 9099
	// RestartCode is the exit code by which Felix asks to be started again with a changed configuration.
	RestartCode = 129
	// StateDir is where Felix and the CNI plugin meet, in the mount namespace of a node.
	StateDir = "/run/calico"
	// overlayHeader is what VXLAN over IPv4 adds to a packet, in bytes, and overlayHeaderV6 over IPv6.
	overlayHeader   = 50
	overlayHeaderV6 = 70
)

// Config describes Calico on one node.
type Config struct {
	NodeName  string
	Dataplane Dataplane
	// Addresses of the node with the length of its network, one per IP family of the cluster, the primary first.
	Addresses []netip.Prefix
	// PodNetworks of this node, one per IP family.
	PodNetworks []netip.Prefix
	// Kubeconfig is the path of a file with access to the API server.
	Kubeconfig string
	// MTU of the network between the nodes, in bytes.
	MTU int
}

func (c Config) has6() bool {
	for _, n := range c.PodNetworks {
		if n.Addr().Is6() {
			return true
		}
	}
	return false
}

// podMTU leaves room for the overlay. One value serves both families, so it is the smaller.
func (c Config) podMTU() int {
	if c.has6() {
		return c.MTU - overlayHeaderV6
	}
	return c.MTU - overlayHeader
}

// tunnelAddress is the address of the overlay interface: the first of the node's pod network, which host-local never
// gives to a pod.
func tunnelAddress(network netip.Prefix) netip.Addr { return network.Addr().Next() }

// TunnelAddresses are those of the overlay interface, one per IP family. From them the node itself sends to the pods of
// other nodes.
func (c Config) TunnelAddresses() []netip.Addr {
	var addrs []netip.Addr
	for _, n := range c.PodNetworks {
		addrs = append(addrs, tunnelAddress(n))
	}
	return addrs
}

// NodeAnnotations belong on the node's Node object. Calico reads from them how the node is reached.
func (c Config) NodeAnnotations() map[string]string {
	annotations := map[string]string{}
	for _, a := range c.Addresses {
		annotations["projectcalico.org/"+familyOf(a.Addr())+"Address"] = a.String()
	}
	for _, n := range c.PodNetworks {
		annotations["projectcalico.org/"+familyOf(n.Addr())+"VXLANTunnelAddr"] = tunnelAddress(n).String()
	}
	return annotations
}

func familyOf(a netip.Addr) string {
	if a.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// FelixArgs are the arguments of calico-node.
func FelixArgs() []string { return []string{"-felix"} }

// FelixEnvironment is the environment of calico-node besides PATH.
func (c Config) FelixEnvironment() []string {
	env := []string{
		"DATASTORE_TYPE=kubernetes",
		"KUBECONFIG=" + c.Kubeconfig,
		"NODENAME=" + c.NodeName,
		"CALICO_K8S_NODE_REF=" + c.NodeName,
		"CALICO_NETWORKING_BACKEND=vxlan",
		"CLUSTER_TYPE=k8s",
		"USE_POD_CIDR=true",
		"FELIX_DATASTORETYPE=kubernetes",
		"FELIX_FELIXHOSTNAME=" + c.NodeName,
		// Read in this very spelling, unlike the others. The clean-up of eBPF load balancing needs cgo, which the
		// program was built without.
		"FELIX_DebugSkipCTLBCleanup=true",
		"FELIX_BPFENABLED=false",
		"FELIX_XDPENABLED=false",
		"FELIX_LOGSEVERITYSCREEN=Warning",
		"FELIX_LOGSEVERITYSYS=none",
		"FELIX_LOGSEVERITYFILE=none",
		"FELIX_LOGFILEPATH=none",
		"FELIX_USAGEREPORTINGENABLED=false",
		"FELIX_HEALTHENABLED=true",
		"FELIX_HEALTHHOST=localhost",
		fmt.Sprintf("FELIX_HEALTHPORT=%d", HealthPort),
		"FELIX_PROMETHEUSMETRICSENABLED=false",
		"FELIX_DEFAULTENDPOINTTOHOSTACTION=ACCEPT",
		"FELIX_ENDPOINTSTATUSPATHPREFIX=" + StateDir,
		"FELIX_IPTABLESLOCKFILEPATH=/run/xtables.lock",
		// After each write Felix reads all rules back, and again after twice the time, and so on, in case that another
		// program has undone it. Nobody else writes rules here. An hour or more means never; 0 would mean all the time.
		"FELIX_IPTABLESPOSTWRITECHECKINTERVALSECS=3600",
		"FELIX_VXLANENABLED=true",
		fmt.Sprintf("FELIX_VXLANMTU=%d", c.MTU-overlayHeader),
		fmt.Sprintf("FELIX_VXLANMTUV6=%d", c.MTU-overlayHeaderV6),
		fmt.Sprintf("FELIX_IPV6SUPPORT=%t", c.has6()),
		"FELIX_FLOWLOGSPOLICYEVALUATIONMODE=None",
	}
	switch c.Dataplane {
	case NFTables:
		env = append(env, "FELIX_NFTABLESMODE=Enabled")
	case IPTablesLegacy:
		env = append(env, "FELIX_NFTABLESMODE=Disabled", "FELIX_IPTABLESBACKEND=Legacy")
	default:
		env = append(env, "FELIX_NFTABLESMODE=Disabled", "FELIX_IPTABLESBACKEND=NFT")
	}
	return env
}

// CNIConfig is the network configuration list of the node, for libcni.
func (c Config) CNIConfig() ([]byte, error) {
	var ranges, routes []any
	for _, n := range c.PodNetworks {
		ranges = append(ranges, []any{map[string]any{"subnet": n.String()}})
		everywhere := "0.0.0.0/0"
		if n.Addr().Is6() {
			everywhere = "::/0"
		}
		routes = append(routes, map[string]any{"dst": everywhere})
	}
	list := map[string]any{
		"cniVersion": "1.0.0",
		"name":       "k8s-pod-network",
		"plugins": []any{map[string]any{
			"type":           "calico",
			"datastore_type": "kubernetes",
			"nodename":       c.NodeName,
			"mtu":            c.podMTU(),
			// The file is what calico-node -startup writes; the name is above.
			"nodename_file_optional": true,
			"log_level":              "error",
			"ipam": map[string]any{
				"type":    "host-local",
				"ranges":  ranges,
				"routes":  routes,
				"dataDir": "/run/cni/ipam",
			},
			"policy":     map[string]any{"type": "k8s"},
			"kubernetes": map[string]any{"kubeconfig": c.Kubeconfig},
		}},
	}
	out, err := json.Marshal(list)
	if err != nil {
		return nil, fmt.Errorf("write CNI configuration: %w", err)
	}
	return out, nil
}

// Programmed tells whether Felix has set up the interface and the policy of the pod that has these addresses. It reads
// a file of the node, so it runs in the node's mount namespace.
func Programmed(namespace, pod string, addresses []netip.Addr) (bool, error) {
	content, err := os.ReadFile(filepath.Join(StateDir, "endpoint-status", statusFile(namespace, pod)))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read endpoint status of pod %s/%s: %w", namespace, pod, err)
	}
	// The file may still be that of a former pod of the same name.
	for _, a := range addresses {
		if !bytes.Contains(content, fmt.Appendf(nil, "\"%s/", a)) {
			return false, nil
		}
	}
	return true, nil
}

// statusFile is how Felix names the file that says that an endpoint is up: three parts joined by spaces, each escaped
// like a part of a URL's path.
func statusFile(namespace, pod string) string {
	return strings.Join([]string{"k8s", url.PathEscape(namespace + "/" + pod), "eth0"}, " ")
}
