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
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/leader"
)

// A process is one Leader under Run.
type process struct {
	*leader.Leader
	stop  context.CancelCauseFunc
	ended chan error
	holds atomic.Pointer[catalog.Catalog] // while the work runs
	cause atomic.Pointer[error]           // of the end of the last work's context
	works atomic.Int64                    // calls of the work
	words atomic.Pointer[leader.Term]     // of the newest call
}

func config(g generation.Generation) leader.Config {
	return leader.Config{
		Catalog: catalog.Config{Generation: g, Holder: fence.Holder{Name: "process of " + g.String()}},
		Clock:   leader.Monotonic, // which a bubble's time moves
	}
}

// start runs a process whose work lasts until its context ends.
func start(t *testing.T, store driver.Store, cfg leader.Config) *process {
	t.Helper()
	l, err := leader.New(store, cfg)
	require.NoError(t, err)
	ctx, stop := context.WithCancelCause(t.Context())
	p := &process{Leader: l, stop: stop, ended: make(chan error, 1)}
	go func() {
		p.ended <- l.Run(ctx, func(ctx context.Context, term *leader.Term) error {
			p.works.Add(1)
			p.holds.Store(term.Catalog)
			p.words.Store(term)
			term.Serving()
			<-ctx.Done()
			cause := context.Cause(ctx)
			p.cause.Store(&cause)
			p.holds.Store(nil)
			return nil
		})
	}()
	return p
}

func (p *process) await(t *testing.T, phase leader.Phase) {
	t.Helper()
	for range 100_000 {
		if p.Status().Phase == phase {
			synctest.Wait() // what begins with the phase has begun
			return
		}
		if p.Status().Phase.Ended() {
			break
		}
		elapse(10 * time.Millisecond)
	}
	require.Equal(t, phase, p.Status().Phase, p.Status().Reason)
}

func (p *process) end(t *testing.T) error {
	t.Helper()
	p.stop(errStop)
	return <-p.ended
}

// elapse lets a bubble's time pass, which costs none of ours.
func elapse(d time.Duration) { <-time.After(d) }

var errStop = errors.New("stop")

func claims(t *testing.T, s driver.Store) []driver.Claim {
	t.Helper()
	h, err := catalog.History(t.Context(), s)
	require.NoError(t, err)
	return h
}

func TestTheFirstProcessOfACatalogLeadsAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := start(t, memory.New(), config(3))
		p.await(t, leader.Leading)
		s := p.Status()
		require.True(t, s.Serving)
		require.Equal(t, "g3.e1", s.Token.String())
		require.NoError(t, p.end(t))
		s = p.Status()
		require.Equal(t, leader.Stopped, s.Phase)
		require.Nil(t, s.Token)
		require.ErrorIs(t, *p.cause.Load(), errStop)
	})
}

func TestAHigherGenerationWaitsForPromotionAndTheOldOneIsSuperseded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		blue := start(t, store, config(1))
		blue.await(t, leader.Leading)
		green := start(t, store, config(2))
		green.await(t, leader.ReadyToPromote)
		elapse(20 * time.Minute) // it waits for ever
		require.Equal(t, leader.ReadyToPromote, green.Status().Phase)
		require.Equal(t, leader.Leading, blue.Status().Phase)

		_, err := leader.Promote(t.Context(), store, catalog.Config{}, 2, leader.PromoteOptions{By: "test", Force: true})
		require.NoError(t, err)
		green.await(t, leader.Leading)
		err = <-blue.ended
		require.ErrorIs(t, err, fence.ErrSuperseded)
		require.Equal(t, exitcodes.Success, exitcodes.CodeOf(err))
		require.Equal(t, leader.Superseded, blue.Status().Phase)
		require.Equal(t, "g2.e2", blue.Status().Leader.Token.String())
		require.ErrorIs(t, *blue.cause.Load(), fence.ErrSuperseded, "the cause of the work's context")
		require.Equal(t, "promoted by test", claims(t, store)[1].Reason)
		require.NoError(t, green.end(t))
	})
}

func TestPromotionIsDurableIdempotentAndNeverGoesBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		blue := start(t, store, config(1))
		blue.await(t, leader.Leading)
		first, err := leader.Promote(t.Context(), store, catalog.Config{}, 3, leader.PromoteOptions{By: "a", Force: true})
		require.NoError(t, err)
		again, err := leader.Promote(t.Context(), store, catalog.Config{}, 3, leader.PromoteOptions{By: "b", Force: true})
		require.NoError(t, err)
		require.Equal(t, first, again)
		var overtaken *leader.OvertakenError
		_, err = leader.Promote(t.Context(), store, catalog.Config{}, 2, leader.PromoteOptions{By: "c", Force: true})
		require.ErrorAs(t, err, &overtaken)

		green := start(t, store, config(3)) // it starts only after the promotion
		green.await(t, leader.Leading)
		<-blue.ended
		_, err = leader.Promote(t.Context(), store, catalog.Config{}, 3, leader.PromoteOptions{By: "d", Force: true})
		require.NoError(t, err)
		_, err = leader.Promote(t.Context(), store, catalog.Config{}, 2, leader.PromoteOptions{By: "e", Force: true})
		require.ErrorIs(t, err, fence.ErrSuperseded)
		require.NoError(t, green.end(t))
	})
}

