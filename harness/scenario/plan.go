package scenario

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/policy"
)

// Plan is what a run does with a scenario.
type Plan struct {
	Scenario *Scenario
	Families []model.IPFamily
	// Initial is the topology before the first step, without addresses.
	Initial model.Topology
	// TopologyKey is equal for two plans whose initial topologies are: a run may keep the pods from one to the next.
	TopologyKey string
	Steps       []PlannedStep
	// Strangers are the endpoints that a folder of manifests does not mention, and is asked about all the same.
	Strangers []model.Endpoint
	// Vacuous names, with file and line, each policy about which nothing is proven: one that selects no pod in any
	// step, one that the specification does not know while all cells of its steps are left open, and one that is left
	// out where no other is applied. A scenario with such a policy is not a pass.
	Vacuous []string
	// Unproven says what a green run of the plan would leave unproven: rules that decide nothing, connections that
	// narrowed probes leave out, policies that no probe meets or that are left out, a scenario without a policy. It
	// makes a strict run vacuous.
	Unproven []string
}

// PlannedStep is one step: what changes, and what holds from then on.
type PlannedStep struct {
	Name string
	At   Position
	// Changes in the order in which they are made.
	Changes []Change
	// Topology after the changes, without addresses.
	Topology model.Topology
	// InForce are the policies after the changes, in the order in which they were first applied.
	InForce []ApplyObject
	// Unjudged are those of the policies in force that the specification of NetworkPolicy says nothing about and that
	// may decide connections, and after them those of the folder that a run leaves out.
	Unjudged []Unjudged
	// Cells of the truth table, in the order of the topology.
	Cells []PlannedCell
	// Computed is true when the step leaves cells to the specification.
	Computed bool
}

// PlannedCell is one cell of a truth table and what the scenario says of it.
type PlannedCell struct {
	Connection model.Connection
	// Expected is allow, deny or undefined, and empty when the scenario leaves it to the specification.
	Expected model.Verdict
	// By is the side that must be the one that refuses, if the scenario says.
	By model.Side
	// Rule is file and line of what decides the cell.
	Rule string
	// Like is true for a cell that has the verdict of the step before, which is in Expected as far as it is written.
	Like bool
}

// Change is one change of a step: [ApplyObject], [DeleteObject], [SetPodLabels], [SetNamespaceLabels], [CreatePods] or
// [RemovePods].
type Change interface {
	fmt.Stringer
	change()
}

// ApplyObject creates or updates a policy.
type ApplyObject struct {
	// Object may hold placeholders: see [Resolve]. It must not be changed.
	Object *unstructured.Unstructured
	// Source is where the object was read.
	Source Position
	// Policy is the object in typed form, also with its placeholders; nil for other kinds than NetworkPolicy. It is
	// shared between plans, and must not be changed.
	Policy *networkingv1.NetworkPolicy
	// NeedsAddresses is true when the object holds placeholders.
	NeedsAddresses bool

	// written is the object with the places of its parts.
	written *value
}

// DeleteObject deletes a policy that was applied.
type DeleteObject struct{ policy.Ref }

// SetPodLabels gives a running pod new labels.
type SetPodLabels struct {
	Pod model.Endpoint
	// Labels are all of the pod's labels from then on.
	Labels model.Labels
}

// SetNamespaceLabels gives a namespace new labels.
type SetNamespaceLabels struct {
	Namespace string
	// Labels are all of the namespace's labels from then on.
	Labels model.Labels
}

// CreatePods makes pods appear.
type CreatePods struct {
	Pods []model.Pod
}

// RemovePods makes pods go.
type RemovePods struct {
	Pods []model.Endpoint
}

func (ApplyObject) change()        {}
func (DeleteObject) change()       {}
func (SetPodLabels) change()       {}
func (SetNamespaceLabels) change() {}
func (CreatePods) change()         {}
func (RemovePods) change()         {}

