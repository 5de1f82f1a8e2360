package kind

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/kind/engine"
	"github.com/netproof/netproof/harness/cni/install"
)

// runnerEnv makes of the test binary a runner that the test can kill.
const runnerEnv = "NETPROOF_TEST_KIND_RUNNER"

// runnerMain plays a process that has a cluster, until it is killed or its standard input ends.
func runnerMain(task string) int {
	what, arg, _ := strings.Cut(task, ":")
	say := func(text string) { fmt.Println(text) }
	switch what {
	case "watched", "released":
		e := &engine.Engine{Name: engine.Docker}
		w, err := startWatchdog(e, watchdogTask{Engine: e.Name, Name: "c", Files: []string{arg}})
		if err != nil {
			say(err.Error())
			return 1
		}
		if what == "released" {
			if err := w.release(); err != nil {
				say(err.Error())
				return 1
			}
		}
		say("ready")
	case "cluster":
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		p, err := New(Options{Name: arg, Executable: os.Getenv(agentEnv), CNI: install.Options{Manifest: os.Getenv(manifestEnv), Chart: os.Getenv(chartEnv)}, Progress: func(s string) { say("progress: " + s) }})
		if err == nil {
			_, err = p.Start(ctx, clusterOptions(""))
		}
		if err != nil {
			say(err.Error())
			return 1
		}
		say("ready")
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

func clusterOptions(name string) cluster.Options {
	return cluster.Options{Name: name, CNI: testCNI(), Nodes: 1, IPFamilies: testFamilies()}
}

// startRunner starts one and returns when it has said so.
func startRunner(t *testing.T, task, ready string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^$")
	cmd.Env = append(os.Environ(), runnerEnv+"="+task)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = stdin.Close()
		_ = cmd.Wait()
	})
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		t.Logf("runner: %s", lines.Text())
		if strings.Contains(lines.Text(), ready) {
			go func() { _, _ = io.Copy(io.Discard, stdout) }()
			return cmd
		}
	}
	require.Fail(t, "the runner did not get as far as "+ready)
	return nil
}

// fakeDocker puts a program in front of PATH that knows one cluster, and writes down what it is asked for. It returns
// that list, and a file that keeps commands called slow at work as long as it is there.
func fakeDocker(t *testing.T) (calls func() string, slow string) {
	t.Helper()
	dir := t.TempDir()
	log, gone, slow := filepath.Join(dir, "log"), filepath.Join(dir, "gone"), filepath.Join(dir, "slow")
	script := fmt.Sprintf(`#!/bin/sh
echo "$@" >> %[1]s
case "$1 $2" in
"ps -a") [ -e %[2]s ] || echo 1234 ;;
"inspect --type=container") echo '[{"Id":"1234","Name":"/c-control-plane","Config":{"Labels":{"io.x-k8s.kind.cluster":"c"}},"HostConfig":{"NetworkMode":"netproof-c"}}]' ;;
"rm -f") touch %[2]s ;;
"network inspect") echo '[{"Name":"netproof-c","Labels":{"netproof.dev/cluster":"c"}}]' ;;
"slow command") while [ -e %[3]s ]; do /bin/sleep 0.05; done; echo slow ended >> %[1]s ;;
esac
`, log, gone, slow)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "docker"), []byte(script), 0o755))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return func() string {
		text, err := os.ReadFile(log)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			require.NoError(t, err)
		}
		return string(text)
	}, slow
}

func TestTheWatchdogRemovesAClusterWhoseRunnerWasKilled(t *testing.T) {
	calls, _ := fakeDocker(t)
	dir := filepath.Join(t.TempDir(), "files")
	require.NoError(t, os.Mkdir(dir, 0o700))
	runner := startRunner(t, "watched:"+dir, "ready")
	assert.Empty(t, calls(), "it does nothing as long as the runner lives")
	require.NoError(t, runner.Process.Kill())
	require.Eventually(t, func() bool {
		_, err := os.Stat(dir)
		return errors.Is(err, os.ErrNotExist)
	}, 10*time.Second, 10*time.Millisecond)
	assert.Contains(t, calls(), "rm -f -v 1234")
	assert.Contains(t, calls(), "network rm netproof-c\n")
	assert.Less(t, strings.Index(calls(), "rm -f -v 1234"), strings.Index(calls(), "network rm"), "the network, by which the rest is found, goes last")
}

