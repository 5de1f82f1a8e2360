package model

import (
	"cmp"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Protocol is a transport protocol as Kubernetes spells it.
type Protocol string

// The protocols a NetworkPolicy can speak of.
const (
	TCP  Protocol = "TCP"
	UDP  Protocol = "UDP"
	SCTP Protocol = "SCTP"
)

// IPFamily is an IP version as Kubernetes spells it.
type IPFamily string

// The IP families of a cluster.
const (
	IPv4 IPFamily = "IPv4"
	IPv6 IPFamily = "IPv6"
)

// FamilyOf tells which family an address belongs to.
func FamilyOf(addr netip.Addr) IPFamily {
	if addr.Unmap().Is4() {
		return IPv4
	}
	return IPv6
}

// Via is the way a probe takes to its destination.
type Via string

// The ways a probe can take.
const (
	ViaPodIP    Via = "podIP"
	ViaService  Via = "service"
	ViaNodePort Via = "nodePort"
)

// Endpoint names one end of a connection: a pod as "namespace/name", a node as "node:0", an address outside the
// cluster as "host:name". With [ViaService] and [ViaNodePort] the destination is a service, as "namespace/name".
type Endpoint string

// NodeEndpoint names the node with this index.
func NodeEndpoint(index int) Endpoint { return Endpoint("node:" + strconv.Itoa(index)) }

// HostEndpoint names an outside address declared under topology.hosts.
func HostEndpoint(name string) Endpoint { return Endpoint("host:" + name) }

// PodEndpoint names a pod.
func PodEndpoint(namespace, name string) Endpoint { return Endpoint(namespace + "/" + name) }

// IsNode tells whether the endpoint is a node.
func (e Endpoint) IsNode() bool { return strings.HasPrefix(string(e), "node:") }

// IsHost tells whether the endpoint is an address outside the cluster.
func (e Endpoint) IsHost() bool { return strings.HasPrefix(string(e), "host:") }

// IsPod tells whether the endpoint is a pod, or a service.
func (e Endpoint) IsPod() bool { return !e.IsNode() && !e.IsHost() }

// NodeIndex returns the index of a node endpoint.
func (e Endpoint) NodeIndex() (int, bool) {
	s, ok := strings.CutPrefix(string(e), "node:")
	if !ok {
		return 0, false
	}
	i, err := strconv.Atoi(s)
	return i, err == nil && i >= 0
}

// HostName returns the name of a host endpoint.
func (e Endpoint) HostName() (string, bool) { return strings.CutPrefix(string(e), "host:") }

// Split returns namespace and name of a pod or service endpoint; ok is false for nodes and hosts.
func (e Endpoint) Split() (namespace, name string, ok bool) {
	if e.IsNode() || e.IsHost() {
		return "", "", false
	}
	return strings.Cut(string(e), "/")
}

// Labels are the labels of a pod or a namespace.
type Labels map[string]string

// Port is a port that a pod serves.
type Port struct {
	// Name is what a policy may call the port; empty when it has none.
	Name     string
	Number   int
	Protocol Protocol
	// Edge is true for a port that the pod serves only because the verdict of a policy can change there.
	Edge bool `json:",omitempty"`
}

// String renders the port as scenarios write it, such as 80/TCP.
func (p Port) String() string { return strconv.Itoa(p.Number) + "/" + string(p.Protocol) }

// ComparePorts orders ports by number, then protocol.
func ComparePorts(a, b Port) int {
	return cmp.Or(cmp.Compare(a.Number, b.Number), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Name, b.Name))
}

// Namespace is a namespace of a topology. Labels include kubernetes.io/metadata.name, which the API server sets.
type Namespace struct {
	Name   string
	Labels Labels
}

// Pod is a pod of a topology.
type Pod struct {
	Namespace   string
	Name        string
	Labels      Labels
	Node        int
	HostNetwork bool
	Ports       []Port
	// Workload is the name of the workload that the pod is one of several replicas of, empty otherwise.
	Workload string `json:",omitempty"`
	// Twin is true for a replica that no policy can tell from the first one, which has the name of the workload. Only
	// connections between the two say something about it.
	Twin bool `json:",omitempty"`
	// AskedBy is the only pod that connects to this one: the two are alike, and this one has nothing else to show.
	AskedBy Endpoint `json:",omitempty"`
	// Stranger is true for a pod that stands for whoever a folder of manifests does not mention.
	Stranger bool `json:",omitempty"`
	// Addresses are the pod's IPs, one per family; empty as long as the pod does not run.
	Addresses []netip.Addr
}

// Endpoint names the pod as one end of a connection.
func (p Pod) Endpoint() Endpoint { return PodEndpoint(p.Namespace, p.Name) }

// Node is a node of a topology.
type Node struct {
	Index     int
	Name      string
	Addresses []netip.Addr
}

// Host is an address outside the cluster.
type Host struct {
	Name  string
	Ports []Port
	// Addresses are those that the host must have, if any are given; otherwise those that it got once it exists.
	Addresses []netip.Addr
	// Stranger is true for a host that stands for whoever a folder of manifests does not mention.
	Stranger bool `json:",omitempty"`
}

// Endpoint names the host as one end of a connection.
func (h Host) Endpoint() Endpoint { return HostEndpoint(h.Name) }

