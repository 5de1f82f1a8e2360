package scenario

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/policy"
	"github.com/netproof/netproof/harness/words"
)

// influence tells which connections an object other than a NetworkPolicy may decide. Nothing of its content is read:
// what is in doubt may decide everything.
type influence int

const (
	// noPolicy: objects of the kind are no network policies. They configure a network plugin, or have nothing to do
	// with one.
	noPolicy influence = iota
	// inert: the kind belongs to network policies, and an object of it decides nothing by itself.
	inert
	// ownNamespace: the object decides connections from and to pods of its own namespace, and no others.
	ownNamespace
	// everywhere: the object may decide any connection.
	everywhere
)

// otherKinds stands for all kinds of a group that the group does not name.
const otherKinds = "*"

// influences are the kinds that decide connections and that package policy does not know, by group. A kind is
// ownNamespace only where its documentation says that it selects pods of its own namespace alone. Groups of one network
// plugin's policies name [otherKinds], so that a kind which a later version adds is not passed over.
var influences = map[string]map[string]influence{
	policy.AdminGroup:     {otherKinds: everywhere},
	policy.CalicoAPIGroup: calicoInfluences,
	policy.CalicoGroup:    calicoInfluences,
	policy.CiliumGroup: with(everywhere, map[string]influence{},
		"CiliumEndpoint", "CiliumEndpointSlice", "CiliumIdentity", "CiliumNode", "CiliumNodeConfig", "CiliumExternalWorkload",
		"CiliumLoadBalancerIPPool", "CiliumL2AnnouncementPolicy", "CiliumPodIPPool", "CiliumGatewayClassConfig", "CiliumVtepConfig",
		"CiliumBGPPeeringPolicy", "CiliumBGPClusterConfig", "CiliumBGPPeerConfig", "CiliumBGPAdvertisement", "CiliumBGPNodeConfig",
		"CiliumBGPNodeConfigOverride"),

	// https://antrea.io/docs/main/docs/antrea-network-policy/: appliedTo of an Antrea NetworkPolicy selects pods of its
	// namespace. A Tier has a priority and no action of its own.
	"crd.antrea.io":                    antreaInfluences,
	"policy.antrea.io":                 antreaInfluences,
	"security.antrea.tanzu.vmware.com": antreaInfluences,
	"core.antrea.tanzu.vmware.com":     antreaInfluences,
	// https://ovn-kubernetes.io/features/network-security-controls/: an EgressFirewall is for the pods of its
	// namespace.
	"k8s.ovn.org": with(everywhere, map[string]influence{"EgressFirewall": ownNamespace}, "EgressIP", "EgressQoS", "EgressService"),
	// https://docs.openshift.com: one EgressNetworkPolicy for each namespace; NetNamespaces join and isolate them.
	"network.openshift.io": with(noPolicy, map[string]influence{"EgressNetworkPolicy": ownNamespace, "NetNamespace": everywhere}),
	"kubeovn.io":           {otherKinds: everywhere}, // security groups, private subnets, VPCs
	"crd.nsx.vmware.com":   {otherKinds: everywhere},
	"nsx.vmware.com":       {otherKinds: everywhere},
	"networking.k8s.aws":   {otherKinds: everywhere},
	// Policies for secondary networks of pods.
	"k8s.cni.cncf.io": with(noPolicy, map[string]influence{"MultiNetworkPolicy": everywhere}),
	"neuvector.com":   {otherKinds: everywhere},
	// Rules about what processes may do, with protocols.
	"security.kubearmor.com": {otherKinds: everywhere},
	// Kinds of service meshes that refuse connections. In the mesh's root namespace some of them hold for all
	// namespaces.
	"security.istio.io":    {otherKinds: everywhere},
	"networking.istio.io":  with(noPolicy, map[string]influence{"Sidecar": everywhere}),
	"policy.linkerd.io":    {otherKinds: everywhere},
	"kuma.io":              with(noPolicy, map[string]influence{"Mesh": everywhere, "MeshPassthrough": everywhere}),
	"consul.hashicorp.com": with(noPolicy, map[string]influence{"ServiceIntentions": everywhere}),
}

var calicoInfluences = with(everywhere, map[string]influence{},
	"BGPConfiguration", "BGPFilter", "BGPPeer", "BlockAffinity", "CalicoNodeStatus", "ClusterInformation", "FelixConfiguration", "IPAMBlock",
	"IPAMConfig", "IPAMConfiguration", "IPAMHandle", "IPPool", "IPReservation", "KubeControllersConfiguration", "Node", "WorkloadEndpoint",
	"AlertException", "GlobalAlert", "GlobalAlertTemplate", "GlobalReport", "GlobalReportType", "LicenseKey", "ManagedCluster",
	"PacketCapture", "RemoteClusterConfiguration", "SecurityEventWebhook", "UISettings", "UISettingsGroup")

var antreaInfluences = with(everywhere, map[string]influence{"NetworkPolicy": ownNamespace, "Tier": inert, "ClusterGroup": inert, "Group": inert},
	"AntreaAgentInfo", "AntreaControllerInfo", "BGPPolicy", "ExternalEntity", "ExternalIPPool", "ExternalNode", "IPPool", "NodeLatencyMonitor",
	"PacketCapture", "SupportBundleCollection", "Traceflow")

