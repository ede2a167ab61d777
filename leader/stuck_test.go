package leader_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/leader"
)

// stuck is a work that returns only once its channel is closed.
func stuck(until <-chan struct{}) leader.Work {
	return func(context.Context, *leader.Term) error {
		<-until
		return nil
	}
}

// Both processes have the same HandoverTimeout, as those of one service do.
func TestAHolderThatAcknowledgesAndWhoseWorkDoesNotEndIsFencedAtItsFirstHandover(t *testing.T) {
	t.Parallel()
	store, hung := memory.New(), make(chan struct{})
	cfg := called(1)
	cfg.HandoverTimeout = 300 * time.Millisecond
	blue := run(t, store.Open(), cfg, stuck(hung))
	blue.reached(t, leader.Leading)
	cfg = called(2)
	cfg.HandoverTimeout, cfg.Poll = 300*time.Millisecond, 100*time.Millisecond
	green := start(t, store.Open(), cfg)
	green.reached(t, leader.ReadyToPromote)
	promote(t, store, 2)
	green.reached(t, leader.Leading)
	require.Contains(t, claims(t, store)[1].Reason, "the holder has not ended its work within 300ms")
	close(hung)
	require.ErrorIs(t, <-blue.ended, fence.ErrSuperseded)
	require.NoError(t, green.end(t))
}

func TestAStepDownThatComesDuringAnOutageEndsIfAnotherProcessHasClaimed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, hung := memory.New(), make(chan struct{})
		handle := store.Open()
		one := run(t, handle, config(1), stuck(hung))
		one.await(t, leader.Leading)
		handle.Inject(refuse)
		one.await(t, leader.Unconfirmed) // and waits for its work
		done := make(chan error, 1)
		go func() { done <- one.StepDown(t.Context(), leader.StepDownOptions{Force: true}) }()
		synctest.Wait()
		next, err := catalog.Open(t.Context(), store.Open(), catalog.Config{Generation: 2})
		require.NoError(t, err)
		require.NoError(t, next.Close())
		handle.Inject(nil)
		elapse(time.Second) // the holder knows by then
		close(hung)
		require.ErrorIs(t, <-one.ended, fence.ErrSuperseded)
		synctest.Wait()
		select {
		case err := <-done:
			require.ErrorContains(t, err, "another process has claimed")
		default:
			require.Fail(t, "the call has not ended")
		}
	})
}

func TestAStepDownEndsWithItsContextWhileTheWorkEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, hung := memory.New(), make(chan struct{})
		one := run(t, store.Open(), config(1), stuck(hung))
		one.await(t, leader.Leading)
		one.stop(errStop)
		synctest.Wait() // it waits for its work
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- one.StepDown(ctx, leader.StepDownOptions{Force: true}) }()
		elapse(time.Minute)
		select {
		case err := <-done:
			require.ErrorIs(t, err, context.DeadlineExceeded)
		default:
			require.Fail(t, "the call has not ended")
		}
		close(hung)
		require.NoError(t, <-one.ended)
	})
}

// The claim takes long enough for the holder to be confirmed again.
func TestAHolderThatWorksAgainSinceItRefusedAHandoverIsAskedAgain(t *testing.T) {
	t.Parallel()
	store := memory.New()
	handle := store.Open()
	cfg := called(1)
	cfg.Lease = 300 * time.Millisecond
	blue := start(t, handle, cfg)
	blue.reached(t, leader.Leading)
	handle.Inject(func(c memory.Call) memory.Fault {
		if c.Method == "Head" {
			return memory.Refuse
		}
		return memory.Pass
	})
	blue.reached(t, leader.Unconfirmed)
	cfg = called(2)
	mine := store.Open()
	var once sync.Once
	mine.Inject(func(c memory.Call) memory.Fault {
		if c.Method == "Claim" {
			once.Do(func() {
				handle.Inject(nil)
				for blue.works.Load() < 2 && blue.Status().Phase != leader.Failed {
					elapse(time.Millisecond)
				}
			})
		}
		return memory.Pass
	})
	green := start(t, mine, cfg)
	green.reached(t, leader.ReadyToPromote)
	promote(t, store, 2)
	green.reached(t, leader.Leading)
	require.ErrorIs(t, <-blue.ended, fence.ErrSuperseded)
	require.ErrorIs(t, *blue.cause.Load(), leader.ErrHandingOver, "its work was cut off")
	require.NoError(t, green.end(t))
}

// Both processes lose the store; the standby's claim is under way when it comes back.
func TestAHolderThatIsHeardAgainWhileAClaimOverItsSilenceIsBlockedIsNotFenced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		handle, mine := store.Open(), store.Open()
		holder := start(t, handle, config(1))
		holder.await(t, leader.Leading)
		var once sync.Once
		mine.Inject(func(c memory.Call) memory.Fault {
			if c.Method == "Claim" {
				once.Do(func() {
					handle.Inject(nil)
					holder.await(t, leader.Leading)
				})
			}
			return memory.Pass
		})
		standby := start(t, mine, config(1))
		standby.await(t, leader.ReadyToPromote)
		handle.Inject(refuse)
		require.Eventually(t, func() bool { return holder.works.Load() == 2 }, time.Hour, time.Millisecond)
		elapse(time.Minute)
		require.Contains(t, phases(standby), leader.Promoting, "it was not about to claim")
		require.Len(t, claims(t, store), 1)
		require.Equal(t, leader.Leading, holder.Status().Phase)
		require.NoError(t, standby.end(t))
		require.NoError(t, holder.end(t))
	})
}

func TestAClaimThatComesBehindTheHoldersReturnToItsWorkIsRefused(t *testing.T) {
	t.Parallel()
	store, held := memory.New(), make(chan struct{})
	cfg := called(1)
	cfg.HandoverTimeout = 200 * time.Millisecond
	blue := start(t, store.Open(), cfg)
	blue.reached(t, leader.Leading)
	slow := store.Open()
	var once sync.Once
	slow.Inject(func(c memory.Call) memory.Fault {
		if c.Method == "Claim" { // the holder has offered, and waits
			once.Do(func() { <-held })
		}
		return memory.Pass
	})
	next := called(2)
	next.HandoverTimeout = cfg.HandoverTimeout
	green := start(t, slow, next)
	green.reached(t, leader.ReadyToPromote)
	promote(t, store, 2)
	require.Eventually(t, func() bool { return blue.works.Load() == 2 }, time.Minute, time.Millisecond, "it went back to work")
	close(held)
	green.reached(t, leader.Leading)
	require.ErrorIs(t, <-blue.ended, fence.ErrSuperseded)
	last := phases(blue)
	require.Equal(t, []leader.Phase{leader.HandingOver, leader.Superseded}, last[len(last)-2:], "it was fenced while it worked")
	require.NoError(t, green.end(t))
}
