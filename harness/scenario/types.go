package scenario

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/netproof/netproof/harness/model"
)

// The kinds of files that users write, beside plain Kubernetes manifests.
const (
	// Kind is the kind of a scenario file.
	Kind = "Scenario"
	// AssertionsKind is the kind of netproof.yaml, the file that asserts things about a folder of plain manifests.
	AssertionsKind = "Assertions"
)

// Scenario is a topology, policies that are applied to it step by step, and who is expected to reach whom after each
// step.
type Scenario struct {
	// APIVersion is netproof.dev/v1alpha1.
	APIVersion string `json:"apiVersion" jsonschema:"enum=netproof.dev/v1alpha1"`
	// Kind is Scenario.
	Kind string `json:"kind" jsonschema:"enum=Scenario"`
	// Metadata names the scenario.
	Metadata Metadata `json:"metadata"`
	// Spec is what the scenario does.
	Spec Spec `json:"spec"`

	// File is the path that the scenario was read from: its file, or the folder of plain manifests.
	File string `json:"-"`
	// Plain is true when the scenario was made from plain manifests and has no file of its own.
	Plain bool `json:"-"`
	// Warnings are oddities that do not prevent a run: a rule that never decides, a service that leads nowhere.
	Warnings Problems `json:"-"`
	// LeftOut are the policies among plain manifests that a run leaves out, since netproof does not apply their kinds.
	LeftOut []Unjudged `json:"-"`
	// Files are what the scenario was made of.
	Files []model.File `json:"-"`
	// Notes say what was passed over as it should be, such as manifests of kinds that say nothing about connections.
	// There is nothing to fix.
	Notes []string `json:"-"`
	// Classes are the workloads of a folder of manifests that stand for others in a run.
	Classes []model.Class `json:"-"`
	At      Position      `json:"-"`

	// broken is true when problems were found in the scenario itself.
	broken bool
	// dubious says what looks like a mistake in policies of a plain folder, with file and line.
	dubious []string
	// narrowed is true when a plain folder names the connections that are probed.
	narrowed bool
	// expectedFile is where the computed table is kept, and expected its content if hasExpected.
	expectedFile string
	expected     []byte
	hasExpected  bool
}

// Metadata names a scenario.
type Metadata struct {
	// Name tells the scenario from all others of a run: lower case letters, digits, `-` and `.`.
	Name string `json:"name"`
	// Labels are what `--select` looks at, such as feature and level.
	Labels map[string]string `json:"labels,omitempty"`
	At     Position          `json:"-"`
}

// Spec is what a scenario does.
type Spec struct {
	// Description says in a sentence what the scenario shows.
	Description string `json:"description,omitempty"`
	// Source is where the expected verdicts come from, usually a section of the Kubernetes documentation.
	Source string `json:"source,omitempty"`
	// Topology is what exists before the first step.
	Topology Topology `json:"topology"`
	// Probes are the connections that are tried after each step. Without it every pod tries every other pod, on every
	// port that the destination serves, by its pod IP.
	Probes []Probe `json:"probes,omitempty"`
	// Steps are played in order; each one changes something and says what is expected from then on.
	Steps []Step   `json:"steps"`
	At    Position `json:"-"`
}

// Topology is everything that a verdict depends on besides the policies.
type Topology struct {
	// Namespaces that the pods, services and policies are in. Every namespace that is used must be declared; `default`
	// and `kube-system` exist in every cluster, and are used as they are when declared.
	Namespaces []Namespace `json:"namespaces"`
	// Pods that probe and are probed.
	Pods []Pod `json:"pods"`
	// Services in front of pods.
	Services []Service `json:"services,omitempty"`
	// Hosts are addresses outside the cluster, on a network that its nodes reach.
	Hosts []Host   `json:"hosts,omitempty"`
	At    Position `json:"-"`
}

