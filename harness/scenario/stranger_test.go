package scenario

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/model"
)

// The tests of this file are about folders that come from a stranger: what they must not be able to do or to hide.

const (
	openPolicy = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: open, namespace: shop}
spec: {podSelector: {}, ingress: [{}]}
`
	closedShop = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: shop}
spec: {podSelector: {}, policyTypes: [Ingress]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {containers: [{name: c, image: i, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec: {containers: [{name: c, image: i, ports: [{containerPort: 5432}]}]}
`
	webToDatabase = `apiVersion: netproof.dev/v1alpha1
kind: Assertions
spec: {rules: [{from: shop/web, to: shop/db, verdict: deny}]}
`
)

// policiesOfLastStep names the policies in force at the end.
func policiesOfLastStep(t *testing.T, s *Scenario) (names []string) {
	t.Helper()
	plan, err := s.Plan([]model.IPFamily{model.IPv4}, 0)
	require.NoError(t, err)
	for _, a := range plan.Steps[len(plan.Steps)-1].InForce {
		names = append(names, a.Object.GetName())
	}
	return names
}

func TestWhatKubectlWouldApplyIsRead(t *testing.T) {
	asItem := "items: [{metadata: {name: open, namespace: shop}, spec: {podSelector: {}, ingress: [{}]}}]\n"
	for name, text := range map[string]string{
		".open.yaml":                 openPolicy,
		".hidden/open.yml":           openPolicy,
		"sub/.deep/.open.json":       `{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{"name":"open","namespace":"shop"},"spec":{"podSelector":{},"ingress":[{}]}}`,
		"values.yaml":                "replicas: 1\n---\n" + openPolicy,
		"kustomization.yaml":         openPolicy,
		"Chart.yaml":                 openPolicy,
		"skaffold.yml":               openPolicy,
		"list-with-a-name.yaml":      "apiVersion: v1\nkind: List\nmetadata: {name: l}\nitems:\n- " + strings.ReplaceAll(openPolicy, "\n", "\n  "),
		"typed-list.yaml":            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicyList\nmetadata: {name: l}\n" + asItem,
		"list-of-another-kind.yaml":  "apiVersion: example.com/v1\nkind: Bundle\nmetadata: {name: l}\nitems:\n- " + strings.ReplaceAll(openPolicy, "\n", "\n  "),
		".list.yaml":                 "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicyList\nmetadata: {name: l}\n" + asItem,
		"list-in-a-list/values.yaml": "kind: List\napiVersion: v1\nitems: [{apiVersion: networking.k8s.io/v1, kind: NetworkPolicyList, " + strings.TrimSpace(asItem) + "}]\n",
	} {
		t.Run(name, func(t *testing.T) {
			s := mustLoad(t, map[string]string{"policies/closed.yaml": closedShop, "policies/" + name: text}, "policies")
			assert.ElementsMatch(t, []string{"closed", "open"}, policiesOfLastStep(t, s[0]))
		})
	}
}

func TestHiddenFilesAndFilesOfOtherToolsMayHoldAnythingElse(t *testing.T) {
	s := mustLoad(t, map[string]string{
		"closed.yaml": closedShop, "values.yaml": "image: nginx\n", "Chart.yaml": "apiVersion: v2\nname: shop\n",
		"kustomization.yaml":           "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [closed.yaml]\n",
		".github/workflows/check.yaml": "on: push\njobs: {}\n", ".golangci.yml": "version: \"2\"\n", ".broken.yaml": "a: [",
		".old/scenario.yaml": minimal, ".empty.yaml": "",
	})
	require.Len(t, s, 1)
	assert.Equal(t, []string{"closed"}, policiesOfLastStep(t, s[0]))
}

func TestAHiddenFileThatBreaksAfterAPolicyIsRefused(t *testing.T) {
	for name, text := range map[string]string{".open.yaml": openPolicy + "---\na: [", "values.yaml": "a: [\n# kind: NetworkPolicy\n"} {
		_, err := load(map[string]string{"closed.yaml": closedShop, name: text})
		assert.ErrorContains(t, err, name+":1:1: the file seems to hold policies, and is not YAML", name)
	}
}