// Lines says where the rules of a NetworkPolicy stand, as file and line: those of ingress[0], and of its peers and
// ports, ingress[0].from[1] and ingress[0].ports[0].
func (a ApplyObject) Lines() map[string]string {
	out := map[string]string{}
	spec := a.written.get("spec")
	list := func(v *value, key, name string, each func(v *value, name string)) {
		items := v.get(key)
		if items == nil {
			return
		}
		for i, item := range items.items {
			at := fmt.Sprintf("%s[%d]", name, i)
			out[at] = item.at.Short()
			if each != nil {
				each(item, at)
			}
		}
	}
	for direction, peers := range map[string]string{"ingress": "from", "egress": "to"} {
		list(spec, direction, direction, func(v *value, name string) {
			list(v, peers, name+"."+peers, nil)
			list(v, "ports", name+".ports", nil)
		})
	}
	return out
}

// Ref names the object.
func (a ApplyObject) Ref() policy.Ref { return policy.RefOf(a.Object) }

// String says what is applied.
func (a ApplyObject) String() string {
	return fmt.Sprintf("apply %s (%s)", a.Ref(), a.Source.Short())
}

// String says what is deleted.
func (d DeleteObject) String() string { return "delete " + d.Ref.String() }

// String says what is labelled.
func (s SetPodLabels) String() string {
	return fmt.Sprintf("label pod %s %s", s.Pod, labels.Set(s.Labels))
}

// String says what is labelled.
func (s SetNamespaceLabels) String() string {
	return fmt.Sprintf("label namespace %s %s", s.Namespace, labels.Set(s.Labels))
}

// String says what is created.
func (c CreatePods) String() string {
	names := make([]string, len(c.Pods))
	for i := range c.Pods {
		names[i] = string(c.Pods[i].Endpoint())
	}
	return "create pods " + strings.Join(names, ", ")
}

// String says what is removed.
func (r RemovePods) String() string {
	names := make([]string, len(r.Pods))
	for i := range r.Pods {
		names[i] = string(r.Pods[i])
	}
	return "remove pods " + strings.Join(names, ", ")
}

// Plan turns the scenario into what a run needs, on a cluster with these IP families and this number of nodes; 0 nodes
// when it is not known. Pods without a node are spread over the nodes in their order; with 0 nodes their index stays
// -1.
//
// The error is a [Problems]: the scenario needs more nodes than there are.
func (s *Scenario) Plan(families []model.IPFamily, nodes int) (*Plan, error) {
	p := newPlanner(s, families, nodes)
	plan := p.plan()
	if len(p.problems) > 0 {
		return nil, p.problems.sorted()
	}
	return plan, nil
}

// Whole is a plan of all workloads of the scenario, also of those that others stand for, without cells: for questions
// about any of them. The error is that of [Scenario.Plan].
func (s *Scenario) Whole(families []model.IPFamily, nodes int) (*Plan, error) {
	p := newPlanner(s, families, nodes)
	p.whole = true
	plan := p.plan()
	if len(p.problems) > 0 {
		return nil, p.problems.sorted()
	}
	return plan, nil
}

// MaxNode is the highest index of a node that the scenario names, -1 if it names none.
func (s *Scenario) MaxNode() int {
	highest := -1
	pod := func(p Pod) {
		if p.Node != nil {
			highest = max(highest, *p.Node)
		}
	}
	end := func(p pattern) {
		if p.kind == nodePattern {
			highest = max(highest, p.node)
		}
	}
	for _, p := range s.Spec.Topology.Pods {
		pod(p)
	}
	for _, p := range s.Spec.Probes {
		end(p.from)
	}
	for _, step := range s.Spec.Steps {
		if step.Create != nil {
			for _, p := range step.Create.Pods {
				pod(p)
			}
		}
		for _, p := range step.Probes {
			end(p.from)
		}
		for _, a := range step.Apply {
			for _, o := range a.objects {
				for _, ph := range o.placeholders {
					if i, ok := ph.endpoint.NodeIndex(); ok {
						highest = max(highest, i)
					}
				}
			}
		}
	}
	return highest
}

// ExpectedFile is the path of the file that keeps the computed table of the scenario: see [FormatExpected].
func (s *Scenario) ExpectedFile() string { return s.expectedFile }

