package writefile

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Check tells whether [Replace] would refuse path as things are now. It makes and changes nothing.
func Check(path string) error {
	if fd, ok := Descriptor(path); ok {
		return checkDescriptor(path, fd)
	}
	p, err := find(path)
	if err != nil {
		return err
	}
	defer p.close()
	t, err := p.look()
	if err != nil || t.kind == stream {
		return err
	}
	return p.checkFolder()
}

// CheckFile tells whether [Create] would refuse path as things are now. It makes and changes nothing.
func CheckFile(path string) error {
	p, err := find(path)
	if err != nil {
		return err
	}
	defer p.close()
	if err := p.lookForFile(); err != nil {
		return err
	}
	return p.checkFolder()
}

// IsStream tells whether path names a descriptor, a device or a pipe: what is written there is gone, and no file lies
// beside it.
func IsStream(path string) bool {
	if _, ok := Descriptor(path); ok {
		return true
	}
	p, err := find(path)
	if err != nil {
		return false
	}
	defer p.close()
	t, err := p.look()
	return err == nil && t.kind == stream
}

// Replace writes a file whole or not at all: into a new file beside it, to the disk, then renamed to path. A reader
// sees the old content or the new one, never a part. A new file has mode 0644 less the umask, and one that replaces
// another has its mode. A stream is written to directly; a pipe that nobody reads for ten seconds is an error.
func Replace(path string, write func(io.Writer) error) error {
	return replace(path, write, func(t target) (fs.FileMode, bool) {
		if t.kind == nothing {
			return 0o644, false
		}
		return t.mode, true
	})
}

// ReplacePrivate is [Replace] for what nobody else may read: mode 0600, whatever was there.
func ReplacePrivate(path string, write func(io.Writer) error) error {
	return replace(path, write, func(target) (fs.FileMode, bool) { return 0o600, true })
}

// Bytes is what Replace is given to write a content that is there.
func Bytes(content []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	}
}

// replace writes a file. mode gives the permissions of the new file, and whether they stand whatever the umask is.
func replace(path string, write func(io.Writer) error, mode func(target) (perm fs.FileMode, exact bool)) error {
	if fd, ok := Descriptor(path); ok {
		return writeToDescriptor(path, fd, write)
	}
	p, err := find(path)
	if err != nil {
		return err
	}
	defer p.close()
	t, err := p.look()
	if err != nil {
		return err
	}
	if t.kind == stream {
		return p.writeToStream(write)
	}
	perm, exact := mode(t)
	f, temporary, err := p.create(perm, exact)
	if err != nil {
		return err
	}
	if err := errors.Join(write(f), f.Sync()); err != nil {
		return errors.Join(p.failed(err), f.Close(), p.unlink(temporary))
	}
	if err := f.Close(); err != nil {
		return errors.Join(p.failed(err), p.unlink(temporary))
	}
	if _, err := p.look(); err != nil { // it may have changed meanwhile
		return errors.Join(err, p.unlink(temporary))
	}
	if err := p.rename(temporary); err != nil {
		return errors.Join(p.failed(err), p.unlink(temporary))
	}
	return nil
}

// create makes a new file beside the place.
func (p *place) create(perm fs.FileMode, exact bool) (*os.File, string, error) {
	name := ".netproof-" + rand.Text() + ".tmp"
	f, err := p.openNew(name, perm)
	if err != nil {
		return nil, "", p.failed(err)
	}
	if exact {
		err = f.Chmod(perm)
	}
	if err != nil {
		return nil, "", errors.Join(p.failed(err), f.Close(), p.unlink(name))
	}
	return f, name, nil
}

func (p *place) unlink(name string) error {
	if err := p.remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove what was begun of %s: %w", p.path, err)
	}
	return nil
}

// lookForFile refuses what is at the place unless a file may be made there.
func (p *place) lookForFile() error {
	t, err := p.look()
	if err == nil && t.kind == stream {
		err = p.refuse("it is a pipe or a device", "remove it, or name another file")
	}
	return err
}

// File is an open file that is known by more than its name.
type File struct {
	*os.File
	place *place
	id    ID
}

