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

func refuse(memory.Call) memory.Fault { return memory.Refuse }

// phases are the phases that a process has gone through.
func phases(p *process) (all []leader.Phase) {
	for _, m := range p.Status().Moves {
		all = append(all, m.To)
	}
	return all
}

func TestAnOutageShorterThanTheLeaseChangesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		p := start(t, store, config(1))
		p.await(t, leader.Leading)
		elapse(time.Minute)
		store.Inject(refuse)
		elapse(3 * time.Second) // the last renewal was up to a third of the lease before, and the next try is up to a second behind
		require.True(t, p.Held())
		store.Inject(nil)
		elapse(time.Minute)
		require.EqualValues(t, 1, p.works.Load(), "the work was interrupted")
		require.NotContains(t, phases(p), leader.Unconfirmed)
		require.NoError(t, p.end(t))
	})
}

func TestBlipsOfASecondEveryFiveSecondsLoseNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		handle, other := store.Open(), store.Open()
		p := start(t, handle, config(1))
		p.await(t, leader.Leading)
		standby := start(t, other, config(1))
		standby.await(t, leader.ReadyToPromote)
		for range 12 {
			handle.Inject(refuse)
			other.Inject(refuse)
			elapse(time.Second)
			handle.Inject(nil)
			other.Inject(nil)
			elapse(4 * time.Second)
		}
		require.EqualValues(t, 1, p.works.Load())
		require.Len(t, claims(t, store), 1)
		require.NoError(t, standby.end(t))
		require.NoError(t, p.end(t))
	})
}

func TestAnOutageLongerThanTheLeasePausesTheWorkWhichGoesOnUnderTheSameToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		handle, other := store.Open(), store.Open()
		p := start(t, handle, config(1))
		p.await(t, leader.Leading)
		standby := start(t, other, config(1))
		standby.await(t, leader.ReadyToPromote)
		token := *p.Status().Token
		elapse(time.Minute)
		handle.Inject(refuse)
		other.Inject(refuse)
		began := time.Now()
		p.await(t, leader.Unconfirmed)
		require.LessOrEqual(t, time.Since(began), 7500*time.Millisecond)
		synctest.Wait()
		require.ErrorIs(t, *p.cause.Load(), leader.ErrUnconfirmed)
		require.Nil(t, p.holds.Load(), "the work is not joined")
		require.False(t, p.Held())
		require.Equal(t, &token, p.Status().Token)
		require.False(t, p.Status().Serving)
		elapse(10 * time.Minute)
		handle.Inject(nil)
		other.Inject(nil)
		p.await(t, leader.Leading)
		require.Equal(t, &token, p.Status().Token)
		require.EqualValues(t, 2, p.works.Load())
		require.NoError(t, p.holds.Load().Update(t.Context(), func(tx *catalog.Tx) error { return catalog.Bytes("c").Set(tx, "k", nil) }))
		elapse(time.Minute)
		require.Len(t, claims(t, store), 1, "standbys must count anew")
		require.NoError(t, standby.end(t))
		require.NoError(t, p.end(t))
	})
}

func TestAHolderThatIsUnconfirmedAndWasReplacedMeanwhileIsFenced(t *testing.T) {
	t.Parallel()
	for name, g := range map[string]int{"by its own generation": 1, "by a higher one": 2} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := memory.New()
				handle := store.Open()
				p := start(t, handle, config(1))
				p.await(t, leader.Leading)
				handle.Inject(refuse)
				p.await(t, leader.Unconfirmed)
				cfg := config(1)
				cfg.Catalog.Generation++
				if g == 1 {
					cfg.Catalog.Generation = 1
				}
				next, err := catalog.Open(t.Context(), store, cfg.Catalog)
				require.NoError(t, err)
				elapse(time.Minute)
				require.Equal(t, leader.Unconfirmed, p.Status().Phase)
				handle.Inject(nil)
				err = <-p.ended
				require.ErrorIs(t, err, fence.ErrFenced)
				require.EqualValues(t, 1, p.works.Load(), "the work went on")
				if g == 2 {
					require.Equal(t, exitcodes.Success, exitcodes.CodeOf(err))
				} else {
					require.Equal(t, exitcodes.Restart, exitcodes.CodeOf(err))
				}
				require.NoError(t, next.Close())
			})
		})
	}
}

