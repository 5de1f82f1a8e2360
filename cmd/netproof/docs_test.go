package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
	"github.com/netproof/netproof/cmd/netproof/internal/cmd"
	"github.com/netproof/netproof/harness/report"
)

// What README and the documents show is tried: commands are run, snippets of Go compiled, files loaded by the real
// loader. A command that cannot be run in a test is in notRun, with the reason; its command, flags, arguments and paths
// are checked all the same. A block that nobody knows how to try fails the tests.

const root = "../.."

// notRun are commands that these tests do not run, as they stand in the documents.
var notRun = map[string]string{
	"make run":         "CI runs it, in the main job",
	"make test":        "it runs this test",
	"make test-kind":   "needs a container engine; CI runs it",
	"make setup":       "changes the machine; CI runs it first",
	"make verify":      "takes minutes; CI runs it",
	"make platforms":   "takes minutes; CI runs it",
	"make bench":       "takes minutes and an idle machine",
	"make kind-images": "needs a container engine, and most of an hour",
	"make build":       "writes into the clone; CI runs it",
	".ci/run":          "it runs this test",

	"go test ./suites/...":                                            "make test runs it",
	"go test ./harness/report/":                                       "make test runs it",
	"go test ./harness/report ./cmd/netproof/internal/...":            "make test runs it",
	"go test -c -o suites.test ./suites":                              "writes into the clone",
	"go test ./fixtures":                                              "make test runs it",
	"go test ./suites/... -args -provider NAME":                       "there is no such provider",
	"go test ./harness/report -update":                                "writes into the clone",
	"go generate ./...":                                               "writes into the clone; make verify runs it",
	"go test ./suites -run '^$' -bench . -benchtime 3x":               "takes minutes and an idle machine",
	"go test ./probes/nsagent -run '^$' -bench TCP -benchtime 30000x": "takes minutes and an idle machine",
	"NETPROOF_CLUSTER=lab go test ./suites -run '^$' -bench Exec -benchtime 3x -args -provider kind": "needs a kind cluster",
	"go run ./ci/offline --cilium": "needs a container engine, and most of an hour",
	"ci/docker.sh start":           "starts a container engine on the machine",
	"LANES=cilium ci/test-kind.sh": "needs a container engine",
	"LANES=faults make test-kind":  "needs a container engine",

	"netproof run fixtures/core":                                                                                                    "package suites proves it",
	"netproof run fixtures/quickstart":                                                                                              "package suites proves it",
	"netproof doctor --provider kind":                                                                                               "its answer is about a container engine",
	"CGO_ENABLED=0 GOOS=linux go build -o netproof-linux ./cmd/netproof":                                                            "writes into the clone; make platforms does the same",
	"netproof doctor --provider kind --executable netproof-linux":                                                                   "its answer is about a container engine",
	"netproof run --provider kind --executable netproof-linux policies/":                                                            "needs a container engine",
	"netproof images --agent agent.tar --executable netproof-linux":                                                                 "needs the program that the line before builds",
	"netproof run --provider kind --cni calico policies/":                                                                           "needs a container engine",
	"netproof run --provider kind --cni calico fixtures/core":                                                                       "needs a container engine",
	"netproof run --provider kind --cni cilium --nodes 3 --ip-family dual policies/":                                                "needs a container engine",
	"netproof cluster create --provider kind lab":                                                                                   "needs a container engine",
	"netproof cluster create --provider kind lab --cni-manifest ...":                                                                "needs a container engine",
	"netproof run --provider kind --cluster lab policies/":                                                                          "needs a container engine",
	"netproof run --provider kind --cluster lab fixtures/core":                                                                      "needs a container engine",
	"netproof run --provider kind ... fixtures/core/ingress/default-deny-ingress":                                                   "needs a container engine",
	"netproof cluster delete lab":                                                                                                   "there is no such cluster; the scripts in testdata delete theirs",
	"netproof run --provider kind --cni-manifest calico-vxlan.yaml ...":                                                             "needs a container engine",
	"netproof run --provider kind --cni cilium --cni-chart ./cilium --cni-set hubble.enabled=false ...":                             "needs a container engine",
	"netproof run --provider kind --image-mirror registry.local/mirror --image-override quay.io/cilium/=registry.local/cilium/ ...": "needs a container engine",
	"netproof run --provider kind --kind-image netproof.dev/kind-node:v1.36.3 --cni cilium --cni-chart CHART fixtures/core":         "needs a container engine",
	"netproof doctor --provider existing":                                                                                           "needs a cluster",
	"netproof doctor --provider existing --context staging":                                                                         "needs a cluster",
	"netproof run --provider existing --namespaces a,b":                                                                             "needs a cluster",
	"netproof run --provider existing --agent-image registry.local/netproof@sha256:... --namespaces shop,bank policies/":            "needs a cluster",
	"netproof cleanup --namespaces shop,bank":                                                                                       "needs a cluster",
	"netproof run --provider existing --context staging --agent-image REF policies/":                                                "needs a cluster",
	"netproof run --provider existing --context staging --agent-image registry.local/netproof@sha256:... policies/":                 "needs a cluster",
	"netproof cleanup --older-than 2h":                                                                                              "needs a cluster",
	"netproof cleanup":                                                                                                              "needs a cluster",
	"netproof images":                                                                                                               "asks the vendor of the plugin over the network",
	"netproof images --full FILE":                                                                                                   "needs a static netproof; the kind lane of CI runs it",
	"netproof images --full netproof.tar":                                                                                           "needs a static netproof; the kind lane of CI runs it",
	"netproof run --cni none":                                                                                                       "proves the current folder; the scripts in testdata run it on one",
	"netproof cluster create":                                                                                                       "names the command; clusters are made by the scripts in testdata",
	"netproof cluster shell":                                                                                                        "names the command; shells are opened by the scripts in testdata",
	"netproof cluster delete":                                                                                                       "names the command; clusters are deleted by the scripts in testdata",
	"netproof engines export":                                                                                                       "names the command",
	"netproof engines import":                                                                                                       "names the command",
	"netproof engines export FILE":                                                                                                  "the scripts in testdata run it",
	"netproof engines import FILE":                                                                                                  "the scripts in testdata run it",
	"netproof engines prune":                                                                                                        "the scripts in testdata run it, on a cache of their own",
	"netproof init [PATH]":                                                                                                          "names the command",
	"netproof reach --from POD [PATH ...]":                                                                                          "names the command",
	"netproof reach TO [PORT] [PATH ...]":                                                                                           "names the command",
	"netproof completion":                                                                                                           "names the command",
}