// with adds to the kinds of a group what the others are, and those that are no policies.
func with(others influence, kinds map[string]influence, none ...string) map[string]influence {
	kinds[otherKinds] = others
	for _, kind := range none {
		kinds[kind] = noPolicy
	}
	return kinds
}

// builtInTiers are those of Calico that hold the policies of Kubernetes' own kinds: their order and default action
// count for these.
var builtInTiers = []string{"default", "adminnetworkpolicy", "baselineadminnetworkpolicy", "kube-admin", "kube-baseline"}

// policyName is what names of kinds have in them that are network policies of somebody whose group is not in the table.
var policyName = regexp.MustCompile(`NetworkPolic|Firewall|SecurityGroup|SecurityPolic|AuthorizationPolic|EgressPolic|IngressPolic|TrafficPermission`)

// influenceOf tells which connections an object may decide, by its kind.
func influenceOf(kind schema.GroupKind, name string) influence {
	if known, applied := policy.Lookup(kind); applied {
		return influenceOfKnown(known, name)
	}
	if kinds, known := influences[kind.Group]; known {
		if r, named := kinds[kind.Kind]; named {
			return r
		}
		if kinds[otherKinds] != noPolicy {
			return kinds[otherKinds]
		}
	}
	// Groups without a dot are Kubernetes' own, and policy has a PodSecurityPolicy.
	if !strings.Contains(kind.Group, ".") || !policyName.MatchString(kind.Kind) {
		return noPolicy
	}
	return everywhere
}

// influenceOfKnown tells it of a kind that netproof applies.
func influenceOfKnown(kind policy.Kind, name string) influence {
	switch kind.Role {
	case policy.Set, policy.Staged:
		return inert
	case policy.Tier:
		if !slices.Contains(builtInTiers, name) {
			return inert
		}
	case policy.Rules:
		if kind.Namespaced {
			return ownNamespace
		}
	}
	return everywhere
}

// isForeignNetworkPolicy tells whether a kind that is called NetworkPolicy is somebody's own, rather than Kubernetes'
// with a slip in its group.
func isForeignNetworkPolicy(group string) bool {
	if !strings.Contains(group, ".") || strings.HasSuffix(group, "k8s.io") {
		return false
	}
	_, known := influences[group]
	return known || suggest(group, []string{policy.KubernetesGroup, policy.CalicoAPIGroup, policy.CalicoGroup}) == ""
}

// Unjudged is an object that may decide connections and that the specification of NetworkPolicy says nothing about: a
// policy of another kind.
type Unjudged struct {
	Group string
	Kind  string
	// Namespace is empty for kinds without namespaces.
	Namespace string
	Name      string
	// Source is where the object was read.
	Source Position
	// Applied is false for an object that a run leaves out, since netproof does not apply its kind.
	Applied bool

	influence influence
}

func (u Unjudged) ref() policy.Ref {
	return policy.Ref{Kind: schema.GroupVersionKind{Group: u.Group, Kind: u.Kind}, Namespace: u.Namespace, Name: u.Name}
}

// String names the object and its source: projectcalico.org GlobalNetworkPolicy shut (all.yaml:3).
func (u Unjudged) String() string {
	return fmt.Sprintf("%s %s (%s)", u.Group, u.ref(), u.Source.Short())
}

// MarshalJSON gives the form in which commands print the object; source is file and line.
func (u Unjudged) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Group     string `json:"group"`
		Kind      string `json:"kind"`
		Namespace string `json:"namespace,omitempty"`
		Name      string `json:"name"`
		Source    string `json:"source"`
		Applied   bool   `json:"applied"`
	}{u.Group, u.Kind, u.Namespace, u.Name, u.Source.Short(), u.Applied})
}

// MayDecide tells whether the object may decide a connection: all of them, or those from or to its namespace.
func (u Unjudged) MayDecide(c model.Connection) bool {
	if u.influence != ownNamespace {
		return true
	}
	for _, end := range []model.Endpoint{c.From, c.To} {
		// Nodes and hosts are in no namespace. A service leads to pods of its own.
		if namespace, _, ok := end.Split(); ok && namespace == u.Namespace {
			return true
		}
	}
	return false
}

// unjudgedOf tells whether an object may decide connections, without being a NetworkPolicy.
func unjudgedOf(o *object) (Unjudged, bool) {
	kind := o.gvk.GroupKind()
	u := Unjudged{
		Group: kind.Group, Kind: kind.Kind, Namespace: o.namespace, Name: o.name, Source: o.at, Applied: o.role == policyRole,
		influence: influenceOf(kind, o.name),
	}
	if u.influence == ownNamespace && u.Namespace == "" {
		u.Namespace = metav1.NamespaceDefault
	}
	return u, kind != policy.NetworkPolicy.GroupKind() && u.influence > inert
}

// Undecided are those of the objects that may decide one of the connections.
func Undecided(objects []Unjudged, connections ...model.Connection) (out []Unjudged) {
	for _, u := range objects {
		if slices.ContainsFunc(connections, u.MayDecide) {
			out = append(out, u)
		}
	}
	return out
}

// Names lists objects in a sentence; of many it names the first ones.
func Names(objects []Unjudged) string {
	const most = 3
	var names []string
	for _, u := range objects {
		names = append(names, u.String())
	}
	return words.Few(names, most)
}
