package run

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
	"github.com/netproof/netproof/cmd/netproof/internal/cmd/version"
	"github.com/netproof/netproof/cmd/netproof/internal/flags"
	"github.com/netproof/netproof/cmd/netproof/internal/output"
	"github.com/netproof/netproof/cmd/netproof/internal/progress"
	"github.com/netproof/netproof/cmd/netproof/internal/provider"
	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/local/named"
	"github.com/netproof/netproof/harness/expect"
	"github.com/netproof/netproof/harness/launch"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/report"
	"github.com/netproof/netproof/harness/reviewed"
	prove "github.com/netproof/netproof/harness/run"
	"github.com/netproof/netproof/harness/scenario"
	"github.com/netproof/netproof/harness/writefile"
)

// errTimedOut is the cause of a run that took longer than --timeout.
var errTimedOut = errors.New("the overall time-out ended the run")

// execute runs what was asked for. Outside of a sandbox it finds what is wrong with the input, prepares the machine,
// and runs the same command line again inside; the reports are written where the run ended.
func execute(ctx context.Context, streams cli.Streams, opts Options) error {
	err := attempt(ctx, streams, opts)
	inside.Done()
	return err
}

func attempt(ctx context.Context, streams cli.Streams, opts Options) error {
	if opts.Timeout > 0 && !inside.Here() {
		// Inside, the clock goes on: what is left is handed over in the environment.
		opts.deadline = time.Now().Add(opts.Timeout)
	}
	ctx, cancel, err := withDeadline(ctx, &opts)
	if err != nil {
		return err
	}
	defer cancel()
	if opts.Provider != flags.Local {
		return runOutside(ctx, streams, opts)
	}

	attached, err := whereToRun(ctx, &opts)
	if err != nil {
		return err
	}
	if attached != nil {
		defer func() { _ = attached.Close(context.WithoutCancel(ctx)) }() // it only lets go
	}
	prepared, warnings, err := load(ctx, streams.In, opts)
	if err == nil && opts.Cluster != "" {
		err = beyond(opts, prepared)
	}
	if err != nil {
		return refused(ctx, streams, opts, err)
	}
	if !inside.Here() {
		warn(streams, opts, prepared, warnings)
		opts.oldJournals = launch.FindJournals(journalled(opts.Outputs))
		code, done, err := rerun(ctx, streams, opts)
		if err == nil && !done {
			err = fmt.Errorf("the process in the sandbox ended with code %d before it could report", code)
		}
		if err != nil {
			return failed(ctx, streams, opts, err)
		}
		return cli.Ended(code)
	}
	return runInside(ctx, streams, opts, attached, prepared)
}

// beyond refuses what reaches beyond the scenarios' own namespaces, before anything is asked of a cluster that this run
// does not make.
func beyond(opts Options, prepared *expect.Prepared) error {
	if problems := prepared.Beyond(opts.Allow); len(problems) > 0 {
		return problems
	}
	return nil
}

// refused ends a run whose input is wrong, or selects nothing.
func refused(ctx context.Context, streams cli.Streams, opts Options, err error) error {
	if ctx.Err() != nil {
		return failed(ctx, streams, opts, err)
	}
	if !errors.Is(err, scenario.ErrNothing) {
		return &cli.UsageError{Err: err}
	}
	run := emptyRun(opts)
	run.Complete = true
	run.Findings = append(run.Findings, model.Finding{Kind: model.NothingProven, Message: err.Error(), Result: model.Vacuous})
	return finish(ctx, streams, opts, run)
}

// warn says what is odd about the scenarios, and, unless nothing is to be heard, what was passed over.
func warn(streams cli.Streams, opts Options, prepared *expect.Prepared, warnings scenario.Problems) {
	output.Warnings(streams.Err, warnings)
	if opts.Quiet {
		return
	}
	for _, p := range prepared.Scenarios() {
		output.Notes(streams.Err, []*scenario.Scenario{p.Scenario()})
		output.Classes(streams.Err, p.Scenario())
	}
}

