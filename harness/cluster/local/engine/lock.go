package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// lock is a flock on a file beside an engine: exclusive while building or removing it, shared while using it. The kernel
// releases it when the process ends, however it ends.
type lock struct{ file *os.File }

func (l *lock) release() error {
	if l == nil {
		return nil
	}
	if err := l.file.Close(); err != nil {
		return fmt.Errorf("release lock %s: %w", l.file.Name(), err)
	}
	return nil
}

// share turns an exclusive lock into a shared one.
func (l *lock) share() error {
	for {
		err := unix.Flock(int(l.file.Fd()), unix.LOCK_SH)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("share lock %s: %w", l.file.Name(), err)
		}
		return nil
	}
}

// tryLock takes the lock if it is free, and gives nil if it is not. how is unix.LOCK_EX or unix.LOCK_SH.
func tryLock(path string, how int) (*lock, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o644)
		if err != nil {
			return nil, fmt.Errorf("open lock: %w", err)
		}
		err = unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, f.Close()
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		// Prune removes lock files. A lock on a file that is no longer under its name protects nothing.
		same, err := stillNamed(f, path)
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if same {
			return &lock{f}, nil
		}
		if err := f.Close(); err != nil {
			return nil, fmt.Errorf("close removed lock %s: %w", path, err)
		}
	}
}

func stillNamed(f *os.File, path string) (bool, error) {
	have, err := f.Stat()
	if err != nil {
		return false, fmt.Errorf("stat lock: %w", err)
	}
	named, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("stat lock: %w", err)
	}
	return os.SameFile(have, named), nil
}

// isReadOnly tells that a lock could not be made for want of a place to write it.
func isReadOnly(err error) bool {
	return errors.Is(err, unix.EROFS) || errors.Is(err, fs.ErrPermission)
}