func TestAScenarioFileHidesNothingBesideIt(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"a policy":                     {"open.yaml": openPolicy},
		"a policy above":               {"a/scenario.yaml": minimal, "open.yaml": openPolicy},
		"a hidden policy":              {".open.yaml": openPolicy},
		"a policy of another plugin":   {"open.yaml": "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: open}\nspec: {}\n"},
		"a policy in a list":           {"open.yaml": "apiVersion: v1\nkind: List\nitems: [{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: a}}]\n"},
		"a policy in a broken file":    {"open.yaml": openPolicy + "---\n a: [\n"},
		"a policy of an unknown group": {"open.yaml": "apiVersion: example.com/v1\nkind: FooNetworkPolicy\nmetadata: {name: open}\n"},
	} {
		t.Run(name, func(t *testing.T) {
			files["docs/example/scenario.yaml"] = minimal
			if _, ok := files["a/scenario.yaml"]; ok {
				delete(files, "docs/example/scenario.yaml")
			}
			_, err := load(files, ".")
			var problems Problems
			require.ErrorAs(t, err, &problems)
			require.Len(t, problems, 1)
			assert.Regexp(t, `open\.yaml$`, problems[0].File)
		})
	}
	_, err := load(map[string]string{"a/scenario.yaml": minimal, "netproof.yaml": webToDatabase}, ".")
	assert.ErrorContains(t, err, "netproof.yaml:1:1: the assertions would not be looked at: the folder . holds scenarios")

	mustLoad(t, map[string]string{
		"a/scenario.yaml": strings.Replace(minimal, "      expect: {default: allow}", "      apply: [../deny.yaml]\n      expect: computed", 1),
		"deny.yaml":       denyPolicy, "pod.yaml": twoPods, "values.yaml": "a: 1", "not.yaml": "- 1\n- 2\n",
	}, ".")
}

func TestFinalizersOwnersAndPodSecurityAreRefused(t *testing.T) {
	deny := func(more string) string {
		return strings.Replace(denyPolicy, "namespace: x}", "namespace: x, "+more+"}", 1)
	}
	applying := strings.Replace(minimal, "      expect: {default: allow}", "      apply: [deny.yaml]\n      expect: computed", 1)
	for more, want := range map[string]string{
		"finalizers: [example.com/stay]":                                             "NetworkPolicy x/deny has finalizers",
		"ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: a, uid: b}]":      "NetworkPolicy x/deny has ownerReferences",
		"finalizers: [a.b/c], ownerReferences: [{apiVersion: v1, kind: A, name: a}]": "NetworkPolicy x/deny has ownerReferences",
	} {
		_, err := load(map[string]string{"scenario.yaml": applying, "deny.yaml": deny(more)})
		assert.ErrorContains(t, err, want)
		_, err = load(map[string]string{"deny.yaml": deny(more), "pods.yaml": twoPods})
		assert.ErrorContains(t, err, want)
	}
	mustLoad(t, map[string]string{"scenario.yaml": applying, "deny.yaml": deny("finalizers: [], ownerReferences: null")})

	for _, text := range []string{
		strings.Replace(minimal, "{name: x}", "{name: x, labels: {pod-security.kubernetes.io/enforce: privileged}}", 1),
		strings.Replace(minimal, "    - name: before", "    - name: open\n      label: {namespaces: {x: {pod-security.kubernetes.io/enforce: privileged}}}\n      expect: {default: allow}\n    - name: before", 1),
		strings.Replace(minimal, "    - name: before", "    - name: open\n      label: {namespaces: {x: {pod-security.kubernetes.io/warn: null}}}\n      expect: {default: allow}\n    - name: before", 1),
	} {
		_, err := load(map[string]string{"scenario.yaml": text})
		assert.ErrorContains(t, err, "decides what a namespace admits")
	}
}

func TestPodSecurityOfAFolderIsLeftOut(t *testing.T) {
	namespace := "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {team: a, pod-security.kubernetes.io/enforce: privileged}}\n"
	s := mustLoad(t, map[string]string{"ns.yaml": namespace, "closed.yaml": closedShop})
	assert.Equal(t, map[string]string{"team": "a"}, s[0].Spec.Topology.Namespaces[0].Labels)

	selecting := strings.Replace(openPolicy, "ingress: [{}]", "ingress: [{from: [{namespaceSelector: {matchLabels: {pod-security.kubernetes.io/enforce: privileged}}}]}]", 1)
	_, err := load(map[string]string{"ns.yaml": namespace, "closed.yaml": closedShop, "open.yaml": selecting})
	assert.ErrorContains(t, err, "open.yaml:4:")
	assert.ErrorContains(t, err, "NetworkPolicy shop/open selects by a label `pod-security.kubernetes.io/...`")
}