// whereToRun learns what a named cluster is. Inside its sandbox it also gives the cluster.
func whereToRun(ctx context.Context, opts *Options) (cluster.Cluster, error) {
	if opts.Cluster == "" || named.Serving() {
		return nil, nil
	}
	if inside.Here() {
		c, err := launch.Attach(ctx, opts.Cluster)
		if err != nil {
			return nil, err
		}
		opts.take(c.Info())
		return c, nil
	}
	info, err := named.Find(ctx, opts.Cluster)
	if errors.Is(err, named.ErrNotFound) {
		return nil, cli.Usage("cluster %s: %w: to see the clusters: netproof cluster list; to make this one: netproof cluster create %s", opts.Cluster, err, opts.Cluster)
	}
	if err != nil {
		return nil, err
	}
	detail, err := launch.DetailOf(info)
	if err != nil {
		return nil, err
	}
	opts.take(detail.Cluster)
	return nil, nil
}

// take makes the options say what the cluster is.
func (o *Options) take(c model.Cluster) {
	o.CNI, o.Nodes, o.IPFamilies = c.CNI.Name, c.Nodes, c.IPFamilies
}

// rerun runs the command line again: in a sandbox of its own, on a named cluster, or on one that is made to stay.
func rerun(ctx context.Context, streams cli.Streams, opts Options) (code int, done bool, err error) {
	stdin, err := opts.input.Again()
	if err != nil {
		return 0, false, err
	}
	if stdin != nil {
		defer stdin.Close()
	}
	if opts.Cluster != "" {
		return inside.RerunIn(ctx, opts.Cluster, nil, stdin, opts.deadline)
	}
	if !opts.Keep {
		if err := launch.Prepare(ctx, launch.Engines{
			CNI: opts.CNI, Dir: opts.EngineDir, Progress: progress.Engines(streams, opts.Quiet),
		}); err != nil {
			return 0, false, fmt.Errorf("prepare this machine: %w", err)
		}
		return inside.Rerun(ctx, stdin, opts.deadline)
	}
	name := "kept-" + strconv.Itoa(os.Getpid())
	if _, err := provider.Named(streams, opts.flags, name, opts.Quiet).Create(ctx); err != nil {
		return 0, false, err
	}
	code, done, err = inside.RerunIn(ctx, name, append(slices.Clone(os.Args), "--cluster", name, "--allow", flags.Reaches()), stdin, opts.deadline)
	fmt.Fprintf(streams.Err, "cluster %s keeps running: netproof cluster shell %s looks into it, netproof cluster delete %s ends it\n", name, name, name)
	return code, done, err
}

// newProgress shows on the error stream what goes on.
func newProgress(streams cli.Streams, opts Options) *progress.Progress {
	return progress.New(streams.Err, progress.Options{
		Terminal: streams.ErrTerminal.Is, Columns: streams.ErrTerminal.Columns, Verbose: opts.Verbose, Quiet: opts.Quiet,
		ASCII: report.DetectTable(streams.Getenv, streams.ErrTerminal.Is, streams.ErrTerminal.Columns).ASCII,
	})
}

// runInside runs on the cluster that is there, or makes one.
func runInside(ctx context.Context, streams cli.Streams, opts Options, c cluster.Cluster, prepared *expect.Prepared) error {
	show := newProgress(streams, opts)
	defer show.Close()
	disposable := c == nil
	if disposable {
		var err error
		c, disposable, err = launch.Cluster(ctx, launch.Wanted{
			Provider: flags.Local, EngineDir: opts.EngineDir,
			Cluster: cluster.Options{CNI: opts.CNI, Nodes: opts.Nodes, IPFamilies: opts.IPFamilies, Progress: show.Note},
		})
		if err != nil {
			show.Close()
			return failed(ctx, streams, opts, err)
		}
	}
	return runOn(ctx, streams, opts, show, c, disposable, prepared)
}

