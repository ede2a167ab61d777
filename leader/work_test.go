package leader_test

import (
	"context"
	"errors"
	"strings"
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

func TestWorkThatDoesNotReturnWhenTheTokenIsLostIsLeftBehindWithAllStacks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, hung := memory.New(), make(chan struct{})
		cfg := config(1)
		cfg.DrainTimeout = 3 * time.Second
		p := run(t, store.Open(), cfg, stuck(hung))
		p.await(t, leader.Leading)
		p.stop(errStop) // it has no bound for that: the token is still held
		elapse(time.Minute)
		require.Equal(t, leader.Draining, p.Status().Phase)
		twin, err := catalog.Open(t.Context(), store.Open(), catalog.Config{Generation: 1})
		require.NoError(t, err)
		elapse(2 * time.Second)
		next, err := catalog.Open(t.Context(), store.Open(), catalog.Config{Generation: 2})
		require.NoError(t, err)
		elapse(900 * time.Millisecond)
		require.Empty(t, p.ended)
		elapse(400 * time.Millisecond)
		err = <-p.ended
		var left *leader.StuckError
		require.ErrorAs(t, err, &left)
		require.ErrorIs(t, err, fence.ErrSuperseded)
		require.Equal(t, exitcodes.Success, exitcodes.CodeOf(err))
		require.ErrorContains(t, err, "the work has not returned 3s after the token was lost: superseded")
		first, _, _ := strings.Cut(string(left.Stacks()), "\n\n")
		require.Contains(t, first, "leader.(*leadership).start", "works are the first")
		require.Contains(t, string(left.Stacks()), "stuck_test.go")
		require.Equal(t, leader.Superseded, p.Status().Phase)
		close(hung)
		require.Error(t, twin.Close())
		require.NoError(t, next.Close())
	})
}

func TestTheContextOfAWorkSaysByWhenToReturnOnceItHasEnded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		handle := store.Open()
		cfg := config(1)
		cfg.DrainTimeout, cfg.HandoverTimeout = 3*time.Second, 4*time.Second
		type end struct {
			cause error
			left  time.Duration
			has   bool
		}
		ends := make(chan end, 1)
		var mine atomic.Pointer[process]
		p := run(t, handle, cfg, func(ctx context.Context, term *leader.Term) error {
			term.Serving()
			if _, has := ctx.Deadline(); has {
				return errors.New("there is a deadline before the end")
			}
			<-ctx.Done()
			if mine.Load().Status().Serving {
				return errors.New("it serves though its end was asked for")
			}
			by, has := ctx.Deadline()
			elapse(time.Millisecond)
			again, _ := ctx.Deadline()
			if !again.Equal(by) {
				return errors.New("the deadline moves")
			}
			ends <- end{context.Cause(ctx), time.Until(by) + time.Millisecond, has}
			return nil
		})
		mine.Store(p)
		p.await(t, leader.Leading)
		handle.Inject(refuse)
		e := <-ends
		require.ErrorIs(t, e.cause, leader.ErrUnconfirmed)
		require.Equal(t, time.Duration(0), e.left)
		handle.Inject(nil)
		p.await(t, leader.Leading)
		down := make(chan error, 1)
		go func() { down <- p.StepDown(t.Context(), leader.StepDownOptions{Force: true}) }()
		e = <-ends
		require.ErrorIs(t, e.cause, leader.ErrHandingOver)
		require.Equal(t, cfg.HandoverTimeout, e.left)
		require.Error(t, <-down, "nobody took over")
		p.await(t, leader.Leading)
		next, err := catalog.Open(t.Context(), store.Open(), catalog.Config{Generation: 2})
		require.NoError(t, err)
		e = <-ends
		require.ErrorIs(t, e.cause, fence.ErrSuperseded)
		require.Equal(t, cfg.DrainTimeout, e.left)
		require.ErrorIs(t, <-p.ended, fence.ErrSuperseded)
		require.NoError(t, next.Close())

		q := run(t, memory.New(), config(1), func(ctx context.Context, _ *leader.Term) error {
			<-ctx.Done()
			_, has := ctx.Deadline()
			ends <- end{cause: context.Cause(ctx), has: has}
			return nil
		})
		q.await(t, leader.Leading)
		require.NoError(t, q.end(t))
		e = <-ends
		require.ErrorIs(t, e.cause, errStop)
		require.False(t, e.has, "whoever stops it does not say")
	})
}

