package memory

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/fencepost/fencepost/catalog/driver"
)

// Notes returns the notes whose key begins with prefix, ordered by key.
func (s *Store) Notes(ctx context.Context, prefix string) ([]driver.Note, error) {
	if err := s.read(ctx, "Notes", "notes"); err != nil {
		return nil, err
	}
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	var notes []driver.Note
	for key, n := range s.shared.notes {
		if strings.HasPrefix(key, prefix) {
			n.Value = bytes.Clone(n.Value)
			notes = append(notes, n)
		}
	}
	slices.SortFunc(notes, func(a, b driver.Note) int { return cmp.Compare(a.Key, b.Key) })
	return notes, nil
}

// NotesAfter implements [driver.NoteBatcher].
func (s *Store) NotesAfter(ctx context.Context, prefix, after string, n int) ([]driver.Note, bool, error) {
	all, err := s.Notes(ctx, prefix)
	if err != nil {
		return nil, false, err
	}
	notes, more := driver.CutNotes(all, after, n)
	return notes, more, nil
}

// RemoveNotes implements [driver.NoteBatcher]. To a fault it is a Post.
func (s *Store) RemoveNotes(ctx context.Context, notes []driver.Note) error {
	const op = "remove notes"
	if err := s.begin(ctx, op); err != nil {
		return err
	}
	remove := func() error {
		removed := false
		for _, n := range notes {
			if d := s.shared; d.noteAt(n) == nil && n.Version != 0 {
				delete(d.notes, n.Key)
				removed = true
			}
		}
		if removed {
			s.shared.announce()
		}
		return nil
	}
	return s.write("Post", op, remove, func() error {
		s.shared.mu.Lock()
		defer s.shared.mu.Unlock()
		return remove()
	})
}

// Post replaces the note at n.Key where its version is n.Version. It does not
// wait for a claim under way.
func (s *Store) Post(ctx context.Context, n driver.Note) (int64, error) {
	const op = "post"
	if err := s.begin(ctx, op); err != nil {
		return 0, err
	}
	if n.Key == driver.LossesKey {
		return 0, s.fail(op, fmt.Errorf("%w: no note has the key %q", errMisuse, n.Key))
	}
	n.Value = bytes.Clone(n.Value)
	var version int64
	err := s.write("Post", op,
		func() error { _, err := s.shared.post(n); return err },
		func() (err error) {
			s.shared.mu.Lock()
			defer s.shared.mu.Unlock()
			version, err = s.shared.post(n)
			return err
		})
	if err != nil {
		return 0, err
	}
	return version, nil
}

// post does what Post says. The caller holds mu.
func (d *shared) post(n driver.Note) (int64, error) {
	if size, limit := len(n.Value), d.config.Note; size > limit {
		return 0, fmt.Errorf("%w: a note of %d bytes, the largest is %d", driver.ErrTooLarge, size, limit)
	}
	if err := d.noteAt(n); err != nil {
		return 0, err
	}
	if n.Value == nil {
		delete(d.notes, n.Key)
		d.announce()
		return 0, nil
	}
	if d.full {
		return 0, driver.ErrFull
	}
	d.version++
	n.Version = d.version
	d.notes[n.Key] = n
	d.announce()
	return n.Version, nil
}

// noteAt refuses where the note at n.Key is not at n's version. The caller
// holds mu.
func (d *shared) noteAt(n driver.Note) error {
	if have := d.notes[n.Key].Version; have != n.Version {
		return fmt.Errorf("%w: the note at %q is at version %d, and not at %d", driver.ErrConflict, n.Key, have, n.Version)
	}
	return nil
}
