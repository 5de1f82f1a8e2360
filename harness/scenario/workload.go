package scenario

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/netproof/netproof/harness/model"
)

// workloadKind tells where a kind keeps its pod template, and how many pods it makes of it. The fields are paths of
// keys.
type workloadKind struct {
	// template is empty for a Pod, which is its own.
	template []string
	// replicas holds the number of pods; empty where the kind has none.
	replicas []string
	// many is true where there is usually more than one pod, whatever the object says: one for each node, or as many as
	// the traffic asks for.
	many bool
	// inner is where the object holds the Job that it makes; only a CronJob does.
	inner []string
	// generated are the labels that the kind's controller puts on pods.
	generated func(o *object, index int) map[string]string
}

// generatedValue stands for the value of a label that a controller makes up. Selectors see that the label exists, and
// no value that anybody wrote equals it.
const generatedValue = "generated-by-its-controller"

const (
	podNameLabel  = "statefulset.kubernetes.io/pod-name"
	podIndexLabel = "apps.kubernetes.io/pod-index"
	jobIndexLabel = "batch.kubernetes.io/job-completion-index"
)

var (
	atTemplate = []string{"spec", "template"}
	atReplicas = []string{"spec", "replicas"}
)

// workloadKinds are the kinds that stand for pods. Beside those of Kubernetes there are kinds of other projects whose
// template is at a known place. The labels are those of https://kubernetes.io/docs/reference/labels-annotations-taints/
// and of the projects' own documentation.
var workloadKinds = map[schema.GroupKind]workloadKind{
	{Group: "", Kind: "Pod"}:                   {},
	{Group: "", Kind: "ReplicationController"}: {template: atTemplate, replicas: atReplicas},
	{Group: "apps", Kind: "ReplicaSet"}:        {template: atTemplate, replicas: atReplicas},
	{Group: "apps", Kind: "Deployment"}:        {template: atTemplate, replicas: atReplicas, generated: generatedLabel("pod-template-hash")},
	{Group: "apps", Kind: "StatefulSet"}:       {template: atTemplate, replicas: atReplicas, generated: statefulSetLabels},
	{Group: "apps", Kind: "DaemonSet"}: {
		template: atTemplate, many: true, generated: generatedLabel("controller-revision-hash", "pod-template-generation"),
	},
	{Group: "batch", Kind: "Job"}: {template: atTemplate, replicas: []string{"spec", "parallelism"}, generated: jobLabels},
	{Group: "batch", Kind: "CronJob"}: {
		template: []string{"spec", "jobTemplate", "spec", "template"}, replicas: []string{"spec", "jobTemplate", "spec", "parallelism"},
		inner: []string{"spec", "jobTemplate"}, generated: jobLabels,
	},
	{Group: "argoproj.io", Kind: "Rollout"}: {template: atTemplate, replicas: atReplicas, generated: generatedLabel("rollouts-pod-template-hash")},
	{Group: "apps.openshift.io", Kind: "DeploymentConfig"}: {template: atTemplate, replicas: atReplicas, generated: func(o *object, _ int) map[string]string {
		return map[string]string{"deploymentconfig": o.name, "deployment": generatedValue}
	}},
	{Group: "serving.knative.dev", Kind: "Service"}: {template: atTemplate, many: true, generated: func(o *object, _ int) map[string]string {
		return map[string]string{
			"serving.knative.dev/service": o.name, "serving.knative.dev/configuration": o.name,
			"serving.knative.dev/revision": generatedValue, "app": generatedValue, "pod-template-hash": generatedValue,
		}
	}},
	{Group: "apps.kruise.io", Kind: "CloneSet"}: {template: atTemplate, replicas: atReplicas, generated: generatedLabel("controller-revision-hash")},
}

func isWorkload(kind schema.GroupKind) bool {
	_, ok := workloadKinds[kind]
	return ok
}

// generatedLabel are labels whose values nobody knows before the pods run.
func generatedLabel(keys ...string) func(*object, int) map[string]string {
	return func(*object, int) map[string]string {
		out := map[string]string{}
		for _, key := range keys {
			out[key] = generatedValue
		}
		return out
	}
}

func statefulSetLabels(o *object, index int) map[string]string {
	return map[string]string{
		podNameLabel: fmt.Sprintf("%s-%d", o.name, index), podIndexLabel: strconv.Itoa(index), "controller-revision-hash": generatedValue,
	}
}

