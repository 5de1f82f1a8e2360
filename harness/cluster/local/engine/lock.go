package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// lock is a flock on a file beside an engine: exclusive while building or removing it, shared while using it. The
// kernel releases it when the process ends, however it ends.
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
	if err := flock(l.file, lockShared, true); err != nil {
		return fmt.Errorf("share lock %s: %w", l.file.Name(), err)
	}
	return nil
}

// lockKind is how a lock is held.
type lockKind int

const (
	lockShared lockKind = iota
	lockExclusive
)

// errBusy says that somebody else holds a lock.
var errBusy = errors.New("the lock is held")

// tryLock takes the lock if it is free, and gives nil if it is not.
func tryLock(path string, how lockKind) (*lock, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o644)
		if err != nil {
			return nil, fmt.Errorf("open lock: %w", err)
		}
		err = flock(f, how, false)
		if errors.Is(err, errBusy) {
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

// removeIdleLock removes the lock file of an engine that is not there. The caller holds the lock, exclusively, and
// keeps it: see stillNamed.
func removeIdleLock(dir string) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Remove(lockPath(dir))
}

// isReadOnly tells that a lock could not be made for want of a place to write it.
func isReadOnly(err error) bool {
	return errors.Is(err, syscall.EROFS) || errors.Is(err, fs.ErrPermission)
}
