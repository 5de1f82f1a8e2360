// Package meminfo says how much memory this machine has left.
package meminfo

import (
	"os"
	"strconv"
	"strings"
)

// Available is the memory that new programs can have without swapping, in bytes: MemAvailable of proc(5). It is 0 where
// nobody says, as on systems that are not Linux.
func Available() uint64 {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	return Parse(string(text))
}

// Parse picks MemAvailable, in bytes, out of the text of /proc/meminfo; 0 if it is not there.
func Parse(text string) uint64 {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 3 && fields[0] == "MemAvailable:" && fields[2] == "kB" {
			if kib, err := strconv.ParseUint(fields[1], 10, 54); err == nil {
				return kib << 10
			}
		}
	}
	return 0
}
