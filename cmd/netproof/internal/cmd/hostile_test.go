package cmd

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
	"github.com/netproof/netproof/cmd/netproof/internal/progress"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/report"
	"github.com/netproof/netproof/harness/scenario"
)

// Whatever netproof reads may have been written by somebody who wants to steer the terminal, the CI system, the spreadsheet or the page
// that shows what it says. The tests below put hostile strings into every field of every file format, into names of files and into
// arguments, and look at every output. A new file format, command or output is a line in one of these tables.

// format is a kind of file that netproof reads.
type format struct {
	// file is the name of the one that gets hostile.
	file, content string
	// fields cuts the content at each field: a field is what stands between before and after.
	fields func(content string) []field
	// beside are the other files of the folder.
	beside map[string]string
	// commands are run with DIR and FILE for the folder and the hostile file.
	commands [][]string
}

// field is a place in a file that a hostile string can take. quote gives the string in the syntax of the file.
type field struct {
	before, after string
	quote         func(string) string
}

// ofFolder are the commands that read folders.
var ofFolder = [][]string{
	{"list", "DIR"},
	{"list", "DIR", "--format", "json"},
	{"explain", "x/a", "x/b", "80", "DIR"},
	{"explain", "x/a", "x/b", "80", "DIR", "--format", "json"},
	// It loads the folder, says what it has to say about it, and does not find a cluster.
	{"run", "--provider", "existing", "--kubeconfig", "DIR/none/config", "--verbose", "DIR"},
}

// ofReport are the commands that read reports, one for each form.
func ofReport() (commands [][]string) {
	for _, name := range report.FormatNames() {
		commands = append(commands, []string{"report", "convert", "FILE", "--format", name, "--verbose"})
	}
	return commands
}

func formats(t testing.TB) map[string]format {
	saved, journal := savedReport(t)
	all := map[string]format{
		"scenario":     {file: "scenario.yaml", content: hostileScenario, fields: yamlFields, beside: map[string]string{"deny.yaml": denyFile}, commands: ofFolder},
		"applied":      {file: "deny.yaml", content: denyFile, fields: yamlFields, beside: map[string]string{"scenario.yaml": hostileScenario}, commands: ofFolder},
		"assertions":   {file: "netproof.yaml", content: assertionsFile, fields: yamlFields, beside: map[string]string{"all.yaml": denyFile + podsFile}, commands: ofFolder},
		"expected.txt": {file: "expected.txt", content: expectedFile, fields: words, beside: map[string]string{"all.yaml": denyFile + podsFile}, commands: ofFolder},
		"report":       {file: "report.json", content: saved, fields: jsonFields, commands: ofReport()},
		"journal":      {file: "report.json.journal", content: journal, fields: jsonFields, commands: ofReport()},
	}
	for kind, manifest := range manifests {
		all["manifest of "+kind] = format{file: "hostile.yaml", content: manifest, fields: yamlFields, beside: map[string]string{"all.yaml": denyFile + podsFile}, commands: ofFolder}
	}
	return all
}

const hostileScenario = `apiVersion: netproof.dev/v1alpha1
kind: Scenario
metadata: {name: h, labels: {feature: ingress}}
spec:
  description: words
  source: https://kubernetes.io/docs/
  topology:
    namespaces: [{name: x, labels: {team: blue}}]
    pods:
      - {name: x/a, labels: {app: a}, ports: [80/TCP, {name: metrics, port: 9090, protocol: TCP}]}
      - {name: x/b, node: 1, labels: {app: b}, ports: [80/TCP]}
    services: [{name: x/web, selector: {app: b}, type: ClusterIP, ports: [80/TCP]}]
    hosts: [{name: out, ports: [443/TCP]}]
  probes: [{from: "*", to: "x/*", ports: [80/TCP], via: podIP}]
  steps:
    - name: open
      expect: {default: allow}
    - name: closed
      apply: [deny.yaml]
      delete: []
      label: {pods: {x/a: {role: web}}, namespaces: {x: {team: red}}}
      create: {pods: [{name: x/c, ports: [80]}]}
      expect:
        default: allow
        rules: [{from: "*", to: "x/*", ports: [80/TCP], verdict: deny, by: ingress}]
    - name: gone
      remove: {pods: [x/c]}
      delete: [NetworkPolicy/x/deny]
      expect: computed
`

