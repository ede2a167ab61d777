package catalog_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

func process(g generation.Generation, name string) catalog.Config {
	return catalog.Config{Generation: g, Holder: fence.Holder{Name: name}, PollInterval: 20 * time.Millisecond, RetryBudget: 5 * time.Second}
}

func setIn(c *catalog.Catalog, key string) error {
	return c.Update(context.Background(), func(tx *catalog.Tx) error {
		return catalog.JSON[string]("c").Set(tx, key, "v")
	})
}

// follow begins to follow, and has read up to the holder's head.
func followTo(t *testing.T, store driver.Store, cfg catalog.Config, c *catalog.Catalog) *catalog.Follower {
	t.Helper()
	f, err := catalog.Follow(t.Context(), store, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() })
	require.NoError(t, f.Wait(t.Context(), func(h driver.Head) bool { return h.Revision >= c.Head().Revision }))
	return f
}

func awaitEnd(t *testing.T, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(time.Minute):
		require.Fail(t, "it goes on")
	}
}

// deafStore wakes nobody, so that only its own polls tell a process anything.
type deafStore struct{ driver.Store }

func TestALossThatSeveralProcessesFindIsOneLoss(t *testing.T) {
	t.Parallel()
	store := memory.New()
	c, err := catalog.Open(t.Context(), store, process(1, "holder"))
	require.NoError(t, err)
	defer func() { _ = c.Close() }()
	for i := range 4 {
		require.NoError(t, setIn(c, fmt.Sprint(i)))
	}
	var followers []*catalog.Follower
	for i := range 3 {
		followers = append(followers, followTo(t, store.Open(), process(1, fmt.Sprint("follower ", i)), c))
	}
	acked := c.Head().Revision
	store.Rollback(acked - 2)
	awaitEnd(t, c.Done())
	for _, f := range followers {
		awaitEnd(t, f.Done())
		require.ErrorIs(t, f.Err(), catalog.ErrLostCommit)
		require.Equal(t, exitcodes.Panic, exitcodes.Of(f.Err()))
	}
	require.ErrorIs(t, c.Close(), catalog.ErrLostCommit)
	losses, err := catalog.Losses(t.Context(), store)
	require.NoError(t, err)
	require.Len(t, losses, 1)
	require.Equal(t, []uint64{acked - 1, acked}, []uint64{losses[0].From, losses[0].To}, "the holder knows most")
	_, err = catalog.Open(t.Context(), store.Open(), process(1, "restarted"))
	require.ErrorIs(t, err, catalog.ErrLossStands)
}

func TestAFollowerFindsTheLossOfACommitThatALaterOneShowsToBeAcknowledged(t *testing.T) {
	t.Parallel()
	for _, lost := range []uint64{1, 2} {
		store := memory.New()
		c, err := catalog.Open(t.Context(), deafStore{store}, catalog.Config{Generation: 1, PollInterval: time.Hour})
		require.NoError(t, err)
		require.NoError(t, setIn(c, "a"))
		require.NoError(t, setIn(c, "b"))
		require.NoError(t, setIn(c, "c"))
		f := followTo(t, store.Open(), process(1, "follower"), c)
		require.NoError(t, c.Close()) // or it would find the loss too
		store.Rollback(c.Head().Revision - lost)
		awaitEnd(t, f.Done())
		losses, err := catalog.Losses(t.Context(), store)
		require.NoError(t, err)
		if lost == 1 { // nobody but the holder knows that it was acknowledged
			require.NotErrorIs(t, f.Err(), catalog.ErrLostCommit)
			require.Equal(t, exitcodes.Halt, exitcodes.Of(f.Err()))
			require.Empty(t, losses)
		} else {
			require.ErrorIs(t, f.Err(), catalog.ErrLostCommit)
			require.Len(t, losses, 1)
			require.EqualValues(t, 3, losses[0].From)
			require.EqualValues(t, 3, losses[0].To)
			require.Contains(t, losses[0].By, "follower")
		}
	}
}

// mute is a store whose writes land, and whose answers to them never arrive while
// it is silent: the waits for a synchronous standby are cut.
type mute struct {
	driver.Store
	silent atomic.Bool
	twice  bool // each commit is sent twice, and what arrives is the answer to the second copy
}

func (m *mute) cut(err error) error {
	if err == nil && m.silent.Load() {
		return &driver.Error{Class: driver.Class{Disposition: exitcodes.Retry, Outcome: driver.Unknown}, Store: m.String(), Op: "write", Err: context.DeadlineExceeded}
	}
	return err
}

func (m *mute) Append(ctx context.Context, prior driver.Head, rec driver.Record) error {
	err := m.Store.Append(ctx, prior, rec)
	if err == nil && m.twice && m.silent.Load() {
		err = m.Store.Append(ctx, prior, rec)
	}
	return m.cut(err)
}

func (m *mute) Stage(ctx context.Context, by driver.Claim, id driver.ID, n int, part []byte) error {
	return m.cut(m.Store.Stage(ctx, by, id, n, part))
}

