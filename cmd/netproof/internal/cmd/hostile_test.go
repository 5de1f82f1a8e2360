package cmd

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
	"github.com/netproof/netproof/cmd/netproof/internal/hostile"
	"github.com/netproof/netproof/harness/cluster/local/engine"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/report"
)

// Whatever netproof reads may have been written by somebody who wants to steer the terminal, the CI system, the
// spreadsheet or the page that shows what it says. These tests put hostile strings into every field of every file
// format, into names of files and into arguments, and look at what whole commands print. Package hostile has the
// formats and the eyes, and a fuzz test of what needs no command line. A new format, command or argument is a line in
// one of the tables.

// ofFolder are the commands that read folders; DIR is the folder.
var ofFolder = [][]string{
	{"list", "DIR"},
	{"list", "DIR", "--format", "json"},
	{"explain", "x/a", "x/b", "80", "DIR"},
	{"explain", "x/a", "x/b", "80", "DIR", "--format", "json"},
	// It loads the folder, says what it has to say about it, and does not find a cluster.
	{"run", "--provider", "existing", "--kubeconfig", "DIR/none/config", "--verbose", "DIR"},
}

// ofFile are the commands that are given FILE, whatever it is. None of them writes: what they are to write lies below a
// file.
var ofFile = [][]string{
	{"list", "--assert", "FILE", "DIR"},
	{"run", "--provider", "existing", "--kubeconfig", "DIR/none/config", "--assert", "FILE", "DIR"},
	{"engines", "import", "FILE"},
	{"engines", "import", "--sha256", "FILE", "FILE"},
	{"engines", "export", "FILE/none"},
	{"images", "--full", "FILE/none"},
	{"images", "--agent", "FILE/none"},
}

// ofReport are the commands that read FILE, a report, one for each form.
func ofReport() (commands [][]string) {
	for _, name := range report.FormatNames() {
		commands = append(commands, []string{"report", "convert", "FILE", "--format", name, "--verbose"})
	}
	return commands
}

// command runs a command line, and returns what it printed and how it ended.
func command(t *testing.T, args []string) (out, err string, code int) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = Run(context.Background(), cli.Streams{In: strings.NewReader(""), Out: &stdout, Err: &stderr, Getenv: func(string) string { return "" }}, args)
	return stdout.String(), stderr.String(), code
}

// look runs a command line and looks at what it prints.
func look(t *testing.T, args []string, dir, file, about string) {
	t.Helper()
	form := ""
	if i := slices.Index(args, "--format"); i >= 0 {
		form = args[i+1]
	}
	args = slices.Clone(args)
	for i := range args {
		args[i] = strings.NewReplacer("DIR", dir, "FILE", file).Replace(args[i])
	}
	out, said, code := command(t, args)
	if code != model.ExitOK {
		form = "" // a part of it, or nothing
	}
	require.Empty(t, slices.Concat(hostile.Look("", said), hostile.Look(form, out)), "netproof %q with\n%q", args, about)
}