// jobLabels are those of the pods of a Job, and of a CronJob, whose Jobs have generated names. A Job that brings its
// own selector gets none.
func jobLabels(o *object, index int) map[string]string {
	spec := o.tree.get("spec")
	name := o.name
	if o.gvk.Kind == "CronJob" {
		spec = spec.get("jobTemplate").get("spec")
		name = generatedValue
	}
	if own, _ := boolOf(spec.get("manualSelector")); own {
		return nil
	}
	out := map[string]string{
		"job-name": name, "batch.kubernetes.io/job-name": name, "controller-uid": generatedValue, "batch.kubernetes.io/controller-uid": generatedValue,
	}
	if spec.get("completionMode").str() == "Indexed" {
		out[jobIndexLabel] = strconv.Itoa(index)
	}
	return out
}

func boolOf(v *value) (b, ok bool) {
	if v == nil {
		return false, false
	}
	return v.boolean()
}

// walk follows keys.
func (v *value) walk(keys []string) *value {
	for _, key := range keys {
		v = v.get(key)
	}
	return v
}

// standIn is a workload and the pods that stand for it: one, or more where there are several and policies can tell them
// apart.
type standIn struct {
	object *object
	pod    Pod
	// replicas is how many pods the workload has, as far as that matters: 0, 1, or several.
	replicas int
	// own are the labels that the template writes, without those of the controller.
	own map[string]string
	// variants are the labels of the pods that can be told apart, once they are asked for.
	variants []labels.Set
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
	f.stand = slices.DeleteFunc(f.stand, func(s *standIn) bool {
		return f.isStoodIn(s.object) || f.isFinished(s.object) || f.isElsewhere(s.object)
	})
	names := map[string]int{}
	for _, s := range f.stand {
		names[s.object.namespace+"/"+s.object.name]++
	}
	for _, s := range f.stand {
		o := s.object
		f.standInFor(s)
		if names[o.namespace+"/"+o.name] > 1 {
			// A Deployment and a Job of one name: both get their kind as a suffix, so that neither depends on the
			// other.
			s.pod.Name += "-" + strings.ToLower(o.gvk.Kind)
		}
	}
}

// isStoodIn tells whether an object belongs to a workload of the folder: dumps hold a Deployment, its ReplicaSets and
// its Pods. What controllers generated is taken from it.
func (f *plainFolder) isStoodIn(o *object) bool {
	for _, owner := range o.meta.OwnerReferences {
		if owner.Controller == nil || !*owner.Controller {
			continue
		}
		gv, err := schema.ParseGroupVersion(owner.APIVersion)
		if err != nil {
			continue
		}
		names := []schema.GroupKind{{Group: gv.Group, Kind: owner.Kind}}
		at := []string{owner.Name}
		// The object between them may be missing: a ReplicaSet of a Deployment, a Job of a CronJob.
		switch {
		case owner.Kind == "ReplicaSet" && o.meta.Labels["pod-template-hash"] != "":
			names = append(names, schema.GroupKind{Group: "apps", Kind: "Deployment"})
			at = append(at, strings.TrimSuffix(owner.Name, "-"+o.meta.Labels["pod-template-hash"]))
		case owner.Kind == "Job":
			if i := strings.LastIndex(owner.Name, "-"); i > 0 {
				names = append(names, schema.GroupKind{Group: "batch", Kind: "CronJob"})
				at = append(at, owner.Name[:i])
			}
		}
		for i, kind := range names {
			key := workloadKey{kind, o.namespace, at[i]}
			if f.owners[key] {
				f.owned++
				return true
			}
		}
	}
	return false
}

// workloadKey names a workload.
type workloadKey struct {
	kind            schema.GroupKind
	namespace, name string
}

// isFinished tells whether a Pod or Job of a dump has ended. Its address is free again, so that nothing can be asked
// about it.
func (f *plainFolder) isFinished(o *object) bool {
	status := o.tree.get("status")
	ended := false
	switch {
	case o.gvk.Group == "" && o.gvk.Kind == "Pod":
		ended = status.get("phase").str() == string(corev1.PodSucceeded) || status.get("phase").str() == string(corev1.PodFailed)
	case o.gvk.Group == "batch" && o.gvk.Kind == "Job" && status.get("conditions") != nil:
		ended = slices.ContainsFunc(status.get("conditions").items, func(c *value) bool {
			kind := c.get("type").str()
			return (kind == "Complete" || kind == "Failed") && c.get("status").str() == "True"
		})
	}
	if ended {
		f.finished = append(f.finished, o)
	}
	return ended
}

