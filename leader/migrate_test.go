package leader_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/leader"
)

// writing is a work that commits to key again and again, and notes how often it
// began.
type writing struct {
	key   string
	works atomic.Int64
	count atomic.Int64
}

func (w *writing) work(ctx context.Context, term *leader.Term) error {
	w.works.Add(1)
	for n := 1; ctx.Err() == nil; n++ {
		if err := term.Update(context.Background(), set(w.key, n)); err != nil {
			return err
		}
		w.count.Add(1)
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
		}
	}
	return context.Cause(ctx)
}

// slow is a migration that reads "in", takes its time and counts its runs.
func slow(takes time.Duration, runs *atomic.Int64) []catalog.Migration {
	return []catalog.Migration{{Version: 1, Name: "slow", Up: func(tx *catalog.Tx) error {
		runs.Add(1)
		n, _, err := entries.Get(tx, "in")
		select {
		case <-time.After(takes):
		case <-tx.Context().Done():
			return context.Cause(tx.Context())
		}
		return errors.Join(err, entries.Set(tx, "out", n))
	}}}
}

func TestAProcessSaysThatItsMigrationsRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		one := start(t, store.Open(), config(1))
		one.await(t, leader.Leading)
		cfg := config(2)
		cfg.Catalog.Migrations = slow(time.Hour, new(atomic.Int64))
		two := start(t, store.Open(), cfg)
		elapse(time.Minute)
		require.Equal(t, leader.CatchingUp, two.Status().Phase)
		require.Contains(t, two.Status().Reason, "the migrations run on the data as of revision 1")
		begun := time.Now()
		require.NoError(t, two.end(t))
		require.Less(t, time.Since(begun), time.Second, "the stop waited for them")
		require.NoError(t, one.end(t))
	})
}

func TestASlowMigrationPausesNobodyIfNothingThatItReadsChanges(t *testing.T) {
	t.Parallel()
	store := memory.New()
	blue, green := writing{key: "other"}, writing{key: "other"}
	one := run(t, store.Open(), called(1), blue.work)
	one.reached(t, leader.Leading)
	cfg := called(2)
	cfg.AutoPromote = true
	cfg.HandoverTimeout = 300 * time.Millisecond // shorter than the migration
	var runs, during atomic.Int64
	cfg.Catalog.Migrations = slow(time.Second, &runs)
	up := cfg.Catalog.Migrations[0].Up
	cfg.Catalog.Migrations[0].Up = func(tx *catalog.Tx) error {
		before := blue.count.Load()
		defer func() { during.Add(blue.count.Load() - before) }()
		return up(tx)
	}
	two := run(t, store.Open(), cfg, green.work)
	require.ErrorIs(t, <-one.ended, fence.ErrSuperseded)
	two.reached(t, leader.Leading)
	require.EqualValues(t, 1, runs.Load(), "the migration ran again")
	require.Positive(t, during.Load(), "nobody wrote beside the migration")
	require.EqualValues(t, 1, blue.works.Load(), "the holder was paused in vain")
	require.NoError(t, two.end(t))
}

func TestASlowMigrationWhoseReadsKeepChangingPausesTheHolderOnceAndFencesNoWrite(t *testing.T) {
	t.Parallel()
	store := memory.New()
	blue, green := writing{key: "in"}, writing{key: "in"}
	holder := called(1)
	holder.HandoverTimeout = 200 * time.Millisecond // shorter than the migration
	one := run(t, store.Open(), holder, blue.work)
	one.reached(t, leader.Leading)
	cfg := called(2)
	cfg.HandoverTimeout = 5 * time.Second
	var runs atomic.Int64
	cfg.Catalog.Migrations = slow(500*time.Millisecond, &runs)
	two := run(t, store.Open(), cfg, green.work)
	two.reached(t, leader.ReadyToPromote)
	promote(t, store, 2)
	require.ErrorIs(t, <-one.ended, fence.ErrSuperseded)
	two.reached(t, leader.Leading)
	require.EqualValues(t, 1, blue.works.Load(), "the holder resumed and was paused again")
	require.EqualValues(t, 3, runs.Load(), "once to be ready, once when promoted, once while the holder was paused")
	require.NoError(t, two.end(t))
	var last int
	require.NoError(t, catalog.Snapshot(t.Context(), store, catalog.Config{}, func(_ driver.Head, r *catalog.Reader) (err error) {
		last, _, err = entries.Get(r, "out")
		return err
	}))
	require.EqualValues(t, blue.count.Load(), last, "a write was lost, or outlived the migration")
}

func TestACommitThatTheWorkLeftUnderWayIsTheHoldersLastAndPausesNobodyTwice(t *testing.T) {
	t.Parallel()
	store := memory.New()
	busy := store.Open()
	busy.Inject(func(c memory.Call) memory.Fault {
		if c.Method == "Append" { // so that one is under way whenever the work ends
			<-time.After(20 * time.Millisecond)
		}
		return memory.Pass
	})
	one := run(t, busy, called(1), func(ctx context.Context, term *leader.Term) error {
		for n := 0; ; n++ {
			if err := term.Update(ctx, set("in", n)); err != nil {
				return context.Cause(ctx)
			}
		}
	})
	one.reached(t, leader.Leading)
	cfg := called(2)
	var runs, paused atomic.Int64
	cfg.Catalog.Migrations = slow(100*time.Millisecond, &runs)
	up := cfg.Catalog.Migrations[0].Up
	cfg.Catalog.Migrations[0].Up = func(tx *catalog.Tx) error {
		if one.Status().Phase == leader.HandingOver {
			paused.Add(1)
		}
		return up(tx)
	}
	two := run(t, store.Open(), cfg, func(ctx context.Context, _ *leader.Term) error { <-ctx.Done(); return nil })
	two.reached(t, leader.ReadyToPromote)
	promote(t, store, 2)
	require.ErrorIs(t, <-one.ended, fence.ErrSuperseded)
	two.reached(t, leader.Leading)
	require.EqualValues(t, 1, paused.Load(), "a commit landed behind the revision that the holder had named")
	require.NoError(t, two.end(t))
}

