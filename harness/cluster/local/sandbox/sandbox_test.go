//go:build linux

package sandbox_test

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
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/cluster/local/sandbox"
)

const (
	// envDo makes the test binary a program that does this in a sandbox.
	envDo = "SANDBOX_TEST_DO"
	// envGrace is the grace of that sandbox.
	envGrace = "SANDBOX_TEST_GRACE"
	// envTarget makes it enter the sandbox with this PID 1, and not make one.
	envTarget = "SANDBOX_TEST_TARGET"
	// envExec makes it run this program after entering, in a terminal.
	envExec = "SANDBOX_TEST_EXEC"
	// envMark is how the processes of a test are found.
	envMark = "SANDBOX_TEST_MARK"
)

func TestMain(m *testing.M) {
	sandbox.Init()
	what := os.Getenv(envDo)
	if what == "tests" {
		sandbox.Main(m)
	}
	os.Exit(mainOf(m, what)) //nolint:forbidigo // this is main, of the tests and of the programs they start
}

// mainOf runs the tests, or is the program that a test started to do something.
func mainOf(m *testing.M, what string) int {
	if what == "" {
		return testOutside(m)
	}
	if sandbox.Inside() && what != "nested" {
		return do(what)
	}
	code, err := outside(what)
	if err == nil {
		return code
	}
	fmt.Fprintln(os.Stderr, err)
	if errors.Is(err, sandbox.ErrUnavailable) {
		return 99
	}
	return 98
}

// outside is the program before it is in the sandbox.
func outside(what string) (int, error) {
	ctx := context.Background()
	c := sandbox.Command{}
	if text := os.Getenv(envGrace); text != "" {
		grace, err := time.ParseDuration(text)
		if err != nil {
			return 0, err
		}
		c.Grace = grace
	}
	switch what {
	case "cancelled":
		ctx, cancel := context.WithCancelCause(ctx)
		cancel(errors.New("enough of this"))
		return sandbox.Run(ctx, c)
	case "check":
		return 0, sandbox.Check(ctx)
	case "nested":
		if os.Getpid() != 1 && sandbox.Inside() {
			c.Env = append(os.Environ(), envDo+"=exit 23")
		}
	}
	target := os.Getenv(envTarget)
	if target == "" {
		return sandbox.Run(ctx, c)
	}
	pid, err := strconv.Atoi(target)
	if err != nil {
		return 0, err
	}
	ns, err := sandbox.OpenNamespaces(pid)
	if err != nil {
		return 0, err
	}
	defer ns.Close()
	o := sandbox.EnterOptions{Terminal: true}
	if program := os.Getenv(envExec); program != "" {
		o.Program = strings.Fields(program)
	}
	return sandbox.Enter(ctx, ns, c, o)
}

// sight is what a process in a sandbox sees of it.
type sight struct {
	PID        int
	Inside     bool
	Namespaces map[string]string
	Args       []string
	Dir        string
	TempDir    string
	Interfaces []string
	// First is the program of PID 1.
	First string
}

func look() sight {
	s := sight{PID: os.Getpid(), Inside: sandbox.Inside(), Namespaces: map[string]string{}, Args: os.Args, TempDir: os.TempDir()}
	for _, kind := range []string{"user", "net", "mnt", "pid"} {
		s.Namespaces[kind], _ = os.Readlink("/proc/self/ns/" + kind)
	}
	s.Dir, _ = os.Getwd()
	links, _ := net.Interfaces()
	for _, l := range links {
		s.Interfaces = append(s.Interfaces, l.Name+" "+l.Flags.String())
	}
	s.First, _ = os.Readlink("/proc/1/exe")
	return s
}

