package lease

import (
	"os"
	"os/exec"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAProcessIsGoneOnlyWhenThatIsCertain(t *testing.T) {
	me := self()
	require.NotEmpty(t, me.Boot)
	require.NotEmpty(t, me.Started)
	assert.False(t, me.gone(), "this one runs")
	assert.Equal(t, me, readProcess(me.String()))

	again := me
	again.Started = "1"
	assert.True(t, again.gone(), "another process has the number now")

	child := exec.Command("sleep", "60")
	require.NoError(t, child.Start())
	running := me
	running.PID = child.Process.Pid
	var err error
	running.Started, err = started(child.Process.Pid)
	require.NoError(t, err)
	assert.False(t, running.gone())
	require.NoError(t, child.Process.Kill())
	require.Error(t, child.Wait())
	assert.True(t, running.gone(), "it has ended")

	for name, change := range map[string]func(*process){
		"another boot or machine":  func(p *process) { p.Boot = "another" },
		"another container":        func(p *process) { p.Namespace = "pid:[1]" },
		"nothing was written down": func(p *process) { *p = process{} },
	} {
		other := running
		change(&other)
		assert.False(t, other.gone(), name)
	}
	assert.Equal(t, process{}, readProcess("no such text"))
}

// Whoever waits for a Lease asks once a second.
func TestAskingForAProcessLeavesNoDescriptor(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // it would close what was forgotten
	open := func() int {
		names, err := os.ReadDir("/proc/self/fd")
		require.NoError(t, err)
		return len(names)
	}
	me := self()
	again := me
	again.Started = "1"
	before := open()
	for range 20 {
		assert.False(t, me.gone())
		assert.True(t, again.gone())
	}
	assert.Equal(t, before, open())
}
