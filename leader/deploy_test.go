package leader_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/leader"
)

var entries = catalog.JSON[int]("entries")

func set(key string, n int) func(*catalog.Tx) error {
	return func(tx *catalog.Tx) error { return entries.Set(tx, key, n) }
}

func promote(t *testing.T, store driver.Store, g generation.Generation) {
	t.Helper()
	_, err := leader.Promote(t.Context(), store, catalog.Config{}, g, leader.PromoteOptions{By: "test", Force: true})
	require.NoError(t, err)
}

func TestAMigrationThatFailsOnTheRealDataKeepsTheNewGenerationFromBeingReadyAndDisturbsNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		blue := start(t, store.Open(), config(1))
		blue.await(t, leader.Leading)
		require.NoError(t, blue.holds.Load().Update(t.Context(), set("a", 7)))
		cfg := config(2)
		odd := errors.New("a is odd")
		cfg.Catalog.Migrations = []catalog.Migration{{Version: 1, Name: "halve", Up: func(tx *catalog.Tx) error { return odd }}}
		green := start(t, store.Open(), cfg)
		promote(t, store, 2)
		elapse(time.Minute)
		require.Equal(t, leader.CatchingUp, green.Status().Phase)
		require.Contains(t, green.Status().Reason, "rehearsal")
		require.Contains(t, green.Status().Reason, odd.Error())
		require.NotContains(t, phases(green), leader.ReadyToPromote)
		require.EqualValues(t, 1, blue.works.Load())
		require.Len(t, claims(t, store), 1)
		require.NoError(t, green.end(t))
		require.NoError(t, blue.end(t))
	})
}

func TestWhatChangedSinceTheRehearsalIsRehearsedAgainBeforeTheClaim(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		blue := start(t, store.Open(), config(1))
		blue.await(t, leader.Leading)
		cfg := config(2)
		tooMuch := errors.New("too much")
		var ran atomic.Int64
		cfg.Catalog.Migrations = []catalog.Migration{{Version: 1, Name: "check", Up: func(tx *catalog.Tx) error {
			ran.Add(1)
			if n, _, err := entries.Get(tx, "a"); n > 100 {
				return errors.Join(tooMuch, err)
			}
			return nil
		}}}
		green := start(t, store.Open(), cfg)
		green.await(t, leader.ReadyToPromote)
		require.EqualValues(t, 1, ran.Load())
		elapse(time.Minute)
		require.EqualValues(t, 1, ran.Load(), "rehearsed again without need")

		require.NoError(t, blue.holds.Load().Update(t.Context(), set("a", 101)))
		elapse(time.Second)
		promote(t, store, 2)
		green.await(t, leader.CatchingUp)
		require.Contains(t, green.Status().Reason, tooMuch.Error())
		require.NotContains(t, phases(green), leader.Promoting, "the holder was disturbed for a claim that must fail")
		require.Equal(t, leader.Leading, blue.Status().Phase)
		require.EqualValues(t, 1, blue.works.Load())
		require.Len(t, claims(t, store), 1)
		require.NoError(t, green.end(t))
		require.NoError(t, blue.end(t))
	})
}

func TestAClaimInBetweenIsRehearsedUponAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		first, err := catalog.Open(t.Context(), store, catalog.Config{Generation: 1})
		require.NoError(t, err)
		cfg := config(3)
		var versions []uint64
		cfg.Catalog.Migrations = []catalog.Migration{
			{Version: 1, Up: func(*catalog.Tx) error { versions = append(versions, 1); return nil }},
			{Version: 2, Up: func(*catalog.Tx) error { versions = append(versions, 2); return nil }},
		}
		three := start(t, store.Open(), cfg)
		three.await(t, leader.ReadyToPromote)
		synctest.Wait()
		require.Equal(t, []uint64{1, 2}, versions)
		second, err := catalog.Open(t.Context(), store, catalog.Config{Generation: 2, Migrations: cfg.Catalog.Migrations[:1]})
		require.NoError(t, err)
		elapse(time.Second)
		require.Equal(t, []uint64{1, 2, 1, 2}, versions, "generation 2 has run the first migration, and the second is rehearsed on its data")
		require.ErrorIs(t, first.Close(), fence.ErrSuperseded)
		promote(t, store, 3)
		three.await(t, leader.Leading)
		require.Equal(t, uint64(2), claims(t, store)[2].DataVersion)
		require.ErrorIs(t, second.Close(), fence.ErrSuperseded)
		require.NoError(t, three.end(t))
	})
}

// ready is an application's word on whether it has caught up.
type ready struct{ not atomic.Bool }

func (r *ready) check(context.Context, *catalog.Follower) error {
	if r.not.Load() {
		return errors.New("the index is not built")
	}
	return nil
}

func TestAProcessIsReadyOnceCaughtUpHasHeldForThePeriod(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		blue := start(t, store.Open(), config(1))
		blue.await(t, leader.Leading)
		var app ready
		app.not.Store(true)
		cfg := config(2)
		cfg.CaughtUp, cfg.CaughtUpFor, cfg.AutoPromote = app.check, time.Minute, true
		green := start(t, store.Open(), cfg)
		elapse(time.Hour) // it waits for ever
		require.Equal(t, leader.CatchingUp, green.Status().Phase)
		app.not.Store(false)
		elapse(50 * time.Second)
		app.not.Store(true)
		elapse(time.Second)
		app.not.Store(false)
		elapse(50 * time.Second)
		require.Equal(t, leader.CatchingUp, green.Status().Phase, "a break begins the period anew")
		elapse(11 * time.Second)
		require.Equal(t, leader.Leading, green.Status().Phase)
		require.ErrorIs(t, <-blue.ended, fence.ErrSuperseded)
		require.NoError(t, green.end(t))
	})
}

