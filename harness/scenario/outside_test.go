package scenario

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/model"
)

// asked are the connections of a step, as "from to port".
func asked(t *testing.T, files map[string]string, families ...model.IPFamily) (out []string) {
	t.Helper()
	if len(families) == 0 {
		families = []model.IPFamily{model.IPv4}
	}
	plan, err := mustLoad(t, files)[0].Plan(families, 2)
	require.NoError(t, err)
	for _, c := range plan.Steps[1].Cells {
		port := model.Port{Number: c.Connection.Port, Protocol: c.Connection.Protocol}
		out = append(out, string(c.Connection.From)+" "+string(c.Connection.To)+" "+port.String())
	}
	return out
}

// shopOf is a folder of a database that serves, a visitor that only sends, and a policy for the database.
func shopOf(spec string) map[string]string {
	return map[string]string{"all.yaml": `apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec: {containers: [{name: c, image: i, ports: [{containerPort: 5432}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: job, namespace: jobs}
spec: {containers: [{name: c, image: i}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: shop}
spec: ` + spec + "\n"}
}

func assertions1(spec string) string {
	return "apiVersion: netproof.dev/v1alpha1\nkind: Assertions\nspec: " + spec + "\n"
}

func TestAFolderIsAskedAboutStrangers(t *testing.T) {
	files := shopOf("{podSelector: {}}")
	assert.ElementsMatch(t, []string{
		"jobs/job shop/db 5432/TCP", "shop/stranger shop/db 5432/TCP", "jobs/stranger shop/db 5432/TCP", "stranger/stranger shop/db 5432/TCP",
		"node:0 shop/db 5432/TCP", "host:stranger shop/db 5432/TCP", "shop/db host:stranger 443/TCP", "jobs/job host:stranger 443/TCP",
	}, asked(t, files))
	for spec, want := range map[string][]string{
		"{strangers: []}":          {"jobs/job shop/db 5432/TCP"},
		"{strangers: [node]}":      {"jobs/job shop/db 5432/TCP", "node:0 shop/db 5432/TCP"},
		"{strangers: [namespace]}": {"jobs/job shop/db 5432/TCP", "stranger/stranger shop/db 5432/TCP"},
		// Who names the connections has said all.
		`{probes: [{from: jobs/job, to: shop/db}]}`:                                     {"jobs/job shop/db 5432/TCP"},
		`{probes: [{from: "*", to: shop/db}], strangers: [namespace]}`:                  {"jobs/job shop/db 5432/TCP", "stranger/stranger shop/db 5432/TCP"},
		`{strangers: [], rules: [{from: 192.0.2.1, to: shop/db, verdict: allow}]}`:      {"jobs/job shop/db 5432/TCP", "host:192.0.2.1 shop/db 5432/TCP"},
		`{strangers: [], rules: [{from: shop/db, to: "host:metadata", verdict: deny}]}`: {"jobs/job shop/db 5432/TCP", "shop/db host:metadata 80/TCP"},
		`{strangers: [], rules: [{from: "*", to: 192.0.2.1, ports: [25], verdict: deny}]}`: {
			"jobs/job shop/db 5432/TCP", "jobs/job host:192.0.2.1 25/TCP", "shop/db host:192.0.2.1 25/TCP",
		},
	} {
		files["netproof.yaml"] = assertions1(spec)
		assert.ElementsMatch(t, want, asked(t, files), spec)
	}
	_, err := load(map[string]string{"netproof.yaml": assertions1("{strangers: [nodes]}"), "all.yaml": files["all.yaml"]})
	require.ErrorContains(t, err, "netproof.yaml:3:20: \"nodes\" is not a kind of stranger")
	require.ErrorContains(t, err, "did you mean `node`?")
}

