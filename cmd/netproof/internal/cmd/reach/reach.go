package reach

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
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
	"github.com/netproof/netproof/harness/semantics"
	"github.com/netproof/netproof/harness/words"
)

// New returns the command.
func New(streams cli.Streams) *cobra.Command {
	var f flags.Question
	var from string
	cmd := &cobra.Command{
		Use:   "reach TO [PORT] [PATH ...]",
		Short: "tell who could reach a pod, or whom it reaches, and by which rule",
		Long: `Tell who reaches a pod, by which rule, and who only does not because of the sender's side: a hole
that nobody can use today, and that opens with the next change elsewhere. With --from it is told whom a pod reaches. The
last step of a scenario counts, or that of --step. No cluster is needed.

TO and the value of --from are what 'netproof explain' takes. PORT is a number (80), a number and a protocol (53/UDP), or the
name of a port, unless a file has that name. PATH is what 'netproof run' takes; the default is the current folder.`,
		Example: `  netproof reach prod/database fixtures/quickstart
  netproof reach prod/database 5432 fixtures/quickstart
  netproof reach --from dev/frontend fixtures/quickstart`,
		RunE: func(cmd *cobra.Command, args []string) error {
			q := expect.ReachQuestion{From: model.Endpoint(from), Step: f.Step, Families: f.Families(), Nodes: f.Nodes}
			if from == "" {
				if len(args) == 0 {
					return cli.Usage("name who is to be reached, such as prod/database, or --from POD")
				}
				q.To, args = model.Endpoint(args[0]), args[1:]
				if len(args) > 0 && isPort(args[0]) {
					q.Port, args = args[0], args[1:]
				}
			}
			paths, err := f.Check(cmd, args)
			if err != nil {
				return err
			}
			return execute(cmd.Context(), streams, &f, q, paths)
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "tell whom this pod reaches, instead of who reaches a pod")
	f.AddTo(cmd, "the step that counts, instead of the last")
	return cmd
}

var portForm = regexp.MustCompile(`^([0-9]+|[a-z0-9-]*[a-z][a-z0-9-]*)(/(TCP|UDP|SCTP))?$`)

// isPort tells a port from a path: a number is one, and a name is if there is no such file.
func isPort(text string) bool {
	if !portForm.MatchString(text) {
		return false
	}
	_, err := os.Lstat(text)
	return err != nil
}

type answer struct {
	scenario string
	reached  expect.Reached
}

func execute(ctx context.Context, streams cli.Streams, f *flags.Question, q expect.ReachQuestion, paths []string) error {
	scenarios, err := cli.Within(ctx, func() ([]*scenario.Scenario, error) { return f.Load(ctx, streams.In, paths) })
	if err != nil {
		return err
	}
	output.Remarks(streams.Err, scenarios)
	var all []answer
	var names []string
	var unknown error
	for _, s := range scenarios {
		names = append(names, s.Metadata.Name)
		if f.Scenario != "" && f.Scenario != s.Metadata.Name {
			continue
		}
		reached, err := cli.Within(ctx, func() (expect.Reached, error) { return expect.Reach(s, q) })
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var missing *expect.UnknownEndpointError
		var step *expect.StepError
		switch {
		case errors.As(err, &missing):
			unknown = errors.Join(unknown, fmt.Errorf("%w%s", err, suggest.DidYouMean(string(missing.Endpoint), missing.Known)))
		case errors.As(err, &step):
			unknown = errors.Join(unknown, fmt.Errorf("%w%s", err, suggest.DidYouMean(step.Step, step.Known)))
		case err != nil:
			return &cli.UsageError{Err: err}
		default:
			all = append(all, answer{s.Metadata.Name, reached})
		}
	}
	switch {
	case len(all) > 0:
	case unknown == nil:
		return cli.Usage("no scenario %q%s", f.Scenario, suggest.DidYouMean(f.Scenario, names))
	default: // of several scenarios it is enough that one has the endpoint
		return &cli.UsageError{Err: unknown}
	}
	if f.Format == "json" {
		err = writeJSON(streams.Out, all)
	} else {
		err = writeText(streams.Out, all, q)
	}
	if err == nil && slices.ContainsFunc(all, func(a answer) bool { return len(a.reached.Unjudged) > 0 }) {
		return cli.Ended(model.ExitInconclusive)
	}
	return err
}

// group is how far a connection comes.
type group struct {
	// title is what is said of the connections, with the name of the end that was asked about.
	title string
	in    func(d semantics.Decision) bool
	// why says for each of them which rule makes it so; nil for the many that are of no interest.
	why func(d semantics.Decision) string
}

// groupsTo are those of who reaches somebody, groupsFrom of whom somebody reaches.
var groupsTo = []group{
	{"reach it", allowed, semantics.Decision.Summary},
	{"are kept away by their own side alone: it would let them in", heldBack(model.ByEgress), func(d semantics.Decision) string { return d.Side(model.ByIngress) }},
	{"are undecided", undecided, semantics.Decision.Summary},
	{"are refused by it", refused, nil},
}

var groupsFrom = []group{
	{"are reached", allowed, semantics.Decision.Summary},
	{"are kept from it by their own side alone: it would be let out", heldBack(model.ByIngress), func(d semantics.Decision) string { return d.Side(model.ByEgress) }},
	{"are undecided", undecided, semantics.Decision.Summary},
	{"are out of its reach", refused, nil},
}

func allowed(d semantics.Decision) bool   { return d.Verdict == model.Allow }
func undecided(d semantics.Decision) bool { return d.Verdict == model.Undefined }
func refused(d semantics.Decision) bool   { return d.Verdict == model.Deny }

func heldBack(by model.Side) func(semantics.Decision) bool {
	return func(d semantics.Decision) bool { return d.Verdict == model.Deny && d.By == by }
}

func writeText(w io.Writer, all []answer, q expect.ReachQuestion) error {
	out := &printer{w: w}
	for _, a := range all {
		out.line("%s / %s", a.scenario, a.reached.Step)
		if len(a.reached.Unjudged) > 0 {
			out.line("  no verdict: the specification of NetworkPolicy says nothing about %s", scenario.Names(a.reached.Unjudged))
			continue
		}
		if len(a.reached.Decisions) == 0 {
			out.line("  nobody serves a port that could be asked about")
			continue
		}
		if q.To == "" {
			out.groups(string(q.From), a.reached.Decisions, groupsFrom, func(c model.Connection) string { return string(c.To) + " " + portOf(c) })
			continue
		}
		type key struct {
			to   model.Endpoint
			port string
		}
		var order []key
		of := map[key][]semantics.Decision{}
		for _, d := range a.reached.Decisions {
			k := key{d.Connection.To, portOf(d.Connection)}
			if of[k] == nil {
				order = append(order, k)
			}
			of[k] = append(of[k], d)
		}
		for _, k := range order {
			out.groups(string(k.to)+" "+k.port, of[k], groupsTo, func(c model.Connection) string { return string(c.From) })
		}
	}
	return out.err
}

// portOf names the port of a connection, with its family and its way where they are not plain.
func portOf(c model.Connection) string {
	text := fmt.Sprintf("%d/%s", c.Port, c.Protocol)
	if c.IPFamily != model.IPv4 {
		text += " " + string(c.IPFamily)
	}
	if c.Via != model.ViaPodIP {
		text += " by " + string(c.Via)
	}
	return text
}

// printer writes lines until one fails.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintln(p.w, plain.Text(fmt.Sprintf(format, args...)))
	}
}

