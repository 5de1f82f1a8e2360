package launch

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/netproof/netproof/harness/cluster/local/engine"
	"github.com/netproof/netproof/harness/cluster/local/hosttools"
	"github.com/netproof/netproof/harness/cluster/local/sandbox"
)

// Engines are those of a local cluster.
type Engines struct {
	// CNI is the network plugin, and Dir a folder of prebuilt engines, "" for those of the cache.
	CNI, Dir string
	// Progress hears how they are built; nil for nobody.
	Progress func(engine.Event)
}

// Prepare checks that this machine can run a local cluster and builds the engines that are missing. What it needs of
// the network it needs here: inside there is none.
func Prepare(ctx context.Context, e Engines) error {
	for _, o := range sandbox.ReadFacts().Obstacles() {
		if o.Certain {
			return fmt.Errorf("%w: %s: %s", sandbox.ErrUnavailable, o.Cause, o.Fix)
		}
	}
	if err := hosttools.Check(e.CNI); err != nil {
		return err
	}
	engines, err := engine.Ensure(ctx, engine.Options{CNI: e.CNI, EngineDir: e.Dir, Progress: e.Progress})
	if err != nil {
		return err
	}
	return engines.Close()
}

// deadlineEnv hands the run's deadline, in milliseconds since 1970, from the outer process to the inner one.
const deadlineEnv = "NETPROOF_DEADLINE"

// Inside is how a program that takes itself into a sandbox knows itself there: by a variable of its environment. Being
// in some sandbox is not enough. Somebody may call the program in the shell of a cluster, and then it needs a sandbox
// of its own.
type Inside string

// Here tells whether this process is the inner one.
func (i Inside) Here() bool { return sandbox.Inside() && os.Getenv(string(i)) != "" }

// Rerun runs this command line again in a sandbox and returns its exit code. A deadline that is not zero is what
// [Inside.Deadline] gives there. stdin is its standard input, that of this process if it is nil. done is false when the
// inner process ended without having called [Inside.Done]: then nobody has reported yet.
func (i Inside) Rerun(ctx context.Context, stdin *os.File, deadline time.Time) (code int, done bool, err error) {
	// The inner process ends itself at the deadline, and reports; the outer one only passes signals on.
	return rerun(func(c sandbox.Command) (int, error) { return sandbox.Run(context.WithoutCancel(ctx), c) }, command(nil, stdin, i.environ(deadline)))
}

func command(args []string, stdin *os.File, env []string) sandbox.Command {
	c := sandbox.Command{Args: args, Env: env}
	if stdin != nil { // a nil file is not a nil reader
		c.Stdin = stdin
	}
	return c
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
	// Whoever else may hold the other end is gone with the sandbox, or on a named cluster with the process that was
	// brought in.
	if err := ours.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		return code, false, fmt.Errorf("wait for the inner process: %w", err)
	}
	n, _ := ours.Read(make([]byte, 1))
	return code, n == 1, nil
}

// doneFD is where the inner process finds its end of the pipe.
const doneFD = 3

// UsesDescriptor tells whether the inner process, or the way to it, has something else at a descriptor than this
// process: the pipe, and in a named cluster what [sandbox.Enter] hands over, its control socket, program and
// namespaces.
func UsesDescriptor(fd int) bool { return fd >= doneFD && fd < doneFD+7 }

// Done tells the outer process that everything there is to say has been said. It has no effect elsewhere.
func (i Inside) Done() {
	if i.Here() {
		_, _ = os.NewFile(doneFD, "done").WriteString("1") // when the outer process is gone there is nobody to tell
	}
}

func (i Inside) environ(deadline time.Time) []string {
	env := append(os.Environ(), string(i)+"=1")
	if !deadline.IsZero() {
		env = append(env, deadlineEnv+"="+strconv.FormatInt(deadline.UnixMilli(), 10))
	}
	return env
}

// grace is how long the inner process may take to clean up and report after a signal.
const grace = 45 * time.Second

// Deadline is the one that the outer process handed over, zero if none.
func (i Inside) Deadline() (time.Time, error) {
	text := os.Getenv(deadlineEnv)
	if text == "" || !i.Here() {
		return time.Time{}, nil
	}
	ms, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("read %s: %w", deadlineEnv, err)
	}
	return time.UnixMilli(ms), nil
}