func TestServicesAreAskedByAllButTheirOwnPods(t *testing.T) {
	files := shopOf("{podSelector: {}}")
	files["service.yaml"] = "apiVersion: v1\nkind: Service\nmetadata: {name: sql, namespace: shop}\nspec: {selector: {app: db}, ports: [{port: 3306, targetPort: 5432}]}\n"
	files["netproof.yaml"] = assertions1("{strangers: [pods]}")
	assert.ElementsMatch(t, []string{
		"jobs/job shop/db 5432/TCP", "shop/stranger shop/db 5432/TCP", "jobs/stranger shop/db 5432/TCP",
		"jobs/job shop/sql 3306/TCP", "shop/stranger shop/sql 3306/TCP", "jobs/stranger shop/sql 3306/TCP",
	}, asked(t, files))
	files["netproof.yaml"] = assertions1("{probes: [{from: jobs/job, to: shop/db}]}")
	assert.Equal(t, []string{"jobs/job shop/db 5432/TCP"}, asked(t, files))
}

func TestStrangersAreNoSubjectsAndNoPeers(t *testing.T) {
	// The policy of a namespace without a workload does nothing for the folder, though it selects a stranger.
	files := shopOf("{podSelector: {}}")
	files["empty.yaml"] = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: closed, namespace: empty}\nspec: {podSelector: {}}\n"
	plan, err := mustLoad(t, files)[0].Plan([]model.IPFamily{model.IPv4}, 2)
	require.NoError(t, err)
	assert.Equal(t, []string{"NetworkPolicy empty/closed (empty.yaml:1) selects no pod in any step: nothing is proven about it"}, plan.Vacuous)
	assert.Len(t, mustLoad(t, shopOf("{podSelector: {}, ingress: [{from: [{podSelector: {matchExpressions: [{key: app, operator: DoesNotExist}]}}]}]}"))[0].Warnings, 1,
		"nobody of the folder is such a peer")
}

func TestStrangersAreNotAskedWhereNobodyCanTell(t *testing.T) {
	files := shopOf("{podSelector: {}}")
	istio := "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\nspec: {}\n"
	files["more.yaml"] = istio
	assert.Contains(t, asked(t, files), "stranger/stranger shop/db 5432/TCP", "what is left out is in force nowhere here")

	files["more.yaml"] = "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: p, namespace: shop}\nspec: {}\n"
	files["netproof.yaml"] = assertions1(`{intents: [{deny: {from: "*", to: shop/db}}]}`)
	s := mustLoad(t, files)[0]
	require.NotEmpty(t, s.Warnings)
	assert.Contains(t, s.Warnings.Error(), "connections of strangers that are not asked: 3, since projectcalico.org NetworkPolicy shop/p (more.yaml:1) may decide, and no intent speaks of them")
	plan, err := s.Plan([]model.IPFamily{model.IPv4}, 1)
	require.NoError(t, err)
	assert.Len(t, plan.Unproven, 1, "%v", plan.Unproven)
}

func TestStrangersCountForNoLimit(t *testing.T) {
	scenarios, err := Load(t.Context(), []string{"."}, Options{FS: fsOf(shopOf("{podSelector: {}}")), Limits: Limits{Namespaces: 2, Pods: 2}})
	require.NoError(t, err)
	assert.Len(t, scenarios[0].Spec.Topology.Pods, 5)
	scenarios, err = Load(t.Context(), []string{"."}, Options{FS: fsOf(shopOf("{podSelector: {}}")), Lent: true})
	require.NoError(t, err)
	assert.Len(t, scenarios[0].Spec.Topology.Namespaces, 2)
	assert.Contains(t, scenarios[0].Notes[0], "this run was lent its namespaces")
}

func TestWhatCannotBeReadIsRefusedWithoutAPanic(t *testing.T) {
	for _, spec := range []string{
		"{strangers: [[]]}", "{strangers: {a: b}}", "{strangers: pods}", "{steps: [x]}", "{steps: [null]}", "{steps: {a: b}}", "{steps: [{name: a, apply: [1]}]}",
		"{steps: [{name: a, apply: {b: c}}]}", "{intents: [x]}", "{intents: [null]}", "{intents: [[]]}", "{intents: {deny: {}}}", "{intents: [{deny: x}]}", "{intents: [{deny: null}]}",
		"{intents: [{isolate: [dev]}]}", "{intents: [{isolate: {namespaces: dev}}]}", "{intents: [{isolate: {namespaces: [[], shop]}}]}",
		`{intents: [{deny: {from: "*", to: shop/db, except: {}}}]}`, `{intents: [{deny: {from: "*", to: shop/db, except: [{}]}}]}`,
		"{hosts: [{name: a, address: []}]}", "{hosts: [{name: a, address: 3}]}",
	} {
		files := shopOf("{podSelector: {}}")
		files["netproof.yaml"] = assertions1(spec)
		_, err := load(files)
		assert.Error(t, err, spec)
	}
}

