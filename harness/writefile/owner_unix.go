//go:build unix && (!linux || other)

package writefile

import (
	"io/fs"
	"syscall"
)

// ownerOf gives the user that a file belongs to, -1 if the system does not tell.
func ownerOf(info fs.FileInfo) int {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return -1
	}
	return int(st.Uid)
}
