package catalog_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/memory"
)

func TestAFeedThatFindsALossRecordsIt(t *testing.T) {
	t.Parallel()
	for _, resumes := range []bool{false, true} {
		store := memory.New()
		c, err := catalog.Open(t.Context(), store.Open(), process(2, "holder"))
		require.NoError(t, err)
		require.NoError(t, setIn(c, "a"))
		var after catalog.Position
		if resumes {
			after = catalog.Position{Revision: c.Head().Revision, Commit: c.Head().Commit}
		}
		began := make(chan struct{}, 10)
		ended := make(chan error, 1)
		go func() {
			ended <- catalog.Feed(t.Context(), store.Open(), process(2, "reader"), after, func(e catalog.Event) error {
				if e.Revision >= 5 {
					began <- struct{}{}
				}
				return nil
			})
		}()
		for range 3 {
			require.NoError(t, setIn(c, "b"))
		}
		awaitEnd(t, began)
		require.NoError(t, c.Close()) // or it would find the loss too
		store.Rollback(2)
		select {
		case err = <-ended:
		case <-time.After(time.Minute):
			require.Fail(t, "it goes on")
		}
		require.ErrorIs(t, err, catalog.ErrLostCommit)
		losses, err := catalog.Losses(t.Context(), store)
		require.NoError(t, err)
		require.Len(t, losses, 1)
		require.True(t, losses[0].Stands())
		require.Contains(t, losses[0].By, "reader")
		require.Equal(t, "g2.e1", losses[0].Token.String())
	}
}

func TestAFeedRecordsNoLossThatItsReaderHasFoundInAnotherCatalog(t *testing.T) {
	t.Parallel()
	other := memory.New()
	c, err := catalog.Open(t.Context(), other.Open(), process(1, "other"))
	require.NoError(t, err)
	require.NoError(t, setIn(c, "a"))
	other.Rollback(1)
	awaitEnd(t, c.Done())
	lost := c.Close()
	require.ErrorIs(t, lost, catalog.ErrLostCommit)
	store := memory.New()
	holder, err := catalog.Open(t.Context(), store, process(1, "holder"))
	require.NoError(t, err)
	require.NoError(t, setIn(holder, "a"))
	require.NoError(t, holder.Close())
	err = catalog.Feed(t.Context(), store, process(1, "reader"), catalog.Position{}, func(catalog.Event) error { return lost })
	require.Equal(t, lost, err)
	losses, err := catalog.Losses(t.Context(), store)
	require.NoError(t, err)
	require.Empty(t, losses)
}

func TestAFeedFindsALossBehindWhichMoreWasCommittedThanItHasRead(t *testing.T) {
	t.Parallel()
	store := memory.New()
	c, err := catalog.Open(t.Context(), store.Open(), process(1, "holder"))
	require.NoError(t, err)
	for range 4 {
		require.NoError(t, setIn(c, "a"))
	}
	late := &blind{Store: store.Open()}
	last, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- catalog.Feed(t.Context(), late, process(1, "reader"), catalog.Position{}, func(e catalog.Event) error {
			if e.Revision == c.Head().Revision {
				late.closed.Store(true)
				close(last)
			}
			return nil
		})
	}()
	awaitEnd(t, last)
	require.NoError(t, c.Close())
	store.Rollback(c.Head().Revision - 2)
	next, err := catalog.Open(t.Context(), store.Open(), process(1, "claimed since"))
	require.NoError(t, err)
	for range 4 {
		require.NoError(t, setIn(next, "b"))
	}
	require.NoError(t, next.Close())
	late.closed.Store(false)
	select {
	case err = <-ended:
		require.ErrorIs(t, err, catalog.ErrLostCommit)
	case <-time.After(time.Minute):
		require.Fail(t, "it goes on")
	}
}
