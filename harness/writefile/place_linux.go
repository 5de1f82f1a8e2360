//go:build linux && !other

package writefile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// place is a name in an open folder.
type place struct {
	path string
	// dir is a descriptor of the folder, for lookups only.
	dir  int
	name string
}

// find opens the folder of path. The caller closes the place.
func find(path string) (*place, error) {
	cut := strings.LastIndexByte(path, '/') + 1
	p := &place{path: path, name: path[cut:]}
	if p.name == "" || p.name == "." || p.name == ".." {
		return nil, p.refuse("it is a folder", "name a file in it")
	}
	if err := p.enter(path[:cut]); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *place) close() { _ = unix.Close(p.dir) } // it was only looked into

// lookup are the flags for a folder that is only used to find what is in it: no right to list it is needed.
const lookup = unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC

// enter opens the folder part by part, so that no link is followed unseen. folder is empty or ends with a slash.
func (p *place) enter(folder string) error {
	start, where := ".", ""
	if strings.HasPrefix(folder, "/") {
		start, where = "/", "/"
	}
	dir, err := unix.Open(start, lookup, 0)
	if err != nil {
		return p.failed(err)
	}
	for part := range strings.SplitSeq(folder, "/") {
		if part == "" || part == "." {
			continue
		}
		next, err := p.step(dir, where, part)
		_ = unix.Close(dir)
		if err != nil {
			return err
		}
		dir = next
		switch {
		case part == "..":
			where = "" // no longer known, and so none of the folders whose links are followed
		case where != "":
			where = strings.TrimSuffix(where, "/") + "/" + part
		}
	}
	p.dir = dir
	return nil
}

// step opens a folder in an open folder that lies at where, which is empty where that is not known.
func (p *place) step(dir int, where, part string) (int, error) {
	next, err := unix.Openat(dir, part, lookup|unix.O_NOFOLLOW, 0)
	switch {
	case err == nil:
		return next, nil
	case errors.Is(err, unix.ENOENT):
		folder := p.path[:strings.LastIndexByte(p.path, '/')]
		return -1, &refusedError{path: p.path, reason: "there is no folder " + folder, fix: "make it, or name another", err: err}
	case !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP):
		return -1, p.failed(err)
	}
	target, isLink := readLink(dir, part)
	if !isLink {
		return -1, p.refuse(fmt.Sprintf("%s is not a folder", part), "name a file in a folder")
	}
	if !slices.Contains(foldersOfLinks, where) || othersMayWrite(dir) {
		return -1, p.refuse(fmt.Sprintf("its folder %s is a link to %q, which is not followed", part, target), "name the place itself")
	}
	if next, err = unix.Openat(dir, part, lookup, 0); err != nil {
		return -1, p.failed(err)
	}
	return next, nil
}

func readLink(dir int, name string) (target string, isLink bool) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, buf)
	return string(buf[:max(n, 0)]), err == nil
}

// othersMayWrite tells whether somebody besides its owner may make names in a folder.
func othersMayWrite(dir int) bool {
	var st unix.Stat_t
	return unix.Fstat(dir, &st) != nil || st.Mode&0o022 != 0
}

// look says what is at the place, and refuses what must not be written to.
func (p *place) look() (target, error) {
	var st unix.Stat_t
	err := unix.Fstatat(p.dir, p.name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return target{}, nil
	}
	if err != nil {
		return target{}, p.failed(err)
	}
	t := target{kind: regularFile, mode: fs.FileMode(st.Mode & 0o777)}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return t, p.checkOwner(int(st.Uid))
	case unix.S_IFIFO:
		t.kind = stream
		return t, p.checkOwner(int(st.Uid))
	case unix.S_IFCHR:
		t.kind = stream
		return t, nil
	case unix.S_IFLNK:
		to, _ := readLink(p.dir, p.name)
		return t, p.refuse(fmt.Sprintf("it is a link to %q, which is not followed", to), "remove the link, or name another file")
	case unix.S_IFDIR:
		return t, p.refuse("it is a folder", "name a file in it")
	}
	return t, p.refuse("it is a socket or a block device", "name a file")
}

// folderOwner is the user that the folder belongs to, and whether everybody may write to it.
func (p *place) folderOwner() (uid int, open bool, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(p.dir, &st); err != nil {
		return 0, false, err
	}
	return int(st.Uid), st.Mode&0o002 != 0, nil
}

// checkFolder refuses a folder in which no file can be made.
func (p *place) checkFolder() error {
	err := unix.Faccessat2(p.dir, ".", unix.W_OK|unix.X_OK, unix.AT_EACCESS)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		return nil // an older kernel, or a filter that does not know the call: writing tells
	}
	if err != nil {
		return &refusedError{path: p.path, reason: "no file can be made in its folder: " + err.Error(), fix: "name a file in another folder", err: err}
	}
	return nil
}

// openNew makes a file in the folder, which must not have the name.
func (p *place) openNew(name string, perm fs.FileMode) (*os.File, error) {
	fd, err := unix.Openat(p.dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_WRONLY|unix.O_APPEND|unix.O_CLOEXEC, uint32(perm))
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), p.path), nil
}

// open opens what is at the place, and follows no link.
func (p *place) open(flags int) (*os.File, error) {
	fd, err := unix.Openat(p.dir, p.name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), p.path), nil
}

// rename gives a file of the folder the name of the place.
func (p *place) rename(from string) error { return unix.Renameat(p.dir, from, p.dir, p.name) }

func (p *place) remove(name string) error { return unix.Unlinkat(p.dir, name, 0) }

// isNameOf tells whether the place is still that of an open file.
func (p *place) isNameOf(f *os.File) bool {
	var named, have unix.Stat_t
	return unix.Fstatat(p.dir, p.name, &named, unix.AT_SYMLINK_NOFOLLOW) == nil && unix.Fstat(int(f.Fd()), &have) == nil &&
		named.Dev == have.Dev && named.Ino == have.Ino
}

func checkDescriptor(path string, fd int) error {
	// What this program has opened itself is closed when it starts another; what it was given is not.
	own, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	if err != nil || own&unix.FD_CLOEXEC != 0 {
		return &refusedError{path: path, reason: "this descriptor is not open", fix: "name a file", err: err}
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if flags&unix.O_ACCMODE == unix.O_RDONLY {
		return &refusedError{path: path, reason: "this descriptor is only open for reading", fix: "name a file"}
	}
	return nil
}

func writeToDescriptor(path string, fd int, write func(io.Writer) error) error {
	if err := checkDescriptor(path, fd); err != nil {
		return err
	}
	// What is written goes on where the descriptor stands; opening /dev/fd/N would begin a file anew.
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	f := os.NewFile(uintptr(own), path)
	if err := errors.Join(write(f), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