// do is the program in the sandbox.
func do(what string) int {
	verb, arg, _ := strings.Cut(what, " ")
	switch verb {
	case "exit":
		code, _ := strconv.Atoi(arg)
		return code
	case "die":
		n, _ := strconv.Atoi(arg)
		_ = syscall.Kill(os.Getpid(), syscall.Signal(n))
		select {}
	case "look":
		return printed(look())
	case "cat":
		_, err := io.Copy(os.Stdout, os.Stdin)
		return failed(err)
	case "stay", "family":
		if verb == "family" {
			// One child in a session of its own, and one whose parent has gone.
			child := exec.Command("sleep", "1000")
			child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			if err := child.Start(); err != nil {
				return failed(err)
			}
			if err := exec.Command("sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 </dev/null &").Run(); err != nil {
				return failed(err)
			}
		}
		if code := printed(look()); code != 0 || arg == "leave" {
			return code
		}
		select {}
	case "trap":
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
		fmt.Fprintln(os.Stdout, "{}")
		fmt.Fprintln(os.Stdout, (<-signals).String())
		return 40
	case "defy", "cancelled":
		signal.Ignore(syscall.SIGINT, syscall.SIGTERM)
		fmt.Fprintln(os.Stdout, "{}")
		select {}
	case "orphans":
		return orphans()
	case "dial":
		for _, to := range []string{"tcp 192.0.2.1:80", "udp 192.0.2.1:53", "tcp [2001:db8::1]:80", "udp [2001:db8::1]:53"} {
			network, address, _ := strings.Cut(to, " ")
			c, err := net.DialTimeout(network, address, time.Second)
			if err == nil {
				_, err = c.Write([]byte("x"))
			}
			fmt.Fprintln(os.Stdout, network, errors.Is(err, syscall.ENETUNREACH), err)
		}
		return 0
	case "listen":
		l, err := net.Listen("tcp", "127.0.0.1:4711")
		if err != nil {
			return failed(err)
		}
		defer l.Close()
		if code := printed(look()); code != 0 {
			return code
		}
		select {}
	case "sysctl":
		for _, name := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv4/conf/lo/rp_filter"} {
			if err := os.WriteFile("/proc/sys/"+name, []byte("1"), 0); err != nil {
				return failed(err)
			}
		}
		return 0
	case "files":
		return failed(errors.Join(
			os.WriteFile("/run/sandbox-test", nil, 0o600),
			os.WriteFile(filepath.Join(os.TempDir(), "sandbox-test"), nil, 0o600),
			os.Mkdir("/run/netns", 0o700),
		))
	case "shared":
		return failed(shared(arg))
	case "limited":
		if err := os.WriteFile("/proc/sys/user/max_net_namespaces", []byte("0"), 0); err != nil {
			return failed(err)
		}
		_, err := sandbox.Run(context.Background(), sandbox.Command{})
		fmt.Fprintln(os.Stdout, err)
		if errors.Is(err, sandbox.ErrUnavailable) {
			return 0
		}
		return 1
	}
	return failed(fmt.Errorf("unknown %q", what))
}

// shared looks whether /run has that folder of the machine and what lies in it, and nothing that is private.
func shared(folder string) error {
	text, err := os.ReadFile(filepath.Join(folder, "in", "scenario"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(folder, "report"), append(text, " was proven"...), 0o600); err != nil {
		return err
	}
	for name, want := range map[string]int{"lock": 0, "netproof": 1} {
		entries, err := os.ReadDir("/run/" + name)
		if err != nil {
			return err
		}
		if len(entries) != want {
			return fmt.Errorf("/run/%s has entries that are not the sandbox's: %v", name, entries)
		}
	}
	for _, name := range []string{filepath.Base(folder) + ".pid", "xtables.lock", "netns", "calico", "cni", "systemd", "dbus", "docker.sock"} {
		if _, err := os.Lstat("/run/" + name); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("/run/%s is not private: %w", name, err)
		}
	}
	return nil
}

func printed(v any) int { return failed(json.NewEncoder(os.Stdout).Encode(v)) }

func failed(err error) int {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 97
	}
	return 0
}

// orphans makes many of them while waiting for children of its own, and looks whether either were treated wrongly.
func orphans() int {
	var wg sync.WaitGroup
	errs := make(chan error, 100)
	for range 100 {
		wg.Go(func() { errs <- exec.Command("sh", "-c", "(exec sleep 0.01) & exit 0").Run() })
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return failed(err)
		}
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		left := 0
		stats, _ := filepath.Glob("/proc/[0-9]*/stat")
		for _, file := range stats {
			text, err := os.ReadFile(file)
			if err == nil && (strings.Contains(string(text), "(sleep)") || strings.Contains(string(text), "(sh)")) {
				left++
			}
		}
		if left == 0 {
			return 0
		}
		if time.Now().After(deadline) {
			return failed(fmt.Errorf("%d orphans left", left))
		}
		<-time.After(time.Millisecond)
	}
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