// exitCodes are those that commands may end with, other than 0.
var exitCodes = map[string][]int{
	"netproof doctor":     {3}, // on a machine that lacks something
	"bin/netproof doctor": {3},
}

// otherBlocks are fenced blocks that hold neither commands nor code, by their first line.
var otherBlocks = map[string]string{
	"quickstart / App reaches database once the database may receive      calico v3.30.1, Kubernetes v1.36.3, 2 nodes, IPv4": "what make run prints",
	"# NNNN: what was decided, as a sentence": "the form of a decision",
	"docker load --input netproof.tar":        "needs a container engine; the kind lane of CI does this",
}

// otherFlags are flags of other programs that stand in text.
var otherFlags = map[string]string{
	"--cilium": "go run ./ci/offline",
	"-update":  "go test ./harness/report",
	"-args":    "go test",

	"--network":      "docker run",
	"--privileged":   "docker run",
	"--security-opt": "docker run",
	"-e":             "docker run",
}

// beside are the files that belong to a block of YAML, by the kind of its first document and its name or first rule.
var beside = map[string]map[string]string{
	"Assertions": {"policies.yaml": shop},
	"Scenario default-deny-ingress": {
		"deny.yaml": "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: deny, namespace: x}\n" +
			"spec: {podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 80}]}]}\n",
	},
	"Scenario first-allow": {
		"default-deny.yaml": "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: default-deny, namespace: shop}\nspec: {podSelector: {}, policyTypes: [Ingress, Egress]}\n",
		"allow-web-to-db.yaml": "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: in, namespace: shop}\nspec: {podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}\n" +
			"---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: out, namespace: shop}\nspec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: db}}}]}]}\n",
	},
}

