package inherit

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// envHandles are the handles that a process was given, separated by commas: Windows gives them no numbers that are
// known beforehand.
const envHandles = "NETPROOF_INHERITED"

// Files are what the command is given. They are in its environment, which has to be complete before.
func Files(cmd *exec.Cmd, files ...*os.File) {
	attributes(cmd)
	var numbers []string
	for _, f := range files {
		h := syscall.Handle(f.Fd())
		// If it fails, the process cannot be started, and that is told.
		_ = syscall.SetHandleInformation(h, syscall.HANDLE_FLAG_INHERIT, syscall.HANDLE_FLAG_INHERIT)
		cmd.SysProcAttr.AdditionalInheritedHandles = append(cmd.SysProcAttr.AdditionalInheritedHandles, h)
		numbers = append(numbers, strconv.FormatUint(uint64(h), 10))
	}
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, envHandles+"="+strings.Join(numbers, ","))
}

// File is one of those that this process was given.
func File(number int, name string) *os.File {
	handle := uint64(syscall.InvalidHandle) // reading it fails, as it does for a file that was not given
	if numbers := strings.Split(os.Getenv(envHandles), ","); number < len(numbers) {
		if h, err := strconv.ParseUint(numbers[number], 10, 64); err == nil {
			handle = h
		}
	}
	return os.NewFile(uintptr(handle), name)
}

// Keep does nothing: a process is only given what is named.
func Keep(int) {}

// PassOn does nothing: what kind starts is started by its own code, which names no files. So the other end of a pipe
// tells here when the process that was given a file has ended, and not when the commands have that it left behind.
func PassOn(...int) error { return nil }

// OwnGroup keeps a Ctrl-C from the console from a command.
func OwnGroup(cmd *exec.Cmd) {
	attributes(cmd)
	cmd.SysProcAttr.CreationFlags |= syscall.CREATE_NEW_PROCESS_GROUP
}

// OwnSession is [OwnGroup]: the end of the console ends the command all the same.
func OwnSession(cmd *exec.Cmd) { OwnGroup(cmd) }

func attributes(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
}
