package leader_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/leader"
)

func TestAHolderWhoseSuccessorHasClaimedWritesNothingMore(t *testing.T) {
	t.Parallel()
	for name, heard := range map[string]bool{"it hears of the claim": true, "it has to ask": false} {
		t.Run(name, func(t *testing.T) { leavesTheStoreToItsSuccessor(t, heard) })
	}
}

func leavesTheStoreToItsSuccessor(t *testing.T, heard bool) {
	store := memory.New()
	handle := store.Open()
	var late atomic.Int64
	handle.Inject(func(c memory.Call) memory.Fault {
		if head, err := store.Head(context.Background()); c.Method == "Post" && (err != nil || head.Claim.Token.Generation > 1) {
			late.Add(1)
		}
		if c.Method == "Watch" && !heard {
			return memory.Refuse
		}
		return memory.Pass
	})
	cfg := called(1)
	cfg.Catalog.PollInterval, cfg.Lease = time.Minute, time.Minute
	blue := start(t, handle, cfg)
	blue.reached(t, leader.Leading)
	green := start(t, store.Open(), called(2))
	green.reached(t, leader.ReadyToPromote)
	promote(t, store, 2)
	require.ErrorIs(t, <-blue.ended, fence.ErrSuperseded)
	require.Contains(t, phases(blue), leader.HandingOver)
	require.Zero(t, late.Load(), "the successor's first commits have the store to themselves")
	require.NoError(t, green.end(t))
}

// The claim takes longer than a change of the holder waits to be written.
func TestAHolderThatPausesLeavesTheStoreToItsSuccessor(t *testing.T) {
	t.Parallel()
	store := memory.New()
	handle, mine := store.Open(), store.Open()
	var blue *process
	var posts atomic.Int64
	handle.Inject(func(c memory.Call) memory.Fault {
		if c.Method == "Post" {
			posts.Add(1)
		}
		return memory.Pass
	})
	cfg := called(1)
	cfg.Lease = time.Minute
	blue = start(t, handle, cfg)
	blue.reached(t, leader.Leading)
	written := make(chan int64, 1)
	mine.Inject(func(c memory.Call) memory.Fault {
		if c.Method == "Claim" && len(written) == 0 { // the holder has offered
			before := posts.Load()
			elapse(1200 * time.Millisecond)
			written <- posts.Load() - before
		}
		return memory.Pass
	})
	green := start(t, mine, called(2))
	green.reached(t, leader.ReadyToPromote)
	promote(t, store, 2)
	green.reached(t, leader.Leading)
	require.Zero(t, <-written)
	require.ErrorIs(t, <-blue.ended, fence.ErrSuperseded)
	require.Contains(t, phases(blue), leader.HandingOver)
	require.NoError(t, green.end(t))
}
