package scenario

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	metavalidation "k8s.io/apimachinery/pkg/util/validation"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/policy"
	"github.com/netproof/netproof/harness/words"
)

// object is a Kubernetes object as it was written.
type object struct {
	at   Position
	tree *value
	gvk  schema.GroupVersionKind

	namespace string
	name      string
	// generated is true when the name was made of a generateName.
	generated bool
	meta      metav1.ObjectMeta

	// policy is set for NetworkPolicies.
	policy *networkingv1.NetworkPolicy
	// placeholders in policies, with their places.
	placeholders []placedPlaceholder
	// role says what netproof does with the object.
	role role
}

// role is what netproof does with an object.
type role int

const (
	// ignoredRole: nothing.
	ignoredRole role = iota
	// policyRole: it is applied.
	policyRole
	// namespaceRole, serviceRole and workloadRole: it becomes part of the topology of a plain folder.
	namespaceRole
	serviceRole
	workloadRole
	// scenarioRole and assertionsRole are netproof's own.
	scenarioRole
	assertionsRole
)

func (o *object) ref() policy.Ref {
	return policy.Ref{Kind: o.gvk, Namespace: o.namespace, Name: o.name}
}

func (o *object) String() string { return o.ref().String() }

// key tells objects apart.
func (o *object) key() policy.Ref { return o.ref().Key() }

// ownGroup is the API group of netproof's own files.
const ownGroup = "netproof.dev"

// envelope is what every object has.
type envelope struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Metadata   metav1.ObjectMeta `json:"metadata"`
}

// readObjects turns a document into the objects it holds: one, or those of a List.
func readObjects(c *collector, doc document) []*object { return readValue(c, doc.root, doc.bullets) }

func readValue(c *collector, v *value, bullets []bullet) []*object {
	if v.kind != mappingValue {
		if len(bullets) > 0 {
			c.problems = append(c.problems, bulletProblem(bullets))
			return nil
		}
		c.add(v.at, "write an object with apiVersion, kind and metadata", "this is %s, and no Kubernetes object", v.kind)
		return nil
	}
	if items, isList := itemsOf(v); isList {
		if len(bullets) > 0 {
			c.problems = append(c.problems, bulletProblem(bullets))
			return nil
		}
		if items == nil {
			c.add(v.get("items").at, "write a list of objects", "items must be a list, and this is %s", v.get("items").kind)
			return nil
		}
		var out []*object
		for _, item := range items {
			out = append(out, readValue(c, item, nil)...)
		}
		return out
	}
	o := readObject(c, v, bullets)
	if o == nil {
		return nil
	}
	return []*object{o}
}

// itemsOf gives the objects of a list, which may be of any kind and have a name: kubectl takes whatever has items for a
// list. An item of a typed list need not say its kind. items is nil where they are not a list.
func itemsOf(v *value) (items []*value, isList bool) {
	list := v.get("items")
	kind := v.get("kind").str()
	if list == nil || list.kind != listValue && !strings.HasSuffix(kind, "List") {
		return nil, false
	}
	if list.kind != listValue {
		return nil, list.kind != nullValue
	}
	itemKind, typed := strings.CutSuffix(kind, "List")
	items = make([]*value, len(list.items))
	for i, item := range list.items {
		items[i] = item
		if typed && itemKind != "" && item.kind == mappingValue && item.get("kind") == nil {
			items[i] = withKind(item, v.get("apiVersion"), itemKind)
		}
	}
	return items, true
}

// withKind gives an object of a typed list the kind and version of the list.
func withKind(item, version *value, kind string) *value {
	out := *item
	add := func(key, text string) {
		scalar := func(text string) *value { return &value{at: item.at, kind: scalarValue, text: text, tag: "!!str"} }
		out.entries = append(slices.Clone(out.entries), entry{scalar(key), scalar(text)})
	}
	add("kind", kind)
	if item.get("apiVersion") == nil && version.str() != "" {
		add("apiVersion", version.str())
	}
	return &out
}

// matters tells whether an object, or one in a list, has to do with network policies: a policy, or what policies
// select.
func matters(v *value) bool {
	if items, isList := itemsOf(v); isList {
		return slices.ContainsFunc(items, matters)
	}
	group, _, isGroup := strings.Cut(v.get("apiVersion").str(), "/")
	if !isGroup {
		group = ""
	}
	kind := v.get("kind").str()
	return isPolicy(v) || isWorkload(schema.GroupKind{Group: group, Kind: kind}) || group == "" && v.get("apiVersion") != nil && (kind == "Namespace" || kind == "Service")
}

