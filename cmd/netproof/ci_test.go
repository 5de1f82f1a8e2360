package main

import (
	"encoding/xml"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/netproof/netproof/harness/cluster/local/engine"
)

// The pipelines of docs/ci.md are read from the page, and their shell steps are run in a temporary folder as their
// runners would: the same shell, conditions, variables and order. What only a runner has is stood in for by programs
// and steps of this file:
//
//   - go install is a link to this test's netproof, since no version of it can be downloaded in a test; any other go
//     command is the real one.
//   - apt-get, and sudo with whatever it is to run, do nothing but note it: they change the machine.
//   - gh and curl note the comment that they would make. gh has the comments of one pull request.
//   - steps with uses: are folders that are copied: caches, artifacts and checkouts.
//
// The engines that a pipeline would build are those of the user's cache.

// pipelinesPage has the pipelines, and nothing else in YAML.
const pipelinesPage = "docs/ci.md"

// isPipeline tells whether a block of YAML is for a CI system.
func isPipeline(b block) bool { return b.file == pipelinesPage && b.language == "yaml" }

// pipeline reads the block whose first line names a file.
func pipeline(t *testing.T, file string, to any) {
	t.Helper()
	blocks, _ := documents(t)
	var names []string
	for _, b := range blocks {
		if !isPipeline(b) {
			continue
		}
		names = append(names, firstLine(b.text))
		if firstLine(b.text) == "# "+file {
			d := yaml.NewDecoder(strings.NewReader(b.text))
			d.KnownFields(true) // what these tests do not know they do not try
			require.NoError(t, d.Decode(to))
		}
	}
	assert.Equal(t, []string{"# .github/workflows/netproof.yml", "# .gitlab-ci.yml"}, names, "a test runs each pipeline of %s", pipelinesPage)
}

const ciAsserted = "apiVersion: netproof.dev/v1alpha1\nkind: Assertions\nspec: {rules: [{from: \"dev/*\", to: \"prod/*\", verdict: deny}]}\n"

// ciMachine is what the runners of one test share.
type ciMachine struct {
	dir string
	// env are the variables of every shell.
	env map[string]string
}

// ghStandIn is a stand-in for gh, as a script that finds the name of the log in $log, and one file in the folder
// $comments for each comment of the workflow, under its number. It trusts the filter that it is given, but for its
// marker.
const ghStandIn = `echo "gh $*" >> "$log"
case "$1 $2" in
"pr comment")
	number=$(($(ls "$comments" | wc -l) + 100))
	[ "$4" = --body-file ] && cp "$5" "$comments/$number" ;;
"api --paginate")
	case "$5" in
	*'.user.login == "github-actions[bot]" and (.body | startswith("<!-- netproof -->"))'*) ;;
	*) exit 2 ;;
	esac
	for file in "$comments"/*; do
		if [ -f "$file" ] && [ "$(head -n 1 "$file")" = "<!-- netproof -->" ]; then echo "${file##*/}"; fi
	done ;;
"api --silent")
	[ "$3 $4 $6" = "--method PATCH --field" ] && [ -f "$comments/${5##*/}" ] && cp "${7#body=@}" "$comments/${5##*/}" ;;
*)
	echo "the stand-in for gh does not know $*" >&2
	exit 2 ;;
esac
`

// comments gives the text of each comment of the pull request, by its number.
func (c *ciMachine) comments(t *testing.T) map[string]string {
	t.Helper()
	dir, all := filepath.Join(c.dir, "comments"), map[string]string{}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		require.NoError(t, err)
		all[e.Name()] = string(text)
	}
	return all
}

// curlStandIn is a stand-in for curl, as a script that finds the name of the log in $log. It knows the options that the
// page uses, and notes the request that curl would send: its URL, its headers, and what is in the file of each field.
const curlStandIn = `while [ $# -gt 0 ]; do
	case $1 in
	--fail | --silent | --show-error) ;;
	--header)
		shift
		echo "curl header $1" >> "$log" ;;
	--data-urlencode)
		shift
		echo "curl field ${1%%@*}" >> "$log"
		cat "${1#*@}" >> "$log" || exit 26 ;;
	http*) echo "curl url $1" >> "$log" ;;
	*)
		echo "the stand-in for curl does not know $1" >&2
		exit 2 ;;
	esac
	shift
done
`