// Expected is the content of that file when the scenario was loaded. ok is false if there was none.
func (s *Scenario) Expected() (content []byte, ok bool) { return s.expected, s.hasExpected }

// Unasserted tells whether nobody has said what a folder of plain manifests is to do: there is no rule, and no reviewed
// table.
func (s *Scenario) Unasserted() bool {
	return s.Plain && !s.hasExpected && !slices.ContainsFunc(s.Spec.Steps, func(step Step) bool { return step.Expect != nil && len(step.Expect.Rules) > 0 })
}

// planner plays a scenario through without a cluster.
type planner struct {
	collector
	s        *Scenario
	families []model.IPFamily
	nodes    int
	// shallow planners report unknown names only, and not what may follow from a mistake elsewhere.
	shallow bool
	// whole planners have all workloads of a folder, also those that others stand for, and list no cells.
	whole bool

	topology model.Topology
	// order is the place of every pod in tables: a pod that comes back takes its old place.
	order map[model.Endpoint]int
	// created counts all pods, for spreading them over nodes.
	created int
	inForce []applied
	// selected tells of each policy, by its key, whether it ever selected a pod. An update makes no new policy.
	selected map[policy.Ref]bool
	probes   []*probeUse
	// previous are the verdicts of the step before, nil in the first one. One that is left to the specification is
	// empty.
	previous map[model.Connection]model.Verdict
	// silent are steps without cells.
	silent []*Step
	// idle are rules that decide nothing.
	idle []string
}

type applied struct {
	ApplyObject
	object *object
}

func newPlanner(s *Scenario, families []model.IPFamily, nodes int) *planner {
	return &planner{s: s, families: families, nodes: nodes, order: map[model.Endpoint]int{}, selected: map[policy.Ref]bool{}}
}

func (p *planner) plan() *Plan {
	plan := &Plan{Scenario: p.s, Families: slices.Clone(p.families)}
	p.setUp()
	plan.Initial = p.snapshot()
	plan.TopologyKey = topologyKey(&plan.Initial)
	p.probes = usesOf(p.s.Spec.Probes)
	for i := range p.s.Spec.Steps {
		plan.Steps = append(plan.Steps, p.step(&p.s.Spec.Steps[i]))
	}
	plan.Strangers = p.strangers(&plan.Initial)
	if p.whole {
		return plan
	}
	p.unusedProbes(p.probes, "any step")
	p.unusedServices(plan)
	p.silentSteps()
	plan.Vacuous = p.vacuous(plan)
	plan.Unproven = slices.Concat(p.idle, p.unproven(plan), p.s.dubious)
	return plan
}

// strangers are whom the folder does not mention.
func (p *planner) strangers(t *model.Topology) (out []model.Endpoint) {
	for i := range t.Pods {
		if t.Pods[i].Stranger {
			out = append(out, t.Pods[i].Endpoint())
		}
	}
	for _, u := range p.probes {
		if u.stranger && u.from.kind == nodePattern {
			out = append(out, model.NodeEndpoint(u.from.node))
		}
	}
	for i := range t.Hosts {
		if t.Hosts[i].Stranger {
			out = append(out, t.Hosts[i].Endpoint())
		}
	}
	return out
}

// topologyKey is a digest of everything that the set-up of a topology depends on.
func topologyKey(t *model.Topology) string {
	text, err := json.Marshal(t)
	if err != nil {
		// A topology is plain data: names, labels and numbers.
		panic(err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16])
}

func (p *planner) setUp() {
	t := &p.s.Spec.Topology
	for _, ns := range t.Namespaces {
		p.topology.Namespaces = append(p.topology.Namespaces, ns.model())
	}
	for i := range max(p.nodes, p.s.MaxNode()+1) {
		p.topology.Nodes = append(p.topology.Nodes, model.Node{Index: i})
	}
	for i := range t.Pods {
		if p.whole || !t.Pods[i].like {
			p.createPod(&t.Pods[i])
		}
	}
	for i := range t.Services {
		if p.whole || !t.Services[i].like {
			p.topology.Services = append(p.topology.Services, t.Services[i].model())
		}
	}
	for _, h := range t.Hosts {
		host := model.Host{Name: h.Name, Addresses: slices.Clone(h.addresses), Stranger: h.stranger}
		for _, port := range h.Ports {
			host.Ports = append(host.Ports, port.model())
		}
		p.topology.Hosts = append(p.topology.Hosts, host)
	}
}

