//go:build !linux || other

package writefile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// What Linux promises is kept here with [os.Root], except for what follows. The build tag other tries this file on
// Linux; ci/platforms.sh does.
//
//   - Whether a file can be made in a folder shows when it is made, so [Check] does not refuse a folder that nobody may
//     write to.
//   - On Windows files have no owner that can be compared, so a regular file of somebody else is replaced if the system
//     lets this user do so. [ReplacePrivate] gives a file the rights that its folder hands down.
//   - /dev/fd/N is opened anew, which on macOS goes on where the descriptor stands.
//   - Names that Windows keeps for devices (NUL) are refused. Of the names of descriptors, only /dev/stdout and
//     /dev/stderr mean something there.

// place is a name in an open folder.
type place struct {
	path string
	root *os.Root
	name string
}

// find opens the folder of path. The caller closes the place.
func find(path string) (*place, error) {
	folder, name := filepath.Split(path)
	p := &place{path: path, name: name}
	if name == "" || name == "." || name == ".." {
		return nil, p.refuse("it is a folder", "name a file in it")
	}
	if err := p.enter(folder); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *place) close() { _ = p.root.Close() } // it was only looked into

// enter opens the folder part by part, so that no link is followed unseen. folder may be empty.
func (p *place) enter(folder string) (err error) {
	start := filepath.VolumeName(folder)
	rest := folder[len(start):]
	if rest != "" && os.IsPathSeparator(rest[0]) {
		start += string(filepath.Separator)
	} else {
		start += "." // on Windows the working folder of the volume
	}
	first, err := os.OpenRoot(start)
	if err != nil {
		return p.failed(err)
	}
	// The way that was gone, since an [os.Root] does not lead up.
	way := []*os.Root{first}
	defer func() {
		if err == nil {
			p.root, way = way[len(way)-1], way[:len(way)-1]
		}
		for _, root := range way {
			_ = root.Close() // it was only looked into
		}
	}()
	where := start // empty where that is not known any more: then it is none of the folders whose links are followed
	for _, part := range strings.FieldsFunc(rest, func(r rune) bool { return r < 0x80 && os.IsPathSeparator(uint8(r)) }) {
		switch {
		case part == ".":
			continue
		case part != "..":
			next, linked, err := p.step(way[len(way)-1], where, part)
			if err != nil {
				return err
			}
			if where != "" {
				where = filepath.Join(where, part)
			}
			if linked { // what is above the folder is not what was gone through
				for _, root := range way {
					_ = root.Close() // it was only looked into
				}
				way, start = nil, where
			}
			way = append(way, next)
			continue
		case len(way) > 1:
			_ = way[len(way)-1].Close() // it was only looked into
			way = way[:len(way)-1]
		default:
			// Not filepath.Join, which would take the link away instead of what it leads to.
			start = strings.TrimSuffix(start, string(filepath.Separator)) + string(filepath.Separator) + ".."
			above, err := os.OpenRoot(start)
			if err != nil {
				return p.failed(err)
			}
			_ = way[0].Close() // it was only looked into
			way[0] = above
		}
		where = ""
	}
	return nil
}

// step opens a folder in an open folder that lies at where, which is empty where that is not known. linked tells that a
// link led there.
func (p *place) step(root *os.Root, where, part string) (next *os.Root, linked bool, err error) {
	info, err := root.Lstat(part)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, false, &refusedError{path: p.path, reason: "there is no folder " + filepath.Dir(p.path), fix: "make it, or name another", err: err}
	case err != nil:
		return nil, false, p.failed(err)
	case info.Mode()&fs.ModeSymlink != 0:
		if !slices.Contains(foldersOfLinks, where) || othersMayWrite(root) {
			target, _ := root.Readlink(part) // empty if it cannot be read
			return nil, false, p.refuse(fmt.Sprintf("its folder %s is a link to %q, which is not followed", part, target), "name the place itself")
		}
		if next, err = os.OpenRoot(filepath.Join(where, part)); err != nil {
			return nil, false, p.failed(err)
		}
		return next, true, nil
	case !info.IsDir(): // on Windows also a junction
		return nil, false, p.refuse(fmt.Sprintf("%s is not a folder", part), "name a file in a folder")
	}
	if next, err = root.OpenRoot(part); err != nil {
		return nil, false, p.failed(err)
	}
	// A link that took the place of the folder meanwhile was followed, within its own folder.
	if opened, err := next.Stat("."); err != nil || !os.SameFile(info, opened) {
		_ = next.Close() // it was only looked into
		return nil, false, p.refuse(fmt.Sprintf("its folder %s was exchanged just now", part), "try again")
	}
	return next, false, nil
}

