package list

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
	"github.com/netproof/netproof/cmd/netproof/internal/flags"
	"github.com/netproof/netproof/cmd/netproof/internal/output"
	"github.com/netproof/netproof/harness/cluster/providers"
	"github.com/netproof/netproof/harness/expect"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/plain"
	"github.com/netproof/netproof/harness/reviewed"
	"github.com/netproof/netproof/harness/scenario"
	"github.com/netproof/netproof/harness/words"
)

type flagSet struct {
	update   bool
	selector string
	shard    flags.Shard
	ipFamily string
	nodes    int
	format   string
	input    flags.Input
}

// New returns the command.
func New(streams cli.Streams) *cobra.Command {
	f := flagSet{ipFamily: "ipv4", nodes: 2, format: "table"}
	cmd := &cobra.Command{
		Use:   "list [PATH ...]",
		Short: "show what would run: scenarios, features, number of cells",
		Long: `Show the scenarios that 'netproof run' would prove with the same arguments, without running
anything. It reports the same errors as run, without a cluster: files that are wrong, tables that the specification
contradicts, and an expected.txt that is out of date. Policies of other kinds than NetworkPolicy are named: the
specification says nothing about them. The default PATH is the current folder.`,
		Example: `  netproof list fixtures/
  netproof list scenarios/ --select feature=egress --format json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			paths, err := f.input.Check(cmd, args)
			if err != nil {
				return err
			}
			return execute(cmd.Context(), streams, &f, paths)
		},
	}
	fs := cmd.Flags()
	fs.BoolVar(&f.update, "update-expected", false, "write the computed tables (expected.txt) anew, as far as no address of a run is needed")
	fs.StringVar(&f.selector, "select", "", "only scenarios whose labels match, such as feature=ingress,level!=slow")
	fs.Var(&f.shard, "shard", "only one of several equal parts, such as 2/3")
	flags.Choice(cmd, &f.ipFamily, "ip-family", "IP family", providers.IPFamilyNames(), "addresses of pods and services")
	flags.Number(cmd, &f.nodes, "nodes", 1, flags.MaxNodes, "number of nodes that are assumed")
	f.input.AddRendered(cmd)
	f.input.AddAssert(cmd)
	f.input.AddLimits(cmd)
	f.input.AddEveryPair(cmd)
	flags.Choice(cmd, &f.format, "format", "format", []string{"table", "json"}, "form of the output")
	return cmd
}

// entry is one scenario in the list.
type entry struct {
	Name        string            `json:"name"`
	Description string            `json:"description,omitempty"`
	File        string            `json:"file"`
	Labels      map[string]string `json:"labels"`
	Steps       int               `json:"steps"`
	Cells       int               `json:"cells"`
	// Vacuous says why the scenario proves nothing.
	Vacuous []string `json:"vacuous,omitempty"`
	// Violated are the intents of netproof.yaml that the policies violate.
	Violated []string `json:"violated,omitempty"`
	// Unjudged are the policies that the specification of NetworkPolicy says nothing about.
	Unjudged []scenario.Unjudged `json:"unjudged,omitempty"`
}

func execute(ctx context.Context, streams cli.Streams, f *flagSet, args []string) error {
	if _, err := labels.Parse(f.selector); err != nil {
		return cli.Usage("--select %q: %w", f.selector, err)
	}
	prepared, err := cli.Within(ctx, func() (*expect.Prepared, error) { return prepare(ctx, streams.In, f, args) })
	if err != nil {
		return err
	}
	if f.update {
		if err := update(streams, prepared); err != nil {
			return &cli.UsageError{Err: err}
		}
	}
	entries := []entry{}
	for _, p := range prepared.Scenarios() {
		s, plan := p.Scenario(), p.Plan()
		output.Warnings(streams.Err, s.Warnings)
		output.Notes(streams.Err, []*scenario.Scenario{s})
		output.Classes(streams.Err, s)
		e := entry{
			Name: s.Metadata.Name, Description: s.Spec.Description, File: s.File, Labels: s.Metadata.Labels,
			Steps: len(plan.Steps), Vacuous: plan.Vacuous,
		}
		if e.Labels == nil {
			e.Labels = map[string]string{}
		}
		for _, f := range p.Violated(nil) {
			e.Violated = append(e.Violated, f.Message)
		}
		for _, step := range plan.Steps {
			e.Cells += len(step.Cells)
			for _, u := range step.Unjudged {
				if !slices.Contains(e.Unjudged, u) {
					e.Unjudged = append(e.Unjudged, u)
				}
			}
		}
		entries = append(entries, e)
	}
	if f.format == "json" {
		err = writeJSON(streams.Out, entries)
	} else {
		err = writeTable(streams.Out, entries)
	}
	switch {
	case err == nil && len(entries) == 0:
		return cli.Ended(model.ExitVacuous)
	case err == nil && slices.ContainsFunc(entries, func(e entry) bool { return len(e.Violated) > 0 }):
		return cli.Ended(model.ExitMismatch)
	}
	return err
}

// prepare reads, selects and plans.
func prepare(ctx context.Context, in io.Reader, f *flagSet, args []string) (*expect.Prepared, error) {
	scenarios, err := f.input.Load(ctx, in, args)
	if err != nil {
		return nil, err
	}
	selected, err := scenario.Select(scenarios, f.selector)
	if err != nil && !errors.Is(err, scenario.ErrNothing) {
		return nil, err
	}
	prepared, err := expect.Prepare(f.shard.Of(selected), expect.Options{Families: flags.IPFamilies(f.ipFamily), Nodes: f.nodes, Anew: f.update})
	if err == nil && f.update {
		err = reviewed.MayUpdate(prepared)
	}
	if err != nil {
		return nil, &cli.UsageError{Err: err}
	}
	return prepared, nil
}

// update writes the tables anew, and says which need a run.
func update(streams cli.Streams, prepared *expect.Prepared) error {
	var errs []error
	for _, table := range reviewed.Keep(prepared, nil, true) {
		if table.Err != nil {
			errs = append(errs, table.Err)
			continue
		}
		fmt.Fprintf(streams.Err, "wrote %s, the table that the specification expects: review it, and keep it with the scenario\n", table.Path)
	}
	for _, p := range prepared.Scenarios() {
		if steps, complete := p.Computed(nil); len(steps) > 0 && !complete {
			errs = append(errs, fmt.Errorf("the table of %s depends on addresses that only a run has: netproof run --update-expected %s", p.Name(), p.Scenario().File))
		}
	}
	return errors.Join(errs...)
}

func writeJSON(w io.Writer, entries []entry) error {
	cells := 0
	for _, e := range entries {
		cells += e.Cells
	}
	return plain.WriteJSON(w, map[string]any{"scenarios": entries, "cells": cells})
}

func writeTable(w io.Writer, entries []entry) error {
	if len(entries) == 0 {
		_, err := fmt.Fprintln(w, "no scenario is selected")
		return err
	}
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "SCENARIO\tFEATURE\tSTEPS\tCELLS\tFILE")
	steps, cells := 0, 0
	for _, e := range entries {
		feature := e.Labels["feature"]
		if feature == "" {
			feature = "-"
		}
		fmt.Fprintf(out, "%s\t%s\t%d\t%d\t%s\n", e.Name, plain.Text(feature), e.Steps, e.Cells, plain.Text(e.File))
		steps += e.Steps
		cells += e.Cells
	}
	if err := out.Flush(); err != nil {
		return err
	}
	for _, e := range entries {
		for _, violation := range e.Violated {
			fmt.Fprintf(w, "! %s: %s\n", e.Name, plain.Text(violation))
		}
		for _, reason := range e.Vacuous {
			fmt.Fprintf(w, "! %s proves nothing: %s\n", e.Name, plain.Text(reason))
		}
		for _, u := range e.Unjudged {
			if u.Applied {
				fmt.Fprintf(w, "! %s: the specification of NetworkPolicy says nothing about %s: what it may decide is expected as written\n", e.Name, plain.Text(u.String()))
			} else {
				fmt.Fprintf(w, "! %s leaves out %s: netproof does not apply policies of %s\n", e.Name, plain.Text(u.String()), plain.Text(u.Group))
			}
		}
	}
	_, err := fmt.Fprintf(w, "\n%s, %s, %s\n", words.Count(len(entries), "scenario", "scenarios"), words.Count(steps, "step", "steps"), words.Count(cells, "cell", "cells"))
	return err
}
