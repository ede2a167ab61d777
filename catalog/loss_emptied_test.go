package catalog_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/memory"
)

func TestACatalogThatWasEmptiedBeginsAnewAboveTheTokenThatItsLossNames(t *testing.T) {
	t.Parallel()
	store := memory.New()
	c, err := catalog.Open(t.Context(), store.Open(), process(3, "holder"))
	require.NoError(t, err)
	require.NoError(t, setIn(c, "k"))
	store.Rollback(0)
	awaitEnd(t, c.Done())
	require.ErrorIs(t, c.Close(), catalog.ErrLostCommit)
	_, err = catalog.Open(t.Context(), store.Open(), process(3, "restarted"))
	require.ErrorIs(t, err, catalog.ErrLossStands)
	require.ErrorContains(t, err, "`fencepost restored --above g3.e1`")
	operator := process(0, "operator")
	_, err = catalog.Raise(t.Context(), store.Open(), operator, catalog.RaiseOptions{Reason: "r"})
	require.ErrorIs(t, err, catalog.ErrNeverClaimed)
	claim, err := catalog.Raise(t.Context(), store.Open(), operator, catalog.RaiseOptions{Reason: "r", Above: c.Token()})
	require.NoError(t, err)
	require.Equal(t, "g3.e2", claim.Token.String())
	next, err := catalog.Open(t.Context(), store.Open(), process(3, "restarted"))
	require.NoError(t, err)
	require.NoError(t, setIn(next, "k"))
	require.NoError(t, next.Close())
	store.Rollback(0)
	_, err = catalog.Raise(t.Context(), store.Open(), operator, catalog.RaiseOptions{Reason: "r", Above: c.Token()})
	require.ErrorIs(t, err, catalog.ErrNeverClaimed, "no loss says that it was claimed")
}
