//go:build linux

package named_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/netproof/netproof/harness/cluster/local/named"
	"github.com/netproof/netproof/harness/cluster/local/sandbox"
)

const (
	// envMark is how the processes of a test are found. A process with it is a command line program:
	// create NAME MODE, list, find NAME, delete NAME [PATIENCE], log NAME, enter NAME PROGRAM..., look.
	envMark = "NAMED_TEST_MARK"
	// codeFailed is the exit code of a CreateError, and codeOf that of the first of the known errors.
	codeFailed = 80
	codeOf     = 90
)

var known = []error{named.ErrExists, named.ErrNotFound, named.ErrNotReady, context.Canceled}

func TestMain(m *testing.M) {
	sandbox.Init()
	named.Init()
	os.Exit(mainOf(m)) //nolint:forbidigo // this is main, of the tests and of the programs they start
}

// mainOf runs the tests, or is the program that a test started.
func mainOf(m *testing.M) int {
	if os.Getenv(envMark) == "" {
		return testOutside(m)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	code, err := command(ctx, os.Args[1], os.Args[2:])
	if err == nil {
		return code
	}
	fmt.Fprintln(os.Stderr, err)
	var failed *named.CreateError
	if errors.As(err, &failed) {
		fmt.Fprintln(os.Stderr, "program's code", failed.Code)
		return codeFailed
	}
	for i, e := range known {
		if errors.Is(err, e) {
			return codeOf + i
		}
	}
	return 1
}

// command is the program that the tests run.
func command(ctx context.Context, verb string, args []string) (int, error) {
	if named.Serving() {
		return 3, serve(ctx, args[1])
	}
	show := func(v any, err error) (int, error) {
		return 0, errors.Join(err, json.NewEncoder(os.Stdout).Encode(v))
	}
	switch verb {
	case "create":
		return show(named.Create(ctx, args[0], named.Options{Grace: 200 * time.Millisecond}))
	case "list":
		infos, held, err := named.List(ctx)
		for _, h := range held {
			fmt.Fprintln(os.Stderr, h)
		}
		return show(infos, err)
	case "find":
		return show(named.Find(ctx, args[0]))
	case "log":
		text, err := named.Log(ctx, args[0])
		return show(string(text), err)
	case "delete":
		if len(args) > 1 {
			patience, err := time.ParseDuration(args[1])
			if err != nil {
				return 1, err
			}
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, patience)
			defer cancel()
		}
		return 0, named.Delete(ctx, args[0])
	case "enter":
		return named.Enter(ctx, args[0], sandbox.Command{}, sandbox.EnterOptions{Program: args[1:]})
	case "again":
		return named.Enter(ctx, args[0], sandbox.Command{Args: []string{"again", "look"}}, sandbox.EnterOptions{})
	case "look":
		ns, err := os.Readlink("/proc/self/ns/net")
		return show(map[string]any{"inside": sandbox.Inside(), "net": ns}, err)
	}
	return 1, fmt.Errorf("unknown %q", verb)
}

// chatter is how many lines the program of this mode writes before it is ready.
const chatter = 5000

// serve is the work in the sandbox.
func serve(ctx context.Context, mode string) error {
	return named.Serve(ctx, func(ctx context.Context, ready func(any) error) error {
		fmt.Fprintln(os.Stderr, "setting up")
		child := exec.Command("setsid", "sleep", "1000")
		if err := child.Start(); err != nil {
			return err
		}
		switch mode {
		case "fail":
			return errors.New("no such luck")
		case "exit":
			os.Exit(7) //nolint:forbidigo // this is what is tested
		case "hang":
			<-ctx.Done()
			return context.Cause(ctx)
		case "chatter":
			for i := range chatter {
				fmt.Fprintf(os.Stderr, "step %d\n", i+1)
			}
		}
		ns, err := os.Readlink("/proc/self/ns/net")
		if err != nil {
			return err
		}
		if err := ready(map[string]string{"net": ns}); err != nil {
			return err
		}
		fmt.Fprintln(os.Stdout, "now in the background")
		<-ctx.Done()
		fmt.Fprintln(os.Stdout, "going")
		if mode == "defy" {
			select {}
		}
		return ctx.Err()
	})
}

// account is a user that tests run as.
type account struct {
	name string
	id   uint32
}

