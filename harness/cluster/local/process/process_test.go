//go:build linux

package process_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/netproof/netproof/harness/cluster/local/process"
)

func newGroup(t *testing.T) (*process.Group, *process.Thread, string) {
	t.Helper()
	dir := t.TempDir()
	group, err := process.NewGroup(dir)
	require.NoError(t, err)
	thread, err := process.NewThread(nil)
	require.NoError(t, err)
	t.Cleanup(func() {
		group.Kill()
		thread.Close()
	})
	return group, thread, dir
}

func sh(name, script string) process.Command {
	return process.Command{Name: name, Path: "/bin/sh", Args: []string{"-c", script}, Env: []string{"PATH=" + os.Getenv("PATH")}}
}

func whats(group *process.Group) []string {
	var all []string
	for _, e := range group.Events() {
		all = append(all, e.What)
	}
	return all
}

func TestDeathThatNobodyAskedForIsKept(t *testing.T) {
	group, thread, _ := newGroup(t)
	require.NoError(t, group.Err())
	p, err := group.Start(thread, sh("victim", "echo first; echo last words >&2; exit 3"))
	require.NoError(t, err)
	<-group.Failed()
	<-p.Done()
	var death *process.DeathError
	require.ErrorAs(t, group.Err(), &death)
	assert.Equal(t, "victim", death.Name)
	assert.Contains(t, death.Status, "3")
	assert.Contains(t, group.Err().Error(), "last words")
	assert.Equal(t, []string{"started", "died"}, whats(group))
	assert.False(t, p.Alive())
}

func TestStopIsNoFailure(t *testing.T) {
	group, thread, _ := newGroup(t)
	p, err := group.Start(thread, sh("server", "trap 'exit 0' TERM; while :; do sleep 0.01; done"))
	require.NoError(t, err)
	assert.True(t, p.Alive())
	p.Stop(10 * time.Second)
	assert.False(t, p.Alive())
	require.NoError(t, group.Err())
	assert.Equal(t, []string{"started", "stopped"}, whats(group))
}

func TestStopKillsWhatDoesNotListen(t *testing.T) {
	group, thread, _ := newGroup(t)
	p, err := group.Start(thread, sh("deaf", "trap '' TERM; while :; do sleep 0.01; done"))
	require.NoError(t, err)
	p.Stop(50 * time.Millisecond)
	assert.False(t, p.Alive())
	require.NoError(t, group.Err())
}

func TestProgramIsStartedAgainByItsExitCodeAlone(t *testing.T) {
	group, thread, dir := newGroup(t)
	mark := filepath.Join(dir, "mark")
	command := sh("phoenix", "test -e "+mark+" && exit 7; touch "+mark+"; exit 129")
	command.RestartOn = []int{129}
	p, err := group.Start(thread, command)
	require.NoError(t, err)
	<-p.Done()
	assert.Equal(t, []string{"started", "restarted", "died"}, whats(group))
	require.ErrorContains(t, group.Err(), "exit status 7")
}

func TestProgramThatAsksForeverIsTakenForBroken(t *testing.T) {
	group, thread, _ := newGroup(t)
	command := sh("loop", "exit 129")
	command.RestartOn = []int{129}
	p, err := group.Start(thread, command)
	require.NoError(t, err)
	<-p.Done()
	require.ErrorContains(t, group.Err(), "exit status 129")
}

func TestWatchTellsOfTheEnd(t *testing.T) {
	group, thread, _ := newGroup(t)
	p, err := group.Start(thread, sh("short", "echo no such flag; exit 2"))
	require.NoError(t, err)
	require.ErrorContains(t, p.Watch(t.Context()), "no such flag")
}

func TestChildrenDieWithTheirThread(t *testing.T) {
	group, thread, _ := newGroup(t)
	p, err := group.Start(thread, sh("orphan", "while :; do sleep 0.01; done"))
	require.NoError(t, err)
	thread.Close()
	<-p.Done()
	require.ErrorContains(t, group.Err(), "killed")
}

func TestProgramThatIsNotThereIsAnError(t *testing.T) {
	group, thread, _ := newGroup(t)
	_, err := group.Start(thread, process.Command{Name: "ghost", Path: "/nonexistent/ghost"})
	require.ErrorContains(t, err, "start ghost")
	assert.Empty(t, group.Processes())
}

func TestLogIsBounded(t *testing.T) {
	group, thread, dir := newGroup(t)
	p, err := group.Start(thread, sh("node/chatter", `i=0; while [ $i -lt 300 ]; do head -c 65536 /dev/zero | tr '\0' x; echo; i=$((i+1)); done; echo the end`))
	require.NoError(t, err)
	<-p.Done()
	assert.True(t, strings.HasSuffix(p.Tail(1), "the end"))
	total := int64(0)
	for _, name := range []string{"chatter.log", "chatter.log.1"} {
		info, err := os.Stat(filepath.Join(dir, "node", name))
		require.NoError(t, err)
		total += info.Size()
	}
	assert.Less(t, total, int64(9<<20))
	newest, err := os.ReadFile(filepath.Join(dir, "node", "chatter.log"))
	require.NoError(t, err)
	assert.True(t, bytes.HasSuffix(newest, []byte("the end\n")))
}

func TestThreadKeepsToItself(t *testing.T) {
	var ids [2]int
	threads := make([]*process.Thread, 2)
	for i := range threads {
		var err error
		threads[i], err = process.NewThread(nil)
		require.NoError(t, err)
		require.NoError(t, threads[i].Do(func() error { ids[i] = unix.Gettid(); return nil }))
	}
	assert.NotEqual(t, ids[0], ids[1])
	for i := range threads {
		require.NoError(t, threads[i].Do(func() error {
			assert.Equal(t, ids[i], unix.Gettid(), "every function runs on the same thread")
			assert.NotEqual(t, unix.Getpid(), unix.Gettid(), "the main thread is left alone")
			return nil
		}))
		threads[i].Close()
		threads[i].Close()
		require.ErrorIs(t, threads[i].Do(func() error { return nil }), process.ErrThreadClosed)
	}
}

func TestThreadWhoseSetUpFailsIsNotMade(t *testing.T) {
	wanted := errors.New("no")
	_, err := process.NewThread(func() error { return wanted })
	require.ErrorIs(t, err, wanted)
}