func TestTheWordsOfAWorkThatWasAskedToEndSayNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := start(t, memory.New(), config(1))
		p.await(t, leader.Leading)
		first := p.words.Load()
		require.Error(t, p.StepDown(t.Context(), leader.StepDownOptions{Force: true}), "nobody took over")
		p.await(t, leader.Leading)
		require.NotSame(t, first, p.words.Load())
		first.NotServing("of a call that has ended")
		first.Busy("of a call that has ended")
		require.True(t, p.Status().Serving)
		require.Empty(t, p.Status().Busy)
		require.NoError(t, p.end(t))
		p.words.Load().Serving()
		require.False(t, p.Status().Serving)
	})
}

func TestAWorkThatSaysNothingLeadsAndDoesNotServe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := run(t, memory.New(), config(1), func(ctx context.Context, _ *leader.Term) error { <-ctx.Done(); return nil })
		p.await(t, leader.Leading)
		elapse(time.Minute)
		s := p.Status()
		require.False(t, s.Serving)
		require.Equal(t, "leads, not serving: the work has not said yet that it serves", s.Reason)
		require.NoError(t, p.end(t))
	})
}

func TestAChangeOfServingIsToldAsAChangeOfPhaseIs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := config(1)
		var serving, told atomic.Int64
		cfg.Changed = func(s leader.Status) {
			told.Add(1)
			if s.Serving {
				serving.Add(1)
			}
		}
		p := start(t, memory.New(), cfg)
		p.await(t, leader.Leading)
		require.EqualValues(t, 1, serving.Load())
		before := told.Load()
		p.words.Load().NotServing("a")
		p.words.Load().NotServing("b")
		p.words.Load().Serving()
		synctest.Wait()
		require.EqualValues(t, 2, serving.Load())
		require.EqualValues(t, 2, told.Load()-before)
		require.NoError(t, p.end(t))
	})
}

// surge is how many heartbeats may come at once.
const surge = 10

func TestAHolderSaysWithItsHeartbeatWhatItIsBusyWith(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		p := start(t, store, config(1))
		p.await(t, leader.Leading)
		elapse(2 * time.Second)
		busy := func() string {
			beat, err := leader.ReadBeat(t.Context(), store, catalog.Config{})
			require.NoError(t, err)
			said, ok := beat.State()
			require.True(t, ok)
			return said.Busy
		}
		require.Empty(t, busy())
		idle := p.words.Load().Busy("nightly\nexport")
		require.Equal(t, "nightly; export", p.Status().Busy)
		idle2 := p.words.Load().Busy(strings.Repeat("x", 5000))
		elapse(1100 * time.Millisecond)
		require.Equal(t, "nightly; export, and 1 more", busy())
		idle()
		idle()
		elapse(1100 * time.Millisecond)
		require.Len(t, busy(), 128)
		idle2()
		elapse(1100 * time.Millisecond)
		require.Empty(t, busy())
		beats := func() uint64 {
			beat, err := leader.ReadBeat(t.Context(), store, catalog.Config{})
			require.NoError(t, err)
			return beat.Seq
		}
		p.words.Load().Busy(" \n")()
		idle = p.words.Load().Busy(" \n")
		require.Equal(t, "something that the work does not name", p.Status().Busy, "no text is no idleness")
		idle()
		before := beats()
		for range 300 { // of three seconds
			p.words.Load().Busy("a request")()
			idle := p.words.Load().Busy("a request")
			elapse(10 * time.Millisecond)
			idle()
		}
		require.LessOrEqual(t, beats()-before, uint64(4), "no more than one a second")
		before = beats()
		for range 300 {
			p.words.Load().NotServing("of a request")
			elapse(5 * time.Millisecond)
			p.words.Load().Serving()
			elapse(25 * time.Millisecond)
		}
		require.LessOrEqual(t, beats()-before, uint64(surge+2*9), "a few at once, and then two a second")
		elapse(1100 * time.Millisecond)
		require.Equal(t, leader.StandingServing, standing(t, store).State)
		require.NoError(t, p.end(t))
	})
}