func newCIMachine(t *testing.T) *ciMachine {
	t.Helper()
	dir := t.TempDir()
	netproof, err := exec.LookPath("netproof")
	require.NoError(t, err)
	realGo, err := exec.LookPath("go")
	require.NoError(t, err)
	engines, err := engine.DefaultCacheDir()
	require.NoError(t, err)
	log := filepath.Join(dir, "stand-ins.log")
	note := "#!/bin/sh\necho \"${0##*/} $*\" >> '" + log + "'\n"
	standIns := map[string]string{
		"go":      "#!/bin/sh\n[ \"$1\" = install ] || exec '" + realGo + "' \"$@\"\necho \"go $*\" >> '" + log + "'\nmkdir -p \"$GOBIN\" && ln -s '" + netproof + "' \"$GOBIN/netproof\"\n",
		"apt-get": note,
		"sudo":    note,
		"gh":      "#!/bin/sh\nlog='" + log + "'\ncomments='" + folder(t, dir, "comments") + "'\n" + ghStandIn,
		"curl":    "#!/bin/sh\nlog='" + log + "'\n" + curlStandIn,
	}
	require.NoError(t, os.Mkdir(filepath.Join(dir, "stand-ins"), 0o755))
	for name, script := range standIns {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "stand-ins", name), []byte(script), 0o755))
	}
	path := []string{filepath.Join(dir, "stand-ins")}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if dir != filepath.Dir(netproof) { // it has to be installed
			path = append(path, dir)
		}
	}
	m := &ciMachine{dir: dir, env: map[string]string{
		"PATH": strings.Join(path, string(filepath.ListSeparator)), "CI": "true", "LANG": "C.UTF-8", "HOME": folder(t, dir, "home"), "TMPDIR": folder(t, dir, "tmp"),
		engine.CacheEnv: filepath.Dir(engines), "GIT_CONFIG_GLOBAL": os.DevNull,
	}}
	for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOFLAGS", "GOPROXY"} { // of the user, whose HOME it is not
		out, err := exec.CommandContext(t.Context(), realGo, "env", name).Output()
		require.NoError(t, err)
		m.env[name] = strings.TrimSpace(string(out))
	}
	return m
}

// folder makes a folder.
func folder(t *testing.T, parts ...string) string {
	t.Helper()
	dir := filepath.Join(parts...)
	require.NoError(t, os.MkdirAll(dir, 0o755))
	return dir
}

// freshEngines makes the next jobs run on a machine whose cache of engines is empty.
func (c *ciMachine) freshEngines(t *testing.T) { c.env[engine.CacheEnv] = t.TempDir() }

// noted gives what the stand-ins noted since the last call.
func (c *ciMachine) noted(t *testing.T) string {
	t.Helper()
	log := filepath.Join(c.dir, "stand-ins.log")
	text, err := os.ReadFile(log)
	if !os.IsNotExist(err) {
		require.NoError(t, err)
		require.NoError(t, os.Remove(log))
	}
	return string(text)
}

// shell runs a script and gives what it says, and its exit code.
func (c *ciMachine) shell(t *testing.T, dir, script string, env map[string]string, options ...string) (string, int) {
	t.Helper()
	file := filepath.Join(c.dir, "step.sh")
	require.NoError(t, os.WriteFile(file, []byte(script), 0o600))
	sh := exec.CommandContext(t.Context(), "bash", append(options, file)...)
	sh.Dir = dir
	for _, vars := range []map[string]string{c.env, env} {
		for _, name := range slices.Sorted(maps.Keys(vars)) {
			sh.Env = append(sh.Env, name+"="+vars[name])
		}
	}
	out, _ := sh.CombinedOutput() // the code tells
	require.NotNil(t, sh.ProcessState, "bash cannot be started")
	return string(out), sh.ProcessState.ExitCode()
}

