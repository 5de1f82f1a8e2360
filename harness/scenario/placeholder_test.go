package scenario

import (
	"maps"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/netproof/netproof/harness/model"
)

func lookupExample(e model.Endpoint, family model.IPFamily) (netip.Addr, bool) {
	addresses := map[model.Endpoint][2]string{
		"x/b":         {"10.1.2.3", "fd00:1::2:3"},
		"node:0":      {"192.168.0.10", "fd00:2::10"},
		"host:ledger": {"203.0.113.7", "2001:db8::7"},
		"x/v4":        {"10.9.9.9", ""},
	}
	text := addresses[e][0]
	if family == model.IPv6 {
		text = addresses[e][1]
	}
	addr, err := netip.ParseAddr(text)
	return addr, err == nil
}

func TestPlaceholdersBecomeAddresses(t *testing.T) {
	peer := func(block ...any) map[string]any { return map[string]any{"ipBlock": blockWith(block...)} }
	dual := []model.IPFamily{model.IPv4, model.IPv6}
	for name, tc := range map[string]struct {
		in       []any
		families []model.IPFamily
		want     []any
	}{
		"an address as its own network": {
			[]any{peer("$(cidr:x/b)")}, v4, []any{peer("10.1.2.3/32")},
		},
		"a network around it": {
			[]any{peer("$(cidr:x/b/24)")}, v4, []any{peer("10.1.2.0/24")},
		},
		"an address with a size": {
			[]any{peer("$(ip:node:0)/32")}, v4, []any{peer("192.168.0.10/32")},
		},
		"IPv6 alone": {
			[]any{peer("$(cidr:host:ledger)")}, dual[1:], []any{peer("2001:db8::7/128")},
		},
		"both families, with exceptions": {
			[]any{peer("$(cidr:x/b/16)", "$(cidr:x/b)", "$(cidr:x/b/24)"), map[string]any{"podSelector": map[string]any{}}}, dual,
			[]any{
				peer("10.1.0.0/16", "10.1.2.3/32", "10.1.2.0/24"), peer("fd00::/16", "fd00:1::2:3/128", "fd00::/24"),
				map[string]any{"podSelector": map[string]any{}},
			},
		},
		"a literal network decides the family": {
			[]any{peer("10.0.0.0/8", "$(cidr:x/b)"), peer("::/0", "$(cidr:x/b)")}, dual,
			[]any{peer("10.0.0.0/8", "10.1.2.3/32"), peer("::/0", "fd00:1::2:3/128")},
		},
		"a size that only IPv6 has": {
			[]any{peer("$(cidr:x/b/64)")}, dual, []any{peer("fd00:1::/64")},
		},
		"literal peers are left as they are": {
			[]any{peer("10.0.0.0/8"), peer("::/0")}, dual, []any{peer("10.0.0.0/8"), peer("::/0")},
		},
		"lists of networks, as Calico has them": {
			[]any{"10.0.0.0/8", "$(cidr:x/b)"}, dual, []any{"10.0.0.0/8", "10.1.2.3/32", "fd00:1::2:3/128"},
		},
		"sets of networks, as Cilium has them": {
			[]any{blockWith("$(cidr:x/b/24)", "$(cidr:x/b)")}, dual,
			[]any{blockWith("10.1.2.0/24", "10.1.2.3/32"), blockWith("fd00::/24", "fd00:1::2:3/128")},
		},
	} {
		t.Run(name, func(t *testing.T) {
			in := objectWith(tc.in)
			before := in.DeepCopy()
			out, err := Resolve(in, lookupExample, tc.families)
			require.NoError(t, err)
			assert.Equal(t, objectWith(tc.want), out)
			assert.Equal(t, before, in, "the object itself is left as it is")
			assert.False(t, hasPlaceholders(out))
		})
	}
}

func blockWith(texts ...any) map[string]any {
	block := map[string]any{"cidr": texts[0]}
	if len(texts) > 1 {
		block["except"] = texts[1:]
	}
	return block
}

