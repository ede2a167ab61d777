package work

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/memory"
)

func TestAPassDuringAStopHidesNoRunThatHasReturned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, err := catalog.Open(t.Context(), memory.New().Open(), catalog.Config{Generation: 1})
		require.NoError(t, err)
		defer c.Close()
		returns := make(chan struct{})
		q, err := New(c, Config{Kinds: []Kind{{Name: "sync", Run: func(context.Context, *Job) error { <-returns; return nil }}}})
		require.NoError(t, err)
		stopped := errors.New("stopped")
		ctx, stop := context.WithCancelCause(t.Context())
		done := make(chan error, 1)
		go func() { done <- q.Run(ctx) }()
		require.NoError(t, c.Update(t.Context(), func(tx *catalog.Tx) error {
			_, err := EnqueueAll(tx, Request{Kind: "sync"}, Request{Kind: "sync"})
			return err
		}))
		synctest.Wait()
		stop(stopped)
		synctest.Wait()
		require.NoError(t, q.ask(t.Context(), func(d *dispatcher) { // as a pass that waits for the store
			close(returns)
			synctest.Wait()
			d.pass("asked")
		}))
		err = <-done
		require.ErrorIs(t, err, stopped)
		require.NotErrorIs(t, err, ErrStillRunning)
	})
}

func TestAWaitThatWasGivenUpLeavesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, err := catalog.Open(t.Context(), memory.New().Open(), catalog.Config{Generation: 1})
		require.NoError(t, err)
		q, err := New(c, Config{Kinds: []Kind{{Name: "sync", Run: func(ctx context.Context, _ *Job) error { <-ctx.Done(); return ctx.Err() }}}})
		require.NoError(t, err)
		done := make(chan error, 1)
		go func() { done <- q.Run(t.Context()) }()
		require.NoError(t, c.Update(t.Context(), func(tx *catalog.Tx) error { _, err := Enqueue(tx, "sync", "", nil); return err }))
		for _, wait := range []func(context.Context) error{q.Idle, q.Drain} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			require.ErrorIs(t, wait(ctx), context.DeadlineExceeded)
			cancel()
		}
		require.NoError(t, q.ask(t.Context(), func(d *dispatcher) {
			require.True(t, d.draining, "Drain is for good")
			d.pass("asked")
			require.Empty(t, d.waiters)
		}))
		require.NoError(t, c.Close())
		require.ErrorIs(t, <-done, catalog.ErrClosed)
	})
}