// Namespace is a namespace of the topology.
type Namespace struct {
	// Name of the namespace. Quote names such as "y", "n", "yes", "no", "on" and "off".
	Name string `json:"name"`
	// Labels beside kubernetes.io/metadata.name, which Kubernetes sets.
	Labels map[string]string `json:"labels,omitempty"`
	At     Position          `json:"-"`

	// unknown is true when a folder of manifests has no object that tells the labels, stranger for one that is only
	// there for a pod which the folder does not mention.
	unknown, stranger bool
}

// model is the namespace with the label that Kubernetes sets.
func (n *Namespace) model() model.Namespace {
	l := model.Labels{nameLabel: n.Name}
	maps.Copy(l, n.Labels)
	return model.Namespace{Name: n.Name, Labels: l}
}

// Pod is a probe pod of the topology.
type Pod struct {
	// Name is namespace/name, such as x/a.
	Name string `json:"name"`
	// Labels of the pod, which policies and services select by.
	Labels map[string]string `json:"labels,omitempty"`
	// Node is the index of the node that the pod runs on, counted from 0. Without it pods are spread over the nodes in
	// their order.
	Node *int `json:"node,omitempty" jsonschema:"minimum=0"`
	// HostNetwork pods share the network of their node.
	HostNetwork bool `json:"hostNetwork,omitempty"`
	// Ports that the pod serves, such as 80/TCP. A pod without ports only sends.
	Ports []Port   `json:"ports,omitempty"`
	At    Position `json:"-"`

	// workload is the name of the workload that the pod is one of several replicas of; patterns find it by that name
	// too.
	workload string
	// twin is true for a replica that nothing can tell from the first one of its workload.
	twin bool
	// stranger is true for a pod that stands for whoever a folder does not mention.
	stranger bool
	// like is true for a pod that another one of its class stands for: see [model.Class]. second is the first workload
	// of the class, for a pod that only that one asks.
	like   bool
	second model.Endpoint
}

// model is the pod without a node and addresses.
func (p *Pod) model() model.Pod {
	namespace, name, _ := p.endpoint().Split()
	out := model.Pod{
		Namespace: namespace, Name: name, Labels: maps.Clone(p.Labels), HostNetwork: p.HostNetwork, Node: -1,
		Workload: p.workload, Twin: p.twin, Stranger: p.stranger, AskedBy: p.second,
	}
	if out.Labels == nil {
		out.Labels = model.Labels{}
	}
	for _, port := range p.Ports {
		out.Ports = append(out.Ports, port.model())
	}
	return out
}

// endpoint names the pod. The name was validated.
func (p *Pod) endpoint() model.Endpoint { return model.Endpoint(p.Name) }

// Service is a service of the topology.
type Service struct {
	// Name is namespace/name, such as x/web.
	Name string `json:"name"`
	// Selector finds the service's pods by their labels, in its own namespace.
	Selector map[string]string `json:"selector"`
	// Ports of the service, such as 80/TCP.
	Ports []ServicePort `json:"ports"`
	// Type is ClusterIP, which is the default, or NodePort.
	Type string   `json:"type,omitempty" jsonschema:"enum=ClusterIP,enum=NodePort"`
	At   Position `json:"-"`

	// like is true for a service that another one stands for, which leads to the same classes of pods.
	like bool
}

// model is the service without addresses.
func (s *Service) model() model.Service {
	namespace, name, _ := model.Endpoint(s.Name).Split()
	out := model.Service{Namespace: namespace, Name: name, Selector: maps.Clone(s.Selector), Type: s.Type}
	for _, port := range s.Ports {
		out.Ports = append(out.Ports, model.ServicePort{
			Port:   model.Port{Name: port.Name, Number: port.Port, Protocol: model.Protocol(port.Protocol)},
			Target: string(port.TargetPort),
		})
	}
	return out
}

// Host is an address outside the cluster.
type Host struct {
	// Name of the host; probes, rules and placeholders speak of it as host:NAME.
	Name string `json:"name"`
	// Address of the host, such as 203.0.113.10, which a local cluster plays. Without it the host gets one. On other
	// clusters nobody but its owner has the address, so its cells are unsupported there.
	Address string `json:"address,omitempty"`
	// Ports that the host serves.
	Ports []Port   `json:"ports,omitempty"`
	At    Position `json:"-"`

	// addresses of the host, one for each family at most; none where it does not matter.
	addresses []netip.Addr
	// stranger is true for a host that stands for whoever a folder does not mention, spokenOf for one that a rule names
	// by its address.
	stranger, spokenOf bool
}