// othersMayWrite tells whether somebody besides its owner may make names in a folder. It is true on Windows.
func othersMayWrite(root *os.Root) bool {
	info, err := root.Stat(".")
	return err != nil || info.Mode().Perm()&0o022 != 0
}

// look says what is at the place, and refuses what must not be written to.
func (p *place) look() (target, error) {
	info, err := p.root.Lstat(p.name)
	if errors.Is(err, fs.ErrNotExist) {
		return target{}, nil
	}
	if err != nil {
		return target{}, p.failed(err)
	}
	t := target{kind: regularFile, mode: info.Mode().Perm()}
	switch mode := info.Mode(); {
	case mode.IsRegular():
		return t, p.checkOwner(ownerOf(info))
	case mode&fs.ModeNamedPipe != 0:
		t.kind = stream
		return t, p.checkOwner(ownerOf(info))
	case mode&fs.ModeCharDevice != 0:
		t.kind = stream
		return t, nil
	case mode&fs.ModeSymlink != 0:
		to, _ := p.root.Readlink(p.name) // empty if it cannot be read
		return t, p.refuse(fmt.Sprintf("it is a link to %q, which is not followed", to), "remove the link, or name another file")
	case mode.IsDir():
		return t, p.refuse("it is a folder", "name a file in it")
	}
	return t, p.refuse("it is a socket, a block device or something else that is not a file", "name a file")
}

// folderOwner is the user that the folder belongs to, if known, and whether everybody may write to it.
func (p *place) folderOwner() (uid int, open bool, err error) {
	folder, err := p.root.Stat(".")
	if err != nil {
		return 0, false, err
	}
	return ownerOf(folder), folder.Mode().Perm()&0o002 != 0, nil
}

// checkFolder refuses nothing: see above.
func (p *place) checkFolder() error { return nil }

// openNew makes a file in the folder, which must not have the name.
func (p *place) openNew(name string, perm fs.FileMode) (*os.File, error) {
	return p.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, perm)
}

// open opens what is at the place. A link that has just come there is followed at most within the folder, and then
// refused.
func (p *place) open(flags int) (*os.File, error) {
	info, err := p.root.Lstat(p.name)
	if err != nil {
		return nil, err
	}
	f, err := p.root.OpenFile(p.name, flags, 0)
	if err != nil {
		return nil, err
	}
	if opened, err := f.Stat(); err != nil || !os.SameFile(info, opened) {
		return nil, errors.Join(p.refuse("it was exchanged just now", "try again"), f.Close())
	}
	return f, nil
}

// rename gives a file of the folder the name of the place.
func (p *place) rename(from string) error { return p.root.Rename(from, p.name) }

func (p *place) remove(name string) error { return p.root.Remove(name) }

// isNameOf tells whether the place is still that of an open file.
func (p *place) isNameOf(f *os.File) bool {
	named, err := p.root.Lstat(p.name)
	if err != nil {
		return false
	}
	have, err := f.Stat()
	return err == nil && os.SameFile(named, have)
}

func checkDescriptor(path string, fd int) error {
	if fd == 1 || fd == 2 {
		return nil // writing tells whether it is open
	}
	if _, err := os.Stat(path); err != nil {
		return &refusedError{path: path, reason: "this descriptor is not open", fix: "name a file", err: err}
	}
	return nil
}

func writeToDescriptor(path string, fd int, write func(io.Writer) error) error {
	if err := checkDescriptor(path, fd); err != nil {
		return err
	}
	var err error
	switch fd {
	case 1:
		err = write(os.Stdout)
	case 2:
		err = write(os.Stderr)
	default:
		var f *os.File
		if f, err = os.OpenFile(path, os.O_WRONLY, 0); err == nil {
			err = errors.Join(write(f), f.Close())
		}
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
