//go:build unix

package inherit

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// first is the descriptor of the first file that was given.
const first = 3

// Files are what the command is given.
func Files(cmd *exec.Cmd, files ...*os.File) { cmd.ExtraFiles = files }

// File is one of those that this process was given.
func File(number int, name string) *os.File { return os.NewFile(uintptr(first+number), name) }

// Keep keeps a file that this process was given from those that it starts.
func Keep(number int) { unix.CloseOnExec(first + number) }

// PassOn gives every process that this one starts a file that it was given itself, under the same number.
func PassOn(numbers ...int) error {
	for _, n := range numbers {
		if _, err := unix.FcntlInt(uintptr(first+n), unix.F_SETFD, 0); err != nil {
			return fmt.Errorf("hand on descriptor %d: %w", first+n, err)
		}
	}
	return nil
}

// OwnGroup keeps an interrupt from the terminal from a command.
func OwnGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// OwnSession keeps all signals of a terminal from a command, also the one of its end.
func OwnSession(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }
