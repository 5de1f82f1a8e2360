package scenario

import (
	"cmp"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/plain"
	"github.com/netproof/netproof/harness/policy"
)

// The steps of a scenario that is made of plain manifests.
const (
	// OpenStep comes first: every workload reaches every other.
	OpenStep = "before any policy"
	// PoliciesStep applies all policies at once.
	PoliciesStep = "policies"
)

// standInPort is served by a stand-in where nothing tells what the workload serves.
var standInPort = Port{Port: 8080, Protocol: string(model.TCP)}

// plainFolder makes one scenario out of plain manifests: the policies are applied, and each workload is stood in for by
// a probe pod with its namespace, name, labels and ports.
type plainFolder struct {
	*loader
	s *Scenario
	// pods, namespaces and services as they are found, with the objects they come from.
	stand      []*standIn
	namespaces map[string]*Namespace
	policies   []*object
	services   []*object
	// left is true when labels of a namespace were left out.
	left bool
	// passedOver counts objects that say nothing about connections, by kind.
	passedOver map[string]int
}

// standIn is a workload and the pod that stands for it.
type standIn struct {
	object *object
	pod    Pod
}

// plain makes the scenario, or returns nil when there is no policy.
func (l *loader) plain(root source, manifests []*manifest, assertions *manifest) *Scenario {
	before := l.count()
	f := &plainFolder{loader: l, s: &Scenario{APIVersion: model.APIVersion, Kind: Kind, File: root.shown, Plain: true}, namespaces: map[string]*Namespace{}, passedOver: map[string]int{}}
	f.s.At = root.start()
	l.keepExpected(f.s, root.join("expected.txt"))
	broken := false
	for _, m := range manifests {
		for _, o := range l.objectsOf(m) {
			f.sort(o)
		}
		broken = broken || m.broken
	}
	if len(f.passedOver) > 0 {
		f.s.Notes = append(f.s.Notes, noteOf(root.shown, f.passedOver))
	}
	f.s.Metadata = Metadata{Name: l.folderName(root.shown), At: f.s.At}
	asserted := f.assertions(assertions)
	f.s.narrowed = len(asserted.Probes) > 0
	l.outside.addTo(asserted)
	// Without a workload there is nobody whom a policy that is left out could matter to.
	none := len(f.policies) == 0 && (len(f.s.LeftOut) == 0 || len(f.stand) == 0)
	if none && assertions == nil {
		return nil
	}
	if none && l.count() == before {
		l.add(assertions.start(), "add the policies that it speaks of to the folder", "netproof.yaml asserts something about a folder without policies")
	}
	f.selectsByPodSecurity()
	f.workloads()
	f.topology()
	f.steps(asserted)
	f.s.broken = broken || l.count() > before
	if none {
		return nil
	}
	return f.s
}

// sort puts an object where it belongs.
func (f *plainFolder) sort(o *object) {
	switch o.role {
	case policyRole:
		f.policies = append(f.policies, o)
	case workloadRole:
		f.stand = append(f.stand, &standIn{object: o})
	case serviceRole:
		f.services = append(f.services, o)
	case namespaceRole:
		f.namespaceObject(o)
	case scenarioRole:
		f.add(o.at, "name the file scenario.yaml or NAME.scenario.yaml, or give it as a path of its own", "a scenario stands in a file that is not named as one")
	case assertionsRole:
		f.add(o.at, "name the file netproof.yaml and put it into the folder that is given", "assertions stand in a file that is not named netproof.yaml")
	default:
		if u, ok := unjudgedOf(o); ok {
			f.leave(u)
			return
		}
		f.passedOver[o.gvk.Kind]++
	}
}

// leave leaves out a policy of a kind that is not applied.
func (f *plainFolder) leave(u Unjudged) {
	f.s.LeftOut = append(f.s.LeftOut, u)
	f.leftOut = append(f.leftOut, u)
	f.s.Warnings = append(f.s.Warnings, problemAt(u.Source, "", "%s is left out: netproof does not apply policies of %s, so nothing is proven about it",
		u.ref(), u.Group))
}

// mostKinds is how many kinds a note names.
const mostKinds = 8

