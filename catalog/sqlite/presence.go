package sqlite

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/internal/ownfile"
)

// A claim is shown by a lock on one byte of the -presence file, which stays
// empty: each claim has a byte of its own, so that a process that is stopped
// keeps no later one from being shown. Who watches asks the kernel about the
// lock and takes none.

const (
	lookEvery  = 25 * time.Millisecond // how late a death is noticed
	checkEvery = time.Second           // how late a file that was replaced is
)

var (
	errShown         = errors.New("another process shows this claim")
	errPresenceMoved = errors.New("the -presence file is no longer the one that was locked")
	errNoPresence    = fmt.Errorf("%w: that needs the locks of Linux that belong to an open file", driver.ErrNoPresence)
)

// Present implements [driver.Presenter]. It costs one open file and writes
// nothing.
func (s *Store) Present(ctx context.Context, claim driver.ID, shown func()) error {
	return s.wrap("present", s.whileOpen(ctx, func(ctx context.Context) error { return s.present(ctx, claim, shown) }), false)
}

func (s *Store) present(ctx context.Context, claim driver.ID, shown func()) error {
	f, err := s.openPresence()
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // the lock goes with it
	if err := untilFree(ctx, func() error { return lockByte(f, byteOf(claim)) }); err != nil {
		return err
	}
	shown()
	return every(ctx, checkEvery, func() error { return stillAt(f) })
}

// WatchPresence implements [driver.PresenceWatcher]. It looks at the lock 40
// times a second, which costs three calls of the kernel each.
func (s *Store) WatchPresence(ctx context.Context, claim driver.ID, lost func()) error {
	was := false
	look := func() error {
		is, err := s.isShown(claim)
		if err == nil && was && !is {
			lost()
		}
		was = is
		return err
	}
	return s.wrap("watch presence", s.whileOpen(ctx, func(ctx context.Context) error {
		if err := s.checkPlace(); err != nil {
			return err
		}
		return every(ctx, lookEvery, look)
	}), false)
}

// isShown asks whether a process holds the lock. It creates no file.
func (s *Store) isShown(claim driver.ID) (bool, error) {
	f, err := ownfile.Open(s.presencePath(), os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }()
	return isLocked(f, byteOf(claim))
}

const presenceEnding = "-presence"

func (s *Store) presencePath() string { return s.path + presenceEnding }

func (s *Store) openPresence() (*os.File, error) {
	if err := s.checkPlace(); err != nil {
		return nil, err
	}
	database, err := os.Stat(s.path)
	if err != nil {
		return nil, err
	}
	return ownfile.OpenLock(s.presencePath(), ownfile.Beside(database))
}

// stillAt returns an error where others would look at another file than f.
func stillAt(f *os.File) error {
	mine, err := f.Stat()
	if err != nil {
		return err
	}
	if now, err := os.Stat(f.Name()); err != nil || !os.SameFile(mine, now) {
		return errPresenceMoved
	}
	return nil
}

// byteOf returns which byte a claim locks. It is frozen. Two claims of a file
// share one as good as never, and then a loss goes unseen.
func byteOf(claim driver.ID) int64 {
	return int64(binary.BigEndian.Uint64(claim[:]) >> 2)
}

// whileOpen calls fn with a context that ends with ctx and with the store, and
// then returns why.
func (s *Store) whileOpen(ctx context.Context, fn func(context.Context) error) error {
	if s.root.Err() != nil {
		return errClosed
	}
	both, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.root, cancel)()
	err := fn(both)
	if errors.Is(err, context.Canceled) && ctx.Err() == nil {
		return fmt.Errorf("%w: %w", errClosed, err)
	}
	return err
}

// every calls fn at once and then again and again, until it fails or ctx ends.
func every(ctx context.Context, interval time.Duration, fn func() error) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		if err := fn(); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