// copyTree copies a file, or what is in a folder. It tells whether there was something.
func copyTree(t *testing.T, from, to string) bool {
	t.Helper()
	info, err := os.Stat(from)
	if os.IsNotExist(err) {
		return false
	}
	require.NoError(t, err)
	args := []string{"-a", from, folder(t, filepath.Dir(to)) + "/" + filepath.Base(to)}
	if info.IsDir() {
		args = []string{"-a", from + "/.", folder(t, to)}
	}
	out, err := exec.CommandContext(t.Context(), "cp", args...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return true
}

// checkReports looks at what a job kept.
func checkReports(t *testing.T, dir, title string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "netproof.md"))
	require.NoError(t, err)
	assert.Contains(t, string(text), title)
	junit, err := os.ReadFile(filepath.Join(dir, "netproof.xml"))
	require.NoError(t, err)
	assert.NoError(t, xml.Unmarshal(junit, new(struct{})))
	_, err = os.Stat(filepath.Join(dir, "netproof.json"))
	assert.NoError(t, err)
}

type githubWorkflow struct {
	Name        string
	On          map[string]any
	Permissions map[string]string
	Env         map[string]string
	Jobs        map[string]struct {
		Needs, If      string
		RunsOn         string `yaml:"runs-on"`
		TimeoutMinutes int    `yaml:"timeout-minutes"`
		Permissions    map[string]string
		Steps          []githubStep
	}
}

type githubStep struct {
	Name, ID, If, Uses, Run string
	With, Env               map[string]string
}

// githubJob is a job while it runs.
type githubJob struct {
	*ciMachine
	dir string
	// about are the values of contexts, such as github.base_ref, and steps.ID.outputs.NAME.
	about  map[string]string
	branch map[string]string
	failed bool
	log    strings.Builder
	// after runs when all steps have passed.
	after []func()
}

var githubExpression = regexp.MustCompile(`\$\{\{ ([^}]*) \}\}`)

func (j *githubJob) value(t *testing.T, of string) string {
	t.Helper()
	if text, ok := strings.CutPrefix(of, "'"); ok {
		return strings.TrimSuffix(text, "'")
	}
	value, ok := j.about[of]
	assert.True(t, ok || strings.HasPrefix(of, "steps."), "what is %s?", of)
	return value
}

// holds evaluates a condition: always(), !cancelled(), comparisons, and && between them.
func (j *githubJob) holds(t *testing.T, condition string) bool {
	t.Helper()
	if inner, ok := strings.CutPrefix(condition, "${{ "); ok {
		condition = strings.TrimSuffix(inner, " }}")
	}
	if j.failed && !strings.Contains(condition, "always()") && !strings.Contains(condition, "!cancelled()") {
		return false
	}
	for term := range strings.SplitSeq(condition, " && ") {
		if left, right, ok := strings.Cut(term, " == "); ok && j.value(t, left) != j.value(t, right) {
			return false
		}
		if left, right, ok := strings.Cut(term, " != "); ok && j.value(t, left) == j.value(t, right) {
			return false
		}
		require.Regexp(t, `^$|^always\(\)$|^!cancelled\(\)$| [=!]= `, term)
	}
	return true
}

func (j *githubJob) expand(t *testing.T, text string) string {
	return githubExpression.ReplaceAllStringFunc(text, func(e string) string { return j.value(t, githubExpression.FindStringSubmatch(e)[1]) })
}

// at is a path that an action is given.
func (j *githubJob) at(path string) string {
	if below, ok := strings.CutPrefix(path, "~/"); ok {
		return filepath.Join(j.env["HOME"], below)
	}
	return filepath.Join(j.dir, path)
}

// action stands in for a step that a runner has.
func (j *githubJob) action(t *testing.T, s githubStep) {
	t.Helper()
	with := map[string]string{}
	for name, text := range s.With {
		with[name] = j.expand(t, text)
	}
	kept := func() string { return filepath.Join(j.ciMachine.dir, "cache", with["key"]) }
	restore := func() {
		if copyTree(t, kept(), j.at(with["path"])) {
			j.about["steps."+s.ID+".outputs.cache-hit"] = "true"
		}
	}
	save := func() { require.True(t, copyTree(t, j.at(with["path"]), kept()), "%s is to be kept", with["path"]) }
	artifact := filepath.Join(j.ciMachine.dir, "artifacts", with["name"])
	switch s.Uses {
	case "actions/checkout@v4":
		assert.Equal(t, "false", with["persist-credentials"], "the token is not for what is checked out")
		require.True(t, copyTree(t, j.branch[with["ref"]], j.at(with["path"])))
	case "actions/setup-go@v5":
	case "actions/cache@v4":
		if restore(); j.about["steps."+s.ID+".outputs.cache-hit"] == "" {
			j.after = append(j.after, save)
		}
	case "actions/cache/restore@v4":
		restore()
	case "actions/cache/save@v4":
		save()
	case "actions/upload-artifact@v4":
		require.True(t, copyTree(t, j.at(with["path"]), artifact))
	case "actions/download-artifact@v4":
		require.True(t, copyTree(t, artifact, j.at(with["path"])))
	default:
		require.Fail(t, "no stand-in", "for %s", s.Uses)
	}
}

