//go:build linux

package podagent

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// toldVariable makes the test below the process that begins once more.
const toldVariable = "NETPROOF_TEST_TELL_SLACK"

func TestAProcessBeginsOnceMoreWithTimersThatMayBeLate(t *testing.T) {
	if os.Getenv(toldVariable) != "" {
		slacken()
		told := make(chan int)
		go func() {
			runtime.LockOSThread() // it ends with the goroutine, so that it is a thread of its own
			slack, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
			assert.NoError(t, err)
			told <- slack
		}()
		fmt.Printf("slack of %d ns in process %d\n", <-told, os.Getpid())
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), toldVariable+"=1")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	assert.Contains(t, string(out), fmt.Sprintf("slack of %d ns in process %d\n", timerSlack.Nanoseconds(), cmd.Process.Pid))
}