// noteOf says of which kinds objects were passed over, and how many of each, those of most objects first.
func noteOf(folder string, passedOver map[string]int) string {
	kinds := keys(passedOver)
	slices.SortStableFunc(kinds, func(a, b string) int { return cmp.Compare(passedOver[b], passedOver[a]) })
	total, others := 0, 0
	var parts []string
	for i, kind := range kinds {
		total += passedOver[kind]
		if i < mostKinds {
			parts = append(parts, fmt.Sprintf("%d of kind %s", passedOver[kind], kind))
		} else {
			others += passedOver[kind]
		}
	}
	if others > 0 {
		parts = append(parts, fmt.Sprintf("%d of others", others))
	}
	what := "1 object is"
	if total > 1 {
		what = fmt.Sprintf("%d objects are", total)
	}
	return plain.Text(fmt.Sprintf("%s: %s neither a policy nor a workload: %s", folder, what, strings.Join(parts, ", ")))
}

func (f *plainFolder) namespaceObject(o *object) {
	at := o.tree.get("metadata").get("name").at
	if !checkNamespaceName(&f.collector, at, o.name) {
		return
	}
	if other, twice := f.namespaces[o.name]; twice {
		f.add(at, "keep one of them", "duplicate %s: see %s", o, other.At.Short())
		return
	}
	if where := o.tree.get("metadata").get("labels"); where != nil {
		checkLabels(&f.collector, where, withValues(o.meta.Labels))
	}
	f.namespaces[o.name] = &Namespace{Name: o.name, Labels: f.withoutPodSecurity(o), At: o.at}
}

// withoutPodSecurity are the labels of a namespace without those that say what pods it admits. They are common in
// manifests, mean nothing to a network policy, and must not reach a cluster that others use. A policy that selects by
// them is refused.
func (f *plainFolder) withoutPodSecurity(o *object) map[string]string {
	out := maps.Clone(o.meta.Labels)
	maps.DeleteFunc(out, func(key, _ string) bool { return strings.HasPrefix(key, podSecurityLabels) })
	f.left = f.left || len(out) < len(o.meta.Labels)
	return out
}

// selectsByPodSecurity reports policies that speak of labels that were left out.
func (f *plainFolder) selectsByPodSecurity() {
	for _, o := range f.policies {
		if at := findText(o.tree.get("spec"), podSecurityLabels); f.left && at != nil {
			f.add(at.at, "select the namespaces by another label", "%s selects by a label `%s...`, and those are not set for a proof", o, podSecurityLabels)
		}
	}
}

// findText finds a key or a value that holds a text, nil if there is none.
func findText(v *value, text string) *value {
	if v == nil {
		return nil
	}
	if strings.Contains(v.text, text) {
		return v
	}
	for _, item := range v.items {
		if found := findText(item, text); found != nil {
			return found
		}
	}
	for _, e := range v.entries {
		if found := findText(e.key, text); found != nil {
			return found
		}
		if found := findText(e.value, text); found != nil {
			return found
		}
	}
	return nil
}

// folderName makes the name of a scenario out of the name of a folder.
func (l *loader) folderName(root string) string {
	name := root
	if l.fsys == nil {
		if abs, err := filepath.Abs(root); err == nil {
			name = abs
		}
	}
	name = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '.':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '-'
	}, filepath.Base(name))
	return cmp.Or(strings.Trim(name, "-."), "manifests")
}

// assertions reads netproof.yaml.
func (f *plainFolder) assertions(m *manifest) *AssertionsSpec {
	if m == nil {
		return &AssertionsSpec{}
	}
	a, root, ok := f.readAssertions(m)
	if !ok {
		return &AssertionsSpec{}
	}
	if meta := root.get("metadata"); meta != nil && meta.kind == mappingValue {
		if meta.get("name") == nil {
			a.Metadata.Name = f.s.Metadata.Name
		}
		f.checkMetadata(&a.Metadata, root)
		f.s.Metadata = a.Metadata
	}
	return &a.Spec
}

// The parts of workloads that a probe pod can stand in for.
type (
	podTemplate struct {
		Metadata templateMeta `json:"metadata"`
		Spec     podSpec      `json:"spec"`
	}
	templateMeta struct {
		Labels map[string]string `json:"labels"`
	}
	podSpec struct {
		HostNetwork    bool        `json:"hostNetwork"`
		Containers     []container `json:"containers"`
		InitContainers []container `json:"initContainers"`
	}
	container struct {
		Name          string          `json:"name"`
		Ports         []containerPort `json:"ports"`
		RestartPolicy string          `json:"restartPolicy"`
	}
	containerPort struct {
		Name          string   `json:"name"`
		ContainerPort int      `json:"containerPort"`
		Protocol      string   `json:"protocol"`
		At            Position `json:"-"`
	}
)