// Port is a port that a pod or a host serves: 80/TCP, or 80 for TCP, or a mapping with a name.
type Port struct {
	// Name is what a policy may call the port.
	Name string `json:"name,omitempty"`
	// Port is the number.
	Port int `json:"port" jsonschema:"minimum=1,maximum=65535"`
	// Protocol is TCP, which is the default, UDP or SCTP.
	Protocol string   `json:"protocol,omitempty" jsonschema:"enum=TCP,enum=UDP,enum=SCTP"`
	At       Position `json:"-"`

	// edge is true for a port of [plainFolder.boundaries].
	edge bool
}

func (p Port) model() model.Port {
	return model.Port{Name: p.Name, Number: p.Port, Protocol: model.Protocol(p.Protocol), Edge: p.edge}
}

// ServicePort is a port of a service: 80/TCP, or 80 for TCP, or a mapping with a target port.
type ServicePort struct {
	// Name of the port.
	Name string `json:"name,omitempty"`
	// Port is the number under which the service is reached.
	Port int `json:"port" jsonschema:"minimum=1,maximum=65535"`
	// TargetPort is the number or the name of the pods' port; without it, the number of the service's port.
	TargetPort IntOrName `json:"targetPort,omitempty"`
	// Protocol is TCP, which is the default, UDP or SCTP.
	Protocol string   `json:"protocol,omitempty" jsonschema:"enum=TCP,enum=UDP,enum=SCTP"`
	At       Position `json:"-"`
}

// IntOrName is the number or the name of a port, as text; empty when it was not given.
type IntOrName string

func (n *IntOrName) decodeFrom(d *decoder, v *value) {
	if i, ok := v.integer(); ok {
		*n = IntOrName(strconv.FormatInt(i, 10))
		return
	}
	if s, ok := d.text(v, "targetPort"); ok {
		*n = IntOrName(s)
	}
}

// PortRef names ports of a probe's or rule's destination: 80/TCP, or 80 for TCP, or the name of a port, or a mapping.
type PortRef struct {
	// Name of a port of the destination, instead of a number.
	Name string `json:"name,omitempty"`
	// Port is the number.
	Port int `json:"port,omitempty" jsonschema:"minimum=1,maximum=65535"`
	// Protocol is TCP, which is the default, UDP or SCTP. A named port may leave it open.
	Protocol string   `json:"protocol,omitempty" jsonschema:"enum=TCP,enum=UDP,enum=SCTP"`
	At       Position `json:"-"`
}

// String renders the reference as scenarios write it.
func (p PortRef) String() string {
	switch {
	case p.Name == "":
		return fmt.Sprintf("%d/%s", p.Port, p.Protocol)
	case p.Protocol == "":
		return p.Name
	}
	return p.Name + "/" + p.Protocol
}

// matches tells whether a port is meant.
func (p PortRef) matches(port model.Port) bool {
	if p.Protocol != "" && p.Protocol != string(port.Protocol) {
		return false
	}
	if p.Name != "" {
		return p.Name == port.Name
	}
	return p.Port == port.Number
}

// protocols are what a port may speak.
var protocols = []string{"TCP", "UDP", "SCTP"}

func (p *Port) decodeFrom(d *decoder, v *value) {
	var ref PortRef
	if v.kind == mappingValue {
		type plain Port
		d.structure(v, valueOf((*plain)(p)), "a port")
		ref = PortRef{Name: p.Name, Port: p.Port, Protocol: p.Protocol, At: v.at}
		if p.Port == 0 && v.get("port") == nil {
			d.c.add(v.at, "add `port: 80`", "the port has no number")
			return
		}
		ref.checkMapping(d, v, v.at)
		p.Protocol = ref.Protocol
		return
	}
	if ref.parse(d, v, false) {
		*p = Port{Port: ref.Port, Protocol: ref.Protocol}
	}
	p.At = v.at
}

