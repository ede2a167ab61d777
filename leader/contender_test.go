package leader_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/leader"
)

func TestStandbysDoNotWaitForASuccessorThatRunsLongMigrationsAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		blue := start(t, store.Open(), config(1))
		blue.await(t, leader.Leading)
		standby := start(t, store.Open(), config(1))
		standby.await(t, leader.ReadyToPromote)
		cfg := config(2)
		var runs atomic.Int64
		cfg.Catalog.Migrations = slow(50*time.Second, &runs)
		green := start(t, store.Open(), cfg)
		green.await(t, leader.ReadyToPromote)

		require.NoError(t, blue.holds.Load().Update(t.Context(), set("in", 7)))
		elapse(time.Second)
		promote(t, store, 2)
		elapse(time.Second)
		require.EqualValues(t, 2, runs.Load())
		begun := time.Now()
		require.NoError(t, blue.end(t))
		elapse(time.Second)
		require.Equal(t, leader.ReadyToPromote, standby.Status().Phase, "it leaves the claim to the successor")
		standby.await(t, leader.Leading)
		require.Less(t, time.Since(begun), 20*time.Second, "a lease until the successor is not taken for alive, and one more")
		green.await(t, leader.Leading)
		require.ErrorIs(t, <-standby.ended, fence.ErrSuperseded)
		require.NoError(t, green.end(t))
	})
}
