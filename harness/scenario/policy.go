package scenario

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	unversioned "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	metavalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/netproof/netproof/harness/model"
)

// policyChecker holds a NetworkPolicy against what the API server of Kubernetes 1.36 accepts.
type policyChecker struct {
	c    *collector
	root *value
}

// refused tells whether what stands at a place was refused when it was read: its value is not the one that was written.
func (k policyChecker) refused(at Position) bool {
	return slices.ContainsFunc(k.c.problems, func(p Problem) bool { return p.Position() == at })
}

// validateNetworkPolicy reports what the API server would refuse, with the place in the file.
func validateNetworkPolicy(c *collector, root *value, p *networkingv1.NetworkPolicy) {
	k := policyChecker{c, root}
	if spec := root.get("spec"); spec == nil || spec.kind == nullValue {
		c.add(root.keyAt("spec"), "add `spec:` with podSelector, and policyTypes, ingress or egress", "the NetworkPolicy has no spec: it would isolate every pod of its namespace for ingress")
		return
	}
	spec := field.NewPath("spec")
	k.selector(spec.Child("podSelector"), &p.Spec.PodSelector)
	for i, rule := range p.Spec.Ingress {
		at := spec.Child("ingress").Index(i)
		k.ports(at.Child("ports"), rule.Ports)
		k.peers(at.Child("from"), rule.From)
	}
	for i, rule := range p.Spec.Egress {
		at := spec.Child("egress").Index(i)
		k.ports(at.Child("ports"), rule.Ports)
		k.peers(at.Child("to"), rule.To)
	}
	k.types(spec.Child("policyTypes"), p.Spec.PolicyTypes)
}

// at finds where a field stands; the nearest field around it if it does not stand anywhere.
func (k policyChecker) at(path *field.Path) Position {
	v := k.root
	for _, part := range splitPath(path.String()) {
		var next *value
		if i, err := strconv.Atoi(part); err == nil && v.kind == listValue {
			if i < len(v.items) {
				next = v.items[i]
			}
		} else {
			next = v.get(part)
		}
		if next == nil {
			break
		}
		v = next
	}
	return v.at
}

var pathPart = regexp.MustCompile(`[^.\[\]]+|\[[^\]]*\]`)

// splitPath takes spec.ingress[0].from[1] apart.
func splitPath(path string) []string {
	parts := pathPart.FindAllString(path, -1)
	for i := range parts {
		parts[i] = strings.Trim(parts[i], "[]")
	}
	return parts
}

func (k policyChecker) types(at *field.Path, types []networkingv1.PolicyType) {
	for i, t := range types {
		if t == networkingv1.PolicyTypeIngress || t == networkingv1.PolicyTypeEgress {
			continue
		}
		fix := "write Ingress or Egress"
		for _, known := range []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress} {
			if strings.EqualFold(string(known), string(t)) {
				fix = fmt.Sprintf("write %s, with a capital letter", known)
			}
		}
		if where := k.at(at.Index(i)); !k.refused(where) {
			k.c.add(where, fix, "%q is not a policy type", shorten(string(t)))
		}
	}
	if len(types) > 2 {
		k.c.add(k.at(at), "write each of Ingress and Egress at most once", "there are %d policy types", len(types))
	}
}

func (k policyChecker) selector(at *field.Path, s *metav1.LabelSelector) {
	if s == nil {
		return
	}
	for _, err := range unversioned.ValidateLabelSelector(s, unversioned.LabelSelectorValidationOptions{}, at) {
		where := k.selectorErrorAt(at, s, err)
		if k.refused(where) {
			continue
		}
		k.c.add(where, selectorFix(err), "%s: %s", err.Field, brief([]string{err.ErrorBody()}))
	}
}

// selectorErrorAt finds the label that an error is about: the validation names matchLabels as a whole only.
func (k policyChecker) selectorErrorAt(at *field.Path, s *metav1.LabelSelector, err *field.Error) Position {
	if strings.HasSuffix(err.Field, "matchLabels") {
		bad, _ := err.BadValue.(string)
		for _, e := range k.valueAt(at.Child("matchLabels")).entries {
			if e.key.text == bad {
				return e.key.at
			}
			if s.MatchLabels[e.key.text] == bad {
				return e.value.at
			}
		}
	}
	return k.at(field.NewPath(err.Field))
}