// isPolicy tells whether an object is of a kind that decides about connections, or belongs to one. The kind alone is
// enough where it speaks for itself.
func isPolicy(v *value) bool {
	group, _, isGroup := strings.Cut(v.get("apiVersion").str(), "/")
	if !isGroup {
		group = ""
	}
	kind := v.get("kind").str()
	_, known := policy.Lookup(schema.GroupKind{Group: group, Kind: kind})
	return known || influenceOf(schema.GroupKind{Group: group, Kind: kind}, v.get("metadata").get("name").str()) != noPolicy ||
		strings.Contains(strings.ToLower(kind), "networkpolicy")
}

// firstPolicy finds a policy in an object or in a list, nil if there is none.
func firstPolicy(v *value) *value {
	if items, isList := itemsOf(v); isList {
		for _, item := range items {
			if found := firstPolicy(item); found != nil {
				return found
			}
		}
		return nil
	}
	if isPolicy(v) {
		return v
	}
	return nil
}

// bulletProblem is one problem for all bullets of a document.
func bulletProblem(lines []bullet) Problem {
	also := ""
	if len(lines) > 1 {
		const most = 8
		var numbers []string
		for _, b := range lines[1:min(len(lines), most)] {
			numbers = append(numbers, strconv.Itoa(b.at.Line))
		}
		if more := len(lines) - most; more > 0 {
			numbers = append(numbers, fmt.Sprintf("%d more", more))
		}
		word := "line"
		if len(numbers) > 1 {
			word = "lines"
		}
		also = fmt.Sprintf(" (also on %s %s)", word, words.And(numbers))
	}
	return problemAt(lines[0].at, bulletFix, "`%s` is not YAML%s", lines[0].sign, also)
}

// readObject reads one object and checks it as far as its kind is known.
func readObject(c *collector, v *value, bullets []bullet) *object {
	o := &object{at: v.at, tree: v}
	before := c.count()
	var head envelope
	// The copy keeps problems apart until it is known which of them explain the others.
	own := &collector{}
	d := &decoder{c: own, lenient: true}
	typ := v.get("kind").str()
	apiVersion := v.get("apiVersion").str()
	group, _, _ := strings.Cut(apiVersion, "/")
	isNetworkPolicy := typ == policy.NetworkPolicy.Kind && !isForeignNetworkPolicy(group)
	var typed networkingv1.NetworkPolicy
	if isNetworkPolicy {
		d.lenient = false
		d.decode(withoutStatus(v), &typed, "")
		head = envelope{typed.APIVersion, typed.Kind, typed.ObjectMeta}
	} else {
		d.decode(v, &head, "")
	}
	if len(bullets) > 0 {
		// What follows from lost indentation and bullets is noise.
		c.problems = append(c.problems, d.lost...)
		c.problems = append(c.problems, bulletProblem(bullets))
		return nil
	}
	if len(d.lost) > 0 {
		c.problems = append(c.problems, d.lost...)
		return nil
	}
	c.problems = append(c.problems, own.problems...)
	if !o.identify(c, v, head) {
		return nil
	}
	o.meta = head.Metadata
	o.name, o.namespace = head.Metadata.Name, head.Metadata.Namespace
	if o.role == scenarioRole || o.role == assertionsRole {
		return o
	}
	if o.role != ignoredRole {
		o.checkMeta(c)
	}
	if o.role == policyRole {
		checkNoOwnLabels(c, v.get("metadata").get("labels"))
		o.placeholders = findPlaceholders(c, v)
		if o.gvk == policy.NetworkPolicy {
			typed.Namespace = o.namespace
			o.policy = &typed
			validateNetworkPolicy(c, v, &typed)
		}
	}
	if c.count() > before {
		return nil
	}
	return o
}

// withoutStatus drops what the API server adds at the top of an object that was read back from a cluster.
func withoutStatus(v *value) *value {
	out := *v
	out.entries = slices.DeleteFunc(slices.Clone(v.entries), func(e entry) bool { return e.key.text == "status" })
	return &out
}

