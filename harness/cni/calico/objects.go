package calico

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/netproof/netproof/harness/policy"
)

// group is the API group and version that Calico stores its objects under.
const group = policy.CalicoGroup + "/v1"

// The tiers that Calico makes for itself, and where they stand in the order of evaluation (projectcalico/api, tier.go).
const (
	adminTierOrder    = 1_000
	defaultTierOrder  = 1_000_000
	baselineTierOrder = 10_000_000
)

// CRDs reads a manifest of CustomResourceDefinitions, a YAML stream.
func CRDs(manifest []byte) ([]*unstructured.Unstructured, error) {
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifest), 64<<10)
	var objects []*unstructured.Unstructured
	for {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(&object.Object)
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read custom resource definition %d: %w", len(objects)+1, err)
		}
		if len(object.Object) == 0 {
			continue
		}
		if kind := object.GetKind(); kind != "CustomResourceDefinition" {
			return nil, fmt.Errorf("read custom resource definition %d: it is a %s", len(objects)+1, kind)
		}
		objects = append(objects, object)
	}
}

// Objects are what Calico's datastore must hold before the node program starts: the tiers, the pools, and the statement
// that the datastore is ready. They are what Calico's own start-up writes.
func Objects(version string, podNetworks []netip.Prefix) []*unstructured.Unstructured {
	objects := []*unstructured.Unstructured{
		object("ClusterInformation", "default", map[string]any{
			"calicoVersion":  version,
			"clusterGUID":    "0000000000000000netproof00000000",
			"clusterType":    "k8s,kdd",
			"datastoreReady": true,
		}),
		tier("adminnetworkpolicy", adminTierOrder, "Pass"),
		tier("default", defaultTierOrder, "Deny"),
		tier("baselineadminnetworkpolicy", baselineTierOrder, "Pass"),
	}
	for _, network := range podNetworks {
		name := "default-ipv4-ippool"
		if network.Addr().Is6() {
			name = "default-ipv6-ippool"
		}
		objects = append(objects, object("IPPool", name, map[string]any{
			"cidr":         network.String(),
			"ipipMode":     "Never",
			"vxlanMode":    "Always",
			"natOutgoing":  false,
			"nodeSelector": "all()",
			"allowedUses":  []any{"Workload", "Tunnel"},
		}))
	}
	return objects
}

func tier(name string, order int64, defaultAction string) *unstructured.Unstructured {
	return object("Tier", name, map[string]any{"order": order, "defaultAction": defaultAction})
}

func object(kind, name string, spec map[string]any) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": group,
		"kind":       kind,
		"metadata":   map[string]any{"name": name},
		"spec":       spec,
	}}
}