func TestACommitIsAcknowledgedOnceItsCallerWasTold(t *testing.T) {
	t.Parallel()
	for name, budget := range map[string]time.Duration{"and is given up": 200 * time.Millisecond, "and is tried still": time.Minute} {
		store := memory.New()
		m := &mute{Store: store}
		cfg := process(1, "holder")
		cfg.RetryBudget = budget
		c, err := catalog.Open(t.Context(), m, cfg)
		require.NoError(t, err)
		require.NoError(t, setIn(c, "told"))
		told := c.Head().Revision
		m.silent.Store(true)
		fate := make(chan error, 1)
		go func() { fate <- setIn(c, "never told") }()
		var err2 error
		if budget < time.Minute {
			err2 = <-fate
			require.ErrorIs(t, err2, catalog.ErrUnknownOutcome, name)
			require.NotErrorIs(t, err2, catalog.ErrLostCommit)
		} else {
			require.Eventually(t, func() bool { return c.Head().Revision > told+1 }, time.Minute, time.Millisecond)
		}
		var followers []*catalog.Follower
		for i := range 3 {
			followers = append(followers, followTo(t, store.Open(), process(1, fmt.Sprint("follower ", i)), c))
		}
		store.Rollback(told) // the fail-over takes back what no standby has
		m.silent.Store(false)
		awaitEnd(t, c.Done())
		err = c.Close()
		require.Error(t, err, name)
		require.NotErrorIs(t, err, catalog.ErrLostCommit, name)
		require.NotEqual(t, exitcodes.Panic, exitcodes.Of(err), name)
		for _, f := range followers {
			awaitEnd(t, f.Done())
			require.NotErrorIs(t, f.Err(), catalog.ErrLostCommit, name)
			require.Equal(t, exitcodes.Halt, exitcodes.Of(f.Err()), name)
		}
		if err2 == nil {
			require.Error(t, <-fate)
		}
		losses, err := catalog.Losses(t.Context(), store)
		require.NoError(t, err)
		require.Empty(t, losses, name)
		next, err := catalog.Open(t.Context(), store.Open(), process(1, "restarted"))
		require.NoError(t, err, name)
		require.NoError(t, next.Close())
	}
}

func TestACommitBehindOneThatIsNotSettledWaitsForThat(t *testing.T) {
	t.Parallel()
	store := memory.New()
	m := &mute{Store: store, twice: true}
	cfg := process(1, "holder")
	cfg.RetryBudget = 200 * time.Millisecond
	c, err := catalog.Open(t.Context(), m, cfg)
	require.NoError(t, err)
	defer func() { _ = c.Close() }()
	m.silent.Store(true)
	require.ErrorIs(t, setIn(c, "a"), catalog.ErrUnknownOutcome)
	before := c.Head().Revision
	m.silent.Store(false)
	require.NoError(t, setIn(c, "b"))
	var changes []int
	require.NoError(t, catalog.ReadLog(t.Context(), store, before, func(commit catalog.Commit) error {
		changes = append(changes, len(commit.Changes))
		return nil
	}))
	require.Equal(t, []int{0, 1}, changes, "an empty commit that settles the one before, and the next")
}

func TestAClaimerThatFindsALossRecordsIt(t *testing.T) {
	t.Parallel()
	store := memory.New()
	first, err := catalog.Open(t.Context(), store, process(1, "first"))
	require.NoError(t, err)
	second, err := catalog.Open(t.Context(), store.Open(), process(2, "second"))
	require.NoError(t, err)
	require.NoError(t, setIn(second, "k"))
	seen := catalog.Witnessed(store.Open()) // of a process that has read the head
	_, err = seen.Head(t.Context())
	require.NoError(t, err)
	require.NoError(t, second.Close())
	_ = first.Close()
	store.Rollback(1)
	_, err = catalog.Open(t.Context(), seen, process(2, "claimer"))
	require.ErrorIs(t, err, catalog.ErrLostCommit)
	losses, err := catalog.Losses(t.Context(), store)
	require.NoError(t, err)
	require.Len(t, losses, 1)
	require.Contains(t, losses[0].By, "claimer")
	require.Equal(t, "g2.e2", losses[0].Token.String())
	require.Equal(t, "g1.e1", losses[0].Left.String())
	require.EqualValues(t, 2, losses[0].From)
	require.EqualValues(t, 3, losses[0].To)
}

// onClaim is a store that something happens to just before a claim.
type onClaim struct {
	driver.Store
	before func()
}

func (s onClaim) Claim(ctx context.Context) (driver.Claiming, error) {
	s.before()
	return s.Store.Claim(ctx)
}

func TestAClaimerThatFindsALossUnderItsClaimRecordsItToo(t *testing.T) {
	t.Parallel()
	store := memory.New()
	first, err := catalog.Open(t.Context(), store, process(1, "first"))
	require.NoError(t, err)
	require.NoError(t, setIn(first, "k"))
	require.NoError(t, first.Close())
	_, err = catalog.Raise(t.Context(), store, process(0, "operator"), catalog.RaiseOptions{Reason: "r"})
	require.NoError(t, err)
	cfg := process(2, "claimer")
	cfg.PollInterval = time.Hour // what was read before the claim is not read again
	_, err = catalog.Open(t.Context(), onClaim{store.Open(), func() { store.Rollback(2) }}, cfg)
	require.ErrorIs(t, err, catalog.ErrLostCommit)
	losses, err := catalog.Losses(t.Context(), store)
	require.NoError(t, err)
	require.Len(t, losses, 1)
	require.Contains(t, losses[0].By, "claimer")
	require.Equal(t, "g1.e2", losses[0].Token.String())
}

