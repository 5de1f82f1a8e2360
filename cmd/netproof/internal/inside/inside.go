package inside

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/local"
	"github.com/netproof/netproof/harness/cluster/local/engine"
	"github.com/netproof/netproof/harness/cluster/local/hosttools"
	"github.com/netproof/netproof/harness/cluster/local/sandbox"
)

// Prepare checks that this machine can run a local cluster and builds the engines that are missing, with progress on the
// error stream unless quiet. What it needs of the network it needs here: inside there is none.
func Prepare(ctx context.Context, streams cli.Streams, cni, engineDir string, quiet bool) error {
	if err := hosttools.Check(cni); err != nil {
		return err
	}
	for _, o := range sandbox.ReadFacts().Obstacles() {
		if o.Certain {
			return fmt.Errorf("%w: %s: %s", sandbox.ErrUnavailable, o.Cause, o.Mend)
		}
	}
	opts := engine.Options{CNI: cni, EngineDir: engineDir}
	if !quiet {
		opts.Progress = engine.NewProgress(streams.Err, streams.ErrTerminal.Is)
	}
	engines, err := engine.Ensure(ctx, opts)
	if err != nil {
		return err
	}
	return engines.Close()
}

// prepared gives the engines inside, which [Prepare] has verified outside.
func prepared(ctx context.Context, cni, engineDir string) (*engine.Engines, error) {
	return engine.Ensure(ctx, engine.Options{CNI: cni, EngineDir: engineDir, Verified: true})
}

// deadlineEnv hands the run's deadline, in milliseconds since 1970, from the outer process to the inner one.
const deadlineEnv = "NETPROOF_DEADLINE"

// Rerun runs this command line again in a sandbox and returns its exit code. A deadline that is not zero is what [Deadline]
// gives inside. done is false when the inner process ended without having called [Done]: then nobody has reported yet.
func Rerun(ctx context.Context, deadline time.Time) (code int, done bool, err error) {
	// The inner process ends itself at the deadline, and reports; the outer one only passes signals on.
	return rerun(func(c sandbox.Command) (int, error) { return sandbox.Run(context.WithoutCancel(ctx), c) }, sandbox.Command{Env: environ(deadline)})
}

// rerun gives the inner process one end of a pipe, for it to say that it is done.
func rerun(run func(sandbox.Command) (int, error), c sandbox.Command) (code int, done bool, err error) {
	ours, theirs, err := os.Pipe()
	if err != nil {
		return 0, false, fmt.Errorf("make a pipe: %w", err)
	}
	defer ours.Close()
	c.ExtraFiles, c.Grace = []*os.File{theirs}, grace
	code, err = run(c)
	if closeErr := theirs.Close(); err == nil && closeErr != nil {
		err = closeErr
	}
	if err != nil {
		return code, false, err
	}
	// Whoever else may hold the other end is gone with the sandbox, or on a named cluster with the process that was brought in.
	if err := ours.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		return code, false, fmt.Errorf("wait for the inner process: %w", err)
	}
	n, _ := ours.Read(make([]byte, 1))
	return code, n == 1, nil
}

// doneFD is where the inner process finds its end of the pipe.
const doneFD = 3

// UsesDescriptor tells whether the inner process, or the way to it, has something else at a descriptor than this process: the pipe, and in
// a named cluster what [sandbox.Enter] hands over, its control socket, program and namespaces.
func UsesDescriptor(fd int) bool { return fd >= doneFD && fd < doneFD+7 }

// Done tells the outer process that everything there is to say has been said. It has no effect elsewhere.
func Done() {
	if Here() {
		_, _ = os.NewFile(doneFD, "done").WriteString("1") // when the outer process is gone there is nobody to tell
	}
}

// hereEnv marks the process that Rerun and RerunIn start. Being in some sandbox is not enough: somebody may call netproof in the shell
// of a cluster, and then it needs a sandbox of its own.
const hereEnv = "NETPROOF_RERUN"

// Here tells whether this process is the inner one.
func Here() bool { return sandbox.Inside() && os.Getenv(hereEnv) != "" }

func environ(deadline time.Time) []string {
	env := append(os.Environ(), hereEnv+"=1")
	if !deadline.IsZero() {
		env = append(env, deadlineEnv+"="+strconv.FormatInt(deadline.UnixMilli(), 10))
	}
	return env
}

// grace is how long the inner process may take to clean up and report after a signal.
const grace = 45 * time.Second

// Deadline is the one that the outer process handed over, zero if none.
func Deadline() (time.Time, error) {
	text := os.Getenv(deadlineEnv)
	if text == "" || !Here() {
		return time.Time{}, nil
	}
	ms, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("read %s: %w", deadlineEnv, err)
	}
	return time.UnixMilli(ms), nil
}

// Cluster makes a local cluster that ends with this process; the caller is inside.
func Cluster(ctx context.Context, opts cluster.Options, engineDir string) (cluster.Cluster, error) {
	engines, err := prepared(ctx, opts.CNI, engineDir)
	if err != nil {
		return nil, err
	}
	return local.New(engines).Create(ctx, opts)
}
