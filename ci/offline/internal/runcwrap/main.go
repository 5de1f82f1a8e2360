//go:build linux

// Command runcwrap stands in for runc on a machine whose kernel lets nobody have some capability, as nested virtual
// machines do with CAP_SYS_RESOURCE. There runc refuses every privileged container ("unable to apply caps: operation
// not permitted"), and lowers no OOM score ("can't get final child's PID from pipe: EOF") and raises no limit ("error
// setting rlimit type 7"). runcwrap takes out of the container's configuration what cannot be had, gives privileged
// containers the capabilities that old engines do not know, and becomes runc. Where nothing is missing it becomes runc
// at once.
//
// The one thing users get wrong: it decides by its own bounding set, so it has to run where the containers will.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

func main() {
	err := run(os.Args, os.Environ())
	fmt.Fprintln(os.Stderr, "runcwrap:", err) // run returns only if it could not become runc
	os.Exit(1)
}

// run edits the configuration that the arguments name, if they name one, and replaces the process by runc.
func run(args, env []string) error {
	runc, err := findRunc()
	if err != nil {
		return err
	}
	limits, err := readLimits("/proc/self")
	if err != nil {
		return err
	}
	if limits.restricted() {
		if file := configFile(args[1:]); file != "" {
			if err := editFile(file, limits); err != nil {
				return err
			}
		}
	}
	if err := syscall.Exec(runc, append([]string{runc}, args[1:]...), env); err != nil {
		return fmt.Errorf("run %s: %w", runc, err)
	}
	return nil
}

// runcPlaces are where distributions and Docker's own packages put runc, for callers whose PATH has no sbin.
var runcPlaces = []string{"/usr/sbin/runc", "/usr/bin/runc", "/usr/local/sbin/runc", "/usr/local/bin/runc"}

// findRunc gives the real runc: the first of its name that is not this program, which may go by the same name.
func findRunc() (string, error) {
	self, err := os.Stat("/proc/self/exe")
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	places := runcPlaces
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		places = append(places, filepath.Join(dir, "runc"))
	}
	for _, path := range places {
		info, err := os.Stat(path)
		if err != nil || os.SameFile(info, self) {
			continue
		}
		if found, err := exec.LookPath(path); err == nil {
			return found, nil
		}
	}
	return "", errors.New("no runc in PATH or the usual places: install the runc package")
}
