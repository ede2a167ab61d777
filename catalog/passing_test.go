package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/exitcodes"
)

// once refuses the first call of each method in passing.
func once() func(memory.Call) memory.Fault {
	return func(c memory.Call) memory.Fault {
		if c.N == 0 {
			return memory.Refuse
		}
		return memory.Pass
	}
}

func TestAFailureInPassingIsTriedAgainByEveryCall(t *testing.T) {
	cfg := catalog.Config{Generation: 2}
	for name, call := range map[string]func(context.Context, driver.Store) error{
		"NextGeneration": func(ctx context.Context, s driver.Store) error {
			g, err := catalog.NewBoard(s, cfg).NextGeneration(ctx)
			if err == nil && g != 2 {
				err = fmt.Errorf("%v was given out", g)
			}
			return err
		},
		"Board.Head": func(ctx context.Context, s driver.Store) error {
			_, err := catalog.NewBoard(s, cfg).Head(ctx)
			return err
		},
		"LastGeneration": func(ctx context.Context, s driver.Store) error {
			_, err := catalog.NewBoard(s, cfg).LastGeneration(ctx)
			return err
		},
		"Reserve": func(ctx context.Context, s driver.Store) error { return catalog.NewBoard(s, cfg).Reserve(ctx, 9) },
		"RemoveNote": func(ctx context.Context, s driver.Store) error {
			return catalog.RemoveNote(ctx, catalog.NewBoard(s, cfg), catalog.Posted[struct{}]{Key: "none"})
		},
		"History":   func(ctx context.Context, s driver.Store) error { _, err := catalog.History(ctx, s); return err },
		"Compacted": func(ctx context.Context, s driver.Store) error { _, err := catalog.Compacted(ctx, s); return err },
		"ReadLog": func(ctx context.Context, s driver.Store) error {
			return catalog.ReadLog(ctx, s, 0, func(catalog.Commit) error { return nil })
		},
		"Snapshot": func(ctx context.Context, s driver.Store) error {
			return catalog.Snapshot(ctx, s, cfg, func(driver.Head, *catalog.Reader) error { return nil })
		},
		"Feed": func(ctx context.Context, s driver.Store) error {
			enough := errors.New("enough")
			if err := catalog.Feed(ctx, s, cfg, catalog.Position{}, func(catalog.Event) error { return enough }); !errors.Is(err, enough) {
				return fmt.Errorf("%w, and no event", err)
			}
			return nil
		},
		"Rehearse": func(ctx context.Context, s driver.Store) error {
			r, err := catalog.Rehearse(ctx, s, cfg)
			if err != nil {
				return err
			}
			return r.Close()
		},
		"Raise": func(ctx context.Context, s driver.Store) error {
			_, err := catalog.Raise(ctx, s, cfg, catalog.RaiseOptions{Reason: "test"})
			return err
		},
		"Open, Update, Confirm": func(ctx context.Context, s driver.Store) error {
			c, err := catalog.Open(ctx, s, cfg)
			if err != nil {
				return err
			}
			return errors.Join(c.Update(ctx, set("k")), c.Confirm(ctx), c.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := memory.New()
				c, err := catalog.Open(t.Context(), store.Open(), catalog.Config{Generation: 1})
				require.NoError(t, err)
				require.NoError(t, c.Update(t.Context(), set("k")))
				require.NoError(t, c.Close())
				h := store.Open()
				h.Inject(once())
				require.NoError(t, call(t.Context(), h))

				gone := store.Open()
				gone.Inject(func(memory.Call) memory.Fault { return memory.Refuse })
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				defer cancel()
				began := time.Now()
				require.Error(t, call(ctx, gone))
				require.LessOrEqual(t, time.Since(began), 200*time.Millisecond, "it outlives its context")
			})
		})
	}
}

func TestWhoWaitsForANumberWaitsNoLongerThanItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &silentBoard{Store: memory.New()}
		board := catalog.NewBoard(store, catalog.Config{})
		first := make(chan error, 1)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		go func() { _, err := board.NextGeneration(ctx); first <- err }()
		synctest.Wait()
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, err := board.NextGeneration(short)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(began))
		require.Error(t, <-first)
	})
}

// silentBoard answers no Notes.
type silentBoard struct{ driver.Store }

func (s *silentBoard) Notes(ctx context.Context, _ string) ([]driver.Note, error) {
	<-ctx.Done()
	return nil, &driver.Error{Class: driver.Class{Disposition: exitcodes.Retry}, Store: s.String(), Op: "notes", Err: ctx.Err()}
}

// elsewhere is a store that refuses callers that do not adopt, some of them or
// all.
type elsewhere struct {
	driver.Store
	says  exitcodes.Disposition
	times *atomic.Int64
}

func (e elsewhere) Head(ctx context.Context) (driver.Head, error) {
	if driver.Adopts(ctx) || e.times.Add(-1) < 0 {
		return e.Store.Head(ctx)
	}
	return driver.Head{}, &driver.Error{Class: driver.Class{Disposition: e.says}, Store: e.String(), Op: "head", Err: errors.New("no")}
}

func TestAFailureInPassingIsNotTakenForACatalogThatWasMoved(t *testing.T) {
	for _, row := range []struct {
		says  exitcodes.Disposition
		times int64
		want  error
	}{
		{exitcodes.Retry, 1, catalog.ErrNotBelow}, // it passes
		{exitcodes.Retry, 1000, nil},              // it does not, as that of an older timeline
		{exitcodes.Halt, 1000, nil},
	} {
		synctest.Test(t, func(t *testing.T) {
			store := memory.New()
			c, err := catalog.Open(t.Context(), store.Open(), catalog.Config{Generation: 1})
			require.NoError(t, err)
			require.NoError(t, c.Close())
			times := new(atomic.Int64)
			times.Store(row.times)
			_, err = catalog.Raise(t.Context(), elsewhere{store, row.says, times}, catalog.Config{}, catalog.RaiseOptions{Reason: "test", Above: c.Token()})
			require.ErrorIs(t, err, row.want)
		})
	}
}
