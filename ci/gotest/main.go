// Command gotest runs go test and counts: it prints what failed, one line per package, every skipped test with its
// reason, once more how each failure began, and as its last line "N passed, N failed, N skipped". Its arguments are
// those of go test. It fails when a test fails, when a package does not build, and when no test was run at all.
//
// With -split=N as its first argument, the tests of the first package are shared out among N processes, which run
// beside each other and beside the other packages: those of one package that mostly wait would else be what everybody
// waits for. Flags of go test that have a value are written with an equals sign then.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sync/errgroup"
)

// event is one line of go test -json; see go doc test2json.
type event struct {
	Action      string
	Package     string
	ImportPath  string
	Test        string
	Elapsed     float64
	Output      string
	FailedBuild string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code, err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
	}
	os.Exit(code)
}

func run(ctx context.Context, args []string, w io.Writer) (int, error) {
	commands := [][]string{args}
	if len(args) > 0 && strings.HasPrefix(args[0], "-split=") {
		n, err := strconv.Atoi(strings.TrimPrefix(args[0], "-split="))
		if err != nil || n < 1 {
			return 2, fmt.Errorf("%s: want a number of processes", args[0])
		}
		if commands, err = split(ctx, n, args[1:]); err != nil {
			return 2, err
		}
	}
	t := newTally(w)
	var group errgroup.Group
	codes := make([]int, len(commands))
	for i, c := range commands {
		group.Go(func() (err error) {
			codes[i], err = goTest(ctx, i, c, t)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return 2, err
	}
	code := slices.Max(codes)
	if failed := t.summarize(); code == 0 && failed {
		code = 1
	}
	return code, nil
}

// goTest runs go test once, and returns its exit code.
func goTest(ctx context.Context, process int, args []string, t *tally) (int, error) {
	cmd := goCommand(ctx, append([]string{"test", "-json"}, args...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 2, err
	}
	if err := cmd.Start(); err != nil {
		return 2, err
	}
	readErr := t.read(process, out)
	waitErr := cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](waitErr); ok {
		return max(1, exit.ExitCode()), readErr
	}
	return 0, errors.Join(waitErr, readErr)
}

func goCommand(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	// Tests that are asked to end clean up; those that are killed cannot.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Stderr = os.Stderr
	return cmd
}

// isTest matches the names of what go test runs.
var isTest = regexp.MustCompile("^(Test|Fuzz|Example)")

// split makes the arguments of n processes for the tests of the first package, and of one for the other packages.
func split(ctx context.Context, n int, args []string) ([][]string, error) {
	var flags, packages, rest []string
	for i, a := range args {
		if a == "-args" {
			rest = args[i:]
			break
		}
		if strings.HasPrefix(a, "-") {
			flags = append(flags, a)
		} else {
			packages = append(packages, a)
		}
	}
	if len(packages) == 0 {
		return nil, errors.New("-split: no package")
	}
	lines := func(args ...string) ([]string, error) {
		out, err := goCommand(ctx, args...).Output()
		if err != nil {
			return nil, fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, out)
		}
		return strings.Fields(string(out)), nil
	}
	first, err := lines("list", packages[0])
	if err != nil {
		return nil, err
	}
	var others []string
	if len(packages) > 1 {
		if others, err = lines(append([]string{"list"}, packages[1:]...)...); err != nil {
			return nil, err
		}
	}
	others = slices.DeleteFunc(others, func(pkg string) bool { return slices.Contains(first, pkg) })
	tests, err := lines("test", "-list="+isTest.String(), packages[0])
	if err != nil {
		return [][]string{args}, nil // it does not build: go test says it best
	}
	tests = slices.DeleteFunc(tests, func(word string) bool { return !isTest.MatchString(word) }) // the rest is about the package
	shares := make([][]string, n)
	for i, name := range tests {
		shares[i%n] = append(shares[i%n], name)
	}
	var out [][]string
	for _, share := range shares {
		if len(share) > 0 {
			out = append(out, slices.Concat(flags, []string{"-run=^(" + strings.Join(share, "|") + ")$", packages[0]}, rest))
		}
	}
	if len(others) > 0 {
		out = append(out, slices.Concat(flags, others, rest))
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("-split: no tests in %s", packages[0])
	}
	return out, nil
}

// test names a test in a package, and the process that ran it.
type test struct {
	process   int
	pkg, name string
}

// tally counts the tests of a run. A test with subtests is not counted itself, unless it failed and none of them did.
type tally struct {
	mu     sync.Mutex
	w      io.Writer
	order  []test
	state  map[test]string
	output map[test][]string
	// packages that failed other than by a test.
	broken []string
}

func newTally(w io.Writer) *tally {
	return &tally{w: w, state: map[test]string{}, output: map[test][]string{}}
}

func (t *tally) read(process int, r io.Reader) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			t.line(process, line)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (t *tally) line(process int, line []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var e event
	if json.Unmarshal(line, &e) == nil {
		t.add(process, e)
	} else {
		fmt.Fprint(t.w, string(line)) // not all that go test writes is JSON
	}
}

func (t *tally) add(process int, e event) {
	key := test{process, e.Package, e.Test}
	switch e.Action {
	case "build-output":
		fmt.Fprint(t.w, e.Output)
	case "run":
		t.order = append(t.order, key)
		t.state[key] = "run"
	case "output":
		t.output[key] = append(t.output[key], e.Output)
	case "pass", "skip":
		if e.Test == "" {
			t.endPackage(process, e)
			return
		}
		t.state[key] = e.Action
		if e.Action == "pass" {
			delete(t.output, key)
		}
	case "fail":
		if e.Test == "" {
			t.endPackage(process, e)
			return
		}
		t.state[key] = "fail"
		fmt.Fprint(t.w, strings.Join(t.output[key], ""))
	}
}

// endPackage prints the line of a package, and whatever it wrote outside of its tests if it failed.
func (t *tally) endPackage(process int, e event) {
	switch e.Action {
	case "skip":
		return // no test files
	case "pass":
		fmt.Fprintf(t.w, "ok    %s  %.1f s\n", e.Package, e.Elapsed)
		return
	}
	failed := false
	for _, key := range t.order {
		if key.process != process || key.pkg != e.Package {
			continue
		}
		if t.state[key] == "run" {
			t.state[key] = "fail"
			fmt.Fprintf(t.w, "--- FAIL: %s did not end\n%s", key.name, strings.Join(t.output[key], ""))
		}
		failed = failed || t.state[key] == "fail"
	}
	fmt.Fprint(t.w, strings.Join(t.output[test{process, e.Package, ""}], ""))
	if !failed || e.FailedBuild != "" {
		t.broken = append(t.broken, e.Package)
	}
	fmt.Fprintf(t.w, "FAIL  %s  %.1f s\n", e.Package, e.Elapsed)
}

// summarize prints the end, and tells whether the run must not be taken for a success.
func (t *tally) summarize() bool {
	parents := map[test]bool{}
	failedBelow := map[test]bool{}
	for _, key := range t.order {
		for name := key.name; ; {
			i := strings.LastIndex(name, "/")
			if i < 0 {
				break
			}
			name = name[:i]
			parents[test{key.process, key.pkg, name}] = true
			if t.state[key] == "fail" {
				failedBelow[test{key.process, key.pkg, name}] = true
			}
		}
	}
	var passed int
	var skipped, failed []test
	for _, key := range t.order {
		switch {
		case t.state[key] == "fail" && !failedBelow[key]:
			failed = append(failed, key)
		case t.state[key] == "skip":
			skipped = append(skipped, key)
		case parents[key]:
		case t.state[key] == "pass":
			passed++
		}
	}
	if len(skipped) > 0 {
		fmt.Fprintln(t.w, "\nskipped:")
		for _, line := range t.reasons(skipped) {
			fmt.Fprintln(t.w, "  "+line)
		}
	}
	if len(failed) > 0 {
		fmt.Fprintln(t.w, "\nfailed:")
		for _, key := range failed {
			fmt.Fprintf(t.w, "  %s %s\n", key.pkg, key.name)
			for _, line := range beginning(t.output[key]) {
				fmt.Fprintln(t.w, "    "+line)
			}
		}
	}
	for _, pkg := range t.broken {
		fmt.Fprintf(t.w, "\n%s could not be tested\n", pkg)
	}
	if passed+len(failed) == 0 {
		fmt.Fprintln(t.w, "\nno test was run")
	}
	fmt.Fprintf(t.w, "\n%d passed, %d failed, %d skipped\n", passed, len(failed)+len(t.broken), len(skipped))
	return len(failed)+len(t.broken) > 0 || passed == 0
}

// reasons says why tests were skipped, in a line for all tests of a package that have the same reason.
func (t *tally) reasons(skipped []test) (lines []string) {
	type cause struct{ pkg, why string }
	var order []cause
	names := map[cause][]string{}
	for _, key := range skipped {
		c := cause{key.pkg, reason(t.output[key])}
		if names[c] == nil {
			order = append(order, c)
		}
		names[c] = append(names[c], key.name)
	}
	for _, c := range order {
		what := names[c][0]
		if n := len(names[c]); n > 1 {
			what = fmt.Sprintf("%d tests", n)
		}
		lines = append(lines, fmt.Sprintf("%s %s: %s", c.pkg, what, c.why))
	}
	return lines
}

// beginning is how the output of a failed test begins: the end of a long log shows it without a search.
func beginning(output []string) (lines []string) {
	const most, widest = 15, 400
	for _, line := range output {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "=== ") || strings.HasPrefix(line, "--- FAIL") {
			continue
		}
		if len(lines) == most {
			break
		}
		if len(line) > widest {
			line = strings.ToValidUTF8(line[:widest], "") + " ..."
		}
		lines = append(lines, line)
	}
	return lines
}

// reason is what a skipped test said last, without the place it said it from.
func reason(output []string) string {
	for _, line := range slices.Backward(output) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "--- SKIP") || strings.HasPrefix(line, "=== ") {
			continue
		}
		if _, text, ok := strings.Cut(line, ".go:"); ok {
			if _, text, ok = strings.Cut(text, ": "); ok {
				return text
			}
		}
		return line
	}
	return "no reason given"
}
