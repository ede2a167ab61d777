package catalog_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

// rolledBack is a catalog of two claims, g1.e1 and g1.e2, with a commit under
// each, and how to take the second claim back.
func rolledBack(t *testing.T) (store *memory.Store, rollBack func()) {
	t.Helper()
	store = memory.New()
	for range 2 {
		c, err := catalog.Open(t.Context(), store.Open(), catalog.Config{Generation: 1})
		require.NoError(t, err)
		require.NoError(t, c.Update(t.Context(), set("k")))
		require.NoError(t, c.Close())
	}
	return store, func() { store.Rollback(2) }
}

func requireLost(t *testing.T, err error) {
	t.Helper()
	require.ErrorIs(t, err, catalog.ErrLostCommit)
	require.ErrorContains(t, err, "g1.e1")
	require.ErrorContains(t, err, "g1.e2")
	require.Equal(t, exitcodes.Panic, exitcodes.Of(err))
}

// What is read first, and what is read once the store has lost what that saw:
// every pair of calls that a process makes on one store.
func TestTheHighestTokenEverSeenIsComparedAtEveryPlaceThatReadsAHead(t *testing.T) {
	cfg := catalog.Config{Generation: 1}
	ctx := t.Context()
	reads := map[string]func(driver.Store) error{
		"Head": func(s driver.Store) error { _, err := s.Head(ctx); return err },
		"Snapshot": func(s driver.Store) error {
			return catalog.Snapshot(ctx, s, cfg, func(driver.Head, *catalog.Reader) error { return nil })
		},
		"History": func(s driver.Store) error { _, err := catalog.History(ctx, s); return err },
		"Follow": func(s driver.Store) error {
			f, err := catalog.Follow(ctx, s, cfg)
			if err == nil {
				err = f.Close()
			}
			return err
		},
		"Rehearse": func(s driver.Store) error {
			r, err := catalog.Rehearse(ctx, s, cfg)
			if err == nil {
				err = r.Close()
			}
			return err
		},
		"Feed": func(s driver.Store) error {
			enough := errors.New("enough")
			if err := catalog.Feed(ctx, s, cfg, catalog.Position{}, func(catalog.Event) error { return enough }); !errors.Is(err, enough) {
				return err
			}
			return nil
		},
		"Board.Head":           func(s driver.Store) error { _, err := catalog.NewBoard(s, cfg).Head(ctx); return err },
		"Board.NextGeneration": func(s driver.Store) error { _, err := catalog.NewBoard(s, cfg).NextGeneration(ctx); return err },
	}
	writes := map[string]func(driver.Store) error{
		"Open": func(s driver.Store) error { _, err := catalog.Open(ctx, s, cfg); return err },
		"Raise": func(s driver.Store) error {
			_, err := catalog.Raise(ctx, s, cfg, catalog.RaiseOptions{Reason: "test"})
			return err
		},
	}
	later := map[string]func(driver.Store) error{
		"ReadLog": func(s driver.Store) error { // it reads no head, and is held against the next that is read
			return catalog.ReadLog(ctx, s, 0, func(catalog.Commit) error { return nil })
		},
	}
	for first, see := range join(reads, later) {
		for then, read := range join(reads, writes) {
			t.Run(first+" "+then, func(t *testing.T) {
				store, rollBack := rolledBack(t)
				process := catalog.Witnessed(store.Open())
				require.NoError(t, see(process))
				rollBack()
				before, err := store.Head(ctx)
				require.NoError(t, err)
				requireLost(t, read(process))
				after, err := store.Head(ctx)
				require.NoError(t, err)
				require.Equal(t, before, after)
			})
		}
	}
}

func join[K comparable, V any](all ...map[K]V) map[K]V {
	joined := map[K]V{}
	for _, m := range all {
		for k, v := range m {
			joined[k] = v
		}
	}
	return joined
}

func TestAClaimComparesTheHeadUnderItThoughTheFollowerHasJustRead(t *testing.T) {
	for name, interval := range map[string]time.Duration{"just read": time.Hour, "read long ago": time.Nanosecond} {
		t.Run(name, func(t *testing.T) {
			store, rollBack := rolledBack(t)
			handle := store.Open()
			f, err := catalog.Follow(t.Context(), handle, catalog.Config{Generation: 1, PollInterval: interval})
			require.NoError(t, err)
			handle.Inject(func(c memory.Call) memory.Fault {
				if c.Method == "Watch" { // what it sees by itself is not what is tried here
					return memory.Refuse
				}
				return memory.Pass
			})
			rollBack()
			_, err = f.Open(t.Context(), catalog.ClaimOptions{})
			requireLost(t, err)
			claims, err := catalog.History(t.Context(), store)
			require.NoError(t, err)
			require.Len(t, claims, 1, "it claimed over a store that has lost what it saw")
		})
	}
}