func (p *ServicePort) decodeFrom(d *decoder, v *value) {
	if v.kind == mappingValue {
		type plain ServicePort
		d.structure(v, valueOf((*plain)(p)), "a service port")
		if p.Port == 0 && v.get("port") == nil {
			d.c.add(v.at, "add `port: 80`", "the port has no number")
			return
		}
		ref := PortRef{Name: p.Name, Port: p.Port, Protocol: p.Protocol}
		ref.checkMapping(d, v, v.at)
		p.Protocol = ref.Protocol
		if target := v.get("targetPort"); target != nil && p.TargetPort != "" {
			if n, err := strconv.Atoi(string(p.TargetPort)); err == nil {
				checkPortNumber(d.c, target.at, n)
			} else {
				checkPortName(d.c, target.at, string(p.TargetPort))
			}
		}
		return
	}
	var ref PortRef
	if ref.parse(d, v, false) {
		*p = ServicePort{Port: ref.Port, Protocol: ref.Protocol}
	}
	p.At = v.at
}

func (p *PortRef) decodeFrom(d *decoder, v *value) {
	if v.kind == mappingValue {
		type plain PortRef
		d.structure(v, valueOf((*plain)(p)), "a port")
		if p.Port == 0 && p.Name == "" {
			d.c.add(v.at, "add `port: 80` or `name: http`", "the port has neither number nor name")
			return
		}
		if p.Port != 0 && p.Name != "" {
			d.c.add(v.at, "keep one of `port` and `name`", "the port is said by number and by name")
			return
		}
		p.checkMapping(d, v, v.at)
		return
	}
	p.parse(d, v, true)
	p.At = v.at
}

// checkMapping checks number, name and protocol of a port written as a mapping, and fills in the protocol.
func (p *PortRef) checkMapping(d *decoder, v *value, at Position) {
	where := func(key string) Position {
		if inner := v.get(key); inner != nil {
			return inner.at
		}
		return at
	}
	if port := v.get("port"); port != nil && port.isInteger() {
		checkPortNumber(d.c, where("port"), p.Port)
	}
	if p.Name != "" {
		checkPortName(d.c, where("name"), p.Name)
	}
	p.Protocol = checkProtocol(d.c, where("protocol"), p.Protocol)
	if p.Protocol == "" && p.Port != 0 {
		p.Protocol = string(model.TCP)
	}
}

// parse reads 80/TCP, 80, and where names are meant, metrics and metrics/TCP.
func (p *PortRef) parse(d *decoder, v *value, names bool) bool {
	fix := "write a port such as 80/TCP"
	if names {
		fix = "write a port such as 80/TCP, or the name of a port"
	}
	if v.kind != scalarValue {
		d.c.add(v.at, fix, "a port must be a number with a protocol, and this is %s", v.kind)
		return false
	}
	text, protocol, slash := strings.Cut(v.text, "/")
	if slash {
		before := d.c.count()
		if protocol = checkProtocol(d.c, v.at, protocol); protocol == "" {
			if d.c.count() == before {
				d.c.add(v.at, "write the protocol after the slash, such as 80/TCP", "the port %q has no protocol", v.text)
			}
			return false
		}
	}
	n, err := strconv.Atoi(text)
	switch {
	case err == nil:
		if !checkPortNumber(d.c, v.at, n) {
			return false
		}
		p.Port = n
		if p.Protocol = protocol; protocol == "" {
			p.Protocol = string(model.TCP)
		}
		return true
	case names && v.nonText() == "":
		if !checkPortName(d.c, v.at, text) {
			return false
		}
		p.Name, p.Protocol = text, protocol
		return true
	}
	d.c.add(v.at, fix, "%q is not a port", v.text)
	return false
}