// testOutside runs the tests that make sandboxes.
func testOutside(m *testing.M) int {
	dir, err := os.MkdirTemp("", "sandbox-test-")
	if err != nil {
		return failed(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return failed(err)
	}
	binary = filepath.Join(dir, "sandboxed")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(binary, self, 0o755)); err != nil {
		return failed(err)
	}
	// A shell starts background jobs with this ignored, which would be inherited down to the programs that are tested.
	if signal.Ignored(syscall.SIGINT) {
		signal.Notify(make(chan os.Signal, 1), syscall.SIGINT)
	}
	return m.Run()
}

// program is a started test program.
type program struct {
	*exec.Cmd
	mark   string
	out    *bufio.Reader
	stderr *bytes.Buffer
}

// prepare makes a command of the test binary.
func prepare(t *testing.T, u account, what string, env ...string) *program {
	t.Helper()
	p := &program{Cmd: exec.Command(binary), mark: rand.Text(), stderr: &bytes.Buffer{}}
	p.Env = append(append(os.Environ(), envDo+"="+what, envMark+"="+p.mark), env...)
	p.Dir = "/"
	p.Stderr = p.stderr
	p.SysProcAttr = &syscall.SysProcAttr{}
	if os.Getuid() == 0 {
		p.SysProcAttr.Credential = &syscall.Credential{Uid: u.id, Gid: u.id}
	}
	return p
}

// start starts a program whose output can be read.
func start(t *testing.T, u account, what string, env ...string) *program {
	t.Helper()
	p := prepare(t, u, what, env...)
	out, err := p.StdoutPipe()
	require.NoError(t, err)
	p.out = bufio.NewReader(out)
	require.NoError(t, p.Start())
	t.Cleanup(func() {
		_ = p.Process.Kill()
		_ = p.Cmd.Wait()
		nothingLeft(t, p.mark, nil)
	})
	return p
}

// line reads a line that the program prints.
func (p *program) line(t *testing.T) string {
	t.Helper()
	text, err := p.out.ReadString('\n')
	require.NoError(t, err, "%s", p.stderr)
	return strings.TrimSpace(text)
}

// sight reads what the program sees.
func (p *program) sight(t *testing.T) sight {
	t.Helper()
	var s sight
	require.NoError(t, json.Unmarshal([]byte(p.line(t)), &s))
	return s
}

// code waits for the end.
func (p *program) code(t *testing.T) int {
	t.Helper()
	rest, err := io.ReadAll(p.out)
	require.NoError(t, err)
	if err := p.Cmd.Wait(); err != nil {
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit, "%s%s", rest, p.stderr)
	}
	return p.ProcessState.ExitCode()
}

// result runs a program to its end.
func result(t *testing.T, u account, what string, env ...string) (code int, stdout, stderr string) {
	t.Helper()
	p := prepare(t, u, what, env...)
	var out bytes.Buffer
	p.Stdout = &out
	if err := p.Run(); err != nil {
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
	}
	nothingLeft(t, p.mark, nil)
	return p.ProcessState.ExitCode(), out.String(), p.stderr.String()
}

// marked lists the processes with that mark, by id.
func marked(mark string) []int {
	var pids []int
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		env, err := os.ReadFile(filepath.Join(dir, "environ"))
		if err == nil && bytes.Contains(env, []byte(envMark+"="+mark)) {
			pid, _ := strconv.Atoi(filepath.Base(dir))
			pids = append(pids, pid)
		}
	}
	return pids
}

// holders lists who is in, or holds open, one of the namespaces.
func holders(namespaces map[string]string) []string {
	var found []string
	for _, pattern := range []string{"/proc/[0-9]*/ns/*", "/proc/[0-9]*/fd/*"} {
		links, _ := filepath.Glob(pattern)
		for _, link := range links {
			id, err := os.Readlink(link)
			if err == nil && !zombie(link) && slices.Contains([]string{namespaces["net"], namespaces["mnt"], namespaces["pid"]}, id) {
				found = append(found, link+" -> "+id)
			}
		}
	}
	return found
}