// script runs a step that is one.
func (j *githubJob) script(t *testing.T, w githubWorkflow, s githubStep) {
	t.Helper()
	require.NotContains(t, s.Run, "${{", "what others choose is no part of a script")
	env := maps.Clone(w.Env)
	for name, text := range s.Env {
		env[name] = j.expand(t, text)
	}
	files := t.TempDir()
	for _, name := range []string{"GITHUB_OUTPUT", "GITHUB_PATH", "GITHUB_STEP_SUMMARY"} {
		env[name] = filepath.Join(files, name)
	}
	out, code := j.shell(t, j.dir, s.Run, env, "-e")
	fmt.Fprintf(&j.log, "## %s\n%s", s.Name, out)
	if code != 0 {
		j.failed = true
		fmt.Fprintf(&j.log, "exit code %d\n", code)
	}
	read := func(name string) []string {
		text, err := os.ReadFile(filepath.Join(files, name))
		if err != nil {
			require.ErrorIs(t, err, os.ErrNotExist)
			return nil
		}
		return strings.Split(strings.TrimSpace(string(text)), "\n")
	}
	for _, line := range read("GITHUB_OUTPUT") {
		name, value, _ := strings.Cut(line, "=")
		j.about["steps."+s.ID+".outputs."+name] = value
	}
	for _, dir := range read("GITHUB_PATH") {
		j.env["PATH"] = dir + string(filepath.ListSeparator) + j.env["PATH"]
	}
	if lines := read("GITHUB_STEP_SUMMARY"); lines != nil {
		j.about["summary"] = strings.Join(lines, "\n")
	}
}

// githubRun runs the jobs of the workflow in their order, each on a machine of its own, and gives the first.
func (c *ciMachine) githubRun(t *testing.T, w githubWorkflow, about, branch map[string]string) *githubJob {
	t.Helper()
	require.NoError(t, os.RemoveAll(filepath.Join(c.dir, "artifacts")))
	var first *githubJob
	for _, name := range []string{"prove", "comment"} {
		machine := &ciMachine{dir: c.dir, env: maps.Clone(c.env)}
		machine.env["HOME"] = t.TempDir()
		j := &githubJob{ciMachine: machine, dir: t.TempDir(), about: maps.Clone(about), branch: branch}
		j.about["env.NETPROOF_VERSION"] = w.Env["NETPROOF_VERSION"]
		if first != nil {
			j.failed = first.failed
		}
		if !j.holds(t, w.Jobs[name].If) {
			break
		}
		j.failed = false
		for _, s := range w.Jobs[name].Steps {
			if !j.holds(t, s.If) {
				continue
			}
			if s.Uses != "" {
				j.action(t, s)
			} else {
				j.script(t, w, s)
			}
		}
		for _, do := range j.after {
			if !j.failed {
				do()
			}
		}
		if first == nil {
			first = j
		}
	}
	return first
}