// groups writes the connections by how far they come.
func (p *printer) groups(title string, all []semantics.Decision, groups []group, name func(model.Connection) string) {
	p.line("  %s", title)
	done := make([]bool, len(all))
	for _, g := range groups {
		var names []string
		var reasons []string
		for i, d := range all {
			if done[i] || !g.in(d) {
				continue
			}
			done[i] = true
			names = append(names, name(d.Connection))
			if g.why != nil {
				reasons = append(reasons, g.why(d))
			}
		}
		if len(names) == 0 {
			continue
		}
		p.line("    %d %s", len(names), g.title)
		if g.why == nil {
			p.line("      %s", words.And(names))
			continue
		}
		for i, n := range names {
			p.line("      %s: %s", n, reasons[i])
		}
	}
}

// document is one connection in JSON.
type document struct {
	Scenario string         `json:"scenario"`
	Step     string         `json:"step"`
	From     model.Endpoint `json:"from,omitempty"`
	To       model.Endpoint `json:"to,omitempty"`
	Port     int            `json:"port,omitempty"`
	Protocol model.Protocol `json:"protocol,omitempty"`
	IPFamily model.IPFamily `json:"ipFamily,omitempty"`
	Via      model.Via      `json:"via,omitempty"`
	Verdict  model.Verdict  `json:"verdict,omitempty"`
	// Egress and Ingress are the verdicts of the source's and of the destination's side.
	Egress  model.Verdict `json:"egress,omitempty"`
	Ingress model.Verdict `json:"ingress,omitempty"`
	Explain string        `json:"explain,omitempty"`
	// Unjudged are the policies of other kinds that may decide: there is no verdict then.
	Unjudged []scenario.Unjudged `json:"unjudged,omitempty"`
}

func writeJSON(w io.Writer, all []answer) error {
	documents := []document{}
	for _, a := range all {
		if len(a.reached.Unjudged) > 0 {
			documents = append(documents, document{Scenario: a.scenario, Step: a.reached.Step, Unjudged: a.reached.Unjudged})
		}
		for _, d := range a.reached.Decisions {
			c := d.Connection
			documents = append(documents, document{
				Scenario: a.scenario, Step: a.reached.Step, From: c.From, To: c.To, Port: c.Port, Protocol: c.Protocol, IPFamily: c.IPFamily, Via: c.Via,
				Verdict: d.Verdict, Egress: d.Egress.Verdict, Ingress: d.Ingress.Verdict, Explain: d.Summary(),
			})
		}
	}
	return plain.WriteJSON(w, documents)
}