func TestALowerGenerationEndsSuperseded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		green := start(t, store, config(2))
		green.await(t, leader.Leading)
		blue := start(t, store, config(1))
		require.ErrorIs(t, <-blue.ended, fence.ErrSuperseded)
		require.Len(t, claims(t, store), 1)
		require.NoError(t, green.end(t))
	})
}

func TestAGenerationThatWasReadyEndsSupersededWhenAHigherOneIsPromoted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		one := start(t, store, config(1))
		one.await(t, leader.Leading)
		two := start(t, store, config(2))
		two.await(t, leader.ReadyToPromote)
		cfg := config(3)
		cfg.AutoPromote = true
		three := start(t, store, cfg)
		three.await(t, leader.Leading)
		require.ErrorIs(t, <-two.ended, fence.ErrSuperseded)
		require.ErrorIs(t, <-one.ended, fence.ErrSuperseded)
		require.NoError(t, three.end(t))
	})
}

func TestWhatIsWorseThanAStopIsNotSwallowedByIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		l, err := leader.New(store, config(1))
		require.NoError(t, err)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- l.Run(ctx, func(ctx context.Context, term *leader.Term) error {
				require.NoError(t, term.Update(ctx, func(tx *catalog.Tx) error { return catalog.Bytes("c").Set(tx, "k", nil) }))
				store.Rollback(1)
				require.ErrorIs(t, term.Confirm(ctx), catalog.ErrLostCommit)
				stop()
				<-ctx.Done()
				return ctx.Err()
			})
		}()
		err = <-ended
		require.ErrorIs(t, err, catalog.ErrLostCommit)
		require.Equal(t, exitcodes.PanicExit, exitcodes.CodeOf(err))
		require.Equal(t, leader.Failed, l.Status().Phase)
	})
}

func TestAnEpochFenceDoesNotExplainThePanicOfTheWork(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		l, err := leader.New(store, config(1))
		require.NoError(t, err)
		broken := exitcodes.With(errors.New("my invariant is broken"), exitcodes.Panic)
		ended := make(chan error, 1)
		go func() {
			ended <- l.Run(t.Context(), func(ctx context.Context, _ *leader.Term) error {
				<-ctx.Done()
				return broken
			})
		}()
		elapse(time.Second)
		c, err := catalog.Open(t.Context(), store, catalog.Config{Generation: 1})
		require.NoError(t, err)
		err = <-ended
		require.ErrorIs(t, err, broken)
		require.ErrorIs(t, err, fence.ErrFenced)
		require.Equal(t, exitcodes.PanicExit, exitcodes.CodeOf(err))
		require.NoError(t, c.Close())
	})
}

func TestANumberThatWasPromotedIsNotGivenOutAgain(t *testing.T) {
	t.Parallel()
	store := memory.New()
	_, err := leader.Promote(t.Context(), store, catalog.Config{}, 3, leader.PromoteOptions{By: "a deploy that is cancelled later", Force: true})
	require.NoError(t, err)
	next, err := catalog.NewBoard(store, catalog.Config{}).NextGeneration(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 4, next)
}

func TestAnErrorOfTheWorkEndsTheProcess(t *testing.T) {
	t.Parallel()
	mine := errors.New("mine")
	l, err := leader.New(memory.New(), config(1))
	require.NoError(t, err)
	err = l.Run(t.Context(), func(context.Context, *leader.Term) error { return mine })
	require.ErrorIs(t, err, mine)
	require.Equal(t, leader.Failed, l.Status().Phase)
}

func TestTheWorkIsJoinedBeforeRunReturns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		cfg := config(1)
		cfg.DrainTimeout = time.Hour
		l, err := leader.New(store, cfg)
		require.NoError(t, err)
		working := false
		ended := make(chan error, 1)
		go func() {
			ended <- l.Run(t.Context(), func(ctx context.Context, _ *leader.Term) error {
				working = true
				<-ctx.Done()
				elapse(time.Minute) // slow to stop
				working = false
				return nil
			})
		}()
		elapse(time.Second)
		green, err := catalog.Open(t.Context(), store, catalog.Config{Generation: 2})
		require.NoError(t, err)
		require.ErrorIs(t, <-ended, fence.ErrSuperseded)
		require.False(t, working)
		require.NoError(t, green.Close())
	})
}

func TestConfigurationNamesEveryMistakeAtOnce(t *testing.T) {
	t.Parallel()
	_, err := leader.New(memory.New(), leader.Config{
		Lease: time.Millisecond, Poll: -1, HandoverTimeout: -1, DrainTimeout: -1, Priority: 10, CaughtUpFor: time.Hour, CatchUpTimeout: time.Minute,
		WhenLate: 9, Clock: 9, Admin: "0.0.0.0:80", Peer: "0.0.0.0:81",
	})
	require.ErrorIs(t, err, generation.ErrMissing)
	for _, mistake := range []string{"Lease is", "Poll is", "HandoverTimeout is", "DrainTimeout is", "Priority is", "CatchUpTimeout is", "WhenLate is", "Clock is", "not on loopback", "names no host"} {
		require.ErrorContains(t, err, mistake)
	}
	require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
}
