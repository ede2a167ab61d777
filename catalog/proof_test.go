package catalog_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/exitcodes"
)

// proving is a store whose scratch places fail, or are what change makes of them.
type proving struct {
	*memory.Store
	fails             []error // the first places
	change            func(driver.Store) driver.Store
	opened, discarded int
	ended             error // of the context under which the newest place was removed
}

func (p *proving) Scratch(ctx context.Context) (driver.Scratch, error) {
	if p.opened++; p.opened <= len(p.fails) {
		return driver.Scratch{}, p.fails[p.opened-1]
	}
	scratch, err := p.Store.Scratch(ctx)
	for i := range scratch.Stores {
		if p.change != nil {
			scratch.Stores[i] = p.change(scratch.Stores[i])
		}
	}
	discard := scratch.Discard
	scratch.Discard = func(ctx context.Context) error {
		p.discarded++
		p.ended = ctx.Err()
		return discard(ctx)
	}
	return scratch, err
}

// liar is a store whose commits, notes or records are what its functions make of
// them.
type liar struct {
	driver.Store
	append  func(error) error
	note    func(key string) error
	records func(n int, rec driver.Record) (driver.Record, bool)
	broken  error // of the log
}

func (l liar) Append(ctx context.Context, prior driver.Head, rec driver.Record) error {
	err := l.Store.Append(ctx, prior, rec)
	if l.append != nil {
		return l.append(err)
	}
	return err
}

func (l liar) Post(ctx context.Context, n driver.Note) (int64, error) {
	if l.note != nil {
		if err := l.note(n.Key); err != nil {
			return 0, err
		}
	}
	return l.Store.Post(ctx, n)
}

func (l liar) Log(ctx context.Context, after uint64, fn func(driver.Record) error) error {
	if l.broken != nil {
		return l.broken
	}
	n := 0
	return l.Store.Log(ctx, after, func(rec driver.Record) error {
		if n++; l.records != nil {
			var shown bool
			if rec, shown = l.records(n, rec); !shown {
				return nil
			}
		}
		return fn(rec)
	})
}

func answer(d exitcodes.Disposition, err error) error {
	return &driver.Error{Class: driver.Class{Disposition: d}, Store: "liar", Op: "test", Err: err}
}

func TestAStoreWithoutScratchPlacesIsNotProven(t *testing.T) {
	t.Parallel()
	found, err := catalog.Prove(t.Context(), deafStore{memory.New()}, catalog.Config{})
	require.ErrorIs(t, err, catalog.ErrUncheckable)
	require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
	require.False(t, found.Passed)
}

func TestACheckBeginsAgainBehindAFailureInPassingAndBehindNoOther(t *testing.T) {
	t.Parallel()
	s := &proving{Store: memory.New(), fails: []error{answer(exitcodes.Retry, errors.New("busy"))}}
	found, err := catalog.Prove(t.Context(), s, catalog.Config{})
	require.NoError(t, err)
	require.True(t, found.Passed)
	require.Equal(t, []int{2, 1}, []int{s.opened, s.discarded})

	s = &proving{Store: memory.New(), fails: []error{answer(exitcodes.Halt, errors.New("no rights"))}}
	_, err = catalog.Prove(t.Context(), s, catalog.Config{})
	require.Equal(t, exitcodes.Halt, exitcodes.Of(err))
	require.NotErrorIs(t, err, driver.ErrTwoWon)
	require.Equal(t, 1, s.opened)
	_, made, err := catalog.LastProof(t.Context(), s, catalog.Config{})
	require.NoError(t, err)
	require.False(t, made)
}

func TestACheckThatFailedIsKeptAndItsPlaceRemoved(t *testing.T) {
	t.Parallel()
	s := &proving{Store: memory.New(), change: func(s driver.Store) driver.Store {
		return liar{Store: s, append: func(error) error { return nil }}
	}}
	found, err := catalog.Prove(t.Context(), s, catalog.Config{})
	require.ErrorIs(t, err, driver.ErrTwoWon)
	require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
	require.Equal(t, err.Error(), found.Failure)
	require.Equal(t, []int{1, 1}, []int{s.opened, s.discarded}, "it is not tried until it passes")
	last, made, err := catalog.LastProof(t.Context(), s, catalog.Config{})
	require.NoError(t, err)
	require.True(t, made)
	require.False(t, last.Passed)
	require.True(t, found.At.Equal(last.At))
}

func TestAFirstClaimWhoseCheckCantBeKeptIsMadeNevertheless(t *testing.T) {
	t.Parallel()
	c, err := catalog.Open(t.Context(), unposted{&proving{Store: memory.New()}}, catalog.Config{Generation: 1})
	require.NoError(t, err)
	require.NoError(t, c.Close())
}

type unposted struct{ *proving }

func (unposted) Post(context.Context, driver.Note) (int64, error) {
	return 0, answer(exitcodes.Halt, errors.New("no rights"))
}

