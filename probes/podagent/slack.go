//go:build linux

package podagent

import (
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// timerSlack is by how much timers of an agent's threads may be late, instead of the kernel's default of 50 µs. An
// agent takes no time from a timer that would notice: answers wake it up, and time-outs of probes are two orders
// longer.
const timerSlack = 2 * time.Millisecond

// slackVariable marks the environment of a process that has the slack.
const slackVariable = "NETPROOF_TIMER_SLACK"

// slacken makes this process sleep in longer steps. As long as a Go program has anything to do, a thread of its
// runtime (sysmon) sleeps 20 µs, looks around, and sleeps again. With an agent in each of many pods on a machine,
// most of its context switches are those. A thread can change the slack of none but itself, and threads that it
// starts inherit it, so the program begins once more (prctl(2), PR_SET_TIMERSLACK: the slack stays through execve).
// Where that is refused, the agent works all the same.
func slacken() {
	if os.Getenv(slackVariable) != "" {
		return
	}
	executable, err := os.Executable()
	if err != nil {
		return
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(timerSlack.Nanoseconds()), 0, 0, 0) != nil {
		return
	}
	_ = syscall.Exec(executable, os.Args, append(os.Environ(), slackVariable+"=1")) // it only returns when it failed
}
