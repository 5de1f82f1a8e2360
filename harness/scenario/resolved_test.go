package scenario

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/model"
)

// byAddress is the change of a story with one policy, which admits pods and a block.
func byAddress(t *testing.T, families []model.IPFamily, block string) ApplyObject {
	t.Helper()
	plan := planOf(t, story(`  steps:
    - name: by address
      apply:
        - apiVersion: networking.k8s.io/v1
          kind: NetworkPolicy
          metadata: {name: by-address, namespace: x}
          spec:
            podSelector: {}
            ingress:
              - from:
                  - podSelector: {}
                  - ipBlock: `+block+`
      expect: computed
`), families, 2)
	applied, ok := plan.Steps[0].Changes[0].(ApplyObject)
	require.True(t, ok)
	return applied
}

// scattered gives x/a and x/b addresses in different networks of size 24.
func scattered(e model.Endpoint, family model.IPFamily) (netip.Addr, bool) {
	text, ok := map[model.Endpoint]string{"x/a": "10.1.2.3", "x/b": "10.1.9.4"}[e]
	if family == model.IPv6 {
		text, ok = map[model.Endpoint]string{"x/a": "fd00::2:3", "x/b": "fd00::9:4"}[e]
	}
	if !ok {
		return netip.Addr{}, false
	}
	return netip.MustParseAddr(text), true
}

func TestAPolicyThatAddressesMakeInvalidIsRefusedWithPlaceAndFix(t *testing.T) {
	dual := []model.IPFamily{model.IPv4, model.IPv6}
	for name, tc := range map[string]struct {
		block    string
		families []model.IPFamily
		want     []string
	}{
		"an exception outside of its network": {
			`{cidr: "$(cidr:x/b/24)", except: ["$(cidr:x/b)", "$(cidr:x/a)"]}`, v4,
			[]string{"scenario.yaml:29:79: except 10.1.2.3/32 is not part of the cidr 10.1.9.0/24"},
		},
		"an exception outside of a literal network": {
			`{cidr: 10.1.9.0/24, except: ["$(cidr:x/a)"]}`, v4,
			[]string{"scenario.yaml:29:59: except 10.1.2.3/32 is not part of the cidr 10.1.9.0/24"},
		},
		"in one of two families": {
			`{cidr: "$(cidr:x/b/24)", except: ["$(cidr:x/a)"]}`, dual,
			[]string{"scenario.yaml:29:64: except 10.1.2.3/32 is not part of the cidr 10.1.9.0/24"},
		},
		"bits beyond the size": {
			`{cidr: "$(ip:x/a)/24"}`, v4,
			[]string{`scenario.yaml:29:37: "10.1.2.3/24" has bits beyond the prefix length`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := byAddress(t, tc.families, tc.block).Resolve(scattered, tc.families)
			assert.Nil(t, out)
			var problems Problems
			require.ErrorAs(t, err, &problems)
			require.Len(t, problems, len(tc.want))
			for i, p := range problems {
				assert.Contains(t, p.Error(), tc.want[i])
				assert.Contains(t, p.Message, "with the addresses of this run")
				assert.Contains(t, p.Message, "$(")
				assert.Contains(t, p.Fix, "$(cidr:x/b/")
			}
		})
	}
}

func TestAPolicyThatAddressesLeaveValidIsResolved(t *testing.T) {
	dual := []model.IPFamily{model.IPv4, model.IPv6}
	for _, block := range []string{
		`{cidr: "$(cidr:x/b/16)", except: ["$(cidr:x/a)"]}`, `{cidr: 10.0.0.0/8, except: ["$(cidr:x/a)"]}`, `{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}`,
	} {
		applied := byAddress(t, dual, block)
		out, err := applied.Resolve(scattered, dual)
		require.NoError(t, err)
		want, err := Resolve(applied.Object, scattered, dual)
		require.NoError(t, err)
		assert.Equal(t, want, out)
		assert.False(t, hasPlaceholders(out))
	}
}

func TestAnAddressThatIsMissingIsSaidWithTheSource(t *testing.T) {
	_, err := byAddress(t, v4, `{cidr: "$(cidr:y/a)"}`).Resolve(scattered, v4)
	var unknown *UnknownAddressError
	require.ErrorAs(t, err, &unknown)
	assert.ErrorContains(t, err, "scenario.yaml:21:11: ")
}

func TestExpandKeepsThePlaceholdersInTheShapeOfWhatIsResolved(t *testing.T) {
	dual := []model.IPFamily{model.IPv4, model.IPv6}
	applied := byAddress(t, dual, `{cidr: "$(cidr:x/b/16)", except: ["$(cidr:x/a)"]}`)
	out, err := Expand(applied.Object, dual)
	require.NoError(t, err)
	spec, ok := out.Object["spec"].(map[string]any)
	require.True(t, ok)
	block := map[string]any{"ipBlock": blockWith("$(cidr:x/b/16)", "$(cidr:x/a)")}
	assert.Equal(t, []any{map[string]any{"from": []any{map[string]any{"podSelector": map[string]any{}}, block, block}}}, spec["ingress"])
	assert.True(t, hasPlaceholders(applied.Object), "the object itself is left as it is")
}

func TestAnExampleIsValidWhateverTheAddressesWillBe(t *testing.T) {
	dual := []model.IPFamily{model.IPv4, model.IPv6}
	block := func(texts ...any) any { return map[string]any{"ipBlock": blockWith(texts...)} }
	for name, tc := range map[string]struct {
		block string
		want  []any
	}{
		"an address in a literal network":     {`{cidr: 10.0.0.0/8, except: ["$(cidr:x/a)", 10.1.0.0/16]}`, []any{block("10.0.0.0/8", "10.0.0.0/32", "10.1.0.0/16")}},
		"a literal in a network of addresses": {`{cidr: "$(cidr:x/a/16)", except: [fd00:0:1::/48]}`, []any{block("2001::/16", "2001::/128")}},
		"an address in a network of addresses": {
			`{cidr: "$(cidr:x/a/24)", except: ["$(cidr:x/b)"]}`,
			[]any{block("192.0.2.0/24", "192.0.2.1/32"), block("2001:d00::/24", "2001:db8::1/128")},
		},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := byAddress(t, dual, tc.block).Example(dual)
			require.NoError(t, err)
			spec, ok := out.Object["spec"].(map[string]any)
			require.True(t, ok)
			from := append([]any{map[string]any{"podSelector": map[string]any{}}}, tc.want...)
			assert.Equal(t, []any{map[string]any{"from": from}}, spec["ingress"])
		})
	}
}