// shop is a folder of manifests for which the assertions of README hold.
const shop = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny, namespace: prod}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: prod}
spec: {containers: [{name: c, image: i, ports: [{containerPort: 5432}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: app, namespace: dev}
spec: {containers: [{name: c, image: i, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
spec: {containers: [{name: c, image: i, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop}
spec: {containers: [{name: c, image: i, ports: [{containerPort: 5432}]}]}
`

// block is a fenced block of a document.
type block struct{ file, language, text string }

func (b block) String() string { return b.file + ": " + firstLine(b.text) }

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return strings.TrimRight(line, " ")
}

// documents gives the blocks of all documents, and their text without blocks by file.
func documents(t *testing.T) (blocks []block, prose map[string]string) {
	t.Helper()
	prose = map[string]string{}
	files := []string{"README.md", "CONTRIBUTING.md", "fixtures/README.md"}
	require.NoError(t, fs.WalkDir(os.DirFS(root), "docs", func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".md") {
			files = append(files, path)
		}
		return err
	}))
	for _, file := range files {
		content, err := os.ReadFile(filepath.Join(root, file))
		require.NoError(t, err)
		var open *block
		for line := range strings.Lines(string(content)) {
			mark, isFence := strings.CutPrefix(strings.TrimSpace(line), "```")
			switch {
			case isFence && open == nil:
				open = &block{file: file, language: mark}
			case isFence:
				blocks = append(blocks, *open)
				open = nil
			case open != nil:
				open.text += line
			default:
				prose[file] += line
			}
		}
		require.Nil(t, open, "%s: a block has no end", file)
	}
	return blocks, prose
}

var inlineCode = regexp.MustCompile("`([^`\n]+)`")

// programs begin the commands that are tried.
var programs = []string{"netproof ", "bin/netproof ", "make ", "go test ", "go run ", "go generate ", "go build ", "go install ", ".ci/", "ci/"}

func isCommand(text string) bool {
	_, bare := environment(text)
	named := slices.ContainsFunc(programs, func(p string) bool { return strings.HasPrefix(bare+" ", p) })
	return named && (strings.Contains(text, " ") || strings.HasPrefix(text, ".ci/")) // a word alone names a file
}

var assignment = regexp.MustCompile(`^[A-Z_]+=\S+ `)

// environment cuts the variables off that stand before a command.
func environment(line string) (env, rest string) {
	for {
		a := assignment.FindString(line)
		if a == "" {
			return env, line
		}
		env += a
		line = line[len(a):]
	}
}

// commands gives every command line that the documents show, once, with the document that does.
func commands(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	add := func(file, line string) {
		line, _, _ = strings.Cut(line, " #")
		for part := range strings.SplitSeq(line, " | ") {
			for _, one := range alternatives(strings.TrimSpace(strings.ReplaceAll(part, `\|`, "|"))) {
				if _, ok := found[one]; !ok && isCommand(one) {
					found[one] = file
				}
			}
		}
	}
	blocks, prose := documents(t)
	for _, b := range blocks {
		if commandBlock(b) {
			for line := range strings.Lines(b.text) {
				add(b.file, line)
			}
		}
	}
	for file, text := range prose {
		for _, code := range inlineCode.FindAllStringSubmatch(text, -1) {
			add(file, code[1])
		}
	}
	return found
}

// commandBlock tells whether every line of a block is a command that these tests know how to try.
func commandBlock(b block) bool {
	if b.language != "sh" && b.language != "console" && b.language != "" {
		return false
	}
	for line := range strings.Lines(b.text) {
		line, _, _ = strings.Cut(line, " #")
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") && !isCommand(line) {
			return false
		}
	}
	return true
}

var choice = regexp.MustCompile(`\S+\|\S+`)

// alternatives writes a|b out.
func alternatives(line string) []string {
	words := choice.FindString(line)
	if words == "" {
		return []string{line}
	}
	var out []string
	for word := range strings.SplitSeq(words, "|") {
		out = append(out, alternatives(strings.Replace(line, words, word, 1))...)
	}
	return out
}

// placeholders stand for what the reader has.
var placeholders = strings.NewReplacer(" [PATH ...]", " policies", "FROM TO PORT", "shop/web shop/db 5432", " FILE", " report.json", "--lanes N", "--lanes 2", " ...", " policies")

// arguments splits a netproof command line.
func arguments(line string) []string {
	args := strings.Fields(placeholders.Replace(line))[1:]
	for i := range args {
		args[i] = strings.Trim(args[i], "'") // what a shell would take for a pattern of files is quoted
	}
	return args
}

func tree() *cobra.Command {
	return cmd.Tree(cli.Streams{Out: io.Discard, Err: io.Discard, Getenv: func(string) string { return "" }})
}

// understand lets the real commands parse a command line. A line that has no arguments may only name a command.
func understand(args []string) error {
	tree := tree()
	tree.InitDefaultCompletionCmd()
	command, rest, err := tree.Find(args)
	if err != nil {
		return err
	}
	if command == tree {
		return fmt.Errorf("there is no command in %q", args)
	}
	if err := command.ParseFlags(rest); err != nil {
		return err
	}
	if len(rest) == 0 || command.HasSubCommands() && command.Flags().NArg() == 0 {
		return nil
	}
	return command.ValidateArgs(command.Flags().Args())
}

func TestEveryBlockIsTriedOrNamed(t *testing.T) {
	blocks, _ := documents(t)
	unused := maps.Clone(otherBlocks)
	for _, b := range blocks {
		delete(unused, firstLine(b.text))
		switch {
		case b.language == "go", b.language == "yaml", b.language == "json", commandBlock(b):
		default:
			assert.Contains(t, otherBlocks, firstLine(b.text), "%s: nothing tries this block of %q", b, b.language)
		}
	}
	assert.Empty(t, unused, "blocks that no document has")
}

// TestEveryCommandIsUnderstood looks at commands that are run elsewhere, or nowhere, too.
func TestEveryCommandIsUnderstood(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	require.NoError(t, err)
	all := commands(t)
	require.Greater(t, len(all), 30)
	for line, file := range all {
		_, bare := environment(line)
		switch words := strings.Fields(bare); words[0] {
		case "netproof", "bin/netproof":
			require.NoError(t, understand(arguments(bare)), "%s: %s", file, line)
		case "make":
			for _, target := range words[1:] {
				assert.Regexp(t, `(?m)^`+regexp.QuoteMeta(target)+`:`, string(makefile), "%s: %s", file, line)
			}
		case "go":
			for _, word := range words[2:] {
				if word == "-args" {
					break
				}
				if strings.HasPrefix(word, "./") {
					_, err := os.Stat(filepath.Join(root, strings.TrimSuffix(word, "...")))
					assert.NoError(t, err, "%s: %s", file, line)
				}
			}
		default:
			info, err := os.Stat(filepath.Join(root, words[0]))
			if assert.NoError(t, err, "%s: %s", file, line) {
				assert.NotZero(t, info.Mode()&0o111, "%s: %s cannot be run", file, words[0])
			}
		}
		for word := range strings.FieldsSeq(bare) {
			if strings.HasPrefix(word, "fixtures/") || strings.HasPrefix(word, "docs/") {
				_, err := os.Stat(filepath.Join(root, word))
				assert.NoError(t, err, "%s: %s", file, line)
			}
		}
	}
	for line, reason := range notRun {
		assert.Contains(t, all, line, "no document shows it any more (%s)", reason)
	}
}

// TestExamplesOfTheHelpAreUnderstood looks at what --help shows.
func TestExamplesOfTheHelpAreUnderstood(t *testing.T) {
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		for line := range strings.Lines(c.Example) {
			line, _, _ = strings.Cut(line, " | ")
			line, _, _ = strings.Cut(line, " >> ")
			assert.NoError(t, understand(arguments(line)), "%s: %s", c.CommandPath(), line)
		}
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(tree())
}

// work is a folder in which the commands of the documents can be run.
func work(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "policies"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "policies/all.yaml"), []byte(shop), 0o600))
	// The inputs of docs/own-policies.md.
	policies, pods, _ := strings.Cut(shop, "---\n")
	for name, text := range map[string]string{
		"base/policies.yaml": policies, "team/pods.yaml": pods, "extra.yaml": "# nothing yet\n", "common/policies.yaml": policies,
		"teams/shop/pods.yaml": pods, "overlays/prod/kustomization.yaml": "namePrefix: a-\nresources: [all.yaml]\n", "overlays/prod/all.yaml": shop,
		"charts/shop/Chart.yaml": "apiVersion: v2\nname: shop\nversion: 1.0.0\n", "charts/shop/templates/all.yaml": shop, "prod.yaml": "replicas: 2\n",
	} {
		file := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	}
	cell := "fixtures/core/ingress/only-selected-pods-are-isolated" // whose life docs/life-of-a-cell.md tells
	require.NoError(t, os.CopyFS(filepath.Join(dir, cell), os.DirFS(filepath.Join(root, cell))))
	saved, err := os.ReadFile(filepath.Join(root, "harness/report/testdata/mismatch.json"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "report.json"), saved, 0o600))
	asserted := "apiVersion: netproof.dev/v1alpha1\nkind: Assertions\nspec: {rules: [{from: \"dev/*\", to: \"prod/*\", verdict: deny}]}\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "asserted.yaml"), []byte(asserted), 0o600))
	return dir
}