func TestTheWorkflowForGitHubRuns(t *testing.T) {
	t.Parallel() // it mostly waits
	var w githubWorkflow
	pipeline(t, ".github/workflows/netproof.yml", &w)
	require.Len(t, w.Jobs, 2)
	assert.Equal(t, []string{"pull_request", "push"}, slices.Sorted(maps.Keys(w.On)))
	assert.Equal(t, map[string]string{"contents": "read"}, w.Permissions)
	assert.Empty(t, w.Jobs["prove"].Permissions, "the job that reads the change has no more rights than these")

	c := newCIMachine(t)
	base, change := folder(t, c.dir, "base"), folder(t, c.dir, "change")
	require.NoError(t, os.WriteFile(filepath.Join(base, "asserted.yaml"), []byte(ciAsserted), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(folder(t, change, "policies"), "all.yaml"), []byte(shop), 0o600))
	about := map[string]string{
		"github.event_name": "pull_request", "github.base_ref": "main", "github.repository": "acme/shop", "github.token": "token",
		"github.event.pull_request.head.repo.full_name": "acme/shop", "github.event.pull_request.number": "7", "runner.arch": "X64",
	}
	// A pull request without a table that somebody has reviewed, on a machine with empty caches.
	j := c.githubRun(t, w, about, map[string]string{"": change, "main": base})
	require.True(t, j.failed, "%s", &j.log)
	assert.Contains(t, j.log.String(), "nobody has reviewed")
	assert.Contains(t, j.log.String(), "exit code 5")
	assert.Contains(t, j.about["summary"], "### netproof: vacuous")
	checkReports(t, filepath.Join(c.dir, "artifacts/netproof"), "### netproof: vacuous")
	noted := c.noted(t)
	assert.Contains(t, noted, "go install github.com/netproof/netproof/cmd/netproof@v")
	assert.Contains(t, noted, "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0\n")
	assert.Contains(t, noted, "gh pr comment 7 ")
	comments := c.comments(t)
	require.Len(t, comments, 1)
	assert.Contains(t, comments["100"], "<!-- netproof -->\n### netproof: vacuous", "the comment is the report")

	// Another workflow comments. Then a step fails before netproof is there: the comment is the same one, and says so.
	require.NoError(t, os.WriteFile(filepath.Join(c.dir, "comments/200"), []byte("coverage\n"), 0o600))
	sudo := filepath.Join(c.dir, "stand-ins/sudo")
	works, err := os.ReadFile(sudo)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(sudo, []byte("#!/bin/sh\nexit 1\n"), 0o755))
	stopped := c.githubRun(t, w, about, map[string]string{"": change, "main": base})
	require.NoError(t, os.WriteFile(sudo, works, 0o755))
	require.True(t, stopped.failed, "%s", &stopped.log)
	assert.NotContains(t, stopped.log.String(), "## Prove the policies")
	assert.Contains(t, stopped.about["summary"], "netproof was not run")
	comments = c.comments(t)
	require.Len(t, comments, 2)
	assert.Equal(t, "<!-- netproof -->\nnetproof was not run: the log of the job says why\n", comments["100"])
	assert.Equal(t, "coverage\n", comments["200"], "that of another workflow stays")
	c.noted(t)

	// The table is committed and merged. The machine has no engines but those of the bundle.
	require.True(t, copyTree(t, filepath.Join(j.dir, "checkout/policies/expected.txt"), filepath.Join(change, "policies/expected.txt")))
	require.True(t, copyTree(t, change, base))
	c.freshEngines(t)
	pushed := maps.Clone(about)
	pushed["github.event_name"], pushed["github.base_ref"] = "push", ""
	j = c.githubRun(t, w, pushed, map[string]string{"": base})
	require.False(t, j.failed, "%s", &j.log)
	assert.Contains(t, j.log.String(), "## Unpack the engines\nimported etcd")
	assert.NotContains(t, j.log.String(), "## Build the engines")
	checkReports(t, filepath.Join(c.dir, "artifacts/netproof"), "### netproof: passed")
	assert.NotContains(t, c.noted(t), "gh ")

	// A pull request of a fork opens prod, and its own table says so.
	require.NoError(t, os.WriteFile(filepath.Join(change, "policies/all.yaml"), []byte(strings.Replace(shop, "policyTypes: [Ingress, Egress]", "ingress: [{}]", 1)), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(change, "asserted.yaml"), []byte(strings.Replace(ciAsserted, "deny", "allow", 1)), 0o600))
	require.NoError(t, os.Remove(filepath.Join(change, "policies/expected.txt")))
	forked := maps.Clone(about)
	forked["github.event.pull_request.head.repo.full_name"] = "stranger/shop"
	j = c.githubRun(t, w, forked, map[string]string{"": change, "main": base})
	require.True(t, j.failed, "%s", &j.log)
	assert.Contains(t, j.log.String(), "base/asserted.yaml:3 wants deny, and the policies give allow")
	assert.Contains(t, j.about["summary"], "### netproof: failed")
	assert.Contains(t, j.about["summary"], "base/asserted.yaml:3 wants deny")
	noted = c.noted(t)
	assert.NotContains(t, noted, "gh ", "a fork's job may not comment")
	assert.NotContains(t, noted, "go install", "the green job kept netproof")
}

