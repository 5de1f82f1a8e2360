package prooftest

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"sigs.k8s.io/e2e-framework/pkg/envconf"
	"sigs.k8s.io/e2e-framework/pkg/features"
	"sigs.k8s.io/e2e-framework/pkg/types"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/expect"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/plain"
	"github.com/netproof/netproof/harness/report"
	"github.com/netproof/netproof/harness/run"
	"github.com/netproof/netproof/harness/scenario"
	"github.com/netproof/netproof/harness/words"
)

// Prove proves the scenarios under the paths, each as a subtest with a subtest for each of its steps. The subtests of
// scenarios are parallel, as many at a time as go test's -parallel says; see [run.Lanes]. What is wrong with the files
// fails the test before anything runs.
func Prove(t *testing.T, paths ...string) {
	t.Helper()
	if current == nil {
		t.Fatal(errNoMain)
	}
	scenarios, err := scenario.Load(t.Context(), paths, scenario.Options{Lent: len(current.settings.lent()) > 0})
	if err != nil {
		t.Fatalf("load scenarios: %v", err)
	}
	families, err := current.settings.families()
	if err != nil {
		t.Fatal(err)
	}
	nodes, err := current.settings.nodeCount()
	if err != nil {
		t.Fatal(err)
	}
	prepared, err := expect.Prepare(scenarios, expect.Options{Families: families, Nodes: nodes})
	if err != nil {
		t.Fatalf("prepare scenarios: %v", err)
	}
	current.asked.Store(true)
	list := make([]types.Feature, 0, len(scenarios))
	for _, p := range prepared.Scenarios() {
		list = append(list, feature(p))
	}
	current.env.Test(t, list...)
}

// resultKey finds the scenario's result in the context of its assessments.
type resultKey struct{}

// feature makes a feature of a scenario: it is proven in the set-up, and each assessment looks at one step of the
// result.
func feature(p *expect.Scenario) types.Feature {
	s := p.Scenario()
	b := features.New(s.Metadata.Name)
	for k, v := range s.Metadata.Labels {
		b = b.WithLabel(k, v)
	}
	b = b.WithSetup("prove", func(ctx context.Context, t *testing.T, _ *envconf.Config) context.Context {
		if current.parallel() > 1 {
			t.Parallel() // the framework's own way starts subtests that know nothing of -parallel
		}
		// Whoever ends the tests at the first failure looks at the subtests in turn, and those wait for each other.
		if current.failFast() && current.failed.Load() {
			t.Skip("a scenario before this one failed, and -fail-fast ends the tests")
		}
		t.Cleanup(func() {
			if t.Failed() {
				current.failed.Store(true)
			}
		})
		lanes, err := current.open()
		if err != nil {
			t.Fatalf("make cluster: %v", err)
		}
		result, err := lanes.Prove(current.ctx, p)
		if err != nil {
			t.Fatal(err)
		}
		return context.WithValue(ctx, resultKey{}, result)
	})
	for i, step := range s.Spec.Steps {
		b = b.Assess(plain.Text(step.Name), func(ctx context.Context, t *testing.T, _ *envconf.Config) context.Context {
			result, _ := ctx.Value(resultKey{}).(model.Scenario)
			if i >= len(result.Steps) {
				t.Fatalf("the step was not reached: %s", findings(result))
			}
			assess(t, result.Steps[i])
			return ctx
		})
	}
	return b.Assess("controls and clean-up", func(ctx context.Context, t *testing.T, _ *envconf.Config) context.Context {
		result, _ := ctx.Value(resultKey{}).(model.Scenario)
		if text := findings(result); text != "" {
			t.Error(text)
		}
		return ctx
	}).Feature()
}

func findings(s model.Scenario) string {
	lines := make([]string, len(s.Findings))
	for i, f := range s.Findings {
		lines[i] = plain.Text(fmt.Sprintf("%s: %s", f.Kind, f.Message))
	}
	return strings.Join(lines, "\n")
}

// assess fails the test for every cell of a step that is not as it should be. A step in which no cell could be carried
// is skipped.
func assess(t *testing.T, step model.Step) {
	t.Helper()
	unsupported, reason := 0, ""
	for _, c := range step.Cells {
		switch c.Result {
		case model.Passed, model.Recorded:
		case model.ResultUnsupported:
			unsupported++
			reason = plain.Text(c.Reason)
		default:
			t.Error(describe(c))
		}
	}
	if unsupported > 0 {
		t.Logf("%d of %s unsupported: %s", unsupported, words.Count(len(step.Cells), "cell", "cells"), reason)
	}
	if len(step.Cells) > 0 && unsupported == len(step.Cells) {
		t.Skipf("unsupported: %s", reason)
	}
	if !t.Failed() {
		text := words.Count(len(step.Cells), "cell", "cells")
		if timing := report.Timing(step); timing != "" {
			text += ", " + timing
		}
		t.Log(text)
	}
}

// describe tells what is wrong with a cell, with the evidence and the reasons for what was expected.
func describe(c model.Cell) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s: expected %s, observed %s", plain.Text(c.Connection().String()), c.Result, c.Expected, c.Observed)
	if reason := report.Reason(c); reason != "" {
		fmt.Fprintf(&b, "\n  %s", plain.Text(reason))
	}
	if e := c.Evidence; e != nil {
		fmt.Fprintf(&b, "\n  last outcome %s, %s in agreement, the server saw %d", strings.TrimSpace(plain.Text(e.Outcome+" "+e.Errno)), words.Count(c.Samples, "sample", "samples"), e.Seen)
	}
	for _, line := range c.Walk {
		fmt.Fprintf(&b, "\n  %s", plain.Text(line))
	}
	for _, p := range c.Policies {
		b.WriteString("\n  " + plain.Text(fmt.Sprintf("%s (%s) owner %q, purpose %q, review by %q", p.Policy, p.Source, p.Owner, p.Purpose, p.Review)))
	}
	return b.String()
}

// SkipIfSelected skips a test that proves no scenario when the flags select scenarios, by their labels or names.
func SkipIfSelected(tb testing.TB) {
	tb.Helper()
	if current == nil {
		tb.Fatal(errNoMain)
	}
	if cfg := current.env.EnvConf(); len(cfg.Labels()) > 0 || cfg.FeatureRegex() != nil {
		tb.Skip("the flags select scenarios, and this test proves none of them")
	}
}

// Open gives the test binary's cluster and the lanes on it, and makes them if nobody has yet. It is for tests and
// benchmarks that do more than prove scenarios.
func Open(tb testing.TB) (cluster.Cluster, *run.Lanes) {
	tb.Helper()
	if current == nil {
		tb.Fatal(errNoMain)
	}
	lanes, err := current.open()
	if err != nil {
		tb.Fatalf("make cluster: %v", err)
	}
	return current.cluster, lanes
}
