package drivertest

import (
	"context"
	"errors"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

func doubtfulClaimCases() []protocolCase {
	return []protocolCase{
		{"a claim whose answer was lost is unknown if its time is over before it is settled", claimInDoubt},
		{"a claim whose answer was lost stays unknown where the head has not moved", claimInDoubtAfterALook},
		{"a raise whose answer was lost is unknown if its time is over before it is settled", raiseInDoubt},
		{"a claim whose answer was lost is no longer unknown once another claim has taken its place", doubtEndedByFence},
		{"a raise whose answer was lost is no longer unknown once another claim has taken its place", raiseEndedByFence},
		{"a claim that landed and was fenced before its answer arrived is never called not applied", doubtBeneathAFence},
		{"a claim that is fenced while it is settled is never called not applied", doubtSettledByFence},
		{"a claim whose answer was lost is no longer unknown once a further try was refused for good", doubtEndedByTry},
	}
}

type install = func(ctx context.Context, cl driver.Claiming, c driver.Claim, rec driver.Record, when []driver.Note) error

// losesClaim returns a store that loses the first claim, its answer or all of
// it, and what happens then to later ones.
func (s *scene) losesClaim(lands bool, then func(), later install) *hooked {
	st := s.store()
	next := once[install](func(ctx context.Context, cl driver.Claiming, c driver.Claim, rec driver.Record, when []driver.Note) error {
		if lands {
			s.check(cl.Install(ctx, c, rec, when...))
		} else {
			cl.Abandon()
		}
		then()
		return lost(st, "install")
	}, later)
	return &hooked{Store: st, onInstall: func(ctx context.Context, cl driver.Claiming, c driver.Claim, rec driver.Record, when []driver.Note) error {
		return next()(ctx, cl, c, rec, when)
	}}
}

func claimInDoubt(s *scene) {
	s.inDoubt(func(ctx context.Context, st driver.Store) error {
		_, err := catalog.Open(ctx, st, migrating(1, 2))
		return err
	})
}

func raiseInDoubt(s *scene) {
	s.inDoubt(func(ctx context.Context, st driver.Store) error {
		_, err := catalog.Raise(ctx, st, operator(), catalog.RaiseOptions{Reason: "on purpose"})
		return err
	})
}

// inDoubt makes a claim whose time is over behind its first try.
func (s *scene) inDoubt(claim func(context.Context, driver.Store) error) {
	for _, lands := range []bool{true, false} {
		one := s.anew()
		require.NoError(one, one.claimsOver(one.store(), migrating(1, 1)).Close())
		ctx, cancel := context.WithCancel(Context(one))
		err := claim(ctx, one.losesClaim(lands, cancel, nil))
		require.ErrorIs(one, err, catalog.ErrUnknownOutcome)
		require.Equal(one, driver.Unknown, catalog.OutcomeOf(err))
		require.ErrorIs(one, err, errAnswerLost)
		require.Equal(one, exitcodes.Retry, exitcodes.Of(err), "what it was before it was in doubt")
		require.Len(one, ReadClaims(one, one.store(), 0), map[bool]int{true: 2, false: 1}[lands])
		one.end()
	}
}

// claimInDoubtAfterALook is about a claim that is still on its way: a head that
// has not moved says nothing about it.
func claimInDoubtAfterALook(s *scene) {
	require.NoError(s, s.claims(1).Close())
	before := ReadHead(s, s.store())
	ctx, cancel := context.WithCancel(Context(s))
	var st *hooked
	st = s.losesClaim(false, func() {
		st.onHead = func(ctx context.Context) (driver.Head, error) {
			defer cancel()
			return st.Store.Head(ctx)
		}
	}, nil)
	_, err := catalog.Open(ctx, st, slowly(config(1)))
	require.ErrorIs(s, err, catalog.ErrUnknownOutcome)
	SameHead(s, before, ReadHead(s, s.store()))
}

func doubtEndedByFence(s *scene) {
	require.NoError(s, s.claims(1).Close())
	st := s.losesClaim(false, func() { require.NoError(s, s.claims(2).Close()) }, nil)
	_, err := catalog.Open(Context(s), st, config(1))
	require.ErrorIs(s, err, fence.ErrSuperseded)
	require.Equal(s, driver.NotApplied, catalog.OutcomeOf(err))
}

func raiseEndedByFence(s *scene) {
	require.NoError(s, s.claims(1).Close())
	st := s.losesClaim(false, func() { require.NoError(s, s.claims(2).Close()) }, nil)
	_, err := catalog.Raise(Context(s), st, operator(), catalog.RaiseOptions{Reason: "on purpose"})
	require.ErrorIs(s, err, catalog.ErrRefused)
	require.Equal(s, driver.NotApplied, catalog.OutcomeOf(err))
}

// doubtBeneathAFence is about a claim that lies in the log, with what its
// migrations have written, though the newest one is another.
func doubtBeneathAFence(s *scene) {
	for _, rivals := range []int{1, 2} {
		for verdict, g := range map[error]generation.Generation{fence.ErrSuperseded: 2, fence.ErrFenced: 1} {
			one := s.anew()
			require.NoError(one, one.claims(1).Close())
			st := one.losesClaim(true, func() {
				for range rivals {
					require.NoError(one, one.claims(g).Close())
				}
			}, nil)
			_, err := catalog.Open(Context(one), st, config(1))
			require.ErrorIs(one, err, verdict)
			require.Equal(one, driver.Unknown, catalog.OutcomeOf(err))
			require.Len(one, ReadClaims(one, one.store(), 0), 2+rivals)
			one.end()
		}
	}
}

func doubtSettledByFence(s *scene) {
	require.NoError(s, s.claims(1).Close())
	st := s.losesClaim(true, func() {}, nil)
	fenced := once(func() { require.NoError(s, s.claims(2).Close()) }, func() {})
	st.onAppend = func(ctx context.Context, prior driver.Head, rec driver.Record) error {
		fenced()()
		return st.Store.Append(ctx, prior, rec)
	}
	_, err := catalog.Open(Context(s), st, config(1))
	require.ErrorIs(s, err, fence.ErrSuperseded)
	require.Equal(s, driver.Unknown, catalog.OutcomeOf(err))
	require.Len(s, ReadClaims(s, s.store(), 0), 3)
}

func doubtEndedByTry(s *scene) {
	require.NoError(s, s.claims(1).Close())
	mine := errors.New("no")
	st := s.losesClaim(false, func() {}, func(_ context.Context, cl driver.Claiming, _ driver.Claim, _ driver.Record, _ []driver.Note) error {
		cl.Abandon()
		return &driver.Error{Class: driver.Class{Disposition: exitcodes.Halt}, Op: "install", Err: mine}
	})
	_, err := catalog.Open(Context(s), st, config(1))
	require.ErrorIs(s, err, mine)
	require.NotErrorIs(s, err, catalog.ErrUnknownOutcome)
	require.Equal(s, driver.NotApplied, catalog.OutcomeOf(err))
}
