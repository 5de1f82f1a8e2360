package writefile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrRefused is matched by the error for a path that nothing is written to.
var ErrRefused = errors.New("refused")

// refusedError says why nothing is written to a path.
type refusedError struct {
	path, reason, fix string
	// err is what the system said, nil if it was not asked.
	err error
}

func (e *refusedError) Error() string {
	return fmt.Sprintf("write %s: %s: %s", e.path, e.reason, e.fix)
}

func (e *refusedError) Is(target error) bool { return target == ErrRefused }

func (e *refusedError) Unwrap() error { return e.err }

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
	if err := p.open(path[:cut]); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *place) close() { _ = unix.Close(p.dir) } // it was only looked into

func (p *place) refuse(reason, fix string) error {
	return &refusedError{path: p.path, reason: reason, fix: fix}
}

func (p *place) failed(err error) error { return fmt.Errorf("write %s: %w", p.path, err) }

// lookup are the flags for a folder that is only used to find what is in it: no right to list it is needed.
const lookup = unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC

// open opens the folder part by part, so that no link is followed unseen. folder is empty or ends with a slash.
func (p *place) open(folder string) error {
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

// foldersOfLinks are the folders whose links are followed: only the administrator makes one there.
var foldersOfLinks = []string{"/", "/home", "/var"}

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

// target is what is at a place now.
type target struct {
	kind targetKind
	// mode are the permissions of a regular file.
	mode fs.FileMode
	id   ID
}

type targetKind int

const (
	nothing targetKind = iota
	regularFile
	// stream is a named pipe or a character device.
	stream
)

// ID tells one file from another for as long as either exists.
type ID struct{ dev, inode uint64 }

func idOf(st *unix.Stat_t) ID { return ID{st.Dev, st.Ino} }

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
	t := target{kind: regularFile, mode: fs.FileMode(st.Mode & 0o777), id: idOf(&st)}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return t, p.checkOwner(&st)
	case unix.S_IFIFO:
		t.kind = stream
		return t, p.checkOwner(&st)
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

// checkOwner refuses a file that somebody else put there.
func (p *place) checkOwner(st *unix.Stat_t) error {
	if int(st.Uid) == os.Geteuid() {
		return nil
	}
	var folder unix.Stat_t
	if err := unix.Fstat(p.dir, &folder); err != nil {
		return p.failed(err)
	}
	if folder.Uid == st.Uid && folder.Mode&0o002 == 0 {
		return nil
	}
	return p.refuse(fmt.Sprintf("the file that is there belongs to user %d, and netproof runs as user %d", st.Uid, os.Geteuid()),
		"remove it, or name another file")
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