// zombie tells whether the process that a path below /proc belongs to has ended. It then still has an id, until whoever
// inherited it looks, which may take the machine's init a while, but it holds nothing.
func zombie(path string) bool {
	stat, err := os.ReadFile("/proc/" + strings.Split(path, "/")[2] + "/stat")
	if err != nil {
		return true
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(state, "Z") || strings.HasPrefix(state, "X")
}

// nothingLeft requires that soon no process of the program exists, and nobody is in its namespaces.
func nothingLeft(t *testing.T, mark string, namespaces map[string]string) {
	t.Helper()
	require.Eventually(t, func() bool { return len(marked(mark)) == 0 && len(holders(namespaces)) == 0 },
		10*time.Second, 5*time.Millisecond, "processes and namespaces that are left: %v", &left{mark, namespaces})
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	assert.NotContains(t, string(mounts), "/run/netproof")
}

// left is rendered only when a test fails.
type left struct {
	mark       string
	namespaces map[string]string
}

func (l *left) String() string { return fmt.Sprint(marked(l.mark), holders(l.namespaces)) }

func TestTheProgramRunsInNamespacesOfItsOwn(t *testing.T) {
	eachUser(t, func(t *testing.T, u account) {
		outer := look()
		p := start(t, u, "stay")
		s := p.sight(t)
		assert.True(t, s.Inside)
		assert.Greater(t, s.PID, 1, "PID 1 starts the worker and reaps")
		assert.Less(t, s.PID, 100)
		assert.Equal(t, p.Path, s.First, "PID 1 is this program")
		for _, kind := range []string{"net", "mnt", "pid"} {
			assert.NotEqual(t, outer.Namespaces[kind], s.Namespaces[kind], kind)
		}
		assert.Equal(t, u.id == 0, s.Namespaces["user"] == outer.Namespaces["user"], "root needs no user namespace")
		assert.Equal(t, []string{"lo up|loopback|running"}, s.Interfaces)
		assert.Equal(t, sandbox.TempDir, s.TempDir)
		assert.Len(t, marked(p.mark), 3, "the outer process, PID 1 and the worker")
		assert.NotEmpty(t, holders(s.Namespaces))
	})
}

func TestExitCodesPassThrough(t *testing.T) {
	eachUser(t, func(t *testing.T, u account) {
		for what, want := range map[string]int{"exit 0": 0, "exit 1": 1, "exit 7": 7, "exit 255": 255, "die 9": 137, "die 11": 2} {
			code, _, stderr := result(t, u, what)
			assert.Equal(t, want, code, "%s: %s", what, stderr)
		}
	})
}

func TestStreamsArgumentsAndFolderPassThrough(t *testing.T) {
	eachUser(t, func(t *testing.T, u account) {
		p := prepare(t, u, "cat")
		var out bytes.Buffer
		p.Stdin, p.Stdout = strings.NewReader("through and through"), &out
		require.NoError(t, p.Run(), "%s", p.stderr)
		assert.Equal(t, "through and through", out.String())

		p = prepare(t, u, "look")
		p.Dir = "/usr/share"
		p.Args = []string{"named", "one", "two words"}
		out.Reset()
		p.Stdout = &out
		require.NoError(t, p.Run(), "%s", p.stderr)
		var s sight
		require.NoError(t, json.Unmarshal(out.Bytes(), &s))
		assert.Equal(t, []string{"named", "one", "two words"}, s.Args)
		assert.Equal(t, "/usr/share", s.Dir)
	})
}

// endings are the signals that end a program, but for those that whoever started the tests ignores, as nohup does: a
// sandbox ignores them too.
func endings() []syscall.Signal {
	return slices.DeleteFunc([]syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT}, func(s syscall.Signal) bool {
		return signal.Ignored(s)
	})
}

func TestASignalEndsTheProgramGracefully(t *testing.T) {
	eachUser(t, func(t *testing.T, u account) {
		for _, s := range endings() {
			p := start(t, u, "trap")
			p.line(t)
			require.NoError(t, p.Process.Signal(s))
			assert.Equal(t, s.String(), p.line(t))
			assert.Equal(t, 40, p.code(t))
		}
	})
}

func TestASecondSignalKills(t *testing.T) {
	eachUser(t, func(t *testing.T, u account) {
		p := start(t, u, "defy", envGrace+"=1h")
		p.line(t)
		require.NoError(t, p.Process.Signal(syscall.SIGINT))
		require.NoError(t, p.Process.Signal(syscall.SIGTERM))
		assert.Contains(t, []int{128 + 2, 128 + 15}, p.code(t), "the kernel does not keep the order of pending signals")
	})
}

