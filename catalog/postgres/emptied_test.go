package postgres_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/internal/testpg"
)

func TestACatalogWhoseRowsAreDeletedUnderAProcessIsALossThatRestoredEnds(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	cfg := catalog.Config{Generation: 3, PollInterval: 50 * time.Millisecond}
	c, err := catalog.Open(t.Context(), open(t, dsn), cfg)
	require.NoError(t, err)
	require.NoError(t, c.Update(t.Context(), func(tx *catalog.Tx) error { return catalog.Bytes("c").Set(tx, "k", nil) }))
	testpg.Exec(t, dsn, `begin; delete from fencepost.log; delete from fencepost.claim; delete from fencepost.token;
		delete from fencepost.head; delete from fencepost.board; commit`)
	select {
	case <-c.Done():
	case <-time.After(time.Minute):
		require.Fail(t, "it goes on")
	}
	require.ErrorIs(t, c.Close(), catalog.ErrLostCommit)
	s := open(t, dsn)
	_, err = catalog.Open(t.Context(), s, cfg)
	require.ErrorIs(t, err, catalog.ErrLossStands)
	claim, err := catalog.Raise(t.Context(), s, catalog.Config{}, catalog.RaiseOptions{Reason: "emptied by mistake", Above: c.Token()})
	require.NoError(t, err)
	require.Equal(t, "g3.e2", claim.Token.String())
	next, err := catalog.Open(t.Context(), s, cfg)
	require.NoError(t, err)
	require.NoError(t, next.Close())
}
