//go:build linux

package sandbox_test

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// first finds the PID 1 of a program's sandbox, as this process sees it.
func first(t *testing.T, p *program) int {
	t.Helper()
	for _, pid := range marked(p.mark) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		require.NoError(t, err)
		for line := range strings.Lines(string(text)) {
			if ids, ok := strings.CutPrefix(line, "NSpid:"); ok && strings.HasSuffix(strings.TrimSpace(ids), "\t1") {
				return pid
			}
		}
	}
	require.Fail(t, "no PID 1")
	return 0
}

// host starts a sandbox to enter.
func host(t *testing.T, u account) (s sight, target string) {
	t.Helper()
	p := start(t, u, "stay")
	s = p.sight(t)
	return s, envTarget + "=" + strconv.Itoa(first(t, p))
}

func TestEnteringBringsThisProgramIntoTheNamespaces(t *testing.T) {
	eachUser(t, func(t *testing.T, u account) {
		s, target := host(t, u)
		p := start(t, u, "stay", target)
		entered := p.sight(t)
		assert.Equal(t, s.Namespaces, entered.Namespaces)
		assert.True(t, entered.Inside)
		assert.Equal(t, s.TempDir, entered.TempDir)
		assert.Equal(t, p.Args, entered.Args)
		assert.Equal(t, "/", entered.Dir)
	})
}

func TestExitCodesPassThroughWhenEntering(t *testing.T) {
	eachUser(t, func(t *testing.T, u account) {
		_, target := host(t, u)
		for what, want := range map[string]int{"exit 0": 0, "exit 7": 7, "die 9": 137} {
			code, _, stderr := result(t, u, what, target)
			assert.Equal(t, want, code, "%s: %s", what, stderr)
		}
		code, stdout, stderr := result(t, u, "x", target, envExec+"=cat /proc/1/comm")
		assert.Equal(t, 0, code, stderr)
		assert.Equal(t, "exe\n", stdout)
		code, _, stderr = result(t, u, "x", target, envExec+"=no-such-program")
		assert.Equal(t, 127, code)
		assert.Contains(t, stderr, "no-such-program")
	})
}

func TestEnteringLeavesNoDescriptorsOfTheWayOpen(t *testing.T) {
	eachUser(t, func(t *testing.T, u account) {
		_, target := host(t, u)
		code, stdout, stderr := result(t, u, "x", target, envExec+"=ls /proc/self/fd")
		assert.Equal(t, 0, code, stderr)
		// go test and what started it may have left some open, too.
		plain, err := exec.Command("ls", "/proc/self/fd").Output()
		require.NoError(t, err)
		assert.Equal(t, strings.Fields(string(plain)), strings.Fields(stdout))
	})
}

func TestASignalEndsAnEnteredProgramGracefully(t *testing.T) {
	eachUser(t, func(t *testing.T, u account) {
		_, target := host(t, u)
		for _, s := range endings() {
			p := start(t, u, "trap", target)
			p.line(t)
			require.NoError(t, p.Process.Signal(s))
			assert.Equal(t, s.String(), p.line(t))
			assert.Equal(t, 40, p.code(t))
		}
		p := start(t, u, "defy", target, envGrace+"=50ms")
		p.line(t)
		require.NoError(t, p.Process.Signal(syscall.SIGINT))
		assert.Equal(t, 128+2, p.code(t))
	})
}

func TestNothingIsLeftAfterKill9OfTheEnteringProcess(t *testing.T) {
	eachUser(t, func(t *testing.T, u account) {
		_, target := host(t, u)
		for _, env := range [][]string{{target}, {target, envExec + "=sleep 1000"}} {
			p := start(t, u, "stay", env...)
			require.Eventually(t, func() bool { return len(marked(p.mark)) == 3 }, 10*time.Second, 5*time.Millisecond,
				"the entering process, nsenter, and what it brought in")
			require.NoError(t, p.Process.Kill())
			_ = p.Cmd.Wait()
			nothingLeft(t, p.mark, nil)
			for i := range 20 {
				p := prepare(t, u, "stay", env...)
				require.NoError(t, p.Start())
				<-time.After(time.Duration(i) * time.Millisecond)
				require.NoError(t, p.Process.Kill())
				_ = p.Cmd.Wait()
				nothingLeft(t, p.mark, nil)
			}
		}
	})
}

