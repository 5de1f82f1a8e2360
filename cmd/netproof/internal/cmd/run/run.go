package run

import (
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
	"github.com/netproof/netproof/cmd/netproof/internal/flags"
	"github.com/netproof/netproof/cmd/netproof/internal/output"
	"github.com/netproof/netproof/harness/cluster/local/sandbox"
	"github.com/netproof/netproof/harness/launch"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/scenario"
	"github.com/netproof/netproof/harness/writefile"
)

// Options are what a command line asks for, checked.
type Options struct {
	// Paths of scenarios, of folders of them, or of folders of manifests.
	Paths      []string
	Provider   string
	CNI        string
	Nodes      int
	IPFamilies []model.IPFamily
	EngineDir  string
	// Cluster is the name of a cluster that netproof cluster create made; empty for one of the run's own.
	Cluster string
	// Select chooses scenarios by their labels.
	Select string
	Shard  flags.Shard
	// Timeout bounds the whole run, clean-up not included; 0 means no bound.
	Timeout time.Duration
	// Keep leaves the cluster running after the run, for somebody to look around.
	Keep bool
	// Allow are the ways in which scenarios may reach beyond their own namespaces on a cluster that this run does not
	// make.
	Allow []scenario.Reach
	// UpdateExpected writes the computed tables beside their scenarios anew.
	UpdateExpected bool
	// Strict makes what proves less than it seems to a vacuous run.
	Strict bool
	// RequireExpected asks for that where nobody has reviewed a computed table; Strict does too.
	RequireExpected bool
	// Lanes is how many scenarios run side by side.
	Lanes          flags.Lanes
	Outputs        []output.Output
	Verbose, Quiet bool

	// input says how files are read.
	input *flags.Input

	// deadline is when Timeout is over.
	deadline time.Time
	// oldJournals are those of earlier runs: nothing in them is about this one.
	oldJournals launch.OldJournals
	// flags of the cluster, as given.
	flags flags.Cluster
	// anyFamily and anyNodes say that an existing cluster is taken as it is.
	anyFamily, anyNodes bool
}

// inside marks the process of this command in its sandbox.
const inside launch.Inside = "NETPROOF_RERUN"

// journalled are the JSON reports that go to files: a journal lies beside each while the run goes on.
func journalled(outputs []output.Output) (paths []string) {
	for _, o := range outputs {
		if o.Path != "" && o.Format.Name == "json" && !writefile.IsStream(o.Path) {
			paths = append(paths, o.Path)
		}
	}
	return paths
}

// flagSet are the flags as they were given.
type flagSet struct {
	Options

	cluster  flags.Cluster
	output   output.Flags
	selector string
	allow    string
}

// New returns the command.
func New(streams cli.Streams) *cobra.Command {
	f := &flagSet{Options: Options{Timeout: 30 * time.Minute, input: &flags.Input{}}}
	cmd := &cobra.Command{
		Use:   "run [PATH ...]",
		Short: "prove scenarios, or a folder of plain Kubernetes manifests",
		Long: `Prove scenarios: build a cluster, apply their policies step by step, send real packets between
all probe pods, and report what was found against what was expected.

PATH is a scenario.yaml, a folder that holds some, a folder or file of manifests, or - for standard
input; the default is the current folder. Plain manifests of all paths are one set. -k builds a
kustomization and --chart renders a Helm chart, in the place of a path or beside it. The exit code is 0 only if every selected cell is conclusive and as expected.`,
		Example: `  netproof run fixtures/quickstart
  netproof run scenarios/ --select feature=ingress --shard 1/3
  netproof run policies/ --format table --format json --output report.json
  netproof run -k overlays/prod
  netproof run --chart charts/shop --values prod.yaml`,
		RunE: func(cmd *cobra.Command, args []string) error {
			opts, err := f.options(cmd, args)
			if err != nil {
				return err
			}
			if !cmd.Flags().Changed("strict") {
				opts.Strict = isCI(streams.Getenv("CI"))
			}
			return execute(cmd.Context(), streams, opts)
		},
	}
	f.cluster.Add(cmd, flags.Offer{Providers: []string{flags.Local, flags.Kind, flags.Existing}})
	f.output.Add(cmd)
	f.input.AddRendered(cmd)
	f.input.AddAssert(cmd)
	f.input.AddLimits(cmd)
	f.input.AddEveryPair(cmd)
	fs := cmd.Flags()
	fs.StringVar(&f.selector, "select", "", "run only scenarios whose labels match, such as feature=ingress,level!=slow")
	fs.Var(&f.Shard, "shard", "run only one of several equal parts, such as 2/3; auto/3 in a pod of an Indexed Job")
	fs.Var(&f.Lanes, "lanes", "scenarios that run side by side in one cluster, or auto: what this machine bears, and 1 on an existing cluster")
	fs.DurationVar(&f.Timeout, "timeout", f.Timeout, "end the whole run after this time, such as 10m; 0 for never")
	fs.BoolVar(&f.UpdateExpected, "update-expected", false, "write the computed tables (expected.txt) anew instead of comparing with them")
	fs.BoolVar(&f.Strict, "strict", false, "exit with 5 where green would prove less than it seems; the default where CI is set, --strict=false turns it off")
	fs.BoolVar(&f.RequireExpected, "require-expected", false, "exit with 5 where a computed table has no expected.txt yet; --strict asks for that too")
	fs.BoolVar(&f.Keep, "keep", false, "leave the cluster running after the run (local, kind)")
	fs.StringVar(&f.allow, "allow", "", "what scenarios may do on a cluster that this run does not make, with commas between: "+flags.Reaches())
	fs.StringVar(&f.Options.Cluster, "cluster", "", "run on the cluster that 'netproof cluster create' made under this name, with the same --provider (local, kind)")
	flags.For(cmd, "keep", flags.Local, flags.Kind)
	flags.For(cmd, "cluster", flags.Local, flags.Kind)
	fs.BoolVarP(&f.Verbose, "verbose", "v", false, "show every matrix and every mismatch, and more of the progress")
	fs.BoolVarP(&f.Quiet, "quiet", "q", false, "show no progress")
	return cmd
}