// workloads turns workloads into pods.
func (f *plainFolder) workloads() {
	seen := map[policy.Ref]*object{}
	names := map[string]int{}
	for _, s := range f.stand {
		names[s.object.namespace+"/"+s.object.name]++
	}
	f.stand = slices.DeleteFunc(f.stand, func(s *standIn) bool {
		o := s.object
		if other, twice := seen[o.key()]; twice {
			f.add(o.at, "keep one of them", "duplicate %s: see %s", o, other.at.Short())
			return true
		}
		seen[o.key()] = o
		f.standInFor(s)
		if names[o.namespace+"/"+o.name] > 1 {
			// A Deployment and a Job of one name: both get their kind as a suffix, so that neither depends on the
			// other.
			s.pod.Name += "-" + strings.ToLower(o.gvk.Kind)
		}
		return false
	})
}

func (f *plainFolder) standInFor(s *standIn) {
	o := s.object
	template := templateOf(o)
	s.pod = Pod{Name: o.namespace + "/" + o.name, At: o.at}
	if template == nil {
		f.add(o.at, "add the pod's template below spec", "the %s has no pod template", o.gvk.Kind)
		return
	}
	var t podTemplate
	(&decoder{c: &f.collector, lenient: true}).decode(template, &t, o.gvk.Kind)
	s.pod.Labels = t.Metadata.Labels
	if where := template.get("metadata").get("labels"); where != nil {
		checkLabels(&f.collector, where, withValues(s.pod.Labels))
	}
	f.checkSelector(o, s.pod.Labels)
	s.pod.Labels = withControllerLabels(o, s.pod.Labels)
	s.pod.HostNetwork = t.Spec.HostNetwork
	for _, c := range t.Spec.Containers {
		f.addPorts(s, c.Ports)
	}
	for _, c := range t.Spec.InitContainers {
		if c.RestartPolicy == string(corev1.ContainerRestartPolicyAlways) { // a sidecar
			f.addPorts(s, c.Ports)
		}
	}
}

// templateOf finds the pod template of a workload; a pod is its own.
func templateOf(o *object) *value {
	spec := o.tree.get("spec")
	switch o.gvk.Kind {
	case "Pod":
		return o.tree
	case "CronJob":
		return spec.get("jobTemplate").get("spec").get("template")
	}
	return spec.get("template")
}

// checkSelector reports a workload that the API server would refuse because it does not select its own pods.
func (f *plainFolder) checkSelector(o *object, podLabels map[string]string) {
	where := o.tree.get("spec").get("selector")
	if o.gvk.Group != "apps" || where == nil || where.kind != mappingValue {
		return
	}
	var s metav1.LabelSelector
	(&decoder{c: &f.collector}).decode(where, &s, "spec.selector")
	selector, err := metav1.LabelSelectorAsSelector(&s)
	if err != nil {
		f.add(where.at, "write a label selector", "the selector of %s is wrong: %v", o, err)
		return
	}
	if !selector.Matches(labels.Set(podLabels)) {
		f.add(where.at, "give the template the labels of the selector", "%s does not select its own pods", o)
	}
}

// withControllerLabels adds the labels that controllers put on pods and that policies can select by. Labels with
// generated values, such as pod-template-hash, are left out.
func withControllerLabels(o *object, podLabels map[string]string) map[string]string {
	out := map[string]string{}
	switch o.gvk.Kind {
	case "StatefulSet":
		out["statefulset.kubernetes.io/pod-name"] = o.name + "-0"
		out["apps.kubernetes.io/pod-index"] = "0"
	case "Job":
		out["batch.kubernetes.io/job-name"] = o.name
		out["job-name"] = o.name
	}
	for k, v := range podLabels {
		out[k] = v
	}
	return out
}

func (f *plainFolder) addPorts(s *standIn, ports []containerPort) {
	for _, p := range ports {
		if p.ContainerPort == 0 && f.reportedOn(p.At) {
			continue // it is not a number
		}
		if p.ContainerPort == 0 {
			f.add(p.At, "add `containerPort: 80`", "the port of %s has no number", s.object)
			continue
		}
		if !checkPortNumber(&f.collector, p.At, p.ContainerPort) {
			continue
		}
		if p.Name != "" && !checkPortName(&f.collector, p.At, p.Name) {
			continue
		}
		protocol := p.Protocol
		if protocol != "" && checkProtocol(&f.collector, p.At, protocol) == "" {
			continue
		}
		s.serve(Port{Name: p.Name, Port: p.ContainerPort, Protocol: cmp.Or(protocol, string(model.TCP)), At: p.At})
	}
}

