package scenario

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"github.com/netproof/netproof/fixtures"
	"github.com/netproof/netproof/harness/model"
)

// minimal is the least that a scenario needs.
const minimal = `apiVersion: netproof.dev/v1alpha1
kind: Scenario
metadata: {name: minimal}
spec:
  topology:
    namespaces:
      - {name: x}
    pods:
      - {name: x/a, ports: [80/TCP]}
      - {name: x/b, ports: [80/TCP]}
  steps:
    - name: before any policy
      expect: {default: allow}
`

const denyPolicy = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: x}
spec:
  podSelector: {}
  policyTypes: [Ingress]
`

// load loads the files given by name and content; paths are scenario.yaml, or else the whole tree, unless they are
// given.
func load(contents map[string]string, paths ...string) ([]*Scenario, error) {
	if len(paths) == 0 {
		paths = []string{"."}
		if _, ok := contents["scenario.yaml"]; ok {
			paths = []string{"scenario.yaml"}
		}
	}
	return Load(context.Background(), paths, Options{FS: fsOf(contents)})
}

// fsOf is a file system of these files.
func fsOf(contents map[string]string) fstest.MapFS {
	out := fstest.MapFS{}
	for name, text := range contents {
		out[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return out
}

func mustLoad(t *testing.T, contents map[string]string, paths ...string) []*Scenario {
	t.Helper()
	scenarios, err := load(contents, paths...)
	require.NoError(t, err)
	return scenarios
}

// problemsOf returns the problems of files that must not load.
func problemsOf(t *testing.T, contents map[string]string, paths ...string) Problems {
	t.Helper()
	_, err := load(contents, paths...)
	var problems Problems
	require.True(t, errors.As(err, &problems), "want problems, have %v", err)
	return problems
}

func namesOf(scenarios []*Scenario) []string {
	var out []string
	for _, s := range scenarios {
		out = append(out, s.Metadata.Name)
	}
	return out
}

func TestAllScenariosThatComeWithNetproofLoadAndPlan(t *testing.T) {
	scenarios, err := Load(t.Context(), fixtures.Paths(), Options{FS: fixtures.FS()})
	require.NoError(t, err)
	require.Len(t, scenarios, len(fixtures.Paths()))
	for _, s := range scenarios {
		plan, err := s.Plan([]model.IPFamily{model.IPv4, model.IPv6}, 2)
		require.NoError(t, err, s.Metadata.Name)
		assert.Empty(t, plan.Vacuous, s.Metadata.Name)
		assert.Empty(t, s.Warnings, s.Metadata.Name)
		for _, step := range plan.Steps {
			assert.NotEmpty(t, step.Cells, "%s, step %s", s.Metadata.Name, step.Name)
		}
	}
}

func TestAGeneratedScenarioForBenchmarksLoads(t *testing.T) {
	for _, denied := range []bool{true, false} {
		s := mustLoad(t, map[string]string{"scenario.yaml": string(fixtures.Scale(50, denied))})
		plan, err := s[0].Plan([]model.IPFamily{model.IPv4}, 2)
		require.NoError(t, err)
		assert.Len(t, plan.Steps[0].Cells, 50*49)
	}
}

func TestTheMinimalScenarioIsReadWhole(t *testing.T) {
	s := mustLoad(t, map[string]string{"dir/scenario.yaml": minimal})[0]
	assert.Equal(t, "minimal", s.Metadata.Name)
	assert.Equal(t, "dir/scenario.yaml", s.File)
	assert.Equal(t, "dir/expected.txt", s.ExpectedFile())
	assert.False(t, s.Plain)
	assert.Empty(t, s.Warnings)
	assert.Equal(t, Port{Port: 80, Protocol: "TCP", At: Position{"dir/scenario.yaml", 9, 29}}, s.Spec.Topology.Pods[0].Ports[0])
}

func TestAFolderIsSearchedForScenariosInLexicalOrder(t *testing.T) {
	named := func(name string) string { return strings.Replace(minimal, "name: minimal", "name: "+name, 1) }
	contents := map[string]string{
		"b/scenario.yaml":    named("second"),
		"a/x.scenario.yml":   named("first"),
		"c/y.scenario.json":  strings.Replace(jsonScenario, "NAME", "third", 1),
		"c/unrelated.yaml":   "not: {a: scenario}\n",
		".git/scenario.yaml": "broken: [",
		"c/.#scenario.yaml":  "broken: [",
		"c/notes.md":         "# notes\n",
	}
	assert.Equal(t, []string{"first", "second", "third"}, namesOf(mustLoad(t, contents)))
	assert.Equal(t, []string{"second", "first", "third"}, namesOf(mustLoad(t, contents, "b", ".")), "the order of the paths counts")
}

const jsonScenario = `{
	"apiVersion": "netproof.dev/v1alpha1", "kind": "Scenario", "metadata": {"name": "NAME"},
	"spec": {
		"topology": {"namespaces": [{"name": "y"}], "pods": [{"name": "y/a", "ports": [80, "81/UDP"]}, {"name": "y/b"}]},
		"steps": [{"name": "open", "expect": {"default": "allow"}}]
	}
}
`

func TestAPathThatIsGivenTwiceIsLoadedOnce(t *testing.T) {
	assert.Len(t, mustLoad(t, map[string]string{"scenario.yaml": minimal}, "scenario.yaml", "./scenario.yaml"), 1)
}

func TestAFileOfAnyNameThatIsGivenItselfIsReadAsWhatItHolds(t *testing.T) {
	s := mustLoad(t, map[string]string{"a.yaml": minimal}, "a.yaml")
	assert.Equal(t, "a.expected.txt", s[0].ExpectedFile())

	s = mustLoad(t, map[string]string{"dir/deny.yaml": denyPolicy, "dir/pods.yaml": twoPods}, "dir/deny.yaml", "dir/pods.yaml")
	require.Len(t, s, 1, "manifests that are named one by one make one scenario")
	assert.True(t, s[0].Plain)
	assert.Equal(t, "dir", s[0].Metadata.Name)
}

func TestAFileMayHoldSeveralScenarios(t *testing.T) {
	text := minimal + "---\n# nothing\n---\n" + strings.Replace(minimal, "name: minimal", "name: other", 1)
	s := mustLoad(t, map[string]string{"scenario.yaml": text})
	require.Equal(t, []string{"minimal", "other"}, namesOf(s))
	assert.Equal(t, "minimal.expected.txt", s[0].ExpectedFile())
	assert.Equal(t, "other.expected.txt", s[1].ExpectedFile())
}

func TestAppliedFilesMayHoldListsAndSeveralDocuments(t *testing.T) {
	text := strings.Replace(minimal, "    - name: before", "    - name: all\n      apply: [sub/a.yaml, ../shared/b.json]\n      expect: computed\n    - name: before", 1)
	s := mustLoad(t, map[string]string{
		"dir/scenario.yaml": text,
		"dir/sub/a.yaml":    "---\n" + denyPolicy + "---\n---\n" + strings.Replace(denyPolicy, "deny", "second", 1),
		"shared/b.json": `{"apiVersion": "v1", "kind": "List", "items": [
			{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "third", "namespace": "x"}, "spec": {"podSelector": {}}}]}`,
	}, ".")
	plan, err := s[0].Plan([]model.IPFamily{model.IPv4}, 0)
	require.NoError(t, err)
	var names []string
	for _, a := range plan.Steps[0].InForce {
		names = append(names, a.Object.GetName()+" "+a.Source.String())
	}
	assert.Equal(t, []string{"deny dir/sub/a.yaml:2:1", "second dir/sub/a.yaml:10:1", "third shared/b.json:2:4"}, names)
}

func TestAnObjectReadBackFromAClusterIsAppliedWithoutWhatTheServerSet(t *testing.T) {
	text := `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: deny
  namespace: x
  uid: 2b1c
  resourceVersion: "7"
  generation: 1
  creationTimestamp: "2027-01-01T00:00:00Z"
  managedFields:
    - {manager: kubectl, operation: Apply, fieldsV1: {"f:spec": {}}}
  annotations: {netproof.dev/owner: me, date: 2027-06-30}
