package sqlite

import (
	"context"
	"errors"
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