// isElsewhere tells whether the pod template of a workload stands in another object. An Argo Rollout may take over that
// of a Deployment, which stands for its pods then.
func (f *plainFolder) isElsewhere(o *object) bool {
	ref := o.tree.get("spec").get("workloadRef")
	if ref == nil || o.gvk.Group == "" {
		return false
	}
	f.s.Warnings = append(f.s.Warnings, problemAt(ref.at, "add the object that it names to the folder, if it is not there",
		"%s has its pod template in another object: that one is stood in for", o))
	return true
}

func (f *plainFolder) standInFor(s *standIn) {
	o := s.object
	kind := workloadKinds[o.gvk.GroupKind()]
	template := o.tree.walk(kind.template)
	s.pod = Pod{Name: o.namespace + "/" + o.name, At: o.at}
	if template == nil {
		f.add(o.at, "add the pod's template below spec", "the %s has no pod template", o.gvk.Kind)
		return
	}
	var t podTemplate
	(&decoder{c: &f.collector, lenient: true}).decode(template, &t, o.gvk.Kind)
	s.own = t.Metadata.Labels
	if where := template.get("metadata").get("labels"); where != nil {
		checkLabels(&f.collector, where, withValues(s.own))
	}
	f.checkSelector(o, s.own)
	s.pod.HostNetwork = t.Spec.HostNetwork
	s.replicas = f.replicasOf(o, kind)
	s.pod.Labels = s.labels(0)
	for _, c := range t.Spec.Containers {
		f.addPorts(s, c.Ports)
	}
	for _, c := range t.Spec.InitContainers {
		if c.RestartPolicy == string(corev1.ContainerRestartPolicyAlways) { // a sidecar
			f.addPorts(s, c.Ports)
		}
	}
}

// labels are those of one pod of the workload: what controllers add, and over it what the template says, which a dump
// has from the controller itself.
func (s *standIn) labels(index int) map[string]string {
	out := map[string]string{}
	if generated := workloadKinds[s.object.gvk.GroupKind()].generated; generated != nil {
		maps.Copy(out, generated(s.object, index))
	}
	maps.Copy(out, s.own)
	return out
}

// replicasOf is how many pods a workload has. More than its number says it has with an autoscaler. A workload that is
// scaled to 0 is proven as if it had one: it comes back, and its policies are there already.
func (f *plainFolder) replicasOf(o *object, kind workloadKind) int {
	n := 1
	written := o.tree.walk(kind.replicas)
	switch {
	case kind.many:
		n = 2
	case len(kind.replicas) > 0 && written != nil:
		if number, ok := written.integer(); ok {
			n = int(min(max(number, 0), maxReplicas))
		}
	}
	if most := f.autoscaled[workloadKey{o.gvk.GroupKind(), o.namespace, o.name}]; most > 1 {
		n = max(n, 2)
	}
	if n == 0 {
		f.asleep = append(f.asleep, o)
		return 1
	}
	return n
}

// maxReplicas bounds the replicas that are told apart by their index.
const maxReplicas = 1000