func TestWhatAllScenariosMakeTogetherIsBounded(t *testing.T) {
	const head = "apiVersion: netproof.dev/v1alpha1\nkind: Scenario\nmetadata: {name: %s}\nspec:\n  topology:\n    namespaces: [{name: x}%s]\n    pods: [{name: x/a, ports: [80/TCP]}, {name: x/b, ports: [80/TCP]}%s]\n%s  steps:\n%s"
	const step = "    - {name: s%d, expect: {default: allow}}\n"
	many := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	one := fmt.Sprintf(step, 0)
	for name, c := range map[string]struct {
		files  map[string]string
		limits Limits
		want   string
	}{
		"namespaces": {files: map[string]string{"a": fmt.Sprintf(head, "a", many(200, ", {name: n%d}"), "", "", one)},
			want: "up to scenario `a` the run makes 201 namespaces, and 200 are the most"},
		"namespaces of two scenarios": {files: map[string]string{
			"a": fmt.Sprintf(head, "a", many(150, ", {name: n%d}"), "", "", one), "b": fmt.Sprintf(head, "b", many(150, ", {name: m%d}"), "", "", one)},
			want: "up to scenario `b` the run makes 301 namespaces"},
		"the same namespaces twice": {files: map[string]string{
			"a": fmt.Sprintf(head, "a", many(150, ", {name: n%d}"), "", "", one), "b": fmt.Sprintf(head, "b", many(150, ", {name: n%d}"), "", "", one)}},
		"more namespaces are wanted": {files: map[string]string{"a": fmt.Sprintf(head, "a", many(200, ", {name: n%d}"), "", "", one)}, limits: Limits{Namespaces: 201}},
		"pods without ports": {files: map[string]string{"a": fmt.Sprintf(head, "a", "", many(4000, ", {name: x/p%d}"), "", one)},
			want: "the run makes 4002 pods, and 1000 are the most"},
		"pods of steps": {files: map[string]string{"a": fmt.Sprintf(head, "a", "", "", "", one+"    - {name: more, create: {pods: [{name: x/c}"+many(999, ", {name: x/p%d}")+"]}, expect: {default: allow}}\n")},
			want: "the run makes 1002 pods"},
		"services": {files: map[string]string{"a": strings.Replace(fmt.Sprintf(head, "a", "", "", "", one), "  steps:", "    services: ["+strings.TrimPrefix(many(5000, ", {name: x/s%d, type: NodePort, selector: {a: b}, ports: [80]}"), ", ")+"]\n  steps:", 1)},
			want: "the run makes 5000 services, and 200 are the most"},
		"cells":           {files: map[string]string{"a": fmt.Sprintf(head, "a", "", many(98, ", {name: x/p%d, ports: [1, 2, 3, 4, 5, 6, 7, 8, 9]}"), "", many(40, step))}, want: "the run has more than 1000000 cells"},
		"cells of probes": {files: map[string]string{"a": fmt.Sprintf(head, "a", "", many(98, ", {name: x/p%d, ports: [1, 2, 3, 4, 5, 6, 7, 8, 9]}"), "  probes: [{from: \"*\", to: \"x/*\"}]\n", many(40, step))}, want: "the run has more than 1000000 cells"},
		"fewer cells":     {files: map[string]string{"a": fmt.Sprintf(head, "a", "", "", "", one)}, limits: Limits{Cells: 1}, want: "the run has more than 1 cells"},
		"steps":           {files: map[string]string{"a": fmt.Sprintf(head, "a", "", "", "  probes: [{from: x/a, to: x/b}]\n", many(1001, step))}, want: "scenario `a` has too many steps for what it holds: 1001"},
		"steps and pods":  {files: map[string]string{"a": fmt.Sprintf(head, "a", "", many(900, ", {name: x/p%d}"), "  probes: [{from: x/a, to: x/b}]\n", many(900, step))}, want: "too many steps for what it holds"},
	} {
		t.Run(name, func(t *testing.T) {
			fsys := fstest.MapFS{}
			for name, text := range c.files {
				fsys[name+".scenario.yaml"] = &fstest.MapFile{Data: []byte(text)}
			}
			_, err := Load(t.Context(), []string{"."}, Options{FS: fsys, Limits: c.limits})
			if c.want == "" {
				assert.NoError(t, err)
				return
			}
			assert.ErrorContains(t, err, c.want)
		})
	}
}