// identify finds out what the object is. It reports and returns false if nothing can be done with it.
func (o *object) identify(c *collector, v *value, head envelope) bool {
	if head.Kind == "" && head.APIVersion == "" && v.get("kind") == nil && v.get("apiVersion") == nil {
		c.add(v.at, "begin it with `apiVersion: networking.k8s.io/v1` and `kind: NetworkPolicy`", "the document has neither apiVersion nor kind")
		return false
	}
	if head.Kind == "" {
		if v.get("kind") == nil {
			c.add(v.at, "add `kind: NetworkPolicy`", "the document has no kind")
		}
		return false
	}
	if head.APIVersion == "" {
		if v.get("apiVersion") == nil {
			c.add(v.at, fmt.Sprintf("add `apiVersion: %s`", usualVersion(head.Kind)), "the %s has no apiVersion", head.Kind)
		}
		return false
	}
	versionAt, kindAt := v.get("apiVersion").at, v.get("kind").at
	gv, err := schema.ParseGroupVersion(head.APIVersion)
	if err != nil {
		c.add(versionAt, fmt.Sprintf("write `apiVersion: %s`", usualVersion(head.Kind)), "%q is no apiVersion", shorten(head.APIVersion))
		return false
	}
	o.gvk = gv.WithKind(head.Kind)
	kinds := policy.OfGroup(gv.Group)
	_, known := policy.Lookup(o.gvk.GroupKind())
	switch {
	case gv.Group == ownGroup:
		return o.identifyOwn(c, versionAt, kindAt)
	case o.gvk == policy.NetworkPolicy:
		o.role = policyRole
		return true
	case head.Kind == policy.NetworkPolicy.Kind && isForeignNetworkPolicy(gv.Group) && len(kinds) == 0:
		return true
	case strings.EqualFold(head.Kind, "NetworkPolicy") && !known:
		if head.Kind != "NetworkPolicy" {
			c.add(kindAt, "write `kind: NetworkPolicy`", "the kind is spelled `NetworkPolicy`, not `%s`", head.Kind)
			return false
		}
		why := fmt.Sprintf("%s has no NetworkPolicy", head.APIVersion)
		if head.APIVersion == "extensions/v1beta1" {
			why = "NetworkPolicy left extensions/v1beta1 in Kubernetes 1.16"
		}
		c.add(versionAt, "write `apiVersion: networking.k8s.io/v1`", "%s", why)
		return false
	}
	if len(kinds) > 0 {
		if known {
			if gv.Group == policy.NetworkPolicy.Group {
				c.add(versionAt, "write `apiVersion: networking.k8s.io/v1`", "NetworkPolicy has no version %s", gv.Version)
				return false
			}
			o.role = policyRole
			return true
		}
		if near := suggest(head.Kind, kindNames(kinds)); near != "" && strings.EqualFold(near, head.Kind) {
			c.add(kindAt, fmt.Sprintf("write `kind: %s`", near), "the kind is spelled `%s`, not `%s`", near, head.Kind)
			return false
		}
		return true
	}
	switch {
	case isWorkload(o.gvk.GroupKind()):
		o.role = workloadRole
	case gv.Group == "" && head.Kind == "Namespace":
		o.role = namespaceRole
	case gv.Group == "" && head.Kind == "Service":
		o.role = serviceRole
	}
	return true
}

// kindNames are the names of kinds.
func kindNames(kinds []policy.Kind) []string {
	var out []string
	for _, k := range kinds {
		out = append(out, k.Kind)
	}
	return out
}

func (o *object) identifyOwn(c *collector, versionAt, kindAt Position) bool {
	if o.gvk.GroupVersion().String() != model.APIVersion {
		c.add(versionAt, fmt.Sprintf("write `apiVersion: %s`", model.APIVersion), "%s is not known to this version of netproof", o.gvk.GroupVersion())
		return false
	}
	switch o.gvk.Kind {
	case Kind:
		o.role = scenarioRole
	case AssertionsKind:
		o.role = assertionsRole
	case "Report":
		o.role = ignoredRole
	default:
		c.add(kindAt, didYouMean(o.gvk.Kind, []string{Kind, AssertionsKind}), "netproof has no kind `%s`", o.gvk.Kind)
		return false
	}
	return true
}

