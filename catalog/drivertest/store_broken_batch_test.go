package drivertest

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
)

// batched is a store whose NotesAfter and RemoveNotes are others.
type batched struct {
	*memory.Store
	after  func(ctx context.Context, prefix, after string, n int) ([]driver.Note, bool, error)
	remove func(context.Context, []driver.Note) error
}

func (s batched) NotesAfter(ctx context.Context, prefix, after string, n int) ([]driver.Note, bool, error) {
	if s.after == nil {
		return s.Store.NotesAfter(ctx, prefix, after, n)
	}
	return s.after(ctx, prefix, after, n)
}

func (s batched) RemoveNotes(ctx context.Context, notes []driver.Note) error {
	if s.remove == nil {
		return s.Store.RemoveNotes(ctx, notes)
	}
	return s.remove(ctx, notes)
}

// brokenBatchers are stores with one defect each in how they read and remove notes by
// the batch.
func brokenBatchers() map[string]brokenStore {
	type reader = func(ctx context.Context, prefix, after string, n int) ([]driver.Note, bool, error)
	reads := func(read func(*memory.Store) reader) func(*memory.Store, *defect) driver.Store {
		return func(s *memory.Store, _ *defect) driver.Store { return batched{Store: s, after: read(s)} }
	}
	removes := func(remove func(*memory.Store, context.Context, []driver.Note) error) func(*memory.Store, *defect) driver.Store {
		return func(s *memory.Store, _ *defect) driver.Store {
			return batched{Store: s, remove: func(ctx context.Context, notes []driver.Note) error { return remove(s, ctx, notes) }}
		}
	}
	return map[string]brokenStore{
		"a page begins at the key": {[]string{"batch-pages"}, reads(func(s *memory.Store) reader {
			return func(ctx context.Context, prefix, after string, n int) ([]driver.Note, bool, error) {
				all, err := s.Notes(ctx, prefix)
				notes, more := driver.CutNotes(all, after[:max(0, len(after)-1)], n)
				return notes, more, err
			}
		})},
		"a page forgets the prefix": {[]string{"batch-pages"}, reads(func(s *memory.Store) reader {
			return func(ctx context.Context, prefix, after string, n int) ([]driver.Note, bool, error) {
				return s.NotesAfter(ctx, "", max(prefix, after), n)
			}
		})},
		"there are never more": {[]string{"batch-pages", "batch-is-bounded"}, reads(func(s *memory.Store) reader {
			return func(ctx context.Context, prefix, after string, n int) ([]driver.Note, bool, error) {
				notes, _, err := s.NotesAfter(ctx, prefix, after, n)
				return notes, false, err
			}
		})},
		"a page has all bytes": {[]string{"batch-is-bounded"}, reads(func(s *memory.Store) reader {
			return func(ctx context.Context, prefix, after string, n int) ([]driver.Note, bool, error) {
				all, err := s.Notes(ctx, prefix)
				return all[:min(n, len(all))], len(all) > n, err
			}
		})},
		"versions don't matter": {[]string{"batch-is-removed"}, removes(func(s *memory.Store, ctx context.Context, notes []driver.Note) error {
			for _, n := range notes {
				now, err := s.Notes(ctx, n.Key)
				if err != nil {
					return err
				}
				if err := s.RemoveNotes(ctx, now[:min(1, len(now))]); err != nil {
					return err
				}
			}
			return nil
		})},
		"all or none": {[]string{"batch-is-removed"}, removes(func(s *memory.Store, ctx context.Context, notes []driver.Note) error {
			for _, n := range notes {
				if now, err := s.Notes(ctx, n.Key); err != nil || len(now) == 0 || now[0].Version != n.Version {
					return err
				}
			}
			return s.RemoveNotes(ctx, notes)
		})},
		"a removal needs no context": {[]string{"batch-moves-no-head"}, removes(func(s *memory.Store, _ context.Context, notes []driver.Note) error {
			return s.RemoveNotes(context.Background(), notes)
		})},
	}
}

func TestEveryRuleOfBatchesHasAStoreThatBreaksIt(t *testing.T) {
	broken := make(map[string]bool)
	for _, b := range brokenBatchers() {
		for _, rule := range b.rules {
			broken[rule] = true
		}
	}
	for _, r := range batchRules() {
		require.True(t, broken[r.name], r.name)
	}
}