// autoscaler remembers how many pods a HorizontalPodAutoscaler makes of a workload at most.
func (f *plainFolder) autoscaler(o *object) {
	target := o.tree.get("spec").get("scaleTargetRef")
	most, ok := int64(0), false
	if v := o.tree.get("spec").get("maxReplicas"); v != nil {
		most, ok = v.integer()
	}
	gv, err := schema.ParseGroupVersion(target.get("apiVersion").str())
	if !ok || err != nil {
		return
	}
	namespace := cmp.Or(o.meta.Namespace, metav1.NamespaceDefault)
	f.autoscaled[workloadKey{gv.WithKind(target.get("kind").str()).GroupKind(), namespace, target.get("name").str()}] = int(min(most, maxReplicas))
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

func (s *standIn) hasNamed(name, protocol string) bool {
	return slices.ContainsFunc(s.pod.Ports, func(p Port) bool { return p.Name == name && p.Protocol == protocol })
}

// pods are the pods that stand for the workload. Where policies or services select by the index of a replica, each
// index that they name has its own pod, and so have the two lowest that they do not name. Else a second pod stands for
// all other replicas: policies cannot tell them apart, so it is only asked from and to the first.
func (f *plainFolder) pods(s *standIn, taken map[string]bool) []Pod {
	o := s.object
	namespace, name, _ := strings.Cut(s.pod.Name, "/")
	unique := func(name string) string {
		for i := 2; taken[namespace+"/"+name]; i++ {
			name = fmt.Sprintf("%s-%d", strings.TrimSuffix(name, fmt.Sprintf("-%d", i-1)), i)
		}
		taken[namespace+"/"+name] = true
		return namespace + "/" + name
	}
	indices := f.indices(s)
	switch {
	case s.replicas < 2 || s.pod.HostNetwork:
		return []Pod{s.pod}
	case len(indices) > 1:
		var out []Pod
		for _, index := range indices {
			pod := s.pod
			pod.Name, pod.workload = unique(fmt.Sprintf("%s-%d", name, index)), name
			pod.Labels = s.labels(index)
			out = append(out, pod)
		}
		return out
	case len(s.pod.Ports) == 0:
		return []Pod{s.pod} // nobody can ask it, the other replicas neither
	}
	twin := s.pod
	twin.Name, twin.workload, twin.twin = unique(name+"-2"), name, true
	twin.Labels = s.labels(1)
	if o.gvk.Kind != "StatefulSet" && twin.Labels[jobIndexLabel] == "" {
		twin.Labels = maps.Clone(s.pod.Labels)
	}
	return []Pod{s.pod, twin}
}

// indices are those of the replicas that policies and services can tell apart, if they do.
func (f *plainFolder) indices(s *standIn) (out []int) {
	named := map[int]bool{}
	for _, label := range []struct{ key, prefix string }{
		{podNameLabel, s.object.name + "-"}, {podIndexLabel, ""}, {jobIndexLabel, ""},
	} {
		if _, has := s.pod.Labels[label.key]; !has {
			continue
		}
		for _, text := range f.selectedValues(label.key) {
			rest, ok := strings.CutPrefix(text, label.prefix)
			index, err := strconv.Atoi(rest)
			if ok && err == nil && index >= 0 && index < s.replicas && strconv.Itoa(index) == rest {
				named[index] = true
			}
		}
	}
	if len(named) == 0 {
		return nil
	}
	others := 0
	for index := 0; index < s.replicas; index++ {
		if !named[index] {
			if others == 2 {
				continue
			}
			others++
		}
		out = append(out, index)
	}
	return out
}

// selectedBy tells whether a selector matches a pod of the workload.
func (f *plainFolder) selectedBy(s *standIn, selector labels.Selector) bool {
	if s.variants == nil {
		for _, index := range append(f.indices(s), 0) {
			s.variants = append(s.variants, s.labels(index))
		}
	}
	return slices.ContainsFunc(s.variants, func(l labels.Set) bool { return selector.Matches(l) })
}

// selectedValues are the values of a label that policies and services select by.
func (f *plainFolder) selectedValues(key string) (out []string) {
	if f.values == nil {
		f.values = map[string][]string{}
		for _, o := range slices.Concat(f.policies, f.services) {
			selected(o.tree.get("spec"), f.values)
		}
	}
	return f.values[key]
}

// selected collects the values that the label selectors below a value name, by label.
func selected(v *value, into map[string][]string) {
	if v == nil {
		return
	}
	for _, e := range v.entries {
		switch {
		case (e.key.text == "matchLabels" || e.key.text == "selector") && e.value.kind == mappingValue:
			for _, label := range e.value.entries {
				if label.value.kind == scalarValue {
					into[label.key.text] = append(into[label.key.text], label.value.text)
				}
			}
		case e.key.text == "matchExpressions":
			for _, item := range e.value.items {
				if values := item.get("values"); values != nil {
					for _, text := range values.items {
						into[item.get("key").str()] = append(into[item.get("key").str()], text.text)
					}
				}
			}
		}
		selected(e.value, into)
	}
	for _, item := range v.items {
		selected(item, into)
	}
}