const denyFile = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: x, labels: {a: b}, annotations: {netproof.dev/owner: team, netproof.dev/purpose: words, netproof.dev/review-by: "2030-01-01"}}
spec:
  podSelector: {matchExpressions: [{key: app, operator: In, values: [a, b]}]}
  policyTypes: [Ingress, Egress]
  ingress: [{from: [{namespaceSelector: {matchLabels: {team: none}}, podSelector: {matchLabels: {app: z}}}], ports: [{port: http, protocol: TCP}]}]
  egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]}]
`

const podsFile = `---
apiVersion: v1
kind: Namespace
metadata: {name: x, labels: {team: blue}}
---
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: x, labels: {app: a}}
spec: {containers: [{name: c, image: i, ports: [{name: http, containerPort: 80, protocol: TCP}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: b, namespace: x, labels: {app: b}}
spec: {containers: [{name: c, image: i, ports: [{containerPort: 80}]}]}
`

const assertionsFile = `apiVersion: netproof.dev/v1alpha1
kind: Assertions
metadata: {name: h, labels: {feature: ingress}}
spec:
  description: words
  source: https://kubernetes.io/
  hosts: [{name: out, ports: [443/TCP]}]
  probes: [{from: "*", to: "*"}]
  rules: [{from: x/a, to: x/b, ports: [80/TCP], verdict: deny, by: both, via: podIP}]
`

const expectedFile = `# comment
step: before any policy

80/TCP via podIP IPv4
        x/a  x/b
  x/a     .    +
  x/b     +    .

step: with all policies

80/TCP
        x/a  x/b
  x/a     .    x
  x/b     x    .
`

// template is what workloads make pods of.
const template = `metadata: {labels: {app: w}}, spec: {restartPolicy: Never, containers: [{name: c, image: i, ports: [{name: http, containerPort: 80}]}]}`

// manifests are one of each kind that a folder may hold.
var manifests = func() map[string]string {
	m := map[string]string{
		"NetworkPolicy": denyFile,
		"Namespace":     "apiVersion: v1\nkind: Namespace\nmetadata: {name: w, labels: {team: red}, annotations: {a: b}}\n",
		"Pod":           "apiVersion: v1\nkind: Pod\nmetadata: {name: w, namespace: x, labels: {app: w}}\nspec: {hostNetwork: false, containers: [{name: c, image: i, ports: [{name: http, containerPort: 80, protocol: TCP}]}]}\n",
		"CronJob":       "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: w, namespace: x}\nspec: {schedule: '* * * * *', jobTemplate: {spec: {template: {" + template + "}}}}\n",
		"Service":       "apiVersion: v1\nkind: Service\nmetadata: {name: w, namespace: x}\nspec: {selector: {app: a}, type: ClusterIP, ports: [{name: p, port: 80, targetPort: http, protocol: TCP}]}\n",
		"Secret":        "apiVersion: v1\nkind: Secret\nmetadata: {name: w, namespace: x}\ndata: {a: Yg==}\n",
		"Unknown":       "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w, namespace: x}\nspec: {a: b}\n",
		"List":          "apiVersion: v1\nkind: List\nitems:\n  - {apiVersion: v1, kind: ConfigMap, metadata: {name: w}, data: {a: b}}\n",
		"GlobalNetworkPolicy": "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: w}\n" +
			"spec: {order: 1, selector: all(), types: [Ingress], ingress: [{action: Deny, source: {selector: app == 'a'}}]}\n",
		"CiliumNetworkPolicy": "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: w, namespace: x}\n" +
			"spec: {description: d, endpointSelector: {matchLabels: {app: a}}, ingress: [{fromEndpoints: [{matchLabels: {app: b}}]}]}\n",
		"AdminNetworkPolicy": "apiVersion: policy.networking.k8s.io/v1alpha1\nkind: AdminNetworkPolicy\nmetadata: {name: w}\n" +
			"spec: {priority: 1, subject: {namespaces: {}}, ingress: [{name: r, action: Deny, from: [{namespaces: {}}]}]}\n",
	}
	for kind, group := range map[string]string{"Deployment": "apps", "StatefulSet": "apps", "DaemonSet": "apps", "ReplicaSet": "apps", "Job": "batch"} {
		m[kind] = "apiVersion: " + group + "/v1\nkind: " + kind + "\nmetadata: {name: w, namespace: x}\nspec: {selector: {matchLabels: {app: w}}, template: {" + template + "}}\n"
	}
	return m
}()

// savedReport gives a report with something in every field, and its journal.
func savedReport(t testing.TB) (saved, journal string) {
	cell := func(to string, expected, observed model.Verdict, result model.Result) model.Cell {
		return model.Cell{
			ID: "s/step/x/a->" + to + ":80/TCP/IPv4/podIP", From: "x/a", To: model.Endpoint(to), Port: 80, Protocol: model.TCP, IPFamily: model.IPv4,
			Via: model.ViaPodIP, Expected: expected, Observed: observed, Result: result, Manner: "dropped", Samples: 2, Reason: "reason", Explain: "explained",
			Walk: []string{"x/a -> " + to, "  walked"}, Policies: []model.PolicyNote{{Policy: "NetworkPolicy x/p", Source: "p.yaml:1", Owner: "o", Purpose: "p", Review: "r"}},
			Evidence: &model.Evidence{AnsweredBy: "x/b", Outcome: "timeout", Errno: "E", RTTMicros: 1, Seen: 1, Series: []model.Sample{{Verdict: observed}, {Verdict: observed}}},
		}
	}
	finding := model.Finding{Kind: model.Control, Message: "message\n  mend: it", Result: model.ResultInconclusive}
	run := model.Run{
		Complete: true, Tool: model.Tool{Version: "v1"}, Findings: []model.Finding{finding},
		Cluster: model.Cluster{Provider: "local", Name: "n", CNI: model.CNI{Name: "calico", Version: "v3"}, Kubernetes: "v1", Nodes: 2, IPFamilies: []model.IPFamily{model.IPv4}},
		Scenarios: []model.Scenario{{
			Name: "s", File: "s.yaml", Labels: map[string]string{"feature": "f"}, Result: model.Failed, Findings: []model.Finding{finding},
			Steps: []model.Step{{Name: "step", EnforcedMs: 1, Controls: model.Controls{Held: true, Servers: 1, ServersAlive: 1}, Cells: []model.Cell{
				cell("x/b", model.Deny, model.Allow, model.Failed), cell("x/c", model.Allow, model.Inconclusive, model.ResultInconclusive),
				cell("x/d", model.Allow, model.Deny, model.Flaky), cell("x/e", model.Allow, model.Unsupported, model.ResultUnsupported),
				cell("x/f", model.Undefined, model.Allow, model.Recorded), cell("x/g", model.Allow, model.Allow, model.Passed),
			}}},
		}},
	}
	model.Summarize(&run)
	var whole, lines bytes.Buffer
	require.NoError(t, report.WriteJSON(&whole, run))
	j := report.NewJournal(&lines)
	s := run.Scenarios[0]
	require.NoError(t, errors.Join(j.Header(run), j.Scenario(s), j.Step(s.Name, s.Steps[0]), j.Finding("", finding), j.Finding(s.Name, finding)))
	for _, c := range s.Steps[0].Cells {
		require.NoError(t, j.Cell(s.Name, s.Steps[0].Name, c))
	}
	require.NoError(t, j.Footer(run))
	return whole.String(), lines.String()
}

// yamlFields are all keys and scalars.
func yamlFields(content string) (out []field) {
	for n := 0; ; n++ {
		var text bytes.Buffer
		count, found := 0, false
		var visit func(*yaml.Node)
		visit = func(node *yaml.Node) {
			if node.Kind == yaml.ScalarNode {
				if count == n {
					node.Value, node.Style, node.Tag, found = placeholder, yaml.DoubleQuotedStyle, "!!str", true
				}
				count++
			}
			for _, inner := range node.Content {
				visit(inner)
			}
		}
		for dec, enc := yaml.NewDecoder(strings.NewReader(content)), yaml.NewEncoder(&text); ; {
			var doc yaml.Node
			if dec.Decode(&doc) != nil {
				_ = enc.Close() // a buffer
				break
			}
			visit(&doc)
			_ = enc.Encode(&doc) // it was just read
		}
		if !found {
			return out
		}
		out = append(out, between(text.String(), `"`+placeholder+`"`, quoteYAML))
	}
}

const placeholder = "PLACEHOLDER"

func between(content, mark string, quote func(string) string) field {
	before, after, _ := strings.Cut(content, mark)
	return field{before, after, quote}
}

// quoteYAML writes every character that is not plain ASCII as an escape, so that none is lost or refused as a character of the file.
func quoteYAML(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r >= ' ' && r < 0x7f && r != '"' && r != '\\' {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, `\U%08x`, r)
		}
	}
	return `"` + b.String() + `"`
}

var (
	jsonString = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	word       = regexp.MustCompile(`\S+`)
)

// jsonFields are all strings, keys included.
func jsonFields(content string) (out []field) {
	for _, at := range jsonString.FindAllStringIndex(content, -1) {
		out = append(out, field{content[:at[0]], content[at[1]:], func(s string) string {
			text, _ := json.Marshal(s) // a string
			return string(text)
		}})
	}
	return out
}

// words are all that white space separates.
func words(content string) (out []field) {
	for _, at := range word.FindAllStringIndex(content, -1) {
		out = append(out, field{content[:at[0]], content[at[1]:], func(s string) string { return s }})
	}
	return out
}

// hostile strings, each with much of what has an effect somewhere.
var hostile = []string{
	"x\n::error file=a.go,line=1::injected\r##vso[task.setvariable variable=PATH]/evil\n##teamcity[buildStatus status='SUCCESS']\n\x1b[2J\x1b[32mpassed\x1b[0m",
	"::warning::x ##[error]y\u202egnp\u2066 \u200b\ufeff\U000e0041\u009b31m\u2028::error::z",
	"=HYPERLINK(\"https://evil.invalid\",\"x\")@team www.evil.invalid #1 GH-2 a/b#3 ![x](https://evil.invalid) <img src=x> `code` | ``` ~~~ 0123456789abcdef0123456789abcdef01234567",
	" +++ section\x00\xff\xfe--- x;=1+1|=2\ttravis_fold:start:x\rsection_start:1:x\r\x1b[0K",
	"::",
}

// command gives a netproof command line what it reads, and returns what it printed and how it ended.
func command(t *testing.T, args []string) (out, err string, code int) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = Run(context.Background(), cli.Streams{In: strings.NewReader(""), Out: &stdout, Err: &stderr, Getenv: func(string) string { return "" }}, args)
	return stdout.String(), stderr.String(), code
}

// try writes a folder of a format with a hostile string in one of its fields, and looks at every output.
func try(t *testing.T, f format, at field, text string, raw bool) {
	t.Helper()
	dir := t.TempDir()
	content := at.before + at.quote(text) + at.after
	if raw {
		content = at.before + text + at.after
	}
	for name, other := range f.beside {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(other), 0o600))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, f.file), []byte(content), 0o600))
	replace := strings.NewReplacer("DIR", dir, "FILE", filepath.Join(dir, f.file))
	for _, args := range f.commands {
		args = slices.Clone(args)
		for i := range args {
			args[i] = replace.Replace(args[i])
		}
		look(t, args)
		if t.Failed() {
			t.Fatalf("netproof %q with\n%q", args, content)
		}
	}
	if r, err := report.Read(strings.NewReader(content)); err == nil {
		lookAtProgress(t, r)
	}
	if list, err := scenario.Load([]string{dir}, scenario.Options{}); err == nil {
		for _, s := range list {
			var steps []scenario.ExpectedStep
			for _, step := range s.Spec.Steps {
				steps = append(steps, scenario.ExpectedStep{Name: step.Name, Cells: make([]scenario.ExpectedCell, 1)})
			}
			lookAtText(t, string(scenario.FormatExpected(s.Metadata.Name, steps)))
		}
	}
}