// eachUser runs a test as root and as an unprivileged user, as far as this process may.
func eachUser(t *testing.T, test func(t *testing.T, u account)) {
	t.Helper()
	for _, u := range []account{{"root", 0}, {"an unprivileged user", 65534}} {
		t.Run("as "+u.name, func(t *testing.T) {
			switch {
			case os.Getuid() == 0:
			case u.id == 0:
				t.Skip("needs root")
			default:
				u.id = uint32(os.Getuid())
			}
			test(t, u)
		})
	}
}

// binary is a copy of the test binary where every user can run it.
var binary string

// testOutside runs the tests.
func testOutside(m *testing.M) int {
	dir, err := os.MkdirTemp("", "named-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	binary = filepath.Join(dir, "named")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(binary, self, 0o755)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	// A shell starts background jobs with this ignored, which would be inherited down to the programs that are tested.
	if signal.Ignored(syscall.SIGINT) {
		signal.Notify(make(chan os.Signal, 1), syscall.SIGINT)
	}
	return m.Run()
}

// user is somebody at a command line. All that they start is gone at the end of the test, or it fails.
type user struct {
	*testing.T
	account
	mark string
	// name is one that nobody else uses.
	name string
}

func newUser(t *testing.T, a account) *user {
	u := &user{T: t, account: a, mark: rand.Text(), name: "t" + strings.ToLower(rand.Text())}
	t.Cleanup(func() {
		if pid := u.daemon(); pid != 0 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		u.nothingLeft()
	})
	return u
}

// command makes a command of the program.
func (u *user) command(args ...string) (cmd *exec.Cmd, stdout, stderr *bytes.Buffer) {
	stdout, stderr = &bytes.Buffer{}, &bytes.Buffer{}
	cmd = exec.Command(binary, args...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), envMark+"="+u.mark)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if os.Getuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: u.id, Gid: u.id}
	}
	return cmd, stdout, stderr
}

