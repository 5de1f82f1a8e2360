package explain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
	"github.com/netproof/netproof/cmd/netproof/internal/flags"
	"github.com/netproof/netproof/cmd/netproof/internal/output"
	"github.com/netproof/netproof/cmd/netproof/internal/suggest"
	"github.com/netproof/netproof/harness/expect"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/plain"
	"github.com/netproof/netproof/harness/scenario"
)

// New returns the command.
func New(streams cli.Streams) *cobra.Command {
	var f flags.Question
	cmd := &cobra.Command{
		Use:   "explain FROM TO PORT [PATH ...]",
		Short: "tell why a connection is allowed or denied, rule by rule",
		Long: `Tell what the specification of NetworkPolicy says about a connection in each step of a scenario, and
why: which policies isolate, which rule admits, and which one would have but for what. No
cluster is needed.

The specification says nothing about policies of other kinds, such as AdminNetworkPolicy and those of Calico, Cilium or
Istio. Where one is in force that may decide the connection, it is named, there is no verdict, and the exit code is 3.

FROM and TO are pods or services (namespace/name), nodes (node:0), hosts (host:name), outside addresses (203.0.113.10), or
patterns as in rules ("shop/*", label:app=web): then there is a line for each pair. PORT is a number (80), a number and a
protocol (53/UDP), or the name of a port. PATH is what 'netproof run' takes; the default is the current folder.`,
		Example: `  netproof explain dev/frontend prod/database 5432 fixtures/quickstart
  netproof explain x/a x/b metrics policies/ --step isolated
  netproof explain '*' prod/database 5432 policies/`,
		Args: cobra.MinimumNArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			paths, err := f.Check(cmd, args[3:])
			if err != nil {
				return err
			}
			return execute(cmd.Context(), streams, &f, args, paths)
		},
	}
	f.AddTo(cmd, "only the step of this name")
	return cmd
}

// explained is the answer for one scenario.
type explained struct {
	name    string
	answers []expect.Answer
}

func execute(ctx context.Context, streams cli.Streams, f *flags.Question, args, paths []string) error {
	scenarios, err := cli.Within(ctx, func() ([]*scenario.Scenario, error) { return f.Load(ctx, streams.In, paths) })
	if err != nil {
		return err
	}
	if scenarios, err = choose(scenarios, f.Scenario); err != nil {
		return err
	}
	output.Remarks(streams.Err, scenarios)
	q := expect.Question{
		From: model.Endpoint(args[0]), To: model.Endpoint(args[1]), Port: args[2],
		Families: f.Families(), Nodes: f.Nodes,
	}
	var all []explained
	var unknown error
	for _, s := range scenarios {
		answers, err := cli.Within(ctx, func() ([]expect.Answer, error) { return expect.Explain(s, q) })
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var missing *expect.UnknownEndpointError
		if errors.As(err, &missing) {
			unknown = errors.Join(unknown, fmt.Errorf("%w%s", err, suggest.DidYouMean(string(missing.Endpoint), missing.Known)))
			continue
		}
		if err != nil {
			return &cli.UsageError{Err: err}
		}
		if answers, err = chooseStep(answers, f.Step, s.Metadata.Name); err != nil {
			return err
		}
		all = append(all, explained{s.Metadata.Name, answers})
	}
	// Of several scenarios it is enough that one has both ends.
	if len(all) == 0 {
		return &cli.UsageError{Err: unknown}
	}
	if f.Format == "json" {
		err = writeJSON(streams.Out, all)
	} else {
		err = writeText(streams.Out, all)
	}
	if err == nil && slices.ContainsFunc(all, explained.isOpen) {
		return cli.Ended(model.ExitInconclusive)
	}
	return err
}

// isOpen tells whether there is a step without a verdict because of a policy that cannot be judged.
func (e explained) isOpen() bool {
	return slices.ContainsFunc(e.answers, func(a expect.Answer) bool { return len(a.Unjudged) > 0 })
}

