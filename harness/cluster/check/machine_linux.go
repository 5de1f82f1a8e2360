package check

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// KernelRelease is the release of the kernel, such as 6.1.0-18-amd64; empty where it is not Linux.
func KernelRelease() string {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return ""
	}
	return unix.ByteSliceToString(name.Release[:])
}

// FreeBytes is how much may be written to the file system of a folder. The folder need not be there yet, nor be one
// that may be looked at: the nearest one above it is asked then.
func FreeBytes(dir string) (uint64, error) {
	for {
		var s unix.Statfs_t
		err := unix.Statfs(dir, &s)
		if err == nil {
			return s.Bavail * uint64(s.Bsize), nil
		}
		if parent := filepath.Dir(dir); (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)) && parent != dir {
			dir = parent
			continue
		}
		return 0, fmt.Errorf("ask for free space of %s: %w", dir, err)
	}
}

// HaveIPv6 tells whether the kernel has IPv6, and does not switch it off for new interfaces.
func HaveIPv6() bool {
	off, err := os.ReadFile("/proc/sys/net/ipv6/conf/default/disable_ipv6")
	return err == nil && strings.TrimSpace(string(off)) == "0"
}
