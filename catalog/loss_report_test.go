package catalog

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	inmemory "github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/exitcodes"
)

// reports is a store of one claim and a loss over its head, and a holder that can
// commit behind it. onPut gets the number of each write of the record, from 1 on.
type reports struct {
	driver.Store
	onPut     func(n int, put func() (int64, error)) (int64, error)
	onLosses  func() // behind the first reading of the record
	onLog     error
	headFails int // how often
	puts      int
}

func (r *reports) Losses(ctx context.Context) (driver.Losses, error) {
	l, err := r.Store.Losses(ctx)
	if once := r.onLosses; once != nil {
		r.onLosses = nil
		once()
	}
	return l, err
}

func (r *reports) Log(ctx context.Context, after uint64, fn func(driver.Record) error) error {
	if r.onLog != nil {
		return r.onLog
	}
	return r.Store.Log(ctx, after, fn)
}

func (r *reports) Head(ctx context.Context) (driver.Head, error) {
	if r.headFails > 0 {
		r.headFails--
		return driver.Head{}, &driver.Error{Class: driver.Class{Disposition: exitcodes.Retry}, Store: r.String(), Op: "head", Err: errors.New("no")}
	}
	return r.Store.Head(ctx)
}

func (r *reports) PutLosses(ctx context.Context, l driver.Losses, at *driver.Head) (int64, error) {
	put := func() (int64, error) { return r.Store.PutLosses(ctx, l, at) }
	if r.puts++; r.onPut == nil {
		return put()
	}
	return r.onPut(r.puts, put)
}

func newReports(t *testing.T) (store *reports, w *witness, commit func()) {
	t.Helper()
	memory := inmemory.New()
	c, err := Open(t.Context(), memory.Open(), Config{Generation: 1})
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	store = &reports{Store: memory}
	w = witnessed(store)
	_, err = w.Head(t.Context())
	require.NoError(t, err)
	return store, w, func() {
		require.NoError(t, c.Update(t.Context(), func(tx *Tx) error { return Bytes("c").Set(tx, "k", nil) }))
	}
}

// lost is what a finder says that has seen two more commits under the head's claim.
func lost(t *testing.T, w *witness) error {
	t.Helper()
	head, err := w.Store.Head(t.Context())
	require.NoError(t, err)
	had := head
	had.Revision, had.Commit = had.Revision+2, driver.NewID()
	return lostCommit(had, head, "a test")
}

func report(t *testing.T, w *witness, err error) string {
	t.Helper()
	cfg := Config{}.withDefaults()
	return w.reportLoss(t.Context(), cfg, err).Error()
}

func recorded(t *testing.T, w *witness) []Loss {
	t.Helper()
	losses, err := Losses(t.Context(), w)
	require.NoError(t, err)
	return losses
}

