package existing

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/lease"
	"github.com/netproof/netproof/harness/policy"
)

// RBACOptions say for whom rights are, and what for.
type RBACOptions struct {
	// ServiceAccount and Namespace name the account; empty for netproof in [lease.Namespace].
	ServiceAccount, Namespace string
	// Policies are the families of policies beyond NetworkPolicy that scenarios apply: see [policy.Families]. Most of
	// their kinds are of the cluster's scope, and reach all that runs there.
	Policies []string
	// Namespaces that are there already and that are lent to runs. With any, all rights but to look at nodes are in
	// these, in that of the canaries and in [lease.Namespace].
	Namespaces []string
	// NamespacePrefix of the runs, with Namespaces: it is part of the name of the canaries' namespace.
	NamespacePrefix string
}

func (o RBACOptions) withDefaults() RBACOptions {
	o.ServiceAccount = cmp.Or(o.ServiceAccount, cluster.ManagedBy)
	o.Namespace = cmp.Or(o.Namespace, lease.Namespace)
	return o
}

// Check tells what is wrong with the options.
func (o RBACOptions) Check() error {
	for _, family := range o.Policies {
		if !slices.Contains(policy.Families(), family) {
			return fmt.Errorf("no family of policies is called %s: there is %s", family, strings.Join(policy.Families(), ", "))
		}
	}
	return errors.Join(checkNamespaces(o.Namespaces), CheckPrefix(o.NamespacePrefix))
}

// lent are the namespaces that the rights are in; none for the whole cluster.
func (o RBACOptions) lent() []string { return cluster.LentTo(o.Namespaces, o.NamespacePrefix) }

// Grant is a rule, with what it is for.
type Grant struct {
	// Purpose says what a run does with it.
	Purpose string
	// Namespace in which it is needed; empty for the whole cluster.
	Namespace string
	Rule      rbacv1.PolicyRule
	// Optional says that a run can do without, and what it misses then.
	Optional string
	// Implied says that the API server, or one behind it, asks for this right in the course of other calls, and nobody
	// calls it by its name.
	Implied bool
}

// Grants are the rights that a run and a clean-up need, and no more. What they are is derived from the calls that
// harness/run, harness/cluster/remote, install.Detect and this package make; the recorder of the tests tells where that
// is not so any more.
func Grants(o RBACOptions) []Grant {
	if len(o.Namespaces) > 0 {
		return lentGrants(o)
	}
	grants := []Grant{
		{
			Purpose: "look at the nodes that take pods: their names, addresses and pod networks",
			Rule:    rule("", []string{"nodes"}, "list"),
		},
		{
			Purpose: "detect the network plugin by the DaemonSets of its agents, and notice when it is changed during a run",
			Rule:    rule("apps", []string{"daemonsets"}, "list", "get"),
		},
		{
			Purpose:  "find out what Cilium has switched off",
			Rule:     named(rule("", []string{"configmaps"}, "get"), "cilium-config"),
			Optional: "cells of SCTP fail where Cilium has switched it off, instead of being unsupported",
		},
		{
			Purpose: "make, label and remove the namespaces of scenarios, and see that nobody else changed them meanwhile; set labels of built-in ones back",
			Rule:    rule("", []string{"namespaces"}, "create", "get", "list", "watch", "patch", "delete"),
		},
		{
			Purpose: "make, watch, label and remove probe pods; look at the agents of the network plugin, and at the addresses of pods",
			Rule:    rule("", []string{"pods"}, "create", "list", "watch", "patch", "delete"),
		},
		{
			Purpose: "remove the pods that stand in for nodes, in their namespace",
			Rule:    rule("", []string{"pods"}, "deletecollection"),
		},
		{
			Purpose: "send probes through an exec: over WebSockets, which is a get that newer API servers want create for as well, or over SPDY",
			Rule:    rule("", []string{"pods/exec"}, "create", "get"),
		},
		{
			Purpose: "make, watch over and remove the services of scenarios",
			Rule:    rule("", []string{"services"}, "create", "list", "delete"),
		},
		{
			Purpose: "wait until the endpoints of services are their pods",
			Rule:    rule("discovery.k8s.io", []string{"endpointslices"}, "list"),
		},
		{
			Purpose: "try (as a dry run), apply and remove policies, and see that nobody else changed them meanwhile",
			Rule:    policyRule(policy.KubernetesGroup, policy.OfFamily(policy.Kubernetes)),
		},
	}
	for _, family := range slices.Compact(slices.Sorted(slices.Values(o.Policies))) {
		grants = append(grants, policyGrants(family, false)...)
	}
	return append(grants, discoveryGrant, leaseGrant)
}

var (
	discoveryGrant = Grant{
		Purpose: "ask what the API server is, serves, and whether it is ready; most clusters let everybody do so",
		Rule:    rbacv1.PolicyRule{NonResourceURLs: []string{"/version", "/readyz", "/api", "/api/*", "/apis", "/apis/*"}, Verbs: []string{"get"}},
	}
	leaseGrant = Grant{
		Purpose:   "keep other runs away, and find out which runs are alive",
		Namespace: lease.Namespace,
		Rule:      rule("coordination.k8s.io", []string{"leases"}, "create", "get", "list", "update", "delete"),
	}
)

