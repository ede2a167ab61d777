package catalog_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

func TestALogThatDoesNotLeadToItsHeadIsNeitherFollowedNorClaimedOver(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		records func(n int, rec driver.Record) (driver.Record, bool)
		want    error
	}{
		"it ends before the head": {func(n int, rec driver.Record) (driver.Record, bool) { return rec, n < 3 }, driver.ErrCorrupt},
		"it ends with another commit": {func(n int, rec driver.Record) (driver.Record, bool) {
			if n == 3 {
				rec.ID = driver.NewID()
			}
			return rec, true
		}, driver.ErrCorrupt},
		"it lacks a commit":  {func(n int, rec driver.Record) (driver.Record, bool) { return rec, n != 2 }, driver.ErrCorrupt},
		"it lacks the first": {func(n int, rec driver.Record) (driver.Record, bool) { return rec, n != 1 }, driver.ErrCorrupt},
		"it bears a higher token": {func(n int, rec driver.Record) (driver.Record, bool) {
			if n == 2 {
				rec.Token.Epoch++
			}
			return rec, true
		}, catalog.ErrLostCommit},
	} {
		store := memory.New()
		c, err := catalog.Open(t.Context(), store.Open(), process(1, "holder"))
		require.NoError(t, err)
		require.NoError(t, errors.Join(setIn(c, "a"), setIn(c, "b"), c.Close()))
		s := liar{Store: store.Open(), records: row.records}
		_, err = catalog.Follow(t.Context(), s, process(1, "follower"))
		require.ErrorIs(t, err, row.want, name)
		require.Equal(t, exitcodes.Panic, exitcodes.Of(err), name)
		_, err = catalog.Open(t.Context(), s, process(1, "claimer"))
		require.ErrorIs(t, err, row.want, name)
		head, err := store.Head(t.Context())
		require.NoError(t, err)
		require.Equal(t, c.Token(), head.Claim.Token, name)
	}
}

func TestALogThatSkipsARevisionOrRepeatsOneIsCorruptForWhoeverReadsIt(t *testing.T) {
	t.Parallel()
	store := memory.New()
	c, err := catalog.Open(t.Context(), store.Open(), process(1, "holder"))
	require.NoError(t, err)
	claimed := catalog.Position{Revision: c.Head().Revision, Commit: c.Head().Commit}
	require.NoError(t, errors.Join(setIn(c, "a"), setIn(c, "b"), setIn(c, "c"), c.Close()))
	for name, records := range map[string]func(int, driver.Record) (driver.Record, bool){
		"one is left out": func(n int, rec driver.Record) (driver.Record, bool) { return rec, n != 3 },
		"one comes twice": func(n int, rec driver.Record) (driver.Record, bool) {
			if n == 4 { // the last
				rec.Revision--
			}
			return rec, true
		},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		s := liar{Store: store.Open(), records: records}
		read := map[string]error{
			"a reading of the log": catalog.ReadLog(ctx, s, 0, func(catalog.Commit) error { return nil }),
			"a feed":               catalog.Feed(ctx, s, process(1, "reader"), claimed, func(catalog.Event) error { return nil }),
			"a snapshot":           catalog.Snapshot(ctx, s, process(1, "reader"), func(driver.Head, *catalog.Reader) error { return nil }),
		}
		for who, err := range read {
			require.ErrorIs(t, err, driver.ErrCorrupt, "%s, %s", name, who)
			require.Equal(t, exitcodes.Panic, exitcodes.Of(err), "%s, %s", name, who)
		}
	}
}

// A commit of another past lies above the head that was read.
func TestAFeedHandsOutNoCommitOfAHigherTokenThanItsHeads(t *testing.T) {
	t.Parallel()
	store := memory.New()
	c, err := catalog.Open(t.Context(), store.Open(), process(1, "holder"))
	require.NoError(t, err)
	claimed := catalog.Position{Revision: c.Head().Revision, Commit: c.Head().Commit}
	require.NoError(t, errors.Join(setIn(c, "a"), c.Close()))
	s := liar{Store: store.Open(), records: func(n int, rec driver.Record) (driver.Record, bool) {
		if n == 2 {
			rec.Token.Epoch++
		}
		return rec, true
	}}
	err = catalog.Feed(t.Context(), s, process(1, "reader"), claimed, func(e catalog.Event) error {
		require.Fail(t, "it was handed out", "%+v", e)
		return nil
	})
	require.ErrorIs(t, err, catalog.ErrLostCommit)
}

