package postgres

import (
	"context"
)

// Watch calls wake after every claim, by LISTEN on a connection that all stores
// of one [Server] share. Behind a pooler in transaction mode it never calls wake
// again after the first time, without an error.
func (s *Store) Watch(ctx context.Context, wake func()) error {
	if !s.joinLater() {
		return s.fail("watch", errClosed, notSent)
	}
	defer s.watchers.Done()
	w := s.ear.join(s)
	defer s.ear.leave(w)
	for {
		select {
		case <-w.news:
			wake()
		case <-w.ended:
			return s.fail("watch", w.reason, notSent)
		case <-ctx.Done():
			return s.fail("watch", ctx.Err(), notSent)
		case <-s.root.Done():
			return s.fail("watch", errClosed, notSent)
		}
	}
}

// joinLater has Close wait for one more watcher, and reports whether it does: a
// closed store starts nothing.
func (s *Store) joinLater() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.watchers.Add(1)
	return true
}