func TestAMigrationThatHangsWhileTheHolderIsPausedLetsItGoOnAndIsTriedAgain(t *testing.T) {
	t.Parallel()
	store := memory.New()
	blue, green := writing{key: "in"}, writing{key: "in"}
	holder, cfg := called(1), called(2)
	holder.HandoverTimeout, cfg.HandoverTimeout = 500*time.Millisecond, 500*time.Millisecond
	cfg.Catalog.MigrationTimeout = time.Second // for which the holder waits, since it hears of progress
	one := run(t, store.Open(), holder, func(ctx context.Context, term *leader.Term) error {
		err := blue.work(ctx, term)
		return errors.Join(err, term.Update(context.Background(), set("in", -1))) // its last word changes what is read
	})
	one.reached(t, leader.Leading)
	given := make(chan error, 1) // why the first run during a pause was given up
	cfg.Catalog.Migrations = slow(time.Millisecond, new(atomic.Int64))
	up := cfg.Catalog.Migrations[0].Up
	var hung atomic.Bool
	cfg.Catalog.Migrations[0].Up = func(tx *catalog.Tx) error {
		err := up(tx)
		if one.Status().Phase == leader.HandingOver && hung.CompareAndSwap(false, true) {
			<-tx.Context().Done()
			given <- context.Cause(tx.Context())
			return context.Cause(tx.Context()) // one that returned nil now would have been in time
		}
		return err
	}
	two := run(t, store.Open(), cfg, green.work)
	two.reached(t, leader.ReadyToPromote)
	promote(t, store, 2)
	require.ErrorIs(t, <-given, catalog.ErrMigrationTimeout)
	require.ErrorIs(t, <-one.ended, fence.ErrSuperseded)
	two.reached(t, leader.Leading)
	require.NoError(t, two.end(t))
	require.GreaterOrEqual(t, blue.works.Load(), int64(2))
	require.Contains(t, moves(one), leader.HandingOver.String()+" to "+leader.Leading.String(), "it went on")
	require.Equal(t, leader.HandingOver.String()+" to "+leader.Superseded.String(), moves(one)[len(moves(one))-1], "it was fenced while it worked")
	require.Contains(t, moves(two), leader.Promoting.String()+" to "+leader.CatchingUp.String(), "it did not claim over a holder that works")
	require.Len(t, claims(t, store), 2)
}

// moves returns the moves of a process, in order.
func moves(p *process) (all []string) {
	for _, m := range p.Status().Moves {
		all = append(all, m.From.String()+" to "+m.To.String())
	}
	return all
}

func TestAProcessWhoseMigrationsAreTooSlowForAPauseIsNotReadyAndPausesNobody(t *testing.T) {
	t.Parallel()
	store := memory.New()
	blue, green := writing{key: "in"}, writing{key: "in"}
	one := run(t, store.Open(), called(1), blue.work)
	one.reached(t, leader.Leading)
	cfg := called(2)
	cfg.Catalog.MigrationTimeout = 50 * time.Millisecond
	var runs atomic.Int64
	cfg.Catalog.Migrations = slow(100*time.Millisecond, &runs)
	two := run(t, store.Open(), cfg, green.work)
	two.reached(t, leader.ReadyToPromote)
	promote(t, store, 2)
	require.Eventually(t, func() bool { return two.Status().Phase == leader.CatchingUp && runs.Load() > 3 }, time.Minute, time.Millisecond)
	require.Contains(t, two.Status().Reason, "longer than MigrationTimeout (50ms)")
	for before := runs.Load(); runs.Load() < before+3; { // also while they run again
		require.Equal(t, leader.CatchingUp, two.Status().Phase)
		<-time.After(time.Millisecond)
	}
	require.Equal(t, leader.Leading, one.Status().Phase)
	require.EqualValues(t, 1, blue.works.Load())
	require.NoError(t, one.end(t)) // nothing changes any more what they read
	two.reached(t, leader.Leading)
	require.NoError(t, two.end(t))
}

func TestAPromotedGenerationWinsAgainstALowerOneThatClaimsAgainAndAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		superseded := make(chan error, 1)
		go func() {
			for {
				c, err := catalog.Open(t.Context(), store.Open(), catalog.Config{Generation: 1})
				if err != nil {
					superseded <- err
					return
				}
				_ = c.Close() // it may be fenced
				elapse(300 * time.Millisecond)
			}
		}()
		elapse(100 * time.Millisecond)
		cfg := config(2)
		cfg.AutoPromote = true
		cfg.Priority = 3 // which waits for longer than the lower generation lives
		var runs atomic.Int64
		cfg.Catalog.Migrations = slow(500*time.Millisecond, &runs)
		two := start(t, store.Open(), cfg)
		two.await(t, leader.Leading)
		require.ErrorIs(t, <-superseded, fence.ErrSuperseded)
		require.EqualValues(t, 1, runs.Load())
		require.NoError(t, two.end(t))
	})
}