func TestNamesOfStrangersAreFree(t *testing.T) {
	files := shopOf("{podSelector: {}}")
	files["all.yaml"] = strings.ReplaceAll(strings.ReplaceAll(files["all.yaml"], "jobs", "stranger"), "job", "stranger")
	assert.ElementsMatch(t, []string{
		"stranger/stranger shop/db 5432/TCP", "shop/stranger shop/db 5432/TCP", "stranger/stranger-2 shop/db 5432/TCP", "stranger-2/stranger shop/db 5432/TCP",
		"node:0 shop/db 5432/TCP", "host:stranger shop/db 5432/TCP", "shop/db host:stranger 443/TCP", "stranger/stranger host:stranger 443/TCP",
	}, asked(t, files))
}

func TestEachAddressBlockIsAskedAbout(t *testing.T) {
	with := func(spec, more string) []string {
		files := shopOf(spec)
		if more != "" {
			files["netproof.yaml"] = assertions1(more)
		}
		var out []string
		for _, c := range asked(t, files) {
			if strings.Contains(c, "host:") && !strings.Contains(c, "host:stranger") {
				out = append(out, c)
			}
		}
		return out
	}
	egress := func(block string) string {
		return "{podSelector: {matchLabels: {app: db}}, policyTypes: [Egress], egress: [{to: [{ipBlock: " + block + "}], ports: [{port: 8443}]}]}"
	}
	assert.ElementsMatch(t, []string{"shop/db host:203.0.113.1 8443/TCP", "shop/db host:203.0.114.0 8443/TCP"}, with(egress("{cidr: 203.0.113.0/24}"), ""))
	assert.ElementsMatch(t, []string{
		"shop/db host:10.0.0.1 8443/TCP", "shop/db host:11.0.0.0 8443/TCP", "shop/db host:10.1.0.1 8443/TCP", "shop/db host:10.2.0.0 8443/TCP",
	}, with(egress("{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}"), ""))
	assert.ElementsMatch(t, []string{"shop/db host:169.254.169.254 8443/TCP", "shop/db host:169.254.169.255 8443/TCP"},
		with(egress("{cidr: 0.0.0.0/0, except: [169.254.169.254/32]}"), ""), "who admits everything is asked about its exception")
	assert.ElementsMatch(t, []string{"host:203.0.113.1 shop/db 5432/TCP", "host:203.0.114.0 shop/db 5432/TCP"},
		with("{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/24}}]}]}", ""))
	assert.ElementsMatch(t, []string{"shop/db host:bank 443/TCP", "shop/db host:203.0.114.0 8443/TCP"},
		with(egress("{cidr: 203.0.113.0/24}"), "{hosts: [{name: bank, address: 203.0.113.9, ports: [443]}]}"), "a declared host is who is asked, on its own ports")
	assert.ElementsMatch(t, []string{"shop/db host:bank 8443/TCP", "shop/db host:203.0.114.0 8443/TCP"},
		with(egress("{cidr: 203.0.113.0/24}"), "{hosts: [{name: bank, address: 203.0.113.9}]}"))
	assert.Empty(t, with(egress("{cidr: 203.0.113.0/24}"), "{strangers: [pods]}"))
	assert.Empty(t, with(egress("{cidr: 'fd00::/8'}"), ""), "the cluster has no IPv6")

	plan, err := mustLoad(t, shopOf(egress("{cidr: 'fd12::/16'}")))[0].Plan([]model.IPFamily{model.IPv6}, 1)
	require.NoError(t, err)
	_, inside := plan.Initial.Host("host:fd12::1")
	_, beyond := plan.Initial.Host("host:fd13::")
	assert.True(t, inside && beyond)
}