// runOn runs on a cluster, and closes it.
func runOn(ctx context.Context, streams cli.Streams, opts Options, show *progress.Progress, c cluster.Cluster, disposable bool, prepared *expect.Prepared) error {
	journals, err := launch.OpenJournals(journalled(opts.Outputs))
	if err != nil {
		show.Close()
		return failed(ctx, streams, opts, errors.Join(err, c.Close(context.WithoutCancel(ctx))))
	}
	observers := prove.Observers{show}
	for _, j := range journals {
		observers = append(observers, j)
	}
	allow := opts.Allow
	if opts.Provider != flags.Existing && opts.Cluster == "" {
		allow = scenario.Reaches() // the run made it, also where it stays
	}
	run, tables, err := prove.Run(ctx, c, prepared, prove.Options{
		Observer: observers, Disposable: disposable, Tool: version.Get().Tool(), NamespacePrefix: opts.flags.NamespacePrefix,
		Allow: allow, Namespaces: opts.flags.Namespaces, Lanes: opts.Lanes.Count(opts.Provider),
	})
	closeErr := c.Close(context.WithoutCancel(ctx))
	show.Close()
	if err != nil {
		for _, j := range journals {
			err = errors.Join(err, j.Remove())
		}
		if len(run.Scenarios) == 0 {
			return &cli.UsageError{Err: err}
		}
		// Found with live addresses, after other scenarios were judged: what they showed stays, and a mismatch outranks
		// this.
		fmt.Fprintf(streams.Err, "netproof: %v\n", err)
		run.Findings = append(run.Findings, model.Finding{Kind: model.Input, Message: err.Error(), Result: model.ResultInconclusive})
		run.Complete = false
		var ended *cli.EndedError
		if err := finish(ctx, streams, opts, run); errors.As(err, &ended) && ended.Code == model.ExitMismatch {
			return err
		}
		return cli.Ended(model.ExitUsage)
	}
	run.Findings = append(run.Findings, keepExpected(streams, opts, prepared, tables)...)
	if closeErr != nil {
		run.Findings = append(run.Findings, model.Finding{
			Kind: model.Cleanup, Message: "close the cluster: " + closeErr.Error(), Result: model.ResultInconclusive,
		})
	}
	err = finish(ctx, streams, opts, run)
	for _, j := range journals {
		if removeErr := j.Remove(); removeErr != nil {
			fmt.Fprintf(streams.Err, "netproof: end journal: %v\n", removeErr)
		}
	}
	return err
}

// keepExpected keeps the tables that the run has computed, says so, and returns what follows for the run.
func keepExpected(streams cli.Streams, opts Options, prepared *expect.Prepared, tables prove.Tables) (findings []model.Finding) {
	for _, table := range reviewed.Keep(prepared, tables, opts.UpdateExpected) {
		if table.Err != nil && (opts.Strict || opts.RequireExpected || !reviewed.IsHomeless(table.Err)) {
			fmt.Fprintf(streams.Err, "warning: the computed table could not be kept: %v\n", table.Err)
			if opts.UpdateExpected {
				findings = append(findings, model.Finding{
					Kind: model.Infrastructure, Message: "keep the computed tables: " + table.Err.Error(), Result: model.ResultInconclusive,
				})
			}
		} else if table.Err == nil {
			fmt.Fprintf(streams.Err, "wrote %s, the table that the specification expects: review it, and keep it with the scenario\n", table.Path)
		}
		why := "--strict"
		if !opts.Strict {
			why = "--require-expected"
		}
		if opts.Strict || opts.RequireExpected {
			findings = append(findings, model.Finding{
				Kind: model.NothingProven, Message: "nobody has reviewed " + table.Path + ", which this run computed (" + why + ")", Result: model.Vacuous,
			})
		}
	}
	return findings
}

// loaded are scenarios that are ready to run, and what is odd about them.
type loaded struct {
	prepared *expect.Prepared
	warnings scenario.Problems
}