func TestTheWatchdogDoesNothingOnceItWasReleased(t *testing.T) {
	calls, _ := fakeDocker(t)
	dir := filepath.Join(t.TempDir(), "files")
	require.NoError(t, os.Mkdir(dir, 0o700))
	runner := startRunner(t, "released:"+dir, "ready")
	require.NoError(t, runner.Process.Kill())
	_, _ = runner.Process.Wait()
	require.Never(t, func() bool { return calls() != "" }, time.Second, 20*time.Millisecond)
	assert.DirExists(t, dir)
}

// What a command still makes that was started before the death of the runner must not outlive the removal.
func TestTheWatchdogWaitsForCommandsThatTheRunnerLeft(t *testing.T) {
	calls, slow := fakeDocker(t)
	require.NoError(t, os.WriteFile(slow, nil, 0o644))
	e := &engine.Engine{Name: engine.Docker}
	w, err := startWatchdog(e, watchdogTask{Engine: e.Name, Name: "c"})
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() {
		_, err := e.Change(context.Background(), nil, "slow", "command")
		done <- err
	}()
	require.Eventually(t, func() bool { return strings.Contains(calls(), "slow command") }, 10*time.Second, 10*time.Millisecond)
	require.NoError(t, errors.Join(w.abandon(), e.Held.Close()))
	require.Eventually(t, func() bool { return strings.Contains(calls(), "rm -f") }, 10*time.Second, 10*time.Millisecond)
	require.Never(t, func() bool { return strings.Contains(calls(), "network rm") }, time.Second, 20*time.Millisecond)
	require.NoError(t, os.Remove(slow))
	require.NoError(t, <-done)
	require.Eventually(t, func() bool { return strings.Contains(calls(), "network rm netproof-c") }, 10*time.Second, 10*time.Millisecond)
}

func TestACommandThatChangesSomethingIsNotInterrupted(t *testing.T) {
	calls, slow := fakeDocker(t)
	require.NoError(t, os.WriteFile(slow, nil, 0o644))
	e := &engine.Engine{Name: engine.Docker}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := e.Change(ctx, nil, "slow", "command")
		done <- err
	}()
	require.Eventually(t, func() bool { return strings.Contains(calls(), "slow command") }, 10*time.Second, 10*time.Millisecond)
	cancel()
	require.NoError(t, os.Remove(slow))
	require.NoError(t, <-done)
	assert.Contains(t, calls(), "slow ended")
	_, err := e.Change(ctx, nil, "slow", "command")
	require.ErrorIs(t, err, context.Canceled, "but none begins any more")
}

func TestAProgramWithoutInitMakesNoCluster(t *testing.T) {
	initialized = false
	defer func() { initialized = true }()
	p, err := New(Options{})
	require.NoError(t, err)
	_, err = p.Create(t.Context(), cluster.Options{})
	require.ErrorIs(t, err, errNoInit)
}

func TestASessionEndsWithItsInput(t *testing.T) {
	s, err := startSession(exec.Command("cat"))
	require.NoError(t, err)
	_, err = s.Write([]byte("there and back\n"))
	require.NoError(t, err)
	line, err := bufio.NewReader(s).ReadString('\n')
	require.NoError(t, err)
	assert.Equal(t, "there and back\n", line)
	require.NoError(t, s.Close())
	require.NoError(t, s.Close(), "closing again does nothing")
	assert.True(t, s.cmd.ProcessState.Success())
}

func TestASessionThatDoesNotEndIsKilled(t *testing.T) {
	s, err := startSession(exec.Command("sleep", "60"))
	require.NoError(t, err)
	began := time.Now()
	require.NoError(t, s.Close())
	assert.Less(t, time.Since(began), 10*time.Second)
}

func TestASessionSaysWhyItsProgramEnded(t *testing.T) {
	s, err := startSession(exec.Command("sh", "-c", "echo no such node >&2; exit 3"))
	require.NoError(t, err)
	_, err = io.ReadAll(s)
	require.ErrorContains(t, err, "exit status 3: no such node")
	require.NoError(t, s.Close())
}
