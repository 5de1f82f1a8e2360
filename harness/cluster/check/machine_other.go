//go:build !linux

package check

import (
	"errors"
	"fmt"
)

// KernelRelease is empty: the kernel is none that clusters run on.
func KernelRelease() string { return "" }

// FreeBytes is not asked for where no cluster can be.
func FreeBytes(dir string) (uint64, error) {
	return 0, fmt.Errorf("ask for free space of %s: %w", dir, errors.ErrUnsupported)
}

// HaveIPv6 is false: the kernel is none that clusters run on.
func HaveIPv6() bool { return false }
