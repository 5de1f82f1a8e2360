package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Reasons of cells and messages of findings are explained in docs/troubleshooting.md, word for word. Here every
// sentence in the source of what makes them is held against that page, wherever in these packages it stands.

// reasonSources make reasons. Packages below them count. Of harness/scenario only what fills Vacuous and Unproven of a
// plan: the rest of its sentences are errors in files, which stand beside the line and name a fix.
var reasonSources = []string{"harness/run", "harness/expect", "harness/cni/capability.go", "harness/scenario"}

var (
	// plannersReasons are the functions of harness/scenario that give reasons, and the fields that collect them.
	plannersReasons = []string{"vacuous", "unproven", "idle", "Vacuous", "Unproven"}
	// otherSentences are the calls that take errors, problems of files, and notes on progress.
	otherSentences = []string{"Errorf", "Note", "warn", "add"}
	// otherDeclarations are those of errors in files, of fixes, of why a scenario shares a cluster with no other, which
	// --verbose tells, and of an error that only says that a finding has said it all.
	otherDeclarations = []string{"Error", "String", "Fix", "fix", "whyAlone", "aloneText", "errNothingProven"}
)

// notReasons are sentences that no report has as the reason of a cell or a finding, and where they belong instead.
var notReasons = map[string]string{
	"the specification leaves this case open":                                           "a recorded cell: no reason for doubt",
	"it is written at %s, and the specification of NetworkPolicy says nothing about %s": "why a verdict is expected",
	"; the table wants %s (%s)":                                                         "why a verdict is expected",
	"select namespaces by a label of their own":                                         "the fix of an error in a file",
	"the API server refuses %s: %v":                                                     "an error in a file",
	"nothing is known about whether %s %s enforces %s":                                  "what a network plugin can do",
	"it is not in Calico's language as far as it is known here":                         "makes a policy of others one that may select a pod",
	"%s does not exist in this step":                                                    "explain",
	"%s has no port named %s%s":                                                         "explain",
	"%s and %s have no address of one family":                                           "explain",
	"nobody that %s stands for serves %s to %s":                                         "explain",
	": it serves none":                                                                  "explain",
	": it serves ":                                                                      "explain",
	" (one that is being deleted has its name)":                                         "which pods are waited for",
	" (not seen yet)":                                                                   "which pods are waited for",
	"the end of ":                                                                       "which pods are waited for",
	"without a status":                                                                  "which pods are waited for",
	"1 cell is":                                                                         "a number",
	"%d cells are":                                                                      "a number",
	"pod failed":                                                                        "an error of the API",
	"namespace %s is not among those of --namespaces":                                   "names its own fix",
	"namespace %s is not lent to runs: if nobody else needs what is in it, kubectl label namespace %s %s=%s says so":  "names its own fix",
	"namespace %s needs the label %s=%s, and a run must not label what it was lent: kubectl label namespace %s %s=%s": "names its own fix",
	"namespace %s is not there, or not among those of --namespaces, and a run with that flag makes none":              "names its own fix",
}

// sentence is a string of the source.
type sentence struct{ at, text string }

var verb = regexp.MustCompile(`%[-+#0-9.]*[a-z]`)

// fixed is the longest part of a sentence that does not vary.
func fixed(text string) string {
	longest := ""
	for _, part := range verb.Split(text, -1) {
		if part = strings.Trim(part, " ,;:()`\n"); len(part) > len(longest) {
			longest = part
		}
	}
	return longest
}

// sentences collects the strings of two words and more, but for those of errors that are wrapped, of fixes, and of
// notes on progress: an error names what it is about, and becomes the message of a finding as it is.
func sentences(t *testing.T, paths ...string) (out []sentence) {
	t.Helper()
	set := token.NewFileSet()
	visit := func(path string) {
		file, err := parser.ParseFile(set, path, nil, 0)
		require.NoError(t, err)
		if file.Name.Name != "scenario" {
			out = append(out, stringsIn(t, set, file)...)
			return
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if !isNamed(n.Name, plannersReasons...) {
					return true
				}
			case *ast.AssignStmt:
				if !isNamed(n.Lhs[0], plannersReasons...) {
					return true
				}
			default:
				return true
			}
			out = append(out, stringsIn(t, set, n)...)
			return false
		})
	}
	for _, path := range paths {
		err := fs.WalkDir(os.DirFS(root), path, func(path string, _ fs.DirEntry, err error) error {
			if err == nil && strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
				visit(filepath.Join(root, path))
			}
			return err
		})
		require.True(t, err == nil || os.IsNotExist(err), "%v", err)
	}
	return out
}