// usualVersion is the apiVersion of a kind that people most likely mean.
func usualVersion(kind string) string {
	for _, group := range []string{"", "apps", "batch"} {
		if isWorkload(schema.GroupKind{Group: group, Kind: kind}) {
			return strings.TrimPrefix(group+"/v1", "/")
		}
	}
	switch kind {
	case "Namespace", "Service":
		return "v1"
	case Kind, AssertionsKind:
		return model.APIVersion
	}
	for _, k := range policy.Kinds() {
		if k.Kind == kind && k.Group != policy.CalicoGroup { // people write the group of Calico's API server
			return k.Group + "/" + k.Version
		}
	}
	return policy.NetworkPolicy.GroupVersion().String()
}

// checkMeta checks names, and fills in the namespace as kubectl does.
func (o *object) checkMeta(c *collector) {
	meta := o.tree.get("metadata")
	if meta == nil || meta.kind == nullValue {
		c.add(o.at, "add `metadata: {name: ..., namespace: ...}`", "the %s has no metadata", o.gvk.Kind)
		return
	}
	where := func(key string) Position {
		if v := meta.get(key); v != nil {
			return v.at
		}
		return meta.at
	}
	switch {
	case meta.get("name") == nil && o.meta.GenerateName != "":
		// kubectl create takes it, and the API server makes up the rest.
		o.name, o.generated = strings.TrimRight(o.meta.GenerateName, "-."), true
		if messages := metavalidation.IsDNS1123Subdomain(o.name); len(messages) > 0 {
			c.add(where("generateName"), "write lower case letters, digits, `-` and `.`", "%q begins no name: %s", shorten(o.meta.GenerateName), brief(messages))
		}
	case meta.get("name") == nil:
		c.add(meta.at, "add `name: ...` below metadata", "the %s has no name", o.gvk.Kind)
	case o.name != "" || meta.get("name").kind == scalarValue && meta.get("name").text == "":
		if messages := metavalidation.IsDNS1123Subdomain(o.name); len(messages) > 0 {
			c.add(where("name"), "write lower case letters, digits, `-` and `.`", "%q is no name: %s", shorten(o.name), brief(messages))
		}
	}
	if o.role == policyRole {
		o.refuseHolds(c, meta)
	}
	kind, known := policy.Lookup(o.gvk.GroupKind())
	if o.role == namespaceRole || o.role == policyRole && known && !kind.Namespaced {
		if o.namespace != "" {
			c.add(where("namespace"), "remove the namespace", "a %s is in no namespace", o.gvk.Kind)
		}
		return
	}
	if v := meta.get("namespace"); v == nil || v.kind == nullValue || v.kind == scalarValue && v.text == "" {
		o.namespace = metav1.NamespaceDefault // as kubectl does
		return
	}
	if o.namespace != "" {
		if messages := metavalidation.IsDNS1123Label(o.namespace); len(messages) > 0 {
			c.add(where("namespace"), "write at most 63 lower case letters, digits and `-`", "%q is not a valid name for a namespace: %s", shorten(o.namespace), brief(messages))
		}
	}
}

// defaultTo puts an object that names no namespace into another one than `default`.
func (o *object) defaultTo(namespace string) {
	if namespace == "" || o.namespace != metav1.NamespaceDefault || o.meta.Namespace != "" {
		return
	}
	o.namespace = namespace
	if o.policy != nil {
		o.policy.Namespace = namespace
	}
}

// refuseHolds reports what would keep a policy in the cluster after the run, or let others decide when it goes.
func (o *object) refuseHolds(c *collector, meta *value) {
	for _, key := range []string{"finalizers", "ownerReferences"} {
		if v := meta.get(key); v != nil && v.kind != nullValue && (v.kind != listValue || len(v.items) > 0) {
			c.add(meta.keyAt(key), "remove it: the run deletes the policy itself", "%s has %s, which would decide when it goes", o, key)
		}
	}
}

// serverMeta are the keys of metadata that the API server sets. They come along when an object is read back from a
// cluster, and applying them would fail or mean nothing.
var serverMeta = []string{"uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp", "managedFields", "selfLink"}

// unstructured gives the object in the form that it is applied in.
func (o *object) unstructured() *unstructured.Unstructured {
	content := o.tree.plainValue().(map[string]any)
	u := &unstructured.Unstructured{Object: content}
	for _, key := range serverMeta {
		unstructured.RemoveNestedField(content, "metadata", key)
	}
	delete(content, "status")
	if o.generated {
		unstructured.RemoveNestedField(content, "metadata", "generateName")
		u.SetName(o.name)
	}
	if o.namespace != "" {
		u.SetNamespace(o.namespace)
	}
	return u
}

func keys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
