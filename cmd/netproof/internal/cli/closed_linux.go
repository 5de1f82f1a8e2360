package cli

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// KeepClosed makes writes to standard output fail if it was closed when the program was started. main calls it before
// all else.
//
// The Go runtime opens /dev/null for reading and writing in place of a closed descriptor, so that no file gets its
// number. But then a result is lost without an error. A shell's > /dev/null opens it for writing only, and a program
// that detaches from its terminal opens it once for several descriptors: both are what somebody wants, and stay as they
// are. A program that opens /dev/null for reading and writing as standard output alone, as Python's subprocess.DEVNULL
// does, cannot be told from a closed one.
func KeepClosed() error {
	const out = 1
	var st unix.Stat_t
	flags, err := unix.FcntlInt(out, unix.F_GETFL, 0)
	if err != nil || flags&unix.O_ACCMODE != unix.O_RDWR || unix.Fstat(out, &st) != nil ||
		st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(1, 3) {
		return nil
	}
	for _, other := range []int{0, 2} {
		if sharesFile(out, other) {
			return nil
		}
	}
	// What is open for reading only fails as a closed descriptor does.
	null, err := os.Open(os.DevNull)
	if err != nil {
		return fmt.Errorf("close standard output: %w", err)
	}
	defer null.Close()
	if err := unix.Dup3(int(null.Fd()), out, 0); err != nil {
		return fmt.Errorf("close standard output: %w", err)
	}
	return nil
}

// sharesFile tells whether two descriptors came from one opening of a file: then they share its flags.
func sharesFile(a, b int) bool {
	flags, err := unix.FcntlInt(uintptr(a), unix.F_GETFL, 0)
	if err != nil {
		return false
	}
	before, err := unix.FcntlInt(uintptr(b), unix.F_GETFL, 0)
	if err != nil {
		return false
	}
	if _, err := unix.FcntlInt(uintptr(a), unix.F_SETFL, flags^unix.O_APPEND); err != nil {
		return false
	}
	after, err := unix.FcntlInt(uintptr(b), unix.F_GETFL, 0)
	_, restoreErr := unix.FcntlInt(uintptr(a), unix.F_SETFL, flags)
	return err == nil && restoreErr == nil && before != after
}