func (k policyChecker) valueAt(path *field.Path) *value {
	v := k.root
	for _, part := range splitPath(path.String()) {
		if i, err := strconv.Atoi(part); err == nil && v != nil && v.kind == listValue {
			if i >= len(v.items) {
				return &value{}
			}
			v = v.items[i]
			continue
		}
		if v = v.get(part); v == nil {
			return &value{}
		}
	}
	return v
}

func selectorFix(err *field.Error) string {
	switch {
	case strings.HasSuffix(err.Field, "operator"):
		return "write In, NotIn, Exists or DoesNotExist"
	case strings.HasSuffix(err.Field, "values") && err.Type == field.ErrorTypeRequired:
		return "add `values: [...]`"
	case strings.HasSuffix(err.Field, "values") && err.Type == field.ErrorTypeForbidden:
		return "remove values, or write In or NotIn"
	}
	return "write labels as Kubernetes takes them: at most 63 letters, digits, `-`, `_` and `.`"
}

func (k policyChecker) ports(at *field.Path, ports []networkingv1.NetworkPolicyPort) {
	for i := range ports {
		k.port(at.Index(i), &ports[i])
	}
}

func (k policyChecker) port(at *field.Path, p *networkingv1.NetworkPolicyPort) {
	if p.Protocol != nil && !k.refused(k.at(at.Child("protocol"))) {
		checkProtocol(k.c, k.at(at.Child("protocol")), string(*p.Protocol))
		if *p.Protocol == "" {
			k.c.add(k.at(at.Child("protocol")), "write TCP, UDP or SCTP, or leave the key out", "the protocol is empty")
		}
	}
	if k.refused(k.at(at.Child("port"))) {
		return
	}
	if p.Port == nil {
		if p.EndPort != nil {
			k.c.add(k.at(at.Child("endPort")), "add `port: N` with the first port of the range", "endPort stands without port")
		}
		return
	}
	if p.Port.Type == intstr.String {
		if p.EndPort != nil {
			k.c.add(k.at(at.Child("endPort")), "write the number of the first port, or remove endPort", "endPort stands beside a named port")
		}
		if _, err := strconv.Atoi(p.Port.StrVal); err == nil {
			k.c.add(k.at(at.Child("port")), "write the number without quotes", "the port %q is a text, so it would be taken for a name", p.Port.StrVal)
			return
		}
		checkPortName(k.c, k.at(at.Child("port")), p.Port.StrVal)
		return
	}
	if !checkPortNumber(k.c, k.at(at.Child("port")), int(p.Port.IntVal)) || p.EndPort == nil {
		return
	}
	if checkPortNumber(k.c, k.at(at.Child("endPort")), int(*p.EndPort)) && *p.EndPort < p.Port.IntVal {
		k.c.add(k.at(at.Child("endPort")), "swap the two, or raise endPort", "the range ends at %d, before it begins at %d", *p.EndPort, p.Port.IntVal)
	}
}

func (k policyChecker) peers(at *field.Path, peers []networkingv1.NetworkPolicyPeer) {
	for i := range peers {
		k.peer(at.Index(i), &peers[i])
	}
}

func (k policyChecker) peer(at *field.Path, p *networkingv1.NetworkPolicyPeer) {
	if p.IPBlock == nil && p.PodSelector == nil && p.NamespaceSelector == nil {
		v := k.valueAt(at)
		if v.kind != mappingValue {
			return // reported when it was read
		}
		for _, key := range []string{"podSelector", "namespaceSelector", "ipBlock"} {
			if inner := v.get(key); inner != nil {
				k.c.add(inner.at, fmt.Sprintf("write `%s: {}` to select everything", key), "%s is empty, which counts as absent", key)
				return
			}
		}
		k.c.add(k.at(at), "add podSelector, namespaceSelector or ipBlock; `podSelector: {}` selects every pod of the policy's namespace",
			"the peer selects nothing")
		return
	}
	if p.IPBlock != nil && (p.PodSelector != nil || p.NamespaceSelector != nil) {
		k.c.add(k.at(at.Child("ipBlock")), "make two items of it: `- ipBlock: ...` and `- podSelector: ...`", "ipBlock stands beside a selector in one peer")
	}
	k.selector(at.Child("podSelector"), p.PodSelector)
	k.selector(at.Child("namespaceSelector"), p.NamespaceSelector)
	if p.IPBlock != nil {
		k.block(at.Child("ipBlock"), p.IPBlock)
	}
}