// createPod adds a pod to the topology, at the place in the order of tables that it had before, if it comes back.
func (p *planner) createPod(in *Pod) model.Pod {
	pod := in.model()
	if p.whole {
		pod.AskedBy = "" // by all
	}
	p.place(&pod, in)
	p.created++
	e := pod.Endpoint()
	_, known := p.order[e]
	if !known {
		p.order[e] = len(p.order)
	}
	p.topology.Pods = append(p.topology.Pods, pod)
	if known {
		slices.SortStableFunc(p.topology.Pods, func(a, b model.Pod) int { return p.order[a.Endpoint()] - p.order[b.Endpoint()] })
	}
	return pod
}

// place decides which node a pod runs on. A hostNetwork pod that may run anywhere avoids nodes where its ports are
// taken.
func (p *planner) place(pod *model.Pod, in *Pod) {
	if in.Node != nil {
		pod.Node = *in.Node
		if p.nodes > 0 && pod.Node >= p.nodes {
			p.add(in.At, fmt.Sprintf("write a node below %d, or run with `--nodes %d`", p.nodes, pod.Node+1),
				"pod %s is on node %d, and the cluster has %d", in.Name, pod.Node, p.nodes)
		}
		if other, port := p.portTaken(pod, pod.Node); other != nil {
			p.add(in.At, "put it on another node, or give it another port", "pod %s cannot serve %s: on node %d the hostNetwork pod %s has it",
				in.Name, port, pod.Node, other.Endpoint())
		}
		return
	}
	if p.nodes == 0 {
		return
	}
	for i := range p.nodes {
		pod.Node = (p.created + i) % p.nodes
		if other, _ := p.portTaken(pod, pod.Node); other == nil {
			return
		}
	}
	if p.whole {
		return // it is not deployed: one that is has its place
	}
	p.add(in.At, "give it other ports, or run with more nodes", "there is no node left where the hostNetwork pod %s can have its ports", in.Name)
}

func (p *planner) portTaken(pod *model.Pod, node int) (*model.Pod, model.Port) {
	if !pod.HostNetwork {
		return nil, model.Port{}
	}
	for i := range p.topology.Pods {
		other := &p.topology.Pods[i]
		if !other.HostNetwork || other.Node != node || node < 0 {
			continue
		}
		for _, a := range pod.Ports {
			for _, b := range other.Ports {
				if a.Number == b.Number && a.Protocol == b.Protocol {
					return other, a
				}
			}
		}
	}
	return nil, model.Port{}
}

// snapshot copies the topology as it is now.
func (p *planner) snapshot() model.Topology {
	t := model.Topology{
		Nodes: slices.Clone(p.topology.Nodes), Hosts: slices.Clone(p.topology.Hosts), Services: slices.Clone(p.topology.Services),
		Namespaces: slices.Clone(p.topology.Namespaces), Pods: slices.Clone(p.topology.Pods),
	}
	for i := range t.Namespaces {
		t.Namespaces[i].Labels = maps.Clone(t.Namespaces[i].Labels)
	}
	for i := range t.Pods {
		t.Pods[i].Labels, t.Pods[i].Ports = maps.Clone(t.Pods[i].Labels), slices.Clone(t.Pods[i].Ports)
	}
	for i := range t.Services {
		t.Services[i].Selector, t.Services[i].Ports = maps.Clone(t.Services[i].Selector), slices.Clone(t.Services[i].Ports)
	}
	for i := range t.Hosts {
		t.Hosts[i].Ports = slices.Clone(t.Hosts[i].Ports)
	}
	return t
}

