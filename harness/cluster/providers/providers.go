// Package providers says which providers of clusters there are and which network plugins each has. Whoever offers a
// choice asks here.
package providers

import (
	"fmt"
	"slices"
	"strings"

	"github.com/netproof/netproof/harness/cluster/kind"
	"github.com/netproof/netproof/harness/cluster/local/engine"
)

// The providers.
const (
	Local    = "local"
	Kind     = "kind"
	Existing = "existing"
)

// Names are all providers, the default first.
func Names() []string { return []string{Local, Kind, Existing} }

// Plugins are the network plugins that a provider can make clusters with, the default first. There is none for
// [Existing]: such a cluster has its own.
func Plugins(provider string) []string {
	switch provider {
	case Local:
		return engine.Plugins()
	case Kind:
		return kind.Plugins()
	}
	return nil
}

// Offer says what each provider has: local: calico, none; kind: calico, cilium, kindnet.
func Offer() string {
	var parts []string
	for _, name := range Names() {
		if plugins := Plugins(name); len(plugins) > 0 {
			parts = append(parts, name+": "+strings.Join(plugins, ", "))
		}
	}
	return strings.Join(parts, "; ")
}

// CheckPlugin returns an error that says what a provider has, if it does not have the plugin, and which other one has
// it.
func CheckPlugin(provider, plugin string) error {
	have := Plugins(provider)
	if len(have) == 0 || slices.Contains(have, plugin) {
		return nil
	}
	elsewhere := ""
	for _, name := range Names() {
		if slices.Contains(Plugins(name), plugin) {
			elsewhere = fmt.Sprintf("; the provider %s has %s", name, plugin)
		}
	}
	return fmt.Errorf("the provider %s has %s%s", provider, strings.Join(have, " or "), elsewhere)
}
