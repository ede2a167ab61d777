package sqlite

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// The kernel tells of a write to the WAL a little before the commit can be
// read, so each one is followed by two more wake-ups.
const (
	soon  = 2 * time.Millisecond
	later = 20 * time.Millisecond
)

// Watch implements [driver.Watcher]: the kernel tells of every write to the
// file and to its WAL.
func (s *Store) Watch(ctx context.Context, wake func()) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return s.wrap("watch", err, false)
	}
	defer func() { _ = w.Close() }() // nothing is lost with it
	if err := w.Add(filepath.Dir(s.path)); err != nil {
		return s.wrap("watch", err, false)
	}
	wake()
	again, next := time.NewTimer(soon), later
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return s.wrap("watch", ctx.Err(), false)
		case <-again.C:
			wake()
			if next > 0 {
				again.Reset(next)
				next = 0
			}
		case e, ok := <-w.Events:
			if !ok {
				return s.wrap("watch", errWatchEnded, false)
			}
			if e.Name == s.path || strings.HasPrefix(e.Name, s.path+"-wal") {
				wake()
				again.Reset(soon)
				next = later
			}
		case err, ok := <-w.Errors:
			if !ok {
				return s.wrap("watch", errWatchEnded, false)
			}
			if errors.Is(err, fsnotify.ErrEventOverflow) {
				wake()
				continue
			}
			return s.wrap("watch", err, false)
		}
	}
}