type gitlabPipeline struct {
	Variables map[string]string
	Netproof  gitlabJob
	Comment   gitlabJob `yaml:"netproof-comment"`
}

type gitlabJob struct {
	Variables map[string]string
	Rules     []gitlabRule
	Cache     struct {
		Key, Policy, When string
		Paths             []string
	}
	Image, Timeout string
	Tags           []string
	BeforeScript   []string `yaml:"before_script"`
	Script         []string
	Artifacts      struct {
		When    string
		Paths   []string
		Reports map[string]string
	}
	Needs []string
}

type gitlabRule struct {
	If, When  string
	Variables map[string]string
}

// wanted gives the first rule that holds, nil if none does: comparisons of variables, variables that are set, and &&
// between them.
func (j gitlabJob) wanted(t *testing.T, env map[string]string) *gitlabRule {
	t.Helper()
	value := func(word string) string {
		if name, ok := strings.CutPrefix(word, "$"); ok {
			return env[name]
		}
		return strings.Trim(word, `"`)
	}
	for _, rule := range j.Rules {
		holds := true
		for term := range strings.SplitSeq(rule.If, " && ") {
			require.Regexp(t, `^\$\w+( == \S+)?$`, term)
			left, right, compared := strings.Cut(term, " == ")
			holds = holds && (compared && value(left) == value(right) || !compared && value(left) != "")
		}
		if holds {
			return &rule
		}
	}
	return nil
}

// cacheOf is where a cache is kept between jobs. GitLab adds the suffix, whatever the pipeline says, as long as the
// project has separate caches for protected branches.
func (c *ciMachine) cacheOf(key string, env map[string]string) string {
	suffix := "-non_protected"
	if env["CI_COMMIT_REF_PROTECTED"] == "true" {
		suffix = "-protected"
	}
	return filepath.Join(c.dir, "cache", os.Expand(key, func(name string) string { return env[name] })+suffix)
}

// gitlabRun runs the jobs in their order, each in a clone of its own, and gives what the first said, its exit code, and
// its folder. That of the second, where it was wanted, has to be 0.
func (c *ciMachine) gitlabRun(t *testing.T, p gitlabPipeline, origin, branch string, env map[string]string) (said string, code int, dir string) {
	t.Helper()
	env = maps.Clone(env)
	maps.Copy(env, p.Variables)
	jobs, dirs := map[string]gitlabJob{"netproof": p.Netproof, "netproof-comment": p.Comment}, map[string]string{}
	for _, name := range []string{"netproof", "netproof-comment"} {
		j := jobs[name]
		rule := j.wanted(t, env)
		if rule == nil {
			continue
		}
		env := maps.Clone(env)
		maps.Copy(env, rule.Variables)
		require.NotContains(t, env, engine.CacheEnv, "netproof has a meaning for this one")
		at := t.TempDir()
		dirs[name], env["CI_PROJECT_DIR"] = at, at
		if j.Variables["GIT_STRATEGY"] != "none" {
			out, err := exec.CommandContext(t.Context(), "git", "clone", "-q", "--branch", branch, origin, at).CombinedOutput()
			require.NoError(t, err, "%s", out)
		}
		for _, need := range j.Needs {
			for _, path := range jobs[need].Artifacts.Paths {
				require.True(t, copyTree(t, filepath.Join(dirs[need], path), filepath.Join(at, path)))
			}
		}
		cache, policy := c.cacheOf(j.Cache.Key, env), os.Expand(j.Cache.Policy, func(name string) string { return env[name] })
		for _, path := range j.Cache.Paths {
			copyTree(t, filepath.Join(cache, path), filepath.Join(at, path))
		}
		script := "set -eo pipefail\n" + strings.Join(append(slices.Clone(j.BeforeScript), j.Script...), "\n") + "\n"
		out, ended := c.shell(t, at, script, env)
		for _, path := range j.Cache.Paths {
			if policy != "pull" && (ended == 0 || j.Cache.When == "always") {
				copyTree(t, filepath.Join(at, path), filepath.Join(cache, path))
			}
		}
		if name == "netproof" {
			said, code, dir = out, ended, at
			assert.Equal(t, "always", j.Artifacts.When)
			continue
		}
		assert.Zero(t, ended, "%s", out)
	}
	return said, code, dir
}