// ServicePort maps a port of a service to a port of its pods.
type ServicePort struct {
	Port Port
	// Target is the number or the name of the pod's port; empty means the same number.
	Target string
	// NodePort is the port on every node, once the service exists and if its type is NodePort.
	NodePort int
}

// On is the port of a pod that the service's port leads to: a number, the pod's port of that name, or the same number
// as the service's. A pod that has no port of the name is not an endpoint: Services page, "Defining a Service".
func (p ServicePort) On(pod *Pod) (number int, ok bool) {
	if p.Target == "" {
		return p.Port.Number, true
	}
	if number, err := strconv.Atoi(p.Target); err == nil {
		return number, true
	}
	for _, port := range pod.Ports {
		if port.Name == p.Target && port.Protocol == p.Port.Protocol {
			return port.Number, true
		}
	}
	return 0, false
}

// Service is a service of a topology.
type Service struct {
	Namespace string
	Name      string
	Selector  Labels
	Ports     []ServicePort
	// Type is ClusterIP (also when empty) or NodePort.
	Type string
	// Addresses are the cluster IPs, one per family; empty as long as the service does not exist.
	Addresses []netip.Addr
}

// Selects tells whether the service leads to a pod: one of its namespace that its selector picks.
func (s Service) Selects(pod *Pod) bool {
	return pod.Namespace == s.Namespace && s.Selector.Pick(pod.Labels)
}

// Pick tells whether labels that are the selector of a service pick a pod with other labels. An empty selector picks
// none (Kubernetes, "Services without selectors").
func (l Labels) Pick(other Labels) bool {
	for k, v := range l {
		if have, ok := other[k]; !ok || have != v {
			return false
		}
	}
	return len(l) > 0
}

// Endpoint names the service as a destination.
func (s Service) Endpoint() Endpoint { return PodEndpoint(s.Namespace, s.Name) }

// Topology is everything a verdict can depend on besides the policies.
type Topology struct {
	Namespaces []Namespace
	Pods       []Pod
	Services   []Service
	Nodes      []Node
	Hosts      []Host
}

// Pod finds a pod by its endpoint.
func (t *Topology) Pod(e Endpoint) (*Pod, bool) {
	namespace, name, ok := e.Split()
	for i := range t.Pods {
		if p := &t.Pods[i]; ok && p.Name == name && p.Namespace == namespace {
			return p, true
		}
	}
	return nil, false
}

// Namespace finds a namespace by its name.
func (t *Topology) Namespace(name string) (*Namespace, bool) {
	for i := range t.Namespaces {
		if t.Namespaces[i].Name == name {
			return &t.Namespaces[i], true
		}
	}
	return nil, false
}

// Service finds a service by its endpoint.
func (t *Topology) Service(e Endpoint) (*Service, bool) {
	namespace, name, ok := e.Split()
	for i := range t.Services {
		if s := &t.Services[i]; ok && s.Name == name && s.Namespace == namespace {
			return s, true
		}
	}
	return nil, false
}

// Host finds a host by its endpoint.
func (t *Topology) Host(e Endpoint) (*Host, bool) {
	for i := range t.Hosts {
		if t.Hosts[i].Endpoint() == e {
			return &t.Hosts[i], true
		}
	}
	return nil, false
}

// HasFamily tells whether an endpoint has an address of a family, as far as that is known: of pods, services and nodes
// it is not said here.
func (t *Topology) HasFamily(e Endpoint, family IPFamily) bool {
	h, ok := t.Host(e)
	if !ok || len(h.Addresses) == 0 {
		return true
	}
	_, ok = AddressOf(h.Addresses, family)
	return ok
}

// Tells tells whether a connection between two ends can have another verdict than one between two others: a replica
// that is like the first one of its workload is only asked by it, and so is the second workload of several that are
// alike. An end that is not a pod is nil.
func Tells(from, to *Pod) bool {
	switch {
	case from != nil && (from.Twin || from.AskedBy != ""):
		return false
	case to != nil && to.AskedBy != "":
		return from != nil && from.Endpoint() == to.AskedBy
	case to == nil || !to.Twin:
		return true
	}
	return from != nil && from.Namespace == to.Namespace && cmp.Or(from.Workload, from.Name) == to.Workload
}

// AddressOf picks the address of a family out of a list.
func AddressOf(addrs []netip.Addr, family IPFamily) (netip.Addr, bool) {
	for _, a := range addrs {
		if FamilyOf(a) == family {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// Connection is one connection a policy may allow or deny: what a cell asks about.
type Connection struct {
	From     Endpoint
	To       Endpoint
	Port     int
	Protocol Protocol
	IPFamily IPFamily
	Via      Via
}

// Text renders the connection for people: x/a -> x/b 80/TCP IPv4, with the way if it is not the plain one.
func (c Connection) Text() string {
	text := fmt.Sprintf("%s -> %s %d/%s %s", c.From, c.To, c.Port, c.Protocol, c.IPFamily)
	if c.Via != ViaPodIP && c.Via != "" {
		text += " by " + string(c.Via)
	}
	return text
}

// String renders the connection as in cell ids: x/a->x/b:80/TCP/IPv4/podIP.
func (c Connection) String() string {
	return fmt.Sprintf("%s->%s:%d/%s/%s/%s", c.From, c.To, c.Port, c.Protocol, c.IPFamily, c.Via)
}