// look runs a command line and looks at what it prints.
func look(t *testing.T, args []string) {
	t.Helper()
	out, said, code := command(t, args)
	lookAtText(t, said)
	lookAtText(t, out)
	form := ""
	if i := slices.Index(args, "--format"); i >= 0 && i+1 < len(args) {
		form = args[i+1]
	}
	if code != 0 || out == "" {
		return
	}
	switch form {
	case "json":
		assert.True(t, json.Valid([]byte(out)), out)
	case "csv":
		lookAtCSV(t, out)
	case "junit":
		for dec := xml.NewDecoder(strings.NewReader(out)); ; {
			if _, err := dec.Token(); errors.Is(err, io.EOF) {
				break
			} else if !assert.NoError(t, err) {
				break
			}
		}
	case "markdown":
		lookAtMarkdown(t, out)
	}
}

// ciCommand is what CI systems look for in a line, in words of its own: plain has others. A heading of Markdown is none.
var ciCommand = regexp.MustCompile(`(?m)^[\s\p{Z}]*(::|##[^# ]|---|\+\+\+|~~~|\^\^\^)|##[A-Za-z]*\[|(travis|section)_(fold|time|start|end):`)

// lookAtText looks at what may go to a terminal or a log.
func lookAtText(t *testing.T, text string) {
	t.Helper()
	if !utf8.ValidString(text) {
		t.Errorf("not UTF-8: %q", text)
	}
	if found := ciCommand.FindString(text); found != "" {
		t.Errorf("a CI system reads %q in %q", found, text)
	}
	for _, r := range text {
		if r != '\n' && (unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Variation_Selector)) {
			t.Errorf("%U in %q", r, text)
		}
	}
}