func (p *planner) step(step *Step) PlannedStep {
	out := PlannedStep{Name: step.Name, At: step.nameAt}
	out.Changes = append(out.Changes, p.remove(step)...)
	out.Changes = append(out.Changes, p.create(step)...)
	out.Changes = append(out.Changes, p.label(step)...)
	out.Changes = append(out.Changes, p.delete(step)...)
	out.Changes = append(out.Changes, p.apply(step)...)
	out.Topology = p.snapshot()
	for _, a := range p.inForce {
		out.InForce = append(out.InForce, a.ApplyObject)
		p.noteSelected(a)
		if u, ok := unjudgedOf(a.object); ok {
			out.Unjudged = append(out.Unjudged, u)
		}
	}
	if step.policies {
		out.Unjudged = append(out.Unjudged, p.s.LeftOut...)
	}
	if p.whole {
		return out
	}
	uses := p.probes
	if len(step.Probes) > 0 {
		uses = usesOf(step.Probes)
	}
	connections := p.connections(uses)
	if len(step.Probes) > 0 {
		p.unusedProbes(uses, fmt.Sprintf("step `%s`", step.Name))
	}
	if len(connections) == 0 {
		p.silent = append(p.silent, step)
	}
	if len(connections) > maxCells {
		p.add(step.nameAt, "add probes that name the connections that matter", "step `%s` has more than %d cells", step.Name, maxCells)
		return out
	}
	out.Cells = p.answered(p.expect(step, connections), out.Unjudged)
	p.previous = map[model.Connection]model.Verdict{}
	for _, c := range out.Cells {
		p.previous[c.Connection] = c.Expected
	}
	for _, c := range out.Cells {
		out.Computed = out.Computed || c.Expected == "" && !c.Like
	}
	return out
}

// answered leaves out, and says so, what strangers would ask where nobody can say what is right: a policy of another
// kind that is in force may decide, and no rule speaks of it.
func (p *planner) answered(cells []PlannedCell, unjudged []Unjudged) []PlannedCell {
	strangers := p.strangers(&p.topology)
	var inForce []Unjudged
	for _, u := range unjudged {
		if u.Applied {
			inForce = append(inForce, u)
		}
	}
	if len(strangers) == 0 || len(inForce) == 0 {
		return cells
	}
	before := len(cells)
	out := slices.DeleteFunc(cells, func(c PlannedCell) bool {
		return c.Expected == "" && len(Undecided(inForce, c.Connection)) > 0 &&
			(slices.Contains(strangers, c.Connection.From) || slices.Contains(strangers, c.Connection.To))
	})
	if left := before - len(out); left > 0 && !p.shallow {
		p.idle = append(p.idle, fmt.Sprintf("connections of strangers that are not asked: %d, since %s may decide, and no intent speaks of them",
			left, Names(inForce)))
		p.warn(inForce[0].Source, "say what they shall do in netproof.yaml, or turn the strangers off: strangers: []", "%s", p.idle[len(p.idle)-1])
	}
	return out
}

// silentSteps reports steps without cells, unless other problems explain them.
func (p *planner) silentSteps() {
	if p.shallow || p.count() > 0 {
		return
	}
	for _, step := range p.silent {
		fix := "declare a second pod, or ports, or probes"
		if p.s.Plain {
			fix = "add another workload to the folder, such as a Pod without labels that stands for strangers; a workload is asked on the ports that it declares"
		}
		p.add(step.nameAt, fix, "step `%s` has no cell: nobody probes anybody", step.Name)
		if p.s.Plain {
			return // one place for all steps
		}
	}
}

func (p *planner) remove(step *Step) []Change {
	if step.Remove == nil {
		return nil
	}
	var gone []model.Endpoint
	for i, name := range step.Remove.Pods {
		at := step.Remove.At
		if step.Remove.where != nil && i < len(step.Remove.where.items) {
			at = step.Remove.where.items[i].at
		}
		e := model.Endpoint(name)
		if _, ok := p.topology.Pod(e); !ok {
			if name != "" {
				p.add(at, p.podFix(name), "there is no pod `%s` to remove in step `%s`", name, step.Name)
			}
			continue
		}
		gone = append(gone, e)
		p.topology.Pods = slices.DeleteFunc(p.topology.Pods, func(pod model.Pod) bool { return pod.Endpoint() == e })
	}
	if len(gone) == 0 {
		return nil
	}
	return []Change{RemovePods{gone}}
}

