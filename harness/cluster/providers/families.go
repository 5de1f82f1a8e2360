package providers

import "github.com/netproof/netproof/harness/model"

// IPFamilyNames are the words for the addresses that pods may have, the default first.
func IPFamilyNames() []string { return []string{"ipv4", "ipv6", "dual"} }

// IPFamilies gives the families behind such a word, the primary one first; ok is false for any other word.
func IPFamilies(name string) (families []model.IPFamily, ok bool) {
	switch name {
	case "ipv4":
		return []model.IPFamily{model.IPv4}, true
	case "ipv6":
		return []model.IPFamily{model.IPv6}, true
	case "dual":
		return []model.IPFamily{model.IPv4, model.IPv6}, true
	}
	return nil, false
}