// What was read of the commits before a claim may have been read before anybody was
// told of them. Behind a fail-over that took them away, a process that had read them
// raises no alarm: that would stop every claim.
func TestWhatLiesBeneathAClaimIsNotKnownToBeAcknowledged(t *testing.T) {
	t.Parallel()
	store := memory.New()
	m := &mute{Store: store.Open()}
	cfg := process(1, "holder")
	cfg.RetryBudget = time.Millisecond
	first, err := catalog.Open(t.Context(), m, cfg)
	require.NoError(t, err)
	claimed := first.Head().Revision
	m.silent.Store(true)
	require.ErrorIs(t, setIn(first, "never told"), catalog.ErrUnknownOutcome)
	_ = first.Close() // it ended without an answer
	cfg = process(2, "second")
	cfg.Migrations = []catalog.Migration{{Version: 1, Name: "fill", Up: func(tx *catalog.Tx) error { return set("migrated")(tx) }}}
	second, err := catalog.Open(t.Context(), store.Open(), cfg)
	require.NoError(t, err)
	late := &blind{Store: store.Open()}
	f := followTo(t, late, process(0, "late"), second)
	late.closed.Store(true)
	require.NoError(t, second.Close())
	store.Rollback(claimed)
	third, err := catalog.Open(t.Context(), store.Open(), process(3, "third"))
	require.NoError(t, err)
	require.NoError(t, third.Close())
	late.closed.Store(false)
	awaitEnd(t, f.Done())
	require.NotErrorIs(t, f.Err(), catalog.ErrLostCommit)
	require.Equal(t, exitcodes.Halt, exitcodes.Of(f.Err()))
	losses, err := catalog.Losses(t.Context(), store)
	require.NoError(t, err)
	require.Empty(t, losses)
}

// The answer takes as long as the way back: meanwhile others commit.
func TestAFollowerIsAsFreshAsTheMomentAtWhichItAsked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		begun := time.Now()
		f, err := catalog.Follow(t.Context(), slowAnswer{store}, patient())
		require.NoError(t, err)
		_, at := f.Head()
		require.Equal(t, begun, at)
		require.NoError(t, f.Close())
	})
}

// slowAnswer is a store whose head is long on its way.
type slowAnswer struct{ driver.Store }

func (s slowAnswer) Head(ctx context.Context) (driver.Head, error) {
	head, err := s.Store.Head(ctx)
	<-time.After(time.Minute) // of the bubble's clock
	return head, err
}

func TestAFollowerWhoseClaimFailedFollowsOnWithWhatItHasReadAndRehearsed(t *testing.T) {
	t.Parallel()
	store, runs := memory.New(), 0
	one, err := catalog.Open(t.Context(), store.Open(), catalog.Config{Generation: 1})
	require.NoError(t, err)
	names := catalog.JSON[int]("names")
	require.NoError(t, one.Update(t.Context(), func(tx *catalog.Tx) error { return names.Set(tx, "a", 1) }))
	cfg := catalog.Config{Generation: 2, Migrations: []catalog.Migration{{Version: 1, Up: func(tx *catalog.Tx) error { runs++; return names.Set(tx, "b", 2) }}}}
	f, err := catalog.Follow(t.Context(), store.Open(), cfg)
	require.NoError(t, err)
	_, err = f.Again(t.Context())
	require.ErrorIs(t, err, catalog.ErrClosed, "its claim has not failed")
	_, err = f.Rehearse(t.Context())
	require.NoError(t, err)
	for range 3 {
		_, err = f.Open(t.Context(), catalog.ClaimOptions{IfNeverClaimed: true})
		require.ErrorIs(t, err, catalog.ErrRefused)
		require.NoError(t, one.Update(t.Context(), func(tx *catalog.Tx) error { return names.Set(tx, "c", 3) }))
		last := f
		f, err = f.Again(t.Context())
		require.NoError(t, err)
		_, err = last.Again(t.Context())
		require.ErrorIs(t, err, catalog.ErrClosed, "it has been followed on already")
	}
	two, err := f.Open(t.Context(), catalog.ClaimOptions{})
	require.NoError(t, err)
	require.NoError(t, two.View(func(r *catalog.Reader) error {
		for key, want := range map[string]int{"a": 1, "b": 2, "c": 3} {
			got, _, err := names.Get(r, key)
			require.NoError(t, err)
			require.Equal(t, want, got)
		}
		return nil
	}))
	require.Equal(t, 1, runs)
	require.NoError(t, two.Close())
	require.ErrorIs(t, one.Confirm(t.Context()), fence.ErrSuperseded)
}