func TestEveryCommandRuns(t *testing.T) {
	all := commands(t)
	for _, line := range slices.Sorted(maps.Keys(all)) {
		if notRun[line] != "" {
			continue
		}
		t.Run(line, func(t *testing.T) {
			env, bare := environment(line)
			dir, args := work(t), strings.Fields(bare)
			if program := args[0]; program == "netproof" || program == "bin/netproof" {
				args = append([]string{"netproof"}, arguments(bare)...) // this binary, by testscript
			} else {
				var err error
				dir, err = filepath.Abs(root)
				require.NoError(t, err)
			}
			c := exec.CommandContext(t.Context(), args[0], args[1:]...)
			// CI= because a reader tries a command at a desk, where the first run of a folder writes expected.txt and
			// is green.
			c.Dir, c.Env = dir, append(append(os.Environ(), "CI="), strings.Fields(env)...)
			out, _ := c.CombinedOutput() // the code tells
			require.NotNil(t, c.ProcessState, "%s: %s cannot be started", all[line], line)
			assert.Contains(t, append(exitCodes[line], 0), c.ProcessState.ExitCode(), "%s: %s\n%s", all[line], line, out)
		})
	}
}

func TestEveryFileThatIsShownLoads(t *testing.T) {
	blocks, _ := documents(t)
	tried := 0
	for _, b := range blocks {
		if b.language != "yaml" || isPipeline(b) { // pipelines are run, in ci_test.go
			continue
		}
		tried++
		t.Run(b.String(), func(t *testing.T) {
			dir := t.TempDir()
			name, key := "manifests.yaml", ""
			if strings.Contains(b.text, "\nkind: Scenario\n") {
				name, key = "scenario.yaml", "Scenario "+regexp.MustCompile(`name: ([\w-]+)`).FindStringSubmatch(b.text)[1]
			} else if strings.Contains(b.text, "\nkind: Assertions\n") {
				name, key = "netproof.yaml", "Assertions"
			}
			if key != "" {
				require.Contains(t, beside, key, "what stands beside this file?")
			}
			for other, content := range beside[key] {
				require.NoError(t, os.WriteFile(filepath.Join(dir, other), []byte(content), 0o600))
			}
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(b.text), 0o600))
			out, err := exec.CommandContext(t.Context(), "netproof", "list", dir).CombinedOutput()
			require.NoError(t, err, "%s", out)
		})
	}
	require.NotZero(t, tried)
}