func stringsIn(t *testing.T, set *token.FileSet, tree ast.Node) (out []sentence) {
	t.Helper()
	ast.Inspect(tree, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ImportSpec:
			return false
		case *ast.Field:
			return n.Tag == nil
		case *ast.FuncDecl:
			return !isNamed(n.Name, otherDeclarations...)
		case *ast.KeyValueExpr:
			return !isNamed(n.Key, otherDeclarations...)
		case *ast.AssignStmt:
			return !isNamed(n.Lhs[0], otherDeclarations...)
		case *ast.ValueSpec:
			return !isNamed(n.Names[0], otherDeclarations...)
		case *ast.CompositeLit:
			return n.Type == nil || !isNamed(n.Type, "RefusedError")
		case *ast.CallExpr:
			return !isNamed(n.Fun, otherSentences...)
		case *ast.BasicLit:
			if n.Kind != token.STRING {
				return true
			}
			text, err := strconv.Unquote(n.Value)
			require.NoError(t, err)
			if strings.Contains(fixed(text), " ") {
				out = append(out, sentence{set.Position(n.Pos()).String(), text})
			}
		}
		return true
	})
	return out
}

// isNamed tells whether an expression is one of these names, or ends with one, as s.fix does.
func isNamed(e ast.Expr, names ...string) bool {
	switch e := e.(type) {
	case *ast.SelectorExpr:
		return slices.Contains(names, e.Sel.Name)
	case *ast.Ident:
		return slices.Contains(names, e.Name)
	}
	return false
}

func troubleshooting(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(root, "docs/troubleshooting.md"))
	require.NoError(t, err)
	return string(page)
}

func TestTroubleshootingHasEveryReason(t *testing.T) {
	page := troubleshooting(t)
	all := sentences(t, reasonSources...)
	require.Greater(t, len(all), 50)
	unused := map[string]string{}
	for text, why := range notReasons {
		unused[text] = why
	}
	for _, s := range all {
		if _, no := notReasons[s.text]; no {
			delete(unused, s.text)
			continue
		}
		assert.True(t, strings.Contains(page, fixed(s.text)), "%s: %q is in no row of docs/troubleshooting.md, and not in notReasons", s.at, s.text)
	}
	assert.Empty(t, unused, "sentences that nothing says any more")
}

// TestTroubleshootingHasNoOtherReason looks for the reasons of the page, which stand in the first column of its tables,
// and in the messages of findings, in the source.
func TestTroubleshootingHasNoOtherReason(t *testing.T) {
	said := sentences(t, append(slices.Clone(reasonSources), "cmd/netproof/internal/cmd/run")...)
	said = append(said, sentence{text: "never probed"}, sentence{text: "prober error"})
	tried := 0
	for line := range strings.Lines(troubleshooting(t)) {
		cells := strings.Split(line, " | ")
		if len(cells) < 2 || !strings.HasPrefix(line, "| `") {
			continue
		}
		for _, code := range inlineCode.FindAllStringSubmatch(cells[0], -1) {
			for part := range strings.SplitSeq(code[1], "...") {
				part = strings.Trim(part, " ,;:()")
				if !strings.Contains(part, " ") {
					continue
				}
				tried++
				assert.True(t, slices.ContainsFunc(said, func(s sentence) bool { return strings.Contains(s.text, part) }),
					"nothing says %q: %s", part, code[1])
			}
		}
	}
	require.Greater(t, tried, 50)
}

// TestTroubleshootingHasEveryKindOfFinding looks at the constants of package model, and at the table of findings.
func TestTroubleshootingHasEveryKindOfFinding(t *testing.T) {
	source, err := os.ReadFile(filepath.Join(root, "harness/model/run.go"))
	require.NoError(t, err)
	kinds := regexp.MustCompile(`FindingKind = "([a-z-]+)"`).FindAllStringSubmatch(string(source), -1)
	require.NotEmpty(t, kinds)
	_, page, _ := strings.Cut(troubleshooting(t), "\n## Findings\n")
	page, _, _ = strings.Cut(page, "\n## ")
	var want, got []string
	for _, kind := range kinds {
		want = append(want, kind[1])
	}
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]*)` \\|").FindAllStringSubmatch(page, -1) {
		got = append(got, row[1])
	}
	assert.ElementsMatch(t, want, got)
}

// TestReadmeHasTheLegend holds README against what the verbose table explains.
func TestReadmeHasTheLegend(t *testing.T) {
	table, err := os.ReadFile(filepath.Join(root, "harness/report/testdata/mismatch-verbose.txt"))
	require.NoError(t, err)
	_, legend, found := strings.Cut(string(table), "\nsettled: ")
	require.True(t, found)
	legend, _, _ = strings.Cut(legend, "\n\n")
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	require.NoError(t, err)
	oneLine := func(text string) string {
		return strings.Join(strings.Fields(strings.ReplaceAll(text, "\n> ", " ")), " ")
	}
	assert.Contains(t, oneLine(string(readme)), oneLine("settled: "+legend))
}