func TestAStoreWhoseLogIsNotWhatItAcknowledgedIsNotClaimed(t *testing.T) {
	t.Parallel()
	for name, l := range map[string]liar{
		"it lacks a write":            {records: func(n int, rec driver.Record) (driver.Record, bool) { return rec, n != 2 }},
		"it has another in its place": {records: func(n int, rec driver.Record) (driver.Record, bool) { rec.ID[0] ^= 1; return rec, true }},
		"it is corrupt":               {broken: answer(exitcodes.Panic, driver.ErrCorrupt)},
	} {
		s := &proving{Store: memory.New(), change: func(s driver.Store) driver.Store { l.Store = s; return l }}
		_, err := catalog.Open(t.Context(), s, catalog.Config{Generation: 1})
		require.ErrorIs(t, err, driver.ErrTwoWon, name)
		head, err := s.Head(t.Context())
		require.NoError(t, err)
		require.True(t, head.IsZero(), name)
	}
}

// Nothing has been seen of a store that refuses whatever it is asked for.
func TestACheckInWhichEveryWriteIsRefusedIsNotFinished(t *testing.T) {
	t.Parallel()
	refused := answer(exitcodes.None, driver.ErrConflict)
	for name, change := range map[string]func(driver.Store) driver.Store{
		"commits": func(s driver.Store) driver.Store { return refusing{s} },
		"notes": func(s driver.Store) driver.Store {
			return liar{Store: s, note: func(key string) error {
				if strings.HasPrefix(key, "race") {
					return refused
				}
				return nil
			}}
		},
	} {
		s := &proving{Store: memory.New(), change: change}
		_, err := catalog.Prove(t.Context(), s, catalog.Config{RetryBudget: 1})
		require.Error(t, err, name)
		require.NotErrorIs(t, err, driver.ErrTwoWon, name)
		require.Equal(t, exitcodes.TempFail, exitcodes.CodeOf(err), name)
	}
}

// refusing refuses every commit.
type refusing struct{ driver.Store }

func (refusing) Append(context.Context, driver.Head, driver.Record) error {
	return answer(exitcodes.None, driver.ErrConflict)
}

func TestAStoreWhoseWaysAreOneAndTheSamePassesItsCheck(t *testing.T) {
	t.Parallel()
	var first driver.Store
	s := &proving{Store: memory.New(), change: func(s driver.Store) driver.Store {
		if first == nil {
			first = s
		}
		return first
	}}
	found, err := catalog.Prove(t.Context(), s, catalog.Config{})
	require.NoError(t, err)
	require.True(t, found.Passed)
}

func TestTheScratchPlaceOfACheckWhoseCallerHasLeftIsRemoved(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := &proving{Store: memory.New(), change: func(s driver.Store) driver.Store {
		return liar{Store: s, append: func(err error) error { cancel(); return err }}
	}}
	_, err := catalog.Prove(ctx, s, catalog.Config{})
	require.Error(t, err)
	require.Equal(t, []int{1, 1}, []int{s.opened, s.discarded})
	require.NoError(t, s.ended, "the removal was cut short")
}

// doubtful is the scratch place of a check that begins with claims and two rounds of
// commits. Of the claim and the commit that come next no answer arrives, and the
// commit lands late.
type doubtful struct {
	mu                sync.Mutex
	stores            int
	appends, installs int
	late              func() // lands it; nil unless it is on its way
}

type doubtfulStore struct {
	driver.Store
	of *doubtful
}

var errNoAnswer = &driver.Error{Class: driver.Class{Disposition: exitcodes.Retry, Outcome: driver.Unknown}, Store: "doubtful", Op: "test", Err: errFirst}

func (s doubtfulStore) Append(ctx context.Context, prior driver.Head, rec driver.Record) error {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	switch s.of.appends++; {
	case s.of.appends == 2*s.of.stores+1:
		s.of.late = func() { _ = s.Store.Append(context.WithoutCancel(ctx), prior, rec) }
		return errNoAnswer
	case s.of.late != nil:
		s.of.late()
		s.of.late = nil
	}
	return s.Store.Append(ctx, prior, rec)
}

func (s doubtfulStore) Claim(ctx context.Context) (driver.Claiming, error) {
	claiming, err := s.Store.Claim(ctx)
	return doubtfulClaim{claiming, s.of}, err
}

type doubtfulClaim struct {
	driver.Claiming
	of *doubtful
}

func (c doubtfulClaim) Install(ctx context.Context, claim driver.Claim, rec driver.Record, when ...driver.Note) error {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	if c.of.installs++; c.of.installs == 3 {
		return errNoAnswer
	}
	return c.Claiming.Install(ctx, claim, rec, when...)
}

// A store that is slow is not one that lets two win.
func TestAWriteOfACheckThatLandsLateIsNotJudgedAndTheCheckBeginsAgain(t *testing.T) {
	t.Parallel()
	of := &doubtful{}
	s := &proving{Store: memory.New()}
	s.change = func(st driver.Store) driver.Store {
		if s.opened > 1 {
			return st
		}
		of.stores++
		return doubtfulStore{st, of}
	}
	found, err := catalog.Prove(t.Context(), s, catalog.Config{})
	require.NoError(t, err)
	require.True(t, found.Passed)
	require.Equal(t, []int{2, 2}, []int{s.opened, s.discarded})
	require.Equal(t, []int{2*of.stores + 1, 3}, []int{of.appends, of.installs}, "writes until one was in doubt")
}