var (
	links    = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	headings = regexp.MustCompile(`(?m)^#+ (.*)$`)
	dropped  = regexp.MustCompile("[^a-z0-9 _-]")
)

// TestEveryLinkLeadsSomewhere looks at links to files of the repository, and to headings in its documents.
func TestEveryLinkLeadsSomewhere(t *testing.T) {
	_, prose := documents(t)
	tried := 0
	for file, text := range prose {
		for _, link := range links.FindAllStringSubmatch(text, -1) {
			if strings.Contains(link[1], "://") {
				continue
			}
			tried++
			path, anchor, _ := strings.Cut(link[1], "#")
			target := file
			if path != "" {
				target = filepath.Join(filepath.Dir(file), path)
			}
			_, err := os.Stat(filepath.Join(root, target))
			assert.NoError(t, err, "%s: %s", file, link[1])
			if anchor != "" {
				assert.Contains(t, anchors(prose[target]), anchor, "%s: %s", file, link[1])
			}
		}
	}
	require.NotZero(t, tried)
}

// anchors are the names of a document's headings in links, as GitHub makes them.
func anchors(text string) (out []string) {
	for _, h := range headings.FindAllStringSubmatch(text, -1) {
		out = append(out, strings.ReplaceAll(dropped.ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-"))
	}
	return out
}

// TestEveryReportThatIsShownIsRead reads blocks of JSON with the strict reader of saved reports.
func TestEveryReportThatIsShownIsRead(t *testing.T) {
	blocks, _ := documents(t)
	tried := 0
	for _, b := range blocks {
		if b.language == "json" {
			tried++
			_, err := report.ReadJSON(strings.NewReader(b.text))
			assert.NoError(t, err, "%s", b)
		}
	}
	require.NotZero(t, tried)
}

// TestEverySnippetCompiles compiles blocks of Go as packages of this module, which they are not, through an overlay.
// What lies in docs/examples is a package that make test compiles.
func TestEverySnippetCompiles(t *testing.T) {
	blocks, _ := documents(t)
	absolute, err := filepath.Abs(root)
	require.NoError(t, err)
	dir := t.TempDir()
	overlay := map[string]map[string]string{"Replace": {}}
	var packages []string
	for i, b := range blocks {
		if b.language != "go" {
			continue
		}
		file := filepath.Join(dir, fmt.Sprintf("snippet%d.go", i))
		require.NoError(t, os.WriteFile(file, []byte(b.text), 0o600))
		name := fmt.Sprintf("docs/snippet%d", i)
		overlay["Replace"][filepath.Join(absolute, name, "snippet_test.go")] = file
		packages = append(packages, "./"+name)
	}
	require.NotEmpty(t, packages)
	text, err := json.Marshal(overlay)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "overlay.json"), text, 0o600))
	for _, one := range packages {
		build := exec.CommandContext(t.Context(), "go", "test", "-vet=off", "-c", "-o", os.DevNull, "-overlay", filepath.Join(dir, "overlay.json"), one)
		build.Dir = absolute
		out, err := build.CombinedOutput()
		require.NoError(t, err, "%s: %s", one, out)
	}
}