// run runs the program to its end.
func (u *user) run(args ...string) (code int, stdout, stderr string) {
	u.Helper()
	cmd, out, errs := u.command(args...)
	err := cmd.Run()
	if err != nil {
		var exit *exec.ExitError
		require.ErrorAs(u, err, &exit)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// get runs the program, which must succeed, and decodes what it prints.
func (u *user) get(into any, args ...string) {
	u.Helper()
	code, stdout, stderr := u.run(args...)
	require.Equal(u, 0, code, "%s%s", stdout, stderr)
	require.NoError(u, json.Unmarshal([]byte(stdout), into), stdout)
}

// create makes a named sandbox.
func (u *user) create(mode string) named.Info {
	u.Helper()
	var info named.Info
	u.get(&info, "create", u.name, mode)
	return info
}

// processes lists those of the user, by id. What has ended has no environment any more.
func (u *user) processes() []int {
	var pids []int
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		env, err := os.ReadFile(filepath.Join(dir, "environ"))
		if err == nil && bytes.Contains(env, []byte(envMark+"="+u.mark)) {
			pid, _ := strconv.Atoi(filepath.Base(dir))
			pids = append(pids, pid)
		}
	}
	return pids
}

// daemon finds the daemon among them, by the role it was started with.
func (u *user) daemon() int {
	for _, pid := range u.processes() {
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err == nil && bytes.Contains(env, []byte("NETPROOF_NAMED=daemon:")) {
			return pid
		}
	}
	return 0
}

// socket tells whether the name's socket exists.
func (u *user) socket() bool {
	text, err := os.ReadFile("/proc/net/unix")
	require.NoError(u, err)
	return strings.Contains(string(text), "/"+u.name+"\n")
}

// nothingLeft requires that soon no process of the user exists, and no socket of the name.
func (u *user) nothingLeft() {
	u.Helper()
	require.Eventually(u, func() bool { return len(u.processes()) == 0 && !u.socket() },
		10*time.Second, 5*time.Millisecond, "left are %v", u)
}

func (u *user) String() string { return fmt.Sprint(u.processes(), u.socket()) }

func TestWhatIsWrittenBeforeReadyIsShown(t *testing.T) {
	eachUser(t, func(t *testing.T, a account) {
		u := newUser(t, a)
		code, _, stderr := u.run("create", u.name, "chatter")
		require.Equal(t, 0, code, stderr)
		assert.True(t, strings.Contains(stderr, fmt.Sprintf("\nstep %d\n", chatter)), "%d bytes came", len(stderr))
		code, _, stderr = u.run("delete", u.name)
		assert.Equal(t, 0, code, stderr)
	})
}

func TestANamedSandboxLivesUntilItIsDeleted(t *testing.T) {
	eachUser(t, func(t *testing.T, a account) {
		u := newUser(t, a)
		before := time.Now()
		code, stdout, stderr := u.run("create", u.name, "stay")
		require.Equal(t, 0, code, stderr)
		assert.Contains(t, stderr, "setting up", "what it says until it is ready is shown")
		var created named.Info
		require.NoError(t, json.Unmarshal([]byte(stdout), &created))
		assert.Equal(t, named.Ready, created.State)
		assert.WithinRange(t, created.Created, before, time.Now())
		assert.Len(t, u.processes(), 4, "the daemon, PID 1, the program, its child; not the process that created it")

		var found named.Info
		u.get(&found, "find", u.name)
		assert.Equal(t, created, found)
		var list []named.Info
		u.get(&list, "list")
		assert.Contains(t, list, created)

		var detail, seen map[string]any
		require.NoError(t, json.Unmarshal(found.Detail, &detail))
		u.get(&seen, "again", u.name)
		assert.Equal(t, map[string]any{"inside": true, "net": detail["net"]}, seen)
		code, stdout, stderr = u.run("enter", u.name, "readlink", "/proc/self/ns/net")
		assert.Equal(t, 0, code, stderr)
		assert.Equal(t, detail["net"], strings.TrimSpace(stdout))
		code, _, stderr = u.run("enter", u.name, "sh", "-c", "exit 5")
		assert.Equal(t, 5, code, stderr)

		var log string
		require.Eventually(t, func() bool {
			u.get(&log, "log", u.name)
			return strings.Contains(log, "now in the background")
		}, 10*time.Second, 5*time.Millisecond)
		assert.Contains(t, log, "setting up")

		code, _, stderr = u.run("delete", u.name)
		assert.Equal(t, 0, code, stderr)
		assert.Empty(t, u.processes(), "when delete returns all of it is gone")
		assert.False(t, u.socket())
		u.get(&list, "list")
		assert.False(t, slices.ContainsFunc(list, func(i named.Info) bool { return i.Name == u.name }))
	})
}

func TestANameIsTakenOnce(t *testing.T) {
	eachUser(t, func(t *testing.T, a account) {
		u := newUser(t, a)
		first := u.create("stay")
		code, _, stderr := u.run("create", u.name, "stay")
		assert.Equal(t, codeOf, code, stderr)
		assert.Contains(t, stderr, u.name+": name is taken")
		var found named.Info
		u.get(&found, "find", u.name)
		assert.Equal(t, first, found, "the first one is untouched")
		assert.Len(t, u.processes(), 4)
	})
}

func TestOfTwoThatCreateTheSameNameAtOnceOneWins(t *testing.T) {
	eachUser(t, func(t *testing.T, a account) {
		u := newUser(t, a)
		var commands []*exec.Cmd
		for range 4 {
			cmd, _, _ := u.command("create", u.name, "stay")
			require.NoError(t, cmd.Start())
			commands = append(commands, cmd)
		}
		codes := map[int]int{}
		for _, cmd := range commands {
			_ = cmd.Wait()
			codes[cmd.ProcessState.ExitCode()]++
		}
		assert.Equal(t, map[int]int{0: 1, codeOf: 3}, codes)
	})
}

func TestNamesThatAreNoDNSLabelsAreRefused(t *testing.T) {
	u := newUser(t, account{id: uint32(os.Getuid())})
	for _, name := range []string{"", "Upper", "under_score", "-dash", "a.b", "a/b", strings.Repeat("a", 64)} {
		for _, args := range [][]string{{"create", name, "stay"}, {"find", name}, {"delete", name}} {
			code, _, stderr := u.run(args...)
			assert.Equal(t, 1, code, "%q", args)
			assert.Contains(t, stderr, fmt.Sprintf("name %q", name))
		}
	}
}

func TestWhatDoesNotExistIsNotFound(t *testing.T) {
	u := newUser(t, account{id: uint32(os.Getuid())})
	for _, verb := range []string{"find", "delete", "log", "enter"} {
		code, _, stderr := u.run(verb, u.name)
		assert.Equal(t, codeOf+1, code, verb)
		assert.Contains(t, stderr, u.name+": not found")
	}
}

func TestAFailedCreationIsReportedAndLeavesNothing(t *testing.T) {
	eachUser(t, func(t *testing.T, a account) {
		for mode, want := range map[string]struct{ text, code string }{
			"fail": {"no such luck", "program's code 1\n"},
			"exit": {"ended with exit code 7 before it was ready", "program's code 7\n"},
		} {
			u := newUser(t, a)
			code, _, stderr := u.run("create", u.name, mode)
			assert.Equal(t, codeFailed, code, stderr)
			assert.Contains(t, stderr, want.text)
			assert.Contains(t, stderr, want.code)
			assert.Contains(t, stderr, "setting up")
			assert.Empty(t, u.processes())
			assert.False(t, u.socket())
		}
	})
}

// hanging starts a creation that does not get ready, and returns when the work has begun.
func (u *user) hanging() *exec.Cmd {
	u.Helper()
	cmd, _, _ := u.command("create", u.name, "hang")
	cmd.Stderr = nil
	stderr, err := cmd.StderrPipe()
	require.NoError(u, err)
	require.NoError(u, cmd.Start())
	line, err := bufio.NewReader(stderr).ReadString('\n')
	require.NoError(u, err)
	require.Equal(u, "setting up\n", line)
	go func() { _, _ = io.Copy(io.Discard, stderr) }()
	require.Eventually(u, func() bool { return len(u.processes()) >= 5 }, 10*time.Second, 5*time.Millisecond)
	return cmd
}

func TestAnInterruptedCreationLeavesNothing(t *testing.T) {
	eachUser(t, func(t *testing.T, a account) {
		u := newUser(t, a)
		cmd := u.hanging()
		require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
		_ = cmd.Wait()
		assert.Equal(t, codeOf+3, cmd.ProcessState.ExitCode())
		assert.Empty(t, u.processes(), "when create returns all of it is gone")
		assert.False(t, u.socket())
	})
}

func TestKill9OfTheCreatingProcessLeavesNothing(t *testing.T) {
	eachUser(t, func(t *testing.T, a account) {
		u := newUser(t, a)
		cmd := u.hanging()
		require.NoError(t, cmd.Process.Kill())
		_ = cmd.Wait()
		u.nothingLeft()
		// At any moment: from nothing to the work takes some 40 ms.
		for i := range 25 {
			cmd, _, _ := u.command("create", u.name, "hang")
			require.NoError(t, cmd.Start())
			<-time.After(time.Duration(2*i) * time.Millisecond)
			require.NoError(t, cmd.Process.Kill())
			_ = cmd.Wait()
			u.nothingLeft()
		}
	})
}

func TestWhatIsBeingCreatedCanBeSeenAndDeletedButNotEntered(t *testing.T) {
	eachUser(t, func(t *testing.T, a account) {
		u := newUser(t, a)
		cmd := u.hanging()
		var info named.Info
		u.get(&info, "find", u.name)
		assert.Equal(t, named.Creating, info.State)
		code, _, stderr := u.run("enter", u.name, "true")
		assert.Equal(t, codeOf+2, code)
		assert.Contains(t, stderr, "it is creating")
		code, _, stderr = u.run("delete", u.name)
		assert.Equal(t, 0, code, stderr)
		_ = cmd.Wait()
		assert.Equal(t, codeFailed, cmd.ProcessState.ExitCode())
		u.nothingLeft()
	})
}

func TestKill9OfTheDaemonLeavesNothing(t *testing.T) {
	eachUser(t, func(t *testing.T, a account) {
		u := newUser(t, a)
		info := u.create("stay")
		assert.Equal(t, u.daemon(), info.Daemon)
		entered, _, _ := u.command("enter", u.name, "sleep", "1000")
		require.NoError(t, entered.Start())
		require.Eventually(t, func() bool { return len(u.processes()) >= 7 }, 10*time.Second, 5*time.Millisecond)
		require.NoError(t, syscall.Kill(info.Daemon, syscall.SIGKILL))
		_ = entered.Wait()
		u.nothingLeft()
		code, _, _ := u.run("find", u.name)
		assert.Equal(t, codeOf+1, code)
		u.create("stay") // the name is free
	})
}

func TestWhatEndsByItselfIsGone(t *testing.T) {
	eachUser(t, func(t *testing.T, a account) {
		u := newUser(t, a)
		info := u.create("stay")
		require.NoError(t, syscall.Kill(info.PID, syscall.SIGKILL))
		u.nothingLeft()
	})
}

func TestWhatDoesNotWantToEndIsKilled(t *testing.T) {
	eachUser(t, func(t *testing.T, a account) {
		u := newUser(t, a)
		u.create("defy")
		code, _, stderr := u.run("delete", u.name)
		assert.Equal(t, 0, code, stderr)
		assert.Empty(t, u.processes())
		assert.False(t, u.socket())
	})
}

func TestADaemonThatDoesNotAnswerIsListedAndCanBeDeleted(t *testing.T) {
	eachUser(t, func(t *testing.T, a account) {
		u := newUser(t, a)
		info := u.create("stay")
		require.NoError(t, syscall.Kill(info.Daemon, syscall.SIGSTOP))
		// Each thread stops when it next comes to run, and one that has not yet may still answer.
		require.Eventually(t, func() bool { return stopped(info.Daemon) }, 10*time.Second, time.Millisecond)
		var list []named.Info
		u.get(&list, "list")
		assert.Contains(t, list, named.Info{Name: u.name, State: named.Unresponsive, Daemon: info.Daemon})
		code, _, stderr := u.run("delete", u.name, "100ms")
		assert.Equal(t, 0, code, stderr)
		assert.Empty(t, u.processes())
	})
}

// stopped tells whether all threads of a process are.
func stopped(pid int) bool {
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(stats) == 0 {
		return false
	}
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if _, state, _ := strings.Cut(string(stat), ") "); err != nil || !strings.HasPrefix(state, "T") {
			return false
		}
	}
	return true
}

