package leader_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/leader"
)

func TestAStandbyClaimsOnlyAfterTheHoldersSilence(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		dead, err := catalog.Open(t.Context(), store, catalog.Config{Generation: 1})
		require.NoError(t, err) // claims, and never gives a sign of life
		begun := time.Now()
		standby := start(t, store, config(1))
		standby.await(t, leader.Leading)
		require.Greater(t, time.Since(begun), 7500*time.Millisecond, "before the holder's lease was over")
		require.Less(t, time.Since(begun), 8250*time.Millisecond, "more than a lease and a tenth")
		require.ErrorIs(t, dead.Close(), fence.ErrFenced)
		require.Contains(t, claims(t, store)[1].Reason, "no heartbeat of g1.e1")

		second := start(t, store, config(1))
		elapse(20 * time.Minute)
		require.Equal(t, leader.ReadyToPromote, second.Status().Phase, "a holder that beats was claimed over")
		require.NoError(t, standby.end(t))
		gone := time.Now()
		second.await(t, leader.Leading)
		require.Less(t, time.Since(gone), time.Second, "a holder that has left was waited for")
		require.NoError(t, second.end(t))
	})
}

func TestTwoProcessesOfOneGenerationThatRestartAfterAnEpochFenceDoNotDuel(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		// Each is a process whose supervisor restarts it at once, whatever the
		// code: even so there is no duel.
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{}, 2)
		for range 2 {
			go func() {
				defer func() { done <- struct{}{} }()
				for ctx.Err() == nil {
					l, err := leader.New(store, config(1))
					if err != nil {
						t.Error(err)
						return
					}
					_ = l.Run(ctx, func(ctx context.Context, _ *leader.Term) error { <-ctx.Done(); return nil })
				}
			}()
		}
		elapse(10 * time.Second)
		// Somebody fences whoever leads, without the beats of a leader.
		c, err := catalog.Open(t.Context(), store, catalog.Config{Generation: 1})
		require.NoError(t, err)
		_ = c.Close()
		elapse(50 * time.Second)
		firstMinute := len(claims(t, store))
		require.LessOrEqual(t, firstMinute, 10)
		require.GreaterOrEqual(t, firstMinute, 3, "nobody came back")
		elapse(10 * time.Minute)
		require.Len(t, claims(t, store), firstMinute, "claims after the first minute")
		stop()
		<-done
		<-done
	})
}

func TestSilenceDuringWhichTheStoreCouldNotBeReadDoesNotCount(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		holder := start(t, store.Open(), config(1))
		holder.await(t, leader.Leading)
		mine := store.Open()
		standby := start(t, mine, config(1))
		standby.await(t, leader.ReadyToPromote)
		mine.Inject(func(memory.Call) memory.Fault { return memory.Refuse })
		elapse(10 * time.Minute)
		mine.Inject(nil)
		elapse(time.Minute)
		require.Equal(t, leader.ReadyToPromote, standby.Status().Phase)
		require.Equal(t, leader.Leading, holder.Status().Phase)
		require.NoError(t, standby.end(t))
		require.NoError(t, holder.end(t))
	})
}

func TestAfterAnOutageOfTheStoreStandbysCountAnew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		handles := []*memory.Store{store.Open(), store.Open()}
		holder := start(t, handles[0], config(1))
		holder.await(t, leader.Leading)
		standby := start(t, handles[1], config(1))
		standby.await(t, leader.ReadyToPromote)
		for _, h := range handles {
			h.Inject(func(memory.Call) memory.Fault { return memory.Refuse })
		}
		elapse(10 * time.Minute)
		for _, h := range handles {
			h.Inject(nil)
		}
		elapse(time.Minute)
		require.Len(t, claims(t, store), 1, "a holder that could not beat was claimed over")
		require.NoError(t, standby.end(t))
		require.NoError(t, holder.end(t))
	})
}

func TestTwentyProcessesOfAGenerationThatIsPromotedMakeOneClaim(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		blue := start(t, store.Open(), config(1))
		blue.await(t, leader.Leading)
		var greens []*process
		for range 20 {
			green := start(t, store.Open(), config(2))
			green.await(t, leader.ReadyToPromote)
			greens = append(greens, green)
		}
		_, err := leader.Promote(t.Context(), store, catalog.Config{}, 2, leader.PromoteOptions{By: "test"})
		require.NoError(t, err)
		elapse(time.Minute)
		require.Len(t, claims(t, store), 2)
		leading := 0
		for _, green := range greens {
			switch green.Status().Phase {
			case leader.Leading:
				leading++
			default:
				require.Equal(t, leader.ReadyToPromote, green.Status().Phase)
			}
		}
		require.Equal(t, 1, leading)
		require.ErrorIs(t, <-blue.ended, fence.ErrSuperseded)
		for _, green := range greens {
			green.stop(errStop)
		}
		for _, green := range greens {
			require.NoError(t, <-green.ended)
		}
	})
}

func TestAHolderWhoseFirstSignOfLifeIsLostIsNotTakenForDead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		c, err := catalog.Open(t.Context(), store, catalog.Config{Generation: 1})
		require.NoError(t, err) // leaves a claim whose sign of life is another's
		first := start(t, store.Open(), config(1))
		first.await(t, leader.Leading)
		require.ErrorIs(t, c.Close(), fence.ErrFenced)
		require.NoError(t, first.end(t))

		mine := store.Open()
		mine.Inject(func(c memory.Call) memory.Fault {
			if c.Method == "Post" && c.N < 10 {
				return memory.Refuse
			}
			return memory.Pass
		})
		holder := start(t, mine, config(1))
		holder.await(t, leader.Leading)
		standby := start(t, store.Open(), config(1))
		elapse(10 * time.Minute)
		require.Equal(t, leader.Leading, holder.Status().Phase)
		require.NoError(t, standby.end(t))
		require.NoError(t, holder.end(t))
	})
}