func objectWith(peers []any) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"kind": "NetworkPolicy", "metadata": map[string]any{"name": "p", "annotations": map[string]any{"note": "$(ip:text)"}},
		"spec": map[string]any{"ingress": []any{map[string]any{"from": peers}}},
	}}
}

func TestPlaceholdersThatCannotBeResolvedAreErrors(t *testing.T) {
	dual := []model.IPFamily{model.IPv4, model.IPv6}
	var unknown *UnknownAddressError
	_, err := Resolve(objectWith([]any{"$(cidr:x/nobody)"}), lookupExample, v4)
	require.ErrorAs(t, err, &unknown)
	assert.Equal(t, &UnknownAddressError{"x/nobody", model.IPv4}, unknown)

	_, err = Resolve(objectWith([]any{"$(cidr:x/v4)"}), lookupExample, dual)
	require.ErrorAs(t, err, &unknown)
	assert.Equal(t, model.IPv6, unknown.Family)

	for _, text := range []string{"$(cidr:x/b/64)", "$(what:x/b)", "$(cidr:x/b"} {
		_, err = Resolve(objectWith([]any{text}), lookupExample, v4)
		require.Error(t, err, text)
	}
	single := objectWith(nil)
	single.Object["spec"] = map[string]any{"net": "$(cidr:x/b)"}
	_, err = Resolve(single, lookupExample, dual)
	require.ErrorContains(t, err, "can be only one address where there are 2 families")
	out, err := Resolve(single, lookupExample, v4)
	require.NoError(t, err)
	assert.Equal(t, map[string]any{"net": "10.1.2.3/32"}, out.Object["spec"])
}

func TestAppliedObjectsSayWhetherTheyNeedAddresses(t *testing.T) {
	contents := map[string]string{"scenario.yaml": applying("a.yaml"), "a.yaml": `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: x}
spec:
  ingress:
    - from: [{ipBlock: {cidr: "$(cidr:x/b)", except: []}}, {ipBlock: {cidr: 10.0.0.0/8, except: ["$(cidr:x/b/24)"]}}]
---
` + denyPolicy}
	plan := planOf(t, contents, v4, 2)
	force := plan.Steps[0].InForce
	assert.True(t, force[0].NeedsAddresses)
	assert.True(t, hasPlaceholders(force[0].Object))
	assert.Equal(t, "$(cidr:x/b)", force[0].Policy.Spec.Ingress[0].From[0].IPBlock.CIDR)
	assert.False(t, force[1].NeedsAddresses)
	assert.False(t, hasPlaceholders(force[1].Object))
}

func TestNotesAreReadWithAndWithoutThePrefix(t *testing.T) {
	note := func(annotations map[string]string) model.PolicyNote {
		u := &unstructured.Unstructured{Object: map[string]any{"kind": "GlobalNetworkPolicy"}}
		u.SetName("p")
		u.SetNamespace("x")
		u.SetAnnotations(annotations)
		return Notes(u)
	}
	want := model.PolicyNote{Policy: "GlobalNetworkPolicy x/p", Owner: "me", Purpose: "peace", Review: "2027-06-30"}
	assert.Equal(t, want, note(map[string]string{"netproof.dev/owner": "me", "netproof.dev/purpose": "peace", "netproof.dev/review-by": "2027-06-30", "owner": "you"}))
	assert.Equal(t, want, note(map[string]string{"owner": "me", "purpose": "peace", "review-date": "2027-06-30"}))
	assert.Equal(t, want, note(map[string]string{"owner": "me", "purpose": "peace", "review-by": "2027-06-30"}))
	assert.Equal(t, model.PolicyNote{Policy: "GlobalNetworkPolicy x/p"}, note(nil))
}

// hasPlaceholders tells whether the object speaks of addresses that are not known before its pods run.
func hasPlaceholders(object *unstructured.Unstructured) bool {
	content := maps.Clone(object.Object)
	delete(content, "metadata")
	return hasPlaceholder(content)
}
