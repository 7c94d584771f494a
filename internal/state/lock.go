package state

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// ErrLocked is what TryLock wraps when another process holds the lock.
var ErrLocked = errors.New("in use by another kist command")

// A Lock is an advisory lock on a file, held until Unlock or the end of the
// process, whichever comes first: kill -9 releases it. See flock(2).
type Lock struct{ f *os.File }

// TryLock takes the exclusive lock of path without waiting. The file and its
// directory are made when missing and never removed.
func TryLock(path string) (*Lock, error) { return open(path, unix.LOCK_EX) }

// AcquireLock waits for the exclusive lock of path until ctx ends.
func AcquireLock(ctx context.Context, path string) (*Lock, error) {
	return acquire(ctx, path, unix.LOCK_EX)
}

// AcquireRLock is AcquireLock for a shared lock.
func AcquireRLock(ctx context.Context, path string) (*Lock, error) {
	return acquire(ctx, path, unix.LOCK_SH)
}

// acquire polls, because a blocking flock cannot be cancelled. The holders do
// milliseconds of work, so the pauses start short.
func acquire(ctx context.Context, path string, how int) (*Lock, error) {
	pause := 200 * time.Microsecond
	for {
		l, err := open(path, how)
		if !errors.Is(err, ErrLocked) {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("lock %s: %w", filepath.Base(path), context.Cause(ctx))
		case <-time.After(pause):
		}
		pause = min(2*pause, 20*time.Millisecond)
	}
}

func open(path string, how int) (*Lock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, err
		}
		f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	}
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		switch {
		case err == nil:
			return &Lock{f}, nil
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EWOULDBLOCK):
			err = ErrLocked
		}
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", filepath.Base(path), err)
	}
}

// Unlock releases the lock. A nil Lock is not held by anybody, and unlocking
// it does nothing, so that `defer l.Unlock()` may follow an early Unlock.
func (l *Lock) Unlock() {
	if l != nil && l.f != nil {
		l.f.Close()
		l.f = nil
	}
}

// Current reports whether path still is the file that is locked. Where locks are
// removed with their objects, one may have been removed as it was taken.
func (l *Lock) Current(path string) bool {
	mine, err := l.f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(path)
	return err == nil && os.SameFile(mine, there)
}

// File returns the open lock file, to be inherited by a child process that is
// to hold the lock too: a flock belongs to the open file, not to the process.
func (l *Lock) File() *os.File { return l.f }
