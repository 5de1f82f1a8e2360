package cmd

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
	"github.com/netproof/netproof/cmd/netproof/internal/cmd/agent"
	"github.com/netproof/netproof/cmd/netproof/internal/cmd/cleanup"
	"github.com/netproof/netproof/cmd/netproof/internal/cmd/cluster"
	"github.com/netproof/netproof/cmd/netproof/internal/cmd/doctor"
	"github.com/netproof/netproof/cmd/netproof/internal/cmd/engines"
	"github.com/netproof/netproof/cmd/netproof/internal/cmd/explain"
	"github.com/netproof/netproof/cmd/netproof/internal/cmd/images"
	"github.com/netproof/netproof/cmd/netproof/internal/cmd/initialize"
	"github.com/netproof/netproof/cmd/netproof/internal/cmd/list"
	"github.com/netproof/netproof/cmd/netproof/internal/cmd/rbac"
	"github.com/netproof/netproof/cmd/netproof/internal/cmd/reach"
	"github.com/netproof/netproof/cmd/netproof/internal/cmd/report"
	"github.com/netproof/netproof/cmd/netproof/internal/cmd/run"
	"github.com/netproof/netproof/cmd/netproof/internal/cmd/version"
	"github.com/netproof/netproof/cmd/netproof/internal/suggest"
	"github.com/netproof/netproof/harness/expect"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/scenario"
)

// Run runs one command line and returns its exit code. It writes every error that a command returns to streams.Err. A
// command whose output could not be written does not end with 0.
func Run(ctx context.Context, streams cli.Streams, args []string) int {
	streams = streams.Remembering().Plain()
	code := runCommand(ctx, streams, args)
	if lost := streams.Lost(); lost != nil {
		fmt.Fprintf(streams.Err, "netproof: %v\n", lost)
		code = cli.Unwritten(code)
	}
	return code
}

// runCommand runs one command line. It says every error but that of a result that could not be written.
func runCommand(ctx context.Context, streams cli.Streams, args []string) int {
	root, started := newRoot(streams)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err != nil && !*started {
		// What cobra itself refuses is a mistake in the command line.
		err = &cli.UsageError{Err: err}
	}
	code := exitCode(ctx, err)
	var ended *cli.EndedError
	if err == nil || errors.As(err, &ended) || streams.IsLost(err) {
		return code
	}
	var problems scenario.Problems
	if errors.As(err, &problems) {
		// Each begins with its file and line, which editors and terminals can follow.
		fmt.Fprintln(streams.Err, err)
		return code
	}
	fmt.Fprintf(streams.Err, "netproof: %v\n", err)
	return code
}

// exitCode turns the error of a command into an exit code. That of a run that took place is chosen by [model.ExitCode].
func exitCode(ctx context.Context, err error) int {
	var ended *cli.EndedError
	var usage *cli.UsageError
	var problems scenario.Problems
	var disagreement *expect.Disagreement
	switch signal := cli.SignalOf(ctx); {
	case err == nil:
		return model.ExitOK
	case errors.As(err, &ended):
		return ended.Code
	case errors.As(err, &usage), errors.As(err, &problems), errors.As(err, &disagreement):
		return model.ExitUsage
	case errors.Is(err, scenario.ErrNothing):
		return model.ExitVacuous
	case signal != 0:
		return model.ExitSignal + int(signal)
	case errors.Is(err, context.DeadlineExceeded):
		return model.ExitTimeout
	default:
		return model.ExitInconclusive
	}
}

// Tree gives all commands, for whoever wants to know what there is. Run runs them.
func Tree(streams cli.Streams) *cobra.Command {
	root, _ := newRoot(streams)
	return root
}

// newRoot gives the command tree, and whether a command was found and its command line understood.
func newRoot(streams cli.Streams) (*cobra.Command, *bool) {
	started := new(bool)
	root := &cobra.Command{
		Use:   "netproof",
		Short: "prove what Kubernetes network policies do",
		Long: `netproof proves what Kubernetes network policies do. It builds a cluster, applies policies,
sends real packets between probe pods, and reports a truth table in which every cell,
allowed or denied, carries evidence. What cannot be proven is inconclusive, never green.`,
		Example: `  netproof run fixtures/quickstart
  netproof run policies/ --format table --format json --output report.json
  netproof explain dev/frontend prod/database 5432 policies/`,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			*started = true
			if forShells(cmd) {
				cmd.Root().SetOut(streams.Raw().Out)
			}
			return checkEmpty(cmd)
		},
		Version:           version.Get().Version,
		DisableAutoGenTag: true,
	}
	root.SetIn(streams.In)
	root.SetOut(streams.Out)
	root.SetErr(streams.Err)
	root.AddCommand(
		run.New(streams),
		list.New(streams),
		explain.New(streams),
		reach.New(streams),
		initialize.New(streams),
		doctor.New(streams),
		engines.New(streams),
		cluster.New(streams),
		report.New(streams),
		version.New(streams),
		agent.New(streams),
		images.New(streams),
		rbac.New(streams),
		cleanup.New(streams),
	)
	root.SetFlagErrorFunc(explainFlagError)
	checkGroups(root)
	return root, started
}

// checkEmpty refuses a flag with an empty value. To the commands it would be one that was not given, such as a digest
// that nothing is compared with, assertions that nothing is held against, or all namespaces: but whoever writes
// --sha256 "$DIGEST" means to have it checked, also where the variable is not set.
func checkEmpty(cmd *cobra.Command) error {
	var errs []error
	cmd.Flags().Visit(func(f *pflag.Flag) {
		values := []string{f.Value.String()}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			values = list.GetSlice()
		} else if f.Value.Type() != "string" {
			return // a value of ours, which looks at what it is given
		}
		if len(values) == 0 || slices.Contains(values, "") {
			errs = append(errs, cli.Usage("--%s has an empty value: give it one, or leave it out", f.Name))
		}
	})
	return errors.Join(errs...)
}

// forShells tells whether a command writes what a shell reads: a script, or words with tabs between them.
func forShells(cmd *cobra.Command) bool {
	return cmd.Name() == cobra.ShellCompRequestCmd || cmd.HasParent() && cmd.Parent().Name() == "completion"
}

// checkGroups makes a command that only groups others refuse what it does not know; cobra would print help, and be
// content.
func checkGroups(cmd *cobra.Command) {
	for _, c := range cmd.Commands() {
		checkGroups(c)
	}
	if !cmd.HasSubCommands() || cmd.Runnable() {
		return
	}
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		var names []string
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() {
				names = append(names, c.Name())
			}
		}
		return cli.Usage("unknown command %q%s: see %s --help", args[0], suggest.DidYouMean(args[0], names), cmd.CommandPath())
	}
}

// explainFlagError adds what may have been meant, and where to look.
func explainFlagError(cmd *cobra.Command, err error) error {
	if errors.Is(err, pflag.ErrHelp) {
		return err
	}
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) {
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, "--"+f.Name) })
		err = fmt.Errorf("%w%s", err, suggest.DidYouMean("--"+unknown.GetSpecifiedName(), names))
	}
	return fmt.Errorf("%w: see %s --help", err, cmd.CommandPath())
}
