package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
)

func holder(t *testing.T, store driver.Store, cfg catalog.Config) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Open(t.Context(), store, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

func set(key string) func(*catalog.Tx) error {
	return func(tx *catalog.Tx) error { return catalog.Bytes("c").Set(tx, key, []byte("v")) }
}

type viewer interface {
	View(func(*catalog.Reader) error) error
}

func keys(t *testing.T, v viewer) (all []string) {
	t.Helper()
	require.NoError(t, v.View(func(r *catalog.Reader) error {
		return catalog.Bytes("c").Scan(r, "", func(key string, _ []byte) bool { all = append(all, key); return true })
	}))
	return all
}

// requireDead asserts that whatever is done with a source that was kept fails.
func requireDead(t *testing.T, s catalog.Source) {
	t.Helper()
	_, ok, err := catalog.Bytes("c").Get(s, "a")
	require.ErrorIs(t, err, catalog.ErrFinished)
	require.False(t, ok)
	require.ErrorIs(t, catalog.Bytes("c").Scan(s, "", func(string, []byte) bool { t.Error("it shows an entry"); return true }), catalog.ErrFinished)
	switch s := s.(type) {
	case *catalog.Reader:
		_, err := s.Collections()
		require.ErrorIs(t, err, catalog.ErrFinished)
	case *catalog.Tx:
		require.ErrorIs(t, catalog.Bytes("c").Set(s, "ghost", nil), catalog.ErrFinished)
		_, err := catalog.Bytes("c").Delete(s, "a")
		require.ErrorIs(t, err, catalog.ErrFinished)
	}
}

func TestATxThatWasKeptIsDeadAndNothingOfItIsEverShown(t *testing.T) {
	var kept []*catalog.Tx
	keep := func(then error) func(*catalog.Tx) error {
		return func(tx *catalog.Tx) error {
			kept = append(kept, tx)
			return errors.Join(catalog.Bytes("c").Set(tx, "a", []byte("v")), then)
		}
	}
	cfg := catalog.Config{Generation: 1, Migrations: []catalog.Migration{
		{Version: 1, Up: keep(nil)},
		{Version: 2, Up: func(tx *catalog.Tx) error {
			if len(kept) > 0 {
				requireDead(t, kept[len(kept)-1])
			}
			return keep(nil)(tx)
		}},
	}}
	store := memory.New()
	rehearsal, err := catalog.Rehearse(t.Context(), store.Open(), cfg)
	require.NoError(t, err)
	require.NoError(t, rehearsal.Update(keep(nil)))
	require.Error(t, rehearsal.Update(keep(errors.New("no"))))
	c := holder(t, store, cfg)
	f, err := catalog.Follow(t.Context(), store.Open(), cfg)
	require.NoError(t, err)
	queued, cancel := context.WithCancel(t.Context()) // which the committer's goroutine runs
	defer cancel()
	for _, ctx := range []context.Context{context.Background(), queued} {
		require.NoError(t, c.Update(ctx, keep(nil)))
		require.Error(t, c.Update(ctx, keep(errors.New("no"))))
		require.Error(t, c.Update(ctx, func(tx *catalog.Tx) error { return errors.Join(keep(nil)(tx), catalog.Bytes("").Set(tx, "k", nil)) }))
		require.Panics(t, func() { _ = c.Update(ctx, func(tx *catalog.Tx) error { _ = keep(nil)(tx); panic("no") }) })
	}
	require.Error(t, c.Update(queued, func(tx *catalog.Tx) error { _ = keep(nil)(tx); runtime.Goexit(); return nil }))
	require.Len(t, kept, 2+2+2+2*4+1)
	for _, tx := range kept {
		requireDead(t, tx)
	}
	require.NoError(t, c.Update(t.Context(), set("b")))
	require.NoError(t, f.Wait(t.Context(), func(h driver.Head) bool { return h.Revision == c.Head().Revision }))
	for _, v := range []viewer{c, f} {
		require.Equal(t, []string{"a", "b"}, keys(t, v))
	}
	require.Equal(t, []string{"a"}, keys(t, rehearsal))
	require.NoError(t, rehearsal.Close())
	require.NoError(t, f.Close())
}

func TestAReaderThatWasKeptIsDead(t *testing.T) {
	var kept []*catalog.Reader
	keep := func(r *catalog.Reader) error {
		_, ok, err := catalog.Bytes("c").Get(r, "a")
		require.NoError(t, err)
		require.True(t, ok)
		kept = append(kept, r)
		return nil
	}
	store := memory.New()
	c := holder(t, store, catalog.Config{Generation: 1})
	require.NoError(t, c.Update(t.Context(), set("a")))
	f, err := catalog.Follow(t.Context(), store.Open(), catalog.Config{Generation: 1})
	require.NoError(t, err)
	r, err := catalog.Rehearse(t.Context(), store.Open(), catalog.Config{Generation: 1})
	require.NoError(t, err)
	for _, v := range []viewer{c, c, f, r} {
		require.NoError(t, v.View(keep))
		require.Panics(t, func() { _ = v.View(func(r *catalog.Reader) error { _ = keep(r); panic("no") }) })
	}
	require.NoError(t, catalog.Snapshot(t.Context(), store, catalog.Config{}, func(_ driver.Head, r *catalog.Reader) error { return keep(r) }))
	require.Len(t, kept, 4*2+1)
	for _, r := range kept {
		requireDead(t, r)
	}
	require.NoError(t, r.Close())
	require.NoError(t, f.Close())
}

func TestAScanThatOutlivesItsFunctionShowsNoFurtherEntry(t *testing.T) {
	c := holder(t, memory.New(), catalog.Config{Generation: 1})
	require.NoError(t, c.Update(t.Context(), func(tx *catalog.Tx) error { return errors.Join(set("a")(tx), set("b")(tx)) }))
	scan := func(s catalog.Source, entered chan<- string, goOn <-chan struct{}) error {
		return catalog.Bytes("c").Scan(s, "", func(key string, _ []byte) bool { entered <- key; <-goOn; return true })
	}
	entered, goOn, done := make(chan string, 2), make(chan struct{}), make(chan error, 2)
	require.NoError(t, c.View(func(r *catalog.Reader) error {
		go func() { done <- scan(r, entered, goOn) }()
		require.Equal(t, "a", <-entered)
		return nil
	}))
	require.NoError(t, c.Update(t.Context(), func(tx *catalog.Tx) error {
		go func() { done <- scan(tx, entered, goOn) }()
		require.Equal(t, "a", <-entered)
		return nil
	}))
	close(goOn)
	for range 2 {
		require.ErrorIs(t, <-done, catalog.ErrFinished)
	}
	require.Empty(t, entered)
}

func TestAScanInATxSeesTheEntriesOfItsBeginningWhateverItChanges(t *testing.T) {
	const n = 1000
	c := holder(t, memory.New(), catalog.Config{Generation: 1})
	col := catalog.Bytes("c")
	key := func(i int) string { return fmt.Sprintf("%04d", i) }
	require.NoError(t, c.Update(t.Context(), func(tx *catalog.Tx) error {
		for i := range n {
			if err := col.Set(tx, key(i), []byte("old")); err != nil {
				return err
			}
		}
		seen := 0
		err := col.Scan(tx, "", func(k string, v []byte) bool {
			require.Equal(t, "old", string(v))
			require.NoError(t, col.Set(tx, k+"a", []byte("new"))) // lies ahead
			_, err := col.Delete(tx, key(seen+1))
			require.NoError(t, err)
			inner := 0
			require.NoError(t, col.Scan(tx, k+"a", func(string, []byte) bool { inner++; return inner < 3 }))
			seen++
			return true
		})
		require.Equal(t, n, seen)
		return err
	}))
	require.Len(t, keys(t, c), n+1)
}

// The race detector is what asserts here: drafts of one published state are
// made by many at once.
func TestRehearsalsFollowersAndHoldersShareNoMapThatOneOfThemWrites(t *testing.T) {
	store := memory.New()
	cfg := catalog.Config{Generation: 1, CompactAfter: 1}
	fill := func(tx *catalog.Tx) error {
		for _, name := range []string{"c", "d", "e"} {
			if err := catalog.Bytes(name).Set(tx, "k", []byte("v")); err != nil {
				return err
			}
		}
		return nil
	}
	c := holder(t, store, cfg)
	require.NoError(t, c.Update(t.Context(), fill))
	cfg.Migrations = []catalog.Migration{{Version: 1, Up: fill}}
	r, err := catalog.Rehearse(t.Context(), store.Open(), cfg)
	require.NoError(t, err)
	f, err := catalog.Follow(t.Context(), store.Open(), cfg)
	require.NoError(t, err)
	observer, err := catalog.Follow(t.Context(), store.Open(), catalog.Config{})
	require.NoError(t, err)
	var wg sync.WaitGroup
	repeat := func(do func() error) {
		wg.Go(func() {
			for range 50 {
				if err := do(); err != nil {
					t.Errorf("unexpected: %v", err)
				}
			}
		})
	}
	scan := func(r *catalog.Reader) error {
		return catalog.Bytes("c").Scan(r, "", func(string, []byte) bool { return true })
	}
	for range 2 {
		repeat(func() error { return c.Update(context.Background(), fill) })
		repeat(func() error { return r.Update(fill) })
		repeat(func() error { _, err := f.Rehearse(t.Context()); return err })
		for _, v := range []viewer{c, r, f, observer} {
			repeat(func() error { return v.View(scan) })
		}
		repeat(func() error {
			r, err := catalog.Rehearse(context.Background(), store.Open(), cfg)
			if err != nil {
				return err
			}
			return errors.Join(r.Update(fill), r.Close())
		})
	}
	wg.Wait()
	require.NoError(t, r.Close())
	require.NoError(t, f.Close())
	require.NoError(t, observer.Close())
}

func TestAnUpdateWhoseFunctionDoesNotMindARefusedEntryWritesNothing(t *testing.T) {
	t.Parallel()
	store := memory.New()
	c := holder(t, store, catalog.Config{Generation: 1})
	before := c.Head()
	err := c.Update(t.Context(), func(tx *catalog.Tx) error {
		_ = rows.Set(tx, string(make([]byte, catalog.MaxKey+1)), 1) // refused
		return rows.Set(tx, "k", 1)
	})
	require.ErrorIs(t, err, catalog.ErrInvalidEntry)
	require.Equal(t, before, c.Head())
	require.Empty(t, keys(t, c))
}

// The caller may use its buffer again at once.
func TestTheBytesOfAnEntryAreThoseThatSetWasGiven(t *testing.T) {
	t.Parallel()
	store := memory.New()
	c := holder(t, store, catalog.Config{Generation: 1})
	buffer := []byte("first")
	require.NoError(t, c.Update(t.Context(), func(tx *catalog.Tx) error {
		if err := catalog.Bytes("c").Set(tx, "a", buffer); err != nil {
			return err
		}
		copy(buffer, "other")
		return nil
	}))
	copy(buffer, "later")
	f, err := catalog.Follow(t.Context(), store.Open(), catalog.Config{})
	require.NoError(t, err)
	for _, v := range []viewer{c, f} {
		require.NoError(t, v.View(func(r *catalog.Reader) error {
			value, _, err := catalog.Bytes("c").Get(r, "a")
			require.Equal(t, "first", string(value))
			return err
		}))
	}
	require.NoError(t, f.Close())
}

// Two at once would run the migrations' functions beside each other.
func TestMigrationsAreRehearsedOnceAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		runs, goOn := 0, make(chan struct{})
		f, err := catalog.Follow(t.Context(), memory.New(), catalog.Config{Generation: 1, Migrations: []catalog.Migration{{
			Version: 1, Name: "waits", Up: func(*catalog.Tx) error { runs++; <-goOn; return nil },
		}}})
		require.NoError(t, err)
		rehearse := func() error { _, err := f.Rehearse(t.Context()); return err }
		first := async(rehearse)
		synctest.Wait()
		second := async(rehearse)
		synctest.Wait()
		require.Equal(t, 1, runs, "the second does not wait for the first")
		close(goOn)
		require.NoError(t, <-first)
		require.NoError(t, <-second)
		require.Equal(t, 1, runs, "the second run is that of the first")
		require.NoError(t, f.Close())
	})
}
