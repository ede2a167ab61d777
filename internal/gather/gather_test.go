package gather_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/internal/gather"
)

// A bench is a group whose answers come when the test says so.
type bench struct {
	*gather.Group[int, int]
	alone    chan int
	together chan []int
	release  chan struct{}
	ended    chan error // the reason why a round's context ended
}

func newBench(t *testing.T, lanes, most int) *bench {
	b := &bench{alone: make(chan int, 10), together: make(chan []int, 10), release: make(chan struct{}), ended: make(chan error, 1)}
	wait := func(ctx context.Context) error {
		select {
		case <-b.release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	b.Group = gather.New(lanes, most, func(ctx context.Context, q int) (int, error) {
		b.alone <- q
		return -q, wait(ctx)
	}, func(ctx context.Context, all []int) (answers []gather.Answer[int]) {
		b.together <- all
		err := wait(ctx)
		if err != nil {
			b.ended <- err
		}
		for _, q := range all {
			answers = append(answers, gather.Answer[int]{Value: -q, Err: err})
		}
		return answers
	})
	t.Cleanup(b.Close)
	return b
}

func (b *bench) ask(ctx context.Context, q int) chan error {
	done := make(chan error, 1)
	go func() {
		got, err := b.Ask(ctx, q)
		if err == nil && got != -q {
			err = errors.New("the answer to another question")
		}
		done <- err
	}()
	synctest.Wait()
	return done
}

func TestWhoComesFirstIsAnsweredAloneAndWhoWaitsIsAnsweredTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 2, 3)
		var done []chan error
		for q := 1; q <= 6; q++ {
			done = append(done, b.ask(t.Context(), q))
		}
		require.Equal(t, 1, <-b.alone)
		require.Equal(t, 2, <-b.alone)
		require.Empty(t, b.alone)
		require.Empty(t, b.together, "both lanes are taken")
		b.release <- struct{}{}
		synctest.Wait()
		require.Equal(t, []int{3, 4, 5}, <-b.together, "a round takes three at most")
		require.Empty(t, b.together, "one lane was given back")
		close(b.release)
		synctest.Wait()
		require.Equal(t, []int{6}, <-b.together)
		for _, d := range done {
			require.NoError(t, <-d)
		}
		require.NoError(t, <-b.ask(t.Context(), 7))
		require.Equal(t, 7, <-b.alone, "the lanes are free again")
	})
}

func TestAQuestionNeverJoinsARoundThatWasSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1, 10)
		b.ask(t.Context(), 1)
		b.ask(t.Context(), 2)
		b.release <- struct{}{}
		synctest.Wait()
		require.Equal(t, []int{2}, <-b.together)
		late := b.ask(t.Context(), 3)
		b.release <- struct{}{}
		synctest.Wait()
		require.Empty(t, late)
		require.Equal(t, []int{3}, <-b.together)
		close(b.release)
		require.NoError(t, <-late)
	})
}

func TestARoundGoesOnAsLongAsOneOfItsCallersWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1, 10)
		first := b.ask(t.Context(), 1)
		short, cancel := context.WithCancel(t.Context())
		gone, goAway := context.WithCancel(t.Context())
		impatient, other := b.ask(short, 2), b.ask(gone, 3)
		left := b.ask(gone, 4)
		b.release <- struct{}{}
		synctest.Wait()
		require.NoError(t, <-first)
		require.Equal(t, []int{2, 3, 4}, <-b.together)
		cancel()
		require.ErrorIs(t, <-impatient, context.Canceled)
		require.Empty(t, b.ended)
		goAway()
		require.ErrorIs(t, <-other, context.Canceled)
		require.ErrorIs(t, <-left, context.Canceled)
		require.ErrorIs(t, <-b.ended, context.Canceled)
	})
}

func TestARoundEndsWithTheLatestDeadlineAndLeavesOutWhoHasGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1, 10)
		b.ask(t.Context(), 1)
		ctx, cancel := context.WithCancel(t.Context())
		cancelled := b.ask(ctx, 2)
		cancel()
		require.ErrorIs(t, <-cancelled, context.Canceled)
		began := time.Now()
		for q, wait := range []time.Duration{time.Second, 3 * time.Second, 2 * time.Second} {
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			defer cancel()
			b.ask(ctx, 3+q)
		}
		b.release <- struct{}{}
		require.Error(t, <-b.ended)
		require.Equal(t, 3*time.Second, time.Since(began))
		require.Equal(t, []int{3, 4, 5}, <-b.together)
	})
}

func TestCloseEndsTheRoundsUnderWayAndWaitsForThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1, 10)
		b.ask(t.Context(), 1)
		second := b.ask(context.Background(), 2)
		b.release <- struct{}{}
		synctest.Wait()
		b.Close()
		require.ErrorIs(t, <-second, context.Canceled)
		require.ErrorIs(t, <-b.ended, context.Canceled)
	})
}
