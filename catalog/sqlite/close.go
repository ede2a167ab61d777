package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"os"
)

// Close closes what was opened. Further calls fail, or do nothing. It waits for
// a write or a reading of the head under way.
//
// If this Store has written, or opened the file to write, all that is in the WAL
// is moved into the file first, so that a copy of the file alone is a whole one
// once every process has closed it. A reader of an old snapshot, in whichever
// process, can hold back a part of that: Close waits for at most a second, and
// then logs what is left.
func (s *Store) Close() error {
	s.end()
	w := <-s.write
	defer func() { s.write <- nil }()
	h := <-s.heads
	defer func() { s.heads <- nil }()
	reads, closed := s.markClosed()
	if closed {
		return nil
	}
	// The readers first: a snapshot that one of them reads would hold the WAL back.
	var errs []error
	if h != nil {
		errs = append(errs, h.close())
	}
	if reads != nil {
		errs = append(errs, reads.Close())
	}
	if s.wrote.Load() {
		errs = append(errs, s.closeWriter(w))
	}
	return errors.Join(errs...)
}

// markClosed returns the connections for reading, or that the Store was closed
// before.
func (s *Store) markClosed() (reads *sql.DB, before bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, s.closed = s.closed, true
	reads, s.reads = s.reads, nil
	return reads, before
}

// closeWriter finishes the file and closes w, or a new connection if w is nil:
// an error has ended the last one. What it could not finish is logged, since no
// commit is in doubt by that.
func (s *Store) closeWriter(w *writer) error {
	ctx, cancel := context.WithTimeout(context.Background(), checkpointPatience)
	defer cancel()
	var err error
	if w == nil {
		if info, err := os.Lstat(s.path); err != nil || info.Size() == 0 || s.gone.Load() != nil {
			return nil // no new file is made, and no other one is touched
		}
		err = untilFree(ctx, func() (err error) {
			if err := s.checkPlace(); err != nil {
				return err
			}
			w, err = s.openWriter(ctx)
			return err
		})
	}
	if err == nil {
		err = w.finish(ctx, s.path)
	}
	if err != nil {
		s.log.Warn("the database file alone may lack commits, which are in its -wal: copy the two together", "store", s.String(), "err", err)
	}
	if w == nil {
		return nil
	}
	return w.close()
}
