package catalog

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	inmemory "github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/fence"
)

func TestAClaimByWhoHasReadLongAgoDisturbsNobodyWhereItCantSucceed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := inmemory.New()
		handle := store.Open()
		f, err := Follow(t.Context(), handle, Config{Generation: 1})
		require.NoError(t, err)
		var deaf atomic.Bool
		var heads, claims atomic.Int64
		handle.Inject(func(c inmemory.Call) inmemory.Fault {
			switch {
			case deaf.Load():
				return inmemory.Refuse
			case c.Method == "Head":
				heads.Add(1)
			case c.Method == "Claim":
				claims.Add(1)
			}
			return inmemory.Pass
		})
		deaf.Store(true)
		other, err := Open(t.Context(), store.Open(), Config{Generation: 2})
		require.NoError(t, err)
		elapse(t.Context(), time.Second)
		deaf.Store(false)
		_, err = f.Open(t.Context(), ClaimOptions{})
		require.ErrorIs(t, err, fence.ErrSuperseded)
		require.Zero(t, claims.Load())
		require.NotZero(t, heads.Load())
		require.NoError(t, other.Close())
	})
}

func TestAClaimByWhoHasJustReadDoesNotReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handle := inmemory.New().Open()
		f, err := Follow(t.Context(), handle, Config{Generation: 1})
		require.NoError(t, err)
		synctest.Wait()
		var before atomic.Int64
		handle.Inject(func(c inmemory.Call) inmemory.Fault {
			if c.Method == "Head" {
				before.Add(1)
			}
			if c.Method == "Claim" {
				require.Zero(t, before.Load())
			}
			return inmemory.Pass
		})
		c, err := f.Open(t.Context(), ClaimOptions{})
		require.NoError(t, err)
		require.NoError(t, c.Close())
	})
}

func TestWhoWaitsForAHeadHasTheFollowerLookAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := inmemory.New()
		c, err := Open(t.Context(), store.Open(), Config{Generation: 1})
		require.NoError(t, err)
		handle := store.Open()
		handle.Inject(func(c inmemory.Call) inmemory.Fault {
			if c.Method == "Watch" {
				return inmemory.Refuse
			}
			return inmemory.Pass
		})
		f, err := Follow(t.Context(), handle, Config{Generation: 1, PollInterval: time.Hour})
		require.NoError(t, err)
		elapse(t.Context(), time.Minute)
		require.NoError(t, c.Update(t.Context(), func(tx *Tx) error { return Bytes("c").Set(tx, "k", []byte("v")) }))
		began := time.Now()
		require.NoError(t, f.Wait(t.Context(), func(h driver.Head) bool { return h.Revision >= c.Head().Revision }))
		require.Less(t, time.Since(began), 10*time.Millisecond, "in the time of the bubble")
		require.NoError(t, f.Close())
		require.NoError(t, c.Close())
	})
}

func TestAHolderLeavesTheStoreToItsFirstCommits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handle := inmemory.New().Open()
		var heads, trims atomic.Int64
		var claimed atomic.Bool
		handle.Inject(func(c inmemory.Call) inmemory.Fault {
			switch {
			case c.Method == "Install":
				claimed.Store(true)
			case c.Method == "Head" && claimed.Load():
				heads.Add(1)
			case c.Method == "Trim":
				trims.Add(1)
			}
			return inmemory.Pass
		})
		c, err := Open(t.Context(), handle, Config{Generation: 1, PollInterval: time.Hour})
		require.NoError(t, err)
		synctest.Wait()
		require.Zero(t, trims.Load())
		elapse(t.Context(), settling)
		synctest.Wait()
		require.EqualValues(t, 1, trims.Load())
		require.EqualValues(t, 1, heads.Load(), "once it listens, and not before")
		require.NoError(t, c.Close())
	})
}

func TestAClaimThatCameTooLateNamesNoTokenAsHeld(t *testing.T) {
	for name, other := range map[string]Config{"a higher generation": {Generation: 2}, "its own": {Generation: 1}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := inmemory.New()
				first, err := Open(t.Context(), store.Open(), Config{Generation: 1})
				require.NoError(t, err)
				handle := store.Open()
				f, err := Follow(t.Context(), handle, Config{Generation: 1})
				require.NoError(t, err)
				var raced atomic.Bool
				handle.Inject(func(c inmemory.Call) inmemory.Fault { // another one claims just before it
					if c.Method == "Claim" && raced.CompareAndSwap(false, true) {
						next, err := Open(t.Context(), store.Open(), other)
						require.NoError(t, err)
						t.Cleanup(func() { _ = next.Close() })
					}
					return inmemory.Pass
				})
				_, err = f.Open(t.Context(), ClaimOptions{IfClaim: first.Claim().ID})
				var fenced *fence.Error
				require.ErrorAs(t, err, &fenced)
				require.Equal(t, fence.Token{Generation: 1}, fenced.Held, err)
				require.ErrorContains(t, err, "generation 1 held no token")
				require.True(t, raced.Load())
				_ = first.Close()
			})
		})
	}
}
