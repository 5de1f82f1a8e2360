package scenario

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/netproof/netproof/harness/model"
)

// Lookup finds the address of an endpoint in an IP family.
type Lookup func(e model.Endpoint, family model.IPFamily) (netip.Addr, bool)

// placeholderPattern finds what may be meant as a placeholder.
var placeholderPattern = regexp.MustCompile(`\$\([^)]*\)?`)

// placeholder stands for an address that is known once pods run:
//
//	$(ip:x/b)       the address of an endpoint
//	$(cidr:x/b)     its /32 or /128
//	$(cidr:x/b/24)  the network of that size around it
//
// The endpoint is namespace/name, node:INDEX or host:NAME.
type placeholder struct {
	endpoint model.Endpoint
	// cidr is false for $(ip:...).
	cidr bool
	// bits is the size of the network, -1 for the address alone.
	bits int
}

// placedPlaceholder is a placeholder and where it stands.
type placedPlaceholder struct {
	placeholder
	text string
	at   Position
}

const placeholderFix = "write $(ip:x/b), $(cidr:x/b), $(cidr:x/b/24), $(ip:node:0) or $(ip:host:NAME)"

func parsePlaceholder(text string) (placeholder, error) {
	p := placeholder{bits: -1}
	inner, ok := strings.CutPrefix(text, "$(")
	inner, closed := strings.CutSuffix(inner, ")")
	if !ok || !closed {
		return p, fmt.Errorf("the placeholder %q is not closed", shorten(text))
	}
	what, rest, _ := strings.Cut(inner, ":")
	switch what {
	case "ip":
	case "cidr":
		p.cidr = true
	default:
		return p, fmt.Errorf("%q is not a placeholder", shorten(text))
	}
	name := rest
	slashes := 1
	if strings.HasPrefix(rest, "node:") || strings.HasPrefix(rest, "host:") {
		slashes = 0
	}
	if strings.Count(rest, "/") == slashes+1 && p.cidr {
		i := strings.LastIndex(rest, "/")
		bits, err := strconv.Atoi(rest[i+1:])
		if err != nil || bits < 0 || bits > 128 || strconv.Itoa(bits) != rest[i+1:] {
			return p, fmt.Errorf("%q is not a size of a network", rest[i+1:])
		}
		name, p.bits = rest[:i], bits
	}
	p.endpoint = model.Endpoint(name)
	if p.endpoint.IsNode() {
		if _, ok := p.endpoint.NodeIndex(); !ok {
			return p, fmt.Errorf("%q is not a node", name)
		}
		return p, nil
	}
	if strings.Count(name, "/") != slashes || strings.HasPrefix(name, "/") || strings.HasSuffix(name, "/") || name == "host:" {
		return p, fmt.Errorf("%q names no endpoint", shorten(name))
	}
	return p, nil
}