// podFix suggests a pod that exists.
func (p *planner) podFix(name string) string {
	var names []string
	for i := range p.topology.Pods {
		names = append(names, string(p.topology.Pods[i].Endpoint()))
	}
	return didYouMean(name, names)
}

func (p *planner) create(step *Step) []Change {
	if step.Create == nil {
		return nil
	}
	var pods []model.Pod
	for i := range step.Create.Pods {
		in := &step.Create.Pods[i]
		if _, ok := p.topology.Pod(in.endpoint()); ok {
			if !slices.ContainsFunc(pods, func(pod model.Pod) bool { return pod.Endpoint() == in.endpoint() }) {
				p.add(in.At, "give it another name, or remove the pod in the same step first", "pod `%s` exists already in step `%s`", in.Name, step.Name)
			}
			continue
		}
		pods = append(pods, p.createPod(in))
	}
	if len(pods) == 0 {
		return nil
	}
	return []Change{CreatePods{pods}}
}

func (p *planner) label(step *Step) (out []Change) {
	if step.Label == nil || step.Label.where == nil {
		return nil
	}
	pods, namespaces := step.Label.where.get("pods"), step.Label.where.get("namespaces")
	if pods != nil {
		for _, e := range pods.entries {
			pod, ok := p.topology.Pod(model.Endpoint(e.key.text))
			if !ok {
				p.add(e.key.at, p.podFix(e.key.text), "there is no pod `%s` to label in step `%s`", e.key.text, step.Name)
				continue
			}
			if len(e.value.entries) == 0 {
				continue
			}
			pod.Labels = p.relabelled("pod "+e.key.text, pod.Labels, e.value, step.Label.Pods[e.key.text])
			out = append(out, SetPodLabels{pod.Endpoint(), maps.Clone(pod.Labels)})
		}
	}
	if namespaces == nil {
		return out
	}
	for _, e := range namespaces.entries {
		if _, decoded := step.Label.Namespaces[e.key.text]; !decoded {
			continue // refused: a boolean
		}
		ns, ok := p.topology.Namespace(e.key.text)
		if !ok {
			var names []string
			for _, ns := range p.topology.Namespaces {
				names = append(names, ns.Name)
			}
			p.add(e.key.at, didYouMean(e.key.text, names), "there is no namespace `%s` to label in step `%s`", e.key.text, step.Name)
			continue
		}
		if v := e.value.get(nameLabel); v != nil {
			p.add(v.at, "leave it out", "Kubernetes sets the label `%s` itself", nameLabel)
			continue
		}
		if len(e.value.entries) == 0 {
			continue
		}
		ns.Labels = p.relabelled("namespace "+e.key.text, ns.Labels, e.value, step.Label.Namespaces[e.key.text])
		out = append(out, SetNamespaceLabels{ns.Name, maps.Clone(ns.Labels)})
	}
	return out
}

func (p *planner) relabelled(what string, before model.Labels, where *value, changes map[string]*string) model.Labels {
	out := maps.Clone(before)
	for _, e := range where.entries {
		text, ok := changes[e.key.text]
		switch {
		case !ok:
		case text != nil:
			out[e.key.text] = *text
		default:
			if _, has := out[e.key.text]; !has {
				p.add(e.key.at, didYouMean(e.key.text, keys(out)), "%s has no label `%s` to remove", what, e.key.text)
			}
			delete(out, e.key.text)
		}
	}
	return out
}

func (p *planner) delete(step *Step) (out []Change) {
	for i, text := range step.Delete {
		at := step.nameAt
		if i < len(step.deleteAt) {
			at = step.deleteAt[i]
		}
		if text == "" {
			continue
		}
		index, ok := p.find(at, text, step.Name)
		if !ok {
			continue
		}
		out = append(out, DeleteObject{p.inForce[index].Ref()})
		p.inForce = slices.Delete(p.inForce, index, index+1)
	}
	return out
}