func TestOpenPortsAreAskedOfTheStrangerOutside(t *testing.T) {
	assert.Contains(t, asked(t, shopOf("{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 25}]}, {to: [{ipBlock: {cidr: 0.0.0.0/0}}], ports: [{port: 123, protocol: UDP}]}]}")),
		"shop/db host:stranger 123/UDP")
}

func TestManyBlocksAreSaidToBeLeftOut(t *testing.T) {
	var peers []string
	for i := range 100 {
		peers = append(peers, "{ipBlock: {cidr: "+netip.AddrFrom4([4]byte{20, byte(i), 0, 0}).String()+"/24}}")
	}
	s := mustLoad(t, shopOf("{podSelector: {}, ingress: [{from: ["+strings.Join(peers, ", ")+"]}]}"))[0]
	assert.Len(t, s.Spec.Topology.Hosts, 1+maxMadeHosts)
	assert.Contains(t, strings.Join(s.Notes, "\n"), "136 places in or around address blocks are not asked about")

	var rules []string
	for i := range maxHosts + 1 {
		rules = append(rules, "{from: "+netip.AddrFrom4([4]byte{20, 0, byte(i), 1}).String()+", to: shop/db, verdict: deny}")
	}
	files := shopOf("{podSelector: {}}")
	files["netproof.yaml"] = assertions1("{strangers: [], rules: [" + strings.Join(rules, ", ") + "]}")
	assert.Contains(t, problemsOf(t, files).Error(), "there are 201 hosts, and 200 are the most")
}

func TestAddressesThatNoHostCanHaveAreRefused(t *testing.T) {
	for address, why := range map[string]string{
		"127.0.0.1": "never leaves the machine", "0.0.0.0": "means no address", "224.0.0.1": "not the address of one host", "255.255.255.255": "not the address of one host",
		"'::1'": "never leaves the machine", "'fe80::1'": "link-local", "'::ffff:1.2.3.4'": "in IPv6 form", "ten": "not an IP address", "203.0.113.0/24": "not an IP address",
	} {
		for _, spec := range []string{"{hosts: [{name: h, address: " + address + "}]}", "{rules: [{from: " + address + ", to: shop/db, verdict: deny}]}"} {
			files := shopOf("{podSelector: {}}")
			files["netproof.yaml"] = assertions1(spec)
			_, err := load(files)
			require.Error(t, err, spec)
			if strings.Contains(spec, "hosts") {
				require.ErrorContains(t, err, why, spec)
			}
		}
	}
	files := shopOf("{podSelector: {}}")
	files["netproof.yaml"] = assertions1("{hosts: [{name: a, address: 192.0.2.1}, {name: b, address: 192.0.2.1}]}")
	_, err := load(files)
	require.ErrorContains(t, err, "host `b` has the address of host `a`")
}

func TestPlacesInAndAroundABlock(t *testing.T) {
	block := netip.MustParsePrefix
	for _, c := range []struct{ cidr, in, out string }{
		{"10.0.0.0/8", "10.0.0.1", "11.0.0.0"}, {"192.0.2.7/32", "192.0.2.7", "192.0.2.8"}, {"192.0.2.0/31", "192.0.2.1", "192.0.2.2"},
		{"fd00::/8", "fd00::1", "fe00::"}, {"223.255.255.0/24", "223.255.255.1", "223.255.254.255"},
	} {
		assert.Equal(t, c.in, inside(block(c.cidr), nil).String(), c.cidr)
		assert.Equal(t, c.out, justOutside(block(c.cidr)).String(), c.cidr)
	}
	assert.Equal(t, "10.128.0.0", inside(block("10.0.0.0/8"), []netip.Prefix{block("10.0.0.0/9")}).String())
	assert.False(t, inside(block("10.0.0.0/8"), []netip.Prefix{block("10.0.0.0/9"), block("10.128.0.0/9")}).IsValid(), "nothing is left of it")
}
