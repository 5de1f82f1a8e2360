// Package readfile is the one door through which netproof reads files that it did not write itself. A folder of
// policies may come from a stranger, and a run may be root: see docs/security.md.
//
// What is read lies beneath a path that the caller was given. Links may lead from one place beneath it to another,
// never out of it ([os.Root] holds that). Only regular files are opened for reading, so that no pipe blocks and no
// device is touched. Sizes are bounded, for each file and for all files that one [Budget] counts.
package readfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
)

// Errors of reading. Those of the file system come through unchanged: [fs.ErrNotExist], [fs.ErrPermission].
var (
	// ErrOutside says that a path or a link leads out of the folder that was given.
	ErrOutside = errors.New("the path leads out of the folder that was given")
	// ErrFolder says that a folder stands where a file was expected.
	ErrFolder = errors.New("it is a folder")
	// ErrNotRegular says that a pipe, a socket or a device stands where a file was expected.
	ErrNotRegular = errors.New("it is not a regular file")
)

// SizeError says that a file, or all files of a run, have more bytes than are read.
type SizeError struct {
	// Most is the bound in bytes.
	Most int64
	// Together is true when the bound is on all files of the run.
	Together bool
}

func (e *SizeError) Error() string {
	if e.Together {
		return fmt.Sprintf("the files have more than %d bytes together", e.Most)
	}
	return fmt.Sprintf("the file has more than %d bytes", e.Most)
}

// Budget bounds the bytes that are read through all roots that share it. The zero value is unusable: see [NewBudget].
type Budget struct {
	most int64
	left atomic.Int64
}

// NewBudget returns a budget of that many bytes.
func NewBudget(bytes int64) *Budget {
	b := &Budget{most: bytes}
	b.left.Store(bytes)
	return b
}

func (b *Budget) take(n int64) error {
	if b != nil && b.left.Add(-n) < 0 {
		return &SizeError{Most: b.most, Together: true}
	}
	return nil
}

// Root is a folder beneath which files are read. Names are relative to it, with slashes, and may not begin with `../`.
type Root struct {
	// folder is nil when files come from fsys.
	folder *os.Root
	fsys   fs.FS
	budget *Budget
}

// FS returns a root on a file system that holds no links, such as an embedded one.
func FS(fsys fs.FS, budget *Budget) *Root { return &Root{fsys: fsys, budget: budget} }

// Open opens the folder that path names, or the folder that holds the file that it names. name is where path is beneath
// the root: `.` for the folder itself.
//
// The folders of a path that lies below the working folder may be links that stay below the working folder. Of any
// other path the last part may be a link that stays in its folder; what stands before it was chosen by whoever wrote
// the path. A file that is a link must lead to a place in its own folder, or below it.
func Open(name string, budget *Budget) (root *Root, beneath string, err error) {
	clean := filepath.Clean(name)
	base, inBase := ".", clean
	if !filepath.IsLocal(clean) {
		base, inBase = filepath.Dir(clean), filepath.Base(clean)
		if inBase == ".." || inBase == string(filepath.Separator) {
			// There is nothing in front of it that a link could leave.
			base, inBase = clean, "."
		}
	}
	around, err := os.OpenRoot(base)
	if err != nil {
		return nil, "", named(name, err)
	}
	info, err := around.Stat(inBase)
	if err != nil {
		_ = around.Close() // it was only read
		return nil, "", named(name, err)
	}
	folder, beneath := inBase, "."
	if !info.IsDir() {
		folder, beneath = filepath.Dir(inBase), filepath.Base(inBase)
	}
	if folder == "." {
		return &Root{folder: around, budget: budget}, beneath, nil
	}
	inner, err := around.OpenRoot(folder)
	_ = around.Close() // it was only read
	if err != nil {
		return nil, "", named(name, err)
	}
	return &Root{folder: inner, budget: budget}, beneath, nil
}

// named gives an error the path that the caller knows.
func named(name string, err error) error {
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		err = &fs.PathError{Op: "open", Path: name, Err: pathError.Err}
	}
	return outside(err)
}

// outside gives an error of [os.Root] its name.
func outside(err error) error {
	var pathError *fs.PathError
	// The package os does not export this error.
	if errors.As(err, &pathError) && pathError.Err.Error() == "path escapes from parent" {
		return fmt.Errorf("%s: %w", pathError.Path, ErrOutside)
	}
	return err
}