var formula = regexp.MustCompile(`(^|[;|"])[\s']*[=+@＝＋＠-]`)

func lookAtCSV(t *testing.T, text string) {
	t.Helper()
	records, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	require.NoError(t, err)
	for _, record := range records {
		for _, cell := range record {
			if formula.MatchString(strings.ReplaceAll(strings.ReplaceAll(cell, "'=", ""), "'+", "")) && !safe.MatchString(cell) {
				t.Errorf("%q may be calculated", cell)
			}
		}
	}
}

// safe is a cell whose every sign that begins a formula has an apostrophe before it.
var safe = regexp.MustCompile(`^[\s]*('[=+@＝＋＠-]|[^=+@＝＋＠\s-])`)

var (
	ticks = regexp.MustCompile("`+")
	alive = regexp.MustCompile(`(?i)https?:|www\.|@|#\d|GH-\d|!\[|\]\(|<img|[0-9a-f]{40}|evil`)
)

// lookAtMarkdown looks at what is outside of code, where GitHub looks for links, markup and mentions.
func lookAtMarkdown(t *testing.T, text string) {
	t.Helper()
	rest := withoutCode(text)
	if found := alive.FindString(rest); found != "" {
		t.Errorf("%q is alive in\n%s\nof\n%s", found, rest, text)
	}
}