// block checks an IP block in each family that its placeholders may take.
func (k policyChecker) block(at *field.Path, b *networkingv1.IPBlock) {
	cidrAt := at.Child("cidr")
	if b.CIDR == "" {
		if v := k.valueAt(cidrAt); v.kind == scalarValue || k.valueAt(at).get("cidr") == nil {
			k.c.add(k.at(cidrAt), "add `cidr: 10.0.0.0/8`", "the ipBlock has no cidr")
		}
		return
	}
	if placeholderPattern.MatchString(b.CIDR) || slices.ContainsFunc(b.Except, placeholderPattern.MatchString) {
		k.blockWithPlaceholders(at, b)
		return
	}
	outer, ok := k.cidr(cidrAt, b.CIDR)
	for i, s := range b.Except {
		inner, innerOK := k.cidr(at.Child("except").Index(i), s)
		if !ok || !innerOK {
			continue
		}
		if inner.Bits() <= outer.Bits() || !outer.Contains(inner.Addr()) {
			k.c.add(k.at(at.Child("except").Index(i)), fmt.Sprintf("write a smaller network within %s", outer), "except %s is not part of the cidr %s", s, b.CIDR)
		}
	}
}

// cidr reads a network as strictly as the API server has done since Kubernetes 1.36: in canonical form, and without
// bits beyond the prefix.
func (k policyChecker) cidr(at *field.Path, s string) (netip.Prefix, bool) {
	where := k.at(at)
	if k.refused(where) {
		return netip.Prefix{}, false
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		fix := "write a network such as 10.0.0.0/8 or 2001:db8::/32"
		if a, err := netip.ParseAddr(s); err == nil {
			fix = fmt.Sprintf("write %s/%d for this one address", s, a.BitLen())
		}
		k.c.add(where, fix, "%q is not a CIDR", shorten(s))
		return p, false
	case p.Addr().Is4In6():
		k.c.add(where, "write it as an IPv4 network, such as 10.0.0.0/8", "%q is an IPv4 network written as IPv6", s)
		return p, false
	case p.Masked() != p:
		fix := fmt.Sprintf("write %s for the network, or %s/%d for the address", p.Masked(), p.Addr(), p.Addr().BitLen())
		k.c.add(where, fix, "%q has bits beyond the prefix length", s)
		return p.Masked(), false
	}
	if errs := metavalidation.IsValidCIDRForLegacyField(at, s, true, nil); len(errs) > 0 {
		k.c.add(where, fmt.Sprintf("write %s", p), "%q is not a CIDR: %s", shorten(s), errs[0].Detail)
		return p, false
	}
	return p, true
}

// blockWithPlaceholders substitutes an example address: what is not a CIDR then will be none later.
func (k policyChecker) blockWithPlaceholders(at *field.Path, b *networkingv1.IPBlock) {
	for _, f := range []struct {
		path *field.Path
		text string
	}{{at.Child("cidr"), b.CIDR}} {
		k.blockText(f.path, f.text)
	}
	for i, s := range b.Except {
		k.blockText(at.Child("except").Index(i), s)
	}
}

func (k policyChecker) blockText(at *field.Path, s string) {
	if !placeholderPattern.MatchString(s) {
		k.cidr(at, s)
		return
	}
	if _, err := splitPlaceholders(s); err != nil {
		return // reported where placeholders are looked for
	}
	for _, family := range []model.IPFamily{model.IPv4, model.IPv6} {
		text, err := substitute(s, exampleAddress, family)
		if err != nil {
			continue
		}
		if _, err := netip.ParsePrefix(text); err == nil {
			return
		}
	}
	fix := "write $(cidr:...), which is a network"
	if strings.HasPrefix(s, "$(ip:") {
		fix = strings.Replace(s, "$(ip:", "write $(cidr:", 1) + ", which is a network; $(ip:...) is an address alone"
	}
	k.c.add(k.at(at), fix, "%q is not a CIDR, whatever the address will be", shorten(s))
}
