package writefile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
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

func (p *place) refuse(reason, fix string) error {
	return &refusedError{path: p.path, reason: reason, fix: fix}
}

func (p *place) failed(err error) error { return fmt.Errorf("write %s: %w", p.path, err) }

// foldersOfLinks are the folders whose links are followed: only the administrator makes one there.
var foldersOfLinks = []string{"/", "/home", "/var"}

// target is the file at a place now.
type target struct {
	kind targetKind
	// mode are the permissions of a regular file.
	mode fs.FileMode
}

type targetKind int

const (
	nothing targetKind = iota
	regularFile
	// stream is a named pipe or a character device.
	stream
)

// checkOwner refuses a file that somebody else put there. See the package's comment.
func (p *place) checkOwner(owner int) error {
	if owner == os.Geteuid() {
		return nil
	}
	ofFolder, open, err := p.folderOwner()
	if err != nil {
		return p.failed(err)
	}
	if owner == ofFolder && !open {
		return nil
	}
	return p.refuse(fmt.Sprintf("the file that is there belongs to user %d, and netproof runs as user %d", owner, os.Geteuid()),
		"remove it, or name another file")
}

// ID tells one file from another for as long as either exists.
type ID struct{ dev, inode uint64 }