func TestAssertionsFromOutsideCannotBeOverridden(t *testing.T) {
	load := func(assert string, files map[string]string, paths ...string) ([]*Scenario, error) {
		fsys := fstest.MapFS{"outside.yaml": &fstest.MapFile{Data: []byte(assert)}}
		for name, text := range files {
			fsys[name] = &fstest.MapFile{Data: []byte(text)}
		}
		if len(paths) == 0 {
			paths = []string{"policies"}
		}
		return Load(t.Context(), paths, Options{FS: fsys, Assert: "outside.yaml"})
	}
	verdictOf := func(s *Scenario, id string) model.Verdict {
		plan, err := s.Plan([]model.IPFamily{model.IPv4}, 0)
		require.NoError(t, err)
		for _, c := range plan.Steps[1].Cells {
			if c.Connection.From+" "+c.Connection.To == model.Endpoint(id) {
				return c.Expected
			}
		}
		t.Fatalf("no cell %s", id)
		return ""
	}
	folder := func(assertions string) map[string]string {
		return map[string]string{"policies/closed.yaml": closedShop, "policies/netproof.yaml": "apiVersion: netproof.dev/v1alpha1\nkind: Assertions\nspec: " + assertions + "\n"}
	}

	s, err := load(webToDatabase, map[string]string{"policies/closed.yaml": closedShop})
	require.NoError(t, err)
	assert.Equal(t, model.Deny, verdictOf(s[0], "shop/web shop/db"))

	s, err = load(webToDatabase, folder("{probes: [{from: shop/db, to: shop/web}]}"))
	require.NoError(t, err)
	assert.Equal(t, model.Deny, verdictOf(s[0], "shop/web shop/db"), "narrowed probes leave no assertion out")

	_, err = load(webToDatabase, folder(`{rules: [{from: shop/web, to: shop/db, verdict: allow}]}`))
	assert.ErrorContains(t, err, "outside.yaml:3:16: it contradicts policies/netproof.yaml:3: of shop/web->shop/db:5432/TCP/IPv4/podIP one wants allow and the other deny")

	_, err = load(webToDatabase, map[string]string{"policies/closed.yaml": strings.ReplaceAll(closedShop, "name: db", "name: other")})
	assert.ErrorContains(t, err, "outside.yaml:3:", "what a rule speaks of was renamed")

	_, err = load(webToDatabase, map[string]string{"policies/scenario.yaml": minimal})
	assert.ErrorContains(t, err, "outside.yaml:1:1: assertions from outside hold for folders of manifests, and there is none")

	_, err = load(strings.Replace(webToDatabase, "spec: {", "spec: {probes: [{from: shop/web, to: shop/db}], ", 1), map[string]string{"policies/closed.yaml": closedShop})
	assert.ErrorContains(t, err, "outside.yaml:3:", "assertions from outside do not narrow")

	_, err = load("apiVersion: netproof.dev/v1alpha1\nkind: Assertions\nspec: {}\n", map[string]string{"policies/closed.yaml": closedShop})
	assert.ErrorContains(t, err, "the file asserts nothing")

	other := strings.ReplaceAll(closedShop, "shop", "bank")
	s, err = load(webToDatabase, map[string]string{"policies/closed.yaml": closedShop, "bank/closed.yaml": other}, "bank", "policies")
	require.NoError(t, err)
	require.Len(t, s, 1, "the folders are one set")
	assert.Equal(t, model.Deny, verdictOf(s[0], "shop/web shop/db"))
	_, err = load(webToDatabase, map[string]string{"a/closed.yaml": other, "b/closed.yaml": strings.ReplaceAll(closedShop, "shop", "c")}, "a", "b")
	assert.ErrorContains(t, err, "outside.yaml:3:")

	_, err = Load(t.Context(), []string{"."}, Options{FS: fstest.MapFS{"a.yaml": {Data: []byte(closedShop)}}, Assert: "gone.yaml"})
	assert.ErrorContains(t, err, "there is no file gone.yaml")
}