func TestADaemonDoesNotKeepTheTerminalOrThePipesOfItsCreator(t *testing.T) {
	eachUser(t, func(t *testing.T, a account) {
		u := newUser(t, a)
		cmd, _, _ := u.command("create", u.name, "stay")
		cmd.Stdout, cmd.Stderr = nil, nil
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		cmd.Stderr = cmd.Stdout
		require.NoError(t, cmd.Start())
		// This would not return as long as anything in the background holds the pipe.
		_, err = io.ReadAll(out)
		require.NoError(t, err)
		require.NoError(t, cmd.Wait())
		for _, pid := range u.processes() {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			require.NoError(t, err)
			_, rest, _ := strings.Cut(string(stat), ") ")
			assert.Equal(t, "0", strings.Fields(rest)[4], "controlling terminal of %s", stat)
		}
	})
}

func TestANameHeldByAnotherUserIsNotTrusted(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to be another user")
	}
	u := newUser(t, account{id: 65534})
	l, err := net.Listen("unix", "@netproof/65534/"+u.name)
	require.NoError(t, err)
	defer l.Close()
	want := fmt.Sprintf("the name %s is held by process %d of user 0 and runs nothing of yours", u.name, os.Getpid())
	for _, verb := range [][]string{{"find"}, {"delete"}, {"enter"}, {"create", "stay"}} {
		code, _, stderr := u.run(append([]string{verb[0], u.name}, verb[1:]...)...)
		assert.Equal(t, 1, code, verb)
		assert.Contains(t, stderr, want, verb)
	}
}