// Close lets go of the folder.
func (r *Root) Close() error {
	if r.folder == nil {
		return nil
	}
	return r.folder.Close()
}

// Links tells whether the root has links, and so folders that two names lead to.
func (r *Root) Links() bool { return r.folder != nil }

// Stat describes what a name leads to. Links are followed.
func (r *Root) Stat(name string) (fs.FileInfo, error) {
	if !isBeneath(name) {
		return nil, fmt.Errorf("%s: %w", name, ErrOutside)
	}
	if r.folder == nil {
		return fs.Stat(r.fsys, path.Clean(name))
	}
	info, err := r.folder.Stat(filepath.FromSlash(name))
	return info, outside(err)
}

// Lstat describes what stands under a name. A link is not followed.
func (r *Root) Lstat(name string) (fs.FileInfo, error) {
	if r.folder == nil {
		return r.Stat(name)
	}
	if !isBeneath(name) {
		return nil, fmt.Errorf("%s: %w", name, ErrOutside)
	}
	info, err := r.folder.Lstat(filepath.FromSlash(name))
	return info, outside(err)
}

// ReadDir lists a folder, ordered by name.
func (r *Root) ReadDir(name string) ([]fs.DirEntry, error) {
	if !isBeneath(name) {
		return nil, fmt.Errorf("%s: %w", name, ErrOutside)
	}
	if r.folder == nil {
		return fs.ReadDir(r.fsys, path.Clean(name))
	}
	// Root.FS refuses names such as a/./b, which Clean takes out, and no others that isBeneath lets through.
	entries, err := fs.ReadDir(r.folder.FS(), path.Clean(name))
	return entries, outside(err)
}

// ReadFile returns the content of a regular file of at most limit bytes. It returns early when ctx ends.
func (r *Root) ReadFile(ctx context.Context, name string, limit int64) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	file, err := r.openRegular(name, limit)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // it was only read
	// The file may grow while it is read.
	data, err := io.ReadAll(io.LimitReader(interruptible{ctx, file}, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, &SizeError{Most: limit}
	}
	return data, r.budget.take(int64(len(data)))
}

// openRegular opens a regular file that has at most limit bytes now.
func (r *Root) openRegular(name string, limit int64) (fs.File, error) {
	info, err := r.Stat(name)
	if err != nil {
		return nil, err
	}
	// Asked before it is opened: opening a device may have an effect.
	if err := readable(info, limit); err != nil {
		return nil, err
	}
	file, err := r.open(name)
	if err != nil {
		return nil, err
	}
	// Asked again: it may be another one by now.
	if info, err = file.Stat(); err == nil {
		err = readable(info, limit)
	}
	if err != nil {
		_ = file.Close() // it was only opened
		return nil, err
	}
	return file, nil
}

func (r *Root) open(name string) (fs.File, error) {
	if r.folder == nil {
		return r.fsys.Open(path.Clean(name))
	}
	// A pipe that has taken the place of the file in the meantime must not block.
	file, err := r.folder.OpenFile(filepath.FromSlash(name), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	return file, outside(err)
}

// readable says why a file is not read.
func readable(info fs.FileInfo, limit int64) error {
	switch {
	case info.IsDir():
		return ErrFolder
	case !info.Mode().IsRegular():
		return ErrNotRegular
	case info.Size() > limit:
		return &SizeError{Most: limit}
	}
	return nil
}

// isBeneath tells whether a name stays beneath a root, links aside.
func isBeneath(name string) bool {
	clean := path.Clean(name)
	return !path.IsAbs(clean) && clean != ".." && !strings.HasPrefix(clean, "../")
}

// interruptible ends reading when its context ends.
type interruptible struct {
	ctx  context.Context
	file io.Reader
}

func (r interruptible) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.file.Read(p)
}

// File reads one regular file of at most limit bytes that the operator named. The file may be a link within its own
// folder.
func File(ctx context.Context, name string, limit int64) ([]byte, error) {
	root, beneath, err := Open(name, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }() // it was only read
	return root.ReadFile(ctx, beneath, limit)
}

// Stream opens one regular file of at most limit bytes that the operator named, for files that are too large for
// memory. The caller closes it, and bounds what it reads: the file may grow meanwhile. The file may be a link within
// its own folder.
func Stream(name string, limit int64) (io.ReadCloser, error) {
	root, beneath, err := Open(name, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }() // the open file does not need it
	return root.openRegular(beneath, limit)
}