// load reads, selects and prepares the scenarios. It ends with ctx, whatever it reads.
func load(ctx context.Context, in io.Reader, opts Options) (*expect.Prepared, scenario.Problems, error) {
	out, err := cli.Within(ctx, func() (loaded, error) {
		all, err := opts.input.Load(ctx, in, opts.Paths)
		if err != nil {
			return loaded{}, err
		}
		selected, err := scenario.Select(all, opts.Select)
		if err != nil {
			return loaded{}, err
		}
		if selected = opts.Shard.Of(selected); len(selected) == 0 {
			return loaded{}, fmt.Errorf("shard %s of so few scenarios is empty: %w", &opts.Shard, scenario.ErrNothing)
		}
		var out loaded
		for _, s := range selected {
			out.warnings = append(out.warnings, s.Warnings...)
		}
		out.prepared, err = expect.Prepare(selected, expect.Options{
			Families: opts.IPFamilies, Nodes: opts.Nodes, Anew: opts.UpdateExpected, Strict: opts.Strict,
		})
		if err == nil && opts.UpdateExpected {
			err = reviewed.MayUpdate(out.prepared)
		}
		return out, err
	})
	return out.prepared, out.warnings, err
}

func emptyRun(opts Options) model.Run {
	return model.Run{
		APIVersion: model.APIVersion, Kind: model.ReportKind, Tool: model.Tool{Version: version.Get().Version},
		Cluster:   model.Cluster{Provider: opts.Provider, CNI: model.CNI{Name: opts.CNI}, Nodes: opts.Nodes, IPFamilies: opts.IPFamilies},
		Scenarios: []model.Scenario{},
	}
}

// failed reports a run that did not get as far as the first scenario, or whose inner process is gone; what that one
// left in its journal is part of the report.
func failed(ctx context.Context, streams cli.Streams, opts Options, err error) error {
	run, journals := emptyRun(opts), []*writefile.File(nil)
	if opts.oldJournals != nil {
		if rest, found := opts.oldJournals.Read(journalled(opts.Outputs)); len(found) > 0 {
			run, journals = rest, found
		}
	}
	run.Complete = false
	if ctx.Err() == nil {
		run.Findings = append(run.Findings, model.Finding{Kind: model.Infrastructure, Message: err.Error(), Result: model.ResultInconclusive})
	}
	err = finish(ctx, streams, opts, run)
	for _, j := range journals {
		_ = j.Remove() // it is all in the report
	}
	return err
}

// finish completes a run with why it ended, writes the reports, and chooses the exit code.
func finish(ctx context.Context, streams cli.Streams, opts Options, run model.Run) error {
	run.Summary.Signal = int(cli.SignalOf(ctx))
	run.Summary.TimedOut = errors.Is(context.Cause(ctx), errTimedOut)
	model.Summarize(&run)
	code := model.ExitCode(run)
	err := output.Write(streams, run, opts.Outputs, opts.Verbose)
	if err == nil && streams.Lost() == nil {
		if code != model.ExitOK && !showsTable(opts.Outputs) {
			for _, f := range run.Findings {
				fmt.Fprintf(streams.Err, "netproof: %s: %s\n", f.Kind, f.Message)
			}
			fmt.Fprintf(streams.Err, "netproof: %s: %s\n", run.Summary.Result, report.Tally(run.Summary))
		}
		return cli.Ended(code)
	}
	// What was found is said all the same, where somebody may still see it.
	output.Rescue(streams, run, opts.Outputs, opts.Verbose)
	if err != nil {
		fmt.Fprintf(streams.Err, "netproof: %v\n", err)
	}
	return cli.Ended(cli.Unwritten(code))
}

// showsTable tells whether a person sees the findings anyway.
func showsTable(outputs []output.Output) bool {
	return slices.ContainsFunc(outputs, func(o output.Output) bool { return o.Path == "" && o.Format.Name == "table" })
}

// withDeadline ends ctx at the run's deadline.
func withDeadline(ctx context.Context, opts *Options) (context.Context, context.CancelFunc, error) {
	if opts.deadline.IsZero() {
		d, err := inside.Deadline()
		if err != nil {
			return nil, nil, err
		}
		opts.deadline = d
	}
	if opts.deadline.IsZero() {
		ctx, cancel := context.WithCancel(ctx)
		return ctx, cancel, nil
	}
	ctx, cancel := context.WithDeadlineCause(ctx, opts.deadline, errTimedOut)
	return ctx, cancel, nil
}