func TestAProgramThatDoesNotEndInItsGraceIsKilled(t *testing.T) {
	eachUser(t, func(t *testing.T, u account) {
		p := start(t, u, "defy", envGrace+"=50ms")
		p.line(t)
		require.NoError(t, p.Process.Signal(syscall.SIGINT))
		assert.Equal(t, 128+2, p.code(t))
	})
}

func TestTheEndOfTheContextEndsTheProgram(t *testing.T) {
	eachUser(t, func(t *testing.T, u account) {
		code, _, stderr := result(t, u, "cancelled", envGrace+"=50ms")
		if code == 98 {
			assert.Contains(t, stderr, "enough of this", "killed, since it ignores the SIGTERM")
		} else {
			assert.Contains(t, []int{2, 143}, code, "the SIGTERM came before it ignored that: %s", stderr)
		}
	})
}

func TestNothingIsLeftOfAProgramThatLeavesChildrenBehind(t *testing.T) {
	eachUser(t, func(t *testing.T, u account) {
		p := start(t, u, "family leave")
		s := p.sight(t)
		assert.Equal(t, 0, p.code(t))
		nothingLeft(t, p.mark, s.Namespaces)
	})
}

func TestNothingIsLeftAfterKill9OfTheOuterProcess(t *testing.T) {
	eachUser(t, func(t *testing.T, u account) {
		t.Run("when all is running", func(t *testing.T) {
			p := start(t, u, "family")
			s := p.sight(t)
			// The one whose parent has gone may be about to become another program, and has then no environment to be
			// found by.
			require.Eventually(t, func() bool { return len(marked(p.mark)) >= 5 }, 10*time.Second, time.Millisecond,
				"outer, PID 1, worker and two children")
			require.NoError(t, p.Process.Kill())
			_ = p.Cmd.Wait()
			nothingLeft(t, p.mark, s.Namespaces)
		})
		t.Run("at any moment of the start", func(t *testing.T) {
			// From nothing to the program running takes some 20 ms.
			for i := range 40 {
				p := prepare(t, u, "family")
				require.NoError(t, p.Start())
				<-time.After(time.Duration(i) * time.Millisecond)
				require.NoError(t, p.Process.Kill())
				_ = p.Cmd.Wait()
				nothingLeft(t, p.mark, nil)
			}
		})
		t.Run("when PID 1 is stopped", func(t *testing.T) {
			p := start(t, u, "stay")
			s := p.sight(t)
			for _, pid := range marked(p.mark) {
				if pid != p.Process.Pid {
					require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
				}
			}
			require.NoError(t, p.Process.Kill())
			_ = p.Cmd.Wait()
			nothingLeft(t, p.mark, s.Namespaces)
		})
	})
}

func TestOrphansAreReapedAndChildrenAreNot(t *testing.T) {
	eachUser(t, func(t *testing.T, u account) {
		code, _, stderr := result(t, u, "orphans")
		assert.Equal(t, 0, code, stderr)
	})
}

func TestThereIsNoRouteToTheOutside(t *testing.T) {
	eachUser(t, func(t *testing.T, u account) {
		code, stdout, stderr := result(t, u, "dial")
		require.Equal(t, 0, code, stderr)
		lines := strings.Split(strings.TrimSpace(stdout), "\n")
		require.Len(t, lines, 4)
		for _, line := range lines {
			assert.Contains(t, line, " true ", "ENETUNREACH")
		}
	})
}

func TestSysctlsOfTheNetworkCanBeSet(t *testing.T) {
	eachUser(t, func(t *testing.T, u account) {
		before, err := os.ReadFile("/proc/sys/net/ipv4/conf/lo/rp_filter")
		require.NoError(t, err)
		code, _, stderr := result(t, u, "sysctl")
		assert.Equal(t, 0, code, stderr)
		after, err := os.ReadFile("/proc/sys/net/ipv4/conf/lo/rp_filter")
		require.NoError(t, err)
		assert.Equal(t, before, after, "the machine's own stay as they are")
	})
}

func TestRunAndTemporaryFilesArePrivate(t *testing.T) {
	eachUser(t, func(t *testing.T, u account) {
		code, _, stderr := result(t, u, "files")
		assert.Equal(t, 0, code, stderr)
		assert.NoFileExists(t, "/run/sandbox-test")
		assert.NoFileExists(t, filepath.Join(os.TempDir(), "sandbox-test"))
		assert.NoDirExists(t, "/run/netproof")
	})
}