// Probe is a set of connections that are tried.
type Probe struct {
	// From selects where the connections come from: "*" for every pod, x/*, */a, label:app=web, x/a, node:0, host:NAME,
	// or the address of a host.
	From string `json:"from"`
	// To selects where they go, in the same way. With `via: service` or `via: nodePort` it selects services, by their
	// names or by the pods behind them.
	To string `json:"to"`
	// Ports that are tried; without it every port that the destination serves.
	Ports []PortRef `json:"ports,omitempty"`
	// Via is the way to the destination: podIP, which is the default, service or nodePort.
	Via string   `json:"via,omitempty" jsonschema:"enum=podIP,enum=service,enum=nodePort"`
	At  Position `json:"-"`

	from, to            pattern
	fromAt, toAt, viaAt Position
	// made is true for a probe that nobody wrote: it asks what a rule speaks of, which says what is wrong with it, or a
	// stranger, which is left out where the run may not be one.
	made, stranger bool
	// others is true for a probe of services that their own pods do not make: whether a pod that reaches itself that
	// way is exempt is left open.
	others bool
}

// Step changes something, and says what is expected from then on. The changes are made in this order, whatever the
// order of the keys: remove, create, label, delete, apply.
type Step struct {
	// Name says what the step shows. It is part of the ids of its cells.
	Name string `json:"name"`
	// Apply creates or updates policies: files beside the scenario, or inline objects.
	Apply []Apply `json:"apply,omitempty"`
	// Delete removes policies that were applied, each as kind/namespace/name, or kind/name for kinds without
	// namespaces.
	Delete []string `json:"delete,omitempty"`
	// Label changes labels of running pods and of namespaces. A null removes the label.
	Label *LabelChanges `json:"label,omitempty"`
	// Create makes pods appear.
	Create *Create `json:"create,omitempty"`
	// Remove makes pods go.
	Remove *Remove `json:"remove,omitempty"`
	// Probes take the place of the scenario's own probes in this step.
	Probes []Probe `json:"probes,omitempty"`
	// Expect says who is expected to reach whom after the step.
	Expect *Expect  `json:"expect"`
	At     Position `json:"-"`

	nameAt Position
	// policies marks the step of plain manifests in which all policies are in force, those that are left out included.
	policies bool
	deleteAt []Position
}

// Apply is a file of policies beside the scenario, or a policy written inline.
type Apply struct {
	// File is the path of a file of manifests, relative to the scenario's file; empty for an inline object.
	File string
	At   Position

	inline  *value
	objects []*object
}

func (a *Apply) decodeFrom(d *decoder, v *value) {
	a.At = v.at
	switch v.kind {
	case mappingValue:
		a.inline = v
	case scalarValue:
		if s, ok := d.text(v, "apply"); ok {
			a.File = s
			if s == "" {
				d.c.add(v.at, "write the name of a file beside the scenario, such as deny.yaml", "the name of the file is empty")
			}
		}
	default:
		d.c.add(v.at, "write the name of a file beside the scenario, or an object", "apply takes files and objects, and this is %s", v.kind)
	}
}

// LabelChanges are changes of labels; a null removes the label.
type LabelChanges struct {
	// Pods maps namespace/name to the labels that change.
	Pods map[string]map[string]*string `json:"pods,omitempty"`
	// Namespaces maps names to the labels that change. Quote names such as "y".
	Namespaces map[string]map[string]*string `json:"namespaces,omitempty"`
	At         Position                      `json:"-"`

	// where holds the positions of names and labels.
	where *value
}

func (l *LabelChanges) decodeFrom(d *decoder, v *value) {
	type plain LabelChanges
	d.structure(v, valueOf((*plain)(l)), "label")
	l.where = v
}

// Create names pods that appear. Without any, nothing changes.
type Create struct {
	// Pods that appear, as under topology.
	Pods []Pod    `json:"pods,omitempty"`
	At   Position `json:"-"`
}

// Remove names pods that go. Without any, nothing changes.
type Remove struct {
	// Pods that go, as namespace/name.
	Pods []string `json:"pods,omitempty"`
	At   Position `json:"-"`

	where *value
}

func (r *Remove) decodeFrom(d *decoder, v *value) {
	type plain Remove
	d.structure(v, valueOf((*plain)(r)), "remove")
	r.where = v.get("pods")
}