func TestAReadyProcessThatNoLongerIsGoesBackAndIsNotPromotedMeanwhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		blue := start(t, store.Open(), config(1))
		blue.await(t, leader.Leading)
		var app ready
		cfg := config(2)
		cfg.CaughtUp = app.check
		green := start(t, store.Open(), cfg)
		green.await(t, leader.ReadyToPromote)
		app.not.Store(true)
		green.await(t, leader.CatchingUp)
		require.Equal(t, "the index is not built", green.Status().Reason)
		promote(t, store, 2)
		elapse(time.Hour)
		require.Equal(t, leader.CatchingUp, green.Status().Phase)
		app.not.Store(false)
		green.await(t, leader.Leading)
		require.ErrorIs(t, <-blue.ended, fence.ErrSuperseded)
		require.NoError(t, green.end(t))
	})
}

func TestWhoIsLateFailsOrProceedsAsItWasTold(t *testing.T) {
	t.Parallel()
	for _, late := range []leader.Late{leader.FailLate, leader.ProceedLate} {
		t.Run(fmt.Sprint(late), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := memory.New()
				blue := start(t, store.Open(), config(1))
				blue.await(t, leader.Leading)
				var app ready
				app.not.Store(true)
				cfg := config(2)
				cfg.CaughtUp, cfg.CatchUpTimeout, cfg.WhenLate = app.check, time.Minute, late
				green := start(t, store.Open(), cfg)
				elapse(59 * time.Second)
				require.Equal(t, leader.CatchingUp, green.Status().Phase)
				elapse(2 * time.Second)
				if late == leader.FailLate {
					var e *leader.LateError
					require.ErrorAs(t, <-green.ended, &e)
					require.Equal(t, "the index is not built", e.Missing)
				} else {
					require.Equal(t, leader.ReadyToPromote, green.Status().Phase)
					require.NoError(t, green.end(t))
				}
				require.NoError(t, blue.end(t))
			})
		})
	}
}

func TestAPromotionSurvivesTheDeathOfWhoWasPromoted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		blue := start(t, store.Open(), config(1))
		blue.await(t, leader.Leading)
		handle := store.Open()
		handle.Inject(func(c memory.Call) memory.Fault {
			if c.Method == "Claim" {
				return memory.Refuse
			}
			return memory.Pass
		})
		green := start(t, handle, config(2))
		green.await(t, leader.ReadyToPromote)
		promote(t, store, 2)
		green.await(t, leader.Promoting)
		require.NoError(t, green.end(t)) // before its claim
		elapse(time.Hour)
		require.Equal(t, leader.Leading, blue.Status().Phase)
		again := start(t, store.Open(), config(2))
		again.await(t, leader.Leading)
		require.ErrorIs(t, <-blue.ended, fence.ErrSuperseded)
		require.NoError(t, again.end(t))
	})
}

func TestOfTwoGenerationsPromotedAtOnceTheHigherLeadsAndTheOtherEndsSuperseded(t *testing.T) {
	t.Parallel()
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			store := memory.New()
			blue := start(t, store.Open(), config(1))
			blue.await(t, leader.Leading)
			two, three := start(t, store.Open(), config(2)), start(t, store.Open(), config(3))
			two.await(t, leader.ReadyToPromote)
			three.await(t, leader.ReadyToPromote)
			done := make(chan error, 2)
			for _, g := range []generation.Generation{2, 3} {
				go func() {
					_, err := leader.Promote(t.Context(), store.Open(), catalog.Config{}, g, leader.PromoteOptions{By: "test", Force: true})
					done <- err
				}()
			}
			first, second := <-done, <-done
			var overtaken *leader.OvertakenError
			require.True(t, first == nil || second == nil, "%v, %v", first, second)
			if err := errors.Join(first, second); err != nil {
				require.True(t, errors.As(err, &overtaken) || errors.Is(err, fence.ErrSuperseded), "%v", err)
			}
			three.await(t, leader.Leading)
			for _, p := range []*process{blue, two} {
				require.Equal(t, exitcodes.Success, exitcodes.CodeOf(<-p.ended))
				require.Equal(t, leader.Superseded, p.Status().Phase)
			}
			require.NoError(t, three.end(t))
		})
	}
}

func TestAProcessThatPromotesItselfAndWasOvertakenWaitsForItsEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		blue := start(t, store.Open(), config(1))
		blue.await(t, leader.Leading)
		handle := store.Open()
		var once sync.Once
		handle.Inject(func(c memory.Call) memory.Fault {
			if c.Method == "Post" {
				once.Do(func() { promote(t, store, 3) }) // right before its own
			}
			return memory.Pass
		})
		cfg := config(2)
		cfg.AutoPromote = true
		two := start(t, handle, cfg)
		elapse(time.Hour)
		require.Equal(t, leader.CatchingUp, two.Status().Phase)
		require.Equal(t, "generation 3 was promoted by test", two.Status().Reason)
		three := start(t, store.Open(), config(3))
		three.await(t, leader.Leading)
		require.ErrorIs(t, <-two.ended, fence.ErrSuperseded)
		require.ErrorIs(t, <-blue.ended, fence.ErrSuperseded)
		require.NoError(t, three.end(t))
	})
}