func TestAPlanSaysWhatAGreenRunWouldLeaveUnproven(t *testing.T) {
	unproven := func(files map[string]string) []string {
		plan, err := mustLoad(t, files)[0].Plan([]model.IPFamily{model.IPv4, model.IPv6}, 2)
		require.NoError(t, err)
		return plan.Unproven
	}
	narrowed := strings.Replace(webToDatabase, "rules: [{from: shop/web, to: shop/db, verdict: deny}]", "probes: [{from: shop/db, to: shop/web}]", 1)
	assert.Equal(t, []string{"the probes of netproof.yaml leave out 1 of 2 connections between pods"},
		unproven(map[string]string{"closed.yaml": closedShop, "netproof.yaml": narrowed}))
	assert.Empty(t, unproven(map[string]string{"closed.yaml": closedShop, "netproof.yaml": webToDatabase}))
	assert.Equal(t, []string{"no step has a policy in force: nothing is proven about policies"}, unproven(map[string]string{"scenario.yaml": minimal}))

	applying := func(policy, probes string) map[string]string {
		text := strings.Replace(minimal, "      expect: {default: allow}", "      apply: [deny.yaml]\n      expect: computed", 1)
		return map[string]string{"scenario.yaml": strings.Replace(text, "  steps:", probes+"  steps:", 1), "deny.yaml": policy}
	}
	onlyA := strings.Replace(denyPolicy, "podSelector: {}", "podSelector: {matchLabels: {app: a}}", 1)
	labelled := func(files map[string]string) map[string]string {
		files["scenario.yaml"] = strings.Replace(files["scenario.yaml"], "{name: x/a,", "{name: x/a, labels: {app: a},", 1)
		return files
	}
	assert.Empty(t, unproven(labelled(applying(onlyA, "  probes: [{from: x/b, to: x/a}]\n"))))
	assert.Equal(t, []string{"no probe meets a pod that NetworkPolicy x/deny (deny.yaml:1) isolates"},
		unproven(labelled(applying(onlyA, "  probes: [{from: x/a, to: x/b}]\n"))), "the policy isolates for ingress, and the probe leaves the pod")
}

func TestAPolicyThatNothingIsExpectedOfIsVacuous(t *testing.T) {
	inert := "\n        - {apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: inert}, spec: {}}"
	text := func(expect string) string {
		return strings.Replace(minimal, "      expect: {default: allow}", "      apply:"+inert+"\n      expect: "+expect, 1)
	}
	vacuous := func(text string) []string {
		plan, err := mustLoad(t, map[string]string{"scenario.yaml": text})[0].Plan([]model.IPFamily{model.IPv4}, 0)
		require.NoError(t, err)
		return plan.Vacuous
	}
	assert.Equal(t, []string{"GlobalNetworkPolicy inert (scenario.yaml:14) decides no cell: all cells of its steps are left open, so nothing is proven about it"},
		vacuous(text("{default: undefined}")))
	assert.Empty(t, vacuous(text("{default: undefined, rules: [{from: x/a, to: x/b, verdict: allow}]}")))
}

func TestNothingIsQuotedOfAFileThatIsNotAManifest(t *testing.T) {
	for name, text := range map[string]string{
		"words": "secret-word\n", "keys": "secret: secret\nsecret: secret\n", "ini": "[secret]\n\tsecret = secret\n", "environment": "secret=secret\n",
		"passwd": "secret:x:0:secret:/secret\nsecret: secret: secret\n", "anchor": "a: *secret\n", "tag": "!!secret a: !secret b\n", "key": "? [secret]\n: secret\n",
		"fence": "```secret\n", "directive": "%secret secret\n---\na: b\n", "pem": "-----BEGIN secret-----\nsecret\n", "bullets": "\u2022 secret\n\u2022 secret: secret\n",
		"json": `{"secret": {"secret": "secret"}}`, "number": "secret: .inf\n", "unfinished": "secret: \"secret\n",
	} {
		for _, file := range []string{"a.yaml", "a.scenario.yaml", "netproof.yaml"} {
			_, err := load(map[string]string{"closed.yaml": closedShop, file: text}, ".")
			if file == "netproof.yaml" && err == nil {
				continue
			}
			require.Error(t, err, name+" as "+file)
			assert.NotContains(t, err.Error(), "secret", name+" as "+file)
		}
	}
}

