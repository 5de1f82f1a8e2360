package lease

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// process tells a process from all others of the machine, those of other containers included.
type process struct {
	// Boot is the kernel's id of this boot of the machine.
	Boot string `json:"boot"`
	// Namespace is the PID namespace that the number belongs to.
	Namespace string `json:"namespace"`
	PID       int    `json:"pid"`
	// Started is when it started, in the kernel's ticks since the boot; numbers are used again.
	Started string `json:"started"`
}

// self is this process. It is empty where there is no /proc.
func self() process {
	p := process{PID: os.Getpid()}
	var err error
	if p.Boot, p.Namespace, err = here(); err == nil {
		p.Started, err = started(p.PID)
	}
	if err != nil {
		return process{}
	}
	return p
}

// here is the boot of this machine, and this process's PID namespace.
func here() (boot, namespace string, err error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", "", err
	}
	namespace, err = os.Readlink("/proc/self/ns/pid")
	return strings.TrimSpace(string(text)), namespace, err
}

// started is field 22 of /proc/PID/stat, see proc_pid_stat(5). The second field is a name in brackets that may hold
// anything.
func started(pid int) (string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	const index = 22 - 3 // the first that is left is the third
	if len(fields) <= index {
		return "", fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields)+2)
	}
	return fields[index], nil
}

// gone tells that the process has ended. It is false where that cannot be told, as for processes of other machines.
func (p process) gone() bool {
	boot, namespace, err := here()
	if err != nil || p.PID <= 0 || p.Boot != boot || p.Namespace != namespace {
		return false
	}
	// /proc may hide the processes of others, a signal does not.
	if ended(p.PID) {
		return true
	}
	now, err := started(p.PID)
	return err == nil && now != p.Started
}

// ended tells that no process has the number.
func ended(pid int) bool {
	other, err := os.FindProcess(pid)
	if err != nil {
		return false
	}
	defer func() { _ = other.Release() }() // it has a descriptor of the process open
	return errors.Is(other.Signal(syscall.Signal(0)), os.ErrProcessDone)
}

func (p process) String() string {
	text, _ := json.Marshal(p) // strings and a number cannot fail
	return string(text)
}

// readProcess reads what String wrote. Any other text is a process that nothing is known of.
func readProcess(text string) process {
	var p process
	if json.Unmarshal([]byte(text), &p) != nil {
		return process{}
	}
	return p
}
