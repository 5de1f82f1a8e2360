package prooftest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/term"
	"k8s.io/klog/v2"
	"sigs.k8s.io/e2e-framework/pkg/env"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/kind"
	"github.com/netproof/netproof/harness/cluster/local"
	"github.com/netproof/netproof/harness/cluster/local/engine"
	"github.com/netproof/netproof/harness/cluster/local/node"
	"github.com/netproof/netproof/harness/cluster/local/sandbox"
	"github.com/netproof/netproof/harness/cluster/providers"
	"github.com/netproof/netproof/harness/launch"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/plain"
	"github.com/netproof/netproof/harness/report"
	"github.com/netproof/netproof/harness/run"
	"github.com/netproof/netproof/harness/scenario"
	"github.com/netproof/netproof/harness/words"
	"github.com/netproof/netproof/harness/writefile"
	"github.com/netproof/netproof/probes/podagent"
)

// exitFailed is what go test takes for failed tests; exitBroken is for what prevents them from running.
const (
	exitFailed = 1
	exitBroken = 3
)

// inside marks the test binary in its sandbox.
const inside launch.Inside = "NETPROOF_TEST_INSIDE"

// settings are the flags of this package. Each has an environment variable, for CI systems that cannot pass -args.
type settings struct {
	provider, cni, family, engineDir, report, nodes string
	image, agentImage, prefix, transport            string
	cluster, manifest                               string
	allow, namespaces                               string
}

func (s *settings) register(fs *flag.FlagSet, getenv func(string) string) {
	text := func(p *string, name, variable, value, usage string) {
		if v := getenv(variable); v != "" {
			value = v
		}
		fs.StringVar(p, name, value, usage+" ("+variable+")")
	}
	text(&s.provider, "provider", "NETPROOF_PROVIDER", providers.Local, "provider of the cluster: "+strings.Join(providers.Names(), ", "))
	text(&s.cni, "cni", "NETPROOF_CNI", providers.Plugins(providers.Local)[0], "network plugin, by provider: "+providers.Offer())
	text(&s.family, "ip-family", "NETPROOF_IP_FAMILY", "ipv4", "ipv4, ipv6 or dual")
	text(&s.engineDir, "engine-dir", "NETPROOF_ENGINE_DIR", "", "folder of prebuilt engines, with local")
	text(&s.report, "report", "NETPROOF_REPORT", "", "file for the JSON report of all scenarios")
	text(&s.image, "kind-image", kind.ImageEnv, "", "image of the nodes, with kind")
	text(&s.manifest, "cni-manifest", "NETPROOF_CNI_MANIFEST", "", "file or URL of the network plugin's manifest instead of the vendor's, with kind")
	text(&s.cluster, "cluster", "NETPROOF_CLUSTER", "", "name of a kind cluster that netproof cluster create made, instead of one for these tests")
	text(&s.transport, "transport", "NETPROOF_TRANSPORT", "exec", "exec or, with kind, netns: how probes are sent from a pod")
	text(&s.agentImage, "agent-image", "NETPROOF_AGENT_IMAGE", "", "image of the probe pods of an existing cluster")
	text(&s.prefix, "namespace-prefix", "NETPROOF_NAMESPACE_PREFIX", "", "what goes before the names of namespaces, with kind and existing")
	text(&s.allow, "allow", "NETPROOF_ALLOW", "", "what scenarios may do on a cluster that was not made for these tests: default, kube-system, "+
		"cluster-scoped, host-network, node-port, with commas between")
	text(&s.namespaces, "namespaces", "NETPROOF_NAMESPACES", "", "namespaces of an existing cluster that were lent, with commas between")
	text(&s.nodes, "nodes", "NETPROOF_NODES", strconv.Itoa(local.DefaultNodes), "number of nodes")
}

// families translates -ip-family.
func (s *settings) families() ([]model.IPFamily, error) {
	families, ok := providers.IPFamilies(s.family)
	if !ok {
		return nil, fmt.Errorf("-ip-family %q: it is ipv4, ipv6 or dual", s.family)
	}
	return families, nil
}

// nodeCount translates -nodes.
func (s *settings) nodeCount() (int, error) {
	n, err := strconv.Atoi(s.nodes)
	if err != nil || n < 1 || n > node.MaxNodes {
		return 0, fmt.Errorf("-nodes %q: it is a number from 1 to %d", s.nodes, node.MaxNodes)
	}
	return n, nil
}

// reaches translates -allow.
func (s *settings) reaches() ([]scenario.Reach, error) {
	list, err := scenario.ParseReaches(s.allow)
	if err != nil {
		return nil, fmt.Errorf("-allow %s: %w", s.allow, err)
	}
	return list, nil
}

// lent translates -namespaces.
func (s *settings) lent() []string {
	return strings.FieldsFunc(s.namespaces, func(r rune) bool { return r == ',' || r == ' ' })
}

