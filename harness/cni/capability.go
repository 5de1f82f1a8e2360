package cni

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// claim is what the table says about a feature.
type claim struct {
	can bool
	// source is where the vendor says so.
	source string
}

// row is what a plugin can do in a range of versions.
type row struct {
	plugin string
	// from is the first version of the range, below the first one after it.
	from, below string
	claims      map[Feature]claim
	// kinds are those of the plugin's own kinds of objects that decide which connections are allowed.
	kinds       []schema.GroupKind
	kindsSource string
}

func (r row) has(v version) bool {
	from, err := parseVersion(r.from)
	below, err2 := parseVersion(r.below)
	return err == nil && err2 == nil && !v.less(from) && v.less(below)
}

// Capabilities is what one version of a network plugin says it can do.
type Capabilities struct {
	Name    string
	Version string
	row     row
	// off holds the features that this installation has switched off, with the reason.
	off map[Feature]string
}

// CapabilitiesOf looks a plugin up by its name and version, such as calico and v3.30.1. Where the table knows nothing,
// ok is false and nothing is claimed: neither that the plugin can do something nor that it cannot.
func CapabilitiesOf(name, version string) (Capabilities, bool) {
	v, err := parseVersion(version)
	if err != nil {
		return Capabilities{}, false
	}
	for _, r := range table {
		if r.plugin == name && r.has(v) {
			return Capabilities{Name: name, Version: version, row: r}, true
		}
	}
	return Capabilities{}, false
}

// Kinds are the plugin's own kinds of objects that decide which connections are allowed.
func (c Capabilities) Kinds() []schema.GroupKind { return slices.Clone(c.row.kinds) }

// Without is the same for an installation in which a feature is switched off; the reason says by what.
func (c Capabilities) Without(f Feature, reason string) Capabilities {
	off := map[Feature]string{f: reason}
	for feature, why := range c.off {
		off[feature] = why
	}
	c.off = off
	return c
}

// claim returns what is said about a feature; ok is false when nothing is.
func (c Capabilities) claim(f Feature) (claim, bool) {
	if why, off := c.off[f]; off {
		return claim{false, why}, true
	}
	kind, isKind := f.kind()
	if !isKind {
		said, ok := c.row.claims[f]
		return said, ok
	}
	if slices.Contains(c.row.kinds, kind) {
		return claim{true, c.row.kindsSource}, true
	}
	return claim{false, c.row.kindsSource}, ownedBySomeone(kind.Group)
}

// ownedBySomeone tells whether the table lists kinds of this API group for any plugin. About other groups it knows
// nothing.
func ownedBySomeone(group string) bool {
	return slices.ContainsFunc(table, func(r row) bool {
		return slices.ContainsFunc(r.kinds, func(k schema.GroupKind) bool { return k.Group == group })
	})
}

// Missing returns those of the features a scenario needs that the plugin says it cannot do, in their order.
// [Capabilities.Reason] says why. A feature that nothing is said about is not among them.
func (c Capabilities) Missing(features ...Feature) []Feature {
	var missing []Feature
	for _, f := range features {
		if said, ok := c.claim(f); ok && !said.can && !slices.Contains(missing, f) {
			missing = append(missing, f)
		}
	}
	return missing
}

// Reason is a sentence that says whether the plugin can do this, and where that is written.
func (c Capabilities) Reason(f Feature) string {
	said, ok := c.claim(f)
	switch {
	case !ok:
		return fmt.Sprintf("nothing is known about whether %s %s enforces %s", c.Name, c.Version, f)
	case said.can:
		return fmt.Sprintf("%s %s enforces %s (%s)", c.Name, c.Version, f, said.source)
	default:
		return fmt.Sprintf("%s %s does not enforce %s (%s)", c.Name, c.Version, f, said.source)
	}
}

// Stale returns an error when a feature has been seen to work that the plugin is said not to have: the table, or what
// was read of the installation, is wrong and would hide real cells behind unsupported.
func (c Capabilities) Stale(worked ...Feature) error {
	missing := c.Missing(worked...)
	if len(missing) == 0 {
		return nil
	}
	var said []string
	for _, f := range missing {
		said = append(said, c.Reason(f))
	}
	return fmt.Errorf("%s, yet it did: correct harness/cni/capabilities.go", strings.Join(said, "; "))
}
