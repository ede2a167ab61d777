package sqlite

import (
	"context"
	"os"
)

// Warm implements [driver.Warmer]: it opens the file for writing.
func (s *Store) Warm(ctx context.Context) error {
	if s.isClosed() {
		return s.wrap("warm", errClosed, false)
	}
	if info, err := os.Stat(s.path); err != nil || info.Size() == 0 {
		return nil // nor is it created
	}
	w, err := s.acquire(ctx)
	if err != nil {
		return s.wrap("warm", err, false)
	}
	s.release(w, false)
	return nil
}