func TestAClaimComparesTheHeadUnderItWithTheOneThatItReadBefore(t *testing.T) {
	for name, claim := range map[string]func(driver.Store) error{
		"Open": func(s driver.Store) error {
			_, err := catalog.Open(t.Context(), s, catalog.Config{Generation: 1})
			return err
		},
		"Raise": func(s driver.Store) error {
			_, err := catalog.Raise(t.Context(), s, catalog.Config{}, catalog.RaiseOptions{Reason: "test"})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			store, rollBack := rolledBack(t)
			handle := store.Open()
			handle.Inject(func(c memory.Call) memory.Fault {
				if c.Method == "Claim" {
					rollBack() // between the head that it read and the one under the claim
				}
				return memory.Pass
			})
			requireLost(t, claim(handle))
		})
	}
}

func TestAHolderThatWasFencedComparesWithTheTokenThatFencedIt(t *testing.T) {
	store := memory.New()
	handle := store.Open()
	c, err := catalog.Open(t.Context(), handle, catalog.Config{Generation: 1})
	require.NoError(t, err)
	for range 2 {
		next, err := catalog.Open(t.Context(), store.Open(), catalog.Config{Generation: 1})
		require.NoError(t, err)
		require.NoError(t, next.Close())
	}
	<-c.Done()
	require.ErrorIs(t, c.Err(), fence.ErrFenced)
	require.ErrorIs(t, c.Confirm(t.Context()), fence.ErrFenced) // and so it has seen g1.e3
	store.Rollback(2)
	err = c.Confirm(t.Context())
	require.ErrorIs(t, err, fence.ErrFenced, "the fence stands")
	require.ErrorContains(t, err, "g1.e3")
	require.ErrorIs(t, c.Close(), fence.ErrFenced)
}

// A store of one process is asked by many at once, and answers overtake each
// other: that is no loss.
func TestAnAnswerThatWasOvertakenByANewerOneIsNoLoss(t *testing.T) {
	store, _ := rolledBack(t)
	slow := &overtaken{Store: store, read: make(chan struct{}), goOn: make(chan struct{})}
	process := catalog.Witnessed(slow)
	answered := make(chan error, 1)
	go func() { _, err := process.Head(t.Context()); answered <- err }()
	<-slow.read
	holder(t, store.Open(), catalog.Config{Generation: 2})
	_, err := process.Head(t.Context())
	require.NoError(t, err)
	close(slow.goOn)
	require.NoError(t, <-answered)
}

// overtaken holds the first answer back.
type overtaken struct {
	driver.Store
	read, goOn chan struct{}
	began      bool
}

func (o *overtaken) Head(ctx context.Context) (driver.Head, error) {
	first := !o.began
	o.began = true
	head, err := o.Store.Head(ctx)
	if first {
		close(o.read)
		<-o.goOn
	}
	return head, err
}

// oldSnapshot is a store with a snapshot that was made under the second claim.
type oldSnapshot struct{ driver.Store }

func (oldSnapshot) Snapshot(_ context.Context, fn func(driver.Snapshot, []byte) error) error {
	return fn(driver.Snapshot{Token: fence.Token{Generation: 1, Epoch: 2}, Revision: 4}, nil)
}

func TestWhatIsReadAfterTheHighestTokenDoesNotHideIt(t *testing.T) {
	t.Parallel()
	enough := errors.New("enough")
	head := func(s driver.Store) error { _, err := s.Head(t.Context()); return err }
	for name, see := range map[string]func(driver.Store) error{
		"the beginning of the log": func(s driver.Store) error {
			err := s.Log(t.Context(), 0, func(driver.Record) error { return enough })
			if !errors.Is(err, enough) {
				return err
			}
			return nil
		},
		"the first claim": func(s driver.Store) error {
			err := s.Claims(t.Context(), 0, func(driver.Claim) error { return enough })
			if !errors.Is(err, enough) {
				return err
			}
			return nil
		},
		"a snapshot alone": nil,
	} {
		store, rollBack := rolledBack(t)
		process := catalog.Witnessed(oldSnapshot{store})
		if see != nil {
			require.NoError(t, errors.Join(head(process), see(process)), name)
		} else {
			require.NoError(t, process.Snapshot(t.Context(), func(driver.Snapshot, []byte) error { return nil }), name)
		}
		rollBack()
		requireLost(t, head(process))
	}
}

func TestAWitnessHidesNothingThatTheStoreCanDo(t *testing.T) {
	store := memory.New()
	process := catalog.Witnessed(catalog.Witnessed(store))
	watcher, ok := driver.As[driver.Watcher](process)
	require.True(t, ok)
	require.Same(t, store, watcher)
	_, ok = driver.As[driver.Warmer](process)
	require.False(t, ok)
	_, ok = driver.As[driver.Watcher](headless{Store: store})
	require.False(t, ok, "what a store does not say of itself is not looked for")
}