func TestALossIsRecordedThoughTheProcessIsAboutToEnd(t *testing.T) {
	t.Parallel()
	_, w, _ := newReports(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorContains(t, w.reportLoss(ctx, Config{}.withDefaults(), lost(t, w)), "recorded as loss")
	require.Len(t, recorded(t, w), 1)
}

func TestALossIsRecordedOnceThoughItsErrorIsReportedAgain(t *testing.T) {
	t.Parallel()
	_, w, _ := newReports(t)
	found := lost(t, w)
	said := report(t, w, found)
	l := recorded(t, w)[0]
	require.NoError(t, DismissLoss(t.Context(), w, Config{}, l, "operator"))
	require.Equal(t, said, report(t, w, found))
	require.Len(t, recorded(t, w), 1)
	require.False(t, recorded(t, w)[0].Open(), "somebody has dealt with it")
}

func TestALossThatIsFoundByItsTokenAloneNamesTheHighestThatWasSeen(t *testing.T) {
	t.Parallel()
	_, w, _ := newReports(t)
	head, err := w.Store.Head(t.Context())
	require.NoError(t, err)
	report(t, w, lostCommit(driver.Head{Revision: head.Revision + 2, Commit: driver.NewID()}, head, "a test"))
	require.Equal(t, head.Claim.Token, recorded(t, w)[0].Token, "or no raise would be above it")
}

func TestALossIsRecordedThoughItsFirstWriteFailedInPassingOrItsAnswerWasLost(t *testing.T) {
	t.Parallel()
	for name, class := range map[string]driver.Class{
		"in passing":                  {Disposition: exitcodes.Retry},
		"an unknown outcome":          {Outcome: driver.Unknown},
		"a conflict, and head unread": {},
	} {
		store, w, _ := newReports(t)
		found := lost(t, w)
		store.headFails = 1
		store.onPut = func(n int, put func() (int64, error)) (int64, error) {
			if n > 1 {
				return put()
			}
			err := &driver.Error{Class: class, Store: store.String(), Op: "put losses", Err: errors.New("no")}
			if class == (driver.Class{}) {
				err.Err = driver.ErrConflict
			}
			return 0, err
		}
		require.Contains(t, report(t, w, found), "recorded as loss", name)
		require.Len(t, recorded(t, w), 1, name)
	}
}

func TestALossIsRecordedBesideOneThatCameInBetween(t *testing.T) {
	t.Parallel()
	store, w, _ := newReports(t)
	other := lossOver(driver.NewID(), 1, 3, 3)
	store.onLosses = func() {
		record, err := store.Losses(t.Context())
		require.NoError(t, err)
		led := ledger{Losses: []Loss{other}}
		record.Text, err = led.text()
		require.NoError(t, err)
		_, err = store.Store.PutLosses(t.Context(), record, nil)
		require.NoError(t, err)
	}
	require.Contains(t, report(t, w, lost(t, w)), "recorded as loss")
	losses := recorded(t, w)
	require.Len(t, losses, 2)
	require.Equal(t, other, losses[0])
	said := report(t, w, lost(t, w))
	require.Len(t, recorded(t, w), 2)
	require.Contains(t, said, "--dismiss="+losses[1].ID.String(), "the one that it became part of")
}

// A holder that has claimed since goes on committing, and is told nevertheless.
func TestALossOverWhichAnotherClaimsWhileItIsRecordedStopsNobody(t *testing.T) {
	t.Parallel()
	store, w, _ := newReports(t)
	found := lost(t, w)
	next, err := Open(t.Context(), store.Store, Config{Generation: 1})
	require.NoError(t, err)
	store.onPut = func(n int, put func() (int64, error)) (int64, error) {
		if n < 5 {
			require.NoError(t, next.Update(t.Context(), func(tx *Tx) error { return Bytes("c").Set(tx, "k", nil) }))
		}
		return put()
	}
	require.Contains(t, report(t, w, found), "another process has claimed since")
	require.Equal(t, 2, store.puts, "it needs no head any more")
	require.Len(t, recorded(t, w), 1)
	require.True(t, recorded(t, w)[0].Overtaken)
	require.NoError(t, next.Close())
}

// A server that is behind, or another one's, has shown a head that was never the
// newest: so the record is refused on it, and the store is asked.
func TestALossIsRecordedUnlessTheStoreShowsAgainWhatWasMissing(t *testing.T) {
	t.Parallel()
	const again, once, overtaken = "the store shows it again", "recorded as loss", "another process has claimed since"
	elsewhere := driver.Head{Revision: 9, Commit: driver.NewID(), Claim: driver.Claim{ID: driver.NewID(), Revision: 9}}
	other := driver.Claim{ID: driver.NewID(), Revision: 1}
	compacted := &driver.Error{Op: "log", Err: driver.ErrCompacted}
	for name, row := range map[string]struct {
		had, found func(now driver.Head) driver.Head
		log        error
		says       string
	}{
		"the commit is there": {
			had:   func(now driver.Head) driver.Head { return now },
			found: func(driver.Head) driver.Head { return elsewhere }, says: again,
		},
		"another commit is there": {
			had:   func(now driver.Head) driver.Head { now.Commit = driver.NewID(); return now },
			found: func(driver.Head) driver.Head { return elsewhere }, says: overtaken,
		},
		"the claim is there, and no more was known": {
			had:   func(now driver.Head) driver.Head { return driver.Head{Claim: now.Claim} },
			found: func(driver.Head) driver.Head { return elsewhere }, says: again,
		},
		"another claim is there, and no more was known": {
			had:   func(driver.Head) driver.Head { return driver.Head{Claim: other} },
			found: func(driver.Head) driver.Head { return elsewhere }, says: overtaken,
		},
		"a foreign commit lies behind the commit, under its own claim": {
			had: func(now driver.Head) driver.Head { return now },
			found: func(now driver.Head) driver.Head {
				now.Revision, now.Commit = now.Revision+1, driver.NewID()
				return now
			}, says: once,
		},
		"the commit was compacted under its claim": {
			had:   func(now driver.Head) driver.Head { return now },
			found: func(driver.Head) driver.Head { return elsewhere }, log: compacted, says: again,
		},
		"it was compacted under another claim": {
			had:   func(now driver.Head) driver.Head { now.Claim = other; return now },
			found: func(driver.Head) driver.Head { return elsewhere }, log: compacted, says: overtaken,
		},
	} {
		store, w, commit := newReports(t)
		commit()
		now, err := store.Head(t.Context())
		require.NoError(t, err)
		found := lostCommit(row.had(now), row.found(now), "a test")
		commit()
		store.onLog = row.log
		require.Contains(t, report(t, w, found), row.says, name)
		if row.says == again {
			require.Empty(t, recorded(t, w), name)
		} else {
			require.Len(t, recorded(t, w), 1, name)
		}
	}
}

// The loss is found in a head, and that moves: as long as the claim is the same,
// the commits behind it were built on what is left.
func TestALossIsRecordedHoweverManyCommitsMoveTheHeadOnWhichItWasFound(t *testing.T) {
	t.Parallel()
	store, w, commit := newReports(t)
	store.onPut = func(n int, put func() (int64, error)) (int64, error) {
		if n <= maxLies+2 {
			commit()
		}
		return put()
	}
	found := lost(t, w)
	require.Contains(t, report(t, w, found), "recorded as loss")
	require.Len(t, recorded(t, w), 1)
	require.True(t, recorded(t, w)[0].Stands())
}

func TestALossThatCantBeRecordedForGoodIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	store, w, _ := newReports(t)
	store.onPut = func(int, func() (int64, error)) (int64, error) {
		return 0, &driver.Error{Class: driver.Class{Disposition: exitcodes.Halt}, Op: "put losses", Err: errors.New("no rights")}
	}
	require.Contains(t, report(t, w, lost(t, w)), "this could not be written into the store")
	require.Equal(t, 1, store.puts)
}

// A record can't be made on a head that the store never had.
func TestARecordThatIsRefusedThoughNothingHasChangedIsGivenUp(t *testing.T) {
	t.Parallel()
	store, w, _ := newReports(t)
	store.onPut = func(int, func() (int64, error)) (int64, error) {
		return 0, &driver.Error{Op: "put losses", Err: driver.ErrConflict}
	}
	begun := make(chan string, 1)
	go func() { begun <- report(t, w, lost(t, w)) }()
	select {
	case said := <-begun:
		require.Contains(t, said, "this could not be written into the store")
	case <-time.After(time.Minute):
		require.Fail(t, "it goes on")
	}
	require.Equal(t, maxLies, store.puts)
}