// Create makes a new file under path, in place of a regular file of ours. What is written is appended, and seen under
// path at once. The caller closes it.
func Create(path string) (*File, error) {
	p, err := find(path)
	if err != nil {
		return nil, err
	}
	if err := p.lookForFile(); err != nil {
		p.close()
		return nil, err
	}
	f, temporary, err := p.create(0o644, false)
	if err != nil {
		p.close()
		return nil, err
	}
	// The name is taken over from an old file, which exists until then: so the new one has another ID.
	if err := p.rename(temporary); err != nil {
		defer p.close()
		return nil, errors.Join(p.failed(err), f.Close(), p.unlink(temporary))
	}
	return p.file(f)
}

// Open opens a regular file of ours to read back what another process of this run wrote. The caller closes it.
func Open(path string) (*File, error) {
	p, err := find(path)
	if err != nil {
		return nil, err
	}
	if err := p.lookForFile(); err != nil {
		p.close()
		return nil, err
	}
	// Should it be a pipe by now, nobody waits for its other end.
	f, err := p.open(os.O_RDONLY | syscall.O_NONBLOCK)
	if err != nil {
		p.close()
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return p.file(f)
}

// file takes over f and the place.
func (p *place) file(f *os.File) (*File, error) {
	info, err := f.Stat()
	if err != nil {
		defer p.close()
		return nil, errors.Join(p.failed(err), f.Close())
	}
	if !info.Mode().IsRegular() {
		defer p.close()
		return nil, errors.Join(p.refuse("it is not a regular file any more", "name another file"), f.Close())
	}
	return &File{File: f, place: p, id: idOf(f, info)}, nil
}

// ID gives the identity of the file.
func (f *File) ID() ID { return f.id }

// Close closes the file.
func (f *File) Close() error {
	if f.place == nil {
		return nil
	}
	f.place.close()
	f.place = nil
	return f.File.Close()
}

// Remove takes the name of the file away, and closes it. A name that is another file's by now stays.
func (f *File) Remove() error {
	if f.place == nil {
		return fmt.Errorf("remove %s: %w", f.Name(), os.ErrClosed)
	}
	var err error
	if f.place.isNameOf(f.File) {
		err = f.place.unlink(f.place.name)
	}
	return errors.Join(err, f.Close())
}

// descriptors are the names of standard output and standard error.
var descriptors = map[string]int{"/dev/stdout": 1, "/dev/stderr": 2}

// Descriptor tells which descriptor of this process a path names, such as 1 for /dev/stdout and 63 for /dev/fd/63. It
// looks at the text alone: a link to one of these is none.
func Descriptor(path string) (fd int, ok bool) {
	if fd, ok = descriptors[path]; ok {
		return fd, true
	}
	for _, folder := range []string{"/dev/fd/", "/proc/self/fd/"} {
		if number, ok := strings.CutPrefix(path, folder); ok {
			n, err := strconv.ParseUint(number, 10, 16)
			return int(n), err == nil
		}
	}
	return 0, false
}

// readerPatience is how long a pipe may have no reader. One that a script has just started in the background is there
// soon.
const readerPatience = 10 * time.Second

func (p *place) writeToStream(write func(io.Writer) error) error {
	f, err := p.openStream()
	if err != nil {
		return err
	}
	if err := errors.Join(write(f), f.Close()); err != nil {
		return p.failed(err)
	}
	return nil
}

// openStream opens a pipe or a device. A pipe is opened without waiting, since that wait has no end when nobody reads.
func (p *place) openStream() (*os.File, error) {
	end := time.After(readerPatience)
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		f, err := p.open(os.O_WRONLY | syscall.O_NONBLOCK | syscall.O_NOCTTY)
		if err == nil {
			return p.checkStream(f)
		}
		if !errors.Is(err, syscall.ENXIO) {
			return nil, p.failed(err)
		}
		select {
		case <-poll.C:
		case <-end:
			return nil, p.failed(fmt.Errorf("nobody reads this pipe: %w", err))
		}
	}
}

// checkStream makes sure that what was opened is still a stream: a regular file would be overwritten.
func (p *place) checkStream(f *os.File) (*os.File, error) {
	info, err := f.Stat()
	if err == nil && info.Mode()&(fs.ModeNamedPipe|fs.ModeCharDevice) == 0 {
		err = p.refuse("it is not a pipe or a device any more", "name another file")
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
