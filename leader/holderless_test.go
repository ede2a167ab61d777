package leader_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/leader"
)

func operator() catalog.Config {
	return catalog.Config{Holder: fence.Holder{Name: "fencepost fence by alice"}}
}

func TestAReadyStandbyClaimsAtOnceOverATokenThatAToolHasRaised(t *testing.T) {
	t.Parallel()
	for name, above := range map[string]fence.Token{"fence": {}, "restored": {Generation: 1, Epoch: 7}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := memory.New()
				blue := start(t, store.Open(), config(1))
				blue.await(t, leader.Leading)
				standby := start(t, store.Open(), config(1))
				standby.await(t, leader.ReadyToPromote)
				elapse(time.Minute)
				began := time.Now()
				raised, err := catalog.Raise(t.Context(), store, operator(), catalog.RaiseOptions{Reason: "drill", Above: above})
				require.NoError(t, err)
				standby.await(t, leader.Leading)
				require.Less(t, time.Since(began), time.Second, "by the clock of the bubble; a lease is 7.5 s")
				require.ErrorIs(t, <-blue.ended, fence.ErrFenced)
				history := claims(t, store)
				require.Equal(t, raised.ID, history[1].ID)
				require.Equal(t, "nobody holds "+raised.Token.String()+", which was raised by fencepost fence by alice", history[2].Reason)
				require.NoError(t, standby.end(t))
			})
		})
	}
}

// The tool dies at each of its calls in turn.
func TestADeathOfTheToolLeavesNobodyWaitingForAHolderThatDoesNotExist(t *testing.T) {
	t.Parallel()
	var landed int
	for call := int64(0); ; call++ {
		done := false
		synctest.Test(t, func(t *testing.T) {
			store := memory.New()
			blue := start(t, store.Open(), config(1))
			blue.await(t, leader.Leading)
			standby := start(t, store.Open(), config(1))
			standby.await(t, leader.ReadyToPromote)
			handle := store.Open()
			var calls atomic.Int64
			handle.Inject(func(memory.Call) memory.Fault {
				if calls.Add(1) > call {
					return memory.LoseRequest
				}
				return memory.Pass
			})
			cfg := operator()
			cfg.ClaimTimeout = time.Millisecond
			_, err := catalog.Raise(t.Context(), handle, cfg, catalog.RaiseOptions{Reason: "drill"})
			done = err == nil && calls.Load() <= call
			elapse(time.Second)
			if len(claims(t, store)) > 1 {
				landed++
				require.Equal(t, leader.Leading, standby.Status().Phase)
				require.ErrorIs(t, <-blue.ended, fence.ErrFenced)
			} else {
				require.Equal(t, leader.ReadyToPromote, standby.Status().Phase)
				require.NoError(t, blue.end(t))
			}
			require.NoError(t, standby.end(t))
		})
		if done {
			break
		}
	}
	require.Positive(t, landed)
}

func TestAProcessHandsItsOwnNumberOutBeforeItIsReady(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		blue := start(t, store.Open(), config(1))
		blue.await(t, leader.Leading)
		green := start(t, store.Open(), config(9))
		green.await(t, leader.ReadyToPromote)
		require.NoError(t, promoteAs(t.Context(), store, 9, "op", false))
		green.await(t, leader.Leading)
		require.ErrorIs(t, <-blue.ended, fence.ErrSuperseded)
		next, err := catalog.NewBoard(store, catalog.Config{}).NextGeneration(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 10, next)
		require.NoError(t, green.end(t))
	})
}

func TestAProcessWhoseNumberCantBeReservedIsNotReady(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		blue := start(t, store.Open(), config(1))
		blue.await(t, leader.Leading)
		handle := store.Open()
		var broken atomic.Bool
		broken.Store(true)
		handle.Inject(func(c memory.Call) memory.Fault {
			if c.Method == "Post" && broken.Load() {
				return memory.Refuse
			}
			return memory.Pass
		})
		green := start(t, handle, config(9))
		elapse(time.Minute)
		require.Equal(t, leader.CatchingUp, green.Status().Phase)
		require.Contains(t, green.Status().Reason, "the number 9 of this generation was not reserved")
		broken.Store(false)
		green.await(t, leader.ReadyToPromote)
		require.NoError(t, green.end(t))
		require.NoError(t, blue.end(t))
	})
}