// owners are the flags that do not matter with every provider. An environment variable is there for many runs of a
// machine: where it does not matter it is not looked at.
var owners = map[string][]string{
	"cni": {providers.Local, providers.Kind}, "engine-dir": {providers.Local},
	"kind-image": {providers.Kind}, "cni-manifest": {providers.Kind}, "cluster": {providers.Kind}, "transport": {providers.Kind},
	"agent-image": {providers.Existing}, "namespace-prefix": {providers.Kind, providers.Existing}, "namespaces": {providers.Existing},
}

// check tells what of the flags does not go together; given are the names of those that stand on the command line.
func (s *settings) check(given []string) error {
	if !slices.Contains(providers.Names(), s.provider) {
		return fmt.Errorf("-provider %q: it is %s", s.provider, strings.Join(providers.Names(), ", "))
	}
	for _, name := range given {
		if with := owners[name]; with != nil && !slices.Contains(with, s.provider) {
			return fmt.Errorf("-%s needs -provider %s", name, strings.Join(with, " or "))
		}
	}
	if err := providers.CheckPlugin(s.provider, s.cni); err != nil {
		return fmt.Errorf("-cni %s: %w", s.cni, err)
	}
	if s.transport != "exec" && (s.transport != "netns" || s.provider != "kind") {
		return fmt.Errorf("-transport %q: it is exec or, with -provider kind, netns", s.transport)
	}
	if s.provider != "kind" && (s.cluster != "" || s.manifest != "") {
		return errors.New("-cluster and -cni-manifest go with -provider kind")
	}
	_, err := s.reaches()
	if err == nil {
		_, err = s.families()
	}
	if err == nil {
		_, err = s.nodeCount()
	}
	return err
}

// suite is the one cluster of a test binary, made when the first scenario needs it.
type suite struct {
	settings settings
	// given are the names of the flags that stand on the command line.
	given []string
	env   env.Environment
	ctx   context.Context

	// asked is true once a test wanted scenarios proven, and failed once one of them did.
	asked, failed atomic.Bool

	once    sync.Once
	cluster cluster.Cluster
	lanes   *run.Lanes
	err     error
	// journals keep what was proven until the report is written.
	journals []launch.Journal
	// cleanups undo what was made beside the cluster.
	cleanups []func() error
}

// current is set by Main.
var current *suite

// stderr is where this package speaks for itself. What it quotes comes from files and from API servers.
var stderr = plain.NewWriter(os.Stderr, term.IsTerminal(int(os.Stderr.Fd())))

// Main is the body of a TestMain. It parses the flags, runs the test binary again in a sandbox, and exits with the code
// of the tests, or a code other than 0 when what the tests proved does not hold as a whole.
func Main(m *testing.M) {
	sandbox.Init()
	kind.Init()
	klog.SetLogger(logr.Discard()) // client-go on connections that end; whoever uses them says it too
	if len(os.Args) > 1 && os.Args[1] == "agent" {
		// A static test binary is the program of its own probe pods.
		if err := podagent.Run(context.Background(), os.Args[1:], os.Getenv, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(exitBroken)
		}
		os.Exit(0)
	}
	s := begin()
	if f := flag.Lookup("test.list"); f != nil && f.Value.String() != "" {
		os.Exit(m.Run())
	}
	if s.settings.provider == "local" && !inside.Here() {
		os.Exit(s.outside())
	}
	os.Exit(s.inside(m))
}

// MainOutside is the body of a TestMain of tests that have clusters of their own. It takes the flags of [Main], so that
// one command line fits several packages of tests, and runs the tests where it is, not in a sandbox.
func MainOutside(m *testing.M) {
	sandbox.Init()
	kind.Init()
	klog.SetLogger(logr.Discard())
	begin()
	os.Exit(m.Run())
}

// begin parses the flags, and ends the process when they are wrong.
func begin() *suite {
	s := &suite{}
	s.settings.register(flag.CommandLine, os.Getenv)
	environment, err := env.NewFromFlags()
	if err == nil {
		flag.Visit(func(f *flag.Flag) { s.given = append(s.given, f.Name) })
		err = s.settings.check(s.given)
	}
	if err != nil {
		fmt.Fprintf(stderr, "prooftest: %v\n", err)
		os.Exit(exitBroken)
	}
	s.env = environment
	current = s
	return s
}

// outside prepares what needs the network and the machine, and runs the tests in a sandbox.
func (s *suite) outside() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := launch.Prepare(ctx, launch.Engines{
		CNI: s.settings.cni, Dir: s.settings.engineDir, Progress: engine.NewProgress(stderr, term.IsTerminal(int(os.Stderr.Fd()))),
	})
	stop()
	code := exitBroken
	if err == nil {
		code, _, err = inside.Rerun(context.Background(), nil, time.Time{})
	}
	if err != nil {
		fmt.Fprintf(stderr, "prooftest: %v\n", err)
		return exitBroken
	}
	return code
}