func TestNoFieldOfAFileReachesALogAlive(t *testing.T) {
	for name, f := range hostile.Formats() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.NotEmpty(t, f.Fields)
			commands := slices.Concat(ofFolder, ofFile[:1])
			if f.Report {
				commands = ofReport()
			}
			dir := t.TempDir()
			for name, content := range f.Beside {
				require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
			}
			for i, field := range f.Fields {
				// Each field gets one of them, some as they are in the bytes of the file; the fuzz test has all.
				content := field.With(hostile.Strings[i%len(hostile.Strings)], i%4 == 3)
				require.NoError(t, os.WriteFile(filepath.Join(dir, f.File), []byte(content), 0o600))
				for k, args := range commands {
					// Of the many fields of reports each is written in one form here, and in all forms by the fuzz
					// test.
					if !f.Report || k == i%len(commands) {
						look(t, args, dir, filepath.Join(dir, f.File), content)
					}
				}
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
	t.Setenv(engine.CacheEnv, t.TempDir()) // for what is imported
	for _, text := range hostile.Strings {
		for name, content := range map[string]string{"good": hostile.Policy, "bad": "kind: [\n", "unknown": "apiVersion: v1\nkind: Pod\nmetadata: {name: w}\nnonsense: 1\n"} {
			t.Run(name, func(t *testing.T) {
				dir := t.TempDir()
				folder := filepath.Join(dir, asFileName(text))
				require.NoError(t, os.Mkdir(folder, 0o700))
				require.NoError(t, os.WriteFile(filepath.Join(folder, asFileName(text)+".yaml"), []byte(content), 0o600))
				require.NoError(t, os.WriteFile(filepath.Join(folder, "pods.yaml"), []byte(hostile.Workloads), 0o600))
				for _, args := range slices.Concat(ofFolder, ofFile, ofReport()) {
					look(t, args, folder, filepath.Join(folder, asFileName(text)+".yaml"), content)
				}
			})
		}
	}
}

// commandLines are such that a foreign string may become a part of; each argument is replaced in turn. None does
// anything.
var commandLines = [][]string{
	{"list", "none"}, {"list", "--select", "a=b"}, {"list", "--shard", "1/2"}, {"list", "--nodes", "0"}, {"list", "--unknown"},
	{"explain", "x/a", "x/b", "80", "none"}, {"explain", "--step", "s", "a", "b", "c", "none"},
	{"run", "--provider", "kin", "none"}, {"run", "--format", "x"}, {"run", "--output", "/none/x"}, {"run", "--cni", "x"}, {"run", "--timeout", "x"},
	{"report", "convert", "none"}, {"report", "x"}, {"report", "convert", "none", "--format", "x"}, {"cluster", "create", "_"}, {"cluster", "x"},
	{"cleanup", "--kubeconfig", "/none/x"}, {"rbac", "--policies", "x"}, {"rbac", "--namespace", "_"}, {"completion", "x"}, {"version", "--format", "x"}, {"help", "x"},
	{"engines", "import", "none"}, {"engines", "import", "--sha256", "x", "none"}, {"engines", "list", "--format", "x"}, {"engines", "x"},
	{"list", "--assert", "none", "none"}, {"images", "--full", "none/x", "--agent", "none/x"}, {"images", "--executable", "x"},
}

func TestNoArgumentReachesALogAlive(t *testing.T) {
	t.Setenv(engine.CacheEnv, t.TempDir())
	t.Chdir(t.TempDir()) // run --output writes a report, also one of nothing
	for _, line := range commandLines {
		for i := range line {
			for _, text := range hostile.Strings {
				args := slices.Clone(line)
				args[i] = text
				out, said, _ := command(t, args)
				require.Empty(t, slices.Concat(hostile.Look("", out), hostile.Look("", said)), "netproof %q", args)
			}
		}
	}
}

// Whoever made a bundle chose the names in it and what its manifest says.
func TestNoPartOfABundleReachesALogAlive(t *testing.T) {
	t.Setenv(engine.CacheEnv, t.TempDir())
	const manifest = "netproof-engines.json"
	header := func(text string) string {
		return `{"apiVersion":"netproof.dev/v1alpha1","kind":"EngineBundle","format":1,"platform":"` + runtime.GOOS + "/" + runtime.GOARCH + `",` + text + "}"
	}
	for _, text := range hostile.Strings {
		quoted, err := json.Marshal(text)
		require.NoError(t, err)
		for name, content := range map[string]string{
			asFileName(text) + "/x": "{}",
			manifest:                `{"apiVersion":` + string(quoted) + `,"kind":` + string(quoted) + `,"format":1}`,
			"./" + manifest:         "{}",
			"/" + manifest:          "{}",
		} {
			look(t, []string{"engines", "import", "FILE"}, "", bundle(t, name, content), content)
		}
		for _, fields := range []string{
			`"engines":[{"name":` + string(quoted) + `}]`, `"engines":[{"name":"etcd","version":` + string(quoted) + `}]`, string(quoted) + `:1`, `"engines":` + string(quoted),
		} {
			look(t, []string{"engines", "import", "FILE"}, "", bundle(t, manifest, header(fields)), fields)
		}
		look(t, []string{"engines", "import", "FILE"}, "", bundle(t, manifest, text), text)
	}
}

// bundle writes a bundle of one file.
func bundle(t *testing.T, name, content string) string {
	t.Helper()
	var stream bytes.Buffer
	w := tar.NewWriter(&stream)
	require.NoError(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(content)), Mode: 0o644}))
	_, err := io.WriteString(w, content)
	require.NoError(t, errors.Join(err, w.Close()))
	z, err := zstd.NewWriter(nil)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "engines.tar.zst")
	require.NoError(t, os.WriteFile(path, z.EncodeAll(stream.Bytes(), nil), 0o600))
	return path
}

func TestTheCaseOfWorkflowCommandsInAKey(t *testing.T) {
	dir := t.TempDir()
	content := "apiVersion: netproof.dev/v1alpha1\nkind: Scenario\nmetadata: {name: k}\nspec:\n  " + hostile.QuoteYAML(hostile.Strings[0]) + ": 1\n" +
		"  topology: {namespaces: [{name: x}], pods: [{name: x/a, ports: [80]}, {name: x/b, ports: [80]}]}\n  steps: [{name: s, expect: {default: allow}}]\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "scenario.yaml"), []byte(content), 0o600))
	out, said, code := command(t, []string{"list", dir})
	assert.Equal(t, model.ExitUsage, code)
	assert.Empty(t, out)
	assert.Contains(t, said, "unknown key `x ::error file=a.go,line=1::injected #\\#vso[task.setvariable")
	assert.NotRegexp(t, `(?m)^\s*(::|##)|\x1b`, said)
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