func TestAWriteInDoubtDuringAnOutageDoesNotEndTheTenure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		handle := store.Open()
		l, err := leader.New(handle, config(1))
		require.NoError(t, err)
		ctx, stop := context.WithCancelCause(t.Context())
		ended := make(chan error, 1)
		fates := make(chan error, 4)
		go func() {
			ended <- l.Run(ctx, func(ctx context.Context, term *leader.Term) error {
				err := term.Update(ctx, func(tx *catalog.Tx) error { return catalog.Bytes("c").Set(tx, "k", nil) })
				fates <- err
				if err == nil {
					<-ctx.Done()
				}
				return err
			})
		}()
		handle.Inject(func(c memory.Call) memory.Fault {
			if c.Method == "Claim" || c.Method == "Install" || l.Status().Token == nil {
				return memory.Pass
			}
			if c.Method == "Append" && c.N == 0 {
				return memory.LoseAnswer
			}
			return memory.Refuse
		})
		elapse(5 * time.Minute)
		require.Equal(t, leader.Unconfirmed, l.Status().Phase)
		handle.Inject(nil)
		elapse(10 * time.Second)
		require.Equal(t, leader.Leading, l.Status().Phase)
		require.ErrorIs(t, <-fates, catalog.ErrUnknownOutcome)
		require.NoError(t, <-fates)
		require.Len(t, claims(t, store), 1)
		stop(errStop)
		require.NoError(t, <-ended)
	})
}

func TestAStopDuringAnOutageEndsTheProcess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		p := start(t, store, config(1))
		p.await(t, leader.Leading)
		store.Inject(refuse)
		p.await(t, leader.Unconfirmed)
		require.NoError(t, p.end(t))
		require.Equal(t, leader.Stopped, p.Status().Phase)
	})
}

func TestAnIdleHolderWritesOnceInAThirdOfTheLeaseAndEveryMemberOnceALease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		handle, other := store.Open(), store.Open()
		var writes, foreign, claims atomic.Int64
		handle.Inject(func(c memory.Call) memory.Fault {
			switch c.Method {
			case "Append", "Install", "Post", "Stage", "Publish", "Trim":
				writes.Add(1)
			}
			return memory.Pass
		})
		other.Inject(func(c memory.Call) memory.Fault {
			switch c.Method {
			case "Append", "Install", "Stage", "Publish", "Trim", "Claim":
				claims.Add(1)
			case "Post":
				foreign.Add(1)
			}
			return memory.Pass
		})
		p := start(t, handle, config(1))
		p.await(t, leader.Leading)
		standby := start(t, other, config(1))
		standby.await(t, leader.ReadyToPromote)
		elapse(time.Minute)
		writes.Store(0)
		foreign.Store(0)
		elapse(75 * time.Second)
		require.InDelta(t, 10, foreign.Load(), 1, "of ten leases: its note as a member")
		require.InDelta(t, 40, writes.Load(), 2, "of ten leases: heartbeats, and its note as a member")
		require.Zero(t, claims.Load(), "a standby writes nothing else")
		require.NoError(t, standby.end(t))
		require.NoError(t, p.end(t))
	})
}

func TestTheLeaseCountsFromBeforeTheStoreWasAsked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		handle := store.Open()
		p := start(t, handle, config(1))
		p.await(t, leader.Leading)
		handle.Inject(func(c memory.Call) memory.Fault {
			if c.Method == "Post" {
				elapse(time.Second) // on its way
			}
			return memory.Pass
		})
		elapse(10 * time.Second)
		renewed := 0
		for last := 0.0; renewed < 20; {
			left := p.Status().LeaseLeft
			require.LessOrEqual(t, left, 6.5, "the second on the way was not counted")
			if left > last {
				renewed++
			}
			last = left
			elapse(10 * time.Millisecond)
		}
		require.NoError(t, p.end(t))
	})
}

func TestWhatIsWorseThanAPauseEndsTheProcess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broken := exitcodes.With(errors.New("my invariant is broken"), exitcodes.Panic)
		p := run(t, memory.New(), config(1), func(ctx context.Context, _ *leader.Term) error {
			<-ctx.Done()
			return errors.Join(context.Cause(ctx), broken)
		})
		p.await(t, leader.Leading)
		require.Error(t, p.StepDown(t.Context(), leader.StepDownOptions{Force: true}))
		require.ErrorIs(t, <-p.ended, broken)
		require.Equal(t, leader.Failed, p.Status().Phase)
	})
}