// splitPlaceholders returns the placeholders of a text.
func splitPlaceholders(text string) ([]placeholder, error) {
	var out []placeholder
	for _, m := range placeholderPattern.FindAllString(text, -1) {
		p, err := parsePlaceholder(m)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// findPlaceholders collects the placeholders of an object and reports those that are none.
func findPlaceholders(c *collector, v *value) (out []placedPlaceholder) {
	switch v.kind {
	case scalarValue:
		for _, m := range placeholderPattern.FindAllString(v.text, -1) {
			p, err := parsePlaceholder(m)
			if err != nil {
				c.add(v.at, placeholderFix, "%v", err)
				continue
			}
			out = append(out, placedPlaceholder{p, m, v.at})
		}
	case listValue:
		for _, item := range v.items {
			out = append(out, findPlaceholders(c, item)...)
		}
	case mappingValue:
		for _, e := range v.entries {
			if e.key.text == "annotations" || e.key.text == "labels" {
				continue // text for people, or for selectors
			}
			out = append(out, findPlaceholders(c, e.value)...)
		}
	}
	return out
}

func hasPlaceholder(v any) bool {
	switch v := v.(type) {
	case string:
		return placeholderPattern.MatchString(v)
	case []any:
		for _, item := range v {
			if hasPlaceholder(item) {
				return true
			}
		}
	case map[string]any:
		for _, item := range v {
			if hasPlaceholder(item) {
				return true
			}
		}
	}
	return false
}

// UnknownAddressError says that the address of an endpoint is not known in a family.
type UnknownAddressError struct {
	Endpoint model.Endpoint
	Family   model.IPFamily
}

func (e *UnknownAddressError) Error() string {
	return fmt.Sprintf("%s has no %s address", e.Endpoint, e.Family)
}

// Resolve replaces the placeholders of an object by addresses; the object itself is left as it is. With more than one
// family, the item of a list that a placeholder stands in is repeated, once per family: an ipBlock peer with all of its
// exceptions, or an item of a list of networks. A block that mixes placeholders with literal networks is kept in the
// family of the literals only.
//
// The error is an [UnknownAddressError] when lookup knows no address, and otherwise says which placeholder makes no
// sense.
func Resolve(object *unstructured.Unstructured, lookup Lookup, families []model.IPFamily) (*unstructured.Unstructured, error) {
	return rewrite(object, func(text string, family model.IPFamily) (string, error) { return substitute(text, lookup, family) }, families)
}

// Expand gives an object the lists that [Resolve] gives it, and leaves the placeholders as they were written.
func Expand(object *unstructured.Unstructured, families []model.IPFamily) (*unstructured.Unstructured, error) {
	return rewrite(object, func(text string, _ model.IPFamily) (string, error) { return text, nil }, families)
}

// substitution is what a text with placeholders becomes in a family.
type substitution func(text string, family model.IPFamily) (string, error)

func rewrite(object *unstructured.Unstructured, by substitution, families []model.IPFamily) (*unstructured.Unstructured, error) {
	out := object.DeepCopy()
	for key, v := range out.Object {
		if key == "metadata" || !hasPlaceholder(v) {
			continue
		}
		resolved, err := resolve(v, by, families)
		if err != nil {
			return nil, fmt.Errorf("resolve %s %s: %w", object.GetKind(), object.GetName(), err)
		}
		out.Object[key] = resolved
	}
	return out, nil
}

func resolve(v any, by substitution, families []model.IPFamily) (any, error) {
	switch v := v.(type) {
	case string:
		if !placeholderPattern.MatchString(v) {
			return v, nil
		}
		if len(families) != 1 {
			return nil, fmt.Errorf("%s does not stand in a list, and can be only one address where there are %d families", v, len(families))
		}
		return by(v, families[0])
	case map[string]any:
		for key, inner := range v {
			resolved, err := resolve(inner, by, families)
			if err != nil {
				return nil, err
			}
			v[key] = resolved
		}
		return v, nil
	case []any:
		var out []any
		for _, item := range v {
			if !hasPlaceholder(item) {
				out = append(out, item)
				continue
			}
			items, err := resolveItem(item, by, families)
			if err != nil {
				return nil, err
			}
			out = append(out, items...)
		}
		return out, nil
	}
	return v, nil
}

// resolveItem resolves an item of a list, and repeats it per family if it is a text or a block of addresses.
func resolveItem(item any, by substitution, families []model.IPFamily) ([]any, error) {
	if text, ok := item.(string); ok {
		var out []any
		for _, family := range families {
			if !fits(text, family) {
				continue
			}
			s, err := by(text, family)
			if err != nil {
				return nil, err
			}
			out = append(out, s)
		}
		if len(out) == 0 {
			return nil, fmt.Errorf("%s fits none of the IP families %v", text, families)
		}
		return out, nil
	}
	block := blockOf(item)
	if block == nil {
		resolved, err := resolve(item, by, families)
		return []any{resolved}, err
	}
	var out []any
	for _, family := range families {
		if !blockFits(block, family) {
			continue
		}
		fresh, ok := deepCopy(item).(map[string]any)
		if !ok {
			continue
		}
		if err := substituteBlock(blockOf(fresh), by, family); err != nil {
			return nil, err
		}
		// What stands beside the block, such as a list of ports, is resolved as everywhere else.
		resolved, err := resolve(fresh, by, []model.IPFamily{family})
		if err != nil {
			return nil, err
		}
		out = append(out, resolved)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("the block %v fits none of the IP families %v", block["cidr"], families)
	}
	return out, nil
}

func deepCopy(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, inner := range v {
			out[k] = deepCopy(inner)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, inner := range v {
			out[i] = deepCopy(inner)
		}
		return out
	}
	return v
}

// blockOf finds the mapping with cidr and except in an item of a list: the item itself, or its ipBlock.
func blockOf(item any) map[string]any {
	m, ok := item.(map[string]any)
	if !ok {
		return nil
	}
	if inner, ok := m["ipBlock"].(map[string]any); ok {
		m = inner
	}
	if _, ok := m["cidr"].(string); !ok {
		return nil
	}
	return m
}

// blockTexts are the networks of a block.
func blockTexts(block map[string]any) (out []string) {
	if s, ok := block["cidr"].(string); ok {
		out = append(out, s)
	}
	if list, ok := block["except"].([]any); ok {
		for _, item := range list {
			if s, ok := item.(string); ok {
				out = append(out, s)
			}
		}
	}
	return out
}

// blockFits tells whether a block makes sense in a family: its literal networks are of it, its sizes exist in it.
func blockFits(block map[string]any, family model.IPFamily) bool {
	for _, s := range blockTexts(block) {
		if !fits(s, family) {
			return false
		}
	}
	return true
}

func fits(text string, family model.IPFamily) bool {
	if !placeholderPattern.MatchString(text) {
		p, err := netip.ParsePrefix(text)
		return err != nil || model.FamilyOf(p.Addr()) == family
	}
	parts, err := splitPlaceholders(text)
	if err != nil {
		return true // substitute says why
	}
	for _, p := range parts {
		if family == model.IPv4 && p.bits > 32 {
			return false
		}
	}
	return true
}

func substituteBlock(block map[string]any, by substitution, family model.IPFamily) error {
	if s, ok := block["cidr"].(string); ok {
		text, err := by(s, family)
		if err != nil {
			return err
		}
		block["cidr"] = text
	}
	if list, ok := block["except"].([]any); ok {
		for i, item := range list {
			if s, ok := item.(string); ok {
				text, err := by(s, family)
				if err != nil {
					return err
				}
				list[i] = text
			}
		}
	}
	return nil
}

// substitute replaces the placeholders of a text in one family.
func substitute(text string, lookup Lookup, family model.IPFamily) (string, error) {
	var failed error
	out := placeholderPattern.ReplaceAllStringFunc(text, func(m string) string {
		p, err := parsePlaceholder(m)
		if err != nil {
			failed = err
			return m
		}
		addr, ok := lookup(p.endpoint, family)
		if !ok {
			failed = &UnknownAddressError{p.endpoint, family}
			return m
		}
		addr = addr.Unmap().WithZone("")
		if !p.cidr {
			return addr.String()
		}
		bits := p.bits
		if bits < 0 {
			bits = addr.BitLen()
		}
		prefix, err := addr.Prefix(bits)
		if err != nil {
			failed = fmt.Errorf("%s: an %s network has no size /%d", m, family, bits)
			return m
		}
		return prefix.String()
	})
	if failed != nil {
		return "", failed
	}
	return out, nil
}

// exampleAddress makes objects with placeholders whole for checks.
func exampleAddress(_ model.Endpoint, family model.IPFamily) (netip.Addr, bool) {
	if family == model.IPv6 {
		return netip.MustParseAddr("2001:db8::1"), true
	}
	return netip.MustParseAddr("192.0.2.1"), true
}