// The defaults of an expectation.
const (
	// computed leaves verdicts to the specification.
	computed = "computed"
	// likePrevious takes them over from the step before.
	likePrevious = "previous"
)

// Expect is an expected truth table: a default and exceptions, or the table of the step before and exceptions, or the
// word computed.
type Expect struct {
	// Like is the word previous: a cell that no rule speaks of has the verdict of the step before.
	Like string `json:"like,omitempty" jsonschema:"enum=previous"`
	// Default is the verdict of every cell that no rule speaks of: allow, deny, undefined, or computed, which leaves it
	// to the specification. With like it is that of the cells that the step before does not have, and may be left out:
	// then they are computed.
	Default string `json:"default,omitempty" jsonschema:"enum=allow,enum=deny,enum=undefined,enum=computed"`
	// Rules are exceptions in order; the last one that matches a cell decides it.
	Rules []Rule   `json:"rules,omitempty"`
	At    Position `json:"-"`

	defaultAt, likeAt Position
}

func (e *Expect) decodeFrom(d *decoder, v *value) {
	e.At = v.at
	if v.kind == scalarValue {
		if v.text != computed {
			d.c.add(v.at, "write `expect: computed`, or `expect: {default: allow, rules: [...]}`", "expect is %s", v.describe())
		}
		e.Default, e.defaultAt = computed, v.at
		return
	}
	if v.kind == nullValue {
		d.c.add(v.at, "write `expect: {default: allow}`, `expect: {default: deny}` or `expect: computed`", "expect is empty")
		e.Default = computed
		return
	}
	before := d.c.count()
	type plain Expect
	d.structure(v, valueOf((*plain)(e)), "expect")
	e.defaultAt, e.likeAt = v.keyAt("default"), v.keyAt("like")
	if like := v.get("like"); like != nil && e.Like != likePrevious && d.c.count() == before {
		d.c.add(like.at, "write `like: previous`", "expect is like %s", like.describe())
	}
	if e.Like != "" && v.get("default") == nil {
		e.Default = computed
	}
	switch e.Default {
	case string(model.Allow), string(model.Deny), string(model.Undefined), computed:
	case "":
		if d.c.count() == before {
			d.c.add(v.at, "add `default: allow`, `default: deny` or `like: previous`, or write `expect: computed`", "expect has no default")
		}
	default:
		d.c.add(v.get("default").at, "write allow, deny, undefined or computed", "the default %q is not a verdict", e.Default)
	}
}

// Rule is an exception of an expected table.
type Rule struct {
	// From selects cells by where they come from, as in probes.
	From string `json:"from"`
	// To selects cells by where they go. A connection through a service matches by the service's name and by its pods.
	To string `json:"to"`
	// Ports restrict the rule to these ports of the destination.
	Ports []PortRef `json:"ports,omitempty"`
	// Via restricts the rule to connections of this way: podIP, service or nodePort.
	Via string `json:"via,omitempty" jsonschema:"enum=podIP,enum=service,enum=nodePort"`
	// Verdict is allow, deny, or undefined where the specification leaves the case open.
	Verdict string `json:"verdict" jsonschema:"enum=allow,enum=deny,enum=undefined"`
	// Except are sources that the rule does not speak of, as in From.
	Except []string `json:"except,omitempty"`
	// By says which side must be the one that refuses: ingress, egress or both.
	By string   `json:"by,omitempty" jsonschema:"enum=ingress,enum=egress,enum=both"`
	At Position `json:"-"`

	from, to            pattern
	fromAt, toAt, viaAt Position
	except              []pattern
	// groups are those of namespaces that the rule keeps apart, nil for other rules.
	groups [][]pattern
	// apart is what they are made of, and apartAt where it stands.
	apart   *Isolate
	apartAt *value
	// outside is set for rules from outside the folder.
	outside *outsideRule
}