// git runs git in a folder.
func (c *ciMachine) git(t *testing.T, dir string, args ...string) {
	t.Helper()
	g := exec.CommandContext(t.Context(), "git", append([]string{"-C", dir, "-c", "user.name=a", "-c", "user.email=a@example.com"}, args...)...)
	g.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+os.DevNull)
	out, err := g.CombinedOutput()
	require.NoError(t, err, "%q: %s", args, out)
}

func TestThePipelineForGitLabRuns(t *testing.T) {
	t.Parallel()
	var p gitlabPipeline
	pipeline(t, ".gitlab-ci.yml", &p)
	assert.Equal(t, "reports/netproof.xml", p.Netproof.Artifacts.Reports["junit"])

	c := newCIMachine(t)
	origin := folder(t, c.dir, "origin")
	c.git(t, origin, "init", "-q", "-b", "main")
	require.NoError(t, os.WriteFile(filepath.Join(origin, "asserted.yaml"), []byte(ciAsserted), 0o600))
	c.git(t, origin, "add", ".")
	c.git(t, origin, "commit", "-q", "-m", "assert")
	c.git(t, origin, "switch", "-q", "-c", "change")
	require.NoError(t, os.WriteFile(filepath.Join(folder(t, origin, "policies"), "all.yaml"), []byte(shop), 0o600))
	c.git(t, origin, "rm", "-q", "asserted.yaml") // that of the other branch counts
	c.git(t, origin, "add", ".")
	c.git(t, origin, "commit", "-q", "-m", "deny")
	env := map[string]string{
		"CI_PIPELINE_SOURCE": "merge_request_event", "CI_DEFAULT_BRANCH": "main", "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main",
		"CI_API_V4_URL": "https://gitlab.example/api/v4", "CI_PROJECT_ID": "3", "CI_MERGE_REQUEST_IID": "7", "NETPROOF_COMMENT_TOKEN": "token",
	}
	// A merge request without a table that somebody has reviewed, on a machine with empty caches. It writes to none.
	said, code, dir := c.gitlabRun(t, p, origin, "change", env)
	require.Equal(t, 5, code, "%s", said)
	checkReports(t, filepath.Join(dir, "reports"), "### netproof: vacuous")
	noted := c.noted(t)
	assert.Contains(t, noted, "curl header PRIVATE-TOKEN: token\ncurl field body\n### netproof: vacuous")
	assert.Contains(t, noted, "curl url https://gitlab.example/api/v4/projects/3/merge_requests/7/notes\n")
	assert.Contains(t, noted, "go install -trimpath github.com/netproof/netproof/cmd/netproof@v")
	assert.Contains(t, noted, "apt-get install ")
	assert.NoDirExists(t, filepath.Join(c.dir, "cache"))

	// Somebody runs a pipeline by hand on the same branch, which fills the cache of branches that are not protected.
	// Its log has the digests.
	said, code, _ = c.gitlabRun(t, p, origin, "change", map[string]string{
		"CI_PIPELINE_SOURCE": "web", "CI_DEFAULT_BRANCH": "main", "CI_COMMIT_BRANCH": "change",
	})
	require.Equal(t, 5, code, "%s", said)
	assert.DirExists(t, c.cacheOf(p.Netproof.Cache.Key, p.Variables))
	netproof := regexp.MustCompile(`NETPROOF_SHA256 is not that of the cache: ([0-9a-f]{64}) `).FindStringSubmatch(said)
	engines := regexp.MustCompile(`(?ms)^ENGINES_SHA256 is not that of the cache: .*^sha256 ([0-9a-f]{64})$`).FindStringSubmatch(said)
	require.Len(t, netproof, 2, "%s", said)
	require.Len(t, engines, 2, "%s", said)
	p.Variables["NETPROOF_SHA256"], p.Variables["ENGINES_SHA256"] = netproof[1], engines[1]
	c.noted(t)

	// The table is committed, the change merged. Somebody has written to the cache, though only protected branches
	// could: what lies there is not run.
	require.True(t, copyTree(t, filepath.Join(dir, "policies/expected.txt"), filepath.Join(origin, "policies/expected.txt")))
	c.git(t, origin, "checkout", "-q", "main", "--", "asserted.yaml")
	c.git(t, origin, "add", ".")
	c.git(t, origin, "commit", "-q", "-m", "review")
	c.git(t, origin, "switch", "-q", "main")
	c.git(t, origin, "merge", "-q", "change")
	pushed := map[string]string{
		"CI_PIPELINE_SOURCE": "push", "CI_DEFAULT_BRANCH": "main", "CI_COMMIT_BRANCH": "main", "CI_COMMIT_REF_PROTECTED": "true",
		"NETPROOF_COMMENT_TOKEN": "token",
	}
	inCache := maps.Clone(pushed)
	maps.Copy(inCache, p.Variables)
	protected := filepath.Join(c.cacheOf(p.Netproof.Cache.Key, inCache), ".netproof")
	assert.NoDirExists(t, protected, "no other branch writes to this one")
	key, err := engine.Key()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(folder(t, protected), "netproof"), []byte("#!/bin/sh\necho trusted\n"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(protected, key+".tar.zst"), []byte("trusted\n"), 0o600))
	said, code, _ = c.gitlabRun(t, p, origin, "main", pushed)
	require.Zero(t, code, "%s", said)
	assert.NotContains(t, said, "trusted")
	assert.Contains(t, said, "is not imported: ")
	assert.Contains(t, said, "ENGINES_SHA256 is not that of the cache: the engines are built")
	assert.Contains(t, c.noted(t), "go install ", "what was in the cache was not run")

	// The machine has no engines but those of the bundle.
	c.freshEngines(t)
	said, code, dir = c.gitlabRun(t, p, origin, "main", pushed)
	require.Zero(t, code, "%s", said)
	assert.Contains(t, said, "imported etcd")
	checkReports(t, filepath.Join(dir, "reports"), "### netproof: passed")
	noted = c.noted(t)
	assert.NotContains(t, noted, "curl", "there is no merge request to comment on")
	assert.NotContains(t, noted, "go install", "netproof was kept")

	// A change that would be taken for what the job has kept.
	c.git(t, origin, "switch", "-q", "change")
	require.NoError(t, os.WriteFile(filepath.Join(folder(t, origin, ".netproof"), "netproof"), []byte("#!/bin/sh\necho trusted\n"), 0o755))
	c.git(t, origin, "add", ".")
	c.git(t, origin, "commit", "-q", "-m", "help")
	delete(env, "NETPROOF_COMMENT_TOKEN")
	p.Variables["NETPROOF_VERSION"] = "v2.0.0" // of which nothing is kept yet
	said, code, _ = c.gitlabRun(t, p, origin, "change", env)
	assert.Equal(t, 1, code)
	assert.Contains(t, said, "brings files of its own to .netproof")
	assert.NotContains(t, said, "trusted")

	// Where git cannot tell, the job does not go on, as if there were no such files.
	broken := folder(t, c.dir, "broken")
	require.NoError(t, os.WriteFile(filepath.Join(broken, "git"), []byte("#!/bin/sh\necho dubious ownership >&2\nexit 128\n"), 0o755))
	c.env["PATH"] = broken + string(filepath.ListSeparator) + c.env["PATH"]
	said, code, _ = c.gitlabRun(t, p, origin, "change", env)
	assert.Equal(t, 1, code)
	assert.Contains(t, said, "git does not tell whether the change brings files")
	assert.NotContains(t, said, "trusted")
}

func TestThePageForGitLabKeepsCachesApart(t *testing.T) {
	t.Parallel()
	var p gitlabPipeline
	pipeline(t, ".gitlab-ci.yml", &p) // which has no unprotect, since this test does not know it
	assert.Empty(t, p.Variables["NETPROOF_SHA256"], "nothing is taken from a cache before somebody has looked")
	assert.Empty(t, p.Variables["ENGINES_SHA256"])
	request := p.Netproof.wanted(t, map[string]string{"CI_PIPELINE_SOURCE": "merge_request_event"})
	require.NotNil(t, request)
	assert.Equal(t, "$CACHE_POLICY", p.Netproof.Cache.Policy)
	assert.Equal(t, "pull", request.Variables["CACHE_POLICY"])
	assert.Empty(t, p.Comment.Cache.Paths)
	page, err := os.ReadFile(filepath.Join(root, pipelinesPage))
	require.NoError(t, err)
	assert.Contains(t, string(page), "Use separate caches for protected branches")
}