spec: {podSelector: {}}
status: {}
`
	s := mustLoad(t, map[string]string{"scenario.yaml": applying("a.yaml"), "a.yaml": text})
	plan, err := s[0].Plan([]model.IPFamily{model.IPv4}, 0)
	require.NoError(t, err)
	assert.Equal(t, map[string]any{
		"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
		"metadata": map[string]any{"name": "deny", "namespace": "x", "annotations": map[string]any{"netproof.dev/owner": "me", "date": "2027-06-30"}},
		"spec":     map[string]any{"podSelector": map[string]any{}},
	}, plan.Steps[0].InForce[0].Object.Object)
}

// applying is a scenario that applies files and leaves the verdicts to the specification.
func applying(names ...string) string {
	return strings.Replace(minimal, "      expect: {default: allow}", "      apply: ["+strings.Join(names, ", ")+"]\n      expect: computed", 1)
}

func TestYAMLAnchorsAndMergeKeysAreResolved(t *testing.T) {
	text := strings.Replace(minimal, "      - {name: x/b, ports: [80/TCP]}", "      - &b {name: x/b, ports: [80/TCP], labels: {app: web}}\n      - {<<: *b, name: x/c}", 1)
	s := mustLoad(t, map[string]string{"scenario.yaml": text})
	c := s[0].Spec.Topology.Pods[2]
	assert.Equal(t, "x/c", c.Name)
	assert.Equal(t, map[string]string{"app": "web"}, c.Labels)
}

func TestQuotedBooleansAreNames(t *testing.T) {
	text := strings.NewReplacer("{name: x}", `{name: "y", labels: {on: "off", 'no': !!str yes}}`, "x/a", "y/a", "x/b", "y/b").Replace(minimal)
	problems := problemsOf(t, map[string]string{"scenario.yaml": text})
	require.Len(t, problems, 1, "only the unquoted key is wrong: %v", problems)
	assert.Contains(t, problems[0].Message, "`on` is a boolean")

	s := mustLoad(t, map[string]string{"scenario.yaml": strings.Replace(text, "{on:", "{'on':", 1)})
	assert.Equal(t, map[string]string{"on": "off", "no": "yes"}, s[0].Spec.Topology.Namespaces[0].Labels)
}

func TestWindowsLineEndsAndByteOrderMarksDoNoHarm(t *testing.T) {
	text := "\ufeff" + strings.ReplaceAll(minimal, "\n", "\r\n")
	s := mustLoad(t, map[string]string{"scenario.yaml": text})
	assert.Equal(t, "minimal", s[0].Metadata.Name)
}

func TestPoliciesOfOtherPluginsAreTakenAsTheyAre(t *testing.T) {
	inline := `
        - apiVersion: projectcalico.org/v3
          kind: GlobalNetworkPolicy
          metadata: {name: g}
          spec: {selector: all(), whatever: [1, 1.5, yes, ~, text]}
        - apiVersion: cilium.io/v2
          kind: CiliumNetworkPolicy
          metadata: {name: c, namespace: x}
          spec: {endpointSelector: {}}`
	text := strings.Replace(minimal, "      expect: {default: allow}", "      apply:"+inline+"\n      expect: {default: allow}", 1)
	plan, err := mustLoad(t, map[string]string{"scenario.yaml": text})[0].Plan([]model.IPFamily{model.IPv4}, 0)
	require.NoError(t, err)
	force := plan.Steps[0].InForce
	require.Len(t, force, 2)
	assert.Nil(t, force[0].Policy)
	assert.Equal(t, []any{int64(1), 1.5, true, nil, "text"}, force[0].Object.Object["spec"].(map[string]any)["whatever"])
	assert.Empty(t, plan.Vacuous, "what they select is not known here")
}

func TestARuleThatLaterRulesRepeatIsAWarningAndUnproven(t *testing.T) {
	text := strings.Replace(minimal, "{default: allow}", `{default: deny, rules: [{from: x/a, to: x/b, verdict: allow}, {from: "*", to: "*", verdict: allow}]}`, 1)
	s := mustLoad(t, map[string]string{"scenario.yaml": text})
	require.Len(t, s[0].Warnings, 1)
	assert.Contains(t, s[0].Warnings[0].Error(), "scenario.yaml:13:39: the rule decides no cell of step `before any policy`")
	plan, err := s[0].Plan([]model.IPFamily{model.IPv4}, 0)
	require.NoError(t, err)
	assert.Contains(t, plan.Unproven, "the rule at scenario.yaml:13 decides no cell of step `before any policy`")
}

func TestARuleThatLaterRulesContradictEverywhereIsRefused(t *testing.T) {
	text := strings.Replace(minimal, "{default: allow}", `{default: allow, rules: [{from: x/a, to: x/b, verdict: deny}, {from: "*", to: "*", verdict: allow}]}`, 1)
	_, err := load(map[string]string{"scenario.yaml": text})
	assert.ErrorContains(t, err, "scenario.yaml:13:40: the rule decides no cell of step `before any policy`: later rules match all of its cells, and scenario.yaml:13 wants another verdict")
}

func TestNothingIsAnErrorOfItsOwn(t *testing.T) {
	for name, contents := range map[string]map[string]string{
		"an empty folder":      {"a/README.md": "x"},
		"workloads alone":      {"a/pods.yaml": twoPods},
		"no paths":             nil,
		"nothing but comments": {"a/kustomization.yaml": "resources: []\n"},
	} {
		t.Run(name, func(t *testing.T) {
			fsys := fstest.MapFS{}
			for n, text := range contents {
				fsys[n] = &fstest.MapFile{Data: []byte(text)}
			}
			var paths []string
			if contents != nil {
				paths = []string{"a"}
			}
			_, err := Load(t.Context(), paths, Options{FS: fsys})
			require.ErrorIs(t, err, ErrNothing)
			var problems Problems
			assert.False(t, errors.As(err, &problems))
		})
	}
}

func TestProblemsOfAllFilesAreFoundAtOnceAndSorted(t *testing.T) {
	problems := problemsOf(t, map[string]string{
		"b/scenario.yaml": strings.Replace(minimal, "kind: Scenario", "kind: Secnario", 1),
		"a/scenario.yaml": strings.NewReplacer("ports: [80/TCP]}\n      - {name: x/b", "portz: [80/TCP]}\n      - {name: x/b", "default: allow", "default: alow").Replace(minimal),
		"c/scenario.yaml": "a: [",
	})
	var places []string
	for _, p := range problems {
		places = append(places, p.Position().Short())
	}
	assert.Equal(t, []string{"a/scenario.yaml:9", "a/scenario.yaml:13", "b/scenario.yaml:2", "c/scenario.yaml:1"}, places)
}

// The following need a real file system: sizes, links, and what is not a file.

func write(t *testing.T, dir, name string, data []byte) string {
	t.Helper()
	full := filepath.Join(dir, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(full), 0o755))
	require.NoError(t, os.WriteFile(full, data, 0o644))
	return full
}

func loadProblems(t *testing.T, paths ...string) Problems {
	t.Helper()
	_, err := Load(t.Context(), paths, Options{})
	var problems Problems
	require.True(t, errors.As(err, &problems), "want problems, have %v", err)
	return problems
}

func TestAFileOfTenMegabytesIsRefusedUnread(t *testing.T) {
	big := write(t, t.TempDir(), "big.yaml", bytes.Repeat([]byte("# nothing\n"), 1_000_000))
	problems := loadProblems(t, big)
	require.Len(t, problems, 1)
	assert.Equal(t, Problem{
		File: big, Line: 1, Column: 1, Message: "the file has more than 8.0 MiB, which is the most that is read",
		Fix: "split it into several files, or take out what is not a policy",
	}, problems[0])
}

func TestAFileThatIsNoUTF8IsRefusedWithThePlace(t *testing.T) {
	dir := t.TempDir()
	problems := loadProblems(t,
		write(t, dir, "latin.yaml", []byte("a: b\nname: caf\xe9\n")),
		write(t, dir, "utf16.yaml", []byte("\xff\xfea\x00:\x00")),
		write(t, dir, "control.yaml", []byte("a: \x00\n")))
	require.Len(t, problems, 3)
	assert.Contains(t, problems[0].Error(), "control.yaml:1:1: not YAML: control characters are not allowed")
	assert.Contains(t, problems[1].Error(), "latin.yaml:2:10: this byte is not part of UTF-8 text")
	assert.Contains(t, problems[2].Error(), "utf16.yaml:1:1: the file is written in UTF-16")
}

func TestADirectoryLoopIsReportedAndNotFollowed(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a/scenario.yaml", []byte(minimal))
	require.NoError(t, os.Symlink("..", filepath.Join(dir, "a", "back")))
	require.NoError(t, os.Symlink("self.yaml", filepath.Join(dir, "self.yaml")))
	require.NoError(t, os.Symlink("nowhere", filepath.Join(dir, "gone.yaml")))
	problems := loadProblems(t, dir)
	require.Len(t, problems, 3)
	assert.Equal(t, filepath.Join(dir, "a", "back"), problems[0].File)
	assert.Contains(t, problems[0].Message, "directory loop: ")
	assert.Contains(t, problems[0].Message, "leads back to "+dir)
	assert.Contains(t, problems[1].Message, "the link cannot be followed: no such file")
	assert.Contains(t, problems[2].Message, "the link cannot be followed: too many levels of symbolic links")
}

func TestAFolderThatIsReachedTwiceIsReadOnce(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "real/scenario.yaml", []byte(minimal))
	require.NoError(t, os.Symlink("real", filepath.Join(dir, "link")))
	s, err := Load(t.Context(), []string{dir}, Options{})
	require.NoError(t, err)
	assert.Len(t, s, 1)
}

// makePipe makes a named pipe, with the program for it: not every system that this compiles for has the call.
func makePipe(path string) error { return exec.Command("mkfifo", "-m", "600", path).Run() }

func TestWhatIsNoRegularFileIsRefused(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe.yaml")
	require.NoError(t, makePipe(pipe))
	problems := loadProblems(t, pipe, "/dev/zero")
	require.Len(t, problems, 2)
	for _, p := range problems {
		assert.Contains(t, p.Message, "is not a regular file")
	}
}

func TestAMissingFolderIsReportedWithTheNearestName(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "policies/scenario.yaml", []byte(minimal))
	problems := loadProblems(t, filepath.Join(dir, "polices"))
	require.Len(t, problems, 1)
	assert.Contains(t, problems[0].Error(), "there is no file")
	assert.Equal(t, "did you mean `policies`?", problems[0].Fix)
}

func TestTheCurrentFolderGivesItsNameToThePlainScenario(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "My Shop/all.yaml", []byte(denyPolicy+"---\n"+twoPods))
	t.Chdir(filepath.Join(dir, "My Shop"))
	s, err := Load(t.Context(), []string{"."}, Options{})
	require.NoError(t, err)
	assert.Equal(t, "my-shop", s[0].Metadata.Name)
	assert.Equal(t, "expected.txt", s[0].ExpectedFile())
}

func TestAFileIsReadOnceHoweverOftenItIsApplied(t *testing.T) {
	named := func(name string) string {
		return strings.Replace(applying("../bad.yaml"), "name: minimal", "name: "+name, 1)
	}
	problems := problemsOf(t, map[string]string{
		"a/scenario.yaml": named("a"), "b/scenario.yaml": named("b"), "bad.yaml": strings.Replace(denyPolicy, "podSelector", "podSelectors", 1),
	})
	assert.Len(t, problems, 1)
}

func FuzzLoad(f *testing.F) {
	seeds := []string{minimal, denyPolicy, twoPods, jsonScenario, shop, "a: &a [*a]", "? [a]\n: b", "- - - -", "<<: 1", "a: !!binary x", "\ufeff", "%YAML 1.2\n---\na"}
	for _, path := range []string{fixtures.Quickstart, "core/lifecycle/pod-replaced/scenario.yaml", "core/services/policies-speak-of-pod-ports/scenario.yaml"} {
		text, err := fs.ReadFile(fixtures.FS(), path)
		require.NoError(f, err)
		seeds = append(seeds, string(text))
	}
	archives, err := filepath.Glob("testdata/bad/*.txtar")
	require.NoError(f, err)
	for _, name := range archives {
		text, err := os.ReadFile(name)
		require.NoError(f, err)
		seeds = append(seeds, string(text))
	}
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, name := range []string{"scenario.yaml", "plain.yaml"} {
			fsys := fstest.MapFS{name: &fstest.MapFile{Data: data}, "deny.yaml": &fstest.MapFile{Data: []byte(denyPolicy)}}
			scenarios, err := Load(t.Context(), []string{"."}, Options{FS: fsys})
			var problems Problems
			switch {
			case errors.As(err, &problems):
				for _, p := range problems {
					if p.File == "" || p.Line < 1 || p.Column < 1 || p.Message == "" {
						t.Fatalf("a problem without a place: %#v", p)
					}
				}
				if !slices.IsSortedFunc(problems, func(a, b Problem) int { return strings.Compare(a.File, b.File) }) {
					t.Fatalf("problems are not sorted: %v", problems)
				}
			case err != nil && !errors.Is(err, ErrNothing):
				t.Fatalf("an error that is neither: %v", err)
			case err == nil && len(scenarios) == 0:
				t.Fatal("neither scenarios nor an error")
			}
			for _, s := range scenarios {
				plan, err := s.Plan([]model.IPFamily{model.IPv4, model.IPv6}, s.MaxNode()+2)
				if err != nil && !errors.As(err, &problems) {
					t.Fatalf("plan: %v", err)
				}
				if err == nil && len(plan.Steps) != len(s.Spec.Steps) {
					t.Fatal("steps are missing")
				}
			}
		}
	})
}

func TestWhatWouldTakeForeverIsRefusedAtOnce(t *testing.T) {
	var pods strings.Builder
	for i := range 400 {
		fmt.Fprintf(&pods, "      - {name: x/p%d, ports: [80/TCP]}\n", i)
	}
	for name, tc := range map[string]struct{ text, want string }{
		"deep nesting":   {strings.Repeat("[", 1_000_000), "exceeded max depth"},
		"many documents": {strings.Repeat("---\na: b\n", 100_000), "the file has more than 20000 documents"},
		"many values":    {"[" + strings.Repeat("a,", 500_000) + "]", "expands to more than 200000 values"},
		"many bullets":   {"a:\n" + strings.Repeat("  • x\n", 100_000), "(also on lines 3, 4, 5, 6, 7, 8, 9 and 99992 more)"},
		"many problems":  {strings.Repeat("a:\n", 300_000), "more problems"},
		"many cells":     {strings.Replace(minimal, "      - {name: x/b, ports: [80/TCP]}\n", pods.String(), 1), "step `before any policy` has more than 100000 cells"},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Contains(t, problemsOf(t, map[string]string{"scenario.yaml": tc.text}).Error(), tc.want)
		})
	}
}

func TestObjectsAreConvertedAsKubectlDoes(t *testing.T) {
	for _, text := range []string{
		"1", "-1", "+1", "012", "0o17", "0b11", "0x1F", "1_000", "1.5", "1e3", ".5", "1.", "0x", "yes", "No", "on", "OFF", "true", "TRUE", "y", "Y", "~",
		"null", "", "'1'", `"y"`, "2027-01-01", "2027-01-01T00:00:00Z", "1:30", "-0", "07", "08", "09.5", "9223372036854775808", "100000000000000000000.0",
		"[1, y, a]", "{a: b, 'c': y}", "!!str 1", "|\n    text\n    more", "text # comment",
	} {
		policy := "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: g}\nspec:\n  v: " + text + "\n"
		plan := planOf(t, map[string]string{"a.yaml": policy, "b.yaml": twoPods}, v4, 1)
		have, err := plan.Steps[1].InForce[0].Object.MarshalJSON()
		require.NoError(t, err, text)
		want, err := yaml.YAMLToJSON([]byte(policy))
		require.NoError(t, err, text)
		assert.JSONEq(t, string(want), string(have), text)
	}
}
