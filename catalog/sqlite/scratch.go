package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/fencepost/fencepost/catalog/driver"
)

var _ driver.Scratcher = (*Store)(nil)

const (
	scratchEnding = "-check-" // and the name of the place
	locksEnding   = "-locks"
	scratchStores = 2
)

// Scratch opens a catalog in another file in the same folder. SQLite knows of the
// locks of its own process without asking the system; so what the files' locks
// and mapped memory rest on is tried first, on a file that SQLite never opens.
func (s *Store) Scratch(context.Context) (driver.Scratch, error) {
	scratch, err := s.scratch()
	return scratch, s.wrap("scratch", err, false)
}

func (s *Store) scratch() (driver.Scratch, error) {
	if s.isClosed() {
		return driver.Scratch{}, errClosed
	}
	if err := s.checkPlace(); err != nil {
		return driver.Scratch{}, err
	}
	s.removeExpired()
	place := s.path + scratchEnding + driver.NewScratchName()
	if err := tryLocks(place + locksEnding); err != nil {
		return driver.Scratch{}, errors.Join(err, removePlace(place))
	}
	var stores []driver.Store
	discard := func() error {
		var errs []error
		for _, store := range stores {
			errs = append(errs, store.Close())
		}
		return errors.Join(append(errs, removePlace(place))...)
	}
	for range scratchStores {
		store, err := Open(place, Config{Logger: s.log, TrustFileSystem: s.trusts})
		if err != nil {
			return driver.Scratch{}, errors.Join(err, discard())
		}
		stores = append(stores, store)
	}
	return driver.Scratch{Stores: stores, Discard: func(context.Context) error { return s.wrap("discard", discard(), false) }}, nil
}

// tryLocks makes a file at path, opens it twice, and requires that the one does
// not get what the other has locked, and sees what it has written.
func tryLocks(path string) error {
	made, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	// Not by Truncate: on a full disk, a write into a mapped hole kills the process.
	_, err = made.Write(make([]byte, os.Getpagesize()))
	if err := errors.Join(err, made.Close()); err != nil {
		return err
	}
	return tryLocksOf(func() (*os.File, error) { return os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0) })
}

func tryLocksOf(open func() (*os.File, error)) (err error) {
	one, err := open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, one.Close()) }()
	two, err := open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, two.Close()) }()
	for _, try := range lockTries() {
		if err := try.on(one, two); err != nil {
			return err
		}
	}
	return tryMemory(one, two)
}

// A lockTry locks a file, and then tries to lock it by another open file of it.
type lockTry struct {
	what          string
	lock, tryLock func(*os.File) error
	unlock        func(*os.File) error
}

func (t lockTry) on(one, two *os.File) error {
	err := t.lock(one)
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, unix.EINVAL) {
		return nil // the system has no such lock, and nothing uses it
	}
	if err != nil {
		return fmt.Errorf("%s: %w", t.what, err)
	}
	defer func() { _ = t.unlock(one) }() // it is closed soon
	err = t.tryLock(two)
	switch {
	case err == nil:
		_ = t.unlock(two) // it is closed too
		return fmt.Errorf("%w: two locks on %s by %s, of which the second should have been refused, and both were granted: the file system does not lock",
			driver.ErrTwoWon, one.Name(), t.what)
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EACCES), errors.Is(err, errWanted):
		return nil
	}
	return fmt.Errorf("%s: %w", t.what, err)
}

// byFlock is the lock of a -claim file.
func byFlock() lockTry {
	lock := func(f *os.File) error { return flock(f, unix.LOCK_EX) }
	return lockTry{what: "flock, as on the -claim file", lock: lock, tryLock: lock,
		unlock: func(f *os.File) error { return unix.Flock(int(f.Fd()), unix.LOCK_UN) }}
}

// removePlace removes the files of a scratch place.
func removePlace(place string) error {
	var names []string
	for _, ending := range append([]string{"", locksEnding}, sideEndings[:]...) {
		names = append(names, place+ending)
	}
	_, err := removeAll(names)
	return err
}

// removeAll removes files, and reports whether any of them was there.
func removeAll(names []string) (removed bool, err error) {
	var errs []error
	for _, name := range names {
		err := os.Remove(name)
		removed = removed || err == nil
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return removed, errors.Join(errs...)
}

// removeExpired removes the scratch places that dead processes left. What it can't
// remove stays.
func (s *Store) removeExpired() {
	left, err := s.left()
	if err != nil {
		return // the scratch place to come says why
	}
	for _, l := range left {
		if l.Kind != driver.ScratchPlace || !l.Expired() {
			continue
		}
		if _, err := s.removeLeft(l); err != nil {
			s.log.Info("what a dead process left of a check of the store was not removed", "place", l.Name, "err", err)
		}
	}
}