func TestANameHeldByAnotherUserKeepsNoOtherFromBeingListed(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to be another user")
	}
	u := newUser(t, account{id: 65534})
	info := u.create("stay")
	// One that answers nobody, and one that lets nobody in any more.
	for name, backlog := range map[string]int{"a-" + u.name: 16, "z-" + u.name: 0} {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		require.NoError(t, err)
		t.Cleanup(func() { _ = unix.Close(fd) })
		require.NoError(t, unix.Bind(fd, &unix.SockaddrUnix{Name: "@netproof/65534/" + name}))
		require.NoError(t, unix.Listen(fd, backlog))
	}
	full, err := net.Dial("unix", "@netproof/65534/z-"+u.name)
	require.NoError(t, err)
	defer full.Close()
	code, stdout, stderr := u.run("list")
	require.Equal(t, 0, code, stderr)
	var list []named.Info
	require.NoError(t, json.Unmarshal([]byte(stdout), &list))
	// Other tests make sandboxes as well.
	states := map[string]named.State{}
	for _, i := range list {
		states[i.Name] = i.State
	}
	assert.Equal(t, info.State, states[u.name])
	assert.NotContains(t, states, "a-"+u.name)
	assert.Contains(t, stderr, "the name a-"+u.name+" is held by process")
	assert.Equal(t, named.Unresponsive, states["z-"+u.name])
}

func TestAnotherUserGetsNoAnswer(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to be another user")
	}
	u := newUser(t, account{id: 65534})
	u.create("stay")
	conn, err := net.Dial("unix", "@netproof/65534/"+u.name)
	require.NoError(t, err)
	defer conn.Close()
	_, _ = conn.Write([]byte(`{"op":"delete"}`))
	answer, _ := io.ReadAll(conn)
	assert.Empty(t, answer)
	var info named.Info
	u.get(&info, "find", u.name)
	assert.Equal(t, named.Ready, info.State)
}
