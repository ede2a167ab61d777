package catalog_test

import (
	"context"
	"errors"
	"testing"
	"time"

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
		"it lacks a commit":  {func(n int, rec driver.Record) (driver.Record, bool) { return rec, n != 2 }, driver.ErrCorrupt},
		"it lacks the first": {func(n int, rec driver.Record) (driver.Record, bool) { return rec, n != 1 }, driver.ErrCorrupt},
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

func TestALogThatSkipsARevisionOrRepeatsOneIsCorruptForWhoeverReadsIt(t *testing.T) {
	t.Parallel()
	store := memory.New()
	c, err := catalog.Open(t.Context(), store.Open(), process(1, "holder"))
	require.NoError(t, err)
	claimed := catalog.Position{Revision: c.Head().Revision, Commit: c.Head().Commit}
	require.NoError(t, errors.Join(setIn(c, "a"), setIn(c, "b"), setIn(c, "c"), c.Close()))
	for name, records := range map[string]func(int, driver.Record) (driver.Record, bool){
		"one is left out": func(n int, rec driver.Record) (driver.Record, bool) { return rec, n != 3 },
		"one comes twice": func(n int, rec driver.Record) (driver.Record, bool) {
			if n == 4 { // the last
				rec.Revision--
			}
			return rec, true
		},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		s := liar{Store: store.Open(), records: records}
		read := map[string]error{
			"a reading of the log": catalog.ReadLog(ctx, s, 0, func(catalog.Commit) error { return nil }),
			"a feed":               catalog.Feed(ctx, s, process(1, "reader"), claimed, func(catalog.Event) error { return nil }),
			"a snapshot":           catalog.Snapshot(ctx, s, process(1, "reader"), func(driver.Head, *catalog.Reader) error { return nil }),
		}
		for who, err := range read {
			require.ErrorIs(t, err, driver.ErrCorrupt, "%s, %s", name, who)
			require.Equal(t, exitcodes.Panic, exitcodes.Of(err), "%s, %s", name, who)
		}
	}
}