// Assertions is the content of netproof.yaml, which says what must hold in a folder of plain manifests. What it does
// not speak of is computed from the policies.
type Assertions struct {
	// APIVersion is netproof.dev/v1alpha1.
	APIVersion string `json:"apiVersion" jsonschema:"enum=netproof.dev/v1alpha1"`
	// Kind is Assertions.
	Kind string `json:"kind" jsonschema:"enum=Assertions"`
	// Metadata names the scenario that the folder becomes. Without it, the folder's name is taken.
	Metadata Metadata `json:"metadata,omitempty"`
	// Spec has the assertions.
	Spec AssertionsSpec `json:"spec"`
	At   Position       `json:"-"`
}

// AssertionsSpec has the assertions about a folder of plain manifests, once all of its policies are applied. Each
// workload is spoken of as a pod with its namespace and name, such as shop/web.
type AssertionsSpec struct {
	// Description says in a sentence what the folder's policies are for.
	Description string `json:"description,omitempty"`
	// Source is where the rules below come from.
	Source string `json:"source,omitempty"`
	// Hosts are addresses outside the cluster that policies or rules speak of.
	Hosts []Host `json:"hosts,omitempty"`
	// Strangers are whom the folder does not mention and who is asked about all the same: pods (one without labels in
	// each namespace), namespace (a pod in a namespace of its own), node, outside (an address outside the cluster, and
	// addresses inside and just outside of each ipBlock). Without it, all of them; none where probes are named.
	Strangers []string `json:"strangers,omitempty"`
	// Probes are the connections that are tried, instead of every pod to every other; or a word for the ports on which
	// every pod asks every other: boundary (those that are declared, and those at the edges of ranges and numbers in
	// policies) or declared. Without it the edges are those of ranges.
	Probes FolderProbes `json:"probes,omitempty"`
	// Steps are the order in which the policies will be applied; each of them is in one step. Without it all are
	// applied at once. Intents and rules speak of the last step.
	Steps []RollOut `json:"steps,omitempty"`
	// Intents say in plain words what must hold. Each is judged on its own, and two that contradict each other are an
	// error.
	Intents []Intent `json:"intents,omitempty"`
	// Rules must hold as well, in the form that scenarios have. Their order does not matter here.
	Rules []Rule   `json:"rules,omitempty"`
	At    Position `json:"-"`

	// strangersAt is where the strangers are named, nil if they are not, and stepsAt where the steps are.
	strangersAt, stepsAt *value
}

// RollOut is a step in which some of a folder's policies are applied.
type RollOut struct {
	// Name says what the step does.
	Name string `json:"name"`
	// Apply are the policies: files of the folder such as 00-deny.yaml or allow-*.yaml, or NetworkPolicy/x/deny.
	Apply []string `json:"apply"`
	At    Position `json:"-"`
}

// Intent is one thing that must hold: allow, deny or isolate, one of them.
type Intent struct {
	// Allow are connections that must work.
	Allow *Between `json:"allow,omitempty"`
	// Deny are connections that must not work.
	Deny *Between `json:"deny,omitempty"`
	// Isolate keeps groups of namespaces apart: nothing in one reaches anything in another.
	Isolate *Isolate `json:"isolate,omitempty"`
	At      Position `json:"-"`
}

// Between are connections.
type Between struct {
	// From is where they come from: "*" for every pod, x/*, */a, label:app=web, x/a, node:0, host:NAME, or an address.
	From string `json:"from"`
	// To is where they go, in the same way.
	To string `json:"to"`
	// Ports of the destination; without it all that it serves.
	Ports []PortRef `json:"ports,omitempty"`
	// Via is the way to the destination: podIP, service or nodePort.
	Via string `json:"via,omitempty" jsonschema:"enum=podIP,enum=service,enum=nodePort"`
	// Except are sources that are not meant.
	Except []string `json:"except,omitempty"`
	// By says which side must be the one that refuses, whatever the other does: ingress, egress or both.
	By string   `json:"by,omitempty" jsonschema:"enum=ingress,enum=egress,enum=both"`
	At Position `json:"-"`
}

// Isolate are groups of namespaces, by their names or by a label.
type Isolate struct {
	// Namespaces are names or patterns such as dev and prod-*; each is a group.
	Namespaces []string `json:"namespaces,omitempty"`
	// Label is that of namespaces; those with one value are a group.
	Label string `json:"label,omitempty"`
	// Except are sources that are not meant, such as monitoring/*.
	Except []string `json:"except,omitempty"`
	At     Position `json:"-"`
}

