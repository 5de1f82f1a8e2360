package scenario

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/netproof/netproof/harness/model"
)

// Resolve replaces the placeholders of the object, as [Resolve] does, and holds a NetworkPolicy against what the API
// server accepts, now that its networks are known: an exception must lie within its network, and where pods run decides
// whether it does.
//
// The error is a [Problems] if the policy is refused. Otherwise it begins with Source, and wraps the error of
// [Resolve].
func (a ApplyObject) Resolve(lookup Lookup, families []model.IPFamily) (*unstructured.Unstructured, error) {
	out, err := Resolve(a.Object, lookup, families)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.Source, err)
	}
	if a.Policy == nil || !a.NeedsAddresses {
		return out, nil
	}
	var problems Problems
	spec := field.NewPath("spec")
	check := func(at *field.Path, peers []networkingv1.NetworkPolicyPeer) {
		for i := range peers {
			if block := peers[i].IPBlock; block != nil {
				problems = append(problems, a.checkResolved(at.Index(i).Child("ipBlock"), block, lookup, families)...)
			}
		}
	}
	for i, rule := range a.Policy.Spec.Ingress {
		check(spec.Child("ingress").Index(i).Child("from"), rule.From)
	}
	for i, rule := range a.Policy.Spec.Egress {
		check(spec.Child("egress").Index(i).Child("to"), rule.To)
	}
	if len(problems) > 0 {
		return nil, problems.sorted()
	}
	return out, nil
}

// Example is the object as it may look once addresses are known, with addresses of documentation. It serves checks of
// everything else: an exception that lies outside of its network with these addresses is replaced by an address within.
// Its error begins with Source.
func (a ApplyObject) Example(families []model.IPFamily) (*unstructured.Unstructured, error) {
	out, err := Resolve(a.Object, exampleAddress, families)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.Source, err)
	}
	if a.Policy != nil && a.NeedsAddresses {
		moveExceptions(out.Object)
	}
	return out, nil
}

func moveExceptions(v any) {
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			moveExceptions(item)
		}
	case map[string]any:
		for _, inner := range v {
			moveExceptions(inner)
		}
		cidr, _ := v["cidr"].(string)
		except, _ := v["except"].([]any)
		outer, err := netip.ParsePrefix(cidr)
		if err != nil || outer.IsSingleIP() {
			return
		}
		for i, item := range except {
			text, _ := item.(string)
			inner, err := netip.ParsePrefix(text)
			if err == nil && (inner.Bits() <= outer.Bits() || !outer.Contains(inner.Addr())) {
				except[i] = netip.PrefixFrom(outer.Masked().Addr(), outer.Addr().BitLen()).String()
			}
		}
	}
}

// checkResolved checks a block with the addresses that there are, in every family that it is kept in.
func (a ApplyObject) checkResolved(at *field.Path, written *networkingv1.IPBlock, lookup Lookup, families []model.IPFamily) (out Problems) {
	texts := append([]string{written.CIDR}, written.Except...)
	if !slices.ContainsFunc(texts, placeholderPattern.MatchString) {
		return nil // checked when it was read
	}
	for _, family := range families {
		if slices.ContainsFunc(texts, func(s string) bool { return !fits(s, family) }) {
			continue
		}
		networks := make([]string, len(texts))
		for i, text := range texts {
			var err error
			if networks[i], err = substitute(text, lookup, family); err != nil {
				return nil // Resolve has said so
			}
		}
		k := policyChecker{&collector{}, a.written}
		k.block(at, &networkingv1.IPBlock{CIDR: networks[0], Except: networks[1:]})
		for _, p := range k.c.problems {
			p.Message += fmt.Sprintf(": that is what %s became with the addresses of this run", blockText(written))
			p.Fix = resolvedFix(texts, networks)
			out = append(out, p)
		}
	}
	return out
}

// blockText writes a block in one line.
func blockText(b *networkingv1.IPBlock) string {
	if len(b.Except) == 0 {
		return b.CIDR
	}
	return b.CIDR + " except " + strings.Join(b.Except, ", ")
}

// resolvedFix says what to write for a block whose networks depend on addresses.
func resolvedFix(texts, networks []string) string {
	for i, s := range networks {
		if p, err := netip.ParsePrefix(s); err == nil && p.Masked() != p && strings.HasPrefix(texts[i], "$(ip:") {
			return "write $(cidr:x/b/24) for a network around an address; $(ip:...) keeps all bits of the address"
		}
	}
	return "write a cidr that holds its exceptions wherever the pods run, such as $(cidr:x/b/16) around the endpoint of the exception, or place the pods with `node`"
}
