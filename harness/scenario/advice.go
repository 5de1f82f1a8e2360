package scenario

import (
	"fmt"
	"slices"
	"strings"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/words"
)

// A policy may be valid and still not do what its author wants: it names a port or a peer that nobody has. Each advice
// looks for one such mistake in the policies of a folder, and holds them against its workloads. A strict run takes them
// for failures.

// adviser holds one policy against the workloads of a folder.
type adviser struct {
	policyChecker
	o *object
	// among are the workloads.
	among *members
	// policies are those of each namespace.
	policies map[string][]*object
	now      time.Time
	say      func(at Position, fix, format string, args ...any)
}

// advices are all that is looked for.
var advices = []func(*adviser){
	(*adviser).portsThatNobodyServes, (*adviser).peersThatNobodyIs, (*adviser).alternatives, (*adviser).noDNS, (*adviser).overdue,
}

// advise says what looks like a mistake in the policies.
func (f *plainFolder) advise() {
	policies := map[string][]*object{}
	for _, o := range f.policies {
		if o.policy != nil {
			policies[o.namespace] = append(policies[o.namespace], o)
		}
	}
	all, now := f.members(), time.Now()
	for _, o := range f.policies {
		if o.policy == nil {
			continue
		}
		a := &adviser{
			policyChecker: policyChecker{&collector{}, o.tree}, o: o, among: all, policies: policies, now: now,
			say: func(at Position, fix, format string, args ...any) {
				p := problemAt(at, fix, format, args...)
				f.s.Warnings = append(f.s.Warnings, p)
				f.s.dubious = append(f.s.dubious, fmt.Sprintf("%s: %s", p.Position().Short(), p.Message))
			},
		}
		for _, advice := range advices {
			advice(a)
		}
	}
}

// rule is a rule of either direction.
type rule struct {
	path  *field.Path
	peers []networkingv1.NetworkPolicyPeer
	ports []networkingv1.NetworkPolicyPort
	// in is true for ingress.
	in bool
}

// rulesIn are the rules of a policy.
func rulesIn(p *networkingv1.NetworkPolicy) (out []rule) {
	spec := field.NewPath("spec")
	for i, r := range p.Spec.Ingress {
		out = append(out, rule{spec.Child("ingress").Index(i), r.From, r.Ports, true})
	}
	for i, r := range p.Spec.Egress {
		out = append(out, rule{spec.Child("egress").Index(i), r.To, r.Ports, false})
	}
	return out
}

// peersAt is where the peers of a rule stand.
func (r rule) peersAt() *field.Path {
	if r.in {
		return r.path.Child("from")
	}
	return r.path.Child("to")
}

// name calls a part of the policy as the tables do: ingress[0].ports[1].
func name(path *field.Path) string { return strings.TrimPrefix(path.String(), "spec.") }

// served are the pods whose ports a rule speaks of: those that the policy selects, or those that an egress rule leads
// to. known is false where others than pods are meant too, and where there is none.
func (a *adviser) served(r rule) (pods []*Pod, known bool) {
	if r.in {
		pods = a.among.selected(a.o)
		return pods, len(pods) > 0
	}
	if len(r.peers) == 0 || slices.ContainsFunc(r.peers, func(p networkingv1.NetworkPolicyPeer) bool { return p.IPBlock != nil }) {
		return nil, false // others outside of the cluster too
	}
	pods = a.among.peers(a.o, r)
	return pods, len(pods) > 0
}

// portsThatNobodyServes finds ports of rules that no pod has, by name or by number.
func (a *adviser) portsThatNobodyServes() {
	for _, r := range rulesIn(a.o.policy) {
		pods, known := a.served(r)
		has := portsOfPods(pods)
		if !known || len(has) == 0 {
			continue
		}
		for i, p := range r.ports {
			if p.Port == nil || slices.ContainsFunc(pods, func(pod *Pod) bool { return slices.ContainsFunc(pod.Ports, servesPort(p)) }) {
				continue
			}
			whose := "pod that " + a.o.String() + " selects"
			if !r.in {
				whose = "pod that the rule leads to"
			}
			a.say(a.at(r.path.Child("ports").Index(i).Child("port")), "there is "+words.And(has), "%s: no %s has port %s", name(r.path.Child("ports").Index(i)), whose, p.Port)
		}
	}
}