// serve adds a port unless the pod serves it already.
func (s *standIn) serve(port Port) {
	for i := range s.pod.Ports {
		have := &s.pod.Ports[i]
		if have.Port == port.Port && have.Protocol == port.Protocol {
			have.Name = cmp.Or(have.Name, port.Name)
			return
		}
		if port.Name != "" && have.Name == port.Name {
			port.Name = "" // two containers may use one name; a pod's policy means the first
		}
	}
	s.pod.Ports = append(s.pod.Ports, port)
}

// topology puts together what exists before the first step.
func (f *plainFolder) topology() {
	t := &f.s.Spec.Topology
	t.At = f.s.At
	for _, s := range f.stand {
		namespace := s.object.namespace
		if _, ok := f.namespaces[namespace]; !ok {
			at := s.object.at
			if written := s.object.tree.get("metadata").get("namespace"); written != nil {
				at = written.at
			}
			if checkNamespaceName(&f.collector, at, namespace) {
				f.namespaces[namespace] = &Namespace{Name: namespace, At: at}
			}
		}
	}
	for _, name := range keys(f.namespaces) {
		t.Namespaces = append(t.Namespaces, *f.namespaces[name])
	}
	for _, o := range f.services {
		f.service(o)
	}
	for _, s := range f.stand {
		f.guessPorts(s)
		t.Pods = append(t.Pods, s.pod)
	}
	slices.SortStableFunc(t.Pods, func(a, b Pod) int { return cmp.Compare(a.Name, b.Name) })
}

// The parts of services that matter here.
type (
	serviceSpec struct {
		Selector  map[string]string `json:"selector"`
		Ports     []servicePort     `json:"ports"`
		Type      string            `json:"type"`
		ClusterIP string            `json:"clusterIP"`
	}
	servicePort struct {
		Name       string             `json:"name"`
		Port       int                `json:"port"`
		TargetPort intstr.IntOrString `json:"targetPort"`
		Protocol   string             `json:"protocol"`
		At         Position           `json:"-"`
	}
)

// service takes over a service that leads to stand-ins. A number that it leads to is served by them: container ports
// are informational, and often left out.
func (f *plainFolder) service(o *object) {
	var spec serviceSpec
	where := o.tree.get("spec")
	if where == nil {
		f.add(o.at, "add `spec:` with selector and ports", "%s has no spec", o)
		return
	}
	(&decoder{c: &f.collector, lenient: true}).decode(where, &spec, "spec")
	ignore := func(why string) {
		f.s.Warnings = append(f.s.Warnings, problemAt(o.at, "", "%s is ignored: %s", o, why))
	}
	var behind []*standIn
	for _, s := range f.stand {
		if s.object.namespace == o.namespace && labels.SelectorFromSet(spec.Selector).Matches(labels.Set(s.pod.Labels)) {
			behind = append(behind, s)
		}
	}
	switch {
	case len(spec.Selector) == 0:
		ignore("it has no selector")
		return
	case len(behind) == 0:
		ignore("it selects no workload of the folder")
		return
	}
	out := Service{Name: o.namespace + "/" + o.name, Selector: spec.Selector, At: o.at}
	if spec.Type == "NodePort" {
		out.Type = spec.Type
	}
	for _, p := range spec.Ports {
		protocol := cmp.Or(p.Protocol, string(model.TCP))
		if !checkPortNumber(&f.collector, p.At, p.Port) || checkProtocol(&f.collector, p.At, protocol) == "" {
			continue
		}
		target := p.Port
		switch {
		case p.TargetPort.Type == intstr.String && p.TargetPort.StrVal != "":
			if !slices.ContainsFunc(behind, func(s *standIn) bool { return s.hasNamed(p.TargetPort.StrVal, protocol) }) {
				f.s.Warnings = append(f.s.Warnings, problemAt(p.At, "give a container a port of this name",
					"port %d of %s is ignored: no workload behind it has a port `%s`", p.Port, o, p.TargetPort.StrVal))
				continue
			}
			out.Ports = append(out.Ports, ServicePort{Name: p.Name, Port: p.Port, Protocol: protocol, TargetPort: IntOrName(p.TargetPort.StrVal), At: p.At})
			continue
		case p.TargetPort.IntVal != 0:
			target = int(p.TargetPort.IntVal)
			if !checkPortNumber(&f.collector, p.At, target) {
				continue
			}
		}
		for _, s := range behind {
			s.serve(Port{Port: target, Protocol: protocol, At: p.At})
		}
		out.Ports = append(out.Ports, ServicePort{Name: p.Name, Port: p.Port, Protocol: protocol, TargetPort: IntOrName(strconv.Itoa(target)), At: p.At})
	}
	switch {
	case spec.ClusterIP == corev1.ClusterIPNone:
		ignore("a headless service has no address of its own; its pods are probed anyway")
	case len(out.Ports) > 0:
		f.s.Spec.Topology.Services = append(f.s.Spec.Topology.Services, out)
	}
}

