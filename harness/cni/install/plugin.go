package install

import (
	"fmt"
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/netproof/netproof/harness/model"
)

// Plugin says how one network plugin is installed.
type Plugin struct {
	// Name as users write it, such as calico.
	Name string
	// Version that is installed by default, as the tag of its images says it.
	Version string
	// Source is where the vendor publishes that version. Without a URL there is nothing to install.
	Source Source
	// BroughtBy says who installs the plugin when there is no Source, such as kind.
	BroughtBy string
	// Agent is the program of the plugin that must be ready on every node.
	Agent Agent
	// Adapt changes the objects of a manifest to fit the network, and says what it changed. It may be nil.
	Adapt func(objects []*unstructured.Unstructured, network Network) (changes []string, err error)
	// Values are those of the plugin's chart that fit the network. It may be nil.
	Values func(network Network) map[string]any
}

// Source is one version of a plugin, as its vendor publishes it: a manifest, or a chart inside an archive of the
// source.
type Source struct {
	// URL of the manifest or of the archive, which is a compressed tar file with one folder at its top.
	URL string
	// Chart is the folder of the chart inside that top folder; empty for a manifest.
	Chart string
	// Digest is the sha256 of the manifest, or the [ChartDigest] of the chart, because archives of a tag are packed
	// anew by their server and need not be the same bytes tomorrow. It is written as sha256:HEX.
	Digest string
}

// Agent tells the pods of a plugin's agents from others.
type Agent struct {
	// Selector is a label selector that selects the agents' pods in all namespaces.
	Selector string
	// Container is the container whose image has the plugin's version as its tag.
	Container string
}

// Network is what a plugin has to know of the cluster.
type Network struct {
	// Families of pods, the first is the primary one.
	Families []model.IPFamily
	// PodSubnets are the networks that pods get their addresses from, one per family, in the order of the families.
	PodSubnets []netip.Prefix
}

// Has tells whether pods have addresses of the family.
func (n Network) Has(family model.IPFamily) bool { return slices.Contains(n.Families, family) }

// Subnet is the pod subnet of the family; ok is false where pods have no such addresses.
func (n Network) Subnet(family model.IPFamily) (subnet netip.Prefix, ok bool) {
	i := slices.Index(n.Families, family)
	if i < 0 {
		return netip.Prefix{}, false
	}
	return n.PodSubnets[i], true
}

// networkOf checks that there is one subnet for each family and puts them in the families' order.
func networkOf(families []model.IPFamily, subnets []netip.Prefix) (Network, error) {
	if len(subnets) == 0 {
		return Network{}, fmt.Errorf("pod subnets are missing: a network plugin has to know them")
	}
	byFamily := map[model.IPFamily]netip.Prefix{}
	for _, s := range subnets {
		family := model.FamilyOf(s.Addr())
		if other, twice := byFamily[family]; twice {
			return Network{}, fmt.Errorf("pod subnets %s and %s are both %s: give one for each IP family", other, s, family)
		}
		byFamily[family] = s.Masked()
		if !slices.Contains(families, family) && len(families) > 0 {
			return Network{}, fmt.Errorf("pod subnet %s is %s, which is not among the IP families %v", s, family, families)
		}
	}
	if len(families) == 0 {
		for _, s := range subnets {
			families = append(families, model.FamilyOf(s.Addr()))
		}
	}
	network := Network{Families: families}
	for _, f := range families {
		subnet, ok := byFamily[f]
		if !ok {
			return Network{}, fmt.Errorf("no pod subnet is %s, which is among the IP families %v", f, families)
		}
		network.PodSubnets = append(network.PodSubnets, subnet)
	}
	return network, nil
}
