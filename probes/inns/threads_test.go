//go:build linux

package inns

import (
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	patience  = 10 * time.Second
	lookEvery = time.Millisecond
)

// threadsIn returns the ids of the threads of this process that are in ns.
func threadsIn(t *testing.T, ns netns.NsHandle) []int {
	t.Helper()
	var want unix.Stat_t
	require.NoError(t, unix.Fstat(int(ns), &want))
	tasks, err := filepath.Glob("/proc/self/task/*/ns/net")
	require.NoError(t, err)
	require.NotEmpty(t, tasks)
	var inside []int
	for _, task := range tasks {
		var got unix.Stat_t
		if unix.Stat(task, &got) != nil {
			continue // the thread has ended
		}
		if got.Ino == want.Ino && got.Dev == want.Dev {
			tid, err := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(task))))
			require.NoError(t, err)
			inside = append(inside, tid)
		}
	}
	return inside
}
