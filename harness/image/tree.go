package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Tree is what a layer holds, by absolute paths. Everything belongs to root, and only root could change it: folders on
// the way to a file are made with mode 0755. The zero Tree is empty.
type Tree struct{ members map[string]member }

// member is one folder, file or link.
type member struct {
	typ     byte // of package tar
	mode    int64
	content []byte
	source  string
	size    int64
	link    string
}

func (t *Tree) put(path string, m member) {
	if t.members == nil {
		t.members = map[string]member{}
	}
	for dir := filepath.Dir(path); dir != "/"; dir = filepath.Dir(dir) {
		if _, ok := t.members[dir]; !ok {
			t.members[dir] = member{typ: tar.TypeDir, mode: 0o755}
		}
	}
	t.members[path] = m
}

// Folder adds an empty folder. The mode may have the sticky bit.
func (t *Tree) Folder(path string, mode fs.FileMode) {
	m := int64(mode.Perm())
	if mode&fs.ModeSticky != 0 {
		m |= 0o1000
	}
	t.put(path, member{typ: tar.TypeDir, mode: m})
}

// Bytes adds a file that all may read.
func (t *Tree) Bytes(path string, content []byte) {
	t.put(path, member{typ: tar.TypeReg, mode: 0o444, content: content, size: int64(len(content))})
}

// Link adds a symbolic link.
func (t *Tree) Link(path, target string) {
	t.put(path, member{typ: tar.TypeSymlink, mode: 0o777, link: target})
}

// File adds a file with the content of one on disk, which all may read, and run if somebody may run the source. The
// source is read when the layer is, so it must stay as it is.
func (t *Tree) File(path, source string) error {
	info, err := os.Stat(source)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", source)
	}
	mode := int64(0o444)
	if info.Mode()&0o111 != 0 {
		mode = 0o555
	}
	t.put(path, member{typ: tar.TypeReg, mode: mode, source: source, size: info.Size()})
	return nil
}

// maxLinks is how many links the kernel follows in one path.
const maxLinks = 40

// Host adds a file of this machine under the path that it has here, with every link that leads to it.
func (t *Tree) Host(path string) error {
	at, rest, links := "/", strings.Split(filepath.Clean(path), "/"), 0
	for len(rest) > 0 {
		part := rest[0]
		rest = rest[1:]
		if part == "" || part == "." {
			continue
		}
		next := filepath.Join(at, part) // also of "..": what is at has no links
		info, err := os.Lstat(next)
		if err != nil {
			return err
		}
		if info.Mode().Type() != fs.ModeSymlink {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return fmt.Errorf("%s: too many links", path)
		}
		target, err := os.Readlink(next)
		if err != nil {
			return err
		}
		t.Link(next, target)
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return t.File(at, at)
}

// layer frames the members by their paths, so that the same ones give the same layer.
func (t *Tree) layer(ctx context.Context) (*layer, error) {
	var parts []part
	for _, path := range slices.Sorted(maps.Keys(t.members)) {
		m := t.members[path]
		name := path
		if m.typ == tar.TypeDir {
			name += "/"
		}
		h, err := header(tar.Header{Typeflag: m.typ, Name: name, Linkname: m.link, Size: m.size, Mode: m.mode})
		if err != nil {
			return nil, err
		}
		parts = append(parts, part{bytes: append(h, m.content...)})
		if m.source != "" {
			parts = append(parts, part{source: m.source, to: m.size})
		}
		parts = append(parts, part{bytes: padding(m.size)})
	}
	if len(parts) == 0 {
		return nil, errors.New("a layer has to hold something")
	}
	return newLayer(ctx, append(parts, trailer()))
}
