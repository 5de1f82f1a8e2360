package cluster

import (
	"errors"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"

	"github.com/netproof/netproof/harness/policy"
)

// ServedPolicy is a kind of policies that a cluster has.
type ServedPolicy struct {
	policy.Kind
	// In is the resource in the version that the API server prefers.
	In schema.GroupVersionResource
}

// ServedPolicies are the kinds of policies that netproof can apply, list and delete on a cluster, as its API server
// lists them. silent are the APIs that could not be asked, since the server behind them does not answer.
func ServedPolicies(client discovery.ServerResourcesInterface) (served []ServedPolicy, silent map[schema.GroupVersion]error, err error) {
	lists, err := client.ServerPreferredResources()
	if failed, partial := errors.AsType[*discovery.ErrGroupDiscoveryFailed](err); partial {
		silent = failed.Groups
	} else if err != nil {
		return nil, nil, fmt.Errorf("ask for the kinds of objects: %w", err)
	}
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			continue
		}
		for _, r := range list.APIResources {
			in := gv.WithResource(r.Name)
			kind, known := policy.LookupResource(in.GroupResource())
			if known && slices.Contains(r.Verbs, "list") && slices.Contains(r.Verbs, "delete") {
				served = append(served, ServedPolicy{kind, in})
			}
		}
	}
	return served, silent, nil
}