// find looks a policy up by kind/namespace/name. The kind may have its group: NetworkPolicy.projectcalico.org.
func (p *planner) find(at Position, text, step string) (int, bool) {
	parts := strings.Split(text, "/")
	if len(parts) < 2 || len(parts) > 3 || slices.Contains(parts, "") {
		p.add(at, "write kind/namespace/name, such as NetworkPolicy/x/deny", "%q names no object", shorten(text))
		return 0, false
	}
	kind, group, withGroup := strings.Cut(parts[0], ".")
	namespace, name := "", parts[len(parts)-1]
	if len(parts) == 3 {
		namespace = parts[1]
	}
	var found []int
	var names []string
	for i, a := range p.inForce {
		ref := a.Ref()
		names = append(names, ref.Path())
		if strings.EqualFold(ref.Kind.Kind, kind) && ref.Namespace == namespace && ref.Name == name && (!withGroup || ref.Kind.Group == group) {
			found = append(found, i)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], true
	case len(found) > 1:
		p.add(at, fmt.Sprintf("write %s.GROUP/%s", kind, strings.Join(parts[1:], "/")), "`%s` could be one of several API groups", text)
	case len(names) == 0:
		p.add(at, "remove it, or apply the policy in an earlier step", "there is nothing to delete in step `%s`: no policy is in force", step)
	default:
		p.add(at, didYouMean(text, names), "there is no `%s` to delete in step `%s`", text, step)
	}
	return 0, false
}

func (p *planner) apply(step *Step) (out []Change) {
	thisStep := map[policy.Ref]Position{}
	for i := range step.Apply {
		a := &step.Apply[i]
		for _, o := range a.objects {
			if o.role != policyRole {
				p.refuseKind(a, o)
				continue
			}
			if first, twice := thisStep[o.key()]; twice {
				p.add(o.at, "apply it in a later step, or give it another name", "%s is applied twice in step `%s`: also at %s", o, step.Name, first.Short())
				continue
			}
			thisStep[o.key()] = o.at
			p.checkNamespaceOf(o)
			p.checkPlaceholders(o, step.Name)
			change := ApplyObject{Object: o.unstructured(), Source: o.at, Policy: o.policy, NeedsAddresses: len(o.placeholders) > 0, written: o.tree}
			out = append(out, change)
			next := applied{change, o}
			if at := slices.IndexFunc(p.inForce, func(a applied) bool { return a.object.key() == o.key() }); at >= 0 {
				p.inForce[at] = next
			} else {
				p.inForce = append(p.inForce, next)
			}
		}
	}
	return out
}

func (p *planner) refuseKind(a *Apply, o *object) {
	fix := "apply NetworkPolicies, or the policies of Calico or Cilium"
	switch o.role {
	case workloadRole:
		fix = "declare a pod under spec.topology.pods, or give the folder without a scenario.yaml to have its workloads probed"
	case serviceRole:
		fix = "declare it under spec.topology.services"
	case namespaceRole:
		fix = "declare it under spec.topology.namespaces"
	case scenarioRole, assertionsRole:
		fix = "give the file as a path of its own"
	}
	at := o.at
	if a.File != "" && o.tree.get("kind") != nil {
		at = o.tree.get("kind").at
	}
	p.add(at, fix, "a scenario cannot apply a %s", o.gvk.Kind)
}