// lentGrants are the rights of a run that was lent namespaces: it makes, labels and removes none.
func lentGrants(o RBACOptions) []Grant {
	grants := []Grant{
		{
			Purpose: "look at the nodes that take pods: their names, addresses and pod networks",
			Rule:    rule("", []string{"nodes"}, "list"),
		},
		discoveryGrant,
	}
	families := slices.Compact(slices.Sorted(slices.Values(o.Policies)))
	for _, family := range families {
		for _, g := range policyGrants(family, false) {
			g.Purpose = "see policies of the cluster's scope that act on pods of the run: it can change none"
			g.Rule.Resources = slices.DeleteFunc(slices.Clone(g.Rule.Resources), func(resource string) bool {
				kind, known := policy.LookupResource(schema.GroupResource{Group: g.Rule.APIGroups[0], Resource: resource})
				return !known || kind.Namespaced || kind.Role != policy.Rules
			})
			g.Rule.Verbs, g.Optional = []string{"list"}, "such policies are not seen"
			if len(g.Rule.Resources) > 0 {
				grants = append(grants, g)
			}
		}
	}
	for _, ns := range o.lent() {
		within := []Grant{
			{
				Purpose: "see that the namespace is lent to runs, and what its labels are",
				Rule:    named(rule("", []string{"namespaces"}, "get"), ns),
			},
			{
				Purpose: "make, watch, label and remove probe pods, and see that nobody else has pods there",
				Rule:    rule("", []string{"pods"}, "create", "list", "watch", "patch", "delete"),
			},
			{
				Purpose: "send probes through an exec: over WebSockets, which is a get that newer API servers want create for as well, or over SPDY",
				Rule:    rule("", []string{"pods/exec"}, "create", "get"),
			},
			{
				Purpose: "make, watch over and remove the services of scenarios",
				Rule:    rule("", []string{"services"}, "create", "list", "delete"),
			},
			{
				Purpose: "wait until the endpoints of services are their pods",
				Rule:    rule("discovery.k8s.io", []string{"endpointslices"}, "list"),
			},
			{
				Purpose: "try (as a dry run), apply and remove policies, and see that nobody else changed them meanwhile",
				Rule:    policyRule(policy.KubernetesGroup, policy.OfFamily(policy.Kubernetes)),
			},
		}
		for _, family := range families {
			within = append(within, policyGrants(family, true)...)
		}
		for _, g := range within {
			g.Namespace = ns
			grants = append(grants, g)
		}
	}
	return append(grants, leaseGrant)
}

// policyGrants are the rights on a family of policies, a rule for each API group: on all of its kinds, or on those that
// are in namespaces.
func policyGrants(family string, namespaced bool) []Grant {
	kinds := map[string][]policy.Kind{}
	for _, kind := range policy.OfFamily(family) {
		if kind.Namespaced || !namespaced {
			kinds[kind.Group] = append(kinds[kind.Group], kind)
		}
	}
	var out []Grant
	for _, group := range slices.Sorted(maps.Keys(kinds)) {
		missed := "scenarios with policies of " + group + " cannot be proven"
		out = append(out, Grant{Purpose: "the same for " + policy.Describe(family), Rule: policyRule(group, kinds[group]), Optional: missed})
		if group != policy.CalicoAPIGroup {
			continue
		}
		tiers := policyRule(group, slices.DeleteFunc(kinds[group], func(k policy.Kind) bool { return !k.Tiered }))
		for i, resource := range tiers.Resources {
			tiers.Resources[i] = "tier." + resource
		}
		out = append(out, Grant{
			Purpose: "Calico's API server wants rights on the tier of a policy as well", Rule: tiers, Optional: missed, Implied: true,
		})
	}
	return out
}

// policyRule is what a run does with policies of some kinds of a group.
func policyRule(group string, kinds []policy.Kind) rbacv1.PolicyRule {
	var resources []string
	for _, kind := range kinds {
		resources = append(resources, kind.Resource)
	}
	return rule(group, resources, "create", "get", "list", "patch", "delete")
}

func rule(group string, resources []string, verbs ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: resources, Verbs: verbs}
}

func named(r rbacv1.PolicyRule, names ...string) rbacv1.PolicyRule {
	r.ResourceNames = names
	return r
}

// Rules are the rules of [Grants], of the cluster and of [lease.Namespace] together.
func Rules(o RBACOptions) []rbacv1.PolicyRule {
	var out []rbacv1.PolicyRule
	for _, g := range Grants(o) {
		out = append(out, g.Rule)
	}
	return out
}

