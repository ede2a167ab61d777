package catalog

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	inmemory "github.com/fencepost/fencepost/catalog/memory"
)

// racing is a store that something happens to before its log is read, and before it
// is read under a claim.
type racing struct {
	driver.Store
	beside, under func()
	claims        int
}

func (s *racing) Log(ctx context.Context, after uint64, fn func(driver.Record) error) error {
	s.beside()
	return s.Store.Log(ctx, after, fn)
}

func (s *racing) Claim(ctx context.Context) (driver.Claiming, error) {
	s.claims++
	claiming, err := s.Store.Claim(ctx)
	return racingClaim{claiming, s}, err
}

type racingClaim struct {
	driver.Claiming
	of *racing
}

func (c racingClaim) Log(ctx context.Context, after uint64, fn func(driver.Record) error) error {
	c.of.under()
	return c.Claiming.Log(ctx, after, fn)
}

// compacts puts an empty snapshot in the place of the log before a revision.
func compacts(t *testing.T, store driver.Store, holder driver.Claim, revision uint64) {
	t.Helper()
	s := driver.Snapshot{ID: driver.NewID(), Revision: revision, Token: holder.Token, Parts: 1}
	require.ErrorIs(t, store.Log(t.Context(), revision-1, func(rec driver.Record) error {
		s.Commit = rec.ID
		return errEnough
	}), errEnough)
	require.NoError(t, store.Stage(t.Context(), holder, s.ID, 0, newPayload()))
	require.NoError(t, store.Publish(t.Context(), holder, s))
	_, err := store.Trim(t.Context(), holder)
	require.NoError(t, err)
}

// commits appends empty commits until the log has come to a revision.
func commits(t *testing.T, store driver.Store, revision uint64) driver.Head {
	t.Helper()
	head, err := store.Head(t.Context())
	require.NoError(t, err)
	for head.Revision < revision {
		rec := driver.Record{Revision: head.Revision + 1, ID: driver.NewID(), Token: head.Claim.Token, Payload: newPayload()}
		require.NoError(t, store.Append(t.Context(), head, rec))
		head = head.After(rec)
	}
	return head
}

// claimed is a catalog that was claimed by a process which has died since.
func claimed(t *testing.T) *inmemory.Store {
	t.Helper()
	store := inmemory.New()
	c, err := Open(t.Context(), store.Open(), Config{Generation: 1})
	require.NoError(t, err)
	require.NoError(t, c.Close())
	return store
}

// The holder commits and compacts faster than the claimer reads. Under the claim
// nobody commits, and two compactions more come to their end.
func TestAClaimBesideWhichTheLogIsCompactedAgainAndAgainReadsTheRestUnderIt(t *testing.T) {
	t.Parallel()
	store := claimed(t)
	head := commits(t, store, 3)
	s := &racing{Store: store}
	var beside, under int
	s.beside = func() {
		if beside++; beside == 1 {
			commits(t, store, 6)
			compacts(t, store, head.Claim, 4) // above the head that the claimer has read
		}
	}
	s.under = func() {
		if under++; under == 1 || under == 2 {
			compacts(t, store, head.Claim, 4+uint64(under))
		}
	}
	c, err := newReplica(witnessed(s), Config{Generation: 2}.withDefaults()).open(t.Context(), ClaimOptions{}, time.Time{})
	require.NoError(t, err)
	require.Equal(t, 1, beside, "readings beside the commits: they would have gone on for ever")
	require.Equal(t, 1, s.claims, "claims: the compactions would have gone on beside the next")
	require.Greater(t, under, 2)
	require.EqualValues(t, 7, c.Head().Revision)
	require.NoError(t, c.Close())
}

// reshaped is a store whose snapshot is what a function makes of it, and whose log was
// once compacted above what is asked for.
type reshaped struct {
	driver.Store
	snapshot  func(*driver.Snapshot)
	compacted bool
}

func (s *reshaped) Snapshot(ctx context.Context, fn func(driver.Snapshot, []byte) error) error {
	return s.Store.Snapshot(ctx, func(found driver.Snapshot, part []byte) error {
		s.snapshot(&found)
		return fn(found, part)
	})
}

func (s *reshaped) Log(ctx context.Context, after uint64, fn func(driver.Record) error) error {
	if s.compacted {
		s.compacted = false
		return driver.ErrCompacted
	}
	return s.Store.Log(ctx, after, fn)
}

// A snapshot is beneath the head that was read before it, and above what was read
// before that head.
func TestASnapshotThatLiesElsewhereThanItsLogSaysIsALoss(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		upTo     uint64 // read before
		snapshot func(*driver.Snapshot)
	}{
		"a higher token than the head's":  {0, func(s *driver.Snapshot) { s.Token.Epoch++ }},
		"below what was read before":      {6, func(*driver.Snapshot) {}},
		"no higher than what was read":    {5, func(*driver.Snapshot) {}},
		"a lower token than was read yet": {4, func(s *driver.Snapshot) { s.Token.Generation-- }},
	} {
		store := claimed(t)
		s := &reshaped{Store: store, snapshot: row.snapshot}
		r := newReplica(witnessed(s), Config{}.withDefaults())
		if row.upTo > 0 {
			require.NoError(t, r.advance(t.Context(), r.store, commits(t, store, row.upTo)), name)
		}
		head := commits(t, store, 7)
		compacts(t, store, head.Claim, 5)
		s.compacted = true
		require.ErrorIs(t, r.advance(t.Context(), r.store, head), ErrLostCommit, name)
		require.Equal(t, row.upTo, r.head.Revision, name)
	}
}

// skipping is a store whose log lacks a revision once it is read under a claim.
type skipping struct{ driver.Store }

func (s skipping) Claim(ctx context.Context) (driver.Claiming, error) {
	claiming, err := s.Store.Claim(ctx)
	return skippingClaim{claiming}, err
}

type skippingClaim struct{ driver.Claiming }

func (c skippingClaim) Log(ctx context.Context, after uint64, fn func(driver.Record) error) error {
	return c.Claiming.Log(ctx, after, func(rec driver.Record) error {
		if rec.Revision == 3 {
			return nil
		}
		return fn(rec)
	})
}

func TestALogThatSkipsARevisionUnderAClaimIsNotClaimedOver(t *testing.T) {
	t.Parallel()
	store := claimed(t)
	head := commits(t, store, 5)
	_, err := newReplica(witnessed(skipping{store}), Config{Generation: 2, PollInterval: time.Hour}.withDefaults()).open(t.Context(), ClaimOptions{}, time.Now())
	require.ErrorIs(t, err, driver.ErrCorrupt)
	now, err := store.Head(t.Context())
	require.NoError(t, err)
	require.Equal(t, head, now)
}