func (p *Probe) decodeFrom(d *decoder, v *value) {
	before := d.c.count()
	type plain Probe
	d.structure(v, valueOf((*plain)(p)), "a probe")
	p.fromAt, p.toAt, p.viaAt = keyPlaces(v)
	p.from, p.to = parseEnds(d, v, before, p.fromAt, p.toAt, p.From, p.To)
	checkVia(d.c, p.viaAt, p.Via)
}

func (r *Rule) decodeFrom(d *decoder, v *value) {
	before := d.c.count()
	type plain Rule
	d.structure(v, valueOf((*plain)(r)), "a rule")
	if v.kind != mappingValue {
		return
	}
	r.fromAt, r.toAt, r.viaAt = keyPlaces(v)
	r.from, r.to = parseEnds(d, v, before, r.fromAt, r.toAt, r.From, r.To)
	r.except = parseAll(d.c, v.get("except"), r.Except)
	checkVia(d.c, r.viaAt, r.Via)
	switch model.Verdict(r.Verdict) {
	case model.Allow, model.Deny, model.Undefined:
	case "":
		if d.c.count() == before {
			d.c.add(v.at, "add `verdict: allow` or `verdict: deny`", "the rule has no verdict")
		}
	default:
		d.c.add(v.get("verdict").at, "write allow, deny or undefined", "%q is not a verdict", shorten(r.Verdict))
	}
	if r.By == "" {
		return
	}
	sides := []string{string(model.ByIngress), string(model.ByEgress), string(model.ByBoth)}
	switch {
	case !slices.Contains(sides, r.By):
		d.c.add(v.get("by").at, "write ingress, egress or both", "%q is not a side of a connection", shorten(r.By))
	case r.Verdict != string(model.Deny):
		d.c.add(v.keyAt("by"), "remove by, or write `verdict: deny`", "`by` says which side refuses, and the rule does not deny")
	}
}

// parseAll reads a list of patterns.
func parseAll(c *collector, list *value, texts []string) (out []pattern) {
	for i, text := range texts {
		if list == nil || i >= len(list.items) {
			break
		}
		if p := parsePattern(c, list.items[i].at, text); p.kind != noPattern {
			out = append(out, p)
		}
	}
	return out
}

// keyPlaces finds the values of from, to and via.
func keyPlaces(v *value) (from, to, via Position) {
	place := func(key string) Position {
		if inner := v.get(key); inner != nil {
			return inner.at
		}
		return v.at
	}
	return place("from"), place("to"), place("via")
}

// parseEnds reads both patterns of a probe or a rule. A pattern of the wrong type was reported already, and a key that
// is misspelled is not missing: before is the number of problems before the keys were read.
func parseEnds(d *decoder, v *value, before int, fromAt, toAt Position, from, to string) (f, t pattern) {
	if v.kind != mappingValue {
		return f, t
	}
	spelled := d.c.count() == before
	read := func(key string, at Position, text string) pattern {
		inner := v.get(key)
		if inner == nil && !spelled {
			return pattern{}
		}
		if inner == nil {
			d.c.add(at, fmt.Sprintf("add `%s: \"*\"`", key), "`%s` is missing", key)
			return pattern{}
		}
		if text == "" && (inner.kind != scalarValue || inner.nonText() != "") {
			return pattern{}
		}
		return parsePattern(d.c, at, text)
	}
	return read("from", fromAt, from), read("to", toAt, to)
}

func (s *Step) decodeFrom(d *decoder, v *value) {
	type plain Step
	d.structure(v, valueOf((*plain)(s)), "a step")
	if v.kind != mappingValue {
		return
	}
	s.nameAt = v.at
	if name := v.get("name"); name != nil {
		s.nameAt = name.at
	}
	if list := v.get("delete"); list != nil && list.kind == listValue {
		for _, item := range list.items {
			s.deleteAt = append(s.deleteAt, item.at)
		}
	}
}