// withoutCode takes fenced blocks and code spans out: both end at a run of as many backticks as they began with.
func withoutCode(text string) string {
	var out strings.Builder
	for {
		begin := ticks.FindStringIndex(text)
		if begin == nil {
			return out.String() + text
		}
		marks := text[begin[0]:begin[1]]
		out.WriteString(text[:begin[0]])
		text = text[begin[1]:]
		fence := len(marks) >= 3 && strings.HasPrefix(text, "text\n")
		end := -1
		for _, at := range ticks.FindAllStringIndex(text, -1) {
			if at[1]-at[0] == len(marks) && (!fence || text[at[0]-1] == '\n') {
				end = at[1]
				break
			}
		}
		if end < 0 {
			return out.String() + marks + text
		}
		text = text[end:]
	}
}

// lookAtProgress shows a run while it goes on.
func lookAtProgress(t *testing.T, r model.Run) {
	t.Helper()
	for _, terminal := range []bool{false, true} {
		var b bytes.Buffer
		p := progress.New(&b, progress.Options{Verbose: true, Terminal: terminal, ASCII: true})
		p.RunStarted(r)
		for _, s := range r.Scenarios {
			p.ScenarioStarted(s.Name, 0, 1)
			for _, step := range s.Steps {
				p.StepStarted(s.Name, step.Name, 0, 1)
				p.Note(step.Name)
				p.StepDone(s.Name, step)
			}
			p.ScenarioDone(s)
		}
		for _, f := range r.Findings {
			p.Found(f)
		}
		p.Close()
		lookAtText(t, strings.ReplaceAll(b.String(), "\r\x1b[K", ""))
	}
}

func TestNoFieldOfAFileReachesALogAlive(t *testing.T) {
	for name, f := range formats(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fields := f.fields(f.content)
			require.NotEmpty(t, fields)
			for i, at := range fields {
				// Each field gets one of them, some as they are in the bytes of the file; the fuzz test has all.
				try(t, f, at, hostile[i%len(hostile)], i%4 == 3)
			}
		})
	}
}

// asFileName makes a string one that a file can have.
func asFileName(s string) string {
	s = strings.NewReplacer("/", "\u2044", "\x00", "").Replace(s)
	return s[:min(len(s), 200)]
}

