//go:build !linux

package engine

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
)

// errSystem says that engines are of no use on this system. Whatever needs their cache ends with it.
var errSystem = fmt.Errorf("engines are programs for Linux, and this is %s: use --provider kind, or run netproof on Linux", runtime.GOOS)

func flock(*os.File, lockKind, bool) error { return errSystem }

// inGroup does nothing: nothing is built.
func inGroup(*exec.Cmd) {}

func killGroup(int) {}