// inside runs the tests.
func (s *suite) inside(m *testing.M) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	// go test ends a binary at its -timeout without any clean-up: be done before, with a report.
	if f := flag.Lookup("test.timeout"); f != nil {
		if limit, err := time.ParseDuration(f.Value.String()); err == nil && limit > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, limit-limit/10)
			defer cancel()
		}
	}
	s.ctx = ctx
	return max(s.prove(m), s.cleanUp())
}

// prove runs the tests, and looks at the run as a whole.
func (s *suite) prove(m *testing.M) int {
	code := m.Run()
	if s.err != nil {
		// A report says why there is nothing in it.
		failed := model.Run{
			APIVersion: model.APIVersion, Kind: model.ReportKind,
			Cluster:  model.Cluster{Provider: s.settings.provider, CNI: model.CNI{Name: s.settings.cni}},
			Findings: []model.Finding{{Kind: model.Infrastructure, Message: s.err.Error(), Result: model.ResultInconclusive}},
		}
		model.Summarize(&failed)
		return max(code, s.write(failed), exitFailed)
	}
	if s.lanes == nil {
		if code == 0 && s.asked.Load() && !s.env.EnvConf().DryRunMode() {
			fmt.Fprintln(stderr, "prooftest: the flags select no scenario: nothing was proven")
			code = model.ExitVacuous
		}
		return code
	}
	s.lanes.Close(s.ctx)
	result := s.lanes.Result()
	if err := s.cluster.Close(context.WithoutCancel(s.ctx)); err != nil {
		fmt.Fprintf(stderr, "prooftest: close cluster: %v\n", err)
		code = max(code, exitFailed)
	}
	for _, f := range result.Findings {
		fmt.Fprintf(stderr, "prooftest: %s: %s\n", f.Kind, f.Message)
	}
	fmt.Fprintf(stderr, "prooftest: %s: %s\n", words.Count(result.Summary.Scenarios, "scenario", "scenarios"), report.Tally(result.Summary))
	code = max(code, s.write(result))
	if code == 0 && len(result.Scenarios) > 0 && model.ExitCode(result) != model.ExitOK {
		// Every test passed, but not the run: something outside of the cells went wrong.
		fmt.Fprintf(stderr, "prooftest: the run as a whole: %s\n", result.Summary.Result)
		code = exitFailed
	}
	return code
}

// write writes the report, if one is wanted, and returns an exit code.
func (s *suite) write(result model.Run) int {
	if s.settings.report == "" {
		return 0
	}
	if err := writefile.Replace(s.settings.report, func(w io.Writer) error { return report.WriteJSON(w, result) }); err != nil {
		fmt.Fprintf(stderr, "prooftest: %v\n", err)
		return exitFailed
	}
	code := 0
	for _, j := range s.journals {
		if err := j.Remove(); err != nil {
			fmt.Fprintf(stderr, "prooftest: end journal: %v\n", err)
			code = exitFailed
		}
	}
	return code
}

// open makes the cluster and the lanes on it, once.
func (s *suite) open() (*run.Lanes, error) {
	s.once.Do(func() {
		reaches, _ := s.settings.reaches() // it was checked in Main
		var disposable bool
		if s.cluster, disposable, s.err = s.launch(); s.err != nil {
			return
		}
		var observers run.Observers
		if s.journals, s.err = launch.OpenJournals(s.reports()); s.err != nil {
			s.err = errors.Join(s.err, s.cluster.Close(context.WithoutCancel(s.ctx)))
			return
		}
		for _, j := range s.journals {
			j.RunStarted(model.Run{Cluster: s.cluster.Info()})
			observers = append(observers, j)
		}
		s.lanes = run.OpenLanes(s.ctx, s.cluster, run.Options{
			Observer: observers, Disposable: disposable, NamespacePrefix: s.settings.prefix,
			Allow: reaches, Namespaces: s.settings.lent(), Lanes: s.parallel(),
		})
	})
	return s.lanes, s.err
}

// reports are the files of -report, none or one.
func (s *suite) reports() []string {
	if s.settings.report == "" {
		return nil
	}
	return []string{s.settings.report}
}

// parallel is how many scenarios are proven side by side: as many as go test lets tests run in parallel, and not more
// than this machine bears with the provider, unless -parallel stands on the command line. With benchmarks it is one:
// they measure what a scenario takes alone.
func (s *suite) parallel() int {
	f, bench := flag.Lookup("test.parallel"), flag.Lookup("test.bench")
	if f == nil || bench != nil && bench.Value.String() != "" {
		return 1
	}
	n, err := strconv.Atoi(f.Value.String())
	if err != nil {
		return 1
	}
	if slices.Contains(s.given, f.Name) {
		return max(1, min(n, providers.MaxLanes))
	}
	return max(1, min(n, providers.Lanes(s.settings.provider)))
}

// failFast tells whether the first failure is to end the tests: by the framework's flag, or by that of go test.
func (s *suite) failFast() bool {
	f := flag.Lookup("test.failfast")
	return s.env.EnvConf().FailFast() || f != nil && f.Value.String() == "true"
}

// errNoMain says that Prove was called without Main.
var errNoMain = errors.New("prooftest: TestMain must call prooftest.Main")
