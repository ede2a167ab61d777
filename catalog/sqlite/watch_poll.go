package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// lookForWrites is how often the files are looked at.
const lookForWrites = 20 * time.Millisecond

// pollWrites calls wake after every write to the file and to its WAL, which it
// sees by their sizes and times. It opens neither.
func (s *Store) pollWrites(ctx context.Context, wake func()) error {
	before, err := s.marks()
	if err != nil {
		return err
	}
	wake()
	return every(ctx, lookForWrites, func() error {
		now, err := s.marks()
		if err == nil && now != before {
			wake()
		}
		before = now
		return err
	})
}

// A mark is what a write to a file changes; zero where there is no file.
type mark struct {
	size    int64
	written int64 // nanoseconds
}

func (s *Store) marks() (now [2]mark, err error) {
	for i, name := range []string{s.path, s.path + "-wal"} {
		info, err := os.Stat(name)
		switch {
		case err == nil:
			now[i] = mark{info.Size(), info.ModTime().UnixNano()}
		case !errors.Is(err, fs.ErrNotExist):
			return now, err
		}
	}
	return now, nil
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