func TestNoNameOfAFileReachesALogAlive(t *testing.T) {
	for _, text := range hostile {
		for name, content := range map[string]string{"good": denyFile, "bad": "kind: [\n", "unknown": "apiVersion: v1\nkind: Pod\nmetadata: {name: w}\nnonsense: 1\n"} {
			t.Run(name, func(t *testing.T) {
				dir := t.TempDir()
				folder := filepath.Join(dir, asFileName(text))
				require.NoError(t, os.Mkdir(folder, 0o700))
				require.NoError(t, os.WriteFile(filepath.Join(folder, asFileName(text)+".yaml"), []byte(content), 0o600))
				require.NoError(t, os.WriteFile(filepath.Join(folder, "pods.yaml"), []byte(podsFile), 0o600))
				for _, args := range ofFolder {
					args = slices.Clone(args)
					for i := range args {
						args[i] = strings.ReplaceAll(args[i], "DIR", folder)
					}
					look(t, args)
				}
				look(t, []string{"report", "convert", filepath.Join(folder, asFileName(text)+".yaml")})
			})
		}
	}
}

// commandLines are such that a foreign string may become a part of; each argument is replaced in turn. None does anything.
var commandLines = [][]string{
	{"list", "none"}, {"list", "--select", "a=b"}, {"list", "--shard", "1/2"}, {"list", "--nodes", "0"}, {"list", "--unknown"},
	{"explain", "x/a", "x/b", "80", "none"}, {"explain", "--step", "s", "a", "b", "c", "none"},
	{"run", "--provider", "kin", "none"}, {"run", "--format", "x"}, {"run", "--output", "/none/x"}, {"run", "--cni", "x"}, {"run", "--timeout", "x"},
	{"report", "convert", "none"}, {"report", "x"}, {"report", "convert", "none", "--format", "x"}, {"cluster", "create", "_"}, {"cluster", "x"},
	{"cleanup", "--kubeconfig", "/none/x"}, {"rbac", "--policies", "x"}, {"rbac", "--namespace", "_"}, {"completion", "x"}, {"version", "--format", "x"}, {"help", "x"},
}

func TestNoArgumentReachesALogAlive(t *testing.T) {
	for _, line := range commandLines {
		for i := range line {
			for _, text := range hostile {
				args := slices.Clone(line)
				args[i] = text
				out, said, _ := command(t, args)
				lookAtText(t, out)
				lookAtText(t, said)
				if t.Failed() {
					t.Fatalf("netproof %q", args)
				}
			}
		}
	}
}

func TestTheCaseOfWorkflowCommandsInAKey(t *testing.T) {
	dir := t.TempDir()
	content := "apiVersion: netproof.dev/v1alpha1\nkind: Scenario\nmetadata: {name: k}\nspec:\n  " + quoteYAML(hostile[0]) + ": 1\n" +
		"  topology: {namespaces: [{name: x}], pods: [{name: x/a, ports: [80]}, {name: x/b, ports: [80]}]}\n  steps: [{name: s, expect: {default: allow}}]\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "scenario.yaml"), []byte(content), 0o600))
	out, said, code := command(t, []string{"list", dir})
	assert.Equal(t, model.ExitUsage, code)
	assert.Empty(t, out)
	assert.Contains(t, said, "unknown key `x ::error file=a.go,line=1::injected #\\#vso[task.setvariable")
	assert.NotRegexp(t, `(?m)^\s*(::|##)|\x1b`, said)
}

// FuzzHostileText puts any string into any field of any format.
func FuzzHostileText(f *testing.F) {
	all := formats(f)
	names := slices.Sorted(maps.Keys(all))
	for i, text := range hostile {
		f.Add(text, uint8(i), uint16(i), i%2 == 0)
	}
	f.Fuzz(func(t *testing.T, text string, which uint8, place uint16, raw bool) {
		chosen := all[names[int(which)%len(names)]]
		fields := chosen.fields(chosen.content)
		try(t, chosen, fields[int(place)%len(fields)], text, raw)
	})
}

// Scripts and the words that complete a command line are for shells: the last door must leave them as they are.
func TestCompletionIsLeftAsItIs(t *testing.T) {
	for _, args := range [][]string{{"completion", "bash"}, {"completion", "zsh"}, {"completion", "fish"}, {"completion", "powershell"}, {"__complete", "run", "--"}} {
		var raw bytes.Buffer
		root, _ := newRoot(cli.Streams{Out: &raw, Err: io.Discard, Getenv: func(string) string { return "" }})
		root.SetArgs(args)
		require.NoError(t, root.Execute())
		out, _, code := command(t, args)
		require.Zero(t, code)
		assert.Equal(t, raw.String(), out, "%q", args)
	}
}
