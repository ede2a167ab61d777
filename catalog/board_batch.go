package catalog

import (
	"context"
	"errors"

	"github.com/fencepost/fencepost/catalog/driver"
)

// NotesAfter returns the first notes whose key begins with prefix and is above
// after, as they are stored, ordered by key: n at most, and fewer if they are large.
// More says that there are further ones. A failure in passing is tried again within
// RetryBudget.
func (b *Board) NotesAfter(ctx context.Context, prefix, after string, n int) (notes []driver.Note, more bool, err error) {
	err = b.persist(ctx, func(ctx context.Context) (err error) {
		if batcher, ok := driver.As[driver.NoteBatcher](b.store); ok {
			notes, more, err = batcher.NotesAfter(ctx, prefix, after, n)
			return err
		}
		all, err := b.store.Notes(ctx, prefix)
		notes, more = driver.CutNotes(all, after, n)
		return err
	})
	if err != nil {
		return nil, false, err
	}
	return notes, more, nil
}

// RemoveNotes removes each of the notes that is still at its version. After an error
// some of them may have been removed. A failure in passing is tried again within
// RetryBudget.
func (b *Board) RemoveNotes(ctx context.Context, notes []driver.Note) error {
	if len(notes) == 0 {
		return nil
	}
	return b.persist(ctx, func(ctx context.Context) error {
		if batcher, ok := driver.As[driver.NoteBatcher](b.store); ok {
			return batcher.RemoveNotes(ctx, notes)
		}
		for _, n := range notes {
			_, err := b.store.Post(ctx, driver.Note{Key: n.Key, Version: n.Version})
			if err != nil && !(errors.Is(err, driver.ErrConflict) && driver.OutcomeOf(err) == driver.NotApplied) {
				return err
			}
		}
		return nil
	})
}
