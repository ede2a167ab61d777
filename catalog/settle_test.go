package catalog_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/exitcodes"
)

// onStage is a store whose commits and staged parts go through a function.
type onStage struct {
	onAppend
	stage func()
}

func (s *onStage) Stage(ctx context.Context, by driver.Claim, id driver.ID, n int, part []byte) error {
	s.stage()
	return s.Store.Stage(ctx, by, id, n, part)
}

// twice sends a commit twice and answers for the second copy: that the head has moved.
func twice(ctx context.Context, store driver.Store, prior driver.Head, rec driver.Record) error {
	_ = store.Append(ctx, prior, rec)
	return store.Append(ctx, prior, rec)
}

// The server on which a commit was found in the head fails, and the one that takes
// over has the claim and lacks the commit. It takes the write that is to show that
// the commit is durable: the claim is still the newest.
func TestACommitThatIsGoneBeneathTheWriteThatWasToSettleItIsNotAcknowledged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		s := &onStage{onAppend: onAppend{Store: store, append: store.Append}, stage: func() {}}
		c, err := catalog.Open(t.Context(), s, patient())
		require.NoError(t, err)
		require.NoError(t, c.Update(t.Context(), set("told")))
		told, stages := c.Head().Revision, 0
		s.append = func(ctx context.Context, prior driver.Head, rec driver.Record) error {
			return twice(ctx, store, prior, rec)
		}
		s.stage = func() {
			stages++
			store.Rollback(told)
		}
		err = c.Update(t.Context(), set("never told"))
		require.Error(t, err)
		require.NotErrorIs(t, err, catalog.ErrLostCommit, "nobody was told of it")
		require.NotZero(t, stages, "no write was to settle it")
		_ = c.Close() // its reason is what Update said
		next, err := catalog.Open(t.Context(), store.Open(), patient())
		require.NoError(t, err)
		require.Equal(t, []string{"told"}, keys(t, next))
		require.NoError(t, next.Close())
	})
}

// A commit is found in the head, and the store refuses the one that is to settle it.
func TestACommitThatCantBeSettledIsUnknownAndTheOneBehindItIsNotApplied(t *testing.T) {
	t.Parallel()
	store := memory.New()
	s := &onAppend{Store: store, append: store.Append}
	c, err := catalog.Open(t.Context(), s, process(1, "holder"))
	require.NoError(t, err)
	first, refuses := true, true
	s.append = func(ctx context.Context, prior driver.Head, rec driver.Record) error {
		switch {
		case first:
			first = false
			return twice(ctx, store, prior, rec)
		case refuses:
			return &driver.Error{Store: s.String(), Op: "append", Err: errFirst}
		}
		return store.Append(ctx, prior, rec)
	}
	err = c.Update(t.Context(), set("landed"))
	require.ErrorIs(t, err, errFirst)
	require.ErrorIs(t, err, catalog.ErrUnknownOutcome, "it is in the log")
	require.Equal(t, driver.Unknown, catalog.OutcomeOf(err))
	err = c.Update(t.Context(), set("not sent"))
	require.ErrorIs(t, err, errFirst)
	require.NotErrorIs(t, err, catalog.ErrUnknownOutcome, "it was not sent, since the one before it was not settled")
	require.Equal(t, driver.NotApplied, catalog.OutcomeOf(err))
	refuses = false
	require.NoError(t, c.Update(t.Context(), set("later")))
	require.Equal(t, []string{"landed", "later"}, keys(t, c))
	require.NoError(t, c.Close())
}

// A process that was told of the loss ends, and the next one would claim over it.
func TestWhoeverIsToldOfALossIsToldOnceItIsWritten(t *testing.T) {
	t.Parallel()
	for name, call := range map[string]func(*catalog.Catalog) error{
		"Update":  func(c *catalog.Catalog) error { return c.Update(context.Background(), set("late")) },
		"Confirm": func(c *catalog.Catalog) error { return c.Confirm(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := memory.New()
			var written atomic.Bool
			s := &onPutLosses{Store: store, put: func(ctx context.Context, l driver.Losses) (int64, error) {
				<-time.After(100 * time.Millisecond) // a store that is far away
				version, err := store.PutLosses(ctx, l, nil)
				written.Store(err == nil)
				return version, err
			}}
			c, err := catalog.Open(t.Context(), deafStore{s}, process(1, "holder"))
			require.NoError(t, err)
			require.NoError(t, c.Update(t.Context(), set("k")))
			store.Rollback(1)
			awaitEnd(t, c.Done()) // its own look has found it
			err = call(c)
			require.True(t, written.Load(), "told of a loss that is not written yet")
			require.ErrorIs(t, err, catalog.ErrLostCommit)
			require.Equal(t, exitcodes.Panic, exitcodes.Of(err))
			require.ErrorIs(t, c.Close(), catalog.ErrLostCommit)
		})
	}
}