// servesPort tells whether a port of a rule means a port of a pod.
func servesPort(p networkingv1.NetworkPolicyPort) func(Port) bool {
	return func(have Port) bool {
		switch {
		case have.Protocol != protocolOf(p):
			return false
		case p.Port.Type == intstr.String:
			return have.Name == p.Port.StrVal
		case p.EndPort != nil:
			return have.Port >= int(p.Port.IntVal) && have.Port <= int(*p.EndPort)
		}
		return have.Port == int(p.Port.IntVal)
	}
}

// portsOfPods lists what pods serve, a few of it.
func portsOfPods(pods []*Pod) (out []string) {
	const most = 5
	for _, pod := range pods {
		for _, p := range pod.Ports {
			text := p.model().String()
			if p.Name != "" {
				text = fmt.Sprintf("%s (%s)", p.Name, text)
			}
			if len(out) < most && !slices.Contains(out, text) {
				out = append(out, text)
			}
		}
	}
	return out
}

// peersThatNobodyIs finds peers that match no namespace and no pod of the folder.
func (a *adviser) peersThatNobodyIs() {
	unknown := slices.ContainsFunc(a.among.namespaces, func(ns Namespace) bool { return ns.unknown })
	for _, r := range rulesIn(a.o.policy) {
		for i := range r.peers {
			p := &r.peers[i]
			if p.IPBlock != nil || len(a.among.peer(a.o, p)) > 0 || a.alternative(r, i) {
				continue
			}
			at := r.peersAt().Index(i)
			if p.NamespaceSelector != nil {
				found := slices.ContainsFunc(a.among.namespaces, func(ns Namespace) bool { return a.among.namespaceMatches(p.NamespaceSelector, ns.Name) })
				if !found && unknown {
					continue // said of the namespace whose labels are not known
				}
				if !found {
					a.say(a.at(at), a.nearNamespace(p.NamespaceSelector), "%s matches no namespace: none has the labels `%s`", name(at), metav1.FormatLabelSelector(p.NamespaceSelector))
					continue
				}
			}
			if p.PodSelector != nil {
				a.say(a.at(at), a.nearPod(p.PodSelector), "%s matches no pod: none there has the labels `%s`", name(at), metav1.FormatLabelSelector(p.PodSelector))
			}
		}
	}
}

const peerFix = "correct the labels, or add what has them to the folder"

// nearPod suggests a label of a pod that is spelled alike.
func (a *adviser) nearPod(s *metav1.LabelSelector) string {
	var have []string
	for i := range a.among.pods {
		for k, v := range a.among.pods[i].Labels {
			have = append(have, k+"="+v)
		}
	}
	return nearest(s, have)
}

func (a *adviser) nearNamespace(s *metav1.LabelSelector) string {
	var have []string
	for _, ns := range a.among.namespaces {
		have = append(have, nameLabel+"="+ns.Name)
		for k, v := range ns.Labels {
			have = append(have, k+"="+v)
		}
	}
	for _, v := range s.MatchLabels {
		if slices.Contains(have, nameLabel+"="+v) {
			return fmt.Sprintf("did you mean `%s: %s`?", nameLabel, v)
		}
	}
	return nearest(s, have)
}

func nearest(s *metav1.LabelSelector, have []string) string {
	slices.Sort(have)
	have = slices.Compact(have)
	for _, key := range keys(s.MatchLabels) {
		wanted := key + "=" + s.MatchLabels[key]
		if slices.Contains(have, wanted) {
			continue
		}
		if near := suggest(wanted, have); near != "" {
			return fmt.Sprintf("did you mean `%s`?", strings.Replace(near, "=", ": ", 1))
		}
	}
	return peerFix
}

