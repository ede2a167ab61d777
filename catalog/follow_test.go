package catalog_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/exitcodes"
)

func TestALogThatDoesNotLeadToItsHeadIsNeitherFollowedNorClaimedOver(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		records func(n int, rec driver.Record) (driver.Record, bool)
		want    error
	}{
		"it ends before the head": {func(n int, rec driver.Record) (driver.Record, bool) { return rec, n < 3 }, driver.ErrCorrupt},
		"it ends with another commit": {func(n int, rec driver.Record) (driver.Record, bool) {
			if n == 3 {
				rec.ID = driver.NewID()
			}
			return rec, true
		}, driver.ErrCorrupt},
		"it bears a higher token": {func(n int, rec driver.Record) (driver.Record, bool) {
			if n == 2 {
				rec.Token.Epoch++
			}
			return rec, true
		}, catalog.ErrLostCommit},
	} {
		store := memory.New()
		c, err := catalog.Open(t.Context(), store.Open(), process(1, "holder"))
		require.NoError(t, err)
		require.NoError(t, errors.Join(setIn(c, "a"), setIn(c, "b"), c.Close()))
		s := liar{Store: store.Open(), records: row.records}
		_, err = catalog.Follow(t.Context(), s, process(1, "follower"))
		require.ErrorIs(t, err, row.want, name)
		require.Equal(t, exitcodes.Panic, exitcodes.Of(err), name)
		_, err = catalog.Open(t.Context(), s, process(1, "claimer"))
		require.ErrorIs(t, err, row.want, name)
		head, err := store.Head(t.Context())
		require.NoError(t, err)
		require.Equal(t, c.Token(), head.Claim.Token, name)
	}
}