func (s *standIn) hasNamed(name, protocol string) bool {
	return slices.ContainsFunc(s.pod.Ports, func(p Port) bool { return p.Name == name && p.Protocol == protocol })
}

// guessPorts gives a stand-in ports when neither its containers nor a service name any: those that policies admit to
// it, or one that shows at least whether it can be reached.
func (f *plainFolder) guessPorts(s *standIn) {
	if len(s.pod.Ports) > 0 {
		return
	}
	for _, o := range f.policies {
		if o.policy == nil || o.namespace != s.object.namespace {
			continue
		}
		selector, err := metav1.LabelSelectorAsSelector(&o.policy.Spec.PodSelector)
		if err != nil || !selector.Matches(labels.Set(s.pod.Labels)) {
			continue
		}
		for _, rule := range o.policy.Spec.Ingress {
			for _, p := range rule.Ports {
				s.serveAdmitted(p)
			}
		}
	}
	if len(s.pod.Ports) == 0 {
		s.pod.Ports = []Port{standInPort}
	}
	var list []string
	for _, p := range s.pod.Ports {
		list = append(list, p.model().String())
	}
	f.s.Warnings = append(f.s.Warnings, problemAt(s.object.at, "add `ports` to its container", "%s declares no port: its stand-in serves %s", s.object, strings.Join(list, ", ")))
}

func (s *standIn) serveAdmitted(p networkingv1.NetworkPolicyPort) {
	if p.Port == nil || p.Port.Type != intstr.Int {
		return
	}
	protocol := corev1.ProtocolTCP
	if p.Protocol != nil {
		protocol = *p.Protocol
	}
	s.serve(Port{Port: int(p.Port.IntVal), Protocol: string(protocol)})
}

// steps are the open cluster, and all policies at once.
func (f *plainFolder) steps(asserted *AssertionsSpec) {
	spec := &f.s.Spec
	spec.At, spec.Description, spec.Source, spec.Topology.Hosts = f.s.At, asserted.Description, asserted.Source, asserted.Hosts
	if spec.Description == "" {
		spec.Description = fmt.Sprintf("The policies of %s, applied to stand-ins of its workloads.", f.s.File)
	}
	spec.Probes = f.probes(asserted)
	at := f.s.At
	policies := Step{Name: PoliciesStep, At: at, nameAt: at, policies: true, Expect: &Expect{Default: computed, Rules: asserted.Rules, At: at, defaultAt: at}}
	for _, o := range f.policies {
		policies.Apply = append(policies.Apply, Apply{At: o.at, objects: []*object{o}})
	}
	spec.Steps = []Step{
		{Name: OpenStep, At: at, nameAt: at, Expect: &Expect{Default: computed, At: at, defaultAt: at}},
		policies,
	}
}

// probes are those that netproof.yaml names, or every pod to every other, and what rules speak of beyond that:
// services, nodes and hosts, and whatever rules from outside the folder speak of.
func (f *plainFolder) probes(asserted *AssertionsSpec) []Probe {
	out := asserted.Probes
	if len(out) == 0 {
		out = []Probe{{
			From: "*", To: "*", At: f.s.At, fromAt: f.s.At, toAt: f.s.At, viaAt: f.s.At,
			from: pattern{text: "*", kind: everyPattern}, to: pattern{text: "*", kind: everyPattern},
		}}
	}
	before := len(out)
	isSpecial := func(p pattern) bool { return p.kind == nodePattern || p.kind == hostPattern }
	for _, r := range asserted.Rules {
		via := model.Via(r.Via)
		itself := r.from.exact() && r.From == r.To
		beyond := via == model.ViaService || via == model.ViaNodePort || isSpecial(r.from) || isSpecial(r.to) || itself
		if r.outside != nil && f.s.narrowed || beyond && !f.s.narrowed {
			out = append(out, Probe{
				From: r.From, To: r.To, Ports: r.Ports, Via: r.Via, At: r.At, from: r.from, to: r.to, fromAt: r.fromAt, toAt: r.toAt, viaAt: r.viaAt, ofRule: true,
			})
		}
	}
	if len(out) == before && !f.s.narrowed {
		return nil
	}
	return out
}