func TestNothingIsQuotedOfAnExpectedTable(t *testing.T) {
	for _, text := range []string{
		"secret\n", "step: secret\nstep: secret\n", "step: a\nsecret/TCP\n", " secret\n", "step: a\n80/TCP\n  x/b\n  x/a secret\n",
		"step: a\n80/TCP\n  x/b\n  x/a + secret\n", "step: a\n80/TCP\n  secret\n  secret +\n  secret +\n",
	} {
		_, err := ParseExpected("expected.txt", []byte(text))
		require.Error(t, err, text)
		assert.NotContains(t, err.Error(), "secret", text)
	}
}

func TestAnExpectedTableIsReadThroughTheSameDoor(t *testing.T) {
	computed := strings.Replace(minimal, "{default: allow}", "computed", 1)
	for name, makeFile := range map[string]func(path string) error{
		"a link that leads out":  func(path string) error { return os.Symlink("../secret", path) },
		"a link to nothing":      func(path string) error { return os.Symlink("gone", path) },
		"a link to an endless":   func(path string) error { return os.Symlink("/dev/zero", path) },
		"a pipe":                 func(path string) error { return makePipe(path) },
		"a folder":               func(path string) error { return os.Mkdir(path, 0o700) },
		"a file that is endless": func(path string) error { return os.WriteFile(path, make([]byte, maxExpectedSize+1), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, "secret", []byte("secret\n"))
			write(t, dir, "given/scenario.yaml", []byte(computed))
			require.NoError(t, makeFile(filepath.Join(dir, "given", "expected.txt")))
			problems := loadProblems(t, filepath.Join(dir, "given"))
			require.Len(t, problems, 1)
			assert.Equal(t, filepath.Join(dir, "given", "expected.txt"), problems[0].File)
			assert.NotContains(t, problems[0].Message, "secret\n")
		})
	}
}

func TestAppliedFilesStayBeneathTheGivenFolder(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "outside.yaml", []byte(denyPolicy))
	write(t, dir, "given/notes", []byte(denyPolicy))
	require.NoError(t, os.Symlink("../outside.yaml", filepath.Join(dir, "given.yaml")))
	for _, file := range []string{"../outside.yaml", "../../outside.yaml", "../given/../outside.yaml", "notes", "link.yaml"} {
		write(t, dir, "given/scenario.yaml", []byte(strings.Replace(minimal, "      expect: {default: allow}", "      apply: ["+file+"]\n      expect: computed", 1)))
		_ = os.Symlink("../outside.yaml", filepath.Join(dir, "given/link.yaml"))
		_, err := Load(t.Context(), []string{filepath.Join(dir, "given")}, Options{})
		assert.Error(t, err, file)
	}
}

func TestLoadingEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	over := errors.New("over")
	cancel(over)
	_, err := Load(ctx, []string{"."}, Options{FS: fstest.MapFS{"scenario.yaml": {Data: []byte(minimal)}}})
	assert.ErrorIs(t, err, over)
}

func TestObjectsOfAFolderAreBounded(t *testing.T) {
	files := map[string]string{}
	for i := range 11 {
		files[fmt.Sprintf("%02d.yaml", i)] = strings.Repeat("{apiVersion: v1, kind: Secret, metadata: {name: a}}\n---\n", 2000)
	}
	_, err := load(files)
	assert.EqualError(t, err, "10.yaml:1:1: up to this file there are more than 20000 objects, which is the most that is read\n    fix: name the folder of the policies")
}

func TestAMountedConfigMapIsReadOnce(t *testing.T) {
	applying := strings.Replace(minimal, "      expect: {default: allow}", "      apply: [deny.yaml]\n      expect: computed", 1)
	for name, files := range map[string]map[string]string{
		"scenario": {"scenario.yaml": applying, "deny.yaml": denyPolicy},
		"plain":    {"pods.yaml": twoPods, "deny.yaml": denyPolicy},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range files {
				write(t, dir, "..2026_11_28/"+file, []byte(text))
				require.NoError(t, os.Symlink("..data/"+file, filepath.Join(dir, file)))
			}
			require.NoError(t, os.Symlink("..2026_11_28", filepath.Join(dir, "..data")))
			s, err := Load(t.Context(), []string{dir}, Options{})
			require.NoError(t, err)
			require.Len(t, s, 1)
			assert.Equal(t, []string{"deny"}, policiesOfLastStep(t, s[0])[:1])
		})
	}
}