// onAppend is a store whose commits go through a function.
type onAppend struct {
	driver.Store
	append func(ctx context.Context, prior driver.Head, rec driver.Record) error
}

func (s *onAppend) Append(ctx context.Context, prior driver.Head, rec driver.Record) error {
	return s.append(ctx, prior, rec)
}

func TestACommitThatIsGoneBeneathTheClaimThatFollowsIsNotAcknowledged(t *testing.T) {
	t.Parallel()
	store := memory.New()
	s := &onAppend{Store: store, append: store.Append}
	c, err := catalog.Open(t.Context(), s, process(1, "holder"))
	require.NoError(t, err)
	require.NoError(t, setIn(c, "told"))
	told, sent := c.Head().Revision, 0
	s.append = func(ctx context.Context, prior driver.Head, rec driver.Record) error {
		switch sent++; sent {
		case 1: // a copy of it has landed
			require.NoError(t, store.Append(ctx, prior, rec))
		case 2: // the one that is to settle it comes behind a fail-over
			store.Rollback(told)
			next, err := catalog.Open(ctx, store.Open(), process(2, "successor"))
			require.NoError(t, err)
			require.NoError(t, next.Close())
		}
		return store.Append(ctx, prior, rec)
	}
	err = setIn(c, "never told")
	require.ErrorIs(t, err, fence.ErrSuperseded)
	require.NotErrorIs(t, err, catalog.ErrLostCommit)
	require.ErrorIs(t, c.Close(), fence.ErrSuperseded)
	require.NoError(t, catalog.ReadLog(t.Context(), store, told, func(commit catalog.Commit) error {
		require.Empty(t, commit.Changes)
		return nil
	}))
}

// blind is a store whose head can't be read for a while: of a process that was
// stopped, or that can't reach the store.
type blind struct {
	driver.Store
	closed atomic.Bool
}

func (b *blind) Head(ctx context.Context) (driver.Head, error) {
	if b.closed.Load() {
		return driver.Head{}, &driver.Error{Class: driver.Class{Disposition: exitcodes.Retry}, Store: b.String(), Op: "head", Err: context.DeadlineExceeded}
	}
	return b.Store.Head(ctx)
}

func TestAProcessThatFindsALossOverWhichAnotherHasClaimedStopsNobody(t *testing.T) {
	t.Parallel()
	claims := func(store driver.Store) *catalog.Catalog {
		c, err := catalog.Open(t.Context(), store, process(1, "claimed since"))
		require.NoError(t, err)
		return c
	}
	for name, overtake := range map[string]func(store *memory.Store, second *catalog.Catalog){
		"with a higher token": func(store *memory.Store, second *catalog.Catalog) {
			store.Rollback(second.Head().Revision - 2)
			require.NoError(t, claims(store.Open()).Close())
		},
		"with a higher token, and more commits than were lost": func(store *memory.Store, second *catalog.Catalog) {
			store.Rollback(second.Head().Revision - 2)
			c := claims(store.Open())
			for range 5 {
				require.NoError(t, setIn(c, "more"))
			}
			require.NoError(t, c.Close())
		},
		"with the same token": func(store *memory.Store, second *catalog.Catalog) {
			store.Rollback(second.Claim().Revision - 1)
			require.NoError(t, claims(store.Open()).Close())
		},
		"by restored": func(store *memory.Store, second *catalog.Catalog) {
			store.Rollback(second.Claim().Revision - 1)
			_, err := catalog.Raise(t.Context(), store, process(0, "operator"), catalog.RaiseOptions{Reason: "r", Above: second.Token()})
			require.NoError(t, err)
		},
	} {
		store := memory.New()
		require.NoError(t, claims(store.Open()).Close())
		second := claims(store.Open())
		for i := range 3 {
			require.NoError(t, setIn(second, fmt.Sprint(i)))
		}
		late := &blind{Store: store.Open()}
		f := followTo(t, late, process(1, "late"), second)
		late.closed.Store(true)
		require.NoError(t, second.Close())
		overtake(store, second)
		late.closed.Store(false)
		awaitEnd(t, f.Done())
		require.ErrorIs(t, f.Err(), catalog.ErrLostCommit, name)
		losses, err := catalog.Losses(t.Context(), store)
		require.NoError(t, err)
		require.Len(t, losses, 1, name)
		require.True(t, losses[0].Overtaken, name)
		head, err := store.Head(t.Context())
		require.NoError(t, err)
		require.Equal(t, head.Claim.Revision, losses[0].From, name)
		require.NoError(t, claims(store.Open()).Close(), name)
	}
}