// alternatives finds two peers, one that selects namespaces and one that selects pods, where one peer with both was
// likely meant:
// https://kubernetes.io/docs/concepts/services-networking/network-policies/#behavior-of-to-and-from-selectors
func (a *adviser) alternatives() {
	for _, r := range rulesIn(a.o.policy) {
		for i := 1; i < len(r.peers); i++ {
			if at := r.peersAt(); a.alternative(r, i) {
				a.say(a.at(at.Index(i)), "make one item of the two: write podSelector below the namespaceSelector, without a dash",
					"%s and %s are alternatives: the first alone admits every pod of its namespaces", name(at.Index(i-1)), name(at.Index(i)))
			}
		}
	}
}

// alternative tells whether a peer and the one before look like one that was meant.
func (a *adviser) alternative(r rule, i int) bool {
	if i == 0 {
		return false
	}
	before, p := &r.peers[i-1], &r.peers[i]
	if before.NamespaceSelector == nil || before.PodSelector != nil || p.PodSelector == nil || p.NamespaceSelector != nil {
		return false
	}
	if len(a.among.peer(a.o, p)) > 0 {
		return false // pods of the policy's own namespace have these labels: both are meant
	}
	return slices.ContainsFunc(a.among.pods, func(pod Pod) bool { return a.among.podMatches(p.PodSelector, &pod) })
}

// noDNS finds pods that may not ask for names: policies let them send somewhere, and none admits port 53. Who may send
// nothing needs no names.
func (a *adviser) noDNS() {
	if _, egress := directions(a.o.policy); !egress {
		return
	}
	var shut []string
	for _, pod := range a.among.selected(a.o) {
		if first, speaks, answered := a.resolves(pod); first == a.o && speaks && !answered {
			shut = append(shut, pod.Name)
		}
	}
	if len(shut) == 0 {
		return
	}
	who := shut[0]
	if more := len(shut) - 1; more > 0 {
		who = fmt.Sprintf("%s and %d more", who, more)
	}
	a.say(a.o.at, "admit 53/UDP and 53/TCP to the pods of the cluster's DNS, if they use names", "%s isolates %s for egress, and no policy admits DNS (53/UDP)", a.o, who)
}

// resolves finds the first policy that isolates a pod for egress, and tells whether any lets it send, and whether any
// admits 53/UDP.
func (a *adviser) resolves(pod *Pod) (first *object, speaks, answered bool) {
	namespace, _, _ := pod.endpoint().Split()
	for _, o := range a.policies[namespace] {
		if !a.among.podMatches(&o.policy.Spec.PodSelector, pod) {
			continue
		}
		if _, egress := directions(o.policy); !egress {
			continue
		}
		if first == nil {
			first = o
		}
		for _, rule := range o.policy.Spec.Egress {
			speaks = true
			dns := Port{Port: 53, Protocol: string(model.UDP)}
			named := func(p networkingv1.NetworkPolicyPort) bool {
				return p.Port != nil && p.Port.Type == intstr.String && strings.Contains(p.Port.StrVal, "dns") && p.Protocol != nil && string(*p.Protocol) == dns.Protocol
			}
			answered = answered || len(rule.Ports) == 0 || slices.ContainsFunc(rule.Ports, func(p networkingv1.NetworkPolicyPort) bool {
				if p.Port == nil {
					return p.Protocol != nil && string(*p.Protocol) == dns.Protocol
				}
				return servesPort(p)(dns) || named(p)
			})
		}
	}
	return first, speaks, answered
}

// overdue finds policies that somebody should have looked at by now.
func (a *adviser) overdue() {
	review := Notes(a.o.policy).Review
	if review == "" {
		return
	}
	day, err := time.Parse(time.DateOnly, review)
	switch {
	case err != nil:
		a.say(a.o.at, "write the day as 2027-06-30", "%s is to be reviewed by %q, which is not a day", a.o, shorten(review))
	case a.now.After(day.AddDate(0, 0, 1)):
		a.say(a.o.at, "look at the policy, and set another day", "%s was to be reviewed by %s", a.o, review)
	}
}
