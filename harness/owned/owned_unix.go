//go:build unix

package owned

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// maxLinks is how many links the kernel follows in one path.
const maxLinks = 40

// Resolve gives the path of what lies at path without links, absolute. Its error is an [*Error] if somebody else could
// change it or the way to it, and matches [fs.ErrNotExist] if there is nothing.
func Resolve(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	at, rest, links := "/", strings.Split(abs, "/"), 0
	if _, err := check(at); err != nil {
		return "", err
	}
	for len(rest) > 0 {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..": // only links have them
			at = filepath.Dir(at)
			continue
		}
		next := filepath.Join(at, part)
		info, err := check(next)
		if err != nil {
			return "", err
		}
		if info.Mode().Type() != fs.ModeSymlink {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return "", &fs.PathError{Op: "resolve", Path: path, Err: syscall.ELOOP}
		}
		target, err := os.Readlink(next)
		if err != nil {
			return "", err
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return at, nil
}

// MakeFolder makes a folder with mode 0755, and those on the way to it that are missing, and gives its path as
// [Resolve] does. It makes nothing where somebody else could exchange it.
func MakeFolder(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	// The first that is there has to be ours before anything is made in it.
	for first := abs; ; first = filepath.Dir(first) {
		_, err := Resolve(first)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || first == "/" {
			return "", err
		}
	}
	if err := os.MkdirAll(abs, 0o755); err != nil {
		return "", err
	}
	real, err := Resolve(abs)
	if err != nil {
		return "", err
	}
	if info, err := os.Lstat(real); err != nil || !info.IsDir() {
		return "", errors.Join(err, &fs.PathError{Op: "make folder", Path: path, Err: syscall.ENOTDIR})
	}
	return real, nil
}

// check looks at one file, folder or link, and does not follow it.
func check(path string) (fs.FileInfo, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil, fmt.Errorf("%s: its owner cannot be told", path)
	}
	if !isOurs(st.Uid) {
		return nil, &Error{path, fmt.Sprintf("it belongs to %s, and netproof runs as %s", nameOf(st.Uid), nameOf(uint32(os.Geteuid())))}
	}
	const group, others = 0o020, 0o002
	perm := info.Mode().Perm()
	switch {
	case info.Mode().Type() == fs.ModeSymlink: // the folder that it lies in counts
	case info.IsDir() && info.Mode()&fs.ModeSticky != 0:
	case perm&others != 0:
		return nil, &Error{path, "everybody may write to it (chmod o-w)"}
	case perm&group != 0 && !isOwnGroup(st.Gid):
		return nil, &Error{path, fmt.Sprintf("the group %d may write to it (chmod g-w)", st.Gid)}
	}
	return info, nil
}

// overflow is what stands for the users and groups that a user namespace does not have.
const overflow = 65534

// isOurs tells whether a user is root or the one that netproof runs as. In a sandbox of an ordinary user, root is not
// mapped: what belongs to it there belongs to the overflow user. That one may be taken for root where it is nobody who
// is mapped; whoever made the sandbox could look better, and did.
func isOurs(uid uint32) bool {
	return uid == 0 || int(uid) == os.Geteuid() || uid == overflow && !overflowIsMapped()
}

var overflowIsMapped = sync.OnceValue(func() bool {
	text, err := os.ReadFile("/proc/self/uid_map")
	return err != nil || isMapped(string(text), overflow)
})

// isMapped tells whether a user namespace has an id, by its uid_map: first id inside, first outside, how many
// (user_namespaces(7)).
func isMapped(uidMap string, id uint64) bool {
	for line := range strings.Lines(uidMap) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			return true // not understood: then nothing is taken for root
		}
		first, err := strconv.ParseUint(fields[0], 10, 64)
		count, countErr := strconv.ParseUint(fields[2], 10, 64)
		if err != nil || countErr != nil || first <= id && id < first+count {
			return true
		}
	}
	return false
}

// isOwnGroup tells whether a group is the user's own and has no other member.
func isOwnGroup(gid uint32) bool {
	if int(gid) != os.Getegid() {
		return false
	}
	if !overflowIsMapped() {
		return true // in a sandbox the group has no name; see isOurs
	}
	group, err := os.ReadFile("/etc/group")
	if err != nil {
		return false
	}
	me, err := user.LookupId(strconv.Itoa(os.Geteuid()))
	return err == nil && isAlone(string(group), gid, me.Username)
}

// isAlone tells whether a group has the name of a user, and no other member, by the text of group(5).
func isAlone(groups string, gid uint32, name string) bool {
	for line := range strings.Lines(groups) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		if len(fields) != 4 || fields[2] != strconv.FormatUint(uint64(gid), 10) {
			continue
		}
		return fields[0] == name && (fields[3] == "" || fields[3] == name)
	}
	return false
}

// nameOf is a user as people know it.
func nameOf(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return "user " + u.Username
	}
	return "user " + id
}