var (
	longFlag  = regexp.MustCompile(`^--[a-z][a-z0-9-]*`)
	shortFlag = regexp.MustCompile(`(?:^| )(-[a-z][a-z-]*)`)
	variable  = regexp.MustCompile(`NETPROOF_[A-Z0-9_]+`)
)

// TestEveryFlagInTextExists looks at flags and variables that stand alone, and in lines of go test.
func TestEveryFlagInTextExists(t *testing.T) {
	var netproof []string
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		c.Flags().VisitAll(func(f *pflag.Flag) { netproof = append(netproof, "--"+f.Name, "-"+f.Shorthand) })
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(tree())
	// The flags of all test binaries below suites, and the variables that stand for them.
	usage := exec.CommandContext(t.Context(), "go", "test", "./suites/faults", "-args", "-h")
	usage.Dir = root
	out, _ := usage.CombinedOutput() // it ends with 1 or 2
	suites := string(out)
	require.Contains(t, suites, "-labels")

	blocks, prose := documents(t)
	for file, text := range prose {
		for _, code := range inlineCode.FindAllStringSubmatch(text, -1) {
			if flag := longFlag.FindString(code[1]); flag != "" && otherFlags[flag] == "" {
				assert.Contains(t, netproof, flag, "%s: %s", file, code[1])
				if line := strings.ReplaceAll(code[1], `\|`, "|"); strings.Contains(line, "|") {
					for _, one := range alternatives(line) {
						assert.NoError(t, understand(append([]string{"run"}, strings.Fields(placeholders.Replace(one))...)), "%s: %s", file, code[1])
					}
				}
			}
			if letter, _, _ := strings.Cut(code[1], " "); slices.Contains(netproof, letter) {
				continue
			}
			if strings.HasPrefix(code[1], "-") && !strings.HasPrefix(code[1], "--") {
				goFlags(t, suites, file, code[1])
			}
		}
		variables(t, suites, file, text)
	}
	for _, b := range blocks {
		variables(t, suites, b.file, b.text)
	}
	for line, file := range commands(t) {
		if _, args, ok := strings.Cut(line, " -args "); ok && strings.Contains(line, "./suites") {
			goFlags(t, suites, file, args)
		}
	}
}

// goFlags looks for the flags of a test binary.
func goFlags(t *testing.T, usage, file, text string) {
	t.Helper()
	for _, flag := range shortFlag.FindAllStringSubmatch(text, -1) {
		if otherFlags[flag[1]] == "" {
			assert.Regexp(t, `(?m)^  `+flag[1]+`( |$)`, usage, "%s: %s", file, text)
		}
	}
}

func variables(t *testing.T, usage, file, text string) {
	t.Helper()
	for _, name := range variable.FindAllString(text, -1) {
		assert.True(t, strings.Contains(usage, "("+name+")") || known(t, name), "%s: %s is read nowhere", file, name)
	}
}

// known tells whether a program or script of ours names a variable.
func known(t *testing.T, name string) bool {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "grep", "-rlw", "--include=*.go", "--include=*.sh", name, root+"/cmd", root+"/harness", root+"/suites", root+"/ci").Output()
	return err == nil && len(bytes.TrimSpace(out)) > 0
}