// Manifest renders everything that gives a service account the rights of [Grants], as YAML for kubectl apply. Each rule
// has a comment that says what it is for.
func Manifest(o RBACOptions) ([]byte, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	var b bytes.Buffer
	fmt.Fprintf(&b, "# The rights that netproof needs on a cluster, and no more: kubectl apply -f FILE.\n")
	for _, line := range Amounts(o) {
		fmt.Fprintf(&b, "# %s\n", line)
	}
	labels := map[string]string{cluster.ManagedByLabel: cluster.ManagedBy}
	no := false
	about := func(namespace, name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels}
	}
	account := []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: o.Namespace, Name: o.ServiceAccount}}
	roleName := o.ServiceAccount

	lent := o.lent()
	namespaces := []string{lease.Namespace}
	if o.Namespace != lease.Namespace && !slices.Contains(lent, o.Namespace) {
		namespaces = append(namespaces, o.Namespace)
	}
	for _, ns := range namespaces {
		object := &corev1.Namespace{TypeMeta: typeOf("v1", "Namespace"), ObjectMeta: about("", ns)}
		object.Labels = lease.NamespaceLabels()
		render(&b, object)
	}
	if canaries := o.NamespacePrefix + cluster.CanaryNamespace; len(lent) > 0 {
		object := &corev1.Namespace{TypeMeta: typeOf("v1", "Namespace"), ObjectMeta: about("", canaries)}
		object.Labels = lease.NamespaceLabels()
		object.Labels[cluster.LentLabel] = cluster.Lent
		render(&b, object)
	}
	render(&b, &corev1.ServiceAccount{
		TypeMeta: typeOf("v1", "ServiceAccount"), ObjectMeta: about(o.Namespace, o.ServiceAccount), AutomountServiceAccountToken: &no,
	})
	renderRole(&b, &rbacv1.ClusterRole{TypeMeta: typeOf(rbac, "ClusterRole"), ObjectMeta: about("", roleName)}, o, "")
	render(&b, &rbacv1.ClusterRoleBinding{
		TypeMeta: typeOf(rbac, "ClusterRoleBinding"), ObjectMeta: about("", roleName), Subjects: account,
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: roleName},
	})
	for _, ns := range append([]string{lease.Namespace}, lent...) {
		renderRole(&b, &rbacv1.Role{TypeMeta: typeOf(rbac, "Role"), ObjectMeta: about(ns, roleName)}, o, ns)
		render(&b, &rbacv1.RoleBinding{
			TypeMeta: typeOf(rbac, "RoleBinding"), ObjectMeta: about(ns, roleName), Subjects: account,
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: roleName},
		})
	}
	return b.Bytes(), nil
}

// Amounts says in a few lines what the rights amount to in the hands of somebody who means ill.
func Amounts(o RBACOptions) []string {
	if len(o.Namespaces) == 0 {
		return []string{
			"These rights are as good as cluster-admin: RBAC cannot tell netproof's namespaces from others, so whoever may use this account can make",
			"a pod in every namespace, kube-system included, and run commands in every pod. By that they have each secret that a pod mounts, each",
			"service account that a pod may use, and, by a pod in a namespace that admits privileged ones, the nodes. netproof does none of it, and no",
			"scenario can make it. With --namespaces the rights end at namespaces that are there already.",
		}
	}
	return []string{
		"In the namespaces " + strings.Join(o.lent(), ", ") + " these rights are as good as all:",
		"whoever may use this account can run commands in every pod there, and make pods with each secret and service account of the namespace. Outside of",
		"them it can look at nodes, and disturb other runs through their Leases. It cannot make, label or remove a namespace. Those must exist, hold",
		"nothing else, have the labels that scenarios give them, and be lent by an administrator:",
		"    kubectl label namespace " + strings.Join(o.Namespaces, " ") + " " + cluster.LentLabel + "=" + cluster.Lent,
		"A run says which they are: netproof run --provider existing --namespaces " + strings.Join(o.Namespaces, ",") + " ...",
	}
}

const rbac = rbacv1.GroupName + "/v1"

func typeOf(version, name string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: version, Kind: name}
}

// render writes an object as a document.
func render(b *bytes.Buffer, object any) {
	text, _ := yaml.Marshal(object) // objects of Kubernetes can be marshalled
	fmt.Fprintf(b, "---\n%s", withoutNothing(text))
}

// withoutNothing leaves out the lines of fields that are nothing.
func withoutNothing(text []byte) string {
	var b strings.Builder
	for line := range strings.Lines(string(text)) {
		switch strings.TrimSpace(line) {
		case "creationTimestamp: null", "status: {}", "spec: {}", "rules: null":
		default:
			b.WriteString(line)
		}
	}
	return b.String()
}

// renderRole writes a role, with a comment at each rule.
func renderRole(b *bytes.Buffer, role any, o RBACOptions, namespace string) {
	render(b, role)
	fmt.Fprintf(b, "rules:\n")
	for _, g := range Grants(o) {
		if g.Namespace != namespace {
			continue
		}
		fmt.Fprintf(b, "# %s\n", g.Purpose)
		text, _ := yaml.Marshal([]rbacv1.PolicyRule{g.Rule})
		b.Write(text)
	}
}