// isCI reads the variable that systems of continuous integration set.
func isCI(value string) bool {
	switch strings.ToLower(value) {
	case "", "0", "false", "no", "off":
		return false
	}
	return true
}

// checkInside finds the outputs that a run in a sandbox could not write to, and would lose.
func checkInside(opts Options) error {
	if opts.Provider != flags.Local || inside.Here() {
		return nil
	}
	for _, o := range opts.Outputs {
		fd, isDescriptor := writefile.Descriptor(o.Path)
		switch {
		case isDescriptor && launch.UsesDescriptor(fd):
			return cli.Usage("--output %s: a run on a local cluster needs this descriptor itself: use 10 or a higher one, or name a file", o.Path)
		case !isDescriptor && o.Path != "" && !writefile.IsStream(o.Path) && sandbox.HasOwn(filepath.Dir(o.Path)):
			return cli.Usage("--output %s: the sandbox of a local cluster has a folder of its own there: name a file in another folder", o.Path)
		}
	}
	return nil
}

// options checks the flags against each other.
func (f *flagSet) options(cmd *cobra.Command, args []string) (Options, error) {
	opts := f.Options
	opts.Provider, opts.CNI, opts.Nodes, opts.EngineDir = f.cluster.Provider, f.cluster.CNI, f.cluster.Nodes, f.cluster.EngineDir
	opts.IPFamilies, opts.flags = f.cluster.IPFamilies(), f.cluster
	if _, err := labels.Parse(f.selector); err != nil {
		return opts, cli.Usage("--select %q: %w", f.selector, err)
	}
	opts.Select = f.selector
	var err error
	opts.input.Lent = len(opts.flags.Namespaces) > 0
	if opts.Paths, err = opts.input.Check(cmd, args); err != nil {
		return opts, err
	}
	if opts.Allow, err = scenario.ParseReaches(f.allow); err != nil {
		return opts, cli.Usage("--allow %s: %w", f.allow, err)
	}
	if len(opts.flags.Namespaces) > 0 && opts.Lanes > 1 {
		return opts, cli.Usage("--lanes %d: each lane makes namespaces of its own, and with --namespaces a run makes none: leave --lanes out", opts.Lanes)
	}
	if opts.Outputs, err = f.output.Outputs(); err != nil {
		return opts, err
	}
	for _, path := range journalled(opts.Outputs) {
		if err := launch.CheckJournal(path); err != nil {
			return opts, cli.Usage("--output %s: the journal of the run lies beside it: %w", path, err)
		}
	}
	if err := checkInside(opts); err != nil {
		return opts, err
	}
	switch {
	case opts.Timeout < 0:
		return opts, cli.Usage("--timeout %s: it must not be negative", opts.Timeout)
	case opts.Verbose && opts.Quiet:
		return opts, cli.Usage("--verbose and --quiet exclude each other")
	}
	if err := f.cluster.Check(cmd); err != nil {
		return opts, &cli.UsageError{Err: err}
	}
	opts.anyFamily, opts.anyNodes = !cmd.Flags().Changed("ip-family"), !cmd.Flags().Changed("nodes")
	if opts.Cluster == "" {
		return opts, nil
	}
	if inside.Here() {
		// The outer process of a run that keeps its cluster has made it as these flags say, and named it.
		opts.Keep = false
		return opts, nil
	}
	if opts.Keep {
		return opts, cli.Usage("--keep does not go with --cluster: cluster %s stays anyway", opts.Cluster)
	}
	if err := f.cluster.CheckAttached(cmd, opts.Cluster); err != nil {
		return opts, &cli.UsageError{Err: err}
	}
	return opts, nil
}