func TestFoldersInRunAreTheMachinesAndFilesOfServicesAreNotThere(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to make a folder in /run")
	}
	folder, err := os.MkdirTemp("/run", "sandbox-test-")
	require.NoError(t, err)
	pid := folder + ".pid"
	t.Cleanup(func() { require.NoError(t, errors.Join(os.RemoveAll(folder), os.Remove(pid))) })
	require.NoError(t, errors.Join(
		os.Chmod(folder, 0o777),
		os.Mkdir(filepath.Join(folder, "in"), 0o755),
		os.WriteFile(filepath.Join(folder, "in", "scenario"), []byte("a scenario"), 0o644),
		os.WriteFile(pid, []byte("1"), 0o644),
	))
	eachUser(t, func(t *testing.T, u account) {
		code, _, stderr := result(t, u, "shared "+folder)
		require.Equal(t, 0, code, stderr)
		report := filepath.Join(folder, "report")
		text, err := os.ReadFile(report)
		require.NoError(t, err)
		assert.Equal(t, "a scenario was proven", string(text))
		require.NoError(t, os.Remove(report))
	})
}

func TestTwoSandboxesRunSideBySide(t *testing.T) {
	eachUser(t, func(t *testing.T, u account) {
		one, two := start(t, u, "listen"), start(t, u, "listen")
		assert.NotEqual(t, one.sight(t).Namespaces, two.sight(t).Namespaces)
	})
}

func TestASandboxCanHoldAnother(t *testing.T) {
	eachUser(t, func(t *testing.T, u account) {
		code, _, stderr := result(t, u, "nested")
		assert.Equal(t, 23, code, stderr)
	})
}

func TestCheckSaysWhetherSandboxesWork(t *testing.T) {
	eachUser(t, func(t *testing.T, u account) {
		code, stdout, stderr := result(t, u, "check")
		assert.Equal(t, 0, code, stderr)
		assert.Empty(t, stdout)
	})
}

func TestAnObstacleIsNamedWithItsFix(t *testing.T) {
	eachUser(t, func(t *testing.T, u account) {
		if u.id == 0 {
			t.Skip("the limit would be the machine's; in a user namespace it is private")
		}
		code, stdout, stderr := result(t, u, "limited")
		assert.Equal(t, 0, code, stderr)
		assert.Contains(t, stdout, "because user.max_net_namespaces is 0")
		assert.Contains(t, stdout, "fix: sudo sysctl -w user.max_net_namespaces=")
	})
}

func TestARootWithoutPrivilegesUsesAUserNamespace(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		t.Skip("needs setpriv of util-linux: ", err)
	}
	p := prepare(t, account{}, "look")
	p.Args = []string{"setpriv", "--bounding-set=-sys_admin", p.Path}
	p.Path = setpriv
	var out bytes.Buffer
	p.Stdout = &out
	require.NoError(t, p.Run(), "%s", p.stderr)
	var s sight
	require.NoError(t, json.Unmarshal(out.Bytes(), &s))
	assert.NotEqual(t, look().Namespaces["user"], s.Namespaces["user"])
	nothingLeft(t, p.mark, s.Namespaces)
}

func TestAContainerThatHidesPartsOfProcIsNamedAsTheObstacle(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to hide them")
	}
	for _, tool := range []string{"setpriv", "mount"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("needs util-linux: ", err)
		}
	}
	p := prepare(t, account{}, "look")
	p.Args = []string{"sh", "-c", `mount --make-rprivate / && mount --bind /dev/null /proc/meminfo &&
		exec setpriv --reuid 65534 --regid 65534 --clear-groups ` + p.Path}
	p.Path = "/bin/sh"
	p.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS
	err := p.Run()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	assert.Equal(t, 99, exit.ExitCode(), "%s", p.stderr)
	assert.Contains(t, p.stderr.String(), "mount /proc for the sandbox: operation not permitted")
	assert.Contains(t, p.stderr.String(), "because parts of /proc are hidden (/proc/meminfo)")
	assert.Contains(t, p.stderr.String(), "--security-opt systempaths=unconfined")
	nothingLeft(t, p.mark, nil)
}