func (p *planner) checkNamespaceOf(o *object) {
	if o.namespace == "" {
		return
	}
	if _, ok := p.topology.Namespace(o.namespace); ok {
		return
	}
	at := o.at
	metadata := o.tree.get("metadata")
	if metadata != nil {
		at = metadata.at
	}
	var names []string
	for _, ns := range p.s.Spec.Topology.Namespaces {
		names = append(names, ns.Name)
	}
	if written := metadata.get("namespace"); written != nil {
		fix := fmt.Sprintf("declare it: add `{name: %s}` to topology.namespaces", o.namespace)
		if near := suggest(o.namespace, names); near != "" {
			fix = fmt.Sprintf("did you mean `%s`? Otherwise %s", near, fix)
		}
		p.add(written.at, fix, "%s is in namespace `%s`, which does not exist", o, o.namespace)
		return
	}
	p.add(at, "add `namespace: ...` below metadata; "+oneOf(names), "%s has no namespace, so it would go to `default`, which does not exist", o)
}

func (p *planner) checkPlaceholders(o *object, step string) {
	for _, ph := range o.placeholders {
		e := ph.endpoint
		if i, ok := e.NodeIndex(); ok {
			if p.nodes > 0 && i >= p.nodes {
				p.add(ph.at, fmt.Sprintf("write a node below %d, or run with `--nodes %d`", p.nodes, i+1), "%s: the cluster has %s", ph.text, counted(p.nodes, "node"))
			}
			continue
		}
		if _, ok := e.HostName(); ok {
			if _, ok := p.topology.Host(e); !ok {
				var names []string
				for i := range p.topology.Hosts {
					names = append(names, string(p.topology.Hosts[i].Endpoint()))
				}
				fix := "declare it under topology.hosts"
				if len(names) > 0 {
					fix = didYouMean(string(e), names)
				}
				p.add(ph.at, fix, "%s: there is no host `%s`", ph.text, strings.TrimPrefix(string(e), "host:"))
			}
			continue
		}
		if _, ok := p.topology.Pod(e); !ok {
			p.add(ph.at, p.podFix(string(e)), "%s: there is no pod `%s` in step `%s`", ph.text, e, step)
		}
	}
}

// noteSelected remembers whether a policy that is in force selects a pod now. Kinds other than NetworkPolicy are not
// judged.
func (p *planner) noteSelected(a applied) {
	key := a.object.key()
	if a.Policy == nil {
		p.selected[key] = true
		return
	}
	selector, err := metav1.LabelSelectorAsSelector(&a.Policy.Spec.PodSelector)
	if err != nil {
		return // reported when it was read
	}
	found := p.selected[key]
	for i := range p.topology.Pods {
		pod := &p.topology.Pods[i]
		// Who is a stranger is nobody's subject: a policy that selects no other does nothing for the folder.
		found = found || !pod.Stranger && pod.Namespace == a.object.namespace && selector.Matches(labels.Set(pod.Labels))
	}
	p.selected[key] = found
}

func (p *planner) vacuous(plan *Plan) (out []string) {
	said := map[policy.Ref]bool{}
	if !slices.ContainsFunc(plan.Steps, func(s PlannedStep) bool { return len(s.InForce) > 0 }) {
		for _, u := range p.s.LeftOut {
			out = append(out, fmt.Sprintf("%s is left out, and there is no other policy: nothing is proven", u))
		}
	}
	for _, step := range plan.Steps {
		for _, a := range step.InForce {
			key := a.Ref().Key()
			if said[key] {
				continue
			}
			if a.Policy == nil && !decidesCells(plan, key) {
				said[key] = true
				out = append(out, fmt.Sprintf("%s (%s) decides no cell: all cells of its steps are left open, so nothing is proven about it",
					a.Ref(), a.Source.Short()))
				continue
			}
			if p.selected[key] {
				continue
			}
			said[key] = true
			out = append(out, fmt.Sprintf("%s (%s) selects no pod in any step: nothing is proven about it",
				a.Ref(), a.Source.Short()))
		}
	}
	return out
}

// decidesCells tells whether a step in which the object is in force expects a verdict of any cell.
func decidesCells(plan *Plan, key policy.Ref) bool {
	return slices.ContainsFunc(plan.Steps, func(step PlannedStep) bool {
		return slices.ContainsFunc(step.InForce, func(a ApplyObject) bool {
			return a.Ref().Key() == key
		}) && slices.ContainsFunc(step.Cells, func(c PlannedCell) bool { return c.Expected != model.Undefined })
	})
}