func choose(scenarios []*scenario.Scenario, name string) ([]*scenario.Scenario, error) {
	if name == "" {
		return scenarios, nil
	}
	var names []string
	for _, s := range scenarios {
		if s.Metadata.Name == name {
			return []*scenario.Scenario{s}, nil
		}
		names = append(names, s.Metadata.Name)
	}
	return nil, cli.Usage("no scenario %q%s", name, suggest.DidYouMean(name, names))
}

func chooseStep(answers []expect.Answer, step, scenario string) ([]expect.Answer, error) {
	if step == "" {
		return answers, nil
	}
	var names []string
	for _, a := range answers {
		if a.Step == step {
			return []expect.Answer{a}, nil
		}
		names = append(names, a.Step)
	}
	return nil, cli.Usage("scenario %s has no step %q: there is %q%s", scenario, step, names, suggest.DidYouMean(step, names))
}

func writeText(w io.Writer, all []explained) error {
	for i, e := range all {
		var before []string
		for j, a := range e.answers {
			if i+j > 0 {
				fmt.Fprintln(w)
			}
			fmt.Fprintf(w, "%s / %s\n", e.name, a.Step)
			lines := linesOf(a)
			if slices.Equal(lines, before) {
				fmt.Fprintln(w, "  as in the step before")
				continue
			}
			before = lines
			for _, line := range lines {
				if _, err := fmt.Fprintf(w, "  %s\n", line); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func linesOf(a expect.Answer) []string {
	if a.Missing != "" {
		return []string{a.Missing}
	}
	var lines []string
	for _, d := range a.Decisions {
		if a.Several {
			lines = append(lines, fmt.Sprintf("%s: %s: %s", d.Connection.Text(), d.Verdict, d.Summary()))
			continue
		}
		walk := d.Walk()
		lines = append(lines, walk[0], "  "+d.Summary())
		lines = append(lines, walk[1:]...)
	}
	if len(a.Unjudged) == 0 {
		return lines
	}
	for _, c := range a.Connections {
		lines = append(lines, c.Text()+": no verdict")
	}
	for _, u := range a.Unjudged {
		lines = append(lines, fmt.Sprintf("  %s may decide it, and the specification of NetworkPolicy says nothing about it", u))
	}
	return lines
}

// document is one decision in JSON.
type document struct {
	Scenario string `json:"scenario"`
	Step     string `json:"step"`
	Missing  string `json:"missing,omitempty"`
	From     string `json:"from,omitempty"`
	To       string `json:"to,omitempty"`
	Port     int    `json:"port,omitempty"`
	Protocol string `json:"protocol,omitempty"`
	IPFamily string `json:"ipFamily,omitempty"`
	Via      string `json:"via,omitempty"`
	// Verdict is left out where Unjudged has any.
	Verdict model.Verdict `json:"verdict,omitempty"`
	// Unjudged are the policies of other kinds that may decide the connection.
	Unjudged []scenario.Unjudged `json:"unjudged,omitempty"`
	// NeedsAddresses is true when the verdict can only be told once pods run.
	NeedsAddresses bool     `json:"needsAddresses,omitempty"`
	Explain        string   `json:"explain,omitempty"`
	Walk           []string `json:"walk,omitempty"`
}

func writeJSON(w io.Writer, all []explained) error {
	documents := []document{}
	for _, e := range all {
		for _, a := range e.answers {
			if a.Missing != "" {
				documents = append(documents, document{Scenario: e.name, Step: a.Step, Missing: a.Missing})
			}
			for i, c := range a.Connections {
				doc := document{
					Scenario: e.name, Step: a.Step, From: string(c.From), To: string(c.To), Port: c.Port, Protocol: string(c.Protocol),
					IPFamily: string(c.IPFamily), Via: string(c.Via), Unjudged: a.Unjudged,
				}
				if len(a.Unjudged) == 0 {
					d := a.Decisions[i]
					doc.Verdict, doc.NeedsAddresses, doc.Explain, doc.Walk = d.Verdict, d.NeedsAddresses, d.Summary(), d.Walk()
				}
				documents = append(documents, doc)
			}
		}
	}
	return plain.WriteJSON(w, documents)
}