func TestAnEnteredProgramDiesWithNsenter(t *testing.T) {
	eachUser(t, func(t *testing.T, u account) {
		_, target := host(t, u)
		p := start(t, u, "stay", target)
		p.sight(t)
		for _, pid := range marked(p.mark) {
			name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
			if err == nil && string(name) == "nsenter\n" {
				require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
			}
		}
		assert.Equal(t, 137, p.code(t))
		nothingLeft(t, p.mark, nil)
	})
}

func TestEnteringASandboxThatHasGoneIsAnError(t *testing.T) {
	eachUser(t, func(t *testing.T, u account) {
		p := prepare(t, u, "exit 0")
		require.NoError(t, p.Run())
		code, _, stderr := result(t, u, "exit 0", envTarget+"="+strconv.Itoa(p.Process.Pid))
		assert.Equal(t, 98, code)
		assert.Contains(t, stderr, "open namespaces of process")
	})
}

// terminal opens a new pseudo terminal.
func terminal(t *testing.T) (screen, tty *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = screen.Close() })
	require.NoError(t, unix.IoctlSetPointerInt(int(screen.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(screen.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = tty.Close() })
	return screen, tty
}

func TestAShellHasTheTerminalAndJobControl(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("needs bash: ", err)
	}
	eachUser(t, func(t *testing.T, u account) {
		s, target := host(t, u)
		screen, tty := terminal(t)
		p := prepare(t, u, "x", target, envExec+"="+bash+" --norc --noprofile -i", "PS1=> ")
		p.Stdin, p.Stdout, p.Stderr = tty, tty, tty
		p.SysProcAttr.Setsid = true
		p.SysProcAttr.Setctty = true
		require.NoError(t, p.Start())
		require.NoError(t, tty.Close())

		chunks := make(chan string, 100)
		go func() {
			defer close(chunks)
			buf := make([]byte, 4096)
			for {
				n, err := screen.Read(buf)
				if err != nil {
					return
				}
				chunks <- string(buf[:n])
			}
		}()
		say := func(text string) {
			_, err := screen.WriteString(text)
			require.NoError(t, err)
		}
		seen, heard, end := "", 0, "the end"
		hear := func(want string) {
			t.Helper()
			timeout := time.After(10 * time.Second)
			for {
				if i := strings.Index(seen[heard:], want); i >= 0 {
					heard += i + len(want)
					return
				}
				select {
				case chunk, ok := <-chunks:
					if !ok && want == end {
						return
					}
					require.True(t, ok, "ended before %q: %q", want, seen)
					seen += chunk
				case <-timeout:
					require.Fail(t, "timeout", "waiting for %q: %q", want, seen)
				}
			}
		}
		hear("> ")
		say("readlink /proc/self/ns/net\n")
		hear(s.Namespaces["net"])
		hear("> ")
		say("echo $((20+1)); sleep 1000\n")
		hear("21")
		// The interrupt must end the sleep and neither the shell nor what brought it in.
		require.Eventually(t, func() bool { return sleeps(p) == 1 }, 10*time.Second, 5*time.Millisecond)
		say("\x03")
		require.Eventually(t, func() bool { return sleeps(p) == 0 }, 10*time.Second, 5*time.Millisecond)
		hear("> ")
		say("echo $((20+2)); sleep 1000\n")
		hear("22")
		require.Eventually(t, func() bool { return sleeps(p) == 1 }, 10*time.Second, 5*time.Millisecond)
		say("\x1a") // job control: stop it, list it, end it
		hear("Stopped")
		hear("> ") // bash drops what is typed before
		say("kill -9 %1\n")
		require.Eventually(t, func() bool { return sleeps(p) == 0 }, 10*time.Second, 5*time.Millisecond)
		say("exit 5\nexit 5\n") // the first is refused if bash has not noticed the end of its job yet
		hear(end)
		assert.NotContains(t, seen, "no job control")
		_ = p.Cmd.Wait()
		assert.Equal(t, 5, p.ProcessState.ExitCode(), "%q", seen)
		nothingLeft(t, p.mark, nil)
	})
}

// sleeps counts the program's processes that are called sleep.
func sleeps(p *program) int {
	n := 0
	for _, pid := range marked(p.mark) {
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if err == nil && string(name) == "sleep\n" {
			n++
		}
	}
	return n
}
