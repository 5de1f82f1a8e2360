//go:build unix

package writefile

import (
	"io/fs"
	"os"
	"syscall"
)

func idOf(_ *os.File, info fs.FileInfo) ID {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ID{} // what the system tells of an open file has it
	}
	return ID{uint64(st.Dev), st.Ino} //nolint:unconvert // an int32 on macOS
}
