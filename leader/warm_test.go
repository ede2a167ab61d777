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
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/leader"
)

// A warmer is a store that counts how often it is warmed, each time with err.
type warmer struct {
	*memory.Store
	warmed atomic.Int64
	err    error
}

func (w *warmer) Warm(context.Context) error {
	w.warmed.Add(1)
	return w.err
}

func TestAWaitingProcessKeepsItsStoreWarmAndAHolderDoesNot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		first, second := &warmer{Store: store.Open()}, &warmer{Store: store.Open()}
		holder := start(t, first, config(1))
		holder.await(t, leader.Leading)
		standby := start(t, second, config(1))
		standby.await(t, leader.ReadyToPromote)
		before := first.warmed.Load()
		elapse(10 * time.Second)
		require.Equal(t, before, first.warmed.Load())
		require.GreaterOrEqual(t, second.warmed.Load(), int64(9))
		require.NoError(t, standby.end(t))
		require.NoError(t, holder.end(t))
	})
}

func TestAStoreThatCantBeWarmedIsAskedAgainOnlyWhereThatMayPass(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		err   error
		again bool
	}{
		"in passing": {exitcodes.With(errors.New("away"), exitcodes.Retry), true},
		"for good":   {exitcodes.With(errors.New("no rights"), exitcodes.Halt), false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := memory.New()
				holder := start(t, store.Open(), config(1))
				holder.await(t, leader.Leading)
				cold := &warmer{Store: store.Open(), err: row.err}
				standby := start(t, cold, config(1))
				standby.await(t, leader.ReadyToPromote)
				elapse(10 * time.Second)
				require.Equal(t, row.again, cold.warmed.Load() > 1)
				require.Equal(t, leader.ReadyToPromote, standby.Status().Phase, "nothing rests on it")
				require.NoError(t, standby.end(t))
				require.NoError(t, holder.end(t))
			})
		})
	}
}

func TestAProcessThatWaitsForItsPromotionRarelyLooksAtTheHolder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		holder := start(t, store.Open(), config(1))
		holder.await(t, leader.Leading)
		handle := store.Open()
		var notes atomic.Int64
		handle.Inject(func(c memory.Call) memory.Fault {
			if c.Method == "Notes" {
				notes.Add(1)
			}
			return memory.Pass
		})
		cfg := config(2)
		cfg.Poll = 100 * time.Millisecond
		green := start(t, handle, cfg)
		green.await(t, leader.ReadyToPromote)
		elapse(time.Second)
		notes.Store(0)
		elapse(10 * time.Second)
		require.InDelta(t, 108, notes.Load(), 4, "the intent once a poll, and the holder twice a heartbeat")
		require.NoError(t, green.end(t))
		require.NoError(t, holder.end(t))
	})
}

func TestASupersededPromotionSaysSoThoughItsNumberCantBeReserved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		holder := start(t, store.Open(), config(2))
		holder.await(t, leader.Leading)
		handle := store.Open()
		handle.Inject(func(c memory.Call) memory.Fault {
			if c.Method == "Post" {
				return memory.Refuse
			}
			return memory.Pass
		})
		_, err := leader.Promote(t.Context(), handle, catalog.Config{RetryBudget: time.Second}, 1, leader.PromoteOptions{By: "test"})
		require.ErrorIs(t, err, fence.ErrSuperseded)
		require.NoError(t, holder.end(t))
	})
}
